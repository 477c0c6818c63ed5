//! What can go wrong between an application and its node.

use raft_core::{Busy, ConfigError, NodeId, Outcome};

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

impl ProposeError {
    /// What an answer of the core means for a proposal.
    pub(crate) fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::NotLeader { leader } => Self::NotLeader { leader },
            Outcome::Busy(busy) => Self::Busy(busy),
            Outcome::Unknown { leader } => Self::Unknown { leader },
            Outcome::StorageFailed => Self::StorageFailed,
            Outcome::ReadReady { .. } => unreachable!("a proposal is not answered like a read"),
        }
    }
}

impl ReadError {
    /// What an answer of the core means for a read.
    pub(crate) fn of(outcome: Outcome) -> Result<(), Self> {
        match outcome {
            Outcome::ReadReady { .. } => Ok(()),
            Outcome::NotLeader { leader } | Outcome::Unknown { leader } => Err(Self::NotLeader { leader }),
            Outcome::Busy(busy) => Err(Self::Busy(busy)),
            Outcome::StorageFailed => Err(Self::StorageFailed),
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
    }
}
