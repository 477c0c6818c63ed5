//! Layer 3: what every server has, whatever its role: Figure 2, "State", and the tools around it.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::config::Config;
use crate::durable::{Durable, Identity};
use crate::effect::Purpose;
use crate::effect::{Effect, Observation};
use crate::log::{Ledger, Log, Reading};
use crate::membership::Membership;
use crate::outbox::Outbox;
use crate::rng::Rng;
use crate::types::{Boot, HardState, Index, NodeId, ReadId, Term, Time};

/// What every server has, whatever its role.
///
/// Invariants: `applying.applied <= applying.handed <= commit <= log.last`; `commit` never falls;
/// `hard_state.term` never falls, and within a term a vote, once given, stays.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) identity: Identity,
    pub(crate) config: Config,
    pub(crate) membership: Membership,
    pub(crate) hard_state: HardState,
    pub(crate) log: Log,
    pub(crate) commit: Index,
    pub(crate) applying: Applying,
    pub(crate) clock: Clock,
    pub(crate) outbox: Outbox,
    /// The newest life seen of each voter.
    pub(crate) boots: BTreeMap<NodeId, Boot>,
    pub(crate) counters: Counters,
    /// Storage has failed: this node promises nothing any more.
    pub(crate) storage_failed: bool,
}

/// How far the state machine is.
#[derive(Debug, Default)]
pub(crate) struct Applying {
    /// Handed to the applier up to here.
    pub(crate) handed: Index,
    /// Applied up to here.
    pub(crate) applied: Index,
    /// Bytes handed over and not yet applied.
    pub(crate) unapplied: Ledger,
    /// The read that brings back entries to apply, and when that was asked for.
    pub(crate) reading: Option<Reading>,
}

/// Time, and what is drawn for it.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The newest `at`; it never runs backwards.
    pub(crate) now: Time,
    /// Whether the first step has been taken: before it there is no "now".
    pub(crate) started: bool,
    /// When this node last heard from a leader of its term. Stickiness is measured from here, and
    /// never from "a leader is known" (contract V1).
    pub(crate) leader_contact: Option<Time>,
    pub(crate) rng: Rng,
}

/// What is only counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) campaigns: u64,
    pub(crate) reads: ReadId,
    pub(crate) drops: Drops,
}

/// Messages dropped since the start, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Of an earlier term, or an answer to something that is over.
    pub stale: u64,
    /// A term too far above the own one to be true.
    pub absurd_term: u64,
    /// From a store that is not the member's, or from an earlier life of it.
    pub foreign: u64,
    /// Contradicts itself or what is known: a faulty peer.
    pub malformed: u64,
    /// Entries not taken because the disk is behind.
    pub overload: u64,
}

impl State {
    pub(crate) fn new(config: Config, durable: Durable) -> Self {
        let log = Log::new(&durable);
        let Durable { identity, hard_state, base, membership, applied, .. } = durable;
        let rng = Rng::new([config.seed(), identity.node.as_u64(), identity.boot.as_u64()]);
        // A durable machine has applied nothing that was not committed.
        let commit = base.index.max(applied);
        Self {
            identity,
            config,
            membership,
            hard_state,
            log,
            commit,
            applying: Applying { handed: commit, applied: commit, ..Applying::default() },
            clock: Clock { now: Time::ZERO, started: false, leader_contact: None, rng },
            outbox: Outbox::default(),
            boots: BTreeMap::new(),
            counters: Counters::default(),
            storage_failed: false,
        }
    }

    /// This node.
    pub(crate) fn me(&self) -> NodeId {
        self.identity.node
    }

    pub(crate) fn now(&self) -> Time {
        self.clock.now
    }

    pub(crate) fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Whether this node votes in the configuration in force, with the store that it has.
    pub(crate) fn is_voter(&self) -> bool {
        self.membership.is_voter(self.identity.node, self.identity.store)
    }

    /// The other voters.
    pub(crate) fn peers(&self) -> impl Iterator<Item = NodeId> {
        let me = self.me();
        self.membership.voters().iter().map(|member| member.node).filter(move |node| *node != me)
    }

    /// Whether this node may start an election: it has a vote, and what it promised before is
    /// durable (contract D7: a disk slower than the timeout would raise the term for ever).
    pub(crate) fn may_campaign(&self) -> bool {
        !self.storage_failed && self.is_voter() && self.outbox.is_hard_state_durable()
    }

    pub(crate) fn draw_election_timeout(&mut self) -> Duration {
        let timing = self.config.timing();
        self.clock.rng.between(timing.election_timeout_min, timing.election_timeout_max)
    }

    /// How long an unanswered message or read is waited for before it counts as lost.
    pub(crate) fn patience(&self) -> Duration {
        self.config.timing().election_timeout_min
    }

    /// Moves to a newer term, without a vote in it.
    pub(crate) fn adopt_term(&mut self, term: Term) {
        assert!(term > self.term(), "term {term} does not follow {}", self.term());
        self.hard_state = HardState { term, voted_for: None };
        self.outbox.stage_hard_state();
        self.outbox.on_new_term(term);
    }

    /// Votes for `candidate` in the current term.
    pub(crate) fn vote_for(&mut self, candidate: NodeId) {
        if self.hard_state.voted_for != Some(candidate) {
            assert!(self.hard_state.voted_for.is_none(), "a second vote in term {}", self.term());
            self.hard_state.voted_for = Some(candidate);
            self.outbox.stage_hard_state();
        }
    }

    /// Raises the commit index, never beyond the log.
    pub(crate) fn commit_through(&mut self, index: Index) {
        let index = index.min(self.log.last().index);
        if index > self.commit {
            self.commit = index;
            if let Some(term) = self.log.term_at(index) {
                let position = crate::types::Position::new(index, term);
                self.outbox.observe(Observation::Committed { position });
            }
        }
    }

    /// Asks for entries that are no longer in memory.
    pub(crate) fn read_log(&mut self, purpose: Purpose, from: Index, through: Index, max_bytes: u64) -> ReadId {
        self.counters.reads = self.counters.reads.next();
        let id = self.counters.reads;
        self.outbox.emit(Effect::ReadLog { id, purpose, from, through, max_bytes });
        id
    }
}
