//! The transport between nodes, and between nodes and clients, over real sockets.

mod introductions;
mod links;
mod service;
mod snapshots;
mod stranger;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raft_tokio::certs::{Authority, Credentials, Issued};
use raft_tokio::core::{
    Append, Boot, ClusterId, Entries, Entry, Index, NodeId, Payload, Peer, Position, Round, Rpc, StoreId, Term,
};
use raft_tokio::transport::{Endpoint, Incoming, Limits, Options, Service, TransportError};
use tokio::sync::mpsc;

/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("because no test asks for node 0")
}

fn peer(id: u64, boot: u64) -> Peer {
    Peer { node: node(id), store: StoreId::new(u128::from(id)), boot: Boot::new(boot) }
}

fn authority(cluster: u128) -> Authority {
    Authority::new(ClusterId::new(cluster)).expect("because the system has randomness")
}

fn credentials(authority: &Authority, issued: &Issued) -> Credentials {
    Credentials::from_pem(authority.cert_pem(), &issued.cert_pem, &issued.key_pem)
        .expect("because they were issued together")
}

fn node_credentials(authority: &Authority, id: u64) -> Credentials {
    credentials(authority, &authority.issue_node(node(id)).expect("because the system has randomness"))
}

fn client_credentials(authority: &Authority) -> Credentials {
    credentials(authority, &authority.issue_client("ops").expect("because the name is plain"))
}

fn options(authority: &Authority, me: Peer) -> Options {
    Options {
        listen: "127.0.0.1:0".parse().expect("because it is an address"),
        advertise: None,
        me,
        cluster: authority.cluster(),
        credentials: node_credentials(authority, me.node.as_u64()),
        limits: Limits::DEFAULT,
    }
}

/// An endpoint, and what it has received.
struct Station {
    endpoint: Endpoint,
    inbox: mpsc::UnboundedReceiver<Incoming>,
}

impl Station {
    fn open(options: Options) -> Self {
        Self::try_open(options, None).expect("because the port is free")
    }

    fn serving(options: Options, service: impl Service) -> Self {
        Self::try_open(options, Some(Arc::new(service))).expect("because the port is free")
    }

    fn try_open(options: Options, service: Option<Arc<dyn Service>>) -> Result<Self, TransportError> {
        let (outbox, inbox) = mpsc::unbounded_channel();
        // The test may have ended by the time that something arrives.
        let report = move |incoming| drop(outbox.send(incoming));
        Ok(Self { endpoint: Endpoint::bind(options, report, service)?, inbox })
    }

    fn address(&self) -> String {
        self.endpoint.local_addr().to_string()
    }

    fn connect(&self, id: u64, address: impl Into<String>) {
        self.endpoint.connect_peers(BTreeMap::from([(node(id), address.into())]));
    }

    async fn incoming(&mut self) -> Incoming {
        in_time("a report of the transport", self.inbox.recv()).await.expect("because the endpoint lives")
    }

    async fn received(&mut self) -> (Peer, Rpc) {
        match self.incoming().await {
            Incoming::Received { from, rpc } => (from, rpc),
            other => panic!("unexpected {other:?}"),
        }
    }

    async fn unreachable(&mut self) -> NodeId {
        loop {
            if let Incoming::Unreachable { node } = self.incoming().await {
                return node;
            }
        }
    }

    /// The next message of this peer, without what `reach` has sent more than was needed.
    async fn news_of(&mut self, peer: Peer) -> Rpc {
        match self.news().await {
            Incoming::Received { from, rpc } if from == peer => rpc,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Sends to a peer again and again until it has something from us; gives the sender as the peer sees it.
    async fn reach(&self, to: u64, other: &mut Self) -> Peer {
        let knock = KNOCKS.fetch_add(1, Ordering::Relaxed);
        let mut every = tokio::time::interval(Duration::from_millis(20));
        let reached = async {
            loop {
                tokio::select! {
                    _ = every.tick() => self.endpoint.send(node(to), heartbeat(knock)),
                    incoming = other.inbox.recv() => match incoming.expect("because the endpoint lives") {
                        Incoming::Received { from, rpc } if rpc == heartbeat(knock) => return from,
                        _ => {}
                    },
                }
            }
        };
        in_time("the first message", reached).await
    }

    /// What arrives, without what `reach` has sent more than was needed.
    async fn news(&mut self) -> Incoming {
        loop {
            match self.incoming().await {
                Incoming::Received { rpc: Rpc::Heartbeat { round, .. }, .. } if round.as_u64() >= FIRST_KNOCK => {}
                incoming => return incoming,
            }
        }
    }
}

/// The rounds of the messages by which `reach` finds out whether it has reached anybody.
static KNOCKS: AtomicU64 = AtomicU64::new(FIRST_KNOCK);
const FIRST_KNOCK: u64 = 1 << 32;

fn heartbeat(round: u64) -> Rpc {
    Rpc::Heartbeat { term: Term::new(1), round: Round::new(round), commit: Index::ZERO, promise: Duration::ZERO }
}

fn append(round: u64, bytes: usize) -> Rpc {
    let payload = Payload::Command(Bytes::from(vec![round as u8; bytes]));
    let entries = Entries::new(vec![Entry { term: Term::new(1), index: Index::new(round), payload }]);
    Rpc::Append(Arc::new(Append {
        term: Term::new(1),
        round: Round::new(round),
        prev: Position::ZERO,
        commit: Index::ZERO,
        entries: entries.expect("because one entry is in order"),
    }))
}
