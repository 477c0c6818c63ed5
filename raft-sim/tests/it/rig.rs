//! Three nodes played by hand: the test says what each step does, the checks judge it.

use bytes::Bytes;
use raft_core::{
    Boot, CampaignId, ClusterId, Configuration, Effect, Entries, Entry, HardState, Identity, Index, Limits, LoadStatus,
    LogStatus, Member, Membership, NodeId, Payload, Position, RequestId, RoleKind, Rpc, SnapshotMeta, Status, StoreId,
    Term, Time, Timing, Verdict as Vote, WriteSeq,
};
use raft_sim::checks::{Checks, Inbox, Step, Verdict};
use raft_sim::disk::{Disk, Snapshot, Write};
use raft_sim::machine::{Command, Registers};
use raft_sim::{Invariant, Violation};
use std::sync::Arc;
use std::time::Duration;

/// How long a vote is refused after a leader was heard from, with the timing of a LAN.
pub(crate) const STICKINESS: Duration = Duration::from_millis(150);

/// The checks, and what three nodes that run by hand look like from outside.
pub(crate) struct Rig {
    pub(crate) checks: Checks,
    pub(crate) disks: Vec<Disk>,
    pub(crate) statuses: Vec<Status>,
    now: Time,
    written: u64,
    campaigns: u64,
}

pub(crate) fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("because tests count from 1")
}

pub(crate) fn term(term: u64) -> Term {
    Term::new(term)
}

pub(crate) fn index(index: u64) -> Index {
    Index::new(index)
}

/// `8@3`, as `at(8, 3)`.
pub(crate) fn at(index: u64, term: u64) -> Position {
    Position::new(Index::new(index), Term::new(term))
}

pub(crate) fn blank(index: u64, term: u64) -> Entry {
    Entry { term: Term::new(term), index: Index::new(index), payload: Payload::Blank }
}

pub(crate) fn put(index: u64, term: u64, attempt: RequestId) -> Entry {
    let payload = Payload::Command(Command::Put { key: 1, attempt }.encode(0));
    Entry { payload, ..blank(index, term) }
}

/// An entry with a content of its own, which no client asked for.
pub(crate) fn odd(index: u64, term: u64) -> Entry {
    Entry { payload: Payload::Command(Bytes::from_static(b"odd")), ..blank(index, term) }
}

pub(crate) fn entries(entries: Vec<Entry>) -> Entries {
    Entries::new(entries).expect("because tests write entries in order")
}

pub(crate) fn apply(batch: Vec<Entry>) -> Effect {
    Effect::Apply { entries: entries(batch), tokens: Vec::new() }
}

pub(crate) fn send(to: u64, rpc: Rpc) -> Effect {
    Effect::Send { to: node(to), rpc }
}

pub(crate) fn grant(to: u64, in_term: u64) -> Effect {
    send(to, Rpc::VoteReply { term: term(in_term), verdict: Vote::Granted })
}

pub(crate) fn ask_vote(to: u64, in_term: u64, last: Position) -> Effect {
    send(to, Rpc::Vote { term: term(in_term), last, ordered_in: None })
}

pub(crate) fn store(id: u64) -> StoreId {
    StoreId::new(u128::from(id))
}

/// The three.
pub(crate) fn founders() -> Arc<Membership> {
    let members = (1..=3).map(|id| Member { node: node(id), store: store(id) });
    Membership::new(members).expect("because the three differ").into()
}

/// The configuration that an entry sets.
pub(crate) fn configuration_of(entry: &Entry) -> Option<Configuration> {
    match &entry.payload {
        Payload::Configuration(membership) => {
            Some(Configuration { index: entry.index, membership: membership.clone() })
        }
        Payload::Blank | Payload::Command(_) => None,
    }
}

/// `machine` written down at `last`, in the configuration of the founders.
pub(crate) fn snapshot_of(machine: &Registers, last: Position, digest: u64) -> Arc<Snapshot> {
    let machine = machine.image();
    let configuration = Configuration { index: Index::ZERO, membership: founders() };
    let meta = SnapshotMeta { last, configuration, bytes: machine.len() as u64 };
    Arc::new(Snapshot { meta, digest, machine })
}

/// The invariant that a verdict found violated.
pub(crate) fn fired(verdict: Verdict) -> Option<Invariant> {
    verdict.err().map(|Violation { invariant, .. }| invariant)
}

impl Rig {
    /// Three nodes that have just started for the first time.
    pub(crate) fn new() -> Self {
        let configuration = Configuration { index: Index::ZERO, membership: founders() };
        let status = |id: u64| Status {
            identity: Identity { cluster: ClusterId::new(1), node: node(id), store: store(id), boot: Boot::new(1) },
            role: RoleKind::Follower,
            hard_state: HardState::default(),
            leader: None,
            configuration: configuration.clone(),
            transfer: None,
            log: LogStatus {
                base: Position::ZERO,
                last: Position::ZERO,
                durable: Index::ZERO,
                commit: Index::ZERO,
                applied: Index::ZERO,
                committed_in_term: false,
                bytes: 0,
                snapshot: Position::ZERO,
                snapshot_bytes: 0,
                cached_bytes: 0,
            },
            peers: Vec::new(),
            load: LoadStatus::default(),
        };
        let mut rig = Self {
            checks: Checks::new(founders(), 3, Limits::DEFAULT, Timing::LAN, 0),
            disks: (1..=3).map(|id| Disk::format(node(id), store(id), founders())).collect(),
            statuses: (1..=3).map(status).collect(),
            now: Time::ZERO,
            written: 0,
            campaigns: 0,
        };
        for id in 1..=3 {
            assert_eq!(rig.checks.on_start(node(id), &rig.disks[id as usize - 1], Index::ZERO), Ok(()));
            let configured = Effect::Configured { configuration: configuration.clone() };
            assert_eq!(rig.step(id, |_| {}, vec![configured]), Ok(()));
        }
        rig
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    /// One step: `change` makes the new status out of the old one. If the checks have nothing
    /// against it, its writes go to the disk, unsynced.
    pub(crate) fn step(&mut self, id: u64, change: impl FnOnce(&mut Status), effects: Vec<Effect>) -> Verdict {
        // Whoever leads is answered, unless a test says otherwise.
        self.step_with(id, Inbox { heard: u32::MAX, ..Inbox::default() }, change, effects)
    }

    pub(crate) fn step_with(
        &mut self,
        id: u64,
        inbox: Inbox,
        change: impl FnOnce(&mut Status),
        effects: Vec<Effect>,
    ) -> Verdict {
        let place = id as usize - 1;
        let before = self.statuses[place].clone();
        let mut after = before.clone();
        for effect in &effects {
            if let Effect::Persist { hard_state, entries, .. } = effect {
                after.hard_state = hard_state.as_deref().copied().unwrap_or(after.hard_state);
                after.log.last = entries.last().map_or(after.log.last, Entry::position);
                let set = entries.iter().filter_map(configuration_of).next_back();
                after.configuration = set.unwrap_or(after.configuration);
            }
        }
        change(&mut after);
        self.checks.on_step(&Step {
            node: node(id),
            now: self.now,
            clock: self.now,
            inbox,
            effects: &effects,
            before: &before,
            after: &after,
            disks: &self.disks,
        })?;
        self.statuses[place] = after;
        for effect in effects {
            if let Effect::Persist { seq, hard_state, entries } = effect {
                self.disks[place].write(Write::Log { seq, hard_state: hard_state.map(|state| *state), entries });
            }
        }
        Ok(())
    }

    /// What a process says first.
    pub(crate) fn configured(&self) -> Effect {
        Effect::Configured { configuration: Configuration { index: Index::ZERO, membership: founders() } }
    }

    /// A write of term and vote.
    pub(crate) fn vote(&mut self, in_term: u64, candidate: Option<u64>) -> Effect {
        let hard_state = Some(HardState { term: term(in_term), voted_for: candidate.map(node), floor: None });
        Effect::Persist { seq: self.next_write(), hard_state: hard_state.map(Box::new), entries: Entries::EMPTY }
    }

    /// A write of entries.
    pub(crate) fn persist(&mut self, batch: Vec<Entry>) -> Effect {
        Effect::Persist { seq: self.next_write(), hard_state: None, entries: entries(batch) }
    }

    fn next_write(&mut self) -> WriteSeq {
        self.written += 1;
        WriteSeq::new(self.written)
    }

    /// Everything that a node has written is on its disk, and it knows.
    pub(crate) fn sync(&mut self, id: u64) {
        let place = id as usize - 1;
        if self.disks[place].start_sync() {
            self.disks[place].finish_sync();
        }
        assert_eq!(self.checks.on_synced(node(id), &self.disks[place]), Ok(()));
        let end = self.disks[place].last().index;
        assert_eq!(self.step(id, |status| status.log.durable = end, Vec::new()), Ok(()));
    }

    /// A node asks the two others, who would follow, and votes for itself. Its vote is not synced.
    pub(crate) fn campaign(&mut self, id: u64, in_term: u64) {
        let last = self.statuses[id as usize - 1].log.last;
        self.campaigns += 1;
        let campaign = CampaignId { boot: Boot::new(1), number: self.campaigns };
        let question = Rpc::PreVote { term: term(in_term), campaign, last };
        let others: Vec<u64> = (1..=3).filter(|other| *other != id).collect();
        let questions = others.iter().map(|other| send(*other, question.clone())).collect();
        assert_eq!(self.step(id, |status| status.role = RoleKind::PreCandidate, questions), Ok(()));
        let promise = Rpc::PreVoteReply { term: term(in_term), campaign, verdict: Vote::Granted };
        // Where a test wants the impossible, the batch is said to have held entries: then nobody
        // can say where the log of the voter ended when it was asked.
        let inbox = Inbox { appends: true, heard: u32::MAX, ..Inbox::default() };
        assert_eq!(self.step_with(others[0], inbox, |_| {}, vec![send(id, promise)]), Ok(()));
        let own = self.vote(in_term, Some(id));
        assert_eq!(self.step(id, |status| status.role = RoleKind::Candidate, vec![own]), Ok(()));
    }

    /// A proper election: `candidate` wins `in_term` with the vote of `voter`, and opens the term.
    pub(crate) fn elect(&mut self, candidate: u64, voter: u64, in_term: u64) {
        let last = self.statuses[candidate as usize - 1].log.last;
        self.wait(STICKINESS * 2);
        self.campaign(candidate, in_term);
        self.sync(candidate);
        assert_eq!(self.step(candidate, |_| {}, vec![ask_vote(voter, in_term, last)]), Ok(()));
        let vote = self.vote(in_term, Some(candidate));
        assert_eq!(self.step(voter, |status| status.role = RoleKind::Follower, vec![vote]), Ok(()));
        self.sync(voter);
        assert_eq!(self.step(voter, |_| {}, vec![grant(candidate, in_term)]), Ok(()));
        let opening = self.persist(vec![blank(last.index.as_u64() + 1, in_term)]);
        assert_eq!(self.step(candidate, |status| status.role = RoleKind::Leader, vec![opening]), Ok(()));
    }

    /// A node takes entries from the leader of its term.
    pub(crate) fn take(&mut self, id: u64, in_term: u64, batch: Vec<Entry>) {
        let newer = self.statuses[id as usize - 1].hard_state.term < term(in_term);
        let mut effects = Vec::new();
        if newer {
            effects.push(self.vote(in_term, None));
        }
        effects.push(self.persist(batch));
        let inbox = Inbox { appends: true, leader: Some(term(in_term)), ..Inbox::default() };
        assert_eq!(self.step_with(id, inbox, |status| status.role = RoleKind::Follower, effects), Ok(()));
    }

    /// n1 leads term 1 with its opening entry on the disks of n1 and n2, and has committed it.
    pub(crate) fn with_leader(self) -> Self {
        let mut rig = self;
        rig.elect(1, 2, 1);
        rig.sync(1);
        rig.take(2, 1, vec![blank(1, 1)]);
        rig.sync(2);
        assert_eq!(rig.commit(1, 1), Ok(()));
        rig
    }

    /// A node raises its commit index.
    pub(crate) fn commit(&mut self, id: u64, to: u64) -> Verdict {
        self.step(id, |status| status.log.commit = index(to), Vec::new())
    }
}
