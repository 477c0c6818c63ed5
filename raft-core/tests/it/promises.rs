//! No message promises what the disk does not hold yet (contract D1, D2, D5; trap T106): whatever
//! happens, in whatever order the disk finishes, and wherever it is cut off by a crash.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest::sample::select;
use raft_core::Verdict::Granted;
use raft_core::{Boot, CampaignId, Effect, Entries, Entry, Event, HardState, Index, NodeId, Raft, Rpc, Term, WriteSeq};

use crate::rig::{
    Lone, Start, append, append_reply, at, cases, entries_of, heartbeat, heartbeat_reply, index, node, propose,
    runs_of, vote, vote_reply,
};

/// Something that happens; terms and places are relative to where the server is.
#[derive(Clone, Debug)]
enum Step {
    /// Time passes until the server wants to be woken.
    Wake,
    Wait(u64),
    /// Whatever the server hopes to hear in its role.
    Yes(u64),
    Vote {
        from: u64,
        ahead: u64,
        longer: bool,
    },
    Append {
        ahead: u64,
        back: u64,
        count: usize,
        committed: bool,
    },
    Heartbeat {
        ahead: u64,
    },
    Propose,
    /// The disk finishes so many of the writes that wait.
    Synced(usize),
    /// What the disk has not finished is lost, and the server begins its next life.
    Crash,
}

/// A disk: what is safe on it, and what still waits to be.
#[derive(Default)]
struct Disk {
    hard_state: HardState,
    log: BTreeMap<Index, Entry>,
    waiting: VecDeque<(WriteSeq, Option<HardState>, Entries)>,
}

impl Disk {
    fn finish_one(&mut self) -> Option<WriteSeq> {
        let (seq, hard_state, entries) = self.waiting.pop_front()?;
        self.hard_state = hard_state.unwrap_or(self.hard_state);
        if let Some(first) = entries.first() {
            self.log.retain(|index, _| *index < first.index);
        }
        self.log.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
        Some(seq)
    }
}

/// One server, its disk, and everything that it has ever promised.
struct Watched {
    server: Lone,
    boot: u64,
    disk: Disk,
    /// What the log in memory holds: everything handed to the disk.
    memory: BTreeMap<Index, Entry>,
    campaign: u64,
    round: u64,
    requests: u64,
    votes: BTreeMap<Term, NodeId>,
    /// How often something was promised, by kind.
    promises: [usize; 4],
}

impl Watched {
    fn new() -> Self {
        let server = Start::first_of_three().server();
        let (disk, memory, votes) = (Disk::default(), BTreeMap::new(), BTreeMap::new());
        Self { server, boot: 1, disk, memory, campaign: 0, round: 0, requests: 0, votes, promises: [0; 4] }
    }

    fn term_at(&self, place: u64) -> u64 {
        self.memory.get(&index(place)).map_or(0, |entry| entry.term.as_u64())
    }

    fn take(&mut self, event: Event) {
        for effect in self.server.step(event) {
            match effect {
                Effect::Persist { seq, hard_state, entries } => {
                    if let Some(first) = entries.first() {
                        self.memory.retain(|index, _| *index < first.index);
                    }
                    self.memory.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
                    self.disk.waiting.push_back((seq, hard_state.map(|state| *state), entries));
                }
                Effect::Send { to, rpc } => self.check(to, &rpc),
                Effect::Apply { entries, .. } => {
                    self.promises[3] += 1;
                    for entry in entries.iter() {
                        assert_eq!(self.disk.log.get(&entry.index), Some(entry), "applied, and not on the own disk");
                    }
                    let index = entries.last().expect("an apply is not empty").index;
                    self.server.step(Event::Applied { index });
                }
                Effect::Reply { .. } => {}
                unexpected => panic!("{unexpected:?}"),
            }
        }
    }

    /// What is sent, if a crash followed at once: would the next life still know of it?
    fn check(&mut self, to: NodeId, rpc: &Rpc) {
        match rpc {
            Rpc::Vote { term, .. } => self.check_vote(*term, node(1)),
            Rpc::VoteReply { term, verdict: Granted } => self.check_vote(*term, to),
            Rpc::AppendReply { term, matched, .. } => {
                self.promises[1] += 1;
                self.check_match(*term, *matched);
            }
            Rpc::HeartbeatReply { term, matched, .. } if *matched > Index::ZERO => {
                self.promises[2] += 1;
                self.check_match(*term, *matched);
            }
            Rpc::PreVote { campaign, .. } => self.campaign = campaign.number,
            Rpc::Heartbeat { round, .. } => self.round = round.as_u64(),
            Rpc::Append(append) => self.round = append.round.as_u64(),
            Rpc::PreVoteReply { .. }
            | Rpc::VoteReply { .. }
            | Rpc::HeartbeatReply { .. }
            | Rpc::AppendRejected(_)
            | Rpc::CommitNotice { .. }
            | Rpc::TimeoutNow { .. }
            | Rpc::Resigned { .. }
            | Rpc::InstallSnapshot(_)
            | Rpc::SnapshotStatus { .. }
            | Rpc::Regressed { .. }
            | Rpc::ReadIndex { .. }
            | Rpc::ReadIndexReply { .. }
            | Rpc::TermOver { .. } => {}
        }
    }

    fn check_vote(&mut self, term: Term, candidate: NodeId) {
        self.promises[0] += 1;
        let known = self.disk.hard_state;
        let kept = known.term > term || known == HardState { term, voted_for: Some(candidate), floor: None };
        assert!(kept, "a vote for {candidate} in term {term}, and the disk knows only {known:?}");
        let first = *self.votes.entry(term).or_insert(candidate);
        assert_eq!(first, candidate, "a second vote in term {term}");
    }

    fn check_match(&self, term: Term, matched: Index) {
        assert_eq!(self.disk.hard_state.term, term, "a promise in a term that the disk does not know");
        for place in 1..=matched.as_u64() {
            let (safe, meant) = (self.disk.log.get(&index(place)), self.memory.get(&index(place)));
            assert!(safe.is_some() && safe == meant, "{place} of {matched} is promised: {meant:?}, on disk {safe:?}");
        }
    }

    fn act(&mut self, step: &Step) {
        let status = self.server.status();
        let (term, last) = (status.hard_state.term.as_u64(), status.log.last);
        match step {
            Step::Wake => {
                self.server.now = self.server.now.max(self.server.raft.deadline().unwrap_or(self.server.now));
                self.take(Event::Tick);
            }
            Step::Wait(millis) => self.server.wait(*millis),
            Step::Yes(from) => {
                let campaign = CampaignId { boot: Boot::new(self.boot), number: self.campaign };
                for rpc in [
                    Rpc::PreVoteReply { term: Term::new(term + 1), campaign, verdict: Granted },
                    vote_reply(term, Granted),
                    append_reply(term, self.round, last.index.as_u64()),
                    heartbeat_reply(term, self.round, 0, 0),
                ] {
                    self.take(crate::rig::received(*from, rpc));
                }
            }
            Step::Vote { from, ahead, longer } => {
                let place = last.index.as_u64() + u64::from(*longer);
                self.take(crate::rig::received(*from, vote(term + ahead, at(place, last.term.as_u64()))));
            }
            Step::Append { ahead, back, count, committed } => {
                // One leader a term, and terms of the entries that fit.
                let (term, prev) = (term + ahead, last.index.as_u64().saturating_sub(*back));
                let new = entries_of(prev + 1, &vec![term; *count]);
                let commit = if *committed { prev + *count as u64 } else { 0 };
                let rpc = append(term, 1, at(prev, self.term_at(prev)), commit, new);
                self.take(crate::rig::received(2 + term % 2, rpc));
            }
            Step::Heartbeat { ahead } => {
                let rpc = heartbeat(term + ahead, 1, last.index.as_u64());
                self.take(crate::rig::received(2 + (term + ahead) % 2, rpc));
            }
            Step::Propose => {
                self.requests += 1;
                self.take(propose(self.requests));
            }
            Step::Synced(count) => {
                let finished = (0..*count).filter_map(|_| self.disk.finish_one()).last();
                if let Some(seq) = finished {
                    self.take(Event::Persisted { seq });
                }
            }
            Step::Crash => self.crash(),
        }
    }

    fn crash(&mut self) {
        self.boot += 1;
        self.disk.waiting.clear();
        self.memory = self.disk.log.clone();
        let terms: Vec<u64> = self.memory.values().map(|entry| entry.term.as_u64()).collect();
        let mut durable = Start { boot: self.boot, ..Start::first_of_three() }.durable();
        durable.hard_state = self.disk.hard_state;
        durable.last = index(terms.len() as u64);
        durable.runs = runs_of(&terms);
        durable.tail = Entries::new(self.memory.values().cloned().collect()).expect("a disk is written in order");
        let config = raft_core::Config::new(raft_core::Timing::LAN, raft_core::Limits::DEFAULT, 42);
        let config = config.expect("both are presets");
        self.server.raft = Raft::new(config, durable).expect("a disk holds what a correct server wrote");
        self.server.step(Event::Tick);
    }
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || select(vec![2_u64, 3]);
    prop_oneof![
        4 => Just(Step::Wake),
        2 => (0..200_u64).prop_map(Step::Wait),
        4 => peer().prop_map(Step::Yes),
        4 => (peer(), 0..3_u64, any::<bool>()).prop_map(|(from, ahead, longer)| Step::Vote { from, ahead, longer }),
        6 => (select(vec![0_u64, 0, 0, 1]), 0..4_u64, 0..4_usize, any::<bool>())
            .prop_map(|(ahead, back, count, committed)| Step::Append { ahead, back, count, committed }),
        3 => select(vec![0_u64, 0, 1]).prop_map(|ahead| Step::Heartbeat { ahead }),
        2 => Just(Step::Propose),
        8 => (1..4_usize).prop_map(Step::Synced),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn regress_t106_no_message_leaves_before_what_it_promises_is_durable(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut watched = Watched::new();
        steps.iter().for_each(|step| watched.act(step));
    }
}

#[test]
fn the_steps_lead_to_promises_of_every_kind() {
    // The property above is worth little if nobody ever promises anything.
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut promises = [0; 4];
    for _ in 0..100 {
        let steps = proptest::collection::vec(step(), 80).new_tree(&mut runner).expect("nothing is filtered").current();
        let mut watched = Watched::new();
        steps.iter().for_each(|step| watched.act(step));
        promises.iter_mut().zip(watched.promises).for_each(|(all, own)| *all += own);
    }
    assert!(
        promises.iter().all(|count| *count > 100),
        "votes, acknowledgements, their repetitions, applied: {promises:?}"
    );
}
