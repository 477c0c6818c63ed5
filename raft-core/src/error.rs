//! Layer 0: what can be wrong, one small enum per boundary.

use core::time::Duration;

use crate::types::{Index, NodeId, Position, StoreId, Term};

/// A configuration that cannot work; whoever wrote it mends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Heartbeats would come too rarely to keep an election from starting.
    #[error(
        "the shortest election timeout {election_timeout_min:?} is under three times the heartbeat interval \
         {heartbeat_interval:?}; raise the timeout or shorten the interval"
    )]
    ElectionTimeoutTooShort {
        /// The shortest election timeout asked for.
        election_timeout_min: Duration,
        /// The heartbeat interval asked for.
        heartbeat_interval: Duration,
    },
    /// The range to draw election timeouts from is empty, or so narrow that votes would split for ever.
    #[error(
        "election timeouts are drawn from {min:?} to {max:?}; the upper end must be at least 1.5 times the lower one"
    )]
    ElectionTimeoutRange {
        /// The lower end.
        min: Duration,
        /// The upper end.
        max: Duration,
    },
    /// A limit that must let something through is zero.
    #[error("the limit {name} is zero, so nothing could ever pass it")]
    ZeroLimit {
        /// The name of the field in [`Limits`](crate::Limits).
        name: &'static str,
    },
    /// What storage found contradicts itself.
    #[error("the durable state cannot be used: {0}")]
    Durable(#[from] DurableError),
}

/// Durable state that no correct run can have left behind; the storage layer or the disk is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurableError {
    /// The store is not the one that the configuration lists for this node.
    #[error(
        "{node} is a member with store {expected}, but this store is {found}; a wiped or copied disk cannot take a member's place"
    )]
    ForeignStore {
        /// This node.
        node: NodeId,
        /// The store that the membership lists.
        expected: StoreId,
        /// The store that was opened.
        found: StoreId,
    },
    /// The beginning of the log is gone, and there is no snapshot to stand for it.
    #[error("the log begins after {base}, but nothing can stand for what was before it")]
    Compacted {
        /// The position before its first entry.
        base: Position,
    },
    /// A term or an index that no cluster reaches.
    #[error("term {term} or index {last} cannot be true; the store is damaged")]
    Absurd {
        /// The term of the hard state.
        term: Term,
        /// The last index of the log.
        last: Index,
    },
    /// The log ends in a term that the hard state has never seen.
    #[error("the log ends at {last}, but the hard state only knows term {term}")]
    TermBehindLog {
        /// The last position of the log.
        last: Position,
        /// The term of the hard state.
        term: Term,
    },
    /// The term runs do not start after the snapshot, or are out of order.
    #[error("the term runs of the log are out of order at index {at}")]
    RunsOutOfOrder {
        /// The first index of the offending run.
        at: Index,
    },
    /// The cached tail is not the end of the log that the term runs describe.
    #[error("the entries given as the end of the log do not end at {last}, or disagree with its term runs")]
    TailMismatch {
        /// The last position of the log by its term runs.
        last: Position,
    },
    /// The state machine claims to have applied entries that the log does not have.
    #[error("the state machine has applied index {applied}, but the log ends at {last}")]
    AppliedBeyondLog {
        /// What the state machine says.
        applied: Index,
        /// The last index of the log.
        last: Index,
    },
}

/// A set of members that is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// A node is listed twice.
    #[error("{node} is listed twice")]
    DuplicateNode {
        /// The node.
        node: NodeId,
    },
    /// Two nodes claim one store.
    #[error("{first} and {second} claim the same store")]
    DuplicateStore {
        /// One node.
        first: NodeId,
        /// The other.
        second: NodeId,
    },
    /// More voters than a configuration may have.
    #[error("a configuration has at most {max} voters")]
    TooManyVoters {
        /// The limit.
        max: usize,
    },
}
