//! A replica, as an application sees it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use raft_core::{
    Change, ClusterId, Config, Event, Index, Leases, Limits, NodeId, Position, Priority, Raft, ReadMode, StateMachine,
    Status, Timing,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::certs::Credentials;
use crate::dispatch::Executors;
use crate::driver::{Driver, Entrances, Inbox, Input};
use crate::error::{AdminError, ProposeError, ReadError, StartError};
use crate::limits;
use crate::pending::{Changed, Pending, Proposed, Query};
use crate::punctuality::{Punctuality, RuntimeStatus};
use crate::storage::{self, Expected, Opened, Options, Writer};
use crate::transport::{self, Bound, Endpoint, Incoming, Service};

/// Makes the service that answers clients, from a handle of the node that it will ask.
type MakeService<M> = Box<dyn FnOnce(Node<M>) -> Arc<dyn Service>>;

/// What a node needs to start; made by [`Node::builder`].
pub struct Builder<M> {
    expected: Expected,
    data_dir: PathBuf,
    listen: SocketAddr,
    credentials: Credentials,
    addresses: BTreeMap<NodeId, String>,
    timing: Timing,
    limits: Limits,
    priority: Priority,
    leases: Option<Leases>,
    advertise: Option<String>,
    command_bytes_max: usize,
    service: Option<MakeService<M>>,
}

/// A running replica. A clone is another handle to the same one.
///
/// The replica does not live by its handles: it goes on when all of them are dropped, as a task
/// does, and its service has one of its own. It ends with [`shutdown`](Self::shutdown), or with
/// its runtime.
pub struct Node<M> {
    inbox: mpsc::Sender<Input<M>>,
    ended: watch::Receiver<bool>,
    local_addr: Arc<OnceLock<SocketAddr>>,
    command_bytes_max: usize,
}

impl<M> Clone for Node<M> {
    fn clone(&self) -> Self {
        let Self { inbox, ended, local_addr, command_bytes_max } = self;
        Self {
            inbox: inbox.clone(),
            ended: ended.clone(),
            local_addr: local_addr.clone(),
            command_bytes_max: *command_bytes_max,
        }
    }
}

impl<M: StateMachine + Send + 'static> Node<M> {
    /// Begins to describe node `node` of `cluster`: its data is in `data_dir`, which has been
    /// [formatted](storage::format()) for it, it listens on the UDP address `listen`, and
    /// `credentials` prove who it is.
    pub fn builder(
        cluster: ClusterId,
        node: NodeId,
        data_dir: impl Into<PathBuf>,
        listen: SocketAddr,
        credentials: Credentials,
    ) -> Builder<M> {
        Builder {
            expected: Expected { cluster, node },
            data_dir: data_dir.into(),
            listen,
            credentials,
            addresses: BTreeMap::new(),
            timing: Timing::LAN,
            limits: Limits::DEFAULT,
            priority: Priority::default(),
            leases: None,
            advertise: None,
            command_bytes_max: 2 << 20,
            service: None,
        }
    }

    /// Replicates `command`. Returns once it is on stable storage at a majority and applied here,
    /// with what the state machine answered.
    ///
    /// # Errors
    /// Those that say so are certain: the command will never be applied. After
    /// [`ProposeError::Unknown`] it may have been or may still be; give commands an identity, and
    /// let the machine recognise a repeated one.
    pub async fn propose(&self, command: impl Into<Bytes>) -> Result<Proposed, ProposeError> {
        let command = command.into();
        let (size, limit) = (command.len(), self.command_bytes_max);
        if size > limit {
            return Err(ProposeError::TooLarge { size, limit });
        }
        let (waiter, answer) = oneshot::channel();
        let sent = self.inbox.send(Input::Propose { command, waiter }).await;
        sent.map_err(|_| ProposeError::Stopped)?;
        answer.await?
    }

    /// Looks at the state machine as of now: what it sees includes every write that was
    /// acknowledged anywhere before the call (linearizable). A follower asks its leader up to
    /// where it has to wait, and then looks at its own machine.
    ///
    /// `look` runs on the node's own task: let it be quick.
    ///
    /// # Errors
    /// If no leader is known, or leadership is lost meanwhile. Reads can be repeated.
    pub async fn read<R: Send + 'static>(&self, look: impl FnOnce(&M) -> R + Send + 'static) -> Result<R, ReadError> {
        self.look(look, |query| Input::Read(ReadMode::Quorum, query)).await
    }

    /// The same, without a round of messages as long as the leader's [lease](Builder::leases)
    /// lasts; linearizable within the stated drift of the clocks.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_lease<R: Send + 'static>(
        &self,
        look: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<R, ReadError> {
        self.look(look, |query| Input::Read(ReadMode::Lease, query)).await
    }

    /// Changes the membership: all of `changes` at once, if the configuration named by the index
    /// `expected` is still in force ([`Status::configuration`]). Returns when the change is
    /// complete.
    ///
    /// # Errors
    /// If this node does not lead, if the change cannot be made, or if leadership is lost before
    /// it is complete: then it may or may not happen.
    pub async fn change_membership(&self, expected: Index, changes: Vec<Change>) -> Result<Changed, AdminError> {
        self.wish(|waiter| Input::Change { expected, changes, waiter }).await
    }

    /// Hands leadership over to a certain node, or to the best. Returns when this node leads no
    /// longer, with the new leader if that is known already.
    ///
    /// # Errors
    /// If this node does not lead, or the other does not take over in time; then all is as before.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<Option<NodeId>, AdminError> {
        self.wish(|waiter| Input::Transfer { to, waiter }).await
    }

    /// Has this node write a snapshot of all that it has applied, and cut its log accordingly.
    /// Returns where it ends.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn snapshot(&self) -> Result<Position, AdminError> {
        self.wish(Input::Snapshot).await
    }

    async fn wish<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<Result<T, AdminError>>) -> Input<M>,
    ) -> Result<T, AdminError> {
        let (waiter, answer) = oneshot::channel();
        self.inbox.send(input(waiter)).await.map_err(|_| AdminError::Stopped)?;
        answer.await.map_err(|_| AdminError::Unknown { leader: None })?
    }

    /// Looks at the state machine of this node as it is, however far behind.
    ///
    /// # Errors
    /// Only if the node has stopped.
    pub async fn read_stale<R: Send + 'static>(
        &self,
        look: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<R, ReadError> {
        self.look(look, Input::ReadStale).await
    }

    /// Has the driver look at the machine, when and if `input` says that it may.
    async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&M) -> R + Send + 'static,
        input: impl FnOnce(Query<M>) -> Input<M>,
    ) -> Result<R, ReadError> {
        let (waiter, answer) = oneshot::channel();
        // Whoever asked may have gone away meanwhile; then nobody misses the answer.
        let query = Box::new(move |machine: Result<&M, ReadError>| drop(waiter.send(machine.map(look))));
        self.inbox.send(input(query)).await.map_err(|_| ReadError::Stopped)?;
        answer.await?
    }

    /// What an operator may want to know; never needs another node.
    ///
    /// # Errors
    /// Only if the node has stopped.
    pub async fn status(&self) -> Result<Status, ReadError> {
        let (waiter, answer) = oneshot::channel();
        self.inbox.send(Input::Status(waiter)).await.map_err(|_| ReadError::Stopped)?;
        Ok(answer.await?)
    }

    /// What happens around the core and it does not know: whether the node gets to run in time,
    /// and what the transport dropped.
    ///
    /// # Errors
    /// Only if the node has stopped.
    pub async fn runtime_status(&self) -> Result<RuntimeStatus, ReadError> {
        let (waiter, answer) = oneshot::channel();
        self.inbox.send(Input::RuntimeStatus(waiter)).await.map_err(|_| ReadError::Stopped)?;
        Ok(answer.await?)
    }

    /// The address that the node is bound to.
    ///
    /// # Panics
    /// In a service that asks while it is being made: the node is bound after that.
    pub fn local_addr(&self) -> SocketAddr {
        *self.local_addr.get().expect("a node that has started is bound")
    }

    /// Stops the node: answers everybody who waits, takes leave of the peers, closes the log.
    /// Returns when its data directory is free again, or when the disk has not finished within ten
    /// seconds; what is abandoned then is logged as an error, and was promised to nobody.
    pub async fn shutdown(&self) {
        // A node that has ended already does not listen.
        let _ = self.inbox.send(Input::Stop).await;
        self.ended().await;
    }

    /// Waits until the node has ended, for whatever reason.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error says that the task is gone without a word, which is an end as well.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl<M: StateMachine + Send + 'static> Builder<M> {
    /// Where the members of the cluster are: `host:port` of each. The own address may be among them.
    /// A member that is missing is reached once it has said itself where it listens: of who was removed
    /// there need not be an address, although this node may still have to learn that from its log.
    #[must_use]
    pub fn peers(mut self, addresses: impl IntoIterator<Item = (NodeId, String)>) -> Self {
        self.addresses.extend(addresses);
        self
    }

    /// Other timing than [`Timing::LAN`].
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Other limits than [`Limits::DEFAULT`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How eagerly this node runs for leader.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Reads by lease, in all nodes of the cluster or in none.
    #[must_use]
    pub fn leases(mut self, leases: Leases) -> Self {
        self.leases = Some(leases);
        self
    }

    /// Where the other nodes reach this one (`host:port`), which it tells those that do not know
    /// it yet. Without it they have to be told by other means.
    #[must_use]
    pub fn advertise(mut self, address: impl Into<String>) -> Self {
        self.advertise = Some(address.into());
        self
    }

    /// Answers clients on the same port; `make` is given a handle of the node.
    #[must_use]
    pub fn service(mut self, make: impl FnOnce(Node<M>) -> Arc<dyn Service> + 'static) -> Self {
        self.service = Some(Box::new(make));
        self
    }

    /// Locks the data directory, binds the port, opens the log and starts the node's task on the
    /// current runtime. The machine starts empty; the log is applied to it.
    ///
    /// # Errors
    /// If the data directory is missing, in use or somebody else's; if the certificate is not this
    /// node's; if the port is taken; if limits or timing contradict each other. Until then nothing in
    /// the directory has been touched. If the log is damaged.
    pub fn start(self, mut machine: M) -> Result<Node<M>, StartError> {
        let config = Config::new(self.timing, self.limits, self.expected.cluster.as_u128() as u64)?;
        let config = config.with_priority(self.priority);
        let config = self.leases.map_or(config.clone(), |leases| config.with_leases(leases));
        let options = Options { tail_bytes: self.limits.log_cache_bytes, ..Options::default() };
        let transport_limits = transport::Limits::default();
        limits::check(&self.limits, self.command_bytes_max, &transport_limits)?;
        let Expected { cluster, node } = self.expected;
        let directory = storage::lock(&self.data_dir, &self.expected)?;
        let bound = Bound::new(self.listen, self.advertise, node, cluster, &self.credentials)?;
        // Everything that may fail for a trivial reason is done: from here on this is a life of the store.
        let Opened { mut durable, snapshot, log } = directory.open(&options)?;
        if let (Some(meta), Some(data)) = (&durable.snapshot, snapshot) {
            machine.restore(&data)?;
            durable.applied = meta.last.index;
        }
        let me = durable.identity;
        let raft = Raft::new(config, durable)?;

        let (Entrances { events: report, requests }, inbox) = Inbox::new();
        let (end, ended) = watch::channel(false);
        let local_addr = Arc::new(OnceLock::new());
        let node = Node { inbox: requests, ended, local_addr, command_bytes_max: self.command_bytes_max };
        let service = self.service.map(|make| make(node.clone()));
        let endpoint = Endpoint::start(bound, me.peer(), transport_limits, deliver_to(report.clone()), service)?;
        // Nobody else has a hand on it yet.
        let _ = node.local_addr.set(endpoint.local_addr());
        let writer = Writer::spawn(log, move |completion| {
            // A driver that has ended needs no news.
            let _ = report.blocking_send(Input::Storage(completion));
        })?;

        let (addresses, members) = (self.addresses, BTreeSet::new());
        let executors = Executors { me: me.node, addresses, members, endpoint, writer };
        let origin = Instant::now();
        let punctuality = Punctuality::new(me.node, self.timing);
        let pending = Pending::new();
        let driver = Driver { raft, machine, arrived: VecDeque::new(), pending, inbox, executors, origin, punctuality };
        tokio::spawn(async move {
            driver.run().await;
            // Everybody may have let go of the node.
            let _ = end.send(true);
        });
        Ok(node)
    }
}

/// Puts what comes in from peers into the inbox; when that is full, drops it, as the network might
/// have. That a peer is unreachable is repeated by the core's own timeouts.
pub(crate) fn deliver_to<M: Send + 'static>(
    inbox: mpsc::Sender<Input<M>>,
) -> impl Fn(Incoming) + Send + Sync + 'static {
    move |incoming| {
        let event = match incoming {
            Incoming::Received { from, rpc } => Input::Event(Event::Received { from, rpc }),
            Incoming::Unreachable { node } => Input::Event(Event::PeerUnreachable { node }),
            Incoming::SnapshotProgress { from: _, last, received } => {
                Input::Event(Event::SnapshotProgress { last, received })
            }
            Incoming::SnapshotFailed { from: _, last } => {
                Input::Event(Event::SnapshotReceived { last, complete: false })
            }
            Incoming::Snapshot { from: _, meta, data } => Input::Arrived { meta, data },
            Incoming::Introduced { node, address } => Input::Introduced { node, address },
        };
        if inbox.try_send(event).is_err() {
            tracing::debug!("the inbox is full; a message of a peer is dropped");
        }
    }
}
