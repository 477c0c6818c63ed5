//! Layer 4, rules: reads that see every write acknowledged before them, without a log entry.
//! §8; Thesis 6.4 (ReadIndex, leases); contract Q1–Q3, T3, T4.
//!
//! ```text
//!  at the leader:   waiting ──(next round sent)──▶ asked ──(majority answers)──▶ confirmed ──(applied)──▶ ReadReady
//!                      └───────────────(a lease holds)────────────────────────────▲
//!  at a follower:   waiting ──▶ asked the leader ──(up to there)──▶ confirmed ──(applied)──▶ ReadReady
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::effect::{Busy, Outcome};
use crate::majority;
use crate::message::{ForwardId, ReadMode, Rpc};
use crate::role::{Follower, Leader, Question, Reader, Role};
use crate::state::State;
use crate::types::{Index, Peer, RequestId, Round, Time};

// ---- at the leader -------------------------------------------------------------------------

/// A client wants to read. It waits for a round that has not been sent yet: an answer that is
/// already under way says nothing about now (contract Q1).
pub(crate) fn on_read(state: &mut State, leader: &mut Leader, request: RequestId, mode: ReadMode) {
    if leader.reads.len() >= state.config.limits().pending_reads_max {
        state.outbox.reply(request, Outcome::Busy(Busy::Reads));
        return;
    }
    leader.reads.waiting.push_back((mode, Reader::Here(request)));
}

/// A follower asks on behalf of its clients.
pub(crate) fn on_read_index(state: &mut State, leader: &mut Leader, from: Peer, id: ForwardId, mode: ReadMode) {
    let Peer { node: from, store, .. } = from;
    if leader.peers.get(&from).is_none_or(|progress| progress.store() != store) {
        state.counters.drops.count(|drops| &mut drops.foreign);
        return;
    }
    // It asks one question at a time: an earlier one was lost, or given up.
    leader.reads.waiting.retain(|(_, reader)| !matches!(reader, Reader::Peer(node, _) if *node == from));
    if leader.reads.len() >= state.config.limits().pending_reads_max {
        state.outbox.send(from, Rpc::ReadIndexReply { term: state.hard_state.term, id, index: None });
        return;
    }
    leader.reads.waiting.push_back((mode, Reader::Peer(from, id)));
}

/// Moves reads on. Returns the round that has to be sent now, for all that were waiting.
pub(crate) fn settle(state: &mut State, leader: &mut Leader) -> Option<Round> {
    let round = ask(state, leader);
    // A sole voter confirms itself: there is nobody else to ask.
    let confirmed = if leader.reads.asked.is_empty() { None } else { majority::confirmed_round(state, leader) };
    while let Some((_, index, reader)) =
        leader.reads.asked.front().copied().filter(|(round, ..)| Some(*round) <= confirmed)
    {
        leader.reads.asked.pop_front();
        confirm(state, leader, index, reader);
    }
    release(state, &mut leader.reads.confirmed);
    round
}

/// Gives everything that waits the commit index as of now, and the next round unless a lease makes
/// that unnecessary. §8 – not before an entry of the own term is committed: until then a new
/// leader may not know what its predecessor acknowledged.
fn ask(state: &mut State, leader: &mut Leader) -> Option<Round> {
    if leader.reads.waiting.is_empty() || !majority::has_committed_in_term(state, leader) {
        return None;
    }
    let index = state.commit;
    let has_lease = has_lease(state, leader);
    let mut round = None;
    for (mode, reader) in core::mem::take(&mut leader.reads.waiting) {
        if has_lease && mode == ReadMode::Lease {
            confirm(state, leader, index, reader);
        } else {
            let timing = state.config.timing();
            let round = *round.get_or_insert_with(|| leader.rounds.open(state.clock.now, &timing));
            leader.reads.asked.push_back((round, index, reader));
        }
    }
    round
}

/// Whether a majority has promised to elect nobody else before now has passed (contract T3). Void
/// once somebody was told to take over (T4), and while the own disk stalls: whoever can write
/// nothing has no business reading for long (D9).
fn has_lease(state: &State, leader: &Leader) -> bool {
    let is_stalled =
        leader.lagging.is_some_and(|(_, since)| state.now().since(since) >= state.config.timing().election_timeout_min);
    state.config.leases().is_some()
        && !leader.has_ordered
        && !is_stalled
        && majority::lease_end(state, leader).is_some_and(|end| state.now() < end)
}

fn confirm(state: &mut State, leader: &mut Leader, index: Index, reader: Reader) {
    match reader {
        Reader::Here(request) => leader.reads.confirmed.push_back((index, request)),
        Reader::Peer(node, id) => {
            let rpc = Rpc::ReadIndexReply { term: state.hard_state.term, id, index: Some(index) };
            state.outbox.send(node, rpc);
        }
    }
}

// ---- at a follower -------------------------------------------------------------------------

/// A client of a follower wants to read; its leader knows up to where that is current.
pub(crate) fn on_read_here(state: &mut State, follower: &mut Follower, request: RequestId, mode: ReadMode) {
    if follower.leader.is_none() {
        state.outbox.reply(request, Outcome::NotLeader { leader: None });
    } else if follower.reads.len() >= state.config.limits().pending_reads_max {
        state.outbox.reply(request, Outcome::Busy(Busy::Reads));
    } else {
        follower.reads.waiting.push((mode, request));
    }
}

/// The leader says up to where these reads have to wait.
pub(crate) fn on_read_index_reply(state: &mut State, follower: &mut Follower, id: ForwardId, index: Option<Index>) {
    let Some(question) = follower.reads.asked.take_if(|question| question.id == id) else {
        state.counters.drops.count(|drops| &mut drops.stale);
        return;
    };
    for (_, request) in question.reads {
        match index {
            Some(index) => follower.reads.confirmed.push_back((index, request)),
            None => state.outbox.reply(request, Outcome::Busy(Busy::Reads)),
        }
    }
}

/// Moves a follower's reads on: one question at a time for all that wait; a lost one is asked
/// again, together with what has come since.
pub(crate) fn settle_follower(state: &mut State, follower: &mut Follower) {
    release(state, &mut follower.reads.confirmed);
    let Some(leader) = follower.leader else { return };
    let now = state.now();
    let lost = follower.reads.asked.take_if(|question| question.overdue_at <= now);
    if follower.reads.asked.is_some() || (lost.is_none() && follower.reads.waiting.is_empty()) {
        return;
    }
    let is_lost = lost.is_some();
    let mut reads = lost.map_or_else(Vec::new, |question| question.reads);
    reads.append(&mut follower.reads.waiting);
    // A voter would campaign by now, and turn its clients away; a learner waits for ever, they do not.
    let longest = state.config.timing().election_timeout_max;
    if is_lost && state.clock.leader_contact.is_none_or(|contact| now.since(contact) >= longest) {
        for (_, request) in reads {
            state.outbox.reply(request, Outcome::NotLeader { leader: None });
        }
        return;
    }
    let every_read_by_lease = reads.iter().all(|(mode, _)| *mode == ReadMode::Lease);
    let mode = if every_read_by_lease { ReadMode::Lease } else { ReadMode::Quorum };
    state.counters.forwards = state.counters.forwards.saturating_add(1);
    let id = ForwardId { boot: state.identity.boot, number: state.counters.forwards };
    state.outbox.send(leader, Rpc::ReadIndex { term: state.hard_state.term, id, mode });
    follower.reads.asked = Some(Question { id, overdue_at: now.after(state.patience()), reads });
}

/// When a follower's question counts as lost.
pub(crate) fn deadline(role: &Role) -> Option<Time> {
    match role {
        Role::Follower(follower) => follower.reads.asked.as_ref().map(|question| question.overdue_at),
        Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => None,
    }
}

/// Q2: only now can the machine be read; nobody else has to compare indices.
fn release(state: &mut State, confirmed: &mut VecDeque<(Index, RequestId)>) {
    while let Some((index, request)) = confirmed.front().copied().filter(|(index, _)| *index <= state.applying.applied)
    {
        confirmed.pop_front();
        state.outbox.reply(request, Outcome::ReadReady { index });
    }
}
