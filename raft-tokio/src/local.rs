//! A whole cluster on this machine: for a first try, and for tests of an application.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use raft_core::{ClusterId, Limits, Member, Membership, MembershipError, NodeId, RoleKind, StateMachine, StoreId};

use crate::certs::{Authority, Credentials, CredentialsError, IssueError};
use crate::error::StartError;
use crate::node::Node;
use crate::storage::{self, Birth, StorageError};

/// What a cluster needs besides its processes: a folder of formatted data directories, addresses
/// on the loopback interface, and an authority for its certificates.
///
/// Certificates live only as long as this value; everything else about the nodes it starts is what
/// it would be in production.
#[derive(Debug)]
pub struct LocalSite {
    folder: PathBuf,
    cluster: ClusterId,
    authority: Authority,
    addresses: BTreeMap<NodeId, SocketAddr>,
    limits: Limits,
}

/// Why there is no cluster on this machine.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No such cluster can exist.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A certificate could not be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A data directory could not be made.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No port was free.
    #[error("cannot find a free UDP port on the loopback interface: {0}")]
    Port(#[source] io::Error),
    /// A node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl LocalSite {
    /// Forms a cluster of `size` nodes with their data directories below `folder`.
    ///
    /// # Errors
    /// If the folder cannot be written to or holds such directories already, if there are too many
    /// nodes, or no free ports.
    pub fn form(folder: impl Into<PathBuf>, size: u64) -> Result<Self, LocalError> {
        let folder = folder.into();
        let nodes: Vec<NodeId> = (1..=size).filter_map(NodeId::new).collect();
        // All are held until all are found, so that no port is found twice.
        let sockets = nodes.iter().map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<Vec<_>>>();
        let addresses = sockets.and_then(|sockets| sockets.iter().map(UdpSocket::local_addr).collect());
        let addresses: Vec<SocketAddr> = addresses.map_err(LocalError::Port)?;
        let cluster = ClusterId::new(identity_of(&folder, &addresses));
        let store_of = |node: NodeId| StoreId::new(cluster.as_u128().wrapping_add(node.as_u64().into()));
        let membership = Membership::new(nodes.iter().map(|&node| Member { node, store: store_of(node) }))?;
        for &node in &nodes {
            let birth = Birth { cluster, node, store: store_of(node), membership: membership.clone() };
            storage::format(&data_dir(&folder, node), &birth)?;
        }
        let addresses = nodes.into_iter().zip(addresses).collect();
        Ok(Self { folder, cluster, authority: Authority::new(cluster)?, addresses, limits: Limits::DEFAULT })
    }

    /// The same, whose nodes keep within other limits than [`Limits::DEFAULT`].
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Makes what a new member needs, whom a leader has given the id `node` for its store: a data
    /// directory that belongs to nobody yet, and an address. The nodes that run already do not
    /// know that address: it tells them.
    ///
    /// # Errors
    /// If the directory cannot be made, or no port is free.
    pub fn admit(&mut self, node: NodeId, store: StoreId) -> Result<(), LocalError> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(LocalError::Port)?;
        let birth = Birth { cluster: self.cluster, node, store, membership: Membership::default() };
        storage::format(&data_dir(&self.folder, node), &birth)?;
        self.addresses.insert(node, socket.local_addr().map_err(LocalError::Port)?);
        Ok(())
    }

    /// The members.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.addresses.keys().copied()
    }

    /// Starts one node, for the first time or again.
    ///
    /// # Errors
    /// If it does not start, or is no member.
    pub fn start<M>(&self, node: NodeId, machine: M) -> Result<Node<M>, LocalError>
    where
        M: StateMachine + Send + 'static,
    {
        let listen = *self.addresses.get(&node).ok_or(StartError::NoAddress { node })?;
        let issued = self.authority.issue_node(node)?;
        let credentials = Credentials::from_pem(self.authority.cert_pem(), &issued.cert_pem, &issued.key_pem)?;
        let peers = self.addresses.iter().map(|(node, address)| (*node, address.to_string()));
        let builder = Node::builder(self.cluster, node, data_dir(&self.folder, node), listen, credentials);
        Ok(builder.peers(peers).advertise(listen.to_string()).limits(self.limits).start(machine)?)
    }

    /// Starts all nodes, each with a machine of its own.
    ///
    /// # Errors
    /// If one of them does not start.
    pub fn start_all<M>(&self, machine: impl Fn() -> M) -> Result<BTreeMap<NodeId, Node<M>>, LocalError>
    where
        M: StateMachine + Send + 'static,
    {
        self.nodes().map(|node| Ok((node, self.start(node, machine())?))).collect()
    }
}

/// Waits until one of `nodes` leads and knows what is committed.
pub async fn leader<M>(nodes: &BTreeMap<NodeId, Node<M>>) -> &Node<M>
where
    M: StateMachine + Send + 'static,
{
    loop {
        for node in nodes.values() {
            let leads = |status: raft_core::Status| status.role == RoleKind::Leader && status.log.committed_in_term;
            if node.status().await.is_ok_and(leads) {
                return node;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn data_dir(folder: &Path, node: NodeId) -> PathBuf {
    folder.join(node.to_string())
}

/// Something that no other cluster on this machine has at the same time: the ports are taken.
fn identity_of(folder: &Path, addresses: &[SocketAddr]) -> u128 {
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let place = crc32c::crc32c(format!("{} {addresses:?}", folder.display()).as_bytes());
    (started << 32) | u128::from(place)
}
