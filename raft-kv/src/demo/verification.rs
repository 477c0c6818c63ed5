//! Whether everything that was acknowledged is there, everywhere.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{bail, ensure};
use raft_kv::client::{Client, Consistency, RangeReply, RangeRequest};
use raft_kv::key::KeyRange;
use raft_kv::protocol::NodeStatus;
use raft_tokio::core::NodeId;
use tokio::time::Instant;

use super::cluster::Cluster;
use super::expectation::{Differences, Expectation, compare};
use crate::cli::health::{Finding, Health, Verdict};
use crate::cli::output::{counted, grouped};

/// How long a node that was down may take to catch up.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the nodes are asked whether they have.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until all members have applied the same commands, and compares their hashes. Returns the
/// digest of keys, values, revisions, versions and sessions that all agree on.
pub(crate) async fn convergence(cluster: &mut Cluster) -> anyhow::Result<String> {
    let deadline = Instant::now() + CONVERGENCE_TIMEOUT;
    loop {
        let findings = cluster.ask().await;
        let health = Health::judge(&findings);
        ensure!(health.verdict != Verdict::Diverged, "{health}");
        if let Some(hash) = agreed_hash(&findings, cluster.members().len()) {
            return Ok(hash);
        }
        if Instant::now() >= deadline {
            let nodes = findings.iter().map(describe).collect::<Vec<_>>().join("\n  ");
            let limit = CONVERGENCE_TIMEOUT.as_secs();
            bail!("the nodes did not converge within {limit} s\n  {nodes}");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The hash of all members, if all answered and have applied everything that any of them knows of.
fn agreed_hash(findings: &[Finding], members: usize) -> Option<String> {
    let answers: Vec<&NodeStatus> = findings.iter().filter_map(|finding| finding.answer.as_ref().ok()).collect();
    let first = *answers.first()?;
    let last = answers.iter().map(|status| status.last).max()?;
    let same = |status: &NodeStatus| status.applied == last && status.state == first.state;
    let agreed = answers.len() == members && answers.iter().all(|status| same(status));
    agreed.then(|| first.state.hash.to_string())
}

fn describe(finding: &Finding) -> String {
    match &finding.answer {
        Ok(status) => format!(
            "{}@{} {}: last entry {}, applied {}, state hash {}",
            finding.node, status.term, status.role, status.last, status.applied, status.state.hash
        ),
        Err(reason) => format!("{}: {reason}", finding.node),
    }
}

/// Reads everything back through the cluster and compares it with what was acknowledged; then
/// reads each node's own copy and compares it with that. Returns how many keys there are.
pub(crate) async fn contents(
    client: &Client,
    members: &BTreeSet<NodeId>,
    expectation: &Expectation,
) -> anyhow::Result<u64> {
    let reference = list(client, Consistency::Linearizable).await?;
    accept(&expectation.check(&reference.kvs), "what was acknowledged is not what linearizable reads find")?;
    let (wanted, is) = (expectation.revision(), reference.revision);
    ensure!(
        is == wanted,
        "{} were acknowledged, so the store's revision should be {wanted}, but it is {is}: \
         a write was applied more than once, or one that nobody made",
        counted(expectation.writes(), "write")
    );
    for node in members {
        let copy = list(client, Consistency::Stale { node: Some(*node) }).await?;
        accept(
            &compare(&reference.kvs, &copy.kvs),
            &format!("the copy of {node} is not what linearizable reads find"),
        )?;
        ensure!(
            copy.revision == is,
            "the copy of {node} is at revision {}, but linearizable reads are at revision {is}",
            copy.revision
        );
    }
    Ok(reference.count)
}

async fn list(client: &Client, consistency: Consistency) -> anyhow::Result<RangeReply> {
    let request = RangeRequest { range: KeyRange::all(), limit: None, consistency };
    let reply = client.range(request).await?;
    ensure!(reply.revision == reply.revision_last, "somebody else writes to the demo's cluster");
    Ok(reply)
}

fn accept(differences: &Differences, message: &str) -> anyhow::Result<()> {
    if !differences.is_empty() {
        let keys = grouped(differences.total());
        bail!("{message}; differences: {keys}\n{differences}");
    }
    Ok(())
}
