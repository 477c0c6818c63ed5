//! Asks for the leader: only it knows who belongs to the cluster, and how far everybody is.

use std::collections::BTreeSet;
use std::time::Duration;

use raft_kv::client::Client;
use raft_kv::protocol::NodeStatus;
use raft_tokio::core::{NodeId, RoleKind};
use tokio::time::{Instant, sleep};

use super::exit::{Exit, Failure};
use super::status;

/// Between two questions to nodes that know of no leader.
const PAUSE: Duration = Duration::from_millis(50);

/// What the leader says of itself, if there is one now.
pub(crate) async fn now(client: &Client, patience: Duration) -> Option<NodeStatus> {
    let everyone: BTreeSet<NodeId> = client.endpoints().map(|(node, _)| node).collect();
    let findings = status::ask(client, &everyone, patience).await;
    let answers = findings.into_iter().filter_map(|finding| finding.answer.ok());
    // Of two that both think they lead, the one of the older term has been replaced.
    answers.filter(|status| status.role == RoleKind::Leader).max_by_key(|status| status.term)
}

/// What the first leader says of itself that `is_wanted`, if there is one within `patience`.
pub(crate) async fn find(
    client: &Client,
    patience: Duration,
    is_wanted: impl Fn(&NodeStatus) -> bool,
) -> Option<NodeStatus> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if let Some(status) = now(client, left).await.filter(&is_wanted) {
            return Some(status);
        }
        if Instant::now() + PAUSE >= deadline {
            return None;
        }
        sleep(PAUSE).await;
    }
}

/// The same, of any leader.
pub(crate) async fn require(client: &Client, patience: Duration) -> anyhow::Result<NodeStatus> {
    find(client, patience, |_| true).await.ok_or_else(|| {
        let message = format!(
            "no leader answered within {patience:?}, and only a leader knows who belongs to the cluster; `raft-kv status` \
             shows which nodes are up"
        );
        Failure::new(Exit::Unavailable, message).into()
    })
}
