//! Words for configurations, their changes, transfers, promises and forwarded reads.

use std::time::Duration;

use raft_core::{
    Boot, Busy, Change, ChangeError, Effect, Entry, Event, ForwardId, Membership, Outcome, Payload, ReadMode, Rpc,
    TransferError,
};

use crate::rig::{Lone, Start, blank, heartbeat, heartbeat_reply, index, node, reply, request, store, term};

/// These voters, and these learners, which are not promoted by themselves.
pub(crate) fn with_learners(voters: &[u64], learners: &[u64]) -> Membership {
    let added: Vec<Change> = learners.iter().map(|id| add(*id)).collect();
    changed(&crate::rig::membership(voters), &added)
}

/// What a change of the membership leads to at first.
pub(crate) fn changed(membership: &Membership, changes: &[Change]) -> Membership {
    membership.changed(changes).expect("a change that can be made")
}

/// Without this member.
pub(crate) fn removed(membership: &Membership, id: u64) -> Membership {
    changed(membership, &[remove(id)])
}

/// A leader of {1 2 3} that has appended {1 2 3 +4} as 2@1, which is not committed.
pub(crate) fn adding() -> Lone {
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[add(4)]));
    server
}

/// Adds the store that the tests give to node `id`; it gets that id if it is the next one.
pub(crate) fn add(id: u64) -> Change {
    Change::AddLearner { store: store(id), promote: false }
}

/// The same, to be promoted as soon as it has caught up.
pub(crate) fn add_voter(id: u64) -> Change {
    Change::AddLearner { store: store(id), promote: true }
}

pub(crate) fn promote(id: u64) -> Change {
    Change::Promote { node: node(id) }
}

pub(crate) fn demote(id: u64) -> Change {
    Change::Demote { node: node(id) }
}

pub(crate) fn remove(id: u64) -> Change {
    Change::Remove { node: node(id) }
}

pub(crate) fn change(number: u64, expected: u64, changes: &[Change]) -> Event {
    Event::ChangeMembership { request: request(number), expected: index(expected), changes: changes.to_vec() }
}

pub(crate) fn transfer(number: u64, to: impl Into<Option<u64>>) -> Event {
    Event::TransferLeadership { request: request(number), to: to.into().map(node) }
}

/// The entry that sets a configuration.
pub(crate) fn setting(at: u64, in_term: u64, membership: &Membership) -> Entry {
    Entry { payload: Payload::Configuration(membership.clone().into()), ..blank(at, in_term) }
}

pub(crate) fn timeout_now(in_term: u64) -> Rpc {
    Rpc::TimeoutNow { term: term(in_term) }
}

pub(crate) fn resigned(in_term: u64) -> Rpc {
    Rpc::Resigned { term: term(in_term) }
}

/// A vote request of a candidate that the leader of `ordered_in` has told to run.
pub(crate) fn ordered_vote(in_term: u64, last: raft_core::Position, ordered_in: u64) -> Rpc {
    Rpc::Vote { term: term(in_term), last, ordered_in: Some(term(ordered_in)) }
}

/// A heartbeat that asks for a promise of so many milliseconds.
pub(crate) fn asking(in_term: u64, number: u64, commit: u64, millis: u64) -> Rpc {
    match heartbeat(in_term, number, commit) {
        Rpc::Heartbeat { term, round, commit, .. } => {
            Rpc::Heartbeat { term, round, commit, promise: Duration::from_millis(millis) }
        }
        other => other,
    }
}

/// The answer of a peer that has everything up to `matched` and promises so much.
pub(crate) fn granting(in_term: u64, number: u64, matched: u64, millis: u64) -> Rpc {
    match heartbeat_reply(in_term, number, matched, matched) {
        Rpc::HeartbeatReply { term, round, matched, verified, .. } => {
            Rpc::HeartbeatReply { term, round, matched, verified, granted: Duration::from_millis(millis) }
        }
        other => other,
    }
}

pub(crate) fn read_by_lease(number: u64) -> Event {
    Event::Read { request: request(number), mode: ReadMode::Lease }
}

/// Question `number` of a server in its first life.
pub(crate) fn question(number: u64) -> ForwardId {
    ForwardId { boot: Boot::new(1), number }
}

pub(crate) fn read_index(in_term: u64, number: u64) -> Rpc {
    Rpc::ReadIndex { term: term(in_term), id: question(number), mode: ReadMode::Quorum }
}

pub(crate) fn read_index_by_lease(in_term: u64, number: u64) -> Rpc {
    Rpc::ReadIndex { term: term(in_term), id: question(number), mode: ReadMode::Lease }
}

pub(crate) fn read_index_reply(in_term: u64, number: u64, at: impl Into<Option<u64>>) -> Rpc {
    Rpc::ReadIndexReply { term: term(in_term), id: question(number), index: at.into().map(index) }
}

// ---- answers -------------------------------------------------------------------------------

/// The change is complete, and has added `node`, if any.
pub(crate) fn done(number: u64, at: u64, added: impl Into<Option<u64>>) -> Effect {
    reply(number, Outcome::Changed { configuration: index(at), node: added.into().map(node) })
}

pub(crate) fn not_changed(number: u64, error: ChangeError) -> Effect {
    reply(number, Outcome::NotChanged(error.into()))
}

pub(crate) fn transferred(number: u64, leader: impl Into<Option<u64>>) -> Effect {
    reply(number, Outcome::Transferred { leader: leader.into().map(node) })
}

pub(crate) fn not_transferred(number: u64, error: TransferError) -> Effect {
    reply(number, Outcome::NotTransferred(error))
}

pub(crate) fn busy(number: u64, why: Busy) -> Effect {
    reply(number, Outcome::Busy(why))
}
