//! A node's side of the transport, as the node sees it, and what all its tasks share.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::{Class, ClusterId, NodeId, Peer, Rpc, SnapshotMeta};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use super::generation::{Generation, Ground, supervise};
use super::limits;
use super::link::Slot;
use super::peers::Senders;
use super::queue::Pushed;
use super::service::ClientBytes;
use super::snapshot::Outgoing;
use super::{Counters, Incoming, Limits, Options, Service, TransportError, address, tls};
use crate::certs::{Credentials, Identity, Part, Role};
use crate::codec::LastEncoded;
use crate::throttle::Throttle;

/// A socket that is bound, with credentials that were checked: everything about an [`Endpoint`]
/// that can fail because of the world around, before anything has been changed or said.
pub struct Bound {
    ground: Ground,
    local_addr: SocketAddr,
    advertise: Option<String>,
    identity: Identity,
    certificate: Box<Part>,
}

impl Bound {
    /// Binds the UDP address `listen` for `node` of `cluster`; port 0 lets the system choose. Each
    /// node that this one connects to is told `advertise` (`host:port`), where others reach it.
    ///
    /// # Errors
    /// If the address cannot be listened on, if nobody could connect to the one to advertise, or
    /// if the credentials are not this node's.
    pub fn new(
        listen: SocketAddr,
        advertise: Option<String>,
        node: NodeId,
        cluster: ClusterId,
        credentials: &Credentials,
    ) -> Result<Self, TransportError> {
        let identity = credentials.identity().clone();
        if identity.cluster != cluster || identity.role != Role::Node(node) {
            let certificate = Box::new(credentials.certificate().clone());
            return Err(TransportError::WrongIdentity { certificate, found: identity, node, cluster });
        }
        if let Some(address) = &advertise {
            address::check(address).map_err(|fault| TransportError::BadAddress { address: address.clone(), fault })?;
        }
        if let Err(error) = credentials.check_validity(std::time::SystemTime::now()) {
            // Others refuse it, not we: their clocks may be right.
            tracing::error!(%error, "the other nodes will refuse this one");
        }
        let unusable = |error: rustls::Error| TransportError::Tls { reason: error.to_string() };
        let server = tls::server_config(credentials).map_err(unusable)?;
        let client = tls::client_config(credentials, tls::Protocol::Peer, limits::dialing_peer()).map_err(unusable)?;
        let bind = |source| TransportError::bind(listen, source);
        let socket = UdpSocket::bind(listen).map_err(bind)?;
        let local_addr = socket.local_addr().map_err(bind)?;
        let ground = Ground { socket, endpoint: tls::endpoint_config(credentials), server, client };
        let certificate = Box::new(credentials.certificate().clone());
        Ok(Self { ground, local_addr, advertise, identity, certificate })
    }

    /// Where it listens; tells the port that the system has chosen for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound")
            .field("local_addr", &self.local_addr)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A node's presence on the network: one UDP port, for its peers and for clients.
///
/// No call waits for the network, none can be made to panic by it; all the work is done by
/// supervised tasks, which are stopped when the endpoint is dropped.
#[derive(Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
    root: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    abort: AbortHandle,
}

/// What all tasks of an endpoint share.
pub(super) struct Shared {
    me: Peer,
    cluster: ClusterId,
    limits: Limits,
    local_addr: SocketAddr,
    advertise: Option<String>,
    incoming: Box<dyn Fn(Incoming) + Send + Sync>,
    pub(super) service: Option<Arc<dyn Service>>,
    slots: Mutex<BTreeMap<NodeId, Arc<Slot>>>,
    pub(super) slots_changed: Notify,
    /// Where peers were found to be: they are not counted among strangers.
    addresses: Mutex<BTreeMap<NodeId, IpAddr>>,
    pub(super) senders: Senders,
    pub(super) closing: watch::Sender<bool>,
    pub(super) clients: ClientBytes,
    pub(super) encoded: LastEncoded,
    throttle: Throttle,
    pub(super) tally: Tally,
}

/// The counters behind [`Counters`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) urgent_dropped: AtomicU64,
    pub(super) bulk_dropped: AtomicU64,
    pub(super) snapshots_dropped: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl Endpoint {
    /// [Binds](Bound::new) the socket and [starts](Self::start).
    ///
    /// # Errors
    /// As those.
    pub fn bind(
        options: Options,
        incoming: impl Fn(Incoming) + Send + Sync + 'static,
        service: Option<Arc<dyn Service>>,
    ) -> Result<Self, TransportError> {
        let Options { listen, advertise, me, cluster, credentials, limits } = options;
        let bound = Bound::new(listen, advertise, me.node, cluster, &credentials)?;
        Self::start(bound, me, limits, incoming, service)
    }

    /// Starts to listen on a bound socket, as the node that it was bound for, whose store and life
    /// `me` says as well. Must be called within a tokio runtime, of either flavour.
    ///
    /// `incoming` is called for everything that arrives from peers, by tasks of the transport: it
    /// must hand over and return. Without a `service`, clients are refused.
    ///
    /// # Errors
    /// If `me` is another node, or there is no runtime.
    pub fn start(
        bound: Bound,
        me: Peer,
        limits: Limits,
        incoming: impl Fn(Incoming) + Send + Sync + 'static,
        service: Option<Arc<dyn Service>>,
    ) -> Result<Self, TransportError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| TransportError::NoRuntime)?;
        let listen = bound.local_addr;
        let (shared, ground) = prepare(bound, me, limits, Box::new(incoming), service)?;
        // The first generation starts here and now, so that what fails at once is told to the caller.
        let first = Generation::start(&shared, &ground).map_err(|source| TransportError::bind(listen, source))?;
        let root = runtime.spawn(supervise(shared.clone(), ground, first));
        Ok(Self { shared, abort: root.abort_handle(), root: tokio::sync::Mutex::new(Some(root)) })
    }

    /// Says who the peers are, and where (`host:port`). Connections to peers that are not named
    /// any more are closed, those to peers that stay where they are untouched. This node itself is left out.
    pub fn connect_peers(&self, peers: BTreeMap<NodeId, String>) {
        let mut slots = self.shared.slots();
        let mut known = std::mem::take(&mut *slots);
        for (node, address) in peers {
            if node == self.shared.me.node {
                continue;
            }
            let slot = match known.remove(&node) {
                Some(slot) if slot.address == address => slot,
                _ => Arc::new(Slot::new(node, address, &self.shared.limits)),
            };
            slots.insert(node, slot);
        }
        drop(slots);
        self.shared.slots_changed.notify_one();
    }

    /// Sends a message to a peer, or loses it; never waits.
    ///
    /// Urgent messages are lost oldest first. If an append is lost, all that wait with it are, and
    /// [`Incoming::Unreachable`] follows. To a peer that nobody has named nothing is sent.
    pub fn send(&self, to: NodeId, rpc: Rpc) {
        let tally = &self.shared.tally;
        let slot = self.shared.slots().get(&to).cloned();
        let Some(slot) = slot else {
            let counter = match rpc.class() {
                Class::Urgent => &tally.urgent_dropped,
                Class::Bulk => &tally.bulk_dropped,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            return;
        };
        match slot.queue.push(rpc) {
            Pushed::Queued => {}
            Pushed::DroppedOldest => {
                tally.urgent_dropped.fetch_add(1, Ordering::Relaxed);
            }
            Pushed::DroppedBulk(messages) => {
                tally.bulk_dropped.fetch_add(messages as u64, Ordering::Relaxed);
            }
        }
    }

    /// Sends a snapshot to a peer on a stream of its own, behind everything else, or loses it; never waits.
    ///
    /// One at a time: a newer one takes the place of one that waits or is under way. It is lost
    /// with the connection, and not sent again over the next one; [`Incoming::Unreachable`] tells
    /// of that. Otherwise it is up to the receiver to say how it fares.
    pub fn send_snapshot(&self, to: NodeId, meta: SnapshotMeta, data: Bytes) {
        let slot = self.shared.slots().get(&to).cloned();
        if slot.is_none_or(|slot| slot.queue.push_snapshot(Outgoing { meta, data })) {
            self.shared.tally.snapshots_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Where it listens; tells the port that the system has chosen for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// What was dropped and refused so far.
    pub fn counters(&self) -> Counters {
        let Tally { urgent_dropped, bulk_dropped, snapshots_dropped, refused } = &self.shared.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            urgent_dropped: read(urgent_dropped),
            bulk_dropped: read(bulk_dropped),
            snapshots_dropped: read(snapshots_dropped),
            connections_refused: read(refused),
        }
    }

    /// Lets urgent messages and finished answers leave, closes every connection with a reason, and
    /// gives the port back. Takes a second at most; when it returns, the address can be bound again.
    pub async fn close(&self) {
        self.shared.closing.send_replace(true);
        let mut root = self.root.lock().await;
        if let Some(root) = root.take()
            && timeout(ROOT_TIMEOUT, root).await.is_err()
        {
            self.abort.abort();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Shared {
    pub(super) fn me(&self) -> Peer {
        self.me
    }

    pub(super) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Where others reach this node.
    pub(super) fn advertise(&self) -> Option<&str> {
        self.advertise.as_deref()
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Hands something to the node.
    pub(super) fn report(&self, incoming: Incoming) {
        (self.incoming)(incoming);
    }

    pub(super) fn slot(&self, node: NodeId) -> Option<Arc<Slot>> {
        self.slots().get(&node).cloned()
    }

    /// Notes where a peer is dialled.
    pub(super) fn know_address(&self, node: NodeId, address: SocketAddr) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).insert(node, address.ip().to_canonical());
    }

    /// Whether a peer is dialled there.
    pub(super) fn knows_address(&self, address: SocketAddr) -> bool {
        let known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().any(|peer| *peer == address.ip().to_canonical())
    }

    /// Writes a line about a peer's link, unless the same was written just now.
    pub(super) fn log_failure(&self, peer: NodeId, what: &dyn fmt::Display) {
        let what = what.to_string();
        if let Some(suppressed) = self.throttle.admit(&format!("{peer} {what}"), Instant::now()) {
            tracing::warn!(%peer, suppressed, "{what}");
        }
    }

    /// Counts a connection that was refused, and writes a line, unless much was written about the address just now.
    pub(super) fn log_refused(&self, address: SocketAddr, what: &dyn fmt::Display) {
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.throttle.admit(&format!("from {}", address.ip()), Instant::now()) {
            tracing::warn!(%address, suppressed, "a connection is refused: {what}");
        }
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("me", &self.me).field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// What the tasks of an endpoint share, and what they stand on.
pub(super) fn prepare(
    bound: Bound,
    me: Peer,
    limits: Limits,
    incoming: Box<dyn Fn(Incoming) + Send + Sync>,
    service: Option<Arc<dyn Service>>,
) -> Result<(Arc<Shared>, Ground), TransportError> {
    let Bound { ground, local_addr, advertise, identity, certificate } = bound;
    if identity.role != Role::Node(me.node) {
        let cluster = identity.cluster;
        return Err(TransportError::WrongIdentity { certificate, found: identity, node: me.node, cluster });
    }
    let clients = ClientBytes::new(&limits);
    let shared = Arc::new(Shared {
        me,
        cluster: identity.cluster,
        limits,
        local_addr,
        advertise,
        incoming,
        service,
        slots: Mutex::default(),
        slots_changed: Notify::new(),
        addresses: Mutex::default(),
        senders: Senders::default(),
        closing: watch::Sender::new(false),
        clients,
        encoded: LastEncoded::default(),
        throttle: Throttle::default(),
        tally: Tally::default(),
    });
    Ok((shared, ground))
}

/// Longer than all that a close may take, for the case that a task does not give way.
const ROOT_TIMEOUT: Duration = Duration::from_millis(950);
