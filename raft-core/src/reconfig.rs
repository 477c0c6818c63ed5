//! Layer 4, rules: how the membership changes. §6; Thesis 4.2–4.3; contract M1–M5.
//!
//! ```text
//!  {1 2 3} ──one voter──▶ {1 2 3 4}                       in force on append,
//!  {1 2 3} ──several────▶ {3 4 5 | 1 2 3} ──by itself──▶ {3 4 5}   rolled back on truncation
//! ```

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::effect::{Busy, Outcome};
use crate::entry::Payload;
use crate::error::ChangeError;
use crate::majority;
use crate::membership::{Change, Membership};
use crate::message::Rpc;
use crate::role::{Leader, Next, PendingChange};
use crate::state::{State, Storage};
use crate::transfer;
use crate::types::{Index, NodeId, RequestId};

/// A learner this many entries behind the end would hold nobody up as a voter.
const PROMOTION_LAG_MAX: u64 = 1_024;

/// A removed member that does not answer is told so for this many election timeouts.
const FAREWELL_FACTOR: u32 = 10;

/// An operator wants other members.
pub(crate) fn on_change(
    state: &mut State,
    leader: &mut Leader,
    request: RequestId,
    expected: Index,
    changes: &[Change],
) {
    if state.storage == Storage::Full {
        state.outbox.reply(request, Outcome::Busy(Busy::StorageFull));
        return;
    }
    match next_membership(state, leader, expected, changes) {
        Ok(Wish::New { membership, node }) => {
            leader.change = Some(PendingChange { request, node });
            append(state, leader, membership);
        }
        Ok(Wish::Fulfilled { node }) => {
            let configuration = state.configurations.latest().index;
            state.outbox.reply(request, Outcome::Changed { configuration, node: Some(node) });
        }
        Err(error) => state.outbox.reply(request, Outcome::NotChanged(Box::new(error))),
    }
}

/// What a wish comes to.
enum Wish {
    /// A configuration that is to be.
    New { membership: Membership, node: Option<NodeId> },
    /// The store that was to be added is this member already: the answer to the first attempt was
    /// lost (contract M1).
    Fulfilled { node: NodeId },
}

fn next_membership(state: &State, leader: &Leader, expected: Index, changes: &[Change]) -> Result<Wish, ChangeError> {
    // T67 – before that, the configuration in force may be one that nobody else will ever have.
    if !majority::has_committed_in_term(state, leader) {
        return Err(ChangeError::TooEarly);
    }
    if leader.transfer.is_some() {
        return Err(ChangeError::Transferring);
    }
    let configuration = state.configurations.latest();
    let membership = &configuration.membership;
    if configuration.index > state.commit || membership.is_joint() {
        return Err(ChangeError::Unfinished);
    }
    if let [Change::AddLearner { store, .. }] = changes
        && let Some(member) = membership.member_by_store(*store)
    {
        return Ok(Wish::Fulfilled { node: member.node });
    }
    if configuration.index != expected {
        return Err(ChangeError::Outdated { expected, latest: configuration.index });
    }
    let adds = changes.iter().any(|change| matches!(change, Change::AddLearner { .. }));
    let node = if adds { NodeId::new(membership.next_id()) } else { None };
    for change in changes {
        if let Change::Promote { node } = change
            && membership.learners().iter().any(|learner| learner.member.node == *node)
            && !has_caught_up(state, leader, *node)
        {
            return Err(ChangeError::NotCaughtUp { node: *node });
        }
    }
    Ok(Wish::New { membership: membership.changed(changes)?, node })
}

fn has_caught_up(state: &State, leader: &Leader, node: NodeId) -> bool {
    let (last, now, limit) = (state.log.last().index, state.now(), state.patience());
    leader.peers.get(&node).is_some_and(|peer| peer.has_caught_up(last, PROMOTION_LAG_MAX, now, limit))
}

/// A new configuration, in force from now on: also for the question who has to agree to it.
fn append(state: &mut State, leader: &mut Leader, membership: Membership) {
    let membership = Arc::new(membership);
    let index = state.append_own(Payload::Configuration(membership.clone()));
    state.configure(index, membership);
    leader.meet(state, index);
}

/// Draws the consequences of what is committed: leaves joint consensus, answers, makes learners
/// voters, lets go of who was removed, and steps down if that is this node. By level, not by
/// edge: a new leader finishes what the one before has begun (contract M3, T71).
pub(crate) fn settle(state: &mut State, leader: &mut Leader) -> Next {
    let configuration = state.configurations.latest().clone();
    if configuration.index > state.commit || !majority::has_committed_in_term(state, leader) {
        return Next::Stay;
    }
    say_farewell(state, leader);
    if configuration.membership.is_joint() {
        if leader.transfer.is_none() {
            append(state, leader, configuration.membership.left());
        }
        return Next::Stay;
    }
    if let Some(PendingChange { request, node }) = leader.change.take() {
        state.outbox.reply(request, Outcome::Changed { configuration: configuration.index, node });
    }
    // M4 – a removed leader has led until the configuration without it was committed.
    if !state.is_voter() {
        for (node, peer) in &leader.peers {
            let commit = state.commit.min(peer.matched());
            state.outbox.send(*node, Rpc::CommitNotice { term: state.hard_state.term, commit });
        }
        return transfer::give_up(state, leader);
    }
    if leader.transfer.is_none() {
        promote(state, leader, &configuration.membership);
    }
    Next::Stay
}

/// Makes the first learner that was to be promoted, and has caught up, a voter. One at a time:
/// that needs no joint configuration.
fn promote(state: &mut State, leader: &mut Leader, membership: &Membership) {
    let ready = membership
        .learners()
        .iter()
        .find(|learner| learner.promote && has_caught_up(state, leader, learner.member.node));
    if let Some(learner) = ready
        && let Ok(next) = membership.changed(&[Change::Promote { node: learner.member.node }])
    {
        append(state, leader, next);
    }
}

/// Forgets removed members that know, or cannot be told.
fn say_farewell(state: &State, leader: &mut Leader) {
    let patience = state.config.timing().election_timeout_max.saturating_mul(FAREWELL_FACTOR);
    let (commit, now) = (state.commit, state.now());
    let gone: Vec<NodeId> = leader
        .peers
        .iter_mut()
        .filter_map(|(node, peer)| peer.is_gone(commit, now, patience).then_some(*node))
        .collect();
    for node in gone {
        leader.peers.remove(&node);
    }
}
