//! `status`: asks every node how it is.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use raft_kv::client::{Client, ClientError};
use raft_kv::protocol::{NodeStatus, PeerProgress, RuntimeSummary};
use raft_tokio::core::NodeId;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::arguments::{Format, Status};
use super::connect;
use super::details::details;
use super::exit::Exit;
use super::health::{Finding, Health, Kind, Members, NoAnswer, Verdict};
use super::output;

/// Once a majority has answered, the others have so long: a dead node must not make the command
/// slow, for that is when it is used.
const GRACE: Duration = Duration::from_millis(500);

/// Shows how the cluster and its nodes are.
pub(crate) async fn status(arguments: &Status) -> anyhow::Result<Exit> {
    let client = connect::client(&arguments.client)?;
    let everyone = client.endpoints().map(|(node, _)| node).collect();
    let findings = ask(&client, &everyone, arguments.client.timeout).await;
    let health = Health::judge(&findings);
    match arguments.output.output {
        format @ (Format::Plain | Format::Table) => {
            let cure = cure(&health, &findings, &arguments.client.cluster.config);
            let details = details(&findings, format == Format::Table);
            output::write_line(&format!("{health}\n\n{}{details}{cure}", findings_table(&findings)))?;
        }
        Format::Json => output::write_json(&health_json(&health, &findings))?,
    }
    Ok(health.exit())
}

/// Asks these nodes, all at once. There is one finding for each of them, in their order.
pub(crate) async fn ask(client: &Client, nodes: &BTreeSet<NodeId>, patience: Duration) -> Vec<Finding> {
    let endpoints: Vec<(NodeId, String)> = client
        .endpoints()
        .filter(|(node, _)| nodes.contains(node))
        .map(|(node, address)| (node, address.to_owned()))
        .collect();
    let mut asked = JoinSet::new();
    for (node, address) in endpoints.clone() {
        let client = client.clone();
        asked.spawn(async move {
            let answer = client.status(node).await.map_err(|error| no_answer(node, &error));
            Finding { node, address, answer }
        });
    }
    let mut findings: Vec<Finding> = Vec::new();
    // The client's own time limit, if it is the same, is to be heard first: it says more.
    let mut deadline = Instant::now() + patience + Duration::from_millis(100);
    while let Ok(Some(joined)) = timeout_at(deadline, asked.join_next()).await {
        // A task that panicked is a node without an answer, which is added below.
        findings.extend(joined.ok());
        if findings.iter().filter(|finding| finding.answer.is_ok()).count() > endpoints.len() / 2 {
            deadline = deadline.min(Instant::now() + GRACE);
        }
    }
    for (node, address) in endpoints {
        if !findings.iter().any(|finding| finding.node == node) {
            findings.push(Finding { node, address, answer: Err(NoAnswer::Silent("did not answer".to_owned())) });
        }
    }
    findings.sort_by_key(|finding| finding.node);
    findings
}

/// How far the last attempt got.
fn no_answer(node: NodeId, error: &ClientError) -> NoAnswer {
    let (ClientError::Unavailable(trail) | ClientError::Distrusted(trail)) = error else {
        return NoAnswer::Silent(error.to_string());
    };
    let last = trail.endpoints.get(&node).and_then(|endpoint| endpoint.last.as_ref());
    let reason = last.map_or_else(|| error.to_string(), ToString::to_string);
    match trail.remedy() {
        Some(remedy) => NoAnswer::Refused { reason, remedy },
        None => NoAnswer::Silent(reason),
    }
}

/// What to do about a cluster that cannot serve, or not this client.
fn cure(health: &Health, findings: &[Finding], config: &Path) -> String {
    match health.verdict {
        Verdict::Healthy | Verdict::Degraded | Verdict::Diverged => String::new(),
        Verdict::Refused => {
            let remedies: BTreeSet<&str> = findings
                .iter()
                .filter_map(|finding| match &finding.answer {
                    Err(NoAnswer::Refused { remedy, .. }) => Some(remedy.as_str()),
                    Err(NoAnswer::Silent(_)) | Ok(_) => None,
                })
                .collect();
            remedies.into_iter().map(|remedy| format!("\n\n{remedy}")).collect()
        }
        Verdict::Down => format!(
            "\n\na majority of the nodes must be up and reach each other; \
             `raft-kv serve --config {} --node N` starts one",
            config.display()
        ),
    }
}

fn findings_table(findings: &[Finding]) -> String {
    let numbers = ["TERM", "COMMIT", "APPLIED", "DURABLE", "REVISION", "KEYS"];
    let header = ["NODE", "ADDRESS", "ROLE", "TERM", "COMMIT", "APPLIED", "DURABLE", "REVISION", "KEYS", "HASH"];
    let membership = Members::of(findings.iter().filter_map(|finding| finding.answer.as_ref().ok()));
    let rows = findings.iter().map(|Finding { node, address, answer }| {
        let mut row = vec![node.to_string(), address.clone()];
        match answer {
            Ok(status) => row.extend(status_cells(status, &membership)),
            Err(none) => {
                row.push(none.name().to_owned());
                row.resize(header.len(), "-".to_owned());
            }
        }
        row
    });
    let table = output::table(&header, &numbers, rows);
    let silent = findings.iter().filter_map(|finding| Some((finding.node, finding.answer.as_ref().err()?)));
    let reasons: String = silent.map(|(node, reason)| format!("\n{node} {reason}")).collect();
    if reasons.is_empty() { table } else { format!("{table}\n{reasons}") }
}

fn status_cells(status: &NodeStatus, members: &Members) -> [String; 8] {
    // Enough of the hash to compare by eye; JSON has all of it.
    let mut hash = status.state.hash.to_string();
    hash.truncate(12);
    let role = match members.kind(status.node) {
        Kind::Voter => status.role.to_string(),
        Kind::Learner => "learner".to_owned(),
        Kind::Stranger => "no member".to_owned(),
    };
    [
        role,
        status.term.to_string(),
        status.commit.to_string(),
        status.applied.to_string(),
        status.durable.to_string(),
        status.state.revision.to_string(),
        status.state.keys.to_string(),
        hash,
    ]
}

fn health_json(health: &Health, findings: &[Finding]) -> Value {
    let nodes: Vec<Value> = findings.iter().map(finding_json).collect();
    json!({
        "verdict": health.verdict.name(),
        "summary": health.to_string(),
        "leader": health.leader.map(|leader| leader.to_string()),
        "members": health.members,
        "working": health.working,
        "tolerates": health.tolerates,
        "nodes": nodes,
    })
}

fn names(nodes: &[NodeId]) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}

fn peer_json(peer: &PeerProgress) -> Value {
    let PeerProgress { node, matched, next, inflight, supply, silent_for_ms } = peer;
    json!({
        "node": node.to_string(),
        "matched": matched.as_u64(),
        "next": next.as_u64(),
        "in_flight": inflight,
        "supply": supply.to_string(),
        "silent_for_ms": silent_for_ms,
    })
}

fn runtime_json(runtime: &RuntimeSummary) -> Value {
    let RuntimeSummary {
        late_wakeups,
        lateness_max_ms,
        long_turns,
        turn_max_ms,
        messages_dropped,
        connections_refused,
    } = runtime;
    json!({
        "late_wakeups": late_wakeups,
        "lateness_max_ms": lateness_max_ms,
        "long_turns": long_turns,
        "turn_max_ms": turn_max_ms,
        "messages_dropped": messages_dropped,
        "connections_refused": connections_refused,
    })
}

/// Names and identities are strings: many readers of JSON round large numbers.
fn finding_json(finding: &Finding) -> Value {
    let mut fields = json!({ "node": finding.node.to_string(), "address": finding.address });
    let more = match &finding.answer {
        Err(none) => json!({ "error": none.to_string(), "refused": matches!(none, NoAnswer::Refused { .. }) }),
        Ok(status) => json!({
            "cluster": status.cluster.to_string(),
            "program_version": status.version,
            "role": status.role.to_string(),
            "term": status.term.as_u64(),
            "leader": status.leader.map(|leader| leader.to_string()),
            "last": status.last.as_u64(),
            "durable": status.durable.as_u64(),
            "commit": status.commit.as_u64(),
            "applied": status.applied.as_u64(),
            "revision": status.state.revision.as_u64(),
            "keys": status.state.keys,
            "sessions": status.state.sessions,
            "hash": status.state.hash.to_string(),
            "log_base": status.base.as_u64(),
            "log_bytes": status.log_bytes,
            "snapshot": status.snapshot.as_u64(),
            "snapshot_bytes": status.snapshot_bytes,
            "proposals": status.proposals,
            "reads": status.reads,
            "held": status.held,
            "peers": status.peers.iter().map(peer_json).collect::<Vec<_>>(),
            "runtime": runtime_json(&status.runtime),
            "configuration": status.configuration.as_u64(),
            "voters": names(&status.voters),
            "outgoing": names(&status.outgoing),
            "learners": names(&status.learners),
            "transfer": status.transfer.map(|node| node.to_string()),
            "storage_full": status.storage_full,
            "storage_failed": status.storage_failed,
        }),
    };
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more);
    }
    fields
}
