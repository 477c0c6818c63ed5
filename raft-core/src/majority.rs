//! Layer 3: what a majority of the voters has, as far as a leader knows. While the configuration is
//! joint: what majorities of both halves have (§6).

use crate::membership::Member;
use crate::progress::Progress;
use crate::quorum;
use crate::role::Leader;
use crate::state::State;
use crate::types::{Index, Round, Time};

/// The highest index that a majority holds durably. The leader's own disk counts like any other:
/// it does not count itself before its own write is done (T63), nor if it is no voter (T64).
pub(crate) fn replicated(state: &State, leader: &Leader) -> Option<Index> {
    reached(state, leader, state.durable(), Index::ZERO, Progress::matched)
}

/// The newest round that a majority has answered, the leader itself included.
pub(crate) fn confirmed_round(state: &State, leader: &Leader) -> Option<Round> {
    reached(state, leader, leader.rounds.newest(), Round::ZERO, Progress::confirmed)
}

/// A moment at which a majority certainly still followed this leader; anchored where messages
/// were sent, not where answers came in (T15).
pub(crate) fn quorum_anchor(state: &State, leader: &Leader) -> Option<Time> {
    reached(state, leader, state.now(), Time::ZERO, Progress::anchor)
}

/// Until when a majority has promised to elect nobody else, by this leader's clock.
pub(crate) fn lease_end(state: &State, leader: &Leader) -> Option<Time> {
    reached(state, leader, Time::MAX, Time::ZERO, Progress::promised_until)
}

/// Whether an entry of the current term is committed: before that, a leader does not know what is.
pub(crate) fn has_committed_in_term(state: &State, leader: &Leader) -> bool {
    state.commit >= leader.opened_at
}

/// The highest value that a majority has reached: this node stands at `own`, each peer at what
/// `value` finds in its progress.
fn reached<T: Ord + Copy>(
    state: &State,
    leader: &Leader,
    own: T,
    unknown: T,
    value: impl Fn(&Progress) -> T,
) -> Option<T> {
    let me = state.me();
    let of_voter = |voter: &Member| {
        if voter.node == me { own } else { leader.peers.get(&voter.node).map_or(unknown, &value) }
    };
    let membership = state.membership();
    quorum::both(
        quorum::reached_by_majority(membership.voters().iter().map(of_voter)),
        quorum::reached_by_majority(membership.outgoing().iter().map(of_voter)),
    )
}
