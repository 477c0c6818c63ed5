//! Layer 3: how a leader gives way, for whatever reason: who comes after it, and what everybody is told.

use crate::message::Rpc;
use crate::role::{Leader, Next};
use crate::state::State;
use crate::types::NodeId;

/// The voter that would make the best leader: of those heard from lately, the one that has most.
pub(crate) fn best(state: &State, leader: &Leader) -> Option<NodeId> {
    let longest = state.config.timing().election_timeout_max;
    let candidates = state.membership().voters().iter().filter_map(|voter| {
        let progress = leader.peers.get(&voter.node)?;
        let is_near = state.now().since(progress.anchor()) < longest;
        is_near.then_some((progress.matched(), core::cmp::Reverse(voter.node)))
    });
    candidates.max().map(|(_, core::cmp::Reverse(node))| node)
}

/// Steps down in favour of the best voter, if there is one.
pub(crate) fn give_up(state: &mut State, leader: &mut Leader) -> Next {
    let to = best(state, leader);
    if let Some(to) = to {
        leader.has_ordered = true;
        state.outbox.send(to, Rpc::TimeoutNow { term: state.hard_state.term });
    }
    resign(state, leader, to)
}

/// A leader that gives up tells everybody, so that nobody waits out its silence (contract T6). Its
/// `successor`, if there is one, has been told to take over instead.
pub(crate) fn resign(state: &mut State, leader: &Leader, successor: Option<NodeId>) -> Next {
    for peer in leader.peers.keys().filter(|peer| Some(**peer) != successor) {
        state.outbox.send(*peer, Rpc::Resigned { term: state.hard_state.term });
    }
    Next::Follow { term: state.term(), leader: None }
}
