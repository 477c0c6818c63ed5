//! Peers, clients and disks that lie: nothing that they say makes a server panic, loop, or
//! hoard (design §2, point 5; trap T117).

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use raft_core::Verdict::{Granted, LeaderAlive, Refused};
use raft_core::{
    Boot, CampaignId, Change, Configuration, Effect, Entries, Entry, Event, ForwardId, Index, Limits, LogReadOutcome,
    Member, Membership, Message, Payload, Peer, Position, Priority, Raft, ReadId, ReadMode, Rejection, RequestId, Rpc,
    SnapshotFate, SnapshotMeta, SnapshotOffer, Term, Time, Verdict, WriteSeq,
};

use crate::members::{add_voter, changed, demote, promote, remove, with_learners};
use crate::rig::{
    Start, append, append_reply, at, cases, entries_of, heartbeat, heartbeat_reply, index, membership, node, peer,
    persist_vote, pre_vote, read, received, rejected, seq, store, term_over, vote,
};

// ---- lies with a name ----------------------------------------------------------------------

#[test]
fn regress_t117_a_vote_that_is_asked_for_again_and_again_is_held_once() {
    let mut server = Start::first_of_three().server();
    for _ in 0..1_000 {
        server.receive(2, vote(1, at(0, 0)));
        assert!(server.status().load.held <= 1, "while the disk is busy, {} answers wait", server.status().load.held);
    }
}

#[test]
fn regress_t117_votes_of_ever_higher_terms_are_held_once_a_peer() {
    let mut server = Start::first_of_three().server();
    for round in 1..1_000 {
        server.receive(2 + round % 2, vote(round, at(0, 0)));
        assert!(server.status().load.held <= 2, "while the disk is busy, {} answers wait", server.status().load.held);
    }
}

#[test]
fn regress_t117_the_last_terms_that_are_believed_leave_room_for_elections() {
    let start = Start::first_of_three().term((1 << 62) - 1);
    let mut server = start.server();
    server.receive(2, term_over((1 << 62) + (1 << 31)));
    server.persisted(1);
    server.tick();
    assert_eq!(server.role().1, raft_core::RoleKind::PreCandidate);
}

#[test]
fn regress_t117_numbers_at_the_end_of_their_range_are_dropped() {
    let mut follower = Start::first_of_three().log(&[1, 1]).follower_of(2);
    let mut leader = Start::first_of_three().settled_leader();
    let end = u64::MAX;
    for rpc in [
        append(1, end, at(end, 1), end, Entries::EMPTY),
        append(1, end, at(end - 1, 1), end, crate::rig::entries([crate::rig::entry(end, 1)])),
        append(1, end, at(0, 0), end, entries_of(end - 1, &[1])),
        heartbeat(1, end, end),
        append_reply(1, end, end),
        append_reply(1, 1, end),
        heartbeat_reply(1, 1, end, end),
        rejected(1, 1, end, at(end, end), end),
        rejected(1, 1, 0, at(end, 0), end),
        pre_vote(end, end, at(end, end)),
        vote(1, at(end, end)),
    ] {
        follower.receive(2, rpc.clone());
        leader.receive(2, rpc);
    }
    assert_eq!(follower.status().log.last, at(2, 1));
    assert_eq!(leader.progress(2), (1, 2, false, 0));
}

#[test]
fn regress_t117_a_disk_that_answers_what_nobody_asked_is_ignored() {
    let mut server = Start::first_of_three().settled_leader();
    for outcome in [LogReadOutcome::Damaged, LogReadOutcome::Entries(entries_of(1, &[1, 1]))] {
        assert_eq!(server.step(Event::LogRead { id: ReadId::new(77), outcome }), []);
    }
    assert_eq!(server.status().load.drops.stale, 2);
}

#[test]
fn regress_t001_a_peer_that_lost_its_log_does_not_bring_the_leader_down() {
    // It acknowledged 1@1, its disk was wiped, and it says so; the leader believes neither, and lives.
    let mut server = Start::first_of_three().settled_leader();
    assert_eq!(server.receive(2, rejected(1, 1, 1, at(0, 0), 0)), []);
    let wiped = Peer { store: store(9), ..peer(2) };
    server.step(Event::Received { from: wiped, rpc: rejected(1, 1, 1, at(0, 0), 0) });
    server.step(Event::Received { from: wiped, rpc: heartbeat_reply(1, 1, 0, 0) });
    assert_eq!(server.progress(2), (1, 2, false, 0));
    assert_eq!(server.status().log.commit, index(1));
}

#[test]
fn regress_t006_an_earlier_life_is_dropped_and_its_term_is_not_adopted() {
    let mut server = Start::first_of_three().term(1).server();
    let second = Peer { boot: Boot::new(2), ..peer(2) };
    server.step(Event::Received { from: second, rpc: heartbeat(1, 1, 0) });
    assert_eq!(server.receive(2, heartbeat(7, 1, 0)), []);
    assert_eq!((server.role().0, server.status().load.drops.foreign), (1, 1));
    assert_eq!(
        server.step(Event::Received { from: second, rpc: term_over(7) }),
        [persist_vote(1, 7, None, Entries::EMPTY)]
    );
}

#[test]
fn regress_t045_acknowledgements_of_an_earlier_term_are_dropped() {
    let mut server = Start::first_of_three().log(&[1, 1]).leader();
    server.persisted(2);
    assert_eq!(server.receive(2, append_reply(1, 1, 3)), []);
    assert_eq!(server.receive(3, heartbeat_reply(1, 1, 3, 3)), []);
    assert_eq!((server.progress(2).0, server.status().log.commit), (0, index(0)));
    assert_eq!(server.status().load.drops.stale, 2);
}

// ---- lies of every kind --------------------------------------------------------------------

/// Numbers around what a small server knows, and the ends of the range.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0..10_u64, 1 => select(vec![1 << 31, 1 << 32, 1 << 40, 1 << 63, u64::MAX - 1, u64::MAX])]
}

fn term() -> impl Strategy<Value = Term> {
    number().prop_map(Term::new)
}

fn position() -> impl Strategy<Value = Position> {
    (number(), number()).prop_map(|(index, term)| at(index, term))
}

fn verdict() -> impl Strategy<Value = Verdict> {
    select(vec![Granted, Refused, LeaderAlive])
}

/// Entries as a decoder lets them through: each follows on the one before.
fn entries() -> impl Strategy<Value = Entries> {
    let payload = prop_oneof![
        Just(Payload::Blank),
        (0..40_usize).prop_map(|n| Payload::Command(vec![7; n].into())),
        configurations().prop_map(|membership| Payload::Configuration(membership.into())),
    ];
    (number(), proptest::collection::vec((number(), payload), 0..5)).prop_map(|(first, mut list)| {
        list.sort_by_key(|(term, _)| *term);
        let mut index = Index::new(first);
        let mut batch = Vec::new();
        for (term, payload) in list {
            batch.push(Entry { term: Term::new(term), index, payload });
            index = index.next();
        }
        Entries::new(batch).expect("rising by one")
    })
}

/// Configurations of every kind, this server's place among them.
fn configurations() -> impl Strategy<Value = Membership> {
    let three = membership(&[1, 2, 3]);
    let other_disk = Membership::new([Member { node: node(1), store: store(9) }]).expect("one voter");
    select(vec![
        three.clone(),
        Membership::default(),
        membership(&[1]),
        membership(&[2, 3]),
        with_learners(&[2, 3], &[4]),
        changed(&three, &[add_voter(4)]),
        changed(&three, &[remove(2), remove(3)]),
        changed(&three, &[demote(1), remove(3)]),
        other_disk,
    ])
}

/// An append that a correct leader could have sent, more or less; now and then it sets a configuration.
fn plausible_append() -> impl Strategy<Value = Rpc> {
    let set = proptest::option::weighted(0.3, configurations());
    (0..8_u64, 0..6_u64, 0..6_u64, 0..10_u64, proptest::collection::vec(0..6_u64, 0..5), set).prop_map(
        |(term, prev, prev_term, commit, mut terms, set)| {
            let prev_term = if prev == 0 { 0 } else { prev_term.min(term) };
            terms.iter_mut().for_each(|entry_term| *entry_term = (*entry_term).clamp(prev_term, term.max(prev_term)));
            terms.sort_unstable();
            let mut list: Vec<Entry> = entries_of(prev + 1, &terms).iter().cloned().collect();
            if let (Some(membership), Some(last)) = (set, list.last_mut()) {
                last.payload = Payload::Configuration(membership.into());
            }
            append(term, 1, at(prev, prev_term), commit, crate::rig::entries(list))
        },
    )
}

fn rpc() -> impl Strategy<Value = Rpc> {
    let index = || number().prop_map(Index::new);
    let round = || number().prop_map(raft_core::Round::new);
    let promise = || (0..400_u64).prop_map(Duration::from_millis);
    let forward = || (0..3_u64, 0..6_u64).prop_map(|(boot, number)| ForwardId { boot: Boot::new(boot), number });
    let mode = || prop_oneof![Just(ReadMode::Quorum), Just(ReadMode::Lease)];
    let campaign = || (0..3_u64, 0..6_u64).prop_map(|(boot, number)| CampaignId { boot: Boot::new(boot), number });
    prop_oneof![
        1 => (term(), campaign(), position()).prop_map(|(term, campaign, last)| Rpc::PreVote { term, campaign, last }),
        3 => (term(), campaign(), verdict())
            .prop_map(|(term, campaign, verdict)| Rpc::PreVoteReply { term, campaign, verdict }),
        1 => (term(), position(), proptest::option::of(term()))
            .prop_map(|(term, last, ordered_in)| Rpc::Vote { term, last, ordered_in }),
        3 => (term(), verdict()).prop_map(|(term, verdict)| Rpc::VoteReply { term, verdict }),
        2 => (number(), number(), position(), number(), entries())
            .prop_map(|(term, round, prev, commit, entries)| append(term, round, prev, commit, entries)),
        4 => plausible_append(),
        3 => (term(), round(), index())
            .prop_map(|(term, round, matched)| Rpc::AppendReply { term, round, matched }),
        3 => (term(), round(), index(), position(), index()).prop_map(|(term, round, prev, hint, commit)| {
            Rpc::AppendRejected(Rejection { term, round, prev, hint, commit }.into())
        }),
        2 => (term(), round(), index(), promise())
            .prop_map(|(term, round, commit, promise)| Rpc::Heartbeat { term, round, commit, promise }),
        3 => (term(), round(), index(), index(), promise()).prop_map(|(term, round, matched, verified, granted)| {
            Rpc::HeartbeatReply { term, round, matched, verified, granted }
        }),
        1 => (term(), index()).prop_map(|(term, commit)| Rpc::CommitNotice { term, commit }),
        1 => term().prop_map(|term| Rpc::TermOver { term }),
        1 => term().prop_map(|term| Rpc::TimeoutNow { term }),
        1 => term().prop_map(|term| Rpc::Resigned { term }),
        2 => (term(), round(), position(), 0..5_u64).prop_map(|(term, round, last, configuration)| {
            let configuration = Configuration { index: Index::new(configuration), membership: membership(&[1, 2, 3]).into() };
            let meta = SnapshotMeta { last, configuration, bytes: 10 }.into();
            Rpc::InstallSnapshot(SnapshotOffer { term, round, meta, source: node(2) }.into())
        }),
        1 => (term(), position(), any::<bool>(), number()).prop_map(|(term, last, failed, bytes)| {
            let fate = if failed { SnapshotFate::Failed } else { SnapshotFate::Received(bytes) };
            Rpc::SnapshotStatus { term, last, fate }
        }),
        1 => (term(), forward(), mode()).prop_map(|(term, id, mode)| Rpc::ReadIndex { term, id, mode }),
        1 => (term(), forward(), proptest::option::of(index()))
            .prop_map(|(term, id, index)| Rpc::ReadIndexReply { term, id, index }),
    ]
}

fn sender() -> impl Strategy<Value = Peer> {
    // Mostly members with their own store; now and then this very server, a stranger, a wiped
    // disk, or another life.
    let id = prop_oneof![8 => 2..=3_u64, 1 => Just(1), 1 => Just(9)];
    let boot = prop_oneof![20 => Just(1_u64), 1 => number()];
    (id, proptest::bool::weighted(0.05), boot).prop_map(|(id, wiped, boot)| {
        let store = if wiped { store(77) } else { store(id) };
        Peer { node: node(id), store, boot: Boot::new(boot) }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Received(Peer, Rpc),
    /// What the server hopes to hear: without it, lies alone elect nobody.
    Agreed,
    Propose(usize),
    Read,
    /// The disk finishes some of what it has to do.
    Synced(u64),
    Applied,
    /// The disk answers the oldest question: with what it holds, with something else, or not at all.
    Found(Option<Option<Entries>>),
    Unreachable(u64),
    /// The snapshot that was asked for is made, or cannot be.
    Taken(bool),
    /// Somebody sends a snapshot, all of it or not.
    Arrived(Position, bool),
    /// An operator wants other members; `true` if it knows those of now.
    Change(bool, Vec<Change>),
    Transfer(Option<u64>),
    StorageFull,
    StorageReady,
    StorageFailed,
    Wait(u64),
    Wake,
}

fn wish() -> impl Strategy<Value = Change> {
    let id = || 1..6_u64;
    prop_oneof![
        2 => id().prop_map(add_voter),
        1 => id().prop_map(promote),
        2 => id().prop_map(demote),
        2 => id().prop_map(remove),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (sender(), rpc()).prop_map(|(from, rpc)| Step::Received(from, rpc)),
        12 => Just(Step::Agreed),
        4 => (0..200_usize).prop_map(Step::Propose),
        3 => Just(Step::Read),
        5 => (0..4_u64).prop_map(Step::Synced),
        4 => Just(Step::Applied),
        4 => proptest::option::of(proptest::option::of(entries())).prop_map(Step::Found),
        2 => number().prop_map(|id| Step::Unreachable(id.max(1))),
        3 => proptest::bool::weighted(0.8).prop_map(Step::Taken),
        3 => (position(), any::<bool>()).prop_map(|(last, complete)| Step::Arrived(last, complete)),
        4 => (proptest::bool::weighted(0.9), proptest::collection::vec(wish(), 0..4))
            .prop_map(|(current, wishes)| Step::Change(current, wishes)),
        2 => proptest::option::of(1..6_u64).prop_map(Step::Transfer),
        1 => Just(Step::StorageFull),
        1 => Just(Step::StorageReady),
        1 => proptest::bool::weighted(0.1).prop_map(|fails| if fails { Step::StorageFailed } else { Step::Wake }),
        3 => (0..200_u64).prop_map(Step::Wait),
        6 => Just(Step::Wake),
    ]
}

/// A server among liars, and the honest part of its world: the driver.
struct Besieged {
    raft: Raft,
    now: Time,
    writes: (WriteSeq, WriteSeq),
    handed: Index,
    disk: std::collections::BTreeMap<Index, Entry>,
    questions: std::collections::VecDeque<(ReadId, Index, Index)>,
    requests: u64,
    ended: std::collections::BTreeSet<RequestId>,
    /// The snapshot that the server has asked for.
    making: Option<Index>,
    /// The configuration that was announced last.
    configured: Option<Configuration>,
}

const LIMITS: Limits = Limits {
    message_bytes_max: 150,
    inflight_messages_max: 3,
    inflight_bytes_max: 300,
    log_cache_bytes: 100,
    unsynced_bytes_max: 300,
    uncommitted_bytes_max: 400,
    unapplied_bytes_max: 200,
    pending_proposals_max: 8,
    pending_reads_max: 8,
    snapshot_bytes: 600,
    snapshot_entries: 9,
    retain_bytes: 100,
};

impl Besieged {
    fn new(start: &Start) -> Self {
        let mut besieged = Self {
            raft: start.raft(),
            now: Time::from_nanos(1_000_000_000),
            writes: (WriteSeq::ZERO, WriteSeq::ZERO),
            handed: Index::ZERO,
            disk: start.entries().into_iter().map(|entry| (entry.index, entry)).collect(),
            questions: std::collections::VecDeque::new(),
            requests: 0,
            making: None,
            ended: std::collections::BTreeSet::new(),
            configured: None,
        };
        besieged.take(vec![Event::Tick]);
        besieged
    }

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId::new(self.requests)
    }

    fn event(&mut self, step: Step) -> Event {
        match step {
            Step::Received(from, rpc) => Event::Received { from, rpc },
            Step::Agreed => self.agreement(),
            Step::Propose(length) => {
                self.requests += 1;
                Event::Propose { request: RequestId::new(self.requests), command: Bytes::from(vec![1; length]) }
            }
            Step::Read => {
                self.requests += 1;
                read(self.requests)
            }
            Step::Synced(count) => {
                let (done, issued) = self.writes;
                let newest = seq((done.as_u64() + count).min(issued.as_u64()));
                self.writes.0 = newest;
                Event::Persisted { seq: newest }
            }
            Step::Applied => Event::Applied { index: self.handed },
            Step::Taken(fine) => match self.making.take() {
                Some(index) => Event::SnapshotTaken { index, bytes: fine.then_some(10) },
                None => Event::RequestSnapshot { request: self.next_request() },
            },
            Step::Arrived(last, complete) => Event::SnapshotReceived { last, complete },
            Step::Found(found) => match (self.questions.pop_front(), found) {
                (None, _) => Event::Tick,
                (Some((id, ..)), Some(Some(lie))) => Event::LogRead { id, outcome: LogReadOutcome::Entries(lie) },
                (Some((id, ..)), Some(None)) => Event::LogRead { id, outcome: LogReadOutcome::Damaged },
                (Some((id, from, through)), None) => {
                    let found = self.disk.range(from..=through.max(from)).map(|(_, entry)| entry.clone());
                    let found = Entries::new(found.collect()).expect("a disk holds what was written, in order");
                    Event::LogRead { id, outcome: LogReadOutcome::Entries(found) }
                }
            },
            Step::Unreachable(id) => Event::PeerUnreachable { node: node(id) },
            Step::Change(current, changes) => {
                self.requests += 1;
                let index = self.raft.status().configuration.index.as_u64();
                crate::members::change(self.requests, if current { index } else { index + 1 }, &changes)
            }
            Step::Transfer(to) => {
                self.requests += 1;
                crate::members::transfer(self.requests, to)
            }
            Step::StorageFull => Event::StorageFull,
            Step::StorageReady => Event::StorageReady,
            Step::StorageFailed => Event::StorageFailed,
            Step::Wait(millis) => {
                self.now = self.now.after(Duration::from_millis(millis));
                Event::Tick
            }
            Step::Wake => {
                self.now = self.now.max(self.raft.deadline().unwrap_or(self.now));
                Event::Tick
            }
        }
    }

    fn agreement(&self) -> Event {
        let status = self.raft.status();
        let (term, last) = (status.hard_state.term.as_u64(), status.log.last.index.as_u64());
        let rpc = match status.role {
            raft_core::RoleKind::Follower => heartbeat(term, 1, last),
            raft_core::RoleKind::PreCandidate => {
                // The campaigns of this life are numbered from 1; one of these is the one under way.
                let campaign = CampaignId { boot: Boot::new(1), number: self.writes.1.as_u64() % 5 + 1 };
                Rpc::PreVoteReply { term: Term::new(term).next(), campaign, verdict: Granted }
            }
            raft_core::RoleKind::Candidate => Rpc::VoteReply { term: Term::new(term), verdict: Granted },
            raft_core::RoleKind::Leader => append_reply(term, 1, last),
        };
        received(2, rpc)
    }

    /// Takes events, and checks what must hold whatever anybody says.
    fn take(&mut self, events: Vec<Event>) {
        let at = self.now;
        let effects = self.raft.step_batch(events.into_iter().map(|event| Message { at, event }));
        assert!(effects.len() < 200, "{} effects of one step", effects.len());
        for effect in effects {
            match effect {
                Effect::Persist { seq, entries, .. } => {
                    assert_eq!(seq, self.writes.1.next());
                    self.writes.1 = seq;
                    if let Some(first) = entries.first() {
                        self.disk.retain(|index, _| *index < first.index);
                    }
                    self.disk.extend(entries.iter().map(|entry| (entry.index, entry.clone())));
                }
                Effect::Apply { entries, tokens } => {
                    for entry in entries.iter() {
                        assert_eq!(entry.index, self.handed.next(), "applied out of order");
                        // An index and a term identify an entry: that is all the core can compare, and a
                        // liar may send two entries under the same name.
                        let written = self.disk.get(&entry.index).map(Entry::position);
                        assert_eq!(written, Some(entry.position()), "applied, and never written");
                        self.handed = entry.index;
                    }
                    for (_, token) in tokens {
                        assert!(self.ended.insert(token), "request {token} ended twice");
                    }
                }
                Effect::Reply { request, .. } => assert!(self.ended.insert(request), "request {request} ended twice"),
                Effect::ReadLog { id, from, through, .. } => self.questions.push_back((id, from, through)),
                Effect::Send { rpc: Rpc::Append(append), .. } => {
                    let cost = append.entries.cost();
                    assert!(cost <= LIMITS.message_bytes_max || append.entries.len() == 1, "{cost} bytes in an append");
                }
                Effect::TakeSnapshot { meta } => {
                    assert_eq!(meta.last.index, self.handed, "a snapshot of something else than was handed over");
                    self.making = Some(meta.last.index);
                }
                Effect::InstallSnapshot { seq, meta } => {
                    assert_eq!(seq, self.writes.1.next());
                    self.writes.1 = seq;
                    self.disk.clear();
                    assert!(meta.last.index > self.handed, "the state machine is set back");
                    self.handed = meta.last.index;
                }
                Effect::Compact { through } => self.disk.retain(|index, _| *index > through),
                Effect::Send { .. } | Effect::SendSnapshot { .. } | Effect::Observe(_) => {}
                Effect::Configured { configuration } => self.configured = Some(configuration),
            }
        }
        let status = self.raft.status();
        // E3: whoever connects to peers knows the configuration in force, whatever became of others.
        assert_eq!(self.configured.as_ref(), Some(&status.configuration));
        assert!(self.raft.deadline().is_none_or(|deadline| deadline > at), "due again at once");
        assert!(status.load.held <= 8, "{} promises held", status.load.held);
        assert!(status.load.proposals <= LIMITS.pending_proposals_max && status.load.reads <= LIMITS.pending_reads_max);
        assert!(self.questions.len() < 50, "asks the disk without end");
        // What is not durable is pinned; one append that reaches the limit still passes.
        let pinned_max = LIMITS.log_cache_bytes + LIMITS.unsynced_bytes_max + 5 * 400;
        assert!(status.log.cached_bytes <= pinned_max, "{} bytes in memory", status.log.cached_bytes);
    }
}

/// A joint configuration without this server in its new half.
fn leaving() -> Membership {
    changed(&membership(&[1, 2, 3]), &[remove(1), demote(3)])
}

fn start() -> impl Strategy<Value = Start> {
    let limits = |limits: &mut Limits| *limits = LIMITS;
    prop_oneof![
        Just(Start::first_of_three().limits(limits)),
        Just(Start { warm: false, ..Start::first_of_three().log(&[1, 2, 2, 4]).limits(limits) }),
        Just(Start::first_of_three().log(&[1, 1, 1]).term(3).vote(2).limits(limits)),
        Just(Start::new(1, &[1]).log(&[1]).limits(limits)),
        Just(Start::new(1, &[]).limits(limits)),
        Just(Start::first_of_three().log(&[1, 1, 2]).change(2, leaving()).limits(limits).leases()),
        Just(Start::first_of_three().log(&[1]).limits(limits).leases().priority(Priority::Never)),
        Just(Start::new(1, &[1]).members(with_learners(&[1], &[2, 3])).limits(limits).priority(Priority::Low)),
    ]
}

proptest! {
    #![proptest_config(cases(4))]

    #[test]
    fn regress_t117_no_lie_makes_a_server_panic_loop_or_hoard(
        start in start(),
        steps in proptest::collection::vec(proptest::collection::vec(step(), 1..4), 1..60),
    ) {
        let mut besieged = Besieged::new(&start);
        for batch in steps {
            let events = batch.into_iter().map(|step| besieged.event(step)).collect();
            besieged.take(events);
        }
    }
}
