//! Hub: what an operator, a metric or a test may want to know of a node.

use alloc::vec::Vec;
use core::time::Duration;

use crate::durable::Identity;
use crate::effect::{ProgressMode, RoleKind};
use crate::membership::Configuration;
use crate::state::{Drops, Storage};
use crate::types::{HardState, Index, NodeId, Position, WriteSeq};

/// A picture of one node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who this is.
    pub identity: Identity,
    /// What it does.
    pub role: RoleKind,
    /// Its term and vote.
    pub hard_state: HardState,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The cluster, as far as it knows: the latest configuration in its log. It is committed if
    /// its index is not above [`LogStatus::commit`].
    pub configuration: Configuration,
    /// As leader: to whom it is handing over.
    pub transfer: Option<NodeId>,
    /// Where its log stands.
    pub log: LogStatus,
    /// As leader: what it believes of each peer.
    pub peers: Vec<PeerStatus>,
    /// What waits for an answer, for the disk, or was dropped.
    pub load: LoadStatus,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// The position before the first entry.
    pub base: Position,
    /// The last entry, durable or not.
    pub last: Position,
    /// On stable storage up to here.
    pub durable: Index,
    /// Committed up to here, as far as this node knows.
    pub commit: Index,
    /// Applied up to here.
    pub applied: Index,
    /// Whether an entry of the current term is committed; only then may a leader answer reads.
    pub committed_in_term: bool,
    /// Bytes of entries after the base, roughly.
    pub bytes: u64,
    /// Bytes of entries in memory.
    pub cached_bytes: u64,
    /// Where the newest snapshot ends; `0@0` if there is none.
    pub snapshot: Position,
    /// How large it is.
    pub snapshot_bytes: u64,
}

/// What a leader believes of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Known to match, durably, up to here.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// How it is supplied.
    pub mode: ProgressMode,
    /// Whether it belongs to the configuration; if not, it is only told so.
    pub is_member: bool,
    /// Appends under way.
    pub inflight: usize,
    /// How long ago the newest message was sent that it has answered.
    pub silent_for: Duration,
}

/// What waits, and what was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadStatus {
    /// Proposals without an answer.
    pub proposals: usize,
    /// Reads without an answer.
    pub reads: usize,
    /// Promises that wait for the disk.
    pub held: usize,
    /// The newest write handed to storage.
    pub written: WriteSeq,
    /// The newest write known to be durable.
    pub persisted: WriteSeq,
    /// Messages that were dropped, by reason.
    pub drops: Drops,
    /// How the disk is.
    pub storage: Storage,
}
