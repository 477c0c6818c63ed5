//! Who comes in: handshakes within a budget, then to the protocol that the certificate allows.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft_core::{ClusterId, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::contain::{Held, failure};
use super::endpoint::Shared;
use super::error::{DialError, Refusal};
use super::frame::{FrameReader, FrameWriter};
use super::hello::{self, Party, Welcome};
use super::limits::{HANDSHAKES_MAX, HANDSHAKES_UNVALIDATED_MAX, HANDSHAKES_WAITING_MAX, PEER_HANDSHAKES_MAX};
use super::link::closed;
use super::service::{self, Caller};
use super::tls::{self, Protocol};
use super::{Incoming, address, peers};
use crate::certs::{Identity, Role};

/// Accepts connections until the endpoint closes or is lost.
pub(super) async fn run(shared: Arc<Shared>, quinn: Arc<Held<quinn::Endpoint>>) {
    let mut closing = shared.closing();
    let mut door = Door::new(shared.clone());
    loop {
        let now = Instant::now();
        door.admit_waiting(now);
        tokio::select! {
            incoming = quinn.accept() => match incoming {
                Some(incoming) => door.on_incoming(Held::new(incoming), Instant::now()),
                None => return,
            },
            () = tokio::time::sleep(door.budget.wait()), if !door.waiting.is_empty() => {}
            Some(ended) = door.connections.join_next(), if !door.connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(failure = failure(error), "a task that served a connection failed");
                }
            }
            () = closed(&mut closing) => break,
        }
    }
    // They see for themselves that the endpoint closes.
    while door.connections.join_next().await.is_some() {}
}

/// What stands between a datagram and a connection.
struct Door {
    shared: Arc<Shared>,
    budget: Budget,
    /// One permit for each handshake under way with a party that is not known to be a peer.
    handshakes: Arc<Semaphore>,
    /// The same for addresses of peers, so that no crowd of others keeps them out.
    peer_handshakes: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    waiting: VecDeque<Held<quinn::Incoming>>,
    connections: JoinSet<()>,
}

impl Door {
    fn new(shared: Arc<Shared>) -> Self {
        let limits = shared.limits();
        Self {
            budget: Budget::new(limits.handshakes_per_second, Instant::now()),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            peer_handshakes: Arc::new(Semaphore::new(PEER_HANDSHAKES_MAX)),
            clients: Arc::new(Semaphore::new(limits.client_connections_max)),
            waiting: VecDeque::new(),
            connections: JoinSet::new(),
            shared,
        }
    }

    /// Somebody sent a first packet.
    fn on_incoming(&mut self, incoming: Held<quinn::Incoming>, now: Instant) {
        let under_way = HANDSHAKES_MAX - self.handshakes.available_permits();
        let crowded = under_way + self.waiting.len() >= HANDSHAKES_UNVALIDATED_MAX;
        // Where many come at once, each must show that it receives what is sent to its address:
        // that costs us nothing to ask, and a forger cannot answer.
        if crowded && incoming.may_retry() {
            // It fails for those only that were asked before.
            let _ = incoming.into_inner().retry();
            return;
        }
        if self.shared.knows_address(incoming.remote_address())
            && let Ok(permit) = self.peer_handshakes.clone().try_acquire_owned()
        {
            self.admit(incoming, permit);
            return;
        }
        self.waiting.push_back(incoming);
        self.admit_waiting(now);
        if self.waiting.len() > HANDSHAKES_WAITING_MAX
            && let Some(late) = self.waiting.pop_back()
        {
            self.shared.log_refused(late.remote_address(), &"too many handshakes at once");
            late.into_inner().refuse();
        }
    }

    /// Goes on with those that wait, as far as the budget reaches.
    fn admit_waiting(&mut self, now: Instant) {
        self.budget.refill(now);
        while !self.waiting.is_empty() && self.budget.has() {
            let Ok(permit) = self.handshakes.clone().try_acquire_owned() else { return };
            let Some(incoming) = self.waiting.pop_front() else { return };
            self.budget.spend();
            self.admit(incoming, permit);
        }
    }

    fn admit(&mut self, incoming: Held<quinn::Incoming>, permit: OwnedSemaphorePermit) {
        self.connections.spawn(serve(self.shared.clone(), incoming.into_inner(), permit, self.clients.clone()));
    }
}

/// Allows so many handshakes a second, and as many at once.
struct Budget {
    per_second: u32,
    left: f64,
    refilled: Instant,
}

impl Budget {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: f64::from(per_second), refilled: now }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.refilled).as_secs_f64() * f64::from(self.per_second);
        self.left = (self.left + gained).min(f64::from(self.per_second));
        self.refilled = now;
    }

    fn has(&self) -> bool {
        self.left >= 1.0
    }

    fn spend(&mut self) {
        self.left -= 1.0;
    }

    /// How long until there is something to spend, or a handshake may have ended.
    fn wait(&self) -> Duration {
        let missing = (1.0 - self.left).max(0.0) / f64::from(self.per_second.max(1));
        Duration::from_secs_f64(missing).max(Duration::from_millis(1))
    }
}

/// Somebody who has proved who it is, and said what it wants.
struct Introduced {
    connection: Held<quinn::Connection>,
    party: Party,
    version: u16,
    listens_at: Option<String>,
    reader: FrameReader,
    writer: FrameWriter,
}

/// One connection, from its first packet to its end.
async fn serve(
    shared: Arc<Shared>,
    incoming: quinn::Incoming,
    handshake: OwnedSemaphorePermit,
    clients: Arc<Semaphore>,
) {
    let address = incoming.remote_address();
    let introduction = timeout(shared.limits().handshake_timeout, introduce(&shared, incoming, address));
    let introduced = tokio::select! {
        introduced = introduction => introduced,
        () = async { closed(&mut shared.closing()).await } => return,
    };
    drop(handshake);
    let Introduced { connection, party, version, listens_at, reader, mut writer } = match introduced {
        Ok(Some(introduced)) => introduced,
        // Said and closed already.
        Ok(None) => return,
        Err(_) => {
            shared.log_refused(address, &"its handshake took too long");
            return;
        }
    };
    let welcome = |request_bytes_max| Welcome { version, me: shared.me(), request_bytes_max };
    match party {
        Party::Peer(from) => {
            if hello::welcome(&mut writer, &welcome(0)).await.is_ok() {
                tracing::debug!(peer = %from, %address, "the peer has connected");
                if let Some(address) = listens_at {
                    introduced_as(&shared, from.node, address);
                }
                peers::receive(&shared, &connection, from).await;
            }
        }
        Party::Client(name) => {
            let refuse = |refusal: Refusal| {
                shared.log_refused(address, &format_args!("client {name}: {refusal}"));
                connection.close(refusal.code(), b"");
            };
            let Some(service) = shared.service.clone() else { return refuse(Refusal::NotServed) };
            let Ok(_place) = clients.try_acquire_owned() else { return refuse(Refusal::Overloaded) };
            let request_bytes_max = shared.limits().request_bytes_max as u64;
            if hello::welcome(&mut writer, &welcome(request_bytes_max)).await.is_ok() {
                let caller = Caller { name, address };
                service::serve(&shared, &connection, service, caller, reader, writer).await;
            }
        }
    }
}

/// The handshake and the hello; `None` if it came to nothing, which has been said to both sides then.
async fn introduce(shared: &Shared, incoming: quinn::Incoming, address: SocketAddr) -> Option<Introduced> {
    let within = shared.limits().handshake_timeout;
    let connected = async { incoming.accept()?.await };
    let connection = match connected.await {
        Ok(connection) => Held::new(connection),
        Err(error) => {
            shared.log_refused(address, &DialError::from_connection(&error, within));
            return None;
        }
    };
    let refuse = |refusal: Refusal, detail: &str| {
        shared.log_refused(address, &format_args!("{refusal}: {detail}"));
        connection.close(refusal.code(), detail.as_bytes());
    };
    let Some((protocol, identity)) = tls::authenticated(&connection) else {
        refuse(Refusal::WrongRole, "the certificate names no node and no client");
        return None;
    };
    if let Err((refusal, detail)) = admissible(protocol, &identity, shared.cluster()) {
        refuse(refusal, &detail);
        return None;
    }
    let (hello, reader, writer) = match hello::hear(&connection).await {
        Ok(heard) => heard,
        Err(error) => {
            refuse(Refusal::Malformed, &error.to_string());
            return None;
        }
    };
    match hello::check(&hello, identity, shared.cluster(), shared.me()) {
        Ok((version, party)) => {
            Some(Introduced { connection, party, version, listens_at: hello.listens_at, reader, writer })
        }
        Err((refusal, detail)) => {
            refuse(refusal, &detail);
            None
        }
    }
}

/// A node says where it listens. What it says wrongly about that makes nothing else wrong.
fn introduced_as(shared: &Shared, node: NodeId, address: String) {
    match address::check(&address) {
        Ok(()) => shared.report(Incoming::Introduced { node, address }),
        Err(fault) => {
            shared.log_failure(node, &format_args!("the address that it says it listens at is ignored: {fault}"));
        }
    }
}

/// Whether this certificate may speak this protocol here. Before anything that was sent is read.
fn admissible(protocol: Protocol, identity: &Identity, cluster: ClusterId) -> Result<(), (Refusal, String)> {
    if identity.cluster != cluster {
        return Err((Refusal::WrongCluster, format!("this is cluster {cluster}, not {}", identity.cluster)));
    }
    match (protocol, &identity.role) {
        (Protocol::Peer, Role::Node(_)) | (Protocol::Client, Role::Client(_)) => Ok(()),
        (Protocol::Peer, role @ Role::Client(_)) => {
            Err((Refusal::WrongRole, format!("{role} speaks the peers' protocol")))
        }
        (Protocol::Client, role @ Role::Node(_)) => {
            Err((Refusal::WrongRole, format!("{role} speaks the clients' protocol")))
        }
    }
}
