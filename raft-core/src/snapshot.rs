//! Layer 4, rules: snapshots, and the log that they make superfluous. §7; contract S1–S3.
//!
//! ```text
//!  taking:     TakeSnapshot ──▶ SnapshotTaken ──▶ Compact
//!  supplying:  leader ──InstallSnapshot (the word)──▶ follower ◀──SendSnapshot (the bytes)── leader
//!              follower: SnapshotReceived ──▶ InstallSnapshot ──▶ Persisted ──▶ acknowledgement
//! ```

use alloc::sync::Arc;

use crate::durable::SnapshotMeta;
use crate::effect::{Busy, Effect, Outcome};
use crate::message::{Rpc, SnapshotFate};
use crate::progress::Progress;
use crate::role::{Follower, Leader, Role};
use crate::state::State;
use crate::types::{Index, NodeId, Peer, Position, RequestId, Round, Term, Time};

/// A peer that has received nothing of a snapshot for this many election timeouts is offered it
/// anew. It counts from its last progress: a big snapshot may take as long as it takes (T86).
const SILENCE_FACTOR: u32 = 10;

/// A snapshot that failed is tried again after this many election timeouts.
const RETRY_FACTOR: u32 = 10;

/// More runs of terms than this are worth a snapshot of their own: they are all in memory.
const RUNS_MAX: usize = 4_096;

// ---- taking one ----------------------------------------------------------------------------

/// An operator wants a snapshot.
pub(crate) fn on_request(state: &mut State, request: RequestId) {
    if state.snapshots.requests.len() >= state.config.limits().pending_reads_max {
        state.outbox.reply(request, Outcome::Busy(Busy::Reads));
    } else {
        state.snapshots.requests.push((state.applying.handed, request));
        state.snapshots.retry_at = Time::ZERO;
    }
}

/// The state machine as of `index` is on stable storage: one that was asked for, or one that the
/// application has made when it liked. `bytes` is `None` if it has failed.
pub(crate) fn on_taken(state: &mut State, index: Index, bytes: Option<u64>) {
    let timing = state.config.timing();
    if state.snapshots.making.is_some_and(|making| making.index == index) {
        state.snapshots.making = None;
    }
    let Some(bytes) = bytes else {
        state.snapshots.retry_at = state.now().after(timing.election_timeout_max.saturating_mul(RETRY_FACTOR));
        for (_, request) in core::mem::take(&mut state.snapshots.requests) {
            state.outbox.reply(request, Outcome::SnapshotFailed);
        }
        return;
    };
    assert!(
        index <= state.applying.handed,
        "a snapshot of index {index}, but only {} was handed over",
        state.applying.handed
    );
    let Some(term) = state.log.term_at(index) else {
        // A newer one was installed meanwhile, and the log begins after it.
        state.counters.drops.count(|drops| &mut drops.stale);
        return;
    };
    // S1 – as of that index; the one in force by now may never be committed. Who is still joining
    // may not know it, and a snapshot without it would be of no use to anybody.
    let configuration = state.configurations.at(index).clone();
    if index > state.snapshots.last().index && !configuration.membership.voters().is_empty() {
        state.snapshots.newest =
            Some(Arc::new(SnapshotMeta { last: Position::new(index, term), configuration, bytes }));
    }
}

/// Asks for a snapshot if one is due, answers whoever has waited for one, and cuts the log.
pub(crate) fn settle(state: &mut State, role: &Role) {
    answer(state);
    compact(state, role);
    let limits = state.config.limits();
    let (last, handed) = (state.snapshots.last(), state.applying.handed);
    let is_due = state.log.bytes_after(last.index) >= limits.snapshot_bytes
        || handed.since(last.index) >= limits.snapshot_entries
        || state.log.runs().len() > RUNS_MAX
        || !state.snapshots.requests.is_empty();
    if !is_due || state.snapshots.making.is_some() || handed <= last.index || state.now() < state.snapshots.retry_at {
        return;
    }
    let (Some(term), configuration) = (state.log.term_at(handed), state.configurations.at(handed).clone()) else {
        return;
    };
    // Who is still joining does not know yet which configuration was in force back then.
    if !configuration.membership.voters().is_empty() {
        let last = Position::new(handed, term);
        state.snapshots.making = Some(last);
        state.outbox.emit(Effect::TakeSnapshot { meta: Arc::new(SnapshotMeta { last, configuration, bytes: 0 }) });
    }
}

/// Whoever wanted a snapshot of what was committed back then has it.
fn answer(state: &mut State) {
    let last = state.snapshots.last();
    let State { snapshots, outbox, .. } = state;
    snapshots.requests.retain(|(wanted, request)| {
        let is_covered = *wanted <= last.index;
        if is_covered {
            outbox.reply(*request, Outcome::SnapshotTaken { last });
        }
        !is_covered
    });
}

/// Cuts what the newest snapshot covers, but keeps what a peer still needs, and a little for
/// whoever falls behind, within [`Limits::retain_bytes`](crate::Limits::retain_bytes).
fn compact(state: &mut State, role: &Role) {
    let newest = state.snapshots.last().index;
    let needed = match role {
        Role::Leader(leader) => leader.peers.values().map(Progress::needs_log_after).min().unwrap_or(newest),
        Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => Index::ZERO,
    };
    let affordable = state.log.first_within(state.config.limits().retain_bytes);
    let through = newest.min(needed.max(affordable)).min(state.log.durable()).min(state.applying.applied);
    if through > state.log.base().index && !state.outbox.is_installing() {
        state.log.compact(through);
        state.configurations.compact(through);
        state.outbox.emit(Effect::Compact { through });
    }
}

// ---- at the leader -------------------------------------------------------------------------

/// A peer says how much of a snapshot it has.
pub(crate) fn on_status(state: &mut State, leader: &mut Leader, from: Peer, last: Position, fate: SnapshotFate) {
    let now = state.now();
    match leader.peers.get_mut(&from.node).filter(|progress| progress.store() == from.store) {
        Some(progress) => progress.on_snapshot_status(last.index, fate, now),
        None => state.counters.drops.count(|drops| &mut drops.foreign),
    }
}

/// Gives up on peers that receive nothing: they are asked again what they have (T81).
pub(crate) fn watch(state: &State, leader: &mut Leader) {
    let patience = state.config.timing().election_timeout_max.saturating_mul(SILENCE_FACTOR);
    for progress in leader.peers.values_mut() {
        progress.on_snapshot_silence(state.now(), patience);
    }
}

// ---- at a follower -------------------------------------------------------------------------

/// The leader's word for a snapshot (S3). If the log holds its last entry already there is nothing
/// to install: what it says is committed (S2).
pub(crate) fn on_offer(
    state: &mut State,
    follower: &mut Follower,
    from: NodeId,
    (term, round): (Term, Round),
    meta: &Arc<SnapshotMeta>,
) {
    let last = meta.last;
    if last.term > term || meta.configuration.index > last.index || meta.configuration.membership.voters().is_empty() {
        state.counters.drops.count(|drops| &mut drops.malformed);
        return;
    }
    if is_held(state, follower, from, (term, round), last) {
        return;
    }
    follower.incoming = Some((round, meta.clone()));
    if state.snapshots.arrived == Some(last) {
        install(state, follower);
    }
}

/// Whether the log holds the last entry of a snapshot that the leader vouches for. Then that is
/// what the word for it comes to: up to there everything is committed, and acknowledged (S2).
fn is_held(
    state: &mut State,
    follower: &mut Follower,
    from: NodeId,
    (term, round): (Term, Round),
    last: Position,
) -> bool {
    let is_held = last.index <= state.commit || state.log.holds(last);
    if is_held {
        follower.verified = follower.verified.max(last.index);
        state.commit_through(last.index);
        let durable = state.durable();
        state.outbox.hold_ack(from, term, round, last.index, durable);
    }
    is_held
}

/// All of a snapshot has arrived, or the rest of it will never come.
pub(crate) fn on_received(state: &mut State, role: &mut Role, last: Position, is_complete: bool) {
    if !is_complete {
        tell(state, role, last, SnapshotFate::Failed);
        return;
    }
    state.snapshots.arrived = Some(last);
    if let Role::Follower(follower) = role
        && follower.incoming.as_ref().is_some_and(|(_, meta)| meta.last == last)
    {
        install(state, follower);
    }
}

/// So much of it has arrived.
pub(crate) fn on_progress(state: &mut State, role: &mut Role, last: Position, received: u64) {
    tell(state, role, last, SnapshotFate::Received(received));
}

fn tell(state: &mut State, role: &Role, last: Position, fate: SnapshotFate) {
    if let Role::Follower(Follower { leader: Some(leader), .. }) = role {
        state.outbox.send(*leader, Rpc::SnapshotStatus { term: state.hard_state.term, last, fate });
    }
}

/// Replaces the log by the snapshot. Not before the leader of the current term has vouched for it,
/// and only if the log lacks its last entry: then nothing in the log is worth keeping (S2).
fn install(state: &mut State, follower: &mut Follower) {
    let (Some((round, meta)), Some(from)) = (follower.incoming.take(), follower.leader) else { return };
    state.snapshots.arrived = None;
    let last = meta.last;
    // Entries may have come all the same while it was under way.
    let term = state.hard_state.term;
    if is_held(state, follower, from, (term, round), last) {
        return;
    }
    state.log.reset(last);
    state.outbox.stage_install(meta.clone());
    if state.configurations.reset(meta.configuration.clone()) {
        state.announce_configuration();
    }
    state.commit_through(last.index);
    state.applying.handed = last.index;
    state.applying.reading = None;
    state.snapshots.newest = Some(meta);
    follower.verified = follower.verified.max(last.index);
    state.outbox.hold_ack(from, term, round, last.index, Index::ZERO);
}
