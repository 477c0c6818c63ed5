//! What can go wrong between an application and its node.

use raft_core::{Busy, ChangeError, ConfigError, NodeId, Outcome, Position, RestoreError, TransferError};

use crate::pending::Changed;

use crate::storage::StorageError;
use crate::transport::TransportError;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The socket or the certificates cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The timing, the limits or the durable state contradict themselves.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The core would hand the transport what it does not carry.
    #[error(
        "the core's limit {core} lets {needed} through at once, but the transport carries at most {carried} \
         ({transport}); lower {core}"
    )]
    Limits {
        /// The core's limit, a field of [`Limits`](raft_core::Limits).
        core: &'static str,
        /// What it amounts to: bytes, or messages.
        needed: u64,
        /// The transport's limit, a field of [`Limits`](crate::transport::Limits).
        transport: &'static str,
        /// The same unit.
        carried: u64,
    },
    /// The state machine cannot read the newest snapshot.
    #[error("{0}; was it written by another version of this program?")]
    Restore(#[from] RestoreError),
    /// A member of the cluster has no address.
    #[error("{node} is a member of the cluster, but no address is given for it")]
    NoAddress {
        /// The member.
        node: NodeId,
    },
}

/// How a proposal can end other than by being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Not done, and certain not to be: another node leads.
    #[error("not the leader{}", hint(*leader))]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// Not done, and certain not to be: a limit is reached.
    #[error("busy: {}", limit(*.0))]
    Busy(Busy),
    /// It may or may not happen: leadership was lost, or the node stopped, before it was decided.
    #[error("the outcome is unknown: leadership was lost before the proposal was decided{}", hint(*leader))]
    Unknown {
        /// Who leads now, if known.
        leader: Option<NodeId>,
    },
    /// Not done, and certain not to be: the command is larger than this node takes.
    #[error("the command has {size} bytes; at most {limit} are taken")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not done, and certain not to be: the disk of this node has failed.
    #[error("the storage of this node has failed; restart it once the disk is in order")]
    StorageFailed,
    /// Not done, and certain not to be: the node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why a read was not answered. It can always be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads.
    #[error("not the leader{}", hint(*leader))]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// A limit is reached.
    #[error("busy: {}", limit(*.0))]
    Busy(Busy),
    /// The disk of this node has failed.
    #[error("the storage of this node has failed; restart it once the disk is in order")]
    StorageFailed,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why an operator's wish was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// Nothing has happened: another node leads, and only that one can do it.
    #[error("not the leader{}", hint(*leader))]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// Nothing has happened: a limit is reached.
    #[error("busy: {}", limit(*.0))]
    Busy(Busy),
    /// It may or may not happen: leadership was lost, or the node stopped, before it was decided.
    #[error("the outcome is unknown: leadership was lost before it was decided{}", hint(*leader))]
    Unknown {
        /// Who leads now, if known.
        leader: Option<NodeId>,
    },
    /// The membership is as it was.
    #[error(transparent)]
    NotChanged(ChangeError),
    /// Leadership is where it was.
    #[error(transparent)]
    NotTransferred(TransferError),
    /// There is no new snapshot; the log of this node says why.
    #[error("the snapshot could not be written; look into the log of this node")]
    SnapshotFailed,
    /// Nothing has happened: the disk of this node has failed.
    #[error("the storage of this node has failed; restart it once the disk is in order")]
    StorageFailed,
    /// Nothing will happen any more: the node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

impl AdminError {
    /// What an answer of the core means for whatever is not covered by the three below.
    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::NotLeader { leader } => Self::NotLeader { leader },
            Outcome::Busy(busy) => Self::Busy(busy),
            Outcome::Unknown { leader } => Self::Unknown { leader },
            Outcome::NotChanged(error) => Self::NotChanged(*error),
            Outcome::NotTransferred(error) => Self::NotTransferred(error),
            Outcome::SnapshotFailed => Self::SnapshotFailed,
            Outcome::StorageFailed => Self::StorageFailed,
            Outcome::ReadReady { .. }
            | Outcome::Changed { .. }
            | Outcome::Transferred { .. }
            | Outcome::SnapshotTaken { .. } => unreachable!("{outcome:?} is the answer to something else"),
        }
    }

    pub(crate) fn of_change(outcome: Outcome) -> Result<Changed, Self> {
        match outcome {
            Outcome::Changed { configuration, node } => Ok(Changed { configuration, node }),
            other => Err(Self::of(other)),
        }
    }

    pub(crate) fn of_transfer(outcome: Outcome) -> Result<Option<NodeId>, Self> {
        match outcome {
            Outcome::Transferred { leader } => Ok(leader),
            other => Err(Self::of(other)),
        }
    }

    pub(crate) fn of_snapshot(outcome: Outcome) -> Result<Position, Self> {
        match outcome {
            Outcome::SnapshotTaken { last } => Ok(last),
            other => Err(Self::of(other)),
        }
    }
}

impl ProposeError {
    /// What an answer of the core means for a proposal.
    pub(crate) fn of(outcome: &Outcome) -> Self {
        match *outcome {
            Outcome::NotLeader { leader } => Self::NotLeader { leader },
            Outcome::Busy(busy) => Self::Busy(busy),
            Outcome::Unknown { leader } => Self::Unknown { leader },
            Outcome::StorageFailed => Self::StorageFailed,
            Outcome::ReadReady { .. }
            | Outcome::Changed { .. }
            | Outcome::NotChanged(_)
            | Outcome::Transferred { .. }
            | Outcome::NotTransferred(_)
            | Outcome::SnapshotTaken { .. }
            | Outcome::SnapshotFailed => unreachable!("{outcome:?} is no answer to a proposal"),
        }
    }
}

impl ReadError {
    /// What an answer of the core means for a read.
    pub(crate) fn of(outcome: &Outcome) -> Result<(), Self> {
        match *outcome {
            Outcome::ReadReady { .. } => Ok(()),
            Outcome::NotLeader { leader } | Outcome::Unknown { leader } => Err(Self::NotLeader { leader }),
            Outcome::Busy(busy) => Err(Self::Busy(busy)),
            Outcome::StorageFailed => Err(Self::StorageFailed),
            Outcome::Changed { .. }
            | Outcome::NotChanged(_)
            | Outcome::Transferred { .. }
            | Outcome::NotTransferred(_)
            | Outcome::SnapshotTaken { .. }
            | Outcome::SnapshotFailed => unreachable!("{outcome:?} is no answer to a read"),
        }
    }
}

fn hint(leader: Option<NodeId>) -> String {
    leader.map_or_else(|| String::from("; no leader is known"), |leader| format!("; {leader} is"))
}

fn limit(busy: Busy) -> &'static str {
    match busy {
        Busy::Unsynced => "the disk is behind",
        Busy::Uncommitted => "a majority of the nodes is behind",
        Busy::Proposals => "too many writes wait for their answer",
        Busy::Reads => "too many reads wait for their answer",
        Busy::StorageFull => "the disk of the leader is full",
        Busy::Transferring => "leadership is being handed over",
    }
}
