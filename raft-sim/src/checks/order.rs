//! Order: I10 what comes before what, I12 applied once and in order, I21 bounds.

use raft_core::{Effect, Entries, Index, Limits, NodeId, RequestId, RoleKind, Rpc};

use super::commits::Commits;
use super::{Step, Verdict, ensure};
use crate::digest::chain;
use crate::machine::Command;
use crate::slot;

/// How far each process has handed entries to its state machine.
#[derive(Debug)]
pub struct Order {
    limits: Limits,
    handed_over: Vec<Index>,
    configured: Vec<bool>,
}

impl Order {
    /// Before the first step.
    pub fn new(nodes: usize, limits: Limits) -> Self {
        Self { limits, handed_over: vec![Index::ZERO; nodes], configured: vec![false; nodes] }
    }

    pub(super) fn on_step(&mut self, step: &Step<'_>, commits: &Commits) -> Verdict {
        let node = step.node;
        rising(step)?;
        matches_rise(step)?;
        for effect in step.effects {
            match effect {
                Effect::Apply { entries, tokens } => {
                    self.on_apply(step, entries, commits)?;
                    tokens_fit(node, entries, tokens)?;
                }
                Effect::Send { rpc: Rpc::Append(append), .. } => {
                    let (cost, max) = (append.entries.cost(), self.limits.message_bytes_max);
                    ensure!(
                        cost <= max || append.entries.len() == 1,
                        Bounds,
                        "{node} sent {cost} bytes in one append; the limit is {max}"
                    );
                }
                Effect::TakeSnapshot { meta } => {
                    let handed_over = self.handed_over[slot(node)];
                    ensure!(
                        meta.last.index == handed_over,
                        SnapshotFidelity,
                        "{node} takes a snapshot of {}, having handed over {handed_over} (contract S1)",
                        meta.last
                    );
                }
                Effect::InstallSnapshot { meta, .. } => self.handed_over[slot(node)] = meta.last.index,
                Effect::Configured { .. } => self.configured[slot(node)] = true,
                Effect::Send { .. }
                | Effect::Persist { .. }
                | Effect::Reply { .. }
                | Effect::ReadLog { .. }
                | Effect::SendSnapshot { .. }
                | Effect::Compact { .. }
                | Effect::Observe(_) => {}
            }
        }
        ensure!(self.configured[slot(node)], Ordering, "{node} made its first step without telling its configuration");
        self.within_limits(step)
    }

    fn on_apply(&mut self, step: &Step<'_>, entries: &Entries, commits: &Commits) -> Verdict {
        let (node, log) = (step.node, step.after.log);
        let mut handed_over = self.handed_over[slot(node)];
        ensure!(!entries.is_empty(), ApplyOnce, "{node} applies nothing");
        for entry in entries.iter() {
            ensure!(
                entry.index == handed_over.next(),
                ApplyOnce,
                "{node} applies {} after index {handed_over}",
                entry.position()
            );
            let before = commits.digest_at(entry.index.prev());
            let known = commits.digest_at(entry.index);
            ensure!(known.is_some(), StateMachineSafety, "{node} applies {}, which is not committed", entry.position());
            ensure!(
                before.map(|before| chain(before, entry)) == known,
                StateMachineSafety,
                "{node} applies another entry {} than the committed one",
                entry.position()
            );
            handed_over = entry.index;
        }
        ensure!(
            handed_over <= log.commit,
            StateMachineSafety,
            "{node} applies {handed_over}, but knows only {} to be committed",
            log.commit
        );
        let durable = step.disks[slot(node)].last().index;
        ensure!(
            handed_over <= log.durable && handed_over <= durable,
            DurableBeforeSend,
            "{node} applies {handed_over}, but its disk ends at {durable}"
        );
        self.handed_over[slot(node)] = handed_over;
        Ok(())
    }

    fn within_limits(&self, step: &Step<'_>) -> Verdict {
        let (node, load, limits) = (step.node, &step.after.load, &self.limits);
        ensure!(
            load.proposals <= limits.pending_proposals_max && load.reads <= limits.pending_reads_max,
            Bounds,
            "{node} has {} proposals and {} reads pending; the limits are {} and {}",
            load.proposals,
            load.reads,
            limits.pending_proposals_max,
            limits.pending_reads_max
        );
        for peer in &step.after.peers {
            ensure!(
                peer.inflight <= limits.inflight_messages_max,
                Bounds,
                "{node} has {} appends in flight to {}; the limit is {}",
                peer.inflight,
                peer.node,
                limits.inflight_messages_max
            );
            ensure!(
                peer.matched < peer.next && peer.next <= step.after.log.last.index.next(),
                Bounds,
                "{node} believes of {} that it matches up to {} and needs {} next; its own log ends at {}",
                peer.node,
                peer.matched,
                peer.next,
                step.after.log.last
            );
        }
        Ok(())
    }

    pub(super) fn on_start(&mut self, node: NodeId, applied: Index) {
        self.handed_over[slot(node)] = applied;
        self.configured[slot(node)] = false;
    }
}

fn rising(step: &Step<'_>) -> Verdict {
    let (node, old, new) = (step.node, step.before.log, step.after.log);
    ensure!(
        new.applied <= new.commit && new.commit <= new.last.index && new.durable <= new.last.index,
        Ordering,
        "{node} has applied {}, committed {}, made durable {} of a log that ends at {}",
        new.applied,
        new.commit,
        new.durable,
        new.last
    );
    ensure!(
        new.commit >= old.commit && new.applied >= old.applied,
        Ordering,
        "{node} went back from committed {} and applied {} to {} and {}",
        old.commit,
        old.applied,
        new.commit,
        new.applied
    );
    ensure!(
        step.after.hard_state.term >= step.before.hard_state.term,
        TermMonotonic,
        "{node} went back from term {} to {}",
        step.before.hard_state.term,
        step.after.hard_state.term
    );
    Ok(())
}

/// What a leader knows of a peer's log only grows: an old answer that comes late takes nothing back.
fn matches_rise(step: &Step<'_>) -> Verdict {
    let leads_on = step.before.role == RoleKind::Leader
        && step.after.role == RoleKind::Leader
        && step.before.hard_state.term == step.after.hard_state.term;
    for (old, new) in step.before.peers.iter().zip(&step.after.peers).filter(|_| leads_on) {
        ensure!(
            old.node != new.node || new.matched >= old.matched,
            Ordering,
            "{} believed that {} matches up to {}, and now only up to {}",
            step.node,
            old.node,
            old.matched,
            new.matched
        );
    }
    Ok(())
}

/// Each token belongs to the entry whose command names it.
fn tokens_fit(node: NodeId, entries: &Entries, tokens: &[(Index, RequestId)]) -> Verdict {
    for (index, request) in tokens {
        let entry = entries.slice(*index, *index);
        let command = entry.first().and_then(|entry| match &entry.payload {
            raft_core::Payload::Blank | raft_core::Payload::Configuration(_) => None,
            raft_core::Payload::Command(bytes) => Command::decode(bytes),
        });
        ensure!(
            command.is_some_and(|command| command.attempt() == *request),
            RequestsEndOnce,
            "{node} answers request {request} with index {index}, where {command:?} stands"
        );
    }
    Ok(())
}
