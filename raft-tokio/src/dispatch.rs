//! Hands effects to whoever executes them: the log writer, the transport, the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use raft_core::{
    Configuration, Entries, Event, HardState, Index, NodeId, Observation, ReadId, Rpc, SnapshotMeta, WriteSeq,
};

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
    /// Who belongs to the cluster, or did since this node was started.
    pub(crate) members: BTreeSet<NodeId>,
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
    pub(crate) fn configure(&mut self, configuration: &Configuration) -> Option<Event> {
        let others = configuration.membership.members().map(|member| member.node);
        // Who was removed is still to be told so (contract M4), and forgotten at the next start.
        self.members.extend(others.filter(|node| *node != self.me));
        for node in self.members.iter().filter(|node| !self.addresses.contains_key(node)) {
            tracing::info!("{} does not know where {node} listens, before {node} says so itself", self.me);
        }
        self.connect();
        None
    }

    /// A node has said where it listens: those who were here before it learn it from itself.
    pub(crate) fn on_introduced(&mut self, node: NodeId, address: String) {
        if self.addresses.get(&node) != Some(&address) {
            tracing::info!(%node, address, "{} learns where a node listens", self.me);
            self.addresses.insert(node, address);
            self.connect();
        }
    }

    /// Makes links to whoever belongs to the cluster, and to whoever could take this node in.
    fn connect(&self) {
        let known = self.addresses.iter().filter(|(node, _)| self.members.is_empty() || self.members.contains(node));
        self.endpoint.connect_peers(known.map(|(node, address)| (*node, address.clone())).collect());
    }

    /// Sends a snapshot: its bytes come from the disk first.
    pub(crate) fn send_snapshot(&self, to: NodeId, meta: &SnapshotMeta) -> Option<Event> {
        self.writer.load_snapshot(to, meta.last);
        None
    }

    pub(crate) fn install(&self, seq: WriteSeq, meta: Arc<SnapshotMeta>) -> Option<Event> {
        self.writer.install(seq, meta);
        None
    }

    pub(crate) fn compact(&self, through: Index) -> Option<Event> {
        self.writer.compact(through);
        None
    }

    pub(crate) fn observe(&self, observation: &Observation) -> Option<Event> {
        match observation {
            Observation::Role { .. }
            | Observation::Leader { .. }
            | Observation::Configured(_)
            | Observation::Transferring { .. } => tracing::info!("{}{observation}", self.me),
            Observation::Stalled { .. } | Observation::Regressed { .. } => tracing::warn!("{}{observation}", self.me),
            Observation::Progress { .. } => tracing::debug!("{}{observation}", self.me),
            Observation::Accepted { .. } | Observation::Committed { .. } => {
                tracing::trace!("{}{observation}", self.me);
            }
        }
        None
    }

    /// Lets everybody finish: first the peers learn that this node goes, then the log is closed.
    /// Returns false if the disk has not answered in time; then it is left alone with its work.
    pub(crate) async fn stop(self) -> bool {
        let Self { me: _, addresses: _, members: _, endpoint, writer } = self;
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
