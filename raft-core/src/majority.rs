//! Layer 3: what a majority of the voters has, as far as a leader knows.

use crate::progress::Progress;
use crate::quorum;
use crate::role::Leader;
use crate::state::State;
use crate::types::{Index, NodeId, Round, Time};

/// The highest index that a majority holds durably. The leader's own disk counts like any other:
/// it does not count itself before its own write is done (T63).
pub(crate) fn replicated(state: &State, leader: &Leader) -> Option<Index> {
    let me = state.me();
    quorum::reached_by_majority(state.membership.voters().iter().map(|voter| {
        if voter.node == me {
            state.log.durable()
        } else {
            of_peer(leader, voter.node, Index::ZERO, |peer| peer.matched())
        }
    }))
}

/// The newest round that a majority has answered, the leader itself included.
pub(crate) fn confirmed_round(state: &State, leader: &Leader) -> Option<Round> {
    let (me, newest) = (state.me(), leader.rounds.newest());
    quorum::reached_by_majority(state.membership.voters().iter().map(|voter| {
        if voter.node == me { newest } else { of_peer(leader, voter.node, Round::ZERO, |peer| peer.confirmed()) }
    }))
}

/// A moment at which a majority certainly still followed this leader; anchored where messages
/// were sent, not where answers came in (T15).
pub(crate) fn quorum_anchor(state: &State, leader: &Leader) -> Option<Time> {
    let (me, now) = (state.me(), state.now());
    quorum::reached_by_majority(state.membership.voters().iter().map(|voter| {
        if voter.node == me { now } else { of_peer(leader, voter.node, Time::ZERO, |peer| peer.anchor()) }
    }))
}

fn of_peer<T>(leader: &Leader, node: NodeId, unknown: T, value: impl Fn(&Progress) -> T) -> T {
    leader.peers.get(&node).map_or(unknown, value)
}

/// Whether an entry of the current term is committed: before that, a leader does not know what is.
pub(crate) fn has_committed_in_term(state: &State, leader: &Leader) -> bool {
    state.commit >= leader.opened_at
}
