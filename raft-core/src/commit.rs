//! Layer 4, rules: what is decided, and what may be applied. §5.3, §5.4.2; contract D5.

use crate::effect::{Effect, Purpose};
use crate::log::Reading;
use crate::majority;
use crate::message::LogReadOutcome;
use crate::role::{Leader, Role};
use crate::state::State;
use crate::types::{Index, ReadId, RequestId, Time};
use alloc::vec::Vec;

/// Advances the leader's commit index.
///
/// §5.4.2 – a leader commits only entries of its own term by counting; earlier ones are committed
/// with them. (Figure 8: an entry of an earlier term on a majority can still be overwritten.)
pub(crate) fn advance(state: &mut State, leader: &mut Leader) {
    let Some(index) = majority::replicated(state, leader) else { return };
    if index > state.commit && state.log.term_at(index) == Some(state.term()) {
        state.commit_through(index);
        leader.proposals.uncommitted.settle(index);
    }
}

/// Hands over what is committed *and durable here* (contract D5), as far as the applier's limit goes.
pub(crate) fn settle(state: &mut State, role: &mut Role) {
    let limits = state.config.limits();
    let (now, patience) = (state.now(), state.patience());
    let target = state.commit.min(state.log.durable());
    while state.applying.handed < target && state.applying.unapplied.total() < limits.unapplied_bytes_max {
        let from = state.applying.handed.next();
        let room = limits.unapplied_bytes_max.saturating_sub(state.applying.unapplied.total());
        let Some(entries) = state.log.entries(from, target, room) else {
            let before = state.applying.reading;
            if before.is_none_or(|reading| !reading.is_pending(now)) {
                let through = target.min(state.log.cached_from().prev());
                let id = state.read_log(Purpose::Apply, from, through, room.min(limits.message_bytes_max));
                state.applying.reading = Some(Reading::ask(id, before, now, patience));
            }
            return;
        };
        hand_over(state, role, entries);
    }
}

fn hand_over(state: &mut State, role: &mut Role, entries: crate::entry::Entries) {
    let Some(last) = entries.last().map(|entry| entry.index) else { return };
    let tokens = match role {
        Role::Leader(leader) => answered_through(leader, last),
        Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => Vec::new(),
    };
    state.applying.handed = last;
    state.applying.unapplied.charge(last, entries.cost());
    state.outbox.emit(Effect::Apply { entries, tokens });
}

/// Takes the proposals up to `last`: their answer is on its way.
fn answered_through(leader: &mut Leader, last: Index) -> Vec<(Index, RequestId)> {
    let appended = &mut leader.proposals.appended;
    let count = appended.partition_point(|(index, _)| *index <= last);
    appended.drain(..count).collect()
}

/// The state machine has applied everything up to `index`.
///
/// # Panics
/// If that was never handed to it: the driver has made it up.
pub(crate) fn on_applied(state: &mut State, index: Index) {
    let handed = state.applying.handed;
    assert!(index <= handed, "index {index} reported as applied, but only {handed} was handed over");
    state.applying.applied = state.applying.applied.max(index);
    state.applying.unapplied.settle(index);
}

/// Entries to apply have been read back. They are committed, so they can be applied whatever the
/// role has become since; only their terms and the place to continue have to be right.
pub(crate) fn on_log_read(state: &mut State, role: &mut Role, id: ReadId, outcome: &LogReadOutcome) {
    if state.applying.reading.is_none_or(|reading| reading.id != id) {
        state.counters.drops.count(|drops| &mut drops.stale);
        return;
    }
    let LogReadOutcome::Entries(entries) = outcome else {
        // Left as asked for: it is asked again when it is overdue, not in a busy loop.
        return;
    };
    let entries = entries.slice(state.applying.handed.next(), state.commit.min(state.log.durable()));
    let continues = entries.first().is_some_and(|entry| entry.index == state.applying.handed.next());
    if continues && state.log.agrees_with(&entries) {
        state.applying.reading = None;
        hand_over(state, role, entries);
    }
}

/// When a read that brings back entries to apply is overdue.
pub(crate) fn deadline(state: &State) -> Option<Time> {
    state.applying.reading.map(|reading| reading.overdue_at())
}
