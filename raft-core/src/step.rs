//! Hub: the three beats of a step: gate, route, settle.

use crate::effect::{Effect, Outcome};
use crate::message::{Event, Message, Rpc, Verdict};
use crate::role::{Next, Role};
use crate::state::State;
use crate::types::{NodeId, Peer, RequestId, Term};
use crate::{commit, election, read, replication};

/// Terms further above the own one than this are not believed: no cluster gets there, and
/// adopting one would leave no room for elections (contract V2).
const TERM_JUMP_MAX: u64 = 1 << 32;

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
    state.outbox.emit(Effect::Configured { membership: state.membership.clone() });
    role.enter(state, Next::Follow { term: state.term(), leader: None });
    // T33 – a restarted server waits a whole timeout, unless there is nobody to wait for.
    if let (Role::Follower(follower), [sole]) = (role, state.membership.voters())
        && sole.node == state.identity.node
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
        state.counters.drops.absurd_term = state.counters.drops.absurd_term.saturating_add(1);
        return Gate::Stop;
    }
    if is_of_an_earlier_life(state, from) {
        state.counters.drops.foreign = state.counters.drops.foreign.saturating_add(1);
        return Gate::Stop;
    }
    match rpc {
        // A question about a term that nobody has begun, and a yes to it, change nothing.
        Rpc::PreVote { .. } | Rpc::PreVoteReply { verdict: Verdict::Granted, .. } => Gate::Pass(Next::Stay),
        // A refusal may come from a server that is behind in terms: it is an answer all the same.
        Rpc::PreVoteReply { .. } if term <= own => Gate::Pass(Next::Stay),
        // Thesis 4.2.3 – nobody helps to overthrow a leader that it hears from; not even by its term.
        Rpc::Vote { .. } if term > own && election::is_leader_alive(state, role) => Gate::Stop,
        Rpc::Vote { .. } if term < own => {
            state.outbox.send(from.node, Rpc::VoteReply { term: own, verdict: Verdict::Refused });
            Gate::Stop
        }
        Rpc::Append(_) | Rpc::Heartbeat { .. } | Rpc::CommitNotice { .. } => gate_leader(state, role, from.node, term),
        Rpc::Vote { .. }
        | Rpc::PreVoteReply { .. }
        | Rpc::VoteReply { .. }
        | Rpc::AppendReply { .. }
        | Rpc::AppendRejected(_)
        | Rpc::HeartbeatReply { .. }
        | Rpc::TermOver { .. } => {
            if term < own {
                state.counters.drops.stale = state.counters.drops.stale.saturating_add(1);
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
    state.counters.drops.malformed = state.counters.drops.malformed.saturating_add(1);
    Gate::Stop
}

/// Whether a voter speaks from a life before the newest one that was heard of (contract V9).
fn is_of_an_earlier_life(state: &mut State, from: Peer) -> bool {
    if !state.membership.is_voter(from.node, from.store) {
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
        Event::Propose { request, command } => match role {
            Role::Leader(leader) => {
                replication::on_propose(state, leader, request, command);
                Next::Stay
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => refer(state, role, request),
        },
        // A client wants to read what is current.
        Event::Read { request } => match role {
            Role::Leader(leader) => {
                read::on_read(state, leader, request);
                Next::Stay
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => refer(state, role, request),
        },
        // The disk has finished a write.
        Event::Persisted { seq } => {
            if let Some(durable) = state.outbox.on_persisted(seq) {
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
        // The disk has failed for good.
        Event::StorageFailed => replication::on_storage_failed(state),
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
        (Role::Follower(follower), Rpc::Heartbeat { round, commit, .. }) => {
            replication::on_leader_contact(state, follower);
            replication::on_heartbeat(state, follower, from.node, round, commit);
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
        (Role::Leader(leader), Rpc::HeartbeatReply { round, matched, verified, .. }) => {
            replication::on_heartbeat_reply(state, leader, from, round, matched, verified);
        }
        // A term is over; the gate has taken that in.
        (_, Rpc::TermOver { .. }) => {}
        // An answer to a question that is no longer ours to ask; or the leader's word in a role
        // that the gate has ended on hearing it.
        (Role::Follower(_) | Role::Candidate(_) | Role::Leader(_), Rpc::PreVoteReply { .. })
        | (Role::Follower(_) | Role::PreCandidate(_) | Role::Leader(_), Rpc::VoteReply { .. })
        | (
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_),
            Rpc::AppendReply { .. } | Rpc::AppendRejected(_) | Rpc::HeartbeatReply { .. },
        )
        | (
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_),
            Rpc::Append(_) | Rpc::Heartbeat { .. } | Rpc::CommitNotice { .. },
        ) => state.counters.drops.stale = state.counters.drops.stale.saturating_add(1),
    }
    Next::Stay
}

/// Only the leader can help; say who that is.
fn refer(state: &mut State, role: &Role, request: RequestId) -> Next {
    let outcome =
        if state.storage_failed { Outcome::StorageFailed } else { Outcome::NotLeader { leader: role.leader(state) } };
    state.outbox.reply(request, outcome);
    Next::Stay
}

/// Draws the consequences of a batch: role and commit to a fixed point, then reads, the write,
/// the messages, what can be applied (contract B1).
pub(crate) fn settle(state: &mut State, role: &mut Role) {
    let next = election::on_time(state, role);
    role.enter(state, next);
    settle_role(state, role);
    let mut reads_asked = None;
    if let Role::Leader(leader) = role {
        replication::append_proposals(state, leader);
        commit::advance(state, leader);
        reads_asked = read::settle(state, leader);
    }
    state.outbox.persist(state.hard_state, &state.log);
    if let Role::Leader(leader) = role {
        replication::settle(state, leader, reads_asked);
    }
    if !state.storage_failed {
        state.outbox.release(state.log.durable());
    }
    commit::settle(state, role);
    state.log.evict(state.config.limits().log_cache_bytes);
}
