//! Layer 3: what every server has, whatever its role: Figure 2, "State", and the tools around it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::config::{Config, Priority};
use crate::durable::{Durable, Identity, SnapshotMeta};
use crate::effect::Purpose;
use crate::effect::{Effect, Observation};
use crate::entry::{Entries, Entry, Payload};
use crate::ledger::Ledger;
use crate::log::{Log, Reading};
use crate::membership::{Configuration, Configurations, Membership};
use crate::outbox::Outbox;
use crate::rng::Rng;
use crate::types::{Boot, HardState, Index, NodeId, Position, ReadId, RequestId, Term, Time};

/// What every server has, whatever its role.
///
/// Invariants: `applying.applied <= applying.handed <= commit <= log.last`; `commit` never falls;
/// `hard_state.term` never falls, and within a term a vote, once given, stays.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) identity: Identity,
    pub(crate) config: Config,
    pub(crate) configurations: Configurations,
    pub(crate) hard_state: HardState,
    pub(crate) log: Log,
    pub(crate) commit: Index,
    pub(crate) applying: Applying,
    pub(crate) clock: Clock,
    pub(crate) outbox: Outbox,
    /// The newest life seen of each member.
    pub(crate) boots: BTreeMap<NodeId, Boot>,
    pub(crate) counters: Counters,
    pub(crate) storage: Storage,
    pub(crate) snapshots: Snapshots,
}

/// How the disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// It takes what it is given.
    #[default]
    Ready,
    /// It takes terms and votes, and what it was given already; no more entries (contract D8).
    Full,
    /// It has failed for good: this node promises nothing any more.
    Failed,
}

/// What a server knows of snapshots of its own state machine.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// The newest one on stable storage.
    pub(crate) newest: Option<Arc<SnapshotMeta>>,
    /// The one that is being made.
    pub(crate) making: Option<Position>,
    /// Not before then, because one has failed.
    pub(crate) retry_at: Time,
    /// Who waits for one, and what it has to cover.
    pub(crate) requests: Vec<(Index, RequestId)>,
    /// One that has arrived from another server, and that no leader has vouched for so far.
    pub(crate) arrived: Option<Position>,
}

impl Snapshots {
    pub(crate) fn new(newest: Option<SnapshotMeta>) -> Self {
        Self { newest: newest.map(Arc::new), ..Self::default() }
    }

    /// Where the newest one ends.
    pub(crate) fn last(&self) -> Position {
        self.newest.as_ref().map_or(Position::ZERO, |meta| meta.last)
    }
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
    /// Until then this node has promised a leader to elect nobody else (contract T3). Not the
    /// same as `leader_contact`: nothing but the leader's own word shortens a promise (T6).
    pub(crate) promised_until: Time,
    /// It has refused a candidate that lacks entries held here: somebody has to bring them in,
    /// even if this node would rather not lead (contract V7).
    pub(crate) is_needed: bool,
    pub(crate) rng: Rng,
}

/// What is only counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// How often a role was entered.
    pub(crate) roles: u64,
    pub(crate) campaigns: u64,
    pub(crate) forwards: u64,
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

impl Drops {
    /// Counts one more, of the kind that `reason` points at.
    pub(crate) fn count(&mut self, reason: impl FnOnce(&mut Self) -> &mut u64) {
        let count = reason(self);
        *count = count.saturating_add(1);
    }
}

impl State {
    pub(crate) fn new(config: Config, durable: Durable) -> Self {
        let log = Log::new(&durable);
        let Durable { identity, hard_state, base, configuration, configurations, applied, snapshot, .. } = durable;
        let rng = Rng::new([config.seed(), identity.node.as_u64(), identity.boot.as_u64()]);
        // A durable machine has applied nothing that was not committed.
        let commit = base.index.max(applied);
        Self {
            identity,
            config,
            configurations: Configurations::new(configuration, configurations),
            hard_state,
            log,
            commit,
            applying: Applying { handed: commit, applied: commit, ..Applying::default() },
            clock: Clock {
                now: Time::ZERO,
                started: false,
                leader_contact: None,
                promised_until: Time::ZERO,
                is_needed: false,
                rng,
            },
            outbox: Outbox::default(),
            boots: BTreeMap::new(),
            counters: Counters::default(),
            storage: Storage::Ready,
            snapshots: Snapshots::new(snapshot),
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

    /// On stable storage up to here; nothing at all while a snapshot replaces the log.
    pub(crate) fn durable(&self) -> Index {
        if self.outbox.is_installing() { Index::ZERO } else { self.log.durable() }
    }

    /// The configuration in force: the latest in the log, committed or not (§6).
    pub(crate) fn membership(&self) -> &Membership {
        &self.configurations.latest().membership
    }

    /// Whether this node votes in the configuration in force, with the store that it has.
    pub(crate) fn is_voter(&self) -> bool {
        self.membership().is_voter(self.identity.node, self.identity.store)
    }

    /// Whether this node may run: it has a vote in the configuration in force, or in the one
    /// before as long as the latest is not known to be committed. Without the second half a
    /// configuration that only the node it removes holds could be finished by nobody (contract
    /// V4, Thesis 4.2.2).
    pub(crate) fn may_lead(&self) -> bool {
        let uncommitted = self.configurations.latest().index > self.commit;
        let before = self.configurations.before_latest().filter(|_| uncommitted);
        self.is_voter()
            || before.is_some_and(|before| before.membership.is_voter(self.identity.node, self.identity.store))
    }

    /// Whether it is the only one to ask.
    pub(crate) fn is_sole_voter(&self) -> bool {
        self.is_voter() && self.membership().voters().len() == 1 && !self.membership().is_joint()
    }

    /// Whether no configuration in the log, nor the one before it, knows another voter.
    pub(crate) fn was_always_alone(&self) -> bool {
        let others = |membership: &Membership| {
            membership.voters().iter().chain(membership.outgoing()).any(|voter| voter.node != self.me())
        };
        !self.configurations.any(others)
    }

    /// Whether this node can start an election: it may lead, has all that it ever vouched for, and
    /// what it promised before is durable (contract D7: a disk slower than the timeout would raise
    /// the term for ever).
    pub(crate) fn can_campaign(&self) -> bool {
        self.can_elect() && self.may_lead() && self.outbox.is_hard_state_durable()
    }

    /// Whether this node may help anybody to power.
    pub(crate) fn can_elect(&self) -> bool {
        self.storage != Storage::Failed && self.hard_state.floor.is_none_or(|floor| self.durable_last() >= floor)
    }

    /// The last entry on stable storage.
    fn durable_last(&self) -> Position {
        let index = self.durable();
        self.log.term_at(index).map_or(Position::ZERO, |term| Position::new(index, term))
    }

    /// Entries up to `acknowledged` have been lost here; until they are back, D11 holds.
    pub(crate) fn raise_floor(&mut self, acknowledged: Position) {
        if self.durable_last() < acknowledged && self.hard_state.floor < Some(acknowledged) {
            self.hard_state.floor = Some(acknowledged);
            self.outbox.stage_hard_state();
        }
    }

    /// Whether they are back: then nothing has to be remembered any more.
    pub(crate) fn settle_floor(&mut self) {
        if self.hard_state.floor.is_some_and(|floor| self.durable_last() >= floor) {
            self.hard_state.floor = None;
            self.outbox.stage_hard_state();
        }
    }

    /// Whether it does so without being told to (contract V7).
    pub(crate) fn runs_by_itself(&self) -> bool {
        let willing = self.config.priority() != Priority::Never || self.clock.is_needed || self.is_sole_voter();
        willing && self.can_campaign()
    }

    pub(crate) fn draw_election_timeout(&mut self) -> Duration {
        let timing = self.config.timing();
        self.clock.rng.between(timing.election_timeout_min, timing.election_timeout_max)
    }

    /// How long to wait for a leader: longer, the less this node wants to lead, or can use it.
    pub(crate) fn draw_patience(&mut self) -> Duration {
        let priority = if self.storage == Storage::Ready { self.config.priority() } else { Priority::Low };
        let longer = priority.patience().max(self.config.priority().patience());
        self.draw_election_timeout().saturating_mul(longer.saturating_add(1))
    }

    /// How long an unanswered message or read is waited for before it counts as lost.
    pub(crate) fn patience(&self) -> Duration {
        self.config.timing().election_timeout_min
    }

    /// Nobody has to wait for the leader of this term any more: it has said so itself.
    pub(crate) fn forget_leader(&mut self) {
        self.clock.leader_contact = None;
        self.clock.promised_until = Time::ZERO;
    }

    /// Moves to a newer term, without a vote in it.
    pub(crate) fn adopt_term(&mut self, term: Term) {
        assert!(term > self.term(), "term {term} does not follow {}", self.term());
        self.hard_state = HardState { term, voted_for: None, floor: self.hard_state.floor };
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

    /// Appends one entry of the current term, to be written with the rest of this step.
    pub(crate) fn append_own(&mut self, payload: Payload) -> Index {
        let index = self.log.last().index.next();
        self.log.append(Entries::from_ordered(alloc::vec![Entry { term: self.term(), index, payload }]));
        self.outbox.stage_entries(index);
        index
    }

    /// A configuration has been appended, and is in force from now on (§6).
    pub(crate) fn configure(&mut self, index: Index, membership: Arc<Membership>) {
        self.configurations.push(Configuration { index, membership });
        self.announce_configuration();
    }

    /// Cuts the log before `from`; a configuration in the part that goes is rolled back.
    pub(crate) fn truncate_from(&mut self, from: Index) {
        self.log.truncate_from(from);
        self.outbox.on_truncated(from);
        if self.configurations.truncate_from(from) {
            self.announce_configuration();
        }
    }

    /// Says which configuration is in force (contract E3).
    pub(crate) fn announce_configuration(&mut self) {
        let configuration = self.configurations.latest().clone();
        self.outbox.observe(Observation::Configured(configuration.clone()));
        self.outbox.emit(Effect::Configured { configuration });
    }

    /// Raises the commit index, never beyond the log.
    pub(crate) fn commit_through(&mut self, index: Index) {
        let index = index.min(self.log.last().index);
        if index > self.commit {
            self.commit = index;
            if let Some(term) = self.log.term_at(index) {
                let position = Position::new(index, term);
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
