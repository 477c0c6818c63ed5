//! Several servers with a network, disks and a clock, all in the hands of the test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use raft_core::{
    Boot, Change, Configuration, Durable, Effect, Entries, Entry, Event, HardState, Index, LogReadOutcome, Message,
    NodeId, Outcome, Payload, Raft, RequestId, RoleKind, Rpc, Status, Term, Time, WriteSeq,
};

use crate::rig::{Start, command, node, read, runs_of};

/// A message under way.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: raft_core::Peer,
    pub(crate) to: NodeId,
    pub(crate) rpc: Rpc,
}

/// A disk: what is safe on it, and what still waits to be.
#[derive(Default)]
struct Disk {
    hard_state: HardState,
    log: Vec<Entry>,
    waiting: VecDeque<(WriteSeq, Option<HardState>, Entries)>,
    stalled: bool,
}

impl Disk {
    /// Finishes every write that waits; the newest of them.
    fn sync(&mut self) -> Option<WriteSeq> {
        let mut newest = None;
        for (seq, hard_state, entries) in self.waiting.drain(..) {
            self.hard_state = hard_state.unwrap_or(self.hard_state);
            if let Some(first) = entries.first() {
                self.log.retain(|entry| entry.index < first.index);
            }
            self.log.extend(entries.iter().cloned());
            newest = Some(seq);
        }
        newest
    }

    fn read(&self, from: Index, through: Index) -> Entries {
        let wanted = self.log.iter().filter(|entry| (from..=through).contains(&entry.index));
        Entries::new(wanted.cloned().collect()).expect("a disk holds what was written, in order")
    }
}

struct Server {
    start: Start,
    raft: Raft,
    disk: Disk,
    /// What its machine has applied in this life.
    applied: Vec<Entry>,
}

/// Servers that can talk, as far as the test lets them.
///
/// Whatever happens, it checks that no two servers apply different entries at one index, and that
/// no term has two leaders.
pub(crate) struct Cluster {
    pub(crate) now: Time,
    servers: BTreeMap<NodeId, Server>,
    mail: VecDeque<Mail>,
    /// Links that lose everything, one way.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Everything that was sent and not lost.
    pub(crate) delivered: Vec<Mail>,
    /// How each request ended: applied, or an outcome.
    pub(crate) answers: BTreeMap<RequestId, Vec<Option<Outcome>>>,
    agreed: BTreeMap<Index, Entry>,
    leaders: BTreeMap<Term, NodeId>,
}

impl Cluster {
    pub(crate) fn new(starts: Vec<Start>) -> Self {
        let mut cluster = Self {
            now: Time::from_nanos(1_000_000_000),
            servers: BTreeMap::new(),
            mail: VecDeque::new(),
            cut: BTreeSet::new(),
            delivered: Vec::new(),
            answers: BTreeMap::new(),
            agreed: BTreeMap::new(),
            leaders: BTreeMap::new(),
        };
        for start in starts {
            cluster.start(start);
        }
        cluster
    }

    /// One more server appears.
    pub(crate) fn start(&mut self, start: Start) {
        let disk = Disk { hard_state: start.durable().hard_state, log: start.entries(), ..Disk::default() };
        let (id, raft) = (node(start.me), start.raft());
        self.servers.insert(id, Server { start, raft, disk, applied: Vec::new() });
        self.step(id, Event::Tick);
    }

    /// A new cluster of `count` servers.
    pub(crate) fn of(count: u64) -> Self {
        let voters: Vec<u64> = (1..=count).collect();
        Self::new(voters.iter().map(|me| Start::new(*me, &voters)).collect())
    }

    /// Gives a server an event, and does what it says.
    pub(crate) fn step(&mut self, id: NodeId, event: Event) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let from = server.start.durable().identity.peer();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let effects = server.raft.step(Message { at: self.now, event });
            for effect in effects {
                match effect {
                    Effect::Send { to, rpc } => self.mail.push_back(Mail { from, to, rpc }),
                    Effect::Persist { seq, hard_state, entries } => {
                        server.disk.waiting.push_back((seq, hard_state.map(|state| *state), entries));
                    }
                    Effect::Apply { entries, tokens } => {
                        for entry in entries.iter() {
                            let agreed = self.agreed.entry(entry.index).or_insert_with(|| entry.clone());
                            assert_eq!(agreed, entry, "{id} applies something else than others did");
                        }
                        for (_, token) in tokens {
                            self.answers.entry(token).or_default().push(None);
                        }
                        server.applied.extend(entries.iter().cloned());
                        let index = entries.last().expect("an apply is not empty").index;
                        events.push_back(Event::Applied { index });
                    }
                    Effect::Reply { request, outcome } => {
                        self.answers.entry(request).or_default().push(Some(outcome));
                    }
                    Effect::ReadLog { id, from, through, .. } => {
                        let outcome = LogReadOutcome::Entries(server.disk.read(from, through));
                        events.push_back(Event::LogRead { id, outcome });
                    }
                    Effect::TakeSnapshot { .. }
                    | Effect::SendSnapshot { .. }
                    | Effect::InstallSnapshot { .. }
                    | Effect::Compact { .. } => panic!("these logs are too short for snapshots"),
                    Effect::Configured { .. } | Effect::Observe(_) => {}
                }
            }
            if !server.disk.stalled
                && let Some(seq) = server.disk.sync()
            {
                events.push_back(Event::Persisted { seq });
            }
        }
        let status = server.raft.status();
        if status.role == RoleKind::Leader {
            let leader = *self.leaders.entry(status.hard_state.term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {}", status.hard_state.term);
        }
    }

    /// Delivers everything that is under way, and whatever that leads to.
    pub(crate) fn deliver(&mut self) {
        while let Some(mail) = self.mail.pop_front() {
            if !self.cut.contains(&(mail.from.node, mail.to)) {
                self.delivered.push(mail.clone());
                let Mail { from, to, rpc } = mail;
                self.step(to, Event::Received { from, rpc });
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, millis: u64) {
        let end = self.now.after(Duration::from_millis(millis));
        self.deliver();
        loop {
            let due = self.servers.iter().filter_map(|(id, server)| Some((server.raft.deadline()?, *id))).min();
            let Some((deadline, id)) = due.filter(|(deadline, _)| *deadline <= end) else { break };
            self.now = self.now.max(deadline);
            self.step(id, Event::Tick);
            self.deliver();
        }
        self.now = end;
    }

    /// Lets a second pass; who leads in the highest term then.
    pub(crate) fn elect(&mut self) -> u64 {
        self.run(1_000);
        self.leader().expect("a second is enough for an election")
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        let statuses = self.servers.values().map(|server| server.raft.status());
        let leaders = statuses.filter(|status| status.role == RoleKind::Leader);
        leaders.max_by_key(|status| status.hard_state.term).map(|status| status.identity.node.as_u64())
    }

    pub(crate) fn propose(&mut self, id: u64, request: u64) {
        let event = Event::Propose { request: RequestId::new(request), command: command(&request) };
        self.step(node(id), event);
        self.deliver();
    }

    pub(crate) fn read(&mut self, id: u64, request: u64) {
        self.step(node(id), read(request));
        self.deliver();
    }

    pub(crate) fn status(&self, id: u64) -> Status {
        self.servers.get(&node(id)).expect("the server runs").raft.status()
    }

    pub(crate) fn term(&self, id: u64) -> u64 {
        self.status(id).hard_state.term.as_u64()
    }

    /// How a request ended; `None` while it has not.
    pub(crate) fn answer(&self, request: u64) -> Option<Option<Outcome>> {
        let answers = self.answers.get(&RequestId::new(request))?;
        assert!(answers.len() == 1, "request {request} was answered {} times", answers.len());
        answers.first().cloned()
    }

    /// An operator wants other members than those that the leader knows of now.
    pub(crate) fn change(&mut self, leader: u64, number: u64, changes: &[Change]) {
        let expected = self.status(leader).configuration.index;
        self.step(node(leader), crate::members::change(number, expected.as_u64(), changes));
        self.deliver();
    }

    /// An operator wants another leader.
    pub(crate) fn transfer(&mut self, leader: u64, number: u64, to: impl Into<Option<u64>>) {
        self.step(node(leader), crate::members::transfer(number, to));
        self.deliver();
    }

    /// A server is gone for good.
    pub(crate) fn stop(&mut self, id: u64) {
        self.servers.remove(&node(id));
    }

    /// Loses everything from `from` to `to`.
    pub(crate) fn cut_one_way(&mut self, from: u64, to: u64) {
        self.cut.insert((node(from), node(to)));
    }

    pub(crate) fn cut(&mut self, a: u64, b: u64) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    pub(crate) fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = self.servers.keys().map(|other| other.as_u64()).collect();
        others.into_iter().for_each(|other| self.cut(id, other));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// The disk takes writes and finishes none.
    pub(crate) fn stall_disk(&mut self, id: u64) {
        self.servers.get_mut(&node(id)).expect("the server runs").disk.stalled = true;
    }

    pub(crate) fn resume_disk(&mut self, id: u64) {
        let disk = &mut self.servers.get_mut(&node(id)).expect("the server runs").disk;
        disk.stalled = false;
        if let Some(seq) = disk.sync() {
            self.step(node(id), Event::Persisted { seq });
        }
        self.deliver();
    }

    /// Ends a life: what the disk has not finished is lost. The next one begins at once.
    /// Restarts a server whose disk has lost all entries but the first `kept`, acknowledged or not.
    pub(crate) fn roll_back(&mut self, id: u64, kept: usize) {
        let server = self.servers.get_mut(&node(id)).expect("the server runs");
        server.disk.log.truncate(kept);
        self.restart(id);
    }

    pub(crate) fn restart(&mut self, id: u64) {
        let server = self.servers.get_mut(&node(id)).expect("the server runs");
        server.disk.waiting.clear();
        server.start.boot += 1;
        let terms: Vec<u64> = server.disk.log.iter().map(|entry| entry.term.as_u64()).collect();
        let mut durable: Durable = server.start.durable();
        durable.identity.boot = Boot::new(server.start.boot);
        durable.hard_state = server.disk.hard_state;
        durable.last = Index::new(terms.len() as u64);
        durable.runs = runs_of(&terms);
        durable.tail = server.disk.read(Index::ZERO, durable.last);
        let configuration_of = |entry: &Entry| match &entry.payload {
            Payload::Configuration(membership) => {
                Some(Configuration { index: entry.index, membership: membership.clone() })
            }
            Payload::Blank | Payload::Command(_) => None,
        };
        durable.configurations = server.disk.log.iter().filter_map(configuration_of).collect();
        server.raft = Raft::new(server.start.config(), durable).expect("a disk holds what a correct server wrote");
        server.applied.clear();
        self.mail.retain(|mail| mail.to != node(id));
        self.step(node(id), Event::Tick);
    }

    /// The terms of everybody's log agree, and everything in it is committed and applied.
    pub(crate) fn assert_converged(&self) {
        let ends: BTreeSet<_> =
            self.servers.values().map(|server| (server.raft.status().log.last, server.applied.len())).collect();
        assert_eq!(ends.len(), 1, "not alike: {ends:?}");
        for (id, server) in &self.servers {
            let log = server.raft.status().log;
            assert_eq!(
                (log.commit, log.applied, log.durable),
                (log.last.index, log.last.index, log.last.index),
                "{id}"
            );
        }
    }
}
