//! `join` and `member`: who belongs to a cluster that runs.

use std::collections::BTreeMap;
use std::time::Duration;

use raft_kv::client::{Client, ClientError};
use raft_kv::config::ClusterConfig;
use raft_kv::join::{self, JoinError};
use raft_kv::protocol::NodeStatus;
use raft_tokio::core::{Change, Index, NodeId};
use serde_json::{Value, json};

use super::arguments::{ClientFlags, Format, Join, Member, MemberAdd, MemberChange, MemberList, Newcomer, Serve};
use super::exit::{Exit, Failure};
use super::{connect, leader, output, serve};

/// Takes a new node in and runs it.
pub(crate) async fn join(arguments: &Join) -> anyhow::Result<Exit> {
    let node = enlist(&arguments.newcomer, &arguments.client).await?;
    let vote = vote_to_come(&arguments.newcomer, node);
    output::write_line(&format!("{node} has joined; {vote}"))?;
    let cluster = arguments.client.cluster.clone();
    serve::serve(&Serve { cluster, node, until_stdin_closes: false }).await
}

/// Shows or changes who belongs to the cluster.
pub(crate) async fn member(arguments: &Member) -> anyhow::Result<Exit> {
    match arguments {
        Member::List(list) => show(list).await,
        Member::Add(arguments) => add(arguments).await,
        Member::Remove(change) => alter(change, Goal::Gone).await,
        Member::Promote(change) => alter(change, Goal::Voter).await,
        Member::Demote(change) => alter(change, Goal::Learner).await,
    }
}

async fn add(arguments: &MemberAdd) -> anyhow::Result<Exit> {
    let MemberAdd { newcomer, client, output } = arguments;
    let node = enlist(newcomer, client).await?;
    let start = format!("raft-kv serve --config {} --node {}", client.cluster.config.display(), node.as_u64());
    match output.output {
        Format::Plain | Format::Table => {
            let vote = vote_to_come(newcomer, node);
            output::write_line(&format!("{node} is a member; {vote}; start it:\n  {start}"))?;
        }
        Format::Json => {
            output::write_json(&json!({ "node": node.to_string(), "learner": newcomer.learner, "start": start }))?;
        }
    }
    Ok(Exit::Done)
}

fn vote_to_come(newcomer: &Newcomer, node: NodeId) -> String {
    if newcomer.learner {
        format!("`raft-kv member promote {node}` gives it a vote when it has caught up")
    } else {
        "it gets a vote when it has caught up".to_owned()
    }
}

async fn enlist(newcomer: &Newcomer, flags: &ClientFlags) -> anyhow::Result<NodeId> {
    let config = ClusterConfig::load(&flags.cluster.config)?;
    let client = connect::client(flags)?;
    let joined = join::join(&config, &client, &newcomer.address, !newcomer.learner).await;
    joined.map_err(|error| {
        let exit = match error {
            JoinError::Client(error) => return declined("the new node was not added", error),
            JoinError::Address(_) | JoinError::Authority { .. } | JoinError::Certificate(_) => Exit::Usage,
            JoinError::Undecided(_) => Exit::OutcomeUnknown,
            JoinError::Random(_)
            | JoinError::CannotWrite { .. }
            | JoinError::Storage(_)
            | JoinError::Config(_)
            | JoinError::Unfinished { .. } => Exit::Failed,
        };
        Failure::new(exit, error.to_string()).into()
    })
}

/// What a member is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Voter,
    Learner,
    Gone,
}

impl Goal {
    fn change(self, node: NodeId) -> Change {
        match self {
            Self::Voter => Change::Promote { node },
            Self::Learner => Change::Demote { node },
            Self::Gone => Change::Remove { node },
        }
    }

    /// Whether it is so, as a leader sees it, and will stay so.
    fn is_reached(self, node: NodeId, leader: &NodeStatus) -> bool {
        let (votes, learns) = (leader.voters.contains(&node), leader.learners.contains(&node));
        let is_so = match self {
            Self::Voter => votes,
            Self::Learner => learns,
            Self::Gone => !votes && !learns,
        };
        is_so && leader.outgoing.is_empty() && leader.configuration <= leader.commit
    }

    /// What was done, or was not, follows the name of the node.
    fn done(self) -> &'static str {
        match self {
            Self::Voter => "has a vote",
            Self::Learner => "has no vote any more, and goes on to learn",
            Self::Gone => "is removed, and its id is never used again",
        }
    }

    fn not_done(self) -> &'static str {
        match self {
            Self::Voter => "was not promoted",
            Self::Learner => "was not demoted",
            Self::Gone => "was not removed",
        }
    }
}

/// One change, made for whichever configuration is in force.
async fn alter(arguments: &MemberChange, goal: Goal) -> anyhow::Result<Exit> {
    let client = connect::client(&arguments.client)?;
    let node = arguments.node;
    let configuration = match client.change_membership(None, vec![goal.change(node)]).await {
        Ok(reply) => reply.configuration,
        Err(error @ ClientError::OutcomeUnknown { .. }) => {
            reached(&client, arguments.client.timeout, node, goal).await.ok_or(error)?
        }
        Err(error) => return Err(declined(&format!("{node} {}", goal.not_done()), error)),
    };
    match arguments.output.output {
        Format::Plain | Format::Table => {
            output::write_line(&format!("{node} {}{}", goal.done(), what_is_left(&client, goal, node, arguments)))?;
        }
        Format::Json => {
            output::write_json(&json!({ "node": node.to_string(), "configuration": configuration.as_u64() }))?;
        }
    }
    Ok(Exit::Done)
}

/// The configuration in which the goal of a change is reached whose answer got lost: the change
/// was made then, by one of the attempts.
async fn reached(client: &Client, patience: Duration, node: NodeId, goal: Goal) -> Option<Index> {
    let status = leader::find(client, patience, |leader| goal.is_reached(node, leader)).await?;
    Some(status.configuration)
}

/// What is left to do for the operator, in a line.
fn what_is_left(client: &Client, goal: Goal, node: NodeId, arguments: &MemberChange) -> String {
    let is_listed = client.endpoints().any(|(listed, _)| listed == node);
    match goal {
        Goal::Gone if is_listed => {
            format!("; stop it, and take its [[node]] out of {}", arguments.client.cluster.config.display())
        }
        Goal::Voter | Goal::Learner | Goal::Gone => String::new(),
    }
}

/// What was not done, why, and where to look.
fn declined(what: &str, error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Declined { reason } => {
            let message = format!("{what}: {reason}; `raft-kv member list` shows who belongs to the cluster");
            Failure::new(Exit::Failed, message).into()
        }
        other => other.into(),
    }
}

async fn show(arguments: &MemberList) -> anyhow::Result<Exit> {
    let client = connect::client(&arguments.client)?;
    let status = leader::require(&client, arguments.client.timeout).await?;
    let rows = rows(&status, &client.endpoints().collect());
    match arguments.output.output {
        Format::Plain | Format::Table => {
            let cells = rows.iter().map(Row::cells);
            let table = output::table(&["NODE", "MEMBER", "", "BEHIND", "ADDRESS"], &["BEHIND"], cells);
            let unfinished = if is_final(&status) { "" } else { "\n\na change of the membership is not finished yet" };
            output::write_line(&format!("{table}{unfinished}"))?;
        }
        Format::Json => {
            let members: Vec<Value> = rows.iter().map(Row::json).collect();
            let (configuration, is_final) = (status.configuration.as_u64(), is_final(&status));
            output::write_json(&json!({ "configuration": configuration, "final": is_final, "members": members }))?;
        }
    }
    Ok(Exit::Done)
}

/// Whether the configuration that the leader goes by is decided on, and no step towards another.
fn is_final(leader: &NodeStatus) -> bool {
    leader.outgoing.is_empty() && leader.configuration <= leader.commit
}

/// A member, as the leader sees it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    node: NodeId,
    kind: &'static str,
    leads: bool,
    behind: u64,
    address: Option<String>,
}

fn rows(leader: &NodeStatus, addresses: &BTreeMap<NodeId, &str>) -> Vec<Row> {
    let leaving =
        leader.outgoing.iter().filter(|node| !leader.voters.contains(node) && !leader.learners.contains(node));
    let voters = leader.voters.iter().map(|node| (*node, "voter"));
    let learners = leader.learners.iter().map(|node| (*node, "learner"));
    let mut members: Vec<(NodeId, &str)> =
        voters.chain(learners).chain(leaving.map(|node| (*node, "leaving"))).collect();
    members.sort_unstable();
    let row = |(node, kind)| {
        let peer = leader.peers.iter().find(|peer| peer.node == node);
        let behind = peer.map_or(0, |peer| leader.last.as_u64().saturating_sub(peer.matched.as_u64()));
        let address = addresses.get(&node).map(|address| (*address).to_owned());
        Row { node, kind, leads: node == leader.node, behind, address }
    };
    members.into_iter().map(row).collect()
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let leads = if self.leads { "leader" } else { "" };
        let address = self.address.as_deref().unwrap_or("not in this configuration file");
        vec![self.node.to_string(), self.kind.to_owned(), leads.to_owned(), self.behind.to_string(), address.to_owned()]
    }

    fn json(&self) -> Value {
        let Self { node, kind, leads, behind, address } = self;
        json!({ "node": node.to_string(), "member": kind, "leader": leads, "behind": behind, "address": address })
    }
}
