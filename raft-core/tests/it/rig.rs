//! One server by hand: short words for long values, and [`Lone`], a server whose time, disk and
//! peers are the test.

use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    Append, Boot, CampaignId, ClusterId, Config, Configuration, Durable, Effect, Entries, Entry, Event, HardState,
    Identity, Index, Leases, Limits, Member, Membership, Message, NodeId, Outcome, Payload, Peer, Position, Priority,
    ProgressMode, Raft, ReadMode, Rejection, RequestId, RoleKind, Round, Rpc, Status, StoreId, Term, TermRun, Time,
    Timing, Verdict, WriteSeq,
};

// ---- words ---------------------------------------------------------------------------------

pub(crate) fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("tests name nodes from 1 on")
}

pub(crate) fn store(id: u64) -> StoreId {
    StoreId::new(100 + u128::from(id))
}

/// Node `id` in its first life.
pub(crate) fn peer(id: u64) -> Peer {
    Peer { node: node(id), store: store(id), boot: Boot::new(1) }
}

pub(crate) fn index(value: u64) -> Index {
    Index::new(value)
}

pub(crate) fn term(value: u64) -> Term {
    Term::new(value)
}

pub(crate) fn seq(value: u64) -> WriteSeq {
    WriteSeq::new(value)
}

pub(crate) fn round(value: u64) -> Round {
    Round::new(value)
}

pub(crate) fn request(value: u64) -> RequestId {
    RequestId::new(value)
}

/// `at(8, 3)` is `8@3`.
pub(crate) fn at(index: u64, term: u64) -> Position {
    Position::new(Index::new(index), Term::new(term))
}

/// The command at a place, which says where that is.
pub(crate) fn entry(index: u64, term: u64) -> Entry {
    Entry { index: Index::new(index), term: Term::new(term), payload: Payload::Command(command(&at(index, term))) }
}

pub(crate) fn blank(index: u64, term: u64) -> Entry {
    Entry { index: Index::new(index), term: Term::new(term), payload: Payload::Blank }
}

pub(crate) fn command(text: &dyn std::fmt::Display) -> Bytes {
    Bytes::from(text.to_string())
}

pub(crate) fn entries(list: impl Into<Vec<Entry>>) -> Entries {
    Entries::new(list.into()).expect("tests write entries in order")
}

/// Commands from `first` on, one for each term given.
pub(crate) fn entries_of(first: u64, terms: &[u64]) -> Entries {
    let list = terms.iter().zip(first..).map(|(term, index)| entry(index, *term)).collect();
    Entries::new(list).expect("tests write entries in order")
}

pub(crate) fn membership(ids: &[u64]) -> Membership {
    let members = ids.iter().map(|id| Member { node: node(*id), store: store(*id) });
    Membership::new(members).expect("tests name each node once")
}

// ---- effects -------------------------------------------------------------------------------

pub(crate) fn send(to: u64, rpc: Rpc) -> Effect {
    Effect::Send { to: node(to), rpc }
}

/// A write of entries only.
pub(crate) fn persist(number: u64, entries: Entries) -> Effect {
    Effect::Persist { seq: seq(number), hard_state: None, entries }
}

/// A write of term and vote, and perhaps entries.
pub(crate) fn persist_vote(number: u64, term: u64, vote: impl Into<Option<u64>>, entries: Entries) -> Effect {
    Effect::Persist { seq: seq(number), hard_state: Some(hard_state(term, vote).into()), entries }
}

pub(crate) fn hard_state(term: u64, vote: impl Into<Option<u64>>) -> HardState {
    HardState { term: Term::new(term), voted_for: vote.into().map(node), floor: None }
}

pub(crate) fn apply(entries: Entries, tokens: &[(u64, u64)]) -> Effect {
    Effect::Apply { entries, tokens: tokens.iter().map(|(at, token)| (index(*at), request(*token))).collect() }
}

pub(crate) fn reply(number: u64, outcome: Outcome) -> Effect {
    Effect::Reply { request: request(number), outcome }
}

pub(crate) fn not_leader(leader: impl Into<Option<u64>>) -> Outcome {
    Outcome::NotLeader { leader: leader.into().map(node) }
}

pub(crate) fn unknown(leader: impl Into<Option<u64>>) -> Outcome {
    Outcome::Unknown { leader: leader.into().map(node) }
}

pub(crate) fn read_ready(at: u64) -> Outcome {
    Outcome::ReadReady { index: index(at) }
}

pub(crate) fn configuration(at: u64, membership: &Membership) -> Configuration {
    Configuration { index: index(at), membership: membership.clone().into() }
}

/// The configuration set at `at` is in force.
pub(crate) fn configured(at: u64, membership: Membership) -> Effect {
    Effect::Configured { configuration: Configuration { index: index(at), membership: membership.into() } }
}

// ---- messages ------------------------------------------------------------------------------

pub(crate) fn campaign(number: u64) -> CampaignId {
    CampaignId { boot: Boot::new(1), number }
}

pub(crate) fn pre_vote(in_term: u64, number: u64, last: Position) -> Rpc {
    Rpc::PreVote { term: term(in_term), campaign: campaign(number), last }
}

pub(crate) fn pre_vote_reply(in_term: u64, number: u64, verdict: Verdict) -> Rpc {
    Rpc::PreVoteReply { term: term(in_term), campaign: campaign(number), verdict }
}

pub(crate) fn vote(in_term: u64, last: Position) -> Rpc {
    Rpc::Vote { term: term(in_term), last, ordered_in: None }
}

pub(crate) fn vote_reply(in_term: u64, verdict: Verdict) -> Rpc {
    Rpc::VoteReply { term: term(in_term), verdict }
}

pub(crate) fn append(in_term: u64, number: u64, prev: Position, commit: u64, entries: Entries) -> Rpc {
    Rpc::Append(Append { term: term(in_term), round: round(number), prev, commit: index(commit), entries }.into())
}

pub(crate) fn append_reply(in_term: u64, number: u64, matched: u64) -> Rpc {
    Rpc::AppendReply { term: term(in_term), round: round(number), matched: index(matched) }
}

pub(crate) fn rejected(in_term: u64, number: u64, prev: u64, hint: Position, commit: u64) -> Rpc {
    let (term, round, prev, commit) = (term(in_term), round(number), index(prev), index(commit));
    Rpc::AppendRejected(Rejection { term, round, prev, hint, commit }.into())
}

pub(crate) fn heartbeat(in_term: u64, number: u64, commit: u64) -> Rpc {
    Rpc::Heartbeat { term: term(in_term), round: round(number), commit: index(commit), promise: Duration::ZERO }
}

pub(crate) fn heartbeat_reply(in_term: u64, number: u64, matched: u64, verified: u64) -> Rpc {
    let (term, round) = (term(in_term), round(number));
    Rpc::HeartbeatReply { term, round, matched: index(matched), verified: index(verified), granted: Duration::ZERO }
}

pub(crate) fn commit_notice(in_term: u64, commit: u64) -> Rpc {
    Rpc::CommitNotice { term: term(in_term), commit: index(commit) }
}

pub(crate) fn term_over(in_term: u64) -> Rpc {
    Rpc::TermOver { term: term(in_term) }
}

// ---- one server ----------------------------------------------------------------------------

/// What a server starts from.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) me: u64,
    pub(crate) voters: Vec<u64>,
    pub(crate) term: u64,
    pub(crate) vote: Option<u64>,
    /// The term of each entry, from index 1 on.
    pub(crate) log: Vec<u64>,
    pub(crate) boot: u64,
    pub(crate) applied: u64,
    pub(crate) limits: Limits,
    pub(crate) timing: Timing,
    /// Whether memory holds the log at the start.
    pub(crate) warm: bool,
    /// The configuration before the log, if it is more than `voters`.
    pub(crate) members: Option<Membership>,
    /// The entries of the log that set a configuration.
    pub(crate) changes: Vec<(u64, Membership)>,
    pub(crate) priority: Priority,
    /// Lease reads, for clocks with this drift.
    pub(crate) leases: Option<u32>,
}

impl Start {
    /// Server `me` of a new cluster of `voters`.
    pub(crate) fn new(me: u64, voters: &[u64]) -> Self {
        let (term, vote, log, boot, applied) = (0, None, Vec::new(), 1, 0);
        let (voters, limits, warm, members, changes) = (voters.to_vec(), Limits::DEFAULT, true, None, Vec::new());
        let (timing, priority, leases) = (Timing::LAN, Priority::High, None);
        Self { me, voters, term, vote, log, boot, applied, limits, timing, warm, members, changes, priority, leases }
    }

    /// Server 1 of three.
    pub(crate) fn first_of_three() -> Self {
        Self::new(1, &[1, 2, 3])
    }

    pub(crate) fn term(self, term: u64) -> Self {
        Self { term, ..self }
    }

    pub(crate) fn vote(self, vote: u64) -> Self {
        Self { vote: Some(vote), ..self }
    }

    /// With a log of these terms, and at least the last of them.
    pub(crate) fn log(self, log: &[u64]) -> Self {
        let term = self.term.max(log.last().copied().unwrap_or(0));
        Self { log: log.to_vec(), term, ..self }
    }

    pub(crate) fn timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// In a cluster with this first configuration. `voters` stays what it is: those whom
    /// [`Start::candidate`] and its kin ask.
    pub(crate) fn members(self, members: Membership) -> Self {
        Self { members: Some(members), ..self }
    }

    /// The entry at `at`, in the log already, sets a configuration.
    pub(crate) fn change(mut self, at: u64, membership: Membership) -> Self {
        self.changes.push((at, membership));
        self
    }

    pub(crate) fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// With lease reads, for clocks that drift by up to a thousand parts in a million.
    pub(crate) fn leases(self) -> Self {
        Self { leases: Some(1_000), ..self }
    }

    pub(crate) fn limits(self, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = self.limits;
        change(&mut limits);
        Self { limits, ..self }
    }

    pub(crate) fn durable(&self) -> Durable {
        let tail = if self.warm { entries(self.entries()) } else { Entries::EMPTY };
        Durable {
            identity: Identity {
                cluster: ClusterId::new(7),
                node: node(self.me),
                store: store(self.me),
                boot: Boot::new(self.boot),
            },
            hard_state: hard_state(self.term, self.vote),
            base: Position::ZERO,
            snapshot: None,
            bytes: entries_of(1, &self.log).cost(),
            configuration: configuration(0, &self.first_membership()),
            configurations: self.changes.iter().map(|(at, membership)| configuration(*at, membership)).collect(),
            applied: index(self.applied),
            last: index(self.log.len() as u64),
            runs: runs_of(&self.log),
            tail,
        }
    }

    fn first_membership(&self) -> Membership {
        self.members.clone().unwrap_or_else(|| membership(&self.voters))
    }

    /// The log, entry by entry.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut list: Vec<Entry> = entries_of(1, &self.log).iter().cloned().collect();
        for (at, membership) in &self.changes {
            let changed = list.iter_mut().find(|entry| entry.index == index(*at)).expect("changes are in the log");
            changed.payload = Payload::Configuration(membership.clone().into());
        }
        list
    }

    pub(crate) fn config(&self) -> Config {
        let config = Config::new(self.timing, self.limits, 42).expect("the limits of tests are not zero");
        let config = config.with_priority(self.priority);
        match self.leases {
            Some(drift) => config.with_leases(Leases::new(drift).expect("the clocks of tests are clocks")),
            None => config,
        }
    }

    pub(crate) fn raft(&self) -> Raft {
        Raft::new(self.config(), self.durable()).expect("tests start from what a correct server leaves behind")
    }

    /// The same, but storage finds something else.
    pub(crate) fn raft_with(&self, durable: Durable) -> Raft {
        Raft::new(self.config(), durable).expect("tests start from what a correct server leaves behind")
    }

    /// A server that has taken its first step.
    pub(crate) fn server(self) -> Lone {
        let mut server = Lone { raft: self.raft(), now: Time::from_nanos(1_000_000_000) };
        let configured = match self.changes.last() {
            Some((at, latest)) => configured(*at, latest.clone()),
            None => configured(0, self.first_membership()),
        };
        // E5: a sole voter has something else to do at once; nobody else has.
        assert_eq!(server.step(Event::Tick).first(), Some(&configured));
        server
    }

    /// A follower of `leader` in its term, which has heard of it just now and verified nothing.
    pub(crate) fn follower_of(self, leader: u64) -> Lone {
        let in_term = self.term;
        let mut server = self.server();
        server.receive(leader, heartbeat(in_term, 1, 0));
        assert_eq!(server.status().leader, Some(node(leader)));
        server
    }

    /// A candidate of the next term, elected by nobody yet; its vote is durable with write 1.
    pub(crate) fn candidate(self) -> Lone {
        let (in_term, voters, me) = (self.term + 1, self.voters.clone(), self.me);
        let mut server = self.server();
        server.tick();
        let others = voters.iter().filter(|voter| **voter != me);
        for voter in others.take(voters.len() / 2) {
            server.receive(*voter, pre_vote_reply(in_term, 1, Verdict::Granted));
        }
        server.persisted(1);
        assert_eq!(server.status().role, RoleKind::Candidate);
        server
    }

    /// A leader of the next term, elected just now: write 2, with the blank entry that opens the
    /// term, is under way, and so is round 1.
    pub(crate) fn leader(self) -> Lone {
        let (in_term, voters, me) = (self.term + 1, self.voters.clone(), self.me);
        let mut server = self.candidate();
        for voter in voters.iter().filter(|voter| **voter != me).take(voters.len() / 2) {
            server.receive(*voter, vote_reply(in_term, Verdict::Granted));
        }
        assert_eq!(server.status().role, RoleKind::Leader);
        server
    }

    /// A sole voter that leads the next term, and has applied its blank entry; learners know nothing yet.
    pub(crate) fn sole_leader(self) -> Lone {
        let opened_at = self.log.len() as u64 + 1;
        let mut server = self.server();
        server.persisted(1);
        server.persisted(2);
        server.step(Event::Applied { index: index(opened_at) });
        assert!(server.status().log.committed_in_term);
        server
    }

    /// A leader of the next term whose blank entry everybody holds, and which has applied it.
    pub(crate) fn settled_leader(self) -> Lone {
        let (in_term, voters, me) = (self.term + 1, self.voters.clone(), self.me);
        let opened_at = self.log.len() as u64 + 1;
        let mut server = self.leader();
        server.persisted(2);
        for voter in voters.into_iter().filter(|voter| *voter != me) {
            server.receive(voter, append_reply(in_term, 1, opened_at));
        }
        server.step(Event::Applied { index: index(opened_at) });
        assert!(server.status().log.committed_in_term);
        server
    }
}

/// The runs of a log of these terms.
pub(crate) fn runs_of(terms: &[u64]) -> Vec<TermRun> {
    let mut runs: Vec<TermRun> = Vec::new();
    for (in_term, first) in terms.iter().zip(1..) {
        if runs.last().is_none_or(|run| run.term != term(*in_term)) {
            runs.push(TermRun { first: index(first), term: term(*in_term) });
        }
    }
    runs
}

/// One server; the test is its clock, its disk and its peers.
pub(crate) struct Lone {
    pub(crate) raft: Raft,
    pub(crate) now: Time,
}

impl Lone {
    /// Takes several events at once; observations included.
    pub(crate) fn observe(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
        let at = self.now;
        let effects = self.raft.step_batch(events.into_iter().map(|event| Message { at, event }));
        // T2: whatever happened, the next moment to act lies ahead.
        assert!(self.raft.deadline().is_none_or(|deadline| deadline > at), "due again at once, at {at}");
        effects
    }

    /// Takes several events at once.
    pub(crate) fn batch(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
        let mut effects = self.observe(events);
        effects.retain(|effect| !matches!(effect, Effect::Observe(_)));
        effects
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        self.batch([event])
    }

    pub(crate) fn receive(&mut self, from: u64, rpc: Rpc) -> Vec<Effect> {
        self.step(received(from, rpc))
    }

    pub(crate) fn persisted(&mut self, number: u64) -> Vec<Effect> {
        self.step(Event::Persisted { seq: seq(number) })
    }

    pub(crate) fn propose(&mut self, number: u64) -> Vec<Effect> {
        self.step(propose(number))
    }

    pub(crate) fn read(&mut self, number: u64) -> Vec<Effect> {
        self.step(read(number))
    }

    /// Lets time pass without telling the server.
    pub(crate) fn wait(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
    }

    /// Lets time pass until the server wants to be woken, and wakes it.
    pub(crate) fn tick(&mut self) -> Vec<Effect> {
        self.now = self.now.max(self.raft.deadline().expect("the server waits for a moment"));
        self.step(Event::Tick)
    }

    /// How long until the server wants to be woken.
    pub(crate) fn patience(&self) -> Duration {
        self.raft.deadline().expect("the server waits for a moment").since(self.now)
    }

    pub(crate) fn status(&self) -> Status {
        self.raft.status()
    }

    pub(crate) fn role(&self) -> (u64, RoleKind) {
        let status = self.status();
        (status.hard_state.term.as_u64(), status.role)
    }

    /// What this leader believes of a peer: match, next, whether it probes, appends under way.
    pub(crate) fn progress(&self, id: u64) -> (u64, u64, bool, usize) {
        let peers = self.status().peers;
        let peer = peers.iter().find(|peer| peer.node == node(id)).expect("the leader has a progress for each peer");
        (peer.matched.as_u64(), peer.next.as_u64(), peer.mode == ProgressMode::Probe, peer.inflight)
    }
}

pub(crate) fn received(from: u64, rpc: Rpc) -> Event {
    Event::Received { from: peer(from), rpc }
}

/// Request `number`, for a command that says so.
pub(crate) fn propose(number: u64) -> Event {
    Event::Propose { request: request(number), command: proposed(number) }
}

/// A read that asks a majority.
pub(crate) fn read(number: u64) -> Event {
    Event::Read { request: request(number), mode: ReadMode::Quorum }
}

/// The command of request `number`.
pub(crate) fn proposed(number: u64) -> Bytes {
    command(&format_args!("request {number}"))
}

/// The entry that request `number` became.
pub(crate) fn proposal(index: u64, term: u64, number: u64) -> Entry {
    Entry { payload: Payload::Command(proposed(number)), ..blank(index, term) }
}

/// What panics says, without the noise of a backtrace.
pub(crate) fn panic_of(act: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).expect_err("this must panic");
    payload.downcast_ref::<String>().cloned().expect("panics of the core are formatted")
}

/// So many times as many cases as usual; `PROPTEST_CASES` says how many that is. Failures are not
/// written next to the sources: a test run leaves the tree as it was.
pub(crate) fn cases(times: u32) -> proptest::test_runner::Config {
    let usual = proptest::test_runner::Config::default();
    proptest::test_runner::Config { cases: usual.cases.saturating_mul(times), failure_persistence: None, ..usual }
}
