//! Whole nodes, three in one process: real sockets, real files, real time.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use raft_tokio::certs::{Authority, Credentials};
use raft_tokio::core::{
    Change, ClusterId, Index, Limits, NodeId, Position, RestoreError, RoleKind, StateMachine, Status, StoreId,
    TransferError,
};
use raft_tokio::local::{self, LocalError, LocalSite};
use raft_tokio::storage::StorageError;
use raft_tokio::transport::TransportError;
use raft_tokio::{AdminError, Node, ProposeError, ReadError, StartError};
use tempfile::TempDir;

/// Remembers every command in order; answers with how many there are.
#[derive(Default)]
struct Journal(Vec<Bytes>);

impl StateMachine for Journal {
    fn apply(&mut self, _position: Position, command: &Bytes) -> Bytes {
        self.0.push(command.clone());
        Bytes::from(self.0.len().to_string())
    }

    fn snapshot(&self) -> Bytes {
        let mut bytes = Vec::new();
        for command in &self.0 {
            bytes.extend_from_slice(&(command.len() as u32).to_le_bytes());
            bytes.extend_from_slice(command);
        }
        bytes.into()
    }

    fn restore(&mut self, snapshot: &Bytes) -> Result<(), RestoreError> {
        let cut_short = || RestoreError { reason: "it ends within a command".to_owned() };
        let mut rest = snapshot.clone();
        let mut commands = Vec::new();
        while !rest.is_empty() {
            let (length, _) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
            let end = 4 + u32::from_le_bytes(*length) as usize;
            if end > rest.len() {
                return Err(cut_short());
            }
            commands.push(rest.split_to(end).slice(4..));
        }
        self.0 = commands;
        Ok(())
    }
}

/// Everything that outlives its nodes.
struct Site {
    site: LocalSite,
    folder: TempDir,
}

impl Site {
    fn new(size: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { site: LocalSite::form(folder.path(), size).expect("a cluster"), folder }
    }

    fn with_limits(size: u64, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::DEFAULT;
        change(&mut limits);
        let Self { site, folder } = Self::new(size);
        Self { site: site.limits(limits), folder }
    }

    fn start(&self, node: NodeId) -> Result<Node<Journal>, LocalError> {
        self.site.start(node, Journal::default())
    }

    fn start_all(&self) -> BTreeMap<NodeId, Node<Journal>> {
        self.site.start_all(Journal::default).expect("nodes that start")
    }
}

/// Tries again until it works; a test that waits for ever has failed.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let patience = Duration::from_secs(20);
    let trying = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(patience, trying).await.unwrap_or_else(|_| panic!("{what}: not within {patience:?}"))
}

async fn leader_of(nodes: &BTreeMap<NodeId, Node<Journal>>) -> NodeId {
    let found = tokio::time::timeout(Duration::from_secs(20), local::leader(nodes)).await.expect("a leader");
    found.status().await.expect("a running node").identity.node
}

async fn journal_of(node: &Node<Journal>) -> Vec<Bytes> {
    node.read_stale(|journal| journal.0.clone()).await.expect("a running node")
}

async fn agree_on(nodes: &BTreeMap<NodeId, Node<Journal>>, expected: &[Bytes]) {
    for (id, node) in nodes {
        eventually(&format!("{id} catches up"), async || (journal_of(node).await == expected).then_some(())).await;
    }
}

async fn stop(nodes: BTreeMap<NodeId, Node<Journal>>) {
    for node in nodes.values() {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_proposal_is_answered_with_the_machines_result_and_reaches_every_node() {
    let site = Site::new(3);
    let nodes = site.start_all();
    let leader = &nodes[&leader_of(&nodes).await];
    let mut expected = Vec::new();
    for nth in 1..=20 {
        let command = Bytes::from(format!("command {nth}"));
        let proposed = leader.propose(command.clone()).await.expect("a leader with its majority");
        assert_eq!(proposed.answer, nth.to_string());
        expected.push(command);
    }
    assert_eq!(leader.read(|journal| journal.0.len()).await, Ok(20));
    agree_on(&nodes, &expected).await;
    stop(nodes).await;
}

/// So many commands, one after the other.
async fn propose_all(leader: &Node<Journal>, numbers: std::ops::RangeInclusive<u32>) -> Vec<Bytes> {
    let mut commands = Vec::new();
    for number in numbers {
        let command = Bytes::from(format!("command {number}"));
        leader.propose(command.clone()).await.expect("a leader with its majority");
        commands.push(command);
    }
    commands
}

async fn status_of(node: &Node<Journal>) -> Status {
    node.status().await.expect("a running node")
}

#[tokio::test]
async fn a_node_that_missed_more_than_the_log_still_holds_is_sent_a_snapshot() {
    let site = Site::with_limits(3, |limits| (limits.snapshot_entries, limits.retain_bytes) = (20, 0));
    let mut nodes = site.start_all();
    let leader = leader_of(&nodes).await;
    let late = *nodes.keys().find(|id| **id != leader).expect("two followers");
    nodes.remove(&late).expect("it was running").shutdown().await;
    let mut expected = propose_all(&nodes[&leader], 1..=100).await;
    eventually("the leader cuts its log", async || {
        (status_of(&nodes[&leader]).await.log.base.index > Index::new(50)).then_some(())
    })
    .await;

    nodes.insert(late, site.start(late).expect("its directory is free again"));
    agree_on(&nodes, &expected).await;
    assert!(status_of(&nodes[&late]).await.log.base.index > Index::new(50), "it has installed the snapshot");
    expected.extend(propose_all(&nodes[&leader_of(&nodes).await], 101..=110).await);
    agree_on(&nodes, &expected).await;
    stop(nodes).await;

    // From snapshots and what is left of the logs, everybody is what it was.
    let nodes = site.start_all();
    leader_of(&nodes).await;
    agree_on(&nodes, &expected).await;
    stop(nodes).await;
}

#[tokio::test]
async fn a_snapshot_is_taken_when_an_operator_wants_one() {
    let site = Site::new(1);
    let nodes = site.start_all();
    let node = &nodes[&leader_of(&nodes).await];
    propose_all(node, 1..=10).await;
    let taken = node.snapshot().await.expect("a disk that works");
    assert_eq!(taken.index, Index::new(11), "ten commands, and the entry that opened the term");
    let status = status_of(node).await;
    assert_eq!(status.log.snapshot, taken);
    assert_eq!(node.snapshot().await, Ok(taken), "there is nothing to add");
    stop(nodes).await;
}

#[tokio::test]
async fn a_new_node_joins_catches_up_and_votes_and_an_old_one_leaves() {
    let mut site = Site::with_limits(1, |limits| (limits.snapshot_entries, limits.retain_bytes) = (10, 0));
    let mut nodes = site.start_all();
    let first = leader_of(&nodes).await;
    let mut expected = propose_all(&nodes[&first], 1..=30).await;
    for number in 2..=3 {
        let store = StoreId::new(900 + number);
        let changes = vec![Change::AddLearner { store, promote: true }];
        let at = status_of(&nodes[&first]).await.configuration.index;
        let added = nodes[&first].change_membership(at, changes.clone()).await.expect("nothing is in its way");
        let id = added.node.expect("a new member has an id");
        assert_eq!(u128::from(id.as_u64()), number);
        // Asked again, because the answer was lost: the same store is the same member.
        let again = nodes[&first].change_membership(added.configuration, changes).await;
        assert_eq!(again.map(|again| again.node), Ok(Some(id)));
        site.site.admit(id, store).expect("a free port");
        nodes.insert(id, site.start(id).expect("a new directory"));
        eventually(&format!("{id} gets a vote"), async || {
            let Status { configuration, log, .. } = status_of(&nodes[&first]).await;
            let votes = configuration.membership.voters().len() == number as usize;
            (votes && log.commit >= configuration.index).then_some(())
        })
        .await;
    }
    expected.extend(propose_all(&nodes[&first], 31..=40).await);
    agree_on(&nodes, &expected).await;

    let at = status_of(&nodes[&first]).await.configuration.index;
    nodes[&first].change_membership(at, vec![Change::Remove { node: first }]).await.expect("two others are there");
    let removed = nodes.remove(&first).expect("it runs");
    let second = leader_of(&nodes).await;
    expected.extend(propose_all(&nodes[&second], 41..=50).await);
    agree_on(&nodes, &expected).await;
    removed.shutdown().await;
    stop(nodes).await;
}

#[tokio::test]
async fn leadership_passes_on_and_reads_work_everywhere() {
    let site = Site::new(3);
    let nodes = site.start_all();
    let first = leader_of(&nodes).await;
    let second = *nodes.keys().find(|id| **id != first).expect("two followers");
    let expected = propose_all(&nodes[&first], 1..=5).await;
    eventually("the second takes over", async || nodes[&first].transfer(Some(second)).await.ok()).await;
    eventually("it leads", async || (leader_of(&nodes).await == second).then_some(())).await;
    let refused = nodes[&second].transfer(Some(second)).await;
    assert_eq!(refused, Err(AdminError::NotTransferred(TransferError::AlreadyLeader { node: second })));
    for node in nodes.values() {
        let read = eventually("a read is answered", async || node.read(|journal| journal.0.clone()).await.ok()).await;
        assert_eq!(read, expected);
        let read = eventually("so is one by lease", async || node.read_lease(|journal| journal.0.clone()).await.ok());
        assert_eq!(read.await, expected);
    }
    stop(nodes).await;
}

#[tokio::test]
async fn a_follower_refers_writes_to_the_leader_and_reads_by_itself() {
    let site = Site::new(3);
    let nodes = site.start_all();
    let leader = leader_of(&nodes).await;
    let (_, follower) = nodes.iter().find(|(id, _)| **id != leader).expect("two followers");
    eventually("the follower knows its leader", async || {
        (follower.status().await.expect("a running node").leader == Some(leader)).then_some(())
    })
    .await;
    let refused = ProposeError::NotLeader { leader: Some(leader) };
    assert_eq!(follower.propose("anything").await, Err(refused));
    // It asks the leader up to where it has to wait, and then looks at its own machine.
    nodes[&leader].propose("a write").await.expect("a leader with its majority");
    assert_eq!(follower.read(|journal| journal.0.len()).await, Ok(1));
    let refused = AdminError::NotLeader { leader: Some(leader) };
    assert_eq!(follower.transfer(None).await, Err(refused));
    stop(nodes).await;
}

#[tokio::test]
async fn the_others_go_on_without_the_leader_and_it_catches_up_after_a_restart() {
    let site = Site::new(3);
    let mut nodes = site.start_all();
    let first = leader_of(&nodes).await;
    nodes[&first].propose("before").await.expect("a leader with its majority");
    nodes.remove(&first).expect("it was running").shutdown().await;

    let second = leader_of(&nodes).await;
    assert_ne!(second, first);
    nodes[&second].propose("meanwhile").await.expect("two of three");

    nodes.insert(first, site.start(first).expect("its directory is free again"));
    agree_on(&nodes, &["before", "meanwhile"].map(Bytes::from)).await;
    stop(nodes).await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_restart_of_all() {
    let site = Site::new(3);
    let nodes = site.start_all();
    nodes[&leader_of(&nodes).await].propose("kept").await.expect("a leader with its majority");
    stop(nodes).await;

    let nodes = site.start_all();
    let leader = &nodes[&leader_of(&nodes).await];
    assert_eq!(leader.read(|journal| journal.0.clone()).await, Ok(vec![Bytes::from("kept")]));
    agree_on(&nodes, &[Bytes::from("kept")]).await;
    stop(nodes).await;
}

#[tokio::test]
async fn a_single_node_is_a_cluster() {
    let site = Site::new(1);
    let nodes = site.start_all();
    let node = &nodes[&leader_of(&nodes).await];
    assert_eq!(node.propose("alone").await.expect("its own majority").answer, "1");
    assert_eq!(node.read(|journal| journal.0.len()).await, Ok(1));
    stop(nodes).await;
}

#[tokio::test]
async fn without_a_majority_nothing_is_acknowledged_and_shutdown_answers_whoever_waits() {
    let site = Site::new(3);
    let mut nodes = site.start_all();
    let leader = leader_of(&nodes).await;
    let left = nodes.remove(&leader).expect("it runs");
    stop(nodes).await;
    let waiting = tokio::spawn({
        let left = left.clone();
        async move { left.propose("too late").await }
    });
    // Either the leader has noticed that it is alone, or it is stopped first: never an acknowledgement.
    let noticed = eventually("the leader resigns", async || {
        (left.status().await.expect("a running node").role != RoleKind::Leader).then_some(())
    });
    noticed.await;
    left.shutdown().await;
    let answer = waiting.await.expect("the task does not panic");
    assert!(
        matches!(answer, Err(ProposeError::Unknown { .. } | ProposeError::NotLeader { .. })),
        "acknowledged by nobody, but answered {answer:?}"
    );
    assert_eq!(left.propose("after the end").await, Err(ProposeError::Stopped));
    assert_eq!(left.read(|_| ()).await, Err(ReadError::Stopped));
}

#[tokio::test]
async fn a_command_over_the_limit_is_refused_before_it_goes_anywhere() {
    let site = Site::new(1);
    let nodes = site.start_all();
    let node = &nodes[&leader_of(&nodes).await];
    let huge = Bytes::from(vec![0; (2 << 20) + 1]);
    let refused = node.propose(huge).await;
    assert_eq!(refused, Err(ProposeError::TooLarge { size: (2 << 20) + 1, limit: 2 << 20 }));
    assert_eq!(node.propose("small").await.expect("nothing is in its way").answer, "1");
    stop(nodes).await;
}

#[tokio::test]
async fn a_directory_is_used_by_one_node_at_a_time() {
    let site = Site::new(1);
    let nodes = site.start_all();
    let id = leader_of(&nodes).await;
    let second = site.start(id);
    let in_use = matches!(second, Err(LocalError::Start(StartError::Storage(StorageError::InUse { .. }))));
    assert!(in_use, "two nodes in one directory");
    stop(nodes).await;
    stop(site.start_all()).await;
}

/// Every file of a directory with all of its bytes.
fn bytes_in(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("a name"));
    entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file")))
        .collect()
}

#[tokio::test]
async fn regress_a_node_that_cannot_bind_leaves_its_data_directory_as_it_was() {
    let site = Site::new(1);
    let nodes = site.start_all();
    let id = leader_of(&nodes).await;
    let address = nodes[&id].local_addr();
    stop(nodes).await;

    let dir = site.folder.path().join("n1");
    let before = bytes_in(&dir);
    let other = UdpSocket::bind(address).expect("the node has given its port back");
    let refused = site.start(id).err();
    let Some(LocalError::Start(StartError::Transport(TransportError::AddressInUse { address: found }))) = refused
    else {
        panic!("two sockets at one address: {refused:?}")
    };
    assert_eq!(found, address);
    assert!(bytes_in(&dir) == before, "a start that failed has changed the data directory");
    drop(other);
    stop(site.start_all()).await;
    assert!(bytes_in(&dir) != before, "a start that succeeds is another life");
}

#[tokio::test]
async fn limits_that_contradict_each_other_are_refused_before_anything_is_opened() {
    let cluster = ClusterId::new(1);
    let authority = Authority::new(cluster).expect("a certificate");
    let id = NodeId::new(1).expect("it is not 0");
    let issued = authority.issue_node(id).expect("a certificate");
    let credentials = Credentials::from_pem(authority.cert_pem(), &issued.cert_pem, &issued.key_pem).expect("a pair");
    let listen = "127.0.0.1:0".parse().expect("an address");
    let limits = Limits { message_bytes_max: 1 << 30, ..Limits::DEFAULT };
    let builder = Node::builder(cluster, id, "/nowhere", listen, credentials).limits(limits);
    let Err(error) = builder.start(Journal::default()) else { panic!("it starts without a data directory") };
    assert!(matches!(error, StartError::Limits { core: "message_bytes_max", .. }), "{error}");
}
