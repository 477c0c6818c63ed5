//! What an operator asks of a node: other members, another leader, a snapshot.

use raft_tokio::core::{Change, ChangeError, Index, NodeId};
use raft_tokio::{AdminError, Changed, Node};

use super::{busy, refused};
use crate::machine::Machine;
use crate::protocol::{Refusal, Reply, Response};

pub(super) async fn change(node: &Node<Machine>, expected: Option<Index>, changes: Vec<Change>) -> Response {
    let named = match expected {
        Some(expected) => expected,
        None => node.status().await.map_err(refused)?.configuration.index,
    };
    match node.change_membership(named, changes).await {
        Ok(Changed { configuration, node }) => Ok(Reply::Changed { configuration, node }),
        Err(error) => Err(not_changed(error, expected)),
    }
}

pub(super) async fn transfer(node: &Node<Machine>, to: Option<NodeId>) -> Response {
    let leader = node.transfer(to).await.map_err(declined)?;
    Ok(Reply::Transferred { leader })
}

pub(super) async fn snapshot(node: &Node<Machine>) -> Response {
    let last = node.snapshot().await.map_err(declined)?;
    Ok(Reply::SnapshotTaken { last })
}

fn not_changed(error: AdminError, expected: Option<Index>) -> Refusal {
    match error {
        // Whoever named no configuration does not mind that somebody else was faster.
        AdminError::NotChanged(outdated @ ChangeError::Outdated { .. }) if expected.is_none() => {
            Refusal::Busy { reason: format!("busy: {outdated}") }
        }
        other => declined(other),
    }
}

fn declined(error: AdminError) -> Refusal {
    match error {
        AdminError::NotLeader { leader } => Refusal::NotLeader { leader },
        AdminError::Busy(_) => busy(&error),
        AdminError::Unknown { leader } => Refusal::Unknown { leader },
        // All that it takes is a moment: the client tries again.
        AdminError::NotChanged(
            wait @ (ChangeError::TooEarly | ChangeError::Unfinished | ChangeError::Transferring),
        ) => Refusal::Busy { reason: format!("busy: {wait}") },
        AdminError::NotChanged(error) => Refusal::Declined { reason: error.to_string() },
        AdminError::NotTransferred(error) => Refusal::Declined { reason: error.to_string() },
        AdminError::SnapshotFailed => Refusal::Declined { reason: AdminError::SnapshotFailed.to_string() },
        AdminError::StorageFailed => Refusal::StorageFailed,
        AdminError::Stopped => Refusal::Stopping,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_named_no_configuration_is_asked_to_try_again_when_another_was_faster() {
        let outdated =
            || AdminError::NotChanged(ChangeError::Outdated { expected: Index::new(3), latest: Index::new(8) });
        assert!(matches!(not_changed(outdated(), None), Refusal::Busy { .. }));
        assert!(matches!(not_changed(outdated(), Some(Index::new(3))), Refusal::Declined { .. }));
        assert!(matches!(not_changed(AdminError::NotChanged(ChangeError::Nothing), None), Refusal::Declined { .. }));
        for moment in [ChangeError::TooEarly, ChangeError::Unfinished, ChangeError::Transferring] {
            assert!(matches!(not_changed(AdminError::NotChanged(moment), Some(Index::new(3))), Refusal::Busy { .. }));
        }
    }
}
