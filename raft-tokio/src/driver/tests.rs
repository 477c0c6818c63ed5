//! One driver, with its clock and everything it hears in the hands of the test. Its disk and its
//! port are real, but nobody answers at the other end.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future as _;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use raft_core::{
    Append, Boot, ClusterId, Config, Entries, Entry, HardState, Index, Limits, Member, Membership, NodeId, Payload,
    Peer, Position, RoleKind, Round, Rpc, StoreId, Term, Timing, WriteSeq,
};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;
use crate::certs::{Authority, Credentials};
use crate::node::deliver_to;
use crate::storage::{self, Birth, Expected, Opened, Options, Write, Writer};
use crate::transport::{self, Endpoint, Incoming};

/// A machine that does something besides.
#[derive(Default)]
struct Machine {
    applied: u64,
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl StateMachine for Machine {
    fn apply(&mut self, _position: Position, _command: &Bytes) -> Bytes {
        self.applied += 1;
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        Bytes::new()
    }

    fn snapshot(&self) -> Bytes {
        Bytes::copy_from_slice(&self.applied.to_le_bytes())
    }

    fn restore(&mut self, snapshot: &Bytes) -> Result<(), RestoreError> {
        let bytes = snapshot.as_ref().try_into().map_err(|_| RestoreError { reason: "not eight bytes".to_owned() })?;
        self.applied = u64::from_le_bytes(bytes);
        Ok(())
    }
}

const TERM: Term = Term::new(1);
const CLUSTER: ClusterId = ClusterId::new(7);

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("because no test asks for node 0")
}

fn store(id: u64) -> StoreId {
    StoreId::new(id.into())
}

/// n1 of three, with one entry of term 1 in its log.
struct Rig {
    driver: Driver<Machine>,
    entrances: Entrances<Machine>,
    _folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::reporting(|_| {})
    }

    /// With a log writer that tells `report` what it has done.
    fn reporting(report: impl FnMut(Completion) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().expect("because the system has a temporary directory");
        let dir = folder.path().join("n1");
        let Opened { durable, snapshot: _, log } = with_one_entry(&dir);
        let (me, identity) = (node(1), durable.identity);
        let (entrances, inbox) = Inbox::new();
        let endpoint = Endpoint::bind(options(identity.peer()), deliver_to(entrances.events.clone()), None)
            .expect("because a port is free");
        let writer = Writer::spawn(log, report).expect("because the system has threads");
        let config = Config::new(Timing::LAN, Limits::DEFAULT, 1).expect("because both are presets");
        let raft = Raft::new(config, durable).expect("because a correct node left it behind");
        let driver = Driver {
            raft,
            machine: Machine::default(),
            arrived: VecDeque::new(),
            pending: Pending::new(),
            inbox,
            executors: Executors { me, addresses: BTreeMap::new(), members: BTreeSet::new(), endpoint, writer },
            origin: Instant::now(),
            punctuality: Punctuality::new(me, Timing::LAN),
        };
        Self { driver, entrances, _folder: folder }
    }

    /// One turn of the driver's loop, without the waiting.
    async fn turn(&mut self) {
        let mut turn = Turn::default();
        turn.events.push(Event::Tick);
        self.driver.drain(&mut Vec::new(), &mut turn);
        self.driver.take(&mut Vec::new(), &mut turn).await;
    }

    /// n2 leads, and this node has heard of it.
    async fn following() -> Self {
        let mut rig = Self::new();
        rig.hear(heartbeat(1));
        rig.turn().await;
        assert_eq!(rig.role(), (RoleKind::Follower, Some(node(2))));
        rig
    }

    /// As if n2 had said it.
    fn hear(&self, rpc: Rpc) {
        hear(&self.entrances.events, rpc);
    }

    fn role(&self) -> (RoleKind, Option<NodeId>) {
        let status = self.driver.raft.status();
        (status.role, status.leader)
    }

    /// How long this node would go on waiting for its leader.
    fn patience(&self) -> Duration {
        self.driver.raft.deadline().expect("because a follower waits").since(self.driver.now())
    }
}

fn with_one_entry(dir: &std::path::Path) -> Opened {
    let members = (1..=3).map(|id| Member { node: node(id), store: store(id) });
    let membership = Membership::new(members).expect("because they differ");
    let birth = Birth { cluster: CLUSTER, node: node(1), store: store(1), membership };
    storage::format(dir, &birth).expect("because the folder is new");
    let expected = Expected { cluster: CLUSTER, node: node(1) };
    let open = || storage::open(dir, &expected, &Options::DEFAULT).expect("because it was formatted");
    let entry = Entry { term: TERM, index: Index::new(1), payload: Payload::Command(Bytes::from_static(b"one")) };
    let entries = Entries::new(vec![entry]).expect("because one entry is in order");
    let hard_state = Some(HardState { term: TERM, voted_for: Some(node(2)), floor: None });
    open().log.write(&[Write { seq: WriteSeq::new(1), hard_state, entries }]).expect("because the disk works");
    open()
}

fn options(me: Peer) -> transport::Options {
    let authority = Authority::new(CLUSTER).expect("because the system has randomness");
    let issued = authority.issue_node(me.node).expect("because the system has randomness");
    let credentials = Credentials::from_pem(authority.cert_pem(), &issued.cert_pem, &issued.key_pem)
        .expect("because they were issued together");
    let listen = "127.0.0.1:0".parse().expect("because it is an address");
    transport::Options {
        listen,
        advertise: None,
        me,
        cluster: CLUSTER,
        credentials,
        limits: transport::Limits::DEFAULT,
    }
}

fn hear(events: &mpsc::Sender<Input<Machine>>, rpc: Rpc) {
    let from = Peer { node: node(2), store: store(2), boot: Boot::new(1) };
    deliver_to(events.clone())(Incoming::Received { from, rpc });
}

fn heartbeat(round: u64) -> Rpc {
    Rpc::Heartbeat { term: TERM, round: Round::new(round), commit: Index::ZERO, promise: Duration::ZERO }
}

/// The leader finds that the log agrees with its own, and says that all of it is committed.
fn commit_of_one(round: u64) -> Rpc {
    let (prev, commit) = (Position::new(Index::new(1), TERM), Index::new(1));
    Rpc::Append(Arc::new(Append { term: TERM, round: Round::new(round), prev, commit, entries: Entries::EMPTY }))
}

/// Moves the clock, here and now.
fn pass(time: Duration) {
    let mut passing = std::pin::pin!(tokio::time::advance(time));
    // What it does after that is let others run.
    let _ = passing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

/// Less than makes the driver wait for anybody.
const MOMENT: Duration = Duration::from_millis(2);

#[tokio::test(start_paused = true)]
async fn a_node_that_hears_nobody_asks_for_votes_when_it_should() {
    let mut rig = Rig::following().await;
    pass(rig.patience() + MOMENT);
    rig.turn().await;
    assert_eq!(rig.role(), (RoleKind::PreCandidate, None));
}

#[tokio::test(start_paused = true)]
async fn regress_a_heartbeat_that_came_during_a_long_apply_is_heard_before_the_clock_is_read() {
    let mut rig = Rig::following().await;
    // Applying takes a moment longer than the leader may be silent, but the leader is not silent.
    let (events, patience) = (rig.entrances.events.clone(), rig.patience());
    rig.driver.machine.meanwhile = Some(Box::new(move || {
        pass(patience + MOMENT);
        hear(&events, heartbeat(3));
    }));
    rig.hear(commit_of_one(2));
    rig.turn().await;
    assert_eq!(rig.driver.machine.applied, 1);
    assert_eq!(rig.role(), (RoleKind::Follower, Some(node(2))));
}

#[tokio::test(start_paused = true)]
async fn regress_a_node_that_overslept_hears_what_is_on_its_way_inside_before_it_campaigns() {
    let mut rig = Rig::following().await;
    // As many tasks as there are between the socket and the inbox: endpoint, connection, stream.
    let hops: Vec<Arc<Notify>> = (0..4).map(|_| Arc::new(Notify::new())).collect();
    for pair in hops.windows(2) {
        let (from, to) = (pair[0].clone(), pair[1].clone());
        tokio::spawn(async move {
            from.notified().await;
            to.notify_one();
        });
    }
    let (last, events) = (hops[3].clone(), rig.entrances.events.clone());
    tokio::spawn(async move {
        last.notified().await;
        hear(&events, heartbeat(2));
    });
    pass(rig.patience() + UNPUNCTUAL);
    hops[0].notify_one();
    rig.turn().await;
    assert_eq!(rig.role(), (RoleKind::Follower, Some(node(2))));
}

#[tokio::test(start_paused = true)]
async fn regress_no_crowd_of_clients_keeps_a_heartbeat_from_being_heard() {
    let mut rig = Rig::following().await;
    let mut crowd = 0_usize;
    while rig.entrances.requests.try_send(Input::ReadStale(Box::new(|_| {}))).is_ok() {
        crowd += 1;
    }
    assert_eq!(crowd, QUEUE_MAX);
    pass(rig.patience() + MOMENT);
    rig.hear(heartbeat(2));
    rig.turn().await;
    assert_eq!(rig.role(), (RoleKind::Follower, Some(node(2))));
    assert!(rig.driver.inbox.requests.len() >= QUEUE_MAX - BATCH_MAX, "one turn takes one batch of them");
}

#[tokio::test(start_paused = true)]
async fn running_late_and_being_busy_are_counted_apart() {
    let mut rig = Rig::following().await;
    let late = Timing::LAN.heartbeat_interval;
    let status = |rig: &Rig| rig.driver.punctuality.status(transport::Counters::default());
    assert_eq!(status(&rig), RuntimeStatus::default());
    pass(rig.patience() + late);
    rig.driver.punctuality.on_woken(rig.driver.overdue());
    rig.driver.punctuality.on_woken(MOMENT);
    assert_eq!(status(&rig), RuntimeStatus { late_wakeups: 1, lateness_max: late, ..RuntimeStatus::default() });
    rig.driver.machine.meanwhile = Some(Box::new(|| pass(Duration::from_millis(70))));
    rig.hear(commit_of_one(2));
    rig.turn().await;
    let RuntimeStatus { late_wakeups, long_turns, turn_max, .. } = status(&rig);
    assert_eq!((late_wakeups, long_turns, turn_max), (1, 1, Duration::from_millis(70)));
}

#[tokio::test(start_paused = true)]
async fn a_node_goes_on_without_handles() {
    let Rig { driver, entrances: Entrances { events, requests }, _folder } = Rig::following().await;
    let running = tokio::spawn(driver.run());
    drop(requests);
    // It leads nobody and follows nobody, but it asks for votes again and again.
    for _ in 0..20 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(!running.is_finished());
    drop(events);
}

#[tokio::test(start_paused = true)]
async fn regress_a_disk_that_hangs_does_not_keep_a_node_from_stopping() {
    let (release, hang) = std::sync::mpsc::channel::<()>();
    // The disk's answer never comes: not before the test has ended.
    let mut rig = Rig::reporting(move |_| {
        let _ = hang.recv();
    });
    rig.hear(Rpc::TermOver { term: Term::new(5) });
    rig.turn().await;
    let load = rig.driver.raft.status().load;
    assert!(load.written > load.persisted, "a write is under way");
    let Rig { driver, entrances, _folder } = rig;
    assert!(entrances.requests.try_send(Input::Stop).is_ok());
    let begun = Instant::now();
    let ended = tokio::time::timeout(CLOSE_PATIENCE * 2, driver.run()).await;
    drop(release);
    assert!(ended.is_ok(), "it waits for ever");
    assert!(begun.elapsed() >= CLOSE_PATIENCE, "it was not given its time");
}
