//! Layer 3: what only a role has, and the one place where roles change.
//!
//! ```text
//!              timeout              majority would           majority votes
//!  Follower ────────────▶ PreCandidate ──────▶ Candidate ──────────────────▶ Leader
//!     ▲                        │                   │                            │
//!     └────────────────────────┴───────────────────┴────────────────────────────┘
//!                     a leader appears, or a newer term, or no majority answers
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::config::Timing;
use crate::durable::SnapshotMeta;
use crate::effect::{Observation, Outcome, RoleKind};
use crate::entry::Payload;
use crate::ledger::Ledger;
use crate::membership::{Member, Membership};
use crate::message::{CampaignId, ForwardId, ReadMode, Rpc, Verdict};
use crate::progress::Progress;
use crate::quorum::{self, Tally};
use crate::state::State;
use crate::types::{Index, NodeId, Peer, RequestId, Round, Term, Time};

/// One of the roles of Figure 4, with what only it has.
#[derive(Debug)]
pub(crate) enum Role {
    Follower(Follower),
    PreCandidate(PreCandidate),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// Takes entries from a leader.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) leader: Option<NodeId>,
    /// Drawn for this stay in the role.
    pub(crate) timeout: Duration,
    /// When to wonder whether there is a leader at all.
    pub(crate) election_at: Time,
    /// The highest index matched with this leader in this term; the commit index never exceeds it
    /// (contract R3).
    pub(crate) verified: Index,
    pub(crate) reads: Forwarded,
    /// A snapshot that the leader has vouched for in this term, and in which round.
    pub(crate) incoming: Option<(Round, Arc<SnapshotMeta>)>,
}

/// Asks whether an election could be won.
#[derive(Debug)]
pub(crate) struct PreCandidate {
    pub(crate) campaign: CampaignId,
    pub(crate) ballots: Ballots,
    /// When to ask again.
    pub(crate) retry_at: Time,
}

/// Asks for votes.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) ballots: Ballots,
    /// When to give up; none while the own vote, and with it the requests, wait for the disk
    /// (contract D1, D7).
    pub(crate) election_at: Option<Time>,
}

/// Takes requests and replicates them.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) peers: BTreeMap<NodeId, Progress>,
    /// The entry that opened this term; once it is committed, reads may be answered.
    pub(crate) opened_at: Index,
    pub(crate) proposals: Proposals,
    pub(crate) reads: Reads,
    pub(crate) rounds: Rounds,
    pub(crate) heartbeat_at: Time,
    /// Leadership is being handed over.
    pub(crate) transfer: Option<Transfer>,
    /// This node would rather not lead, and nobody has relieved it: when it tries again.
    pub(crate) ask_relief_at: Time,
    /// Somebody has been told to take over; whoever promised to elect nobody else may elect it, so
    /// no lease counts for the rest of the term (contract T4).
    pub(crate) has_ordered: bool,
    /// An index that was committed at a moment when it was not durable here (contract D9).
    pub(crate) lagging: Option<(Index, Time)>,
    /// The change of the membership that an operator waits for.
    pub(crate) change: Option<PendingChange>,
}

/// Leadership on its way to another node (Thesis 3.10).
#[derive(Debug)]
pub(crate) struct Transfer {
    /// Who asked for it; nobody, if this node would rather not lead.
    pub(crate) request: Option<RequestId>,
    pub(crate) to: NodeId,
    /// When it counts as failed.
    pub(crate) until: Time,
    /// Whether the target has all entries, and has been told.
    pub(crate) ordered: bool,
}

/// A change of the membership that is not complete.
#[derive(Debug)]
pub(crate) struct PendingChange {
    pub(crate) request: RequestId,
    /// The member that it adds.
    pub(crate) node: Option<NodeId>,
}

/// Who has said what in one (pre-)election.
#[derive(Debug, Default)]
pub(crate) struct Ballots {
    granted: Vec<NodeId>,
    refused: Vec<NodeId>,
}

impl Ballots {
    /// Notes an answer; the first one counts. Only voters count, speaking with the store that
    /// the configuration lists (contract V9).
    pub(crate) fn note(&mut self, membership: &Membership, from: Peer, verdict: Verdict) {
        let known = self.granted.contains(&from.node) || self.refused.contains(&from.node);
        if !known && membership.is_voter(from.node, from.store) {
            match verdict {
                Verdict::Granted => self.granted.push(from.node),
                Verdict::Refused | Verdict::LeaderAlive => self.refused.push(from.node),
            }
        }
    }

    pub(crate) fn tally(&self, membership: &Membership) -> Tally {
        let half = |voters: &[Member]| {
            let count = |list: &[NodeId]| voters.iter().filter(|voter| list.contains(&voter.node)).count();
            quorum::tally(voters.len(), count(&self.granted), count(&self.refused))
        };
        quorum::both_tallies(half(membership.voters()), membership.is_joint().then(|| half(membership.outgoing())))
    }
}

/// Proposals without an answer.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    /// Taken in this batch, and not yet in the log.
    pub(crate) staged: Vec<(RequestId, Bytes)>,
    /// What they will cost there.
    pub(crate) staged_bytes: u64,
    /// In the log, in order.
    pub(crate) appended: VecDeque<(Index, RequestId)>,
    /// Bytes of them not yet committed.
    pub(crate) uncommitted: Ledger,
}

/// Who wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A client of this node.
    Here(RequestId),
    /// Clients of a follower, which asks on their behalf.
    Peer(NodeId, ForwardId),
}

/// Reads without an answer; together in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// No round has been sent for them yet.
    pub(crate) waiting: VecDeque<(ReadMode, Reader)>,
    /// Wait for a majority to answer the round.
    pub(crate) asked: VecDeque<(Round, Index, Reader)>,
    /// Wait for the state machine to reach the index.
    pub(crate) confirmed: VecDeque<(Index, RequestId)>,
}

impl Reads {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len().saturating_add(self.asked.len()).saturating_add(self.confirmed.len())
    }
}

/// A follower's reads without an answer: the leader says up to where they have to wait.
#[derive(Debug, Default)]
pub(crate) struct Forwarded {
    /// The leader has not been asked on their behalf.
    pub(crate) waiting: Vec<(ReadMode, RequestId)>,
    /// The question under way, one at a time, and the reads that it is for.
    pub(crate) asked: Option<Question>,
    /// Wait for the state machine to reach the index.
    pub(crate) confirmed: VecDeque<(Index, RequestId)>,
}

/// A question to the leader.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) id: ForwardId,
    /// When it counts as lost, and is asked again.
    pub(crate) overdue_at: Time,
    pub(crate) reads: Vec<(ReadMode, RequestId)>,
}

impl Forwarded {
    pub(crate) fn len(&self) -> usize {
        let asked = self.asked.as_ref().map_or(0, |question| question.reads.len());
        self.waiting.len().saturating_add(asked).saturating_add(self.confirmed.len())
    }
}

/// The rounds of one leader, and roughly when each was sent.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    newest: Round,
    /// The send times of some rounds: one every few milliseconds is enough to say how long a peer
    /// has been silent.
    sent: VecDeque<(Round, Time)>,
}

impl Rounds {
    /// The newest round sent.
    pub(crate) fn newest(&self) -> Round {
        self.newest
    }

    /// Opens the next round at `now`. Send times are remembered to an eighth of a heartbeat, for as
    /// long as an answer can still be worth something: after twice the longest election timeout
    /// nobody would have been waited for any more.
    pub(crate) fn open(&mut self, now: Time, timing: &Timing) -> Round {
        self.newest = self.newest.next();
        if self.sent.back().is_none_or(|(_, last)| now.since(*last) >= timing.heartbeat_interval / 8) {
            let horizon = timing.election_timeout_max.saturating_mul(2);
            while self.sent.front().is_some_and(|(_, oldest)| now.since(*oldest) > horizon) {
                self.sent.pop_front();
            }
            self.sent.push_back((self.newest, now));
        }
        self.newest
    }

    /// A moment at or before the one at which `round` was sent.
    pub(crate) fn sent_at(&self, round: Round) -> Option<Time> {
        let later = self.sent.partition_point(|(sent, _)| *sent <= round);
        self.sent.get(later.checked_sub(1)?).map(|(_, at)| *at)
    }
}

/// What a rule wants to become of the role. Only [`Role::enter`] makes it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    Stay,
    /// Follow in `term`, the current or a newer one; `leader` if it is known.
    Follow {
        term: Term,
        leader: Option<NodeId>,
    },
    /// Ask whether an election could be won.
    PreCampaign,
    /// Ask for votes, by order of the leader of this term if there is one (Thesis 3.10).
    Campaign {
        ordered_in: Option<Term>,
    },
    /// Take the lead.
    Lead,
}

impl Role {
    /// How every server starts (§5.2).
    pub(crate) fn initial() -> Self {
        Self::Follower(Follower {
            leader: None,
            timeout: Duration::ZERO,
            election_at: Time::ZERO,
            verified: Index::ZERO,
            reads: Forwarded::default(),
            incoming: None,
        })
    }

    pub(crate) fn kind(&self) -> RoleKind {
        match self {
            Self::Follower(_) => RoleKind::Follower,
            Self::PreCandidate(_) => RoleKind::PreCandidate,
            Self::Candidate(_) => RoleKind::Candidate,
            Self::Leader(_) => RoleKind::Leader,
        }
    }

    /// Who leads, as far as this node knows.
    pub(crate) fn leader(&self, state: &State) -> Option<NodeId> {
        match self {
            Self::Follower(follower) => follower.leader,
            Self::Leader(_) => Some(state.me()),
            Self::PreCandidate(_) | Self::Candidate(_) => None,
        }
    }

    /// Makes a rule's wish come true: the only place that assigns the role.
    pub(crate) fn enter(&mut self, state: &mut State, next: Next) {
        let before = (state.term(), self.kind(), self.leader(state));
        let role = match next {
            Next::Stay => return,
            Next::Follow { term, leader } => follow(state, term, leader),
            Next::PreCampaign => pre_campaign(state),
            Next::Campaign { ordered_in } => campaign(state, ordered_in),
            Next::Lead => lead(state),
        };
        state.counters.roles = state.counters.roles.saturating_add(1);
        match core::mem::replace(self, role) {
            Self::Leader(former) => resign(state, *former, self.leader(state)),
            Self::Follower(former) => turn_away(state, former.reads, self.leader(state)),
            Self::PreCandidate(_) | Self::Candidate(_) => {}
        }
        let (term, kind, leader) = (state.term(), self.kind(), self.leader(state));
        if before.0 != term || before.1 != kind {
            state.outbox.observe(Observation::Role { term, role: kind });
        }
        if before.2 != leader {
            state.outbox.observe(Observation::Leader { term, leader });
        }
    }
}

/// §5.1 – a server that sees a newer term adopts it and follows.
fn follow(state: &mut State, term: Term, leader: Option<NodeId>) -> Role {
    if term > state.term() {
        state.adopt_term(term);
    }
    let timeout = state.draw_patience();
    if leader.is_some() {
        state.clock.leader_contact = Some(state.now());
    }
    let (election_at, verified) = (state.now().after(timeout), Index::ZERO);
    Role::Follower(Follower { leader, timeout, election_at, verified, reads: Forwarded::default(), incoming: None })
}

/// Thesis 9.6 – asks everybody whether they would vote, before any term is raised.
fn pre_campaign(state: &mut State) -> Role {
    state.counters.campaigns = state.counters.campaigns.saturating_add(1);
    let campaign = CampaignId { boot: state.identity.boot, number: state.counters.campaigns };
    let mut ballots = Ballots::default();
    ballots.note(state.membership(), state.identity.peer(), Verdict::Granted);
    let question = Rpc::PreVote { term: state.term().next(), campaign, last: state.log.last() };
    broadcast(state, |outbox, peer| outbox.send(peer, question.clone()));
    let timeout = state.draw_election_timeout();
    Role::PreCandidate(PreCandidate { campaign, ballots, retry_at: state.now().after(timeout) })
}

/// §5.2 – a new term, a vote for oneself, and a request to everybody else. None of it counts, and
/// no request leaves, before the vote is durable (contract D1).
fn campaign(state: &mut State, ordered_in: Option<Term>) -> Role {
    state.adopt_term(state.term().next());
    state.vote_for(state.me());
    let question = Rpc::Vote { term: state.term(), last: state.log.last(), ordered_in };
    broadcast(state, |outbox, peer| outbox.hold(peer, question.clone()));
    Role::Candidate(Candidate { ballots: Ballots::default(), election_at: None })
}

/// §5.2, §8 – opens the term with a blank entry, and starts to find out what every peer has.
fn lead(state: &mut State) -> Role {
    let opened_at = state.append_own(Payload::Blank);
    let mut leader = Leader {
        peers: BTreeMap::new(),
        opened_at,
        proposals: Proposals::default(),
        reads: Reads::default(),
        rounds: Rounds::default(),
        heartbeat_at: state.now(),
        transfer: None,
        ask_relief_at: Time::ZERO,
        has_ordered: false,
        lagging: None,
        change: None,
    };
    leader.meet(state, opened_at);
    Role::Leader(Box::new(leader))
}

impl Leader {
    /// Gets to know everybody in the configuration in force. Nothing is known of those who are
    /// new; those who are no longer in it go, after they have been told (contract M4).
    pub(crate) fn meet(&mut self, state: &State, next: Index) {
        let (me, now, configuration) = (state.me(), state.now(), state.configurations.latest());
        for member in configuration.membership.members().filter(|member| member.node != me) {
            self.peers.entry(member.node).or_insert_with(|| Progress::new(member.store, next, now));
        }
        for (node, progress) in &mut self.peers {
            if configuration.membership.member(*node).is_none() {
                progress.on_removed(configuration.index);
            }
        }
    }
}

fn broadcast(state: &mut State, send: impl Fn(&mut crate::outbox::Outbox, NodeId)) {
    let me = state.me();
    let configuration = state.configurations.latest();
    for member in configuration.membership.members().filter(|member| member.node != me) {
        if configuration.membership.voter(member.node).is_some() {
            send(&mut state.outbox, member.node);
        }
    }
}

/// A follower that follows its leader no longer cannot tell what is current.
fn turn_away(state: &mut State, reads: Forwarded, leader: Option<NodeId>) {
    let Forwarded { waiting, asked, confirmed } = reads;
    let asked = asked.into_iter().flat_map(|question| question.reads);
    let unconfirmed = asked.chain(waiting).map(|(_, request)| request);
    for request in confirmed.into_iter().map(|(_, request)| request).chain(unconfirmed) {
        state.outbox.reply(request, Outcome::NotLeader { leader });
    }
}

/// A former leader owes everybody an answer (contract E2).
fn resign(state: &mut State, former: Leader, leader: Option<NodeId>) {
    let Proposals { staged, appended, staged_bytes: _, uncommitted: _ } = former.proposals;
    for (_, request) in appended {
        state.outbox.reply(request, Outcome::Unknown { leader });
    }
    // Never appended, so certain not to happen: the client may try elsewhere without fear.
    for (request, _) in staged {
        state.outbox.reply(request, Outcome::NotLeader { leader });
    }
    let Reads { waiting, asked, confirmed } = former.reads;
    let confirmed = confirmed.into_iter().map(|(_, request)| Reader::Here(request));
    let asked = asked.into_iter().map(|(_, _, reader)| reader);
    for reader in confirmed.chain(asked).chain(waiting.into_iter().map(|(_, reader)| reader)) {
        match reader {
            Reader::Here(request) => state.outbox.reply(request, Outcome::NotLeader { leader }),
            // It follows nobody any more either, and has answered its clients itself.
            Reader::Peer(..) => {}
        }
    }
    if let Some(request) = former.transfer.and_then(|transfer| transfer.request) {
        // If nobody was told to take over, leadership was lost for another reason.
        let is_handed_over = former.has_ordered;
        let outcome = if is_handed_over { Outcome::Transferred { leader } } else { Outcome::NotLeader { leader } };
        state.outbox.reply(request, outcome);
    }
    if let Some(change) = former.change {
        state.outbox.reply(change.request, Outcome::Unknown { leader });
    }
}
