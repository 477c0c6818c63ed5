//! `join`, `member`, `transfer` and `snapshot`: what an operator does to a cluster that runs.

use std::collections::BTreeSet;

use raft_kv::client::{Client, ClientError, MembershipReply};
use raft_kv::config::ClusterConfig;
use raft_kv::join::{self, JoinError};
use raft_kv::protocol::NodeStatus;
use raft_tokio::core::{Change, NodeId, RoleKind};
use serde_json::json;

use super::arguments::{Format, Join, Member, MemberAdd, MemberChange, MemberList, Serve, Snapshot, Transfer};
use super::exit::{Exit, Failure};
use super::{connect, output, serve, status};

/// Takes a new node in and runs it.
pub(crate) async fn join(arguments: &Join) -> anyhow::Result<Exit> {
    let node = enlist(&arguments.member).await?;
    output::write_line(&format!("{node} has joined; it gets a vote when it has caught up"))?;
    let cluster = arguments.member.client.cluster.clone();
    serve::serve(&Serve { cluster, node, until_stdin_closes: false }).await
}

/// Shows or changes who belongs to the cluster.
pub(crate) async fn member(arguments: &Member) -> anyhow::Result<Exit> {
    match arguments {
        Member::List(list) => show(list).await,
        Member::Add(add) => {
            let node = enlist(add).await?;
            let config = add.client.cluster.config.display();
            let next = format!("raft-kv serve --config {config} --node {}", node.as_u64());
            match add.output.output {
                Format::Plain | Format::Table => {
                    output::write_line(&format!("{node} is a member; start it:\n  {next}"))?
                }
                Format::Json => output::write_json(&json!({ "node": node.to_string(), "start": next }))?,
            }
            Ok(Exit::Done)
        }
        Member::Remove(change) => alter(change, |node| Change::Remove { node }, "is removed").await,
        Member::Promote(change) => alter(change, |node| Change::Promote { node }, "has a vote").await,
        Member::Demote(change) => alter(change, |node| Change::Demote { node }, "has no vote any more").await,
    }
}

async fn enlist(add: &MemberAdd) -> anyhow::Result<NodeId> {
    let config = ClusterConfig::load(&add.client.cluster.config)?;
    let client = connect::client(&add.client)?;
    join::join(&config, &client, &add.address, !add.learner).await.map_err(|error| match error {
        JoinError::Address(_) => Failure::new(Exit::Usage, error.to_string()).into(),
        other => other.into(),
    })
}

/// One change, made for the configuration that is in force now.
async fn alter(arguments: &MemberChange, change: impl Fn(NodeId) -> Change, done: &str) -> anyhow::Result<Exit> {
    let client = connect::client(&arguments.client)?;
    let node = arguments.node;
    let reply = match client.change_membership(None, vec![change(node)]).await {
        Ok(reply) => reply,
        Err(error) => settled(&client, change(node), error).await?,
    };
    match arguments.output.output {
        Format::Plain | Format::Table => output::write_line(&format!("{node} {done}"))?,
        Format::Json => {
            let configuration = reply.configuration.as_u64();
            output::write_json(&json!({ "node": node.to_string(), "configuration": configuration }))?;
        }
    }
    Ok(Exit::Done)
}

/// A retry of a change that an earlier attempt has made is declined, as it changes nothing. What
/// counts is what is the case now.
async fn settled(client: &Client, change: Change, error: ClientError) -> anyhow::Result<MembershipReply> {
    let ClientError::Declined { .. } = &error else { return Err(error.into()) };
    let Some(status) = leader(client).await else { return Err(error.into()) };
    let is_so = match change {
        Change::AddLearner { .. } => false,
        Change::Promote { node } => status.voters.contains(&node),
        Change::Demote { node } => status.learners.contains(&node),
        // Ids are never used twice: one that was given away and is no member was removed.
        Change::Remove { .. } => false,
    };
    if is_so { Ok(MembershipReply { configuration: status.configuration, node: None }) } else { Err(error.into()) }
}

/// What the leader says of itself, if there is one.
async fn leader(client: &Client) -> Option<NodeStatus> {
    let everyone: BTreeSet<NodeId> = client.endpoints().map(|(node, _)| node).collect();
    let findings = status::ask(client, &everyone, status::PATIENCE).await;
    let answers = findings.into_iter().filter_map(|finding| finding.answer.ok());
    answers.filter(|status| status.role == RoleKind::Leader).max_by_key(|status| status.term)
}

async fn show(arguments: &MemberList) -> anyhow::Result<Exit> {
    let client = connect::client(&arguments.client)?;
    let Some(status) = leader(&client).await else {
        let message = "no leader answers, and only a leader knows who belongs to the cluster; see `raft-kv status`";
        return Err(Failure::new(Exit::Unavailable, message).into());
    };
    let addresses: std::collections::BTreeMap<NodeId, &str> = client.endpoints().collect();
    let mut members: Vec<(NodeId, &str)> = Vec::new();
    members.extend(status.voters.iter().map(|node| (*node, "voter")));
    members.extend(status.learners.iter().map(|node| (*node, "learner")));
    let leaving = status.outgoing.iter().filter(|node| !status.voters.contains(node));
    members.extend(leaving.map(|node| (*node, "leaving")));
    members.sort_unstable();
    let lag = |node: NodeId| {
        let peer = status.peers.iter().find(|peer| peer.node == node);
        peer.map_or(0, |peer| status.last.as_u64().saturating_sub(peer.matched.as_u64()))
    };
    match arguments.output.output {
        Format::Plain | Format::Table => {
            let rows = members.iter().map(|(node, kind)| {
                let leads = if *node == status.node { "leader" } else { "" };
                let address = addresses.get(node).copied().unwrap_or("not in this configuration file");
                vec![node.to_string(), (*kind).to_owned(), leads.to_owned(), lag(*node).to_string(), address.to_owned()]
            });
            output::write_line(&output::table(&["NODE", "MEMBER", "", "BEHIND", "ADDRESS"], &["BEHIND"], rows))?;
        }
        Format::Json => {
            let list: Vec<_> = members
                .iter()
                .map(|(node, kind)| {
                    let (leads, address) = (*node == status.node, addresses.get(node).copied());
                    json!({ "node": node.to_string(), "member": kind, "leader": leads, "behind": lag(*node), "address": address })
                })
                .collect();
            output::write_json(&json!({ "configuration": status.configuration.as_u64(), "members": list }))?;
        }
    }
    Ok(Exit::Done)
}

/// Hands leadership over.
pub(crate) async fn transfer(arguments: &Transfer) -> anyhow::Result<Exit> {
    let client = connect::client(&arguments.client)?;
    let before = leader(&client).await.map(|status| (status.node, status.term));
    let told = client.transfer(arguments.to).await?;
    // The old leader steps down when it hears of the new one, which is often before it knows who that is.
    let now = match told {
        Some(node) => Some(node),
        None => successor(&client, before).await,
    };
    match arguments.output.output {
        Format::Plain | Format::Table => match now {
            Some(node) => output::write_line(&format!("{node} leads"))?,
            None => output::write_line("handed over; who leads is not known yet, `raft-kv status` tells")?,
        },
        Format::Json => output::write_json(&json!({ "leader": now.map(|node| node.to_string()) }))?,
    }
    Ok(Exit::Done)
}

/// Who leads after the leader of before.
async fn successor(client: &Client, before: Option<(NodeId, raft_tokio::core::Term)>) -> Option<NodeId> {
    let deadline = tokio::time::Instant::now() + status::PATIENCE;
    while tokio::time::Instant::now() < deadline {
        if let Some(status) = leader(client).await
            && Some((status.node, status.term)) != before
        {
            return Some(status.node);
        }
    }
    None
}

/// Has nodes write snapshots.
pub(crate) async fn snapshot(arguments: &Snapshot) -> anyhow::Result<Exit> {
    let client = connect::client(&arguments.client)?;
    let everyone: Vec<NodeId> = client.endpoints().map(|(node, _)| node).collect();
    let nodes = arguments.node.map_or(everyone, |node| vec![node]);
    let mut taken = Vec::new();
    let mut failures = Vec::new();
    for node in nodes {
        match client.snapshot(node).await {
            Ok(last) => taken.push((node, last)),
            Err(error) => failures.push(format!("{node}: {error}")),
        }
    }
    match arguments.output.output {
        Format::Plain | Format::Table => {
            for (node, last) in &taken {
                output::write_line(&format!("{node} has a snapshot up to {last}"))?;
            }
        }
        Format::Json => {
            let list: Vec<_> = taken
                .iter()
                .map(|(node, last)| {
                    json!({ "node": node.to_string(), "index": last.index.as_u64(), "term": last.term.as_u64() })
                })
                .collect();
            output::write_json(&json!({ "snapshots": list, "failures": failures }))?;
        }
    }
    if failures.is_empty() { Ok(Exit::Done) } else { Err(Failure::new(Exit::Failed, failures.join("\n")).into()) }
}
