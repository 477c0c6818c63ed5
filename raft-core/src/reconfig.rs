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
use crate::membership::{Change, Member, Membership};
use crate::message::Rpc;
use crate::role::{Leader, Next, PendingChange};
use crate::state::{State, Storage};
use crate::types::{Index, NodeId, RequestId};
use crate::{majority, succession};

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
    // M5 – what the same batch has committed counts first, one change after the other.
    if is_complete(state, leader) {
        answer(state, leader);
        if !state.is_voter() {
            state.outbox.reply(request, Outcome::NotLeader { leader: None });
            return;
        }
    }
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
    let next = membership.changed(changes)?;
    let is_new = |voter: &&Member| !membership.voters().contains(voter);
    match next.voters().iter().filter(is_new).find(|voter| !has_caught_up(state, leader, voter.node)) {
        Some(laggard) => Err(ChangeError::NotCaughtUp { node: laggard.node }),
        None => Ok(Wish::New { membership: next, node }),
    }
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

/// Whether there is nothing left to do of the latest change.
fn is_complete(state: &State, leader: &Leader) -> bool {
    let configuration = state.configurations.latest();
    configuration.index <= state.commit
        && majority::has_committed_in_term(state, leader)
        && !configuration.membership.is_joint()
}

/// Tells the operator that the change is complete.
fn answer(state: &mut State, leader: &mut Leader) {
    if let Some(PendingChange { request, node }) = leader.change.take() {
        let configuration = state.configurations.latest().index;
        state.outbox.reply(request, Outcome::Changed { configuration, node });
    }
}

/// Draws the consequences of what is committed: leaves joint consensus, answers, makes learners
/// voters, lets go of who was removed. By level, not by edge: a new leader finishes what the one
/// before has begun (contract M3; trap T71). Returns whether this node has to [`leave`].
pub(crate) fn settle(state: &mut State, leader: &mut Leader) -> bool {
    let configuration = state.configurations.latest().clone();
    if configuration.index > state.commit || !majority::has_committed_in_term(state, leader) {
        return false;
    }
    say_farewell(state, leader);
    // D8 – a full disk takes no entries, not even these.
    let may_append = leader.transfer.is_none() && state.storage == Storage::Ready;
    if configuration.membership.is_joint() {
        if may_append {
            append(state, leader, configuration.membership.left());
        }
        return false;
    }
    answer(state, leader);
    if may_append && state.is_voter() {
        promote(state, leader, &configuration.membership);
    }
    !state.is_voter()
}

/// M4 – a removed leader has led until the configuration without it was committed. It says so to
/// everybody, and hands over. Nothing may leave after that: whoever is told that it resigned, and
/// then hears from it, would wait for it once more.
pub(crate) fn leave(state: &mut State, leader: &mut Leader) -> Next {
    for (node, peer) in &mut leader.peers {
        if let Some(commit) = peer.commit_to_notice(state.commit) {
            peer.on_noticed(commit);
            state.outbox.send(*node, Rpc::CommitNotice { term: state.hard_state.term, commit });
        }
    }
    succession::give_up(state, leader)
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
