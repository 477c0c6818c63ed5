//! The network: messages to and from peers, and requests of clients, over QUIC on one UDP port.
//!
//! Nothing outside this module (and [`certs`](crate::certs)) names quinn, rustls or rcgen; and
//! nothing outside its own supervised tasks calls quinn, so that a panic there costs connections,
//! never the replica (contract X1). The node talks to it by queues that never wait.
//!
//! * **Who is who**: TLS 1.3, both sides authenticated; the sender of a message is whom its
//!   certificate names, whatever the message says. Peers and clients speak two protocols (ALPN
//!   `raft-peer/1` and `raft-client/1`), each with certificates of its own kind.
//! * **Peers**: each node dials every other one, and sends over what it has dialled: urgent
//!   messages on one stream, appends on another of lower priority, and each snapshot on one of its
//!   own behind both. A lost connection is dialled again, soon at first, then less often, and at
//!   once when the peer has come back by itself. Whoever has a certificate of the cluster is heard,
//!   known here or not: who belongs to it is decided by the log, not by the network.
//! * **Clients**: one stream a connection, framed, with ids, many requests in flight.
//! * **Bounded**: every queue, frame, window and wait has a limit, see [`Limits`].
//!
//! ```
//! use std::sync::Arc;
//! use raft_tokio::certs::{Authority, Credentials};
//! use raft_tokio::core::{Boot, ClusterId, NodeId, Peer, StoreId};
//! use raft_tokio::transport::{Caller, ClientEndpoint, Endpoint, Limits, Options, Service};
//!
//! struct Echo;
//!
//! impl Service for Echo {
//!     fn call(&self, _: &Caller, request: bytes::Bytes) -> std::pin::Pin<Box<dyn Future<Output = bytes::Bytes> + Send>> {
//!         Box::pin(async move { request })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = ClusterId::new(7);
//! let node = NodeId::new(1).expect("because 1 is not 0");
//! let authority = Authority::new(cluster)?;
//! let (server, client) = (authority.issue_node(node)?, authority.issue_client("ops")?);
//!
//! let options = Options {
//!     listen: "127.0.0.1:0".parse()?,
//!     advertise: None,
//!     me: Peer { node, store: StoreId::new(1), boot: Boot::new(1) },
//!     cluster,
//!     credentials: Credentials::from_pem(authority.cert_pem(), &server.cert_pem, &server.key_pem)?,
//!     limits: Limits::DEFAULT,
//! };
//! let endpoint = Endpoint::bind(options, |_incoming| {}, Some(Arc::new(Echo)))?;
//!
//! let credentials = Credentials::from_pem(authority.cert_pem(), &client.cert_pem, &client.key_pem)?;
//! let clients = ClientEndpoint::new(&credentials, Limits::DEFAULT)?;
//! let connection = clients.connect(&endpoint.local_addr().to_string(), Some(node)).await?;
//! assert_eq!(connection.call("hello".into()).await?, "hello");
//! endpoint.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Omitted: 0-RTT, session resumption, connection migration, datagrams, a stream for each
//! request (four times the CPU of frames), compression.

mod accept;
mod address;
mod client;
mod contain;
mod dial;
mod endpoint;
mod error;
mod frame;
mod generation;
mod hello;
mod limits;
mod link;
mod peers;
mod queue;
mod service;
mod snapshot;
mod tls;

use std::net::SocketAddr;

use bytes::Bytes;
use raft_core::{ClusterId, NodeId, Peer, Position, Rpc, SnapshotMeta};

use crate::certs::Credentials;

pub use address::AddressFault;
pub use client::{ClientConnection, ClientEndpoint};
pub use endpoint::{Bound, Endpoint};
pub use error::{CallError, CertificateFault, DialError, Refusal, TransportError};
pub use limits::Limits;
pub use service::{Caller, Service};

/// What an [`Endpoint`] is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where others reach it (`host:port`), which it tells each node that it connects to.
    pub advertise: Option<String>,
    /// Who this node is, with its store and that store's life.
    pub me: Peer,
    /// Its cluster.
    pub cluster: ClusterId,
    /// What it proves itself with.
    pub credentials: Credentials,
    /// What it keeps, accepts and waits for at most.
    pub limits: Limits,
}

/// What comes from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A peer has sent a message.
    Received {
        /// Whom its certificate and its hello have shown it to be.
        from: Peer,
        /// The message.
        rpc: Rpc,
    },
    /// Some of a snapshot has come; told every 256 KiB.
    SnapshotProgress {
        /// Who sends it.
        from: Peer,
        /// Where it ends.
        last: Position,
        /// Bytes so far.
        received: u64,
    },
    /// A snapshot has come: all of it, with the right checksum.
    Snapshot {
        /// Who has sent it.
        from: Peer,
        /// What it stands for.
        meta: SnapshotMeta,
        /// The state.
        data: Bytes,
    },
    /// The rest of a snapshot will not come. Not told of one that its sender has replaced by a newer one.
    SnapshotFailed {
        /// Who was sending it.
        from: Peer,
        /// Where it would have ended.
        last: Position,
    },
    /// A node has connected, and says where it listens itself.
    Introduced {
        /// The node, as its certificate says.
        node: NodeId,
        /// `host:port`; its form was checked, not whether it is there.
        address: String,
    },
    /// What was on its way to this peer is lost.
    Unreachable {
        /// The peer.
        node: NodeId,
    },
}

/// What an [`Endpoint`] has dropped and refused since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Urgent messages that made room for newer ones, or had nowhere to go.
    pub urgent_dropped: u64,
    /// Appends that did not fit into their queue, or had nowhere to go.
    pub bulk_dropped: u64,
    /// Snapshots that made room for newer ones, or had nowhere to go.
    pub snapshots_dropped: u64,
    /// Connections that others tried and were refused.
    pub connections_refused: u64,
}
