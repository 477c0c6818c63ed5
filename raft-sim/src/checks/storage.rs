//! Storage: what a full disk forbids (contract D8), and a leader whose own disk stalls (D9).

use std::time::Duration;

use raft_core::{Effect, Index, Payload, RoleKind, Storage as State, Term, Time, Timing};

use super::{Step, Verdict, ensure};
use crate::slot;

/// Watches the disks of leaders, and those that are full.
#[derive(Debug)]
pub struct Storage {
    /// The longest that a leader may lead while its disk stands still, on the slowest clock.
    stall_limit: Duration,
    /// For each leader: its term, an index that was committed and not durable there, and since when.
    lagging: Vec<Option<(Term, Index, Time)>>,
}

impl Storage {
    /// For nodes with ids up to `nodes`, whose clocks are off by at most `drift_ppm` millionths.
    pub fn new(nodes: usize, timing: Timing, drift_ppm: u32) -> Self {
        let limit = timing.stall_limit;
        Self { stall_limit: limit + limit / 1_000_000 * drift_ppm * 2, lagging: vec![None; nodes] }
    }

    pub(super) fn on_step(&mut self, step: &Step<'_>) -> Verdict {
        takes_nothing_when_full(step)?;
        self.gives_way_when_stalled(step)
    }

    /// D9: others have what is committed; a leader whose disk does not get that far gives way. It
    /// looks at what was committed when the batch began, and at what is durable after it.
    fn gives_way_when_stalled(&mut self, step: &Step<'_>) -> Verdict {
        let (node, before, after) = (step.node, step.before, step.after);
        let leads_on = before.role == RoleKind::Leader
            && after.role == RoleKind::Leader
            && before.hard_state.term == after.hard_state.term;
        let term = after.hard_state.term;
        let lagging = &mut self.lagging[slot(node)];
        if !leads_on {
            *lagging = None;
            return Ok(());
        }
        let (durable, commit) = (after.log.durable, before.log.commit);
        if lagging.is_none_or(|(in_term, index, _)| in_term != term || durable >= index) {
            *lagging = (durable < commit).then_some((term, commit, step.clock));
        }
        let is_alone = [before, after].iter().any(|status| {
            status.configuration.membership.voters().len() == 1 && !status.configuration.membership.is_joint()
        });
        if let Some((_, index, since)) = *lagging {
            ensure!(
                is_alone || step.clock.since(since) <= self.stall_limit,
                StalledLeader,
                "{node} still leads term {term}; {index} has been committed since {since} and is not on its disk, \
                 which ends at {durable}"
            );
        }
        Ok(())
    }
}

/// D8: while its disk is full a node takes no entries from a leader, and no commands from clients.
fn takes_nothing_when_full(step: &Step<'_>) -> Verdict {
    let is_full =
        step.before.load.storage == State::Full && step.after.load.storage == State::Full && !step.inbox.storage_ready;
    for effect in step.effects.iter().filter(|_| is_full) {
        let Effect::Persist { entries, .. } = effect else { continue };
        let is_own = |term| term == step.after.hard_state.term && step.after.role == RoleKind::Leader;
        let taken = entries.iter().find(|entry| !is_own(entry.term) || matches!(entry.payload, Payload::Command(_)));
        ensure!(
            taken.is_none(),
            Bounds,
            "{} takes {:?} although its disk is full",
            step.node,
            taken.map(|entry| entry.position())
        );
    }
    Ok(())
}
