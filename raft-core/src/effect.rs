//! Layer 2: what goes out: everything that the world is asked to do.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::durable::SnapshotMeta;
use crate::entry::Entries;
use crate::error::{ChangeError, TransferError};
use crate::membership::Configuration;
use crate::message::Rpc;
use crate::types::{HardState, Index, NodeId, Position, ReadId, RequestId, Term, WriteSeq};

/// Something for the caller to do. Each may be started the moment it is returned, in any order
/// and in parallel, but for two queues: the log writer keeps the order of `Persist`, the applier
/// the order of `Apply`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send `rpc` to `to`. May be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// What to send.
        rpc: Rpc,
    },
    /// Write to stable storage, then say [`Event::Persisted`](crate::Event::Persisted).
    Persist {
        /// Names the write; they rise by one.
        seq: WriteSeq,
        /// The new term and vote, if they changed.
        hard_state: Option<Box<HardState>>,
        /// Entries to append. They replace whatever the log holds from the first one's index on.
        entries: Entries,
    },
    /// Apply committed entries to the state machine, in order, answer the proposals among them
    /// with the machine's results, then say [`Event::Applied`](crate::Event::Applied).
    Apply {
        /// The entries, following on those of the last `Apply`.
        entries: Entries,
        /// Which of them were proposed here, in order of their index.
        tokens: Vec<(Index, RequestId)>,
    },
    /// The answer to a read, or the bad news about a proposal.
    Reply {
        /// Whose answer it is.
        request: RequestId,
        /// The answer.
        outcome: Outcome,
    },
    /// Read entries that are no longer in memory, then say [`Event::LogRead`](crate::Event::LogRead).
    /// The answer may be lost: the core asks again.
    ReadLog {
        /// Comes back in the answer.
        id: ReadId,
        /// What for; the core's business, but good to see in a trace.
        purpose: Purpose,
        /// The first entry wanted.
        from: Index,
        /// The last entry wanted.
        through: Index,
        /// Stop before exceeding this many bytes, but return at least one entry.
        max_bytes: u64,
    },
    /// Have the state machine write a snapshot of what it is after exactly the entries handed to it
    /// so far, to stable storage, then say [`Event::SnapshotTaken`](crate::Event::SnapshotTaken).
    TakeSnapshot {
        /// What it will stand for; its size is not known yet.
        meta: Arc<SnapshotMeta>,
    },
    /// Send the bytes of this snapshot to `to`. May be lost: the receiver says how it fares.
    SendSnapshot {
        /// The receiver.
        to: NodeId,
        /// Which snapshot.
        meta: Arc<SnapshotMeta>,
    },
    /// Replace the log, and the state machine, by this snapshot, which has arrived. For the log
    /// writer a write like any other, in order with them: log and snapshot change together or not
    /// at all, then [`Event::Persisted`](crate::Event::Persisted). For the applier, in order with
    /// `Apply`: then [`Event::Applied`](crate::Event::Applied) of its last index.
    InstallSnapshot {
        /// Names the write.
        seq: WriteSeq,
        /// What it stands for.
        meta: Arc<SnapshotMeta>,
    },
    /// The log up to here is needed no more. May be lost.
    Compact {
        /// The last entry to go.
        through: Index,
    },
    /// The cluster's configuration as of now, at the first step, at every change and at every
    /// roll-back of one: it is where a transport learns its peers.
    Configured {
        /// The configuration, and where in the log it was set.
        configuration: Configuration,
    },
    /// Something worth logging. Losing it harms nothing.
    Observe(Observation),
}

// E1 – a step moves many of them; what is large travels behind a pointer.
const _: () = assert!(size_of::<Effect>() <= 64, "an effect has grown beyond 64 bytes");

/// What entries are read back for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// To be sent to this peer, which is far behind.
    Peer(NodeId),
    /// To be applied here, after a restart.
    Apply,
}

/// How a request ended, other than by being applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Read now: the state machine has applied everything that this read must see.
    ReadReady {
        /// The index it must see.
        index: Index,
    },
    /// Not done, and certain not to be: another server is leader.
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Not done, and certain not to be: a limit is reached; try again later.
    Busy(Busy),
    /// The proposal may or may not be committed in the end: leadership was lost in between.
    Unknown {
        /// Who leads now, if known.
        leader: Option<NodeId>,
    },
    /// Not done, and certain not to be: this node's storage has failed.
    StorageFailed,
    /// The change of the membership is complete.
    Changed {
        /// The configuration by now.
        configuration: Index,
        /// The id of the member that was added, or had been before.
        node: Option<NodeId>,
    },
    /// The membership was not changed.
    NotChanged(Box<ChangeError>),
    /// This node has handed leadership over, and leads no longer.
    Transferred {
        /// Who leads, if that is known already.
        leader: Option<NodeId>,
    },
    /// Leadership was not handed over.
    NotTransferred(TransferError),
    /// There is a snapshot of all that was committed when it was asked for.
    SnapshotTaken {
        /// The last entry that it covers.
        last: Position,
    },
    /// The snapshot could not be made; the state machine's storage knows why.
    SnapshotFailed,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// [`Limits::unsynced_bytes_max`](crate::Limits::unsynced_bytes_max): the disk is behind.
    Unsynced,
    /// [`Limits::uncommitted_bytes_max`](crate::Limits::uncommitted_bytes_max): a majority is behind.
    Uncommitted,
    /// [`Limits::pending_proposals_max`](crate::Limits::pending_proposals_max).
    Proposals,
    /// [`Limits::pending_reads_max`](crate::Limits::pending_reads_max).
    Reads,
    /// The disk is full; nothing can be written before there is space again.
    StorageFull,
    /// Leadership is being handed over; another leader can be asked in a moment.
    Transferring,
}

/// The roles of Figure 4, and the one before a candidate (Thesis 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RoleKind {
    /// Takes entries from a leader.
    Follower,
    /// Asks whether an election could be won.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Takes requests and replicates them.
    Leader,
}

/// What is worth logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// This node's role or term changed.
    Role {
        /// The term.
        term: Term,
        /// The role in it.
        role: RoleKind,
    },
    /// This node learnt who leads, or that nobody does.
    Leader {
        /// The term.
        term: Term,
        /// Its leader.
        leader: Option<NodeId>,
    },
    /// A proposal got its place in the leader's log.
    Accepted {
        /// Whose.
        request: RequestId,
        /// Where.
        position: Position,
    },
    /// The commit index rose.
    Committed {
        /// Up to here.
        position: Position,
    },
    /// A configuration took effect, or came back because its successor was truncated.
    Configured(Configuration),
    /// As leader: how a peer is supplied has changed.
    Progress {
        /// The peer.
        node: NodeId,
        /// How it is supplied now.
        mode: ProgressMode,
    },
    /// As leader: a peer has lost entries that it had acknowledged. Its disk, or whoever restored
    /// it from a copy, is at fault; it is supplied again, and elects nobody before it has them.
    Regressed {
        /// The peer.
        node: NodeId,
        /// What it had acknowledged.
        from: Index,
        /// What it can still have.
        to: Index,
    },
    /// Leadership is being handed over.
    Transferring {
        /// To whom.
        to: NodeId,
    },
    /// This leader's own disk has stalled: it hands over and steps down.
    Stalled {
        /// Committed, and not durable here.
        index: Index,
    },
}

/// How a leader supplies a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ProgressMode {
    /// One append at a time, to find where the logs agree.
    Probe,
    /// A stream of appends.
    Replicate,
    /// A snapshot, because the entries that it needs are gone.
    Snapshot,
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

impl fmt::Display for ProgressMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "probe",
            Self::Replicate => "replicate",
            Self::Snapshot => "snapshot",
        })
    }
}

/// `@3 leader`: put the node before it and it is the shared notation.
impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role { term, role } => write!(f, "@{term} {role}"),
            Self::Leader { term, leader: Some(leader) } => write!(f, "@{term} follows {leader}"),
            Self::Leader { term, leader: None } => write!(f, "@{term} knows no leader"),
            Self::Accepted { request, position } => {
                write!(f, "@{} accepted request {request} as {position}", position.term)
            }
            Self::Committed { position } => write!(f, "@{} committed {position}", position.term),
            Self::Configured(Configuration { index, membership }) => write!(f, " configuration {index}: {membership}"),
            Self::Progress { node, mode } => write!(f, " supplies {node} by {mode}"),
            Self::Regressed { node, from, to } => write!(f, " {node} had acknowledged {from}, and has at most {to}"),
            Self::Transferring { to } => write!(f, " hands over to {to}"),
            Self::Stalled { index } => write!(f, " stalled: {index} is committed and not durable here"),
        }
    }
}
