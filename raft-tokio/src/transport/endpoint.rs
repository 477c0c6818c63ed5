//! The socket: what is shared by all its connections, and the task that keeps it going.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use raft_core::{Class, ClusterId, NodeId, Peer, Rpc};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, Id, JoinHandle, JoinSet};
use tokio::time::timeout;

use super::contain::{Drivers, Held, failure};
use super::error::Refusal;
use super::limits::{self, CLOSE_TIMEOUT, FLUSH_TIMEOUT};
use super::link::{self, Pause, Slot, closed};
use super::peers::Senders;
use super::queue::Pushed;
use super::throttle::Throttle;
use super::{Counters, Incoming, Limits, Options, Service, TransportError, accept, tls};
use crate::certs::Role;
use crate::codec::LastEncoded;

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
    incoming: Box<dyn Fn(Incoming) + Send + Sync>,
    pub(super) service: Option<Arc<dyn Service>>,
    slots: Mutex<BTreeMap<NodeId, Arc<Slot>>>,
    slots_changed: Notify,
    /// Where peers were found to be: they are not counted among strangers.
    addresses: Mutex<BTreeMap<NodeId, IpAddr>>,
    pub(super) senders: Senders,
    closing: watch::Sender<bool>,
    pub(super) encoded: LastEncoded,
    throttle: Throttle,
    pub(super) tally: Tally,
}

/// The counters behind [`Counters`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) urgent_dropped: AtomicU64,
    pub(super) bulk_dropped: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// What every generation of the socket is made from.
struct Ground {
    socket: UdpSocket,
    endpoint: quinn::EndpointConfig,
    server: quinn::ServerConfig,
    client: quinn::ClientConfig,
}

impl Endpoint {
    /// Starts to listen. Must be called within a tokio runtime, of either flavour.
    ///
    /// `incoming` is called for everything that arrives from peers, by tasks of the transport: it
    /// must hand over and return. Without a `service`, clients are refused.
    ///
    /// # Errors
    /// If the address cannot be listened on, or the credentials are not this node's.
    pub fn bind(
        options: Options,
        incoming: impl Fn(Incoming) + Send + Sync + 'static,
        service: Option<Arc<dyn Service>>,
    ) -> Result<Self, TransportError> {
        let Options { listen, me, cluster, credentials, limits } = options;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| TransportError::NoRuntime)?;
        let identity = credentials.identity();
        if identity.cluster != cluster || identity.role != Role::Node(me.node) {
            return Err(TransportError::WrongIdentity { found: identity.clone(), node: me.node, cluster });
        }
        if let Err(error) = credentials.check_validity(std::time::SystemTime::now()) {
            // Others refuse it, not we: their clocks may be right.
            tracing::error!(%error, "the other nodes will refuse this one");
        }
        let unusable = |error: rustls::Error| TransportError::Tls { reason: error.to_string() };
        let server = tls::server_config(&credentials).map_err(unusable)?;
        let client = tls::client_config(&credentials, tls::Protocol::Peer, limits::dialing_peer()).map_err(unusable)?;
        let bind = |source| TransportError::bind(listen, source);
        let socket = UdpSocket::bind(listen).map_err(bind)?;
        let local_addr = socket.local_addr().map_err(bind)?;
        let ground = Ground { socket, endpoint: tls::endpoint_config(&credentials), server, client };
        let shared = Arc::new(Shared {
            me,
            cluster,
            limits,
            local_addr,
            incoming: Box::new(incoming),
            service,
            slots: Mutex::default(),
            slots_changed: Notify::new(),
            addresses: Mutex::default(),
            senders: Senders::default(),
            closing: watch::Sender::new(false),
            encoded: LastEncoded::default(),
            throttle: Throttle::default(),
            tally: Tally::default(),
        });
        // The first generation starts here and now, so that what fails at once is told to the caller.
        let first = {
            let _entered = runtime.enter();
            Generation::start(&shared, &ground).map_err(bind)?
        };
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

    /// Where it listens; tells the port that the system has chosen for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// What was dropped and refused so far.
    pub fn counters(&self) -> Counters {
        let Tally { urgent_dropped, bulk_dropped, refused } = &self.shared.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            urgent_dropped: read(urgent_dropped),
            bulk_dropped: read(bulk_dropped),
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

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local_addr
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

    fn slots(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("me", &self.me).field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// One life of the QUIC endpoint on the socket.
struct Generation {
    shared: Arc<Shared>,
    drivers: Arc<Drivers>,
    quinn: Arc<Held<quinn::Endpoint>>,
    accept: JoinSet<()>,
    links: JoinSet<()>,
    linked: BTreeMap<NodeId, (Arc<Slot>, AbortHandle)>,
}

/// How a generation ended.
enum End {
    Closed,
    Lost(String),
}

/// Keeps a generation running until the endpoint closes.
async fn supervise(shared: Arc<Shared>, ground: Ground, first: Generation) {
    let mut pause = Pause::new((Duration::from_millis(10), Duration::from_secs(1)));
    let mut next = Some(first);
    loop {
        let since = Instant::now();
        let end = match next.take().map_or_else(|| Generation::start(&shared, &ground), Ok) {
            Ok(generation) => {
                // In a task of its own, so that its panic is seen here.
                let mut running = JoinSet::new();
                running.spawn(generation.run());
                match running.join_next().await {
                    Some(Ok(end)) => end,
                    Some(Err(error)) => End::Lost(failure(error)),
                    None => End::Lost("it was stopped".to_owned()),
                }
            }
            Err(error) => End::Lost(error.to_string()),
        };
        let reason = match end {
            End::Closed => return,
            End::Lost(reason) => reason,
        };
        tracing::error!(reason, "the QUIC endpoint is lost and started anew; every connection with it");
        let slots: Vec<_> = shared.slots().values().cloned().collect();
        for slot in slots {
            slot.queue.clear();
            shared.report(Incoming::Unreachable { node: slot.node });
        }
        pause.on_lived(since.elapsed());
        let mut closing = shared.closing();
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            () = closed(&mut closing) => return,
        }
    }
}

impl Generation {
    fn start(shared: &Arc<Shared>, ground: &Ground) -> std::io::Result<Self> {
        let drivers = Arc::new(Drivers::default());
        // Each generation has its own handle of the one socket: what a panic leaks cannot keep the port.
        let socket = ground.socket.try_clone()?;
        let mut quinn =
            quinn::Endpoint::new(ground.endpoint.clone(), Some(ground.server.clone()), socket, drivers.clone())?;
        quinn.set_default_client_config(ground.client.clone());
        let quinn = Arc::new(Held::new(quinn));
        let mut accept = JoinSet::new();
        accept.spawn(accept::run(shared.clone(), quinn.clone()));
        Ok(Self { shared: shared.clone(), drivers, quinn, accept, links: JoinSet::new(), linked: BTreeMap::new() })
    }

    async fn run(mut self) -> End {
        let mut closing = self.shared.closing();
        let shared = self.shared.clone();
        let drivers = self.drivers.clone();
        loop {
            self.link();
            let reason = tokio::select! {
                () = shared.slots_changed.notified() => continue,
                Some(ended) = self.links.join_next_with_id(), if !self.links.is_empty() => {
                    self.on_link_ended(ended);
                    continue;
                }
                ended = self.accept.join_next() => match ended {
                    Some(Err(error)) => failure(error),
                    _ => "it accepts no more".to_owned(),
                },
                () = drivers.panicked() => "a task of the QUIC library panicked".to_owned(),
                () = closed(&mut closing) => {
                    self.close().await;
                    return End::Closed;
                }
            };
            self.links.abort_all();
            self.drivers.stop().await;
            // Its destructor may meet a poisoned mutex, and there is nothing left for it to do.
            std::mem::forget(self.quinn);
            return End::Lost(reason);
        }
    }

    /// Makes the links those that are configured.
    fn link(&mut self) {
        let slots = self.shared.slots().clone();
        self.linked.retain(|node, (slot, task)| {
            let stays = slots.get(node).is_some_and(|wanted| Arc::ptr_eq(wanted, slot));
            if !stays {
                task.abort();
            }
            stays
        });
        for (node, slot) in slots {
            let (shared, quinn) = (&self.shared, &self.quinn);
            let links = &mut self.links;
            self.linked.entry(node).or_insert_with(|| {
                let task = links.spawn(link::run(shared.clone(), quinn.clone(), slot.clone()));
                (slot, task)
            });
        }
    }

    /// A link ends by itself only if it panicked: it is started anew, on a clean slate.
    fn on_link_ended(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let found = self.linked.iter().find(|(_, (_, task))| task.id() == id).map(|(node, _)| *node);
        let Some((slot, _)) = found.and_then(|node| self.linked.remove(&node)) else { return };
        if let Err(error) = ended {
            self.shared
                .log_failure(slot.node, &format_args!("its link failed and is started anew: {}", failure(error)));
        }
        slot.queue.clear();
        self.shared.report(Incoming::Unreachable { node: slot.node });
    }

    async fn close(mut self) {
        let flushed = async {
            while self.links.join_next().await.is_some() {}
            while self.accept.join_next().await.is_some() {}
        };
        let _ = timeout(FLUSH_TIMEOUT, flushed).await;
        self.links.shutdown().await;
        self.accept.shutdown().await;
        self.quinn.close(Refusal::ShuttingDown.code(), b"");
        let _ = timeout(CLOSE_TIMEOUT, self.quinn.wait_idle()).await;
        drop(self.quinn);
        self.drivers.stop().await;
    }
}

/// Longer than all that a close may take, for the case that a task does not give way.
const ROOT_TIMEOUT: Duration = Duration::from_millis(950);
