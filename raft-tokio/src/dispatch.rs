//! Hands effects to whoever executes them: the log writer, the transport, the log.

use std::collections::BTreeMap;

use raft_core::{Entries, Event, HardState, Index, Membership, NodeId, Observation, ReadId, Rpc, WriteSeq};

use crate::storage::{Write, Writer};
use crate::transport::Endpoint;

/// Everything outside the driver that executes effects.
///
/// Each method returns the event that follows at once, if one does.
pub(crate) struct Executors {
    pub(crate) me: NodeId,
    pub(crate) addresses: BTreeMap<NodeId, String>,
    pub(crate) endpoint: Endpoint,
    pub(crate) writer: Writer,
}

impl Executors {
    pub(crate) fn send(&self, to: NodeId, rpc: Rpc) -> Option<Event> {
        tracing::trace!("{} → {to} {rpc}", self.me);
        self.endpoint.send(to, rpc);
        None
    }

    pub(crate) fn persist(&self, seq: WriteSeq, hard_state: Option<HardState>, entries: Entries) -> Option<Event> {
        self.writer.write(Write { seq, hard_state, entries });
        None
    }

    pub(crate) fn read_log(&self, id: ReadId, from: Index, through: Index, max_bytes: u64) -> Option<Event> {
        self.writer.read(id, from, through, max_bytes);
        None
    }

    /// The cluster's members are these from now on.
    pub(crate) fn configure(&self, membership: &Membership) -> Option<Event> {
        let others = membership.voters().iter().map(|member| member.node).filter(|node| *node != self.me);
        let address_of = |node| self.addresses.get(&node).map(|address| (node, address.clone()));
        self.endpoint.connect_peers(others.filter_map(address_of).collect());
        None
    }

    pub(crate) fn observe(&self, observation: &Observation) -> Option<Event> {
        match observation {
            Observation::Role { .. } | Observation::Leader { .. } => tracing::info!("{}{observation}", self.me),
            Observation::Accepted { .. } | Observation::Committed { .. } => {
                tracing::trace!("{}{observation}", self.me);
            }
        }
        None
    }

    /// Lets everybody finish: first the peers learn that this node goes, then the log is closed.
    pub(crate) async fn stop(self) {
        self.endpoint.close().await;
        // Closing waits for the disk, which is not to hold up the runtime.
        if tokio::task::spawn_blocking(|| self.writer.close()).await.is_err() {
            tracing::error!("closing the log panicked");
        }
    }
}
