//! Layer 4, rules: how leadership passes on without an election timeout. Thesis 3.10; contract D8,
//! D9, T4, V5, V7, M5.

use crate::config::Priority;
use crate::effect::{Observation, Outcome};
use crate::error::TransferError;
use crate::message::Rpc;
use crate::role::{Follower, Leader, Next, Transfer};
use crate::state::{State, Storage};
use crate::types::{NodeId, RequestId, Time};
use crate::{majority, succession};

/// A write that hangs although nobody waits for it is given this many stall limits.
const HANG_FACTOR: u32 = 10;

/// A leader that would rather not lead asks to be relieved once in so many election timeouts.
const RELIEF_FACTOR: u32 = 10;

/// Somebody wants another leader. From here on no proposal is taken, so that the successor can
/// catch up; if it has not taken over within an election timeout, all goes on as before (T96, T97).
pub(crate) fn on_transfer(state: &mut State, leader: &mut Leader, request: RequestId, to: Option<NodeId>) {
    match choose(state, leader, to) {
        Ok(to) => begin(state, leader, Some(request), to),
        Err(error) => state.outbox.reply(request, Outcome::NotTransferred(error)),
    }
}

fn choose(state: &State, leader: &Leader, to: Option<NodeId>) -> Result<NodeId, TransferError> {
    if let Some(Transfer { to, .. }) = leader.transfer {
        return Err(TransferError::InProgress { to });
    }
    let Some(node) = to else { return succession::best(state, leader).ok_or(TransferError::NobodyReady) };
    if node == state.me() {
        return Err(TransferError::AlreadyLeader { node });
    }
    let is_voter = state.membership().voters().iter().any(|voter| voter.node == node);
    if is_voter { Ok(node) } else { Err(TransferError::NotVoter { node }) }
}

fn begin(state: &mut State, leader: &mut Leader, request: Option<RequestId>, to: NodeId) {
    let until = state.now().after(state.config.timing().election_timeout_max);
    state.outbox.observe(Observation::Transferring { to });
    leader.transfer = Some(Transfer { request, to, until, ordered: false });
}

/// The disk is full: another leader may have space. Tried once, when it happens: if all disks are
/// full, leadership must not go round in circles (contract D8).
pub(crate) fn on_storage_full(state: &mut State, leader: &mut Leader) {
    if leader.transfer.is_none()
        && let Some(to) = succession::best(state, leader)
    {
        begin(state, leader, None, to);
    }
}

/// The leader of this term wants this node to take over; nobody else's order counts (contract
/// V5). What this node would rather do does not matter now.
pub(crate) fn on_timeout_now(state: &mut State, follower: &Follower, from: NodeId) -> Next {
    if follower.leader != Some(from) || !state.can_campaign() {
        state.counters.drops.count(|drops| &mut drops.stale);
        return Next::Stay;
    }
    state.forget_leader();
    Next::Campaign { ordered_in: Some(state.term()) }
}

/// A node that would rather not lead has the entries that others lacked; once they have them it
/// hands over (contract V7).
fn hand_over_if_unwilling(state: &mut State, leader: &mut Leader) {
    let is_unwilling = state.config.priority() == Priority::Never && leader.transfer.is_none();
    if is_unwilling
        && state.now() >= leader.ask_relief_at
        && majority::has_committed_in_term(state, leader)
        && let Some(to) = succession::best(state, leader)
    {
        begin(state, leader, None, to);
        // If nobody takes over, writes go on for longer than they were refused (T97).
        let pause = state.config.timing().election_timeout_max.saturating_mul(RELIEF_FACTOR);
        leader.ask_relief_at = state.now().after(pause);
    }
}

/// Moves a hand-over on: tells the successor as soon as it has everything, or gives up.
pub(crate) fn settle(state: &mut State, leader: &mut Leader) {
    hand_over_if_unwilling(state, leader);
    let Some(transfer) = &mut leader.transfer else { return };
    let to = transfer.to;
    let is_voter = state.membership().voters().iter().any(|voter| voter.node == to);
    if state.now() >= transfer.until || !is_voter {
        let within = state.config.timing().election_timeout_max;
        let error =
            if is_voter { TransferError::TimedOut { to, within } } else { TransferError::NotVoter { node: to } };
        if let Some(request) = transfer.request {
            state.outbox.reply(request, Outcome::NotTransferred(error));
        }
        leader.transfer = None;
        return;
    }
    let has_everything = leader.peers.get(&to).is_some_and(|peer| peer.matched() == state.log.last().index);
    if has_everything && !transfer.ordered {
        transfer.ordered = true;
        leader.has_ordered = true;
        state.outbox.send(to, Rpc::TimeoutNow { term: state.hard_state.term });
    }
}

/// Looks at the own disk. A leader whose disk has not finished what was committed a stall limit
/// ago holds nobody up – the others have it – but would, as soon as one of them is lost. Nor may
/// one write hang for ever, even if nothing is committed meanwhile.
///
/// It tells the best voter to take over, and does not campaign before a write that was issued
/// now is done: if all disks hiccup together, leadership does not go round in circles (D9).
pub(crate) fn on_stall(state: &mut State, leader: &mut Leader) -> Next {
    watch(state, leader);
    if stalled_at(state, leader).is_none_or(|at| at > state.now()) {
        return Next::Stay;
    }
    state.outbox.observe(Observation::Stalled { index: state.commit });
    state.outbox.stage_hard_state();
    succession::give_up(state, leader)
}

/// Remembers an index that is committed and not durable here, until it is: a disk that is only
/// slower than others moves on, one that stalls does not.
fn watch(state: &State, leader: &mut Leader) {
    let (durable, commit) = (state.log.durable(), state.commit);
    if leader.lagging.is_none_or(|(index, _)| durable >= index) {
        leader.lagging = (durable < commit).then(|| (commit, state.now()));
    }
}

/// When the own disk counts as stalled, if it does not move before.
fn stalled_at(state: &State, leader: &Leader) -> Option<Time> {
    // Alone, there is nobody to hand over to.
    if state.is_sole_voter() {
        return None;
    }
    let limit = state.config.timing().stall_limit;
    let lagging = leader.lagging.map(|(_, since)| since.after(limit));
    let hanging = state.outbox.writing_since().map(|since| since.after(limit.saturating_mul(HANG_FACTOR)));
    lagging.into_iter().chain(hanging).min()
}

/// When the clock next has something to say about all this.
pub(crate) fn deadline(state: &State, leader: &Leader) -> Option<Time> {
    let transfer = leader.transfer.as_ref().map(|transfer| transfer.until);
    transfer.into_iter().chain(stalled_at(state, leader)).min()
}

/// The disk has failed for good: this node can keep no promise any more.
pub(crate) fn on_storage_failed(state: &mut State, leader: Option<&mut Leader>) -> Next {
    state.storage = Storage::Failed;
    state.outbox.on_storage_failed();
    match leader {
        Some(leader) => succession::give_up(state, leader),
        None => Next::Follow { term: state.term(), leader: None },
    }
}
