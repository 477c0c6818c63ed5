//! Hub: the three beats of a step: gate, route, settle.

use crate::effect::Outcome;
use crate::message::{Event, Message, Rpc, Verdict};
use crate::role::{Leader, Next, Role};
use crate::state::{State, Storage};
use crate::types::{Boot, NodeId, Peer, Position, RequestId, Term};
use crate::{commit, election, read, reconfig, replication, snapshot, transfer};

/// Terms further above the own one than this are not believed: no cluster gets there, and
/// adopting one would leave no room for elections (contract V2).
const TERM_JUMP_MAX: u64 = 1 << 32;

/// The first life of a store.
const FIRST_BOOT: Boot = Boot::new(1);

/// How often the membership may settle in one step: a change is committed, then the joint
/// configuration that it was is left, then that is committed, and once more to find that it is.
const MEMBERSHIP_CHANGES_MAX: usize = 4;

/// How often the consequences of a step may change the role: follower, pre-candidate, candidate,
/// leader, and once more to find that nothing changes.
const ROLE_CHANGES_MAX: usize = 5;

/// Takes one message: gate, then route.
pub(crate) fn on_message(state: &mut State, role: &mut Role, message: Message) {
    // A clock that runs backwards is taken to stand still.
    state.clock.now = state.clock.now.max(message.at);
    if !state.clock.started {
        start(state, role);
    }
    if let Event::Received { from, rpc } = &message.event {
        match gate(state, role, *from, rpc) {
            Gate::Pass(next) => role.enter(state, next),
            Gate::Stop => return,
        }
    }
    let next = route(state, role, message.event);
    role.enter(state, next);
    settle_role(state, role);
}

/// Draws the consequences of ballots for the role. After each message, because the next one must
/// meet the new role (contract B1).
fn settle_role(state: &mut State, role: &mut Role) {
    for _ in 0..ROLE_CHANGES_MAX {
        let next = election::settle(state, role);
        if next == Next::Stay {
            return;
        }
        role.enter(state, next);
    }
}

/// The first step: there is a "now" at last.
fn start(state: &mut State, role: &mut Role) {
    state.clock.started = true;
    state.announce_configuration();
    role.enter(state, Next::Follow { term: state.term(), leader: None });
    let is_sole_voter = state.is_sole_voter();
    // T5 – what was promised before the restart is forgotten, so it is assumed to be the longest
    // that there can be. A store that never ran, or that has nobody to elect, has promised nothing.
    let has_run = state.log.last() != Position::ZERO || state.term() != Term::ZERO || state.identity.boot > FIRST_BOOT;
    // A sole voter by a change that is not known to be committed is not alone yet: whoever left may
    // still lead, by nothing but its promise.
    let keeps_promise = state.config.leases().is_some() && has_run && !(is_sole_voter && state.was_always_alone());
    if keeps_promise {
        state.clock.promised_until = state.clock.now.after(state.config.timing().election_timeout_min);
    }
    // T33 – a restarted server waits a whole timeout, unless there is nobody to wait for.
    if let Role::Follower(follower) = role
        && is_sole_voter
        && !keeps_promise
    {
        follower.election_at = state.clock.now;
    }
}

/// What the gate says of a message.
enum Gate {
    /// Let it in, after this change of role.
    Pass(Next),
    /// It ends here; what there was to answer has been answered.
    Stop,
}

/// Terms and leader stickiness, nothing else (§5.1; contract V2). It refuses nobody for being
/// outside the known configuration (V3, Thesis 4.1): only from them can a server that was away
/// learn that the configuration has changed.
fn gate(state: &mut State, role: &mut Role, from: Peer, rpc: &Rpc) -> Gate {
    let (own, term) = (state.term(), rpc.term());
    if term.as_u64() > own.as_u64().saturating_add(TERM_JUMP_MAX) {
        state.counters.drops.count(|drops| &mut drops.absurd_term);
        return Gate::Stop;
    }
    if is_of_an_earlier_life(state, from) {
        state.counters.drops.count(|drops| &mut drops.foreign);
        return Gate::Stop;
    }
    match rpc {
        // A question about a term that nobody has begun, and a yes to it, change nothing.
        Rpc::PreVote { .. } | Rpc::PreVoteReply { verdict: Verdict::Granted, .. } => Gate::Pass(Next::Stay),
        // A refusal may come from a server that is behind in terms: it is an answer all the same.
        Rpc::PreVoteReply { .. } if term <= own => Gate::Pass(Next::Stay),
        // Thesis 4.2.3 – nobody helps to overthrow a leader that it hears from; not even by its term.
        // The leader itself can have ordered it (V5).
        Rpc::Vote { ordered_in, .. } if term > own && election::is_leader_alive(state, role) => {
            if *ordered_in != Some(own) {
                return Gate::Stop;
            }
            state.forget_leader();
            Gate::Pass(Next::Follow { term, leader: None })
        }
        Rpc::Vote { .. } if term < own => {
            state.outbox.send(from.node, Rpc::VoteReply { term: own, verdict: Verdict::Refused });
            Gate::Stop
        }
        Rpc::Append(_)
        | Rpc::Heartbeat { .. }
        | Rpc::CommitNotice { .. }
        | Rpc::InstallSnapshot(_)
        | Rpc::Regressed { .. } => gate_leader(state, role, from.node, term),
        Rpc::Vote { .. }
        | Rpc::PreVoteReply { .. }
        | Rpc::VoteReply { .. }
        | Rpc::AppendReply { .. }
        | Rpc::AppendRejected(_)
        | Rpc::HeartbeatReply { .. }
        | Rpc::TimeoutNow { .. }
        | Rpc::Resigned { .. }
        | Rpc::SnapshotStatus { .. }
        | Rpc::ReadIndex { .. }
        | Rpc::ReadIndexReply { .. }
        | Rpc::TermOver { .. } => {
            if term < own {
                state.counters.drops.count(|drops| &mut drops.stale);
                return Gate::Stop;
            }
            Gate::Pass(if term > own { Next::Follow { term, leader: None } } else { Next::Stay })
        }
    }
}

/// Somebody speaks as the leader of `term`.
fn gate_leader(state: &mut State, role: &Role, from: NodeId, term: Term) -> Gate {
    if term < state.term() {
        // The answer deposes it. Without it, a server stranded at a higher term would be ignored
        // by everybody, and ignore everybody, for ever.
        state.outbox.send(from, Rpc::TermOver { term: state.term() });
        return Gate::Stop;
    }
    match role {
        Role::Follower(follower) if term == state.term() && follower.leader == Some(from) => Gate::Pass(Next::Stay),
        // §5.2 – a term has one leader. Whoever claims to be another one is broken.
        Role::Follower(follower) if term == state.term() && follower.leader.is_some() => impostor(state),
        Role::Leader(_) if term == state.term() => impostor(state),
        // §5.2 – a candidate that hears from the leader of its term returns to follower.
        Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
            Gate::Pass(Next::Follow { term, leader: Some(from) })
        }
    }
}

fn impostor(state: &mut State) -> Gate {
    state.counters.drops.count(|drops| &mut drops.malformed);
    Gate::Stop
}

/// Whether a member speaks from a life before the newest one that was heard of (contract V9).
fn is_of_an_earlier_life(state: &mut State, from: Peer) -> bool {
    if state.membership().member(from.node).is_none_or(|member| member.store != from.store) {
        return false;
    }
    let newest = state.boots.entry(from.node).or_insert(from.boot);
    let earlier = from.boot < *newest;
    *newest = (*newest).max(from.boot);
    earlier
}

/// One arm for each thing that can happen in each role, each one call into a rule. No wildcard
/// over events: a new one does not compile until every role has an answer.
fn route(state: &mut State, role: &mut Role, event: Event) -> Next {
    match event {
        // Time has passed; settle looks at the clock.
        Event::Tick => Next::Stay,
        Event::Received { from, rpc } => route_rpc(state, role, from, rpc),
        // A client wants something written.
        Event::Propose { request, command } => at_leader(state, role, request, |state, leader| {
            replication::on_propose(state, leader, request, command);
        }),
        // A client wants to read what is current.
        Event::Read { request, mode } => match role {
            Role::Leader(leader) => {
                read::on_read(state, leader, request, mode);
                Next::Stay
            }
            Role::Follower(follower) if state.storage != Storage::Failed => {
                read::on_read_here(state, follower, request, mode);
                Next::Stay
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => refer(state, role, request),
        },
        // An operator wants other members. M5: what is committed by now is settled first, and what
        // was proposed before comes before.
        Event::ChangeMembership { request, expected, changes } => at_leader(state, role, request, |state, leader| {
            commit::advance(state, leader);
            replication::append_proposals(state, leader);
            reconfig::on_change(state, leader, request, expected, &changes);
        }),
        // An operator wants another leader.
        Event::TransferLeadership { request, to } => at_leader(state, role, request, |state, leader| {
            commit::advance(state, leader);
            transfer::on_transfer(state, leader, request, to);
        }),
        // The disk has finished a write.
        Event::Persisted { seq } => {
            // D8 – a disk that has failed is believed nothing any more, not even that it has finished.
            if let Some(durable) = state.outbox.on_persisted(seq).filter(|_| state.storage != Storage::Failed) {
                state.log.mark_durable(durable);
            }
            Next::Stay
        }
        // The state machine has caught up.
        Event::Applied { index } => {
            commit::on_applied(state, index);
            Next::Stay
        }
        // Entries that had left memory are back.
        Event::LogRead { id, outcome } => {
            match role {
                Role::Leader(leader) if state.applying.reading.is_none_or(|reading| reading.id != id) => {
                    replication::on_log_read(state, leader, id, &outcome);
                }
                Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                    commit::on_log_read(state, role, id, &outcome);
                }
            }
            Next::Stay
        }
        // A connection broke.
        Event::PeerUnreachable { node } => {
            match role {
                Role::Follower(follower) => election::on_leader_unreachable(state, follower, node),
                Role::Leader(leader) => replication::on_peer_unreachable(leader, node),
                Role::PreCandidate(_) | Role::Candidate(_) => {}
            }
            Next::Stay
        }
        // An operator wants a snapshot.
        Event::RequestSnapshot { request } => {
            snapshot::on_request(state, request);
            Next::Stay
        }
        // The state machine has been written down.
        Event::SnapshotTaken { index, bytes } => {
            snapshot::on_taken(state, index, bytes);
            Next::Stay
        }
        // Some of another server's snapshot is here.
        Event::SnapshotProgress { last, received } => {
            snapshot::on_progress(state, role, last, received);
            Next::Stay
        }
        // All of it is, or nothing more will come.
        Event::SnapshotReceived { last, complete } => {
            snapshot::on_received(state, role, last, complete);
            Next::Stay
        }
        // The disk has failed for good.
        Event::StorageFailed => match role {
            Role::Leader(leader) => transfer::on_storage_failed(state, Some(leader)),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => transfer::on_storage_failed(state, None),
        },
        // The disk is nearly full.
        Event::StorageFull => {
            if state.storage == Storage::Ready {
                state.storage = Storage::Full;
                if let Role::Leader(leader) = role {
                    transfer::on_storage_full(state, leader);
                }
            }
            Next::Stay
        }
        // There is space again.
        Event::StorageReady => {
            if state.storage == Storage::Full {
                state.storage = Storage::Ready;
            }
            Next::Stay
        }
    }
}

/// Another server has said something, in our term or about one to come.
fn route_rpc(state: &mut State, role: &mut Role, from: Peer, rpc: Rpc) -> Next {
    match (role, rpc) {
        // Somebody wonders whether it could win.
        (role, Rpc::PreVote { term, campaign, last }) => {
            election::on_pre_vote(state, role, from.node, term, campaign, last);
        }
        // Somebody wants our vote.
        (role, Rpc::Vote { last, .. }) => return election::on_vote(state, role, from.node, last),
        // Somebody says whether we could win.
        (Role::PreCandidate(candidate), Rpc::PreVoteReply { campaign, verdict, .. }) => {
            election::on_pre_vote_reply(state, candidate, from, campaign, verdict);
        }
        // Somebody has voted.
        (Role::Candidate(candidate), Rpc::VoteReply { verdict, .. }) => {
            election::on_vote_reply(state, candidate, from, verdict);
        }
        // The leader sends entries.
        (Role::Follower(follower), Rpc::Append(append)) => {
            replication::on_leader_contact(state, follower);
            replication::on_append(state, follower, from.node, &append);
        }
        // The leader is alive.
        (Role::Follower(follower), Rpc::Heartbeat { round, commit, promise, .. }) => {
            replication::on_leader_contact(state, follower);
            replication::on_heartbeat(state, follower, from.node, round, commit, promise);
        }
        // The leader mentions what is committed.
        (Role::Follower(follower), Rpc::CommitNotice { commit, .. }) => {
            replication::on_leader_contact(state, follower);
            replication::on_commit_notice(state, follower, commit);
        }
        // A peer has taken entries.
        (Role::Leader(leader), Rpc::AppendReply { round, matched, .. }) => {
            replication::on_append_reply(state, leader, from, round, matched);
        }
        // A peer could not take them.
        (Role::Leader(leader), Rpc::AppendRejected(rejection)) => {
            replication::on_append_rejected(state, leader, from, &rejection);
        }
        // A peer is alive, and follows us.
        (Role::Leader(leader), Rpc::HeartbeatReply { round, matched, verified, granted, .. }) => {
            replication::on_heartbeat_reply(state, leader, from, round, matched, verified, granted);
        }
        // The leader sends a snapshot.
        (Role::Follower(follower), Rpc::InstallSnapshot(offer)) => {
            replication::on_leader_contact(state, follower);
            snapshot::on_offer(state, follower, from.node, (offer.term, offer.round), &offer.meta);
        }
        // A peer says how it fares with one.
        (Role::Leader(leader), Rpc::SnapshotStatus { last, fate, .. }) => {
            snapshot::on_status(state, leader, from, last, fate);
        }
        // The leader knows of more than this node has.
        (Role::Follower(follower), Rpc::Regressed { acknowledged, .. }) => {
            replication::on_leader_contact(state, follower);
            state.raise_floor(acknowledged);
        }
        // The leader hands over to this node.
        (Role::Follower(follower), Rpc::TimeoutNow { .. }) => {
            return transfer::on_timeout_now(state, follower, from.node);
        }
        // The leader gives up.
        (Role::Follower(follower), Rpc::Resigned { .. }) => {
            return election::on_resigned(state, follower, from.node);
        }
        // Clients of a follower want to read.
        (Role::Leader(leader), Rpc::ReadIndex { id, mode, .. }) => {
            read::on_read_index(state, leader, from, id, mode);
        }
        // The leader says up to where they have to wait.
        (Role::Follower(follower), Rpc::ReadIndexReply { id, index, .. }) => {
            read::on_read_index_reply(state, follower, id, index);
        }
        // A term is over; the gate has taken that in.
        (_, Rpc::TermOver { .. }) => {}
        // An answer to a question that is no longer ours to ask; or the leader's word in a role
        // that the gate has ended on hearing it.
        (Role::Follower(_) | Role::Candidate(_) | Role::Leader(_), Rpc::PreVoteReply { .. })
        | (Role::Follower(_) | Role::PreCandidate(_) | Role::Leader(_), Rpc::VoteReply { .. })
        | (
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_),
            Rpc::AppendReply { .. }
            | Rpc::AppendRejected(_)
            | Rpc::HeartbeatReply { .. }
            | Rpc::SnapshotStatus { .. }
            | Rpc::ReadIndex { .. },
        )
        | (
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_),
            Rpc::Append(_)
            | Rpc::Heartbeat { .. }
            | Rpc::CommitNotice { .. }
            | Rpc::InstallSnapshot(_)
            | Rpc::Regressed { .. }
            | Rpc::TimeoutNow { .. }
            | Rpc::Resigned { .. }
            | Rpc::ReadIndexReply { .. },
        ) => state.counters.drops.count(|drops| &mut drops.stale),
    }
    Next::Stay
}

/// Has the leader's rule deal with a request, where there is one.
fn at_leader(
    state: &mut State,
    role: &mut Role,
    request: RequestId,
    rule: impl FnOnce(&mut State, &mut Leader),
) -> Next {
    match role {
        Role::Leader(leader) => {
            rule(state, leader);
            Next::Stay
        }
        Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => refer(state, role, request),
    }
}

/// Only the leader can help; say who that is.
fn refer(state: &mut State, role: &Role, request: RequestId) -> Next {
    let outcome = match state.storage {
        Storage::Failed => Outcome::StorageFailed,
        Storage::Ready | Storage::Full => Outcome::NotLeader { leader: role.leader(state) },
    };
    state.outbox.reply(request, outcome);
    Next::Stay
}

/// Draws the consequences of a batch: role and commit to a fixed point, then reads, the write,
/// the messages, what can be applied (contract B1).
pub(crate) fn settle(state: &mut State, role: &mut Role) {
    if let Role::Leader(leader) = role {
        let next = transfer::on_stall(state, leader);
        role.enter(state, next);
    }
    let next = election::on_time(state, role);
    role.enter(state, next);
    settle_role(state, role);
    let mut reads_asked = None;
    let mut is_leaving = false;
    match role {
        Role::Leader(leader) => {
            replication::append_proposals(state, leader);
            is_leaving = settle_membership(state, leader);
            transfer::settle(state, leader);
            reads_asked = read::settle(state, leader);
        }
        Role::Follower(follower) => read::settle_follower(state, follower),
        Role::PreCandidate(_) | Role::Candidate(_) => {}
    }
    state.settle_floor();
    state.outbox.persist(state.hard_state, &state.log, state.clock.now);
    if let Role::Leader(leader) = role {
        snapshot::watch(state, leader);
        replication::settle(state, leader, reads_asked);
    }
    if state.storage != Storage::Failed {
        state.outbox.release(state.log.durable());
    }
    commit::settle(state, role);
    if state.storage != Storage::Failed {
        snapshot::settle(state, role);
    }
    state.log.evict(state.config.limits().log_cache_bytes);
    // A leader that is no longer a member hands over last, when all that is committed has been
    // handed to the state machine, and those who asked for it have their answer.
    if is_leaving && let Role::Leader(leader) = role {
        let next = reconfig::leave(state, leader);
        role.enter(state, next);
    }
}

/// What is committed, and who decides that, to a fixed point: a new configuration can commit
/// entries that wait (T65), and a committed one can lead to the next. Returns whether this leader
/// is no member any more.
fn settle_membership(state: &mut State, leader: &mut Leader) -> bool {
    for _ in 0..MEMBERSHIP_CHANGES_MAX {
        commit::advance(state, leader);
        let before = state.configurations.latest().index;
        let is_leaving = reconfig::settle(state, leader);
        if state.configurations.latest().index == before {
            return is_leaving;
        }
    }
    false
}
