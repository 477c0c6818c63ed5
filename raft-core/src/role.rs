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
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::effect::{Observation, Outcome, RoleKind};
use crate::entry::{Entries, Entry, Payload};
use crate::log::Ledger;
use crate::membership::Membership;
use crate::message::{CampaignId, Rpc, Verdict};
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
        quorum::tally(membership.voters().len(), self.granted.len(), self.refused.len())
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

/// Reads without an answer; together in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// No round has been sent for them yet.
    pub(crate) waiting: VecDeque<RequestId>,
    /// Wait for a majority to answer the round.
    pub(crate) asked: VecDeque<(Round, Index, RequestId)>,
    /// Wait for the state machine to reach the index.
    pub(crate) confirmed: VecDeque<(Index, RequestId)>,
}

impl Reads {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len().saturating_add(self.asked.len()).saturating_add(self.confirmed.len())
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
    /// How many send times are kept.
    const KEPT_MAX: usize = 64;

    /// The newest round sent.
    pub(crate) fn newest(&self) -> Round {
        self.newest
    }

    /// Opens the next round at `now`; `grain` is how exactly send times are to be remembered.
    pub(crate) fn open(&mut self, now: Time, grain: Duration) -> Round {
        self.newest = self.newest.next();
        if self.sent.back().is_none_or(|(_, last)| now.since(*last) >= grain) {
            if self.sent.len() >= Self::KEPT_MAX {
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
    /// Ask for votes.
    Campaign,
    /// Take the lead.
    Lead,
}

impl Role {
    /// How every server starts (§5.2).
    pub(crate) fn initial() -> Self {
        let waiting =
            Follower { leader: None, timeout: Duration::ZERO, election_at: Time::ZERO, verified: Index::ZERO };
        Self::Follower(waiting)
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
            Next::Campaign => campaign(state),
            Next::Lead => lead(state),
        };
        if let Self::Leader(leader) = core::mem::replace(self, role) {
            resign(state, *leader, self.leader(state));
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
    let timeout = state.draw_election_timeout();
    if leader.is_some() {
        state.clock.leader_contact = Some(state.now());
    }
    Role::Follower(Follower { leader, timeout, election_at: state.now().after(timeout), verified: Index::ZERO })
}

/// Thesis 9.6 – asks everybody whether they would vote, before any term is raised.
fn pre_campaign(state: &mut State) -> Role {
    state.counters.campaigns = state.counters.campaigns.saturating_add(1);
    let campaign = CampaignId { boot: state.identity.boot, number: state.counters.campaigns };
    let mut ballots = Ballots::default();
    ballots.note(&state.membership, state.identity.peer(), Verdict::Granted);
    let question = Rpc::PreVote { term: state.term().next(), campaign, last: state.log.last() };
    broadcast(state, |outbox, peer| outbox.send(peer, question.clone()));
    let timeout = state.draw_election_timeout();
    Role::PreCandidate(PreCandidate { campaign, ballots, retry_at: state.now().after(timeout) })
}

/// §5.2 – a new term, a vote for oneself, and a request to everybody else. None of it counts, and
/// no request leaves, before the vote is durable (contract D1).
fn campaign(state: &mut State) -> Role {
    state.adopt_term(state.term().next());
    state.vote_for(state.me());
    let question = Rpc::Vote { term: state.term(), last: state.log.last() };
    broadcast(state, |outbox, peer| outbox.hold(peer, question.clone()));
    Role::Candidate(Candidate { ballots: Ballots::default(), election_at: None })
}

/// §5.2, §8 – opens the term with a blank entry, and starts to find out what every peer has.
fn lead(state: &mut State) -> Role {
    let (now, next) = (state.now(), state.log.last().index.next());
    let blank = Entry { term: state.term(), index: next, payload: Payload::Blank };
    state.log.append(Entries::from_ordered(alloc::vec![blank]));
    state.outbox.stage_entries(next);
    Role::Leader(Box::new(Leader {
        peers: state.peers().map(|peer| (peer, Progress::new(next, now))).collect(),
        opened_at: next,
        proposals: Proposals::default(),
        reads: Reads::default(),
        rounds: Rounds::default(),
        heartbeat_at: now,
    }))
}

fn broadcast(state: &mut State, send: impl Fn(&mut crate::outbox::Outbox, NodeId)) {
    let me = state.me();
    for member in state.membership.voters().iter().filter(|member| member.node != me) {
        send(&mut state.outbox, member.node);
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
    let confirmed = confirmed.into_iter().map(|(_, request)| request);
    let asked = asked.into_iter().map(|(_, _, request)| request);
    for request in confirmed.chain(asked).chain(waiting) {
        state.outbox.reply(request, Outcome::NotLeader { leader });
    }
}
