//! Hands effects to whoever executes them: the log writer, the transport, the log.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use raft_core::{Entries, Event, HardState, Index, Membership, NodeId, Observation, ReadId, Rpc, WriteSeq};

use tokio::sync::oneshot;
use tokio::time::timeout;

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
    /// Returns false if the disk has not answered in time; then it is left alone with its work.
    pub(crate) async fn stop(self) -> bool {
        let Self { me: _, addresses: _, endpoint, writer } = self;
        endpoint.close().await;
        let (done, closed) = oneshot::channel();
        // Closing waits for the disk, which may never answer. Not a thread of the runtime's own: when
        // a runtime is dropped it waits for those, without end.
        let closing = thread::Builder::new().name("raft-log-close".to_owned()).spawn(move || {
            writer.close();
            // Whoever waited may have lost patience.
            let _ = done.send(());
        });
        match closing {
            // An error says that closing panicked, which it has said itself.
            Ok(_) => timeout(CLOSE_PATIENCE, closed).await.is_ok(),
            Err(error) => {
                // Dropped with the closure that had it, the writer is closed.
                tracing::warn!(%error, "no thread to close the log on; closed on this one");
                true
            }
        }
    }
}

/// How long a disk may take to finish what it was given, at the end.
pub(crate) const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
