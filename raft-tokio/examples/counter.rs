//! A replicated counter: three nodes with durable logs, talking QUIC with mutual TLS.
//!
//! `cargo run -p raft-tokio --example counter`

use std::{collections::BTreeMap, error::Error, net::UdpSocket};

use bytes::Bytes;
use raft_tokio::Node;
use raft_tokio::certs::{Authority, Credentials};
use raft_tokio::core::{ClusterId, Member, Membership, NodeId, Position, StateMachine, StoreId};
use raft_tokio::storage::{self, Birth};

struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _position: Position, _command: &Bytes) -> Bytes {
        self.0 += 1;
        Bytes::from(self.0.to_string())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (folder, cluster) = (tempfile::tempdir()?, ClusterId::new(1));
    let members: Vec<Member> = (1..=3)
        .filter_map(NodeId::new)
        .map(|node| Member { node, store: StoreId::new(node.as_u64().into()) })
        .collect();
    let (authority, membership) = (Authority::new(cluster)?, Membership::new(members.clone())?);
    let sockets = members.iter().map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
    drop(sockets); // The ports are free: the nodes can have them.
    let peers: BTreeMap<NodeId, String> =
        members.iter().zip(&addresses).map(|(member, address)| (member.node, address.to_string())).collect();

    let mut nodes = BTreeMap::new();
    for (Member { node, store }, address) in members.into_iter().zip(addresses) {
        let data = folder.path().join(node.to_string());
        storage::format(&data, &Birth { cluster, node, store, membership: membership.clone() })?;
        let issued = authority.issue_node(node)?;
        let credentials = Credentials::from_pem(authority.cert_pem(), &issued.cert_pem, &issued.key_pem)?;
        let builder = Node::builder(cluster, node, data, address, credentials).peers(peers.clone());
        nodes.insert(node, builder.start(Counter(0))?);
    }

    for _ in 0..5 {
        // Any node says who leads, or does not know yet: then ask again.
        let leader = loop {
            let asked = nodes.values().next().ok_or("three nodes")?;
            match asked.status().await?.leader.and_then(|leader| nodes.get(&leader)) {
                Some(leader) => break leader,
                None => tokio::task::yield_now().await,
            }
        };
        let proposed = leader.propose("one more").await?;
        println!("{} counted to {}", proposed.position, String::from_utf8_lossy(&proposed.answer));
    }
    for node in nodes.values() {
        node.shutdown().await;
    }
    Ok(())
}
