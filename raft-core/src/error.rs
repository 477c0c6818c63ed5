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
    /// A leader would give up for a hiccup of its disk that is shorter than the election it causes.
    #[error(
        "the stall limit {stall_limit:?} is shorter than the longest election timeout {election_timeout_max:?}; raise it"
    )]
    StallLimitTooShort {
        /// The stall limit asked for.
        stall_limit: Duration,
        /// The longest election timeout asked for.
        election_timeout_max: Duration,
    },
    /// Leases need clocks.
    #[error("a clock drift of {drift_ppm} ppm is more than the {max} ppm that leases can bear; do without leases")]
    DriftTooLarge {
        /// The drift asked for.
        drift_ppm: u32,
        /// The most there may be.
        max: u32,
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
    #[error("the log begins after {base}, but the newest snapshot ends at {snapshot}; what lies between is lost")]
    Compacted {
        /// The position before its first entry.
        base: Position,
        /// The end of the newest snapshot.
        snapshot: Position,
    },
    /// The log is not the one that the snapshot was made from.
    #[error("the newest snapshot ends at {snapshot}, but the log holds another entry there, or none")]
    SnapshotNotInLog {
        /// The end of the snapshot.
        snapshot: Position,
    },
    /// The state machine lacks entries that the log does not have any more.
    #[error("the state machine has applied index {applied}, but the log begins after {base}")]
    AppliedBeforeLog {
        /// What the state machine says.
        applied: Index,
        /// The position before the log's first entry.
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
    /// The configurations in the log are out of order, or outside of it.
    #[error("the configurations of the log are out of order at index {at}, or outside of the log")]
    ConfigurationsOutOfOrder {
        /// The index of the offending one.
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
    /// More learners than a configuration may have.
    #[error("a configuration has at most {max} learners")]
    TooManyLearners {
        /// The limit.
        max: usize,
    },
    /// The next new member would get an id that somebody has already.
    #[error("the next id would be {next}, but n{highest} is a member already")]
    IdReused {
        /// The next id.
        next: u64,
        /// The highest id in use.
        highest: u64,
    },
    /// A list is not in order of ids; nobody who made it did so by the rules.
    #[error("the members are not listed in order of their ids")]
    Unsorted,
}

/// Why a change of the membership was not begun. Nothing has happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The leader has not committed anything in its own term yet; it does not know what is (T67).
    #[error("the leader is too new to change the membership; try again in a moment")]
    TooEarly,
    /// The change before this one is not finished.
    #[error("another change of the membership is not finished yet; try again when it is")]
    Unfinished,
    /// Leadership is being handed over.
    #[error("leadership is being handed over; try again in a moment")]
    Transferring,
    /// Somebody else has changed the membership meanwhile.
    #[error(
        "the change is meant for configuration {expected}, but the latest is {latest}; look at it and decide again"
    )]
    Outdated {
        /// The configuration that the change was made for.
        expected: Index,
        /// The one in force.
        latest: Index,
    },
    /// The store belongs to a member already.
    #[error("this store is {node} already")]
    AlreadyMember {
        /// The member.
        node: NodeId,
    },
    /// Only learners are promoted.
    #[error("{node} is not a learner")]
    NotLearner {
        /// The node.
        node: NodeId,
    },
    /// Only voters are demoted.
    #[error("{node} is not a voter")]
    NotVoter {
        /// The node.
        node: NodeId,
    },
    /// Only members are removed.
    #[error("{node} is not a member")]
    NotMember {
        /// The node.
        node: NodeId,
    },
    /// A learner that lags behind would slow down, or stop, every write.
    #[error("{node} has not caught up yet; it is promoted when it has, if that was asked for")]
    NotCaughtUp {
        /// The learner.
        node: NodeId,
    },
    /// Somebody has to decide.
    #[error("the change would leave no voter")]
    NoVoters,
    /// The configuration is as wished already.
    #[error("the change changes nothing")]
    Nothing,
    /// Every id has been given away.
    #[error("there are no ids left")]
    IdsExhausted,
    /// The result is no configuration.
    #[error("the result would be no valid configuration: {0}")]
    Invalid(MembershipError),
}

/// Why leadership was not handed over. The leader goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The node to take over is the leader itself.
    #[error("{node} is the leader already")]
    AlreadyLeader {
        /// The leader.
        node: NodeId,
    },
    /// Only a voter can lead.
    #[error("{node} is not a voter")]
    NotVoter {
        /// The node.
        node: NodeId,
    },
    /// A hand-over is under way.
    #[error("leadership is already being handed over to {to}")]
    InProgress {
        /// Who is to take over.
        to: NodeId,
    },
    /// No other voter has been heard from lately.
    #[error("no other voter is near enough to take over")]
    NobodyReady,
    /// The node did not take over in time.
    #[error("{to} has not taken over within {within:?}")]
    TimedOut {
        /// Who was to take over.
        to: NodeId,
        /// How long it was given.
        within: Duration,
    },
}
