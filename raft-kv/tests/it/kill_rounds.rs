//! Rounds of `kill -9` while the cluster is written to, and what is left of what it promised: once with
//! the members that it was made with, and once with snapshots all the time and members that are replaced.
//!
//! `RAFT_KV_KILL_ROUNDS` and `RAFT_KV_KILL_SEED` set how many rounds, and which nodes at which
//! moments.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_kv::client::{Client, ClientError, Consistency, PutOptions, RangeRequest};
use raft_kv::key::{KeyRange, Revision};
use raft_kv::protocol::NodeStatus;
use raft_kv::store::KeyValue;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{Cluster, PATIENCE, SPARE_PORTS, node};

const NODES: u64 = 3;
const WRITERS: u64 = 32;

/// What the writers know.
#[derive(Default)]
struct Record {
    /// Each key with the revision in its acknowledgement.
    acknowledged: BTreeMap<String, Revision>,
    /// Keys whose writes may or may not have happened.
    unknown: Vec<String>,
}

/// Writes that go on until they are told to stop.
struct Load {
    writers: JoinSet<Record>,
    stop: Arc<AtomicBool>,
    acknowledged: watch::Receiver<u64>,
    /// The first write that may not begin yet: what a node that comes back has to replay grows
    /// with the rounds, and not with how long the others waited for it.
    limit: watch::Sender<u64>,
}

/// Writes that may begin beyond those that a round waits for.
const AHEAD: u64 = 1_000;

impl Load {
    fn begin(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (count, acknowledged) = watch::channel(0);
        let (count, next) = (Arc::new(count), Arc::new(AtomicU64::new(0)));
        let (limit, allowed) = watch::channel(AHEAD);
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            writers.spawn(write(client.clone(), next.clone(), stop.clone(), count.clone(), allowed.clone()));
        }
        Self { writers, stop, acknowledged, limit }
    }

    /// Waits until this many further writes are acknowledged.
    async fn advance(&mut self, writes: u64) {
        let target = *self.acknowledged.borrow() + writes;
        self.limit.send_modify(|limit| *limit = (*limit).max(target + AHEAD));
        let reached = tokio::time::timeout(PATIENCE, self.acknowledged.wait_for(|count| *count >= target)).await;
        let reached = reached.unwrap_or_else(|_| panic!("no {writes} writes were acknowledged within {PATIENCE:?}"));
        reached.expect("because the writers have not been stopped");
    }

    async fn end(mut self) -> Record {
        self.stop.store(true, Ordering::Relaxed);
        self.limit.send_replace(u64::MAX);
        let mut record = Record::default();
        while let Some(writer) = self.writers.join_next().await {
            let writer = writer.expect("because a write that fails ends the test");
            record.acknowledged.extend(writer.acknowledged);
            record.unknown.extend(writer.unknown);
        }
        record
    }
}

/// Writes keys that nobody else writes, one after the other.
async fn write(
    client: Client,
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    count: Arc<watch::Sender<u64>>,
    mut allowed: watch::Receiver<u64>,
) -> Record {
    let mut record = Record::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        allowed.wait_for(|limit| number < *limit).await.expect("because the load ends its writers first");
        if stop.load(Ordering::Relaxed) {
            return record;
        }
        let key = format!("key/{number:08}");
        match client.put(key.clone(), value_of(&key), PutOptions::default()).await {
            Ok(reply) => {
                record.acknowledged.insert(key, reply.revision);
                count.send_modify(|count| *count += 1);
            }
            Err(ClientError::OutcomeUnknown { .. }) => record.unknown.push(key),
            Err(error) => panic!("a majority of the nodes is up, but: {error}"),
        }
    }
}

fn value_of(key: &str) -> Bytes {
    Bytes::from(format!("the value of {key}"))
}

/// A seed's numbers (SplitMix64).
struct Draws(u64);

impl Draws {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (mixed ^ (mixed >> 31)) % (high - low)
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is \"{text}\", which is no number")),
        Err(_) => default,
    }
}

/// Between two questions to a process of its own. Nobody tells a client when a replica has caught
/// up, so it is asked, and a busy machine must have time for the answer; no test result depends on
/// this length.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Polls until all of these nodes have applied everything, and returns how they are.
async fn converged(client: &Client, members: &BTreeSet<u64>) -> Vec<NodeStatus> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut nodes = Vec::new();
        for number in members {
            nodes.extend(client.status(node(*number)).await);
        }
        let last = nodes.iter().map(|status| status.last).max();
        let done = |status: &NodeStatus| Some(status.applied) == last && status.state.index == nodes[0].state.index;
        if nodes.len() == members.len() && nodes.iter().all(done) {
            return nodes;
        }
        assert!(Instant::now() < deadline, "the nodes did not converge within {PATIENCE:?}: {nodes:#?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until a node that was restarted has applied what was committed when it came back.
async fn caught_up(client: &Client, number: u64) {
    let wait = async {
        let mut target = None;
        loop {
            if let Ok(status) = client.status(node(number)).await {
                // Only a leader's word makes the commit index of a new start known.
                if target.is_none() && status.leader.is_some() {
                    target = Some(status.last);
                }
                if target.is_some_and(|target| status.applied >= target) {
                    return;
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "n{number} did not come back within {PATIENCE:?}");
}

/// Compares one node's own copy with what was acknowledged.
async fn expect_everything(client: &Client, number: u64, record: &Record) {
    let consistency = Consistency::Stale { node: Some(node(number)) };
    let request = RangeRequest { range: KeyRange::all(), limit: None, consistency };
    let listing = client.range(request).await.expect("because the node is up");
    let differences = differences(record, &listing.kvs, listing.revision);
    assert!(differences.is_empty(), "n{number} differs from what was promised:\n{}", differences.join("\n"));
}

/// In what a complete listing differs from what the writers know. Each key was written once, by
/// one request, however often that was sent: so what is there has version 1, no two keys share a
/// revision, and the store counts as many writes as there are keys.
fn differences(record: &Record, listing: &[KeyValue], revision: Revision) -> Vec<String> {
    let mut differences = Vec::new();
    let mut found: BTreeMap<&[u8], &KeyValue> = listing.iter().map(|pair| (&pair.key[..], pair)).collect();
    let mut revisions = BTreeSet::new();
    let known = record.acknowledged.iter().map(|(key, revision)| (key, Some(*revision)));
    for (key, acknowledged) in known.chain(record.unknown.iter().map(|key| (key, None))) {
        match (found.remove(key.as_bytes()), acknowledged) {
            (Some(pair), acknowledged) => {
                let is_once = pair.version == 1 && pair.create_revision == pair.mod_revision;
                let is_alone = revisions.insert(pair.mod_revision);
                let is_as_promised = acknowledged.is_none_or(|promised| pair.mod_revision == promised);
                if !(is_once && is_alone && is_as_promised && pair.value == value_of(key)) {
                    differences.push(format!("{key}, acknowledged at {acknowledged:?}, is {pair:?}"));
                }
            }
            (None, Some(revision)) => differences.push(format!("{key}, acknowledged at {revision}, is missing")),
            // Nobody was promised anything.
            (None, None) => {}
        }
    }
    differences.extend(found.values().map(|pair| format!("nobody wrote {pair:?}")));
    let writes = revision.as_u64() - Revision::FIRST.as_u64();
    if writes != listing.len() as u64 {
        differences.push(format!("{writes} writes were applied to {} keys", listing.len()));
    }
    differences
}

/// A cluster that is loaded, and the members that are struck one after the other.
struct Campaign {
    cluster: Cluster,
    client: Client,
    load: Load,
    draws: Draws,
    seed: u64,
    rounds: u64,
    members: BTreeSet<u64>,
    /// Every node that was ever started.
    newest: u64,
    leaders_killed: u64,
    replaced: u64,
    begun: Instant,
}

impl Campaign {
    fn begin(cluster: Cluster) -> Self {
        let (rounds, seed) = (from_environment("RAFT_KV_KILL_ROUNDS", 3), from_environment("RAFT_KV_KILL_SEED", 1));
        let client = cluster.client(PATIENCE);
        Self {
            load: Load::begin(&client),
            client,
            cluster,
            draws: Draws(seed),
            seed,
            rounds,
            members: (1..=NODES).collect(),
            newest: NODES,
            leaders_killed: 0,
            replaced: 0,
            begun: Instant::now(),
        }
    }

    async fn advance(&mut self) {
        let writes = self.draws.between(50, 1_000);
        self.load.advance(writes).await;
    }

    fn any_member(&mut self) -> u64 {
        let nth = self.draws.between(0, self.members.len() as u64);
        *self.members.iter().nth(nth as usize).expect("because it was drawn below their number")
    }

    /// Kills any member in mid-load and brings it back; a majority is left meanwhile.
    async fn strike(&mut self) -> String {
        self.advance().await;
        let number = self.any_member();
        let was_leader = self.client.leader() == Some(node(number));
        self.leaders_killed += u64::from(was_leader);
        self.cluster.kill_node(number);
        self.advance().await;
        self.cluster.start_node(number);
        caught_up(&self.client, number).await;
        let role = if was_leader { "the leader" } else { "a follower" };
        format!("killed n{number}, {role}")
    }

    /// A new node joins, and any other member goes for good; one is killed meanwhile.
    async fn replace(&mut self) -> String {
        self.newest += 1;
        let new = self.newest;
        self.cluster.join_node(new, &[]);
        let strike = self.strike().await;
        self.vote(new).await;
        let old = self.any_member();
        self.cluster.run(&["member", "remove", &old.to_string(), "--timeout", "60s"]).expect_output();
        self.cluster.kill_node(old);
        // Its directory is never served again: nobody would find it.
        self.cluster.take_out(old);
        self.members.remove(&old);
        self.members.insert(new);
        self.replaced += 1;
        self.advance().await;
        format!("{strike}; n{new} has taken the place of n{old}")
    }

    /// Waits until a node has a vote.
    async fn vote(&self, number: u64) {
        let wait = async {
            let has_vote = |status: &NodeStatus| {
                status.voters.contains(&node(number))
                    && status.outgoing.is_empty()
                    && status.configuration <= status.commit
            };
            while !self.client.status(node(number)).await.is_ok_and(|status| has_vote(&status)) {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "n{number} got no vote within {PATIENCE:?}");
    }

    fn tell(&self, round: u64, what: &str) {
        let (rounds, writes) = (self.rounds, *self.load.acknowledged.borrow());
        println!("round {round} of {rounds}: {what}; {writes} writes acknowledged so far");
    }

    /// So many lines of all logs say this.
    fn logged(&self, what: &str) -> usize {
        (1..=self.newest).map(|node| self.cluster.log(node).matches(what).count()).sum()
    }

    /// Nothing that was acknowledged is missing anywhere, and all members hold the same.
    async fn end(self) -> Outcome {
        let (taken, installed) = (self.logged(TAKEN), self.logged(INSTALLED));
        let Self { client, load, members, rounds, seed, leaders_killed, replaced, begun, cluster, .. } = self;
        let record = load.end().await;
        let nodes = converged(&client, &members).await;
        for status in &nodes {
            assert_eq!(status.state, nodes[0].state, "{} and {} differ", status.node, nodes[0].node);
            expect_everything(&client, status.node.as_u64(), &record).await;
        }
        println!(
            "kill rounds: {rounds} rounds (seed {seed}), {leaders_killed} times the leader, {replaced} members replaced; \
             {taken} snapshots taken, {installed} installed; {} writes acknowledged, 0 missing, {} of unknown outcome; \
             {} nodes at state hash {}; {:.1} s",
            record.acknowledged.len(),
            record.unknown.len(),
            nodes.len(),
            nodes[0].state.hash,
            begun.elapsed().as_secs_f64()
        );
        drop(cluster);
        Outcome { taken, installed, replaced }
    }
}

/// What else happened.
struct Outcome {
    taken: usize,
    installed: usize,
    replaced: u64,
}

/// What a node logs about its snapshots.
const TAKEN: &str = " has written a snapshot up to ";
const INSTALLED: &str = " goes on from snapshot ";

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_nodes_are_killed_while_loading() {
    let mut campaign = Campaign::begin(Cluster::start(NODES as u16));
    for round in 1..=campaign.rounds {
        let what = campaign.strike().await;
        campaign.tell(round, &what);
    }
    campaign.end().await;
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_members_are_replaced_and_logs_cut_as_well() {
    let mut cluster = Cluster::init(NODES as u16);
    cluster.insert("[snapshots]\nentries = 1000\nretain_bytes = 0\n");
    (1..=NODES).for_each(|node| cluster.start_node(node));
    let mut campaign = Campaign::begin(cluster);
    // Whoever comes has to be sent a snapshot.
    campaign.load.advance(2_500).await;
    for round in 1..=campaign.rounds {
        // In the second round, and every tenth after that as long as there are addresses.
        let is_turn = round % 10 == 2 && campaign.newest < NODES + u64::from(SPARE_PORTS);
        let what = if is_turn { campaign.replace().await } else { campaign.strike().await };
        campaign.tell(round, &what);
    }
    let rounds = campaign.rounds;
    let Outcome { taken, installed, replaced } = campaign.end().await;
    assert!(taken > 0, "no node has written a snapshot");
    assert!(rounds < 2 || (installed > 0 && replaced > 0), "{installed} installed, {replaced} replaced");
}

#[test]
fn regress_each_way_to_break_the_promise_is_noticed() {
    let pair = |key: &'static str, revision: u64, version: u64| KeyValue {
        key: Bytes::from(key),
        value: value_of(key),
        create_revision: Revision::new(revision),
        mod_revision: Revision::new(revision),
        version,
    };
    let record = Record {
        acknowledged: BTreeMap::from([("a".to_owned(), Revision::new(2)), ("b".to_owned(), Revision::new(3))]),
        unknown: vec!["c".to_owned()],
    };
    let check = |listing: &[KeyValue], revision| differences(&record, listing, Revision::new(revision));
    let (a, b, c) = (pair("a", 2, 1), pair("b", 3, 1), pair("c", 4, 1));

    assert_eq!(check(&[a.clone(), b.clone()], 3), [""; 0], "the unknown write may not have happened");
    assert_eq!(check(&[a.clone(), b.clone(), c.clone()], 4), [""; 0], "or it may");
    let overwritten = KeyValue { mod_revision: Revision::new(5), ..c.clone() };
    let garbled = KeyValue { value: Bytes::from("other"), ..c };
    for (what, listing, revision) in [
        ("a lost write", vec![a.clone()], 2),
        ("another revision than the acknowledged one", vec![a.clone(), pair("b", 4, 1)], 3),
        ("an unknown write applied twice", vec![a.clone(), b.clone(), pair("c", 4, 2)], 4),
        ("an unknown write applied again later", vec![a.clone(), b.clone(), overwritten], 4),
        ("an unknown write with another value", vec![a.clone(), b.clone(), garbled], 4),
        ("two writes at one revision", vec![a.clone(), b.clone(), pair("c", 3, 1)], 4),
        ("a key that nobody wrote", vec![a.clone(), b.clone(), pair("d", 4, 1)], 4),
        ("a write that left no key", vec![a, b], 4),
    ] {
        assert_eq!(check(&listing, revision).len(), 1, "{what} is not noticed");
    }
}
