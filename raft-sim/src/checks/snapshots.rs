//! Snapshots: I17 a snapshot is the state at its index, everywhere the same; and nothing is
//! forgotten that no snapshot stands for.

use std::collections::BTreeMap;

use raft_core::{Effect, Index, NodeId, Position, Rpc, SnapshotMeta};

use super::commits::Commits;
use super::logs::Logs;
use super::{Step, Verdict, ensure};
use crate::digest::of_bytes;
use crate::disk::Snapshot;
use crate::slot;

/// The snapshots that there ever were.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// The digest of the bytes of each, by where it ends.
    known: BTreeMap<Position, u64>,
}

impl Snapshots {
    /// A node has written its state machine down.
    pub(super) fn on_taken(&mut self, node: NodeId, snapshot: &Snapshot, commits: &Commits) -> Verdict {
        let last = snapshot.meta.last;
        stands(node, "writes down", &snapshot.meta, commits)?;
        let digest = of_bytes(&snapshot.machine);
        let known = *self.known.entry(last).or_insert(digest);
        ensure!(known == digest, SnapshotFidelity, "{node} has another snapshot of {last} than somebody before");
        Ok(())
    }

    /// Judges what a step installs; `logs` as before the step.
    pub(super) fn on_installs(&self, step: &Step<'_>, logs: &Logs, commits: &Commits) -> Verdict {
        let node = step.node;
        for effect in step.effects {
            let Effect::InstallSnapshot { meta, .. } = effect else { continue };
            stands(node, "installs", meta, commits)?;
            ensure!(
                meta.last.index > step.before.log.commit,
                SnapshotFidelity,
                "{node} installs a snapshot of {}, having committed {}",
                meta.last,
                step.before.log.commit
            );
            ensure!(
                step.inbox.appends || !logs.holds(node, meta.last),
                SnapshotFidelity,
                "{node} installs a snapshot of {}, which its log holds (contract S2)",
                meta.last
            );
        }
        Ok(())
    }

    /// Judges what else a step does with snapshots, and with the log before them.
    pub(super) fn on_step(&self, step: &Step<'_>, commits: &Commits) -> Verdict {
        let node = step.node;
        for effect in step.effects {
            match effect {
                Effect::TakeSnapshot { meta } => stands(node, "takes", meta, commits)?,
                Effect::SendSnapshot { meta, .. } => self.sent(node, meta, commits)?,
                Effect::Send { rpc: Rpc::InstallSnapshot(offer), .. } => {
                    self.sent(node, &offer.meta, commits)?;
                }
                Effect::Compact { through } => self.compacted(step, *through)?,
                Effect::Send { .. }
                | Effect::Persist { .. }
                | Effect::Apply { .. }
                | Effect::Reply { .. }
                | Effect::ReadLog { .. }
                | Effect::InstallSnapshot { .. }
                | Effect::Configured { .. }
                | Effect::Observe(_) => {}
            }
        }
        Ok(())
    }

    fn sent(&self, node: NodeId, meta: &SnapshotMeta, commits: &Commits) -> Verdict {
        stands(node, "sends", meta, commits)?;
        ensure!(
            self.known.contains_key(&meta.last),
            SnapshotFidelity,
            "{node} sends a snapshot of {}, which nobody has taken",
            meta.last
        );
        Ok(())
    }

    /// What leaves the log must be in a snapshot on this disk, and in the state machine.
    fn compacted(&self, step: &Step<'_>, through: Index) -> Verdict {
        let node = step.node;
        let disk = &step.disks[slot(node)];
        let covered = disk.newest_snapshot().map_or(Index::ZERO, |snapshot| snapshot.meta.last.index);
        let applied = step.after.log.applied;
        ensure!(
            through <= covered && through <= applied && through <= disk.last().index,
            SnapshotFidelity,
            "{node} forgets its log through {through}; its newest snapshot ends at {covered}, {applied} is applied, \
             its disk ends at {}",
            disk.last()
        );
        Ok(())
    }
}

/// What a snapshot says of itself is what was committed.
fn stands(node: NodeId, what: &str, meta: &SnapshotMeta, commits: &Commits) -> Verdict {
    let SnapshotMeta { last, configuration, .. } = meta;
    ensure!(
        commits.holds(*last),
        SnapshotFidelity,
        "{node} {what} a snapshot of {last}, but committed is {:?} there",
        commits.position_at(last.index)
    );
    let known = commits.configuration_at(last.index);
    ensure!(
        configuration.membership == known.membership && configuration.index <= last.index,
        SnapshotFidelity,
        "{node} {what} a snapshot of {last} with configuration {}: {}; in force there is {}: {}",
        configuration.index,
        configuration.membership,
        known.index,
        known.membership
    );
    Ok(())
}
