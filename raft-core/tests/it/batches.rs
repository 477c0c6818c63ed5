//! Batches: contract B1, B2. What is handled one by one and what is handled at once ends alike.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use raft_core::Verdict::{Granted, LeaderAlive, Refused};
use raft_core::{
    Change, Effect, Entries, Entry, Event, LogReadOutcome, Message, NodeId, Outcome, Raft, ReadId, RequestId, RoleKind,
    Rpc, Time, WriteSeq,
};

use crate::members::{add, add_voter, change, demote, promote, remove, transfer, with_learners};
use crate::rig::{
    Start, append, append_reply, at, blank, cases, commit_notice, entries, entries_of, heartbeat, heartbeat_reply,
    index, persist, persist_vote, pre_vote, pre_vote_reply, proposal, propose, read, read_ready, received, rejected,
    reply, request, send, seq, term_over, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

// ---- B1 ------------------------------------------------------------------------------------

#[test]
fn rule_b1_a_vote_that_wins_meets_the_next_message_as_leader() {
    let mut server = Start::first_of_three().candidate();
    let effects = server.batch([received(2, vote_reply(1, Granted)), propose(7)]);
    let opening = entries([blank(1, 1), proposal(2, 1, 7)]);
    assert_eq!(
        effects,
        [
            persist(2, opening.clone()),
            send(2, heartbeat(1, 1, 0)),
            send(3, heartbeat(1, 1, 0)),
            send(2, append(1, 1, at(0, 0), 0, opening.clone())),
            send(3, append(1, 1, at(0, 0), 0, opening)),
        ]
    );
}

#[test]
fn rule_b1_the_completion_of_the_own_vote_meets_the_next_message_as_leader() {
    let mut server = Start::new(1, &[1]).server();
    let effects = server.batch([Event::Persisted { seq: seq(1) }, propose(7)]);
    assert_eq!(effects, [persist(2, entries([blank(1, 1), proposal(2, 1, 7)]))]);
}

#[test]
fn rule_b1_a_step_down_meets_the_next_message_as_follower() {
    let mut server = Start::first_of_three().settled_leader();
    let effects = server.batch([propose(7), received(2, heartbeat(2, 1, 0)), propose(8)]);
    assert_eq!(
        effects,
        [
            reply(7, crate::rig::not_leader(2)),
            send(2, heartbeat_reply(2, 1, 0, 0)),
            reply(8, crate::rig::not_leader(2)),
            persist_vote(3, 2, None, NONE),
        ]
    );
}

#[test]
fn rule_b1_a_batch_costs_one_write_with_the_newest_term_and_vote() {
    let mut server = Start::first_of_three().server();
    let effects = server.batch([
        received(2, vote(5, at(0, 0))),
        received(3, vote(6, at(0, 0))),
        received(3, append(6, 1, at(0, 0), 0, entries_of(1, &[6]))),
        received(3, append(6, 2, at(1, 6), 0, entries_of(2, &[6]))),
    ]);
    assert_eq!(effects, [persist_vote(1, 6, 3, entries_of(1, &[6, 6]))]);
    assert_eq!(
        server.persisted(1),
        [send(2, vote_reply(5, Granted)), send(3, vote_reply(6, Granted)), send(3, append_reply(6, 2, 2))],
        "a vote of term 5 was given, and term 6 on the disk covers it"
    );
}

#[test]
fn rule_b1_acknowledgements_and_proposals_of_a_batch_share_one_append() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.persisted(3);
    let effects = server.batch([received(2, append_reply(1, 2, 2)), propose(8), read(9)]);
    let new = entries([proposal(3, 1, 8)]);
    assert_eq!(
        effects,
        [
            persist(4, new.clone()),
            send(2, heartbeat(1, 3, 2)),
            send(3, heartbeat(1, 3, 1)),
            send(2, append(1, 3, at(2, 1), 2, new.clone())),
            send(3, append(1, 3, at(2, 1), 2, new)),
            crate::rig::apply(entries([proposal(2, 1, 7)]), &[(2, 7)]),
        ],
        "commit, read and write in one round, and the commit index rides along"
    );
    server.step(Event::Applied { index: index(2) });
    assert_eq!(server.receive(3, append_reply(1, 3, 1)), [reply(9, read_ready(2))]);
}

#[test]
fn an_empty_batch_changes_nothing() {
    let mut server = Start::first_of_three().settled_leader();
    let before = server.status();
    assert_eq!(server.batch([]), []);
    assert_eq!(server.status(), before);
}

#[test]
fn step_into_appends_to_what_the_vector_holds() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    let kept = reply(1, read_ready(1));
    let mut effects = vec![kept.clone()];
    server.raft.step_into([Message { at: server.now, event: received(2, heartbeat(1, 2, 0)) }], &mut effects);
    assert_eq!(effects, [kept, send(2, heartbeat_reply(1, 2, 0, 0))]);
}

// ---- B2 ------------------------------------------------------------------------------------

/// Something that happens, said so that it means the same to a server that took everything one by
/// one and to one that took it at once.
#[derive(Clone, Debug)]
enum Step {
    Received(u64, Said),
    Propose,
    Read,
    /// The disk finishes what it was given before this batch.
    Synced,
    /// The machine has applied what it was given before this batch.
    Applied,
    Unreachable(u64),
    /// An operator who knows the configuration of when this batch began wants another one.
    Change(Vec<Change>),
    Transfer(Option<u64>),
    StorageFull,
    StorageReady,
}

/// What a peer says, relative to where the server is when the batch begins: its term, its log.
#[derive(Clone, Debug)]
enum Said {
    /// Whatever the server hopes to hear in its role.
    Yes,
    PreVote {
        ahead: u64,
        longer: bool,
    },
    PreVoteReply {
        ahead: u64,
        yes: bool,
    },
    Vote {
        ahead: u64,
        longer: bool,
    },
    VoteReply {
        ahead: u64,
        yes: bool,
    },
    Append {
        ahead: u64,
        back: u64,
        terms: Vec<u64>,
        commit: u64,
    },
    Acknowledged {
        back: u64,
    },
    Rejected {
        back: u64,
    },
    Heartbeat {
        ahead: u64,
        commit: u64,
    },
    Answered {
        back: u64,
    },
    Notice {
        commit: u64,
    },
    Over {
        ahead: u64,
    },
}

/// A server, and a model of everything that executes its effects.
struct Executed {
    raft: Raft,
    now: Time,
    /// What the disk holds or is being given: the log by index.
    written: BTreeMap<u64, Entry>,
    newest_write: WriteSeq,
    handed: u64,
    applied: Vec<Entry>,
    answers: BTreeMap<RequestId, Outcome>,
    tokens: Vec<(u64, RequestId)>,
    reads: VecDeque<(ReadId, u64, u64)>,
    said: BTreeMap<NodeId, Vec<Rpc>>,
    newest_round: u64,
    newest_campaign: u64,
    requests: u64,
    /// Which of them were reads.
    asked: BTreeSet<RequestId>,
}

/// What a batch starts from, in the words of [`Said`].
#[derive(Clone, Copy)]
struct Here {
    term: u64,
    last: u64,
    last_term: u64,
    write: WriteSeq,
    round: u64,
    campaign: u64,
    handed: u64,
    role: RoleKind,
    configuration: u64,
}

impl Executed {
    fn new(start: &Start) -> Self {
        let mut executed = Self {
            raft: start.raft(),
            now: Time::from_nanos(1_000_000_000),
            written: start.entries().into_iter().map(|entry| (entry.index.as_u64(), entry)).collect(),
            newest_write: WriteSeq::ZERO,
            handed: 0,
            applied: Vec::new(),
            answers: BTreeMap::new(),
            tokens: Vec::new(),
            reads: VecDeque::new(),
            said: BTreeMap::new(),
            newest_round: 0,
            newest_campaign: 0,
            requests: 0,
            asked: BTreeSet::new(),
        };
        executed.take([Event::Tick].into());
        executed
    }

    fn here(&self) -> Here {
        let status = self.raft.status();
        Here {
            term: status.hard_state.term.as_u64(),
            last: status.log.last.index.as_u64(),
            last_term: status.log.last.term.as_u64(),
            write: self.newest_write,
            round: self.newest_round,
            campaign: self.newest_campaign,
            handed: self.handed,
            role: status.role,
            configuration: status.configuration.index.as_u64(),
        }
    }

    /// Takes events, all at once, and does what the server says.
    fn take(&mut self, events: Vec<Event>) {
        let at = self.now;
        for effect in self.raft.step_batch(events.into_iter().map(|event| Message { at, event })) {
            match effect {
                Effect::Send { to, rpc } => {
                    if let Rpc::Append(append) = &rpc {
                        self.newest_round = append.round.as_u64();
                    }
                    if let Rpc::Heartbeat { round, .. } = &rpc {
                        self.newest_round = round.as_u64();
                    }
                    if let Rpc::PreVote { campaign, .. } = &rpc {
                        self.newest_campaign = campaign.number;
                    }
                    self.said.entry(to).or_default().push(rpc);
                }
                Effect::Persist { seq, entries, .. } => {
                    assert!(seq == self.newest_write.next(), "write {seq} after {}", self.newest_write);
                    self.newest_write = seq;
                    if let Some(first) = entries.first() {
                        self.written.retain(|index, _| *index < first.index.as_u64());
                    }
                    self.written.extend(entries.iter().map(|entry| (entry.index.as_u64(), entry.clone())));
                }
                Effect::Apply { entries, tokens } => {
                    let first = entries.first().expect("an apply is not empty").index.as_u64();
                    assert_eq!(first, self.handed + 1, "entries are applied in order");
                    self.applied.extend(entries.iter().cloned());
                    self.handed = entries.last().expect("an apply is not empty").index.as_u64();
                    self.tokens.extend(tokens.into_iter().map(|(index, token)| (index.as_u64(), token)));
                }
                Effect::Reply { request, outcome } => {
                    assert_eq!(self.answers.insert(request, outcome), None, "request {request} ended twice");
                }
                Effect::TakeSnapshot { .. }
                | Effect::SendSnapshot { .. }
                | Effect::InstallSnapshot { .. }
                | Effect::Compact { .. } => panic!("the logs of this model are too short for snapshots"),
                Effect::ReadLog { id, from, through, .. } => {
                    self.reads.push_back((id, from.as_u64(), through.as_u64()));
                }
                Effect::Configured { .. } | Effect::Observe(_) => {}
            }
        }
    }

    /// The event that a step means, when the batch began `here`.
    fn event(&mut self, step: &Step, here: Here) -> Event {
        match step {
            Step::Received(from, said) => received(*from, rpc(said, here)),
            Step::Propose => {
                self.requests += 1;
                propose(self.requests)
            }
            Step::Read => {
                self.requests += 1;
                self.asked.insert(request(self.requests));
                read(self.requests)
            }
            Step::Synced => Event::Persisted { seq: here.write },
            Step::Applied => Event::Applied { index: index(here.handed) },
            Step::Unreachable(peer) => Event::PeerUnreachable { node: crate::rig::node(*peer) },
            Step::Change(changes) => {
                self.requests += 1;
                change(self.requests, here.configuration, changes)
            }
            Step::Transfer(to) => {
                self.requests += 1;
                transfer(self.requests, *to)
            }
            Step::StorageFull => Event::StorageFull,
            Step::StorageReady => Event::StorageReady,
        }
    }

    /// Becomes leader of all who can be asked, and commits its first entry.
    fn lead(&mut self) {
        for _ in 0..10 {
            if !self.leads()
                && let Some(deadline) = self.raft.deadline()
                && self.raft.status().role == RoleKind::Follower
            {
                self.now = self.now.max(deadline);
                self.take(vec![Event::Tick]);
            }
            for from in [2, 3] {
                let yes = self.event(&Step::Received(from, Said::Yes), self.here());
                self.take(vec![yes]);
                self.finish();
            }
            if self.raft.status().log.committed_in_term {
                return;
            }
        }
        panic!("everybody agreed, and nobody leads");
    }

    /// Finishes everything that is under way here, until nothing is.
    fn finish(&mut self) {
        for _ in 0..100 {
            let before = (self.newest_write, self.handed, self.reads.len());
            let mut events =
                vec![Event::Persisted { seq: self.newest_write }, Event::Applied { index: index(self.handed) }];
            for (id, from, through) in std::mem::take(&mut self.reads) {
                let found = self.written.range(from..=through).map(|(_, entry)| entry.clone()).collect();
                let found = Entries::new(found).expect("a disk holds what was written, in order");
                events.push(Event::LogRead { id, outcome: LogReadOutcome::Entries(found) });
            }
            self.take(events);
            if before == (self.newest_write, self.handed, 0) && self.reads.is_empty() {
                return;
            }
        }
        panic!("a server that nobody talks to does not come to rest");
    }

    fn leads(&self) -> bool {
        self.raft.status().role == RoleKind::Leader
    }

    /// What a server has said that coalescing does not touch, in order.
    fn verdicts(&self) -> Vec<(NodeId, Rpc)> {
        let said = self.said.iter().flat_map(|(to, rpcs)| rpcs.iter().map(|rpc| (*to, rpc.clone())));
        let kept = said.filter(|(_, rpc)| match rpc {
            Rpc::PreVote { .. }
            | Rpc::PreVoteReply { .. }
            | Rpc::TermOver { .. }
            | Rpc::AppendRejected(_)
            | Rpc::Resigned { .. } => true,
            Rpc::VoteReply { verdict, .. } => *verdict != Granted,
            // Held ones depend on when the disk is done; the others on how many steps there were.
            Rpc::Vote { .. }
            | Rpc::Append(_)
            | Rpc::AppendReply { .. }
            | Rpc::Heartbeat { .. }
            | Rpc::HeartbeatReply { .. }
            | Rpc::InstallSnapshot(_)
            | Rpc::SnapshotStatus { .. }
            | Rpc::Regressed { .. }
            | Rpc::ReadIndex { .. }
            | Rpc::ReadIndexReply { .. }
            | Rpc::CommitNotice { .. }
            // It leaves when a batch settles, after what was answered at once.
            | Rpc::TimeoutNow { .. } => false,
        });
        kept.collect()
    }

    /// Whom it has told to take over, and in which term.
    fn orders(&self) -> Vec<(NodeId, Rpc)> {
        let said = self.said.iter().flat_map(|(to, rpcs)| rpcs.iter().map(|rpc| (*to, rpc.clone())));
        said.filter(|(_, rpc)| matches!(rpc, Rpc::TimeoutNow { .. })).collect()
    }

    /// Where the server has got to.
    ///
    /// Whether a read is confirmed depends on the configuration at the end of a batch: once that has
    /// changed, reads are left out.
    fn picture(&self, reads: bool) -> impl PartialEq + std::fmt::Debug {
        let status = self.raft.status();
        // Whoever is removed goes when it is told, which may be a step earlier or later.
        let members = status.peers.iter().filter(|peer| peer.is_member);
        let peers: Vec<_> = members.map(|peer| (peer.node, peer.matched)).collect();
        // A read of a batch may see more than it must: what the same batch has committed.
        let answers = self.answers.iter().filter(|(request, _)| reads || !self.asked.contains(*request));
        let answers = answers.map(|(request, outcome)| match outcome {
            Outcome::ReadReady { .. } => (*request, read_ready(0)),
            outcome => (*request, outcome.clone()),
        });
        let answers: BTreeMap<_, _> = answers.collect();
        (
            (status.role, status.hard_state, status.leader, status.log, peers),
            (status.configuration, status.transfer),
            (status.load.proposals, if reads { status.load.reads } else { 0 }),
            (self.written.clone(), self.applied.clone(), self.tokens.clone(), answers),
        )
    }
}

fn rpc(said: &Said, here: Here) -> Rpc {
    let Here { term, last, last_term, round, campaign, role, .. } = here;
    // So much longer that what the batch itself adds to the log does not matter.
    let own = |longer: bool| if longer { at(last + 10, last_term) } else { at(last.saturating_sub(1), last_term) };
    let verdict = |yes: bool| if yes { Granted } else { Refused };
    match said {
        Said::Yes => match role {
            RoleKind::Follower => heartbeat(term, round, last),
            RoleKind::PreCandidate => pre_vote_reply(term + 1, campaign, Granted),
            RoleKind::Candidate => vote_reply(term, Granted),
            RoleKind::Leader => append_reply(term, round, last),
        },
        Said::PreVote { ahead, longer } => pre_vote(term + ahead, 1, own(*longer)),
        Said::PreVoteReply { ahead, yes: true } => pre_vote_reply(term + ahead, campaign, Granted),
        Said::PreVoteReply { ahead, yes: false } => pre_vote_reply(term + ahead, campaign, LeaderAlive),
        Said::Vote { ahead, longer } => vote(term + ahead, own(*longer)),
        Said::VoteReply { ahead, yes } => vote_reply(term + ahead, verdict(*yes)),
        Said::Append { ahead, back, terms, commit } => {
            let term = term + ahead;
            let prev = last.saturating_sub(*back);
            let prev_term = if prev == 0 { 0 } else { last_term.min(term) };
            let terms: Vec<u64> = terms.iter().map(|above| (prev_term + above).min(term)).collect();
            append(term, round, at(prev, prev_term), *commit, entries_of(prev + 1, &sorted(terms)))
        }
        Said::Acknowledged { back } => append_reply(term, round, last.saturating_sub(*back)),
        Said::Rejected { back } => {
            let prev = last.saturating_sub(*back);
            // Of the first round: a newer one could be proof of a regression (R1), which hangs on how
            // rounds and acknowledgements are batched.
            rejected(term, round.min(1), prev, at(prev.saturating_sub(1), last_term), 0)
        }
        Said::Heartbeat { ahead, commit } => heartbeat(term + ahead, round, *commit),
        Said::Answered { back } => heartbeat_reply(term, round, last.saturating_sub(*back), last.saturating_sub(*back)),
        Said::Notice { commit } => commit_notice(term, *commit),
        Said::Over { ahead } => term_over(term + ahead),
    }
}

fn sorted(mut terms: Vec<u64>) -> Vec<u64> {
    terms.sort_unstable();
    terms
}

fn said() -> impl Strategy<Value = Said> {
    let ahead = 0..3_u64;
    let (back, commit) = (0..4_u64, 0..8_u64);
    prop_oneof![
        12 => Just(Said::Yes),
        1 => (ahead.clone(), any::<bool>()).prop_map(|(ahead, longer)| Said::PreVote { ahead, longer }),
        1 => (ahead.clone(), any::<bool>()).prop_map(|(ahead, yes)| Said::PreVoteReply { ahead, yes }),
        1 => (ahead.clone(), any::<bool>()).prop_map(|(ahead, longer)| Said::Vote { ahead, longer }),
        3 => (Just(0_u64), any::<bool>()).prop_map(|(ahead, yes)| Said::VoteReply { ahead, yes }),
        3 => (Just(0_u64), back.clone(), proptest::collection::vec(0..3_u64, 0..4), commit.clone())
            .prop_map(|(ahead, back, terms, commit)| Said::Append { ahead, back, terms, commit }),
        1 => (ahead.clone(), back.clone(), proptest::collection::vec(0..3_u64, 0..4), commit.clone())
            .prop_map(|(ahead, back, terms, commit)| Said::Append { ahead, back, terms, commit }),
        3 => back.clone().prop_map(|back| Said::Acknowledged { back }),
        1 => back.clone().prop_map(|back| Said::Rejected { back }),
        2 => (ahead.clone(), commit.clone()).prop_map(|(ahead, commit)| Said::Heartbeat { ahead, commit }),
        2 => back.prop_map(|back| Said::Answered { back }),
        1 => commit.prop_map(|commit| Said::Notice { commit }),
        1 => ahead.prop_map(|ahead| Said::Over { ahead }),
    ]
}

fn wish() -> impl Strategy<Value = Change> {
    select(vec![add(4), add_voter(4), promote(4), remove(4), demote(3), promote(3), remove(3), remove(2), remove(1)])
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (2..=3_u64, said()).prop_map(|(from, said)| Step::Received(from, said)),
        4 => Just(Step::Propose),
        2 => Just(Step::Read),
        4 => Just(Step::Synced),
        2 => Just(Step::Applied),
        1 => (2..=3_u64).prop_map(Step::Unreachable),
        2 => proptest::collection::vec(wish(), 1..3).prop_map(Step::Change),
        1 => proptest::option::of(1..=4_u64).prop_map(Step::Transfer),
        1 => select(vec![Step::StorageFull, Step::StorageReady, Step::StorageReady]),
    ]
}

/// Whether the server is woken before a batch, and the batch.
fn batches() -> impl Strategy<Value = Vec<(bool, Vec<Step>)>> {
    proptest::collection::vec((proptest::bool::weighted(0.3), proptest::collection::vec(steps(), 1..8)), 1..12)
}

/// Servers that begin in different places, and whether they lead when the first batch comes.
fn starts() -> impl Strategy<Value = (Start, bool)> {
    let start = prop_oneof![
        Just(Start::first_of_three()),
        Just(Start::first_of_three().log(&[1, 1, 2])),
        Just(Start::new(1, &[1])),
        Just(Start::first_of_three().log(&[1]).change(1, with_learners(&[1, 2, 3], &[4]))),
        Just(Start { warm: false, ..Start::first_of_three().log(&[1, 2, 2]).term(3) }),
    ];
    (start, any::<bool>())
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn rule_b2_one_by_one_and_at_once_end_alike((start, leads) in starts(), batches in batches()) {
        let (mut single, mut at_once) = (Executed::new(&start), Executed::new(&start));
        if leads {
            single.lead();
            at_once.lead();
        }
        let configured_at = single.raft.status().configuration.index;
        for (wake, batch) in batches {
            prop_assert_eq!(single.raft.deadline(), at_once.raft.deadline());
            if wake && let Some(deadline) = single.raft.deadline() {
                for executed in [&mut single, &mut at_once] {
                    executed.now = executed.now.max(deadline);
                    executed.take(vec![Event::Tick]);
                }
            }
            for executed in [&mut single, &mut at_once] {
                executed.now = executed.now.after(Duration::from_nanos(1));
                // What the clock says is said once a batch (T2): here, before it.
                executed.take(vec![Event::Tick]);
            }
            let (mut resigned, mut left, mut added) = (false, false, false);
            let here = single.here();
            for step in &batch {
                let event = single.event(step, here);
                let (led, before, term) = (single.leads(), single.raft.status().configuration.index, single.here().term);
                single.take(vec![event]);
                resigned |= led && !single.leads();
                left |= led && !single.leads() && term == single.here().term;
                let is_asked = matches!(step, Step::Change(_));
                added |= led && !is_asked && before != single.raft.status().configuration.index;
            }
            let here = at_once.here();
            let events = batch.iter().map(|step| at_once.event(step, here)).collect();
            at_once.take(events);
            if left {
                // A leader that is no member any more leaves at the end of a batch, and is one until then
                // for whatever the batch holds.
                prop_assert!(!single.leads() && !at_once.leads());
                return Ok(());
            }
            if resigned {
                // The one difference: what a leader could have committed, answered or put into its
                // log before the message that deposes it, had the batch ended earlier. Clients are
                // told "unknown" or "not leader" instead; role, term and vote are the same.
                let of = |executed: &Executed| {
                    let status = executed.raft.status();
                    (status.role, status.hard_state, status.leader, status.load.proposals, status.load.reads)
                };
                prop_assert_eq!(of(&single), of(&at_once));
                return Ok(());
            }
            let is_crossed = batch.iter().any(|step| !matches!(step, Step::Received(..) | Step::Synced | Step::Applied));
            if added && is_crossed {
                // The entries with which a leader goes on with a change come at the end of a batch: after
                // its proposals, and not at all if a transfer or a full disk came before that.
                let of = |executed: &Executed| {
                    let status = executed.raft.status();
                    (status.hard_state, status.log.last.term)
                };
                prop_assert_eq!(of(&single), of(&at_once));
                return Ok(());
            }
            // Whoever took things one by one has written and asked more often, but for the same.
            single.finish();
            at_once.finish();
            let reads = single.raft.status().configuration.index == configured_at;
            prop_assert_eq!(single.picture(reads), at_once.picture(reads));
            prop_assert_eq!(single.verdicts(), at_once.verdicts());
            prop_assert_eq!(single.orders(), at_once.orders());
        }
    }
}

#[test]
fn the_model_reaches_every_role() {
    // The property above is worth little if the servers in it never get anywhere.
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut seen, mut committed) = (BTreeMap::new(), 0);
    for _ in 0..256 {
        let (start, leads) = starts().new_tree(&mut runner).expect("nothing is filtered").current();
        let batches = batches().new_tree(&mut runner).expect("nothing is filtered").current();
        let mut executed = Executed::new(&start);
        if leads {
            executed.lead();
        }
        for (wake, batch) in batches {
            if wake && let Some(deadline) = executed.raft.deadline() {
                executed.now = executed.now.max(deadline);
                executed.take(vec![Event::Tick]);
            }
            let here = executed.here();
            let events = batch.iter().map(|step| executed.event(step, here)).collect();
            executed.take(events);
            executed.finish();
            let status = executed.raft.status();
            *seen.entry(status.role).or_insert(0) += 1;
            if status.role == RoleKind::Leader && start.voters.len() == 3 && status.log.committed_in_term {
                committed += 1;
            }
        }
    }
    assert!(seen.len() == 4 && committed > 30, "{seen:?}, {committed} times a leader with a committed entry");
}
