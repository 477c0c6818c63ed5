//! How a node is, in the client's terms.

use std::time::Duration;

use raft_tokio::core::{Configuration, Member, Status, Storage};
use raft_tokio::transport::Counters;
use raft_tokio::{Node, RuntimeStatus};

use super::refused;
use crate::machine::Machine;
use crate::protocol::{NodeStatus, PeerProgress, Reply, Response, RuntimeSummary, StateSummary};

pub(super) async fn status(node: &Node<Machine>) -> Response {
    let status = node.status().await.map_err(refused)?;
    let state = node.read_stale(summary).await.map_err(refused)?;
    let runtime = node.runtime_status().await.map_err(refused)?;
    Ok(Reply::Status(Box::new(describe(&status, state, &runtime))))
}

fn summary(machine: &Machine) -> StateSummary {
    StateSummary {
        index: machine.applied().index,
        revision: machine.store().revision(),
        keys: machine.store().len() as u64,
        sessions: machine.sessions().len() as u64,
        hash: machine.hash(),
    }
}

fn describe(status: &Status, state: StateSummary, runtime: &RuntimeStatus) -> NodeStatus {
    let Status { identity, role, hard_state, leader, configuration, transfer, log, peers, load } = status;
    let Configuration { index: configuration, membership } = configuration;
    let ids = |members: &[Member]| members.iter().map(|member| member.node).collect();
    NodeStatus {
        node: identity.node,
        cluster: identity.cluster,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: *role,
        term: hard_state.term,
        leader: *leader,
        last: log.last.index,
        durable: log.durable,
        commit: log.commit,
        applied: log.applied,
        state,
        peers: peers
            .iter()
            .map(|peer| PeerProgress {
                node: peer.node,
                matched: peer.matched,
                next: peer.next,
                inflight: peer.inflight as u64,
                supply: peer.mode,
                silent_for_ms: millis(peer.silent_for),
            })
            .collect(),
        configuration: *configuration,
        voters: ids(membership.voters()),
        outgoing: ids(membership.outgoing()),
        learners: membership.learners().iter().map(|learner| learner.member.node).collect(),
        transfer: *transfer,
        base: log.base.index,
        log_bytes: log.bytes,
        snapshot: log.snapshot.index,
        snapshot_bytes: log.snapshot_bytes,
        proposals: load.proposals as u64,
        reads: load.reads as u64,
        held: load.held as u64,
        storage_full: load.storage == Storage::Full,
        storage_failed: load.storage == Storage::Failed,
        runtime: summarise(runtime),
    }
}

fn summarise(runtime: &RuntimeStatus) -> RuntimeSummary {
    let RuntimeStatus { late_wakeups, lateness_max, long_turns, turn_max, transport } = runtime;
    let Counters { urgent_dropped, bulk_dropped, snapshots_dropped, connections_refused } = transport;
    RuntimeSummary {
        late_wakeups: *late_wakeups,
        lateness_max_ms: millis(*lateness_max),
        long_turns: *long_turns,
        turn_max_ms: millis(*turn_max),
        messages_dropped: urgent_dropped.saturating_add(*bulk_dropped).saturating_add(*snapshots_dropped),
        connections_refused: *connections_refused,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
