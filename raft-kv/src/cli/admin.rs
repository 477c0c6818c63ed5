//! `transfer` and `snapshot`: what an operator asks of a cluster whose members stay the same.

use std::fmt;

use raft_kv::client::ClientError;
use raft_tokio::core::{NodeId, Position};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::arguments::{Format, Snapshot, Transfer};
use super::exit::{Exit, Failure};
use super::{connect, leader, output};

/// Hands leadership over.
pub(crate) async fn transfer(arguments: &Transfer) -> anyhow::Result<Exit> {
    let client = connect::client(&arguments.client)?;
    let patience = arguments.client.timeout;
    let before = leader::require(&client, patience).await?;
    let is_next = |now: &raft_kv::protocol::NodeStatus| {
        now.term > before.term && now.node != before.node && arguments.to.is_none_or(|to| to == now.node)
    };
    let now = match client.transfer(arguments.to).await {
        Ok(Some(node)) => Some(node),
        // The old leader steps down when it hears of the new one, often before it knows who that is.
        Ok(None) => leader::find(&client, patience, is_next).await.map(|status| status.node),
        Err(error @ ClientError::OutcomeUnknown { .. }) => {
            let status = leader::find(&client, patience, is_next).await.ok_or(error)?;
            Some(status.node)
        }
        Err(error) => return Err(explained(error)),
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

/// Nothing has changed, and where to look.
fn explained(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Declined { reason } => {
            let message =
                format!("leadership was not handed over: {reason}; `raft-kv status` shows who leads and who follows");
            Failure::new(Exit::Failed, message).into()
        }
        other => other.into(),
    }
}

/// Has nodes write snapshots.
pub(crate) async fn snapshot(arguments: &Snapshot) -> anyhow::Result<Exit> {
    let client = connect::client(&arguments.client)?;
    let everyone: Vec<NodeId> = client.endpoints().map(|(node, _)| node).collect();
    let taken = match arguments.node {
        Some(node) => vec![(node, client.snapshot(node).await?)],
        None => {
            let mut asked = JoinSet::new();
            for node in everyone {
                let client = client.clone();
                asked.spawn(async move { (node, client.snapshot(node).await) });
            }
            sorted(asked.join_all().await)?
        }
    };
    match arguments.output.output {
        Format::Plain | Format::Table => output::write_line(&Taken(&taken).to_string())?,
        Format::Json => output::write_json(&json!({ "snapshots": Taken(&taken).json() }))?,
    }
    Ok(Exit::Done)
}

/// All answers in the order of the nodes, if all nodes have a snapshot.
fn sorted(
    mut answers: Vec<(NodeId, Result<Position, ClientError>)>,
) -> Result<Vec<(NodeId, Position)>, SnapshotFailure> {
    answers.sort_by_key(|(node, _)| *node);
    let (mut taken, mut failed) = (Vec::new(), Vec::new());
    for (node, answer) in answers {
        match answer {
            Ok(last) => taken.push((node, last)),
            Err(error) => failed.push((node, error.to_string())),
        }
    }
    if failed.is_empty() { Ok(taken) } else { Err(SnapshotFailure { taken, failed }) }
}

/// Where the snapshots of nodes end.
struct Taken<'a>(&'a [(NodeId, Position)]);

impl fmt::Display for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (node, last)) in self.0.iter().enumerate() {
            let gap = if nth == 0 { "" } else { "\n" };
            write!(f, "{gap}{node} has a snapshot up to {last}")?;
        }
        Ok(())
    }
}

impl Taken<'_> {
    fn json(&self) -> Value {
        let one = |(node, last): &(NodeId, Position)| json!({ "node": node.to_string(), "index": last.index.as_u64(), "term": last.term.as_u64() });
        self.0.iter().map(one).collect()
    }
}

/// Some nodes have written no snapshot.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", Taken(taken), Failed(taken.len(), failed))]
pub(crate) struct SnapshotFailure {
    taken: Vec<(NodeId, Position)>,
    failed: Vec<(NodeId, String)>,
}

impl SnapshotFailure {
    /// Which nodes have one, and why the others have not.
    pub(crate) fn json(&self) -> Value {
        let failed: Value =
            self.failed.iter().map(|(node, error)| json!({ "node": node.to_string(), "error": error })).collect();
        json!({ "snapshots": Taken(&self.taken).json(), "failed": failed })
    }
}

/// The rest of the message: after how many lines, and why.
struct Failed<'a>(usize, &'a [(NodeId, String)]);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (node, error)) in self.1.iter().enumerate() {
            let gap = if nth + self.0 == 0 { "" } else { "\n" };
            write!(f, "{gap}{node} has written none: {error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_tokio::core::{Index, Term};

    use super::*;

    #[test]
    fn nodes_with_and_without_a_snapshot_are_told_apart() {
        let node = |id| NodeId::new(id).expect("because the tests count from 1");
        let answers = vec![
            (node(2), Err(ClientError::Declined { reason: "the disk is full".to_owned() })),
            (node(1), Ok(Position::new(Index::new(8), Term::new(3)))),
        ];
        let failure = sorted(answers).expect_err("because one has none");
        assert_eq!(failure.to_string(), "n1 has a snapshot up to 8@3\nn2 has written none: the disk is full");
        let document = json!({
            "snapshots": [{ "node": "n1", "index": 8, "term": 3 }],
            "failed": [{ "node": "n2", "error": "the disk is full" }],
        });
        assert_eq!(failure.json(), document);
    }
}
