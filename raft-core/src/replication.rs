//! Layer 4, rules: how logs become alike. §5.3; Thesis 10.2.1 (pipelining, writing in parallel);
//! contract D6, R1–R6.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::effect::{Busy, Effect, Observation, Outcome, Purpose};
use crate::entry::{Entries, Entry, Payload};
use crate::message::{Append, LogReadOutcome, Rejection, Rpc, SnapshotOffer};
use crate::progress::{Denied, Progress};
use crate::role::{Follower, Leader};
use crate::state::{State, Storage};
use crate::types::{Index, NodeId, Peer, Position, ReadId, RequestId, Round};

// ---- at a follower -------------------------------------------------------------------------

/// The leader of this term has been heard of.
pub(crate) fn on_leader_contact(state: &mut State, follower: &mut Follower) {
    state.clock.leader_contact = Some(state.now());
    state.clock.is_needed = false;
    follower.election_at = state.now().after(follower.timeout);
}

/// The leader sends entries, or probes with none. Figure 2, `AppendEntries`, steps 2–5.
pub(crate) fn on_append(state: &mut State, follower: &mut Follower, from: NodeId, append: &Append) {
    let Append { term, round, prev, commit, entries } = append;
    if !is_well_formed(append) || contradicts_commit(state, append) {
        state.counters.drops.count(|drops| &mut drops.malformed);
        return;
    }
    // What is committed here is in every leader's log (§5.4), whether `prev` can be looked up or not.
    if prev.index > state.commit && !state.log.holds(*prev) {
        let hint = state.log.newest_not_above(*prev);
        let rejection = Rejection { term: *term, round: *round, prev: prev.index, hint, commit: state.commit };
        state.outbox.send(from, Rpc::AppendRejected(Box::new(rejection)));
        return;
    }
    let matched = entries.last().map_or(prev.index, |entry| entry.index);
    if let Some(first_new) = first_unknown(state, entries) {
        let is_behind = state.outbox.unsynced_bytes() >= state.config.limits().unsynced_bytes_max;
        if state.storage != Storage::Ready || is_behind {
            // D6, D8: no answer; the leader sends again once the disk has caught up, or has space.
            state.counters.drops.count(|drops| &mut drops.overload);
            return;
        }
        if first_new <= state.log.last().index {
            state.truncate_from(first_new);
        }
        let new = entries.slice(first_new, matched);
        state.log.append(new.clone());
        state.outbox.stage_entries(first_new);
        // M2 – in force from here on, committed or not.
        for entry in new.iter() {
            if let Payload::Configuration(membership) = &entry.payload {
                state.configure(entry.index, membership.clone());
            }
        }
    }
    follower.verified = follower.verified.max(matched);
    state.commit_through((*commit).min(follower.verified));
    let durable = state.durable();
    state.outbox.hold_ack(from, *term, *round, matched, durable);
}

/// Whether the entries follow `prev`, and none is of a later term than the leader's.
fn is_well_formed(append: &Append) -> bool {
    let Append { term, prev, entries, .. } = append;
    match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => first.index == prev.index.next() && first.term >= prev.term && last.term <= *term,
        _ => prev.term <= *term,
    }
}

/// Whether the append denies something that is committed here: no correct leader does (§5.4.3).
fn contradicts_commit(state: &State, append: &Append) -> bool {
    let base = state.log.base().index;
    let denied =
        |position: Position| position.index <= state.commit && position.index >= base && !state.log.holds(position);
    denied(append.prev)
        || append.entries.iter().take_while(|entry| entry.index <= state.commit).any(|entry| denied(entry.position()))
}

/// The first entry that the log does not hold. Everything before it stays, and so does everything
/// after an append that brings nothing new: it may be old and short (T54).
fn first_unknown(state: &State, entries: &Entries) -> Option<Index> {
    let last = state.log.last().index;
    let first = entries.first()?;
    if first.index > last {
        return Some(first.index);
    }
    let unknown = entries.iter().find(|entry| entry.index > state.commit && !state.log.holds(entry.position()));
    unknown.map(|entry| entry.index)
}

/// The leader says that it is still there, and how far everybody is.
pub(crate) fn on_heartbeat(
    state: &mut State,
    follower: &Follower,
    from: NodeId,
    round: Round,
    commit: Index,
    promise: Duration,
) {
    state.commit_through(commit.min(follower.verified));
    // D2: never held, so it claims only what is durable in a durable term.
    let durable = if state.outbox.is_hard_state_durable() { state.durable() } else { Index::ZERO };
    let matched = follower.verified.min(durable);
    // T3 – without leases of its own this node would forget the promise with a restart (T5).
    let longest = state.config.leases().map_or(Duration::ZERO, |_| state.config.timing().election_timeout_min);
    let granted = promise.min(longest);
    state.clock.promised_until = state.clock.promised_until.max(state.now().after(granted));
    let reply = Rpc::HeartbeatReply { term: state.term(), round, matched, verified: follower.verified, granted };
    state.outbox.send(from, reply);
}

/// The leader mentions how far everybody is.
pub(crate) fn on_commit_notice(state: &mut State, follower: &Follower, commit: Index) {
    state.commit_through(commit.min(follower.verified));
}

// ---- at the leader -------------------------------------------------------------------------

/// A client wants something replicated. It gets its place in the log when the batch settles.
pub(crate) fn on_propose(state: &mut State, leader: &mut Leader, request: RequestId, command: Bytes) {
    let limits = state.config.limits();
    let proposals = &leader.proposals;
    let pending = proposals.staged.len().saturating_add(proposals.appended.len());
    // A limit that is reached refuses the next one: a single huge command still passes (T59).
    let busy = if state.storage == Storage::Full {
        Some(Busy::StorageFull)
    } else if leader.transfer.is_some() {
        Some(Busy::Transferring)
    } else if pending >= limits.pending_proposals_max {
        Some(Busy::Proposals)
    } else if proposals.uncommitted.total().saturating_add(proposals.staged_bytes) >= limits.uncommitted_bytes_max {
        Some(Busy::Uncommitted)
    } else if state.outbox.unsynced_bytes().saturating_add(proposals.staged_bytes) >= limits.unsynced_bytes_max {
        Some(Busy::Unsynced)
    } else {
        None
    };
    match busy {
        Some(busy) => state.outbox.reply(request, Outcome::Busy(busy)),
        None => {
            let cost = Entry::OVERHEAD.saturating_add(command.len() as u64);
            leader.proposals.staged_bytes = leader.proposals.staged_bytes.saturating_add(cost);
            leader.proposals.staged.push((request, command));
        }
    }
}

/// Puts everything proposed in this batch into the log, as one chunk.
pub(crate) fn append_proposals(state: &mut State, leader: &mut Leader) {
    if leader.proposals.staged.is_empty() {
        return;
    }
    let term = state.term();
    let first = state.log.last().index.next();
    let mut index = first;
    let mut batch = Vec::with_capacity(leader.proposals.staged.len());
    for (request, command) in leader.proposals.staged.drain(..) {
        leader.proposals.appended.push_back((index, request));
        state.outbox.observe(Observation::Accepted { request, position: Position::new(index, term) });
        batch.push(Entry { term, index, payload: Payload::Command(command) });
        index = index.next();
    }
    leader.proposals.staged_bytes = 0;
    let entries = Entries::from_ordered(batch);
    leader.proposals.uncommitted.charge(index.prev(), entries.cost());
    state.log.append(entries);
    state.outbox.stage_entries(first);
}

/// The progress of a peer that answers for the store it is a member with, and the answer
/// confirms that it followed us when `round` was sent.
fn answered<'a>(state: &mut State, leader: &'a mut Leader, from: Peer, round: Round) -> Option<&'a mut Progress> {
    if leader.peers.get(&from.node).is_none_or(|progress| progress.store() != from.store) {
        state.counters.drops.count(|drops| &mut drops.foreign);
        return None;
    }
    // Rounds begin at 1: whoever answers another one answers nothing that was asked.
    if round == Round::ZERO || round > leader.rounds.newest() {
        state.counters.drops.count(|drops| &mut drops.malformed);
        return None;
    }
    let sent_at = leader.rounds.sent_at(round);
    let progress = leader.peers.get_mut(&from.node)?;
    progress.on_confirmed(round, sent_at);
    Some(progress)
}

/// A peer holds our log, durably, up to `matched`.
pub(crate) fn on_append_reply(state: &mut State, leader: &mut Leader, from: Peer, round: Round, matched: Index) {
    if matched > state.log.last().index {
        state.counters.drops.count(|drops| &mut drops.malformed);
        return;
    }
    let newest = leader.rounds.newest();
    if let Some(progress) = answered(state, leader, from, round) {
        progress.on_matched(matched, newest, state.now());
        progress.on_chased(state.log.last().index, state.now(), state.patience());
    }
}

/// A peer does not hold what an append builds on. §5.3, contract R2: the next attempt starts at
/// the end of our last run that is not above its own, or after what it knows to be committed.
pub(crate) fn on_append_rejected(state: &mut State, leader: &mut Leader, from: Peer, rejection: &Rejection) {
    let Rejection { round, prev, hint, commit, .. } = *rejection;
    let candidate = state.log.newest_not_above(hint).index.max(commit.min(prev.prev()));
    let Some(progress) = answered(state, leader, from, round) else { return };
    match progress.on_rejected(round, prev, candidate) {
        Denied::News => {}
        Denied::Stale => state.counters.drops.count(|drops| &mut drops.stale),
        Denied::Regression { from: lost, to } => {
            let node = from.node;
            state.outbox.observe(Observation::Regressed { node, from: lost, to });
            // What a snapshot covers by now is of a term that is no later than its last one.
            let term = state.log.term_at(lost).unwrap_or(state.log.base().term);
            let acknowledged = Position::new(lost, term);
            state.outbox.send(node, Rpc::Regressed { term: state.hard_state.term, acknowledged });
        }
    }
}

/// A peer has answered a heartbeat.
pub(crate) fn on_heartbeat_reply(
    state: &mut State,
    leader: &mut Leader,
    from: Peer,
    round: Round,
    matched: Index,
    verified: Index,
    granted: Duration,
) {
    let (now, patience) = (state.now(), state.patience());
    if matched.max(verified) > state.log.last().index {
        state.counters.drops.count(|drops| &mut drops.malformed);
        return;
    }
    let newest = leader.rounds.newest();
    // T3 – the promise runs from the arrival of the heartbeat; for us, from before it left.
    let sent_at = leader.rounds.sent_at(round);
    // More than was asked for cannot have been meant.
    let granted = granted.min(state.config.timing().election_timeout_min);
    let promised = state.config.leases().zip(sent_at).map(|(leases, sent_at)| sent_at.after(leases.reliable(granted)));
    if let Some(progress) = answered(state, leader, from, round) {
        progress.on_matched(matched, newest, now);
        progress.on_chased(state.log.last().index, now, patience);
        progress.on_heartbeat_reply(verified, now, patience);
        promised.into_iter().for_each(|until| progress.on_promised(until));
    }
}

/// The channel to a peer broke, and what was in it is lost.
pub(crate) fn on_peer_unreachable(leader: &mut Leader, node: NodeId) {
    if let Some(progress) = leader.peers.get_mut(&node) {
        progress.on_unreachable();
    }
}

/// Entries that a peer lacks have been read back (contract R4). Whatever has changed meanwhile,
/// entries that agree with our terms are our entries; only the place to continue has to be right.
pub(crate) fn on_log_read(state: &mut State, leader: &mut Leader, id: ReadId, outcome: &LogReadOutcome) {
    let Some((node, progress)) = leader.peers.iter_mut().find(|(_, progress)| progress.is_reading(id)) else {
        state.counters.drops.count(|drops| &mut drops.stale);
        return;
    };
    let LogReadOutcome::Entries(entries) = outcome else {
        // Left as asked for: it is asked again when it is overdue, not in a busy loop.
        return;
    };
    if entries.is_empty() || !state.log.agrees_with(entries) {
        // As good as damaged.
        return;
    }
    progress.on_read_answered();
    let last = progress.last_to_send(state.log.last().index, state.commit);
    let entries = entries.slice(progress.next(), last);
    // What comes before them may have been compacted since they were asked for.
    let continues =
        progress.next() > state.log.base().index && entries.first().is_some_and(|entry| entry.index == progress.next());
    if !continues || !progress.may_send(&state.config.limits()) {
        state.counters.drops.count(|drops| &mut drops.stale);
        return;
    }
    let round = leader.rounds.open(state.now(), &state.config.timing());
    send_append(state, *node, progress, round, entries, &mut Vec::new());
}

/// Sends what is due to each peer: a heartbeat if it is time or reads wait for one, one append if
/// there are entries and room (contract R6), the bare commit index if the pipe is idle.
pub(crate) fn settle(state: &mut State, leader: &mut Leader, reads_asked: Option<Round>) {
    let now = state.now();
    let timing = state.config.timing();
    let heartbeat_due = now >= leader.heartbeat_at;
    if heartbeat_due {
        leader.heartbeat_at = now.after(timing.heartbeat_interval);
    }
    let mut round = reads_asked;
    if heartbeat_due || reads_asked.is_some() {
        let round = *round.get_or_insert_with(|| leader.rounds.open(now, &timing));
        for (node, progress) in &mut leader.peers {
            // R3: clamped, because nothing vouches for what the peer holds beyond its match.
            let commit = state.commit.min(progress.matched());
            progress.on_noticed(commit);
            let promise = state.config.leases().map_or(Duration::ZERO, |_| timing.election_timeout_min);
            state.outbox.send(*node, Rpc::Heartbeat { term: state.hard_state.term, round, commit, promise });
        }
    }
    let mut made = Vec::new();
    for (node, progress) in &mut leader.peers {
        let last = progress.last_to_send(state.log.last().index, state.commit);
        // §7 – what it needs next is in the snapshot only.
        if progress.next() <= state.log.base().index && progress.may_send(&state.config.limits()) {
            let round = *round.get_or_insert_with(|| leader.rounds.open(now, &timing));
            offer_snapshot(state, *node, progress, round);
        }
        // One append for each `message_bytes_max`, as many as the window admits.
        while progress.wants_append(last) && progress.may_send(&state.config.limits()) {
            let message_bytes_max = state.config.limits().message_bytes_max;
            let Some(entries) = state.log.entries(progress.next(), last, message_bytes_max) else {
                read_back(state, *node, progress);
                break;
            };
            let round = *round.get_or_insert_with(|| leader.rounds.open(now, &timing));
            send_append(state, *node, progress, round, entries, &mut made);
        }
        if progress.inflight() == 0
            && !progress.wants_append(last)
            && let Some(commit) = progress.commit_to_notice(state.commit)
        {
            progress.on_noticed(commit);
            state.outbox.send(*node, Rpc::CommitNotice { term: state.hard_state.term, commit });
        }
        if let Some(mode) = progress.take_change_of_mode() {
            state.outbox.observe(Observation::Progress { node: *node, mode });
        }
    }
}

/// Offers the newest snapshot to a peer that needs entries from before the log's beginning.
fn offer_snapshot(state: &mut State, node: NodeId, progress: &mut Progress, round: Round) {
    let Some(meta) = state.snapshots.newest.clone() else { return };
    progress.on_snapshot_offered(meta.last.index, state.now());
    let (term, source) = (state.term(), state.me());
    let offer = SnapshotOffer { term, round, meta: meta.clone(), source };
    state.outbox.send(node, Rpc::InstallSnapshot(Arc::new(offer)));
    state.outbox.emit(Effect::SendSnapshot { to: node, meta });
}

/// Sends one append. `made` holds those made in this step: for peers that stand at the same place
/// they are the same, and the transport can encode each once.
fn send_append(
    state: &mut State,
    node: NodeId,
    progress: &mut Progress,
    round: Round,
    entries: Entries,
    made: &mut Vec<Arc<Append>>,
) {
    let prev_index = progress.next().prev();
    let Some(prev_term) = state.log.term_at(prev_index) else {
        // `next` is always in the log or one past it, and all terms of the log are known.
        unreachable!("the term at index {prev_index} is unknown");
    };
    let prev = Position::new(prev_index, prev_term);
    let last = entries.last().map_or(prev, Entry::position);
    let cost = entries.cost();
    let is_same =
        |append: &&Arc<Append>| append.prev == prev && append.entries.last().map_or(prev, Entry::position) == last;
    let append = match made.iter().find(is_same) {
        Some(same) => same.clone(),
        None => {
            let append = Arc::new(Append { term: state.hard_state.term, round, prev, commit: state.commit, entries });
            made.push(append.clone());
            append
        }
    };
    progress.on_sent(last.index, cost, state.now());
    progress.on_noticed(state.commit.min(last.index));
    state.outbox.send(node, Rpc::Append(append));
}

/// Asks for the entries that a peer lacks and memory no longer has; one question at a time.
fn read_back(state: &mut State, node: NodeId, progress: &mut Progress) {
    if progress.is_read_pending(state.now()) {
        return;
    }
    let through = state.log.cached_from().prev();
    let message_bytes_max = state.config.limits().message_bytes_max;
    let id = state.read_log(Purpose::Peer(node), progress.next(), through, message_bytes_max);
    progress.on_read_asked(id, state.now(), state.patience());
}
