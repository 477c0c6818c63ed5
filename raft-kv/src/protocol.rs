//! Layer 1: what clients and servers say to each other.
//!
//! One request, one response, matched by the transport. Postcard behind an envelope, like
//! commands, and with the same rule: nothing is reordered or removed within a version.

use std::fmt;

use bytes::Bytes;
use raft_tokio::core::{Change, ClusterId, Index, NodeId, Position, ProgressMode, RoleKind, Term};
use serde::{Deserialize, Serialize};

use crate::digest::StateHash;
use crate::envelope::{self, DecodeError, Kind};
use crate::key::{KeyRange, Revision};
use crate::session::{Nonce, Sequence, SessionId};
use crate::store::{KeyValue, Metadata};

/// The largest request, in bytes, everything included.
pub const REQUEST_BYTES_MAX: usize = 1536 * 1024;

/// The largest value that fits into a request together with the longest key.
pub const VALUE_BYTES_MAX: usize = REQUEST_BYTES_MAX - crate::key::Key::BYTES_MAX - REQUEST_OVERHEAD_MAX;

/// So many bytes of pairs a range answers at once, unless its first pair alone is larger.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// Bytes of a request that are neither key nor value, at most: an envelope and a few varints.
const REQUEST_OVERHEAD_MAX: usize = 128;

/// So many pairs one request counts at most; the client asks again for the rest. It takes about as
/// long as a page of short pairs, and nothing else happens on the node meanwhile.
pub const COUNT_STEPS_MAX: usize = 1 << 14;

/// The version of the encoding of requests and responses. In version 1 each page of a range
/// counted the whole range; in version 2 nobody was told why a node is busy, and a status said less.
const VERSION: u8 = 3;

/// What a client asks for.
///
/// Keys are plain bytes here: the server checks them, so that its answer can say what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Open a session, or find the one that this nonce has opened.
    Register {
        /// Drawn at random, once for each session.
        nonce: Nonce,
    },
    /// Set a key.
    Put {
        /// The place of this write in its session.
        ticket: Ticket,
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// Only if the key was last changed at this revision; 0 means: only if it does not exist.
        if_revision: Option<Revision>,
    },
    /// Remove a key.
    Delete {
        /// The place of this write in its session.
        ticket: Ticket,
        /// The key.
        key: Bytes,
        /// Only if the key was last changed at this revision; 0 means: only if it does not exist.
        if_revision: Option<Revision>,
    },
    /// Read the pairs of a range.
    Range {
        /// The range.
        range: KeyRange,
        /// So many pairs at most; `None`: as many as fit into a page.
        limit: Option<u64>,
        /// How fresh the answer has to be.
        freshness: Freshness,
    },
    /// Say how this node is. Needs no other node.
    Status,
    /// Count the pairs of a range, as far as one request may.
    Count {
        /// The range.
        range: KeyRange,
        /// How fresh the answer has to be.
        freshness: Freshness,
    },
    /// Change the membership, all at once.
    Change {
        /// The configuration that the change is meant for, by the index of its log entry; `None`:
        /// whichever is in force.
        expected: Option<Index>,
        /// What to change.
        changes: Vec<Change>,
    },
    /// Hand leadership over.
    Transfer {
        /// To whom; `None`: to the best.
        to: Option<NodeId>,
    },
    /// Write a snapshot and cut the log.
    Snapshot,
}

/// The place of a write in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The session.
    pub session: SessionId,
    /// The number of the write.
    pub sequence: Sequence,
    /// The lowest number whose answer the client still waits for.
    pub acknowledged: Sequence,
}

impl Ticket {
    /// The one whose encoding is the longest.
    pub(crate) const LONGEST: Self = Self {
        session: SessionId::new(u64::MAX),
        sequence: Sequence::new(u64::MAX),
        acknowledged: Sequence::new(u64::MAX),
    };
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freshness {
    /// It sees every write that was acknowledged before it began.
    Linearizable,
    /// It sees what this node has applied, which may be behind. Needs no other node.
    Stale,
    /// As linearizable, but the leader may rely on the promises of a majority, if the cluster was
    /// set up for that, instead of asking.
    Lease,
}

/// What a server answers.
pub type Response = Result<Reply, Refusal>;

/// The answer to a request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The session is open.
    Registered {
        /// Its name.
        session: SessionId,
    },
    /// The key has its new value.
    Put {
        /// The store's revision, which is also the key's.
        revision: Revision,
        /// What the key was before.
        previous: Option<Metadata>,
    },
    /// The key does not exist any more, or did not before.
    Deleted {
        /// The store's revision.
        revision: Revision,
        /// What the key was before; `None` if there was nothing to delete.
        previous: Option<Metadata>,
    },
    /// Pairs, in the order of their keys.
    Range {
        /// The pairs.
        kvs: Vec<KeyValue>,
        /// Whether there are further ones.
        more: bool,
        /// The store's revision.
        revision: Revision,
    },
    /// How the node is.
    Status(Box<NodeStatus>),
    /// So many pairs there are.
    Counted {
        /// How many, up to the rest.
        count: u64,
        /// What is left to count, by another request; `None`: nothing.
        rest: Option<KeyRange>,
        /// The store's revision.
        revision: Revision,
    },
    /// The membership is as wished.
    Changed {
        /// The configuration by now.
        configuration: Index,
        /// The id of the member that was added, or had been before.
        node: Option<NodeId>,
    },
    /// This node leads no longer.
    Transferred {
        /// Who does, if that is known already.
        leader: Option<NodeId>,
    },
    /// There is a snapshot.
    SnapshotTaken {
        /// The last entry that it covers.
        last: Position,
    },
}

/// Why a request was not carried out, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Not done: another node leads. Ask that one.
    #[error("{}", leader_hint(*leader))]
    NotLeader {
        /// Which, if known.
        leader: Option<NodeId>,
    },
    /// Not done: a limit is reached. Try again later.
    #[error("is {reason}")]
    Busy {
        /// Which, or what has to be over first.
        reason: String,
    },
    /// A write that may or may not be carried out in the end: leadership was lost while it was
    /// on its way. Retrying it with the same ticket is safe.
    #[error("took the write, but cannot say what became of it; its leadership may have ended meanwhile")]
    Unknown {
        /// Who leads now, if known.
        leader: Option<NodeId>,
    },
    /// Not done: the storage of this node has failed. Another node may do it.
    #[error("has a failed storage")]
    StorageFailed,
    /// Not done: the node is shutting down. Another node may do it.
    #[error("is shutting down")]
    Stopping,
    /// Never possible: too many bytes.
    #[error("the {what} has {size} bytes; the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: Part,
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// Never possible: a key has at least one byte.
    #[error("the key is empty; a key has at least one byte")]
    EmptyKey,
    /// Not done: the key was not last changed at the revision that was demanded.
    #[error("{}", compare_failed(*current))]
    CompareFailed {
        /// The store's revision.
        revision: Revision,
        /// What the key is instead; `None` if it does not exist.
        current: Option<Metadata>,
    },
    /// Not done in this attempt: there is no such session, or no more.
    #[error("does not know the session")]
    SessionUnknown,
    /// Not done in this attempt: the client has said that it waits for this answer no more.
    #[error("takes no write below {floor} of this session")]
    SequenceStale {
        /// The lowest number that is still accepted.
        floor: Sequence,
    },
    /// Not done: too far ahead of the oldest write that the client waits for.
    #[error("takes no write from {ceiling} on of this session before earlier ones are acknowledged")]
    SequenceAhead {
        /// The lowest number that is too high.
        ceiling: Sequence,
    },
    /// Not done: the server does not understand. One of both is a newer program.
    #[error("does not understand the request: {0}")]
    Misunderstood(DecodeError),
    /// Not done: it cannot be, as things stand.
    #[error("declines: {reason}")]
    Declined {
        /// Why.
        reason: String,
    },
}

/// A part of a request that has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// The key.
    Key,
    /// The whole request: key, value and a few bytes.
    Request,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Request => "request",
        })
    }
}

fn leader_hint(leader: Option<NodeId>) -> String {
    match leader {
        Some(leader) => format!("is not the leader; says that {leader} is"),
        None => "is not the leader and knows of none".to_owned(),
    }
}

fn compare_failed(current: Option<Metadata>) -> String {
    match current {
        Some(Metadata { mod_revision, .. }) => format!("the key was last changed at revision {mod_revision}"),
        None => "the key does not exist".to_owned(),
    }
}

/// One node, as it sees itself at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The version of its program.
    pub version: String,
    /// What it does.
    pub role: RoleKind,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The index of the last entry of its log.
    pub last: Index,
    /// On its stable storage up to here.
    pub durable: Index,
    /// Committed up to here, as far as it knows.
    pub commit: Index,
    /// Applied up to here.
    pub applied: Index,
    /// What its replica of the store looks like.
    pub state: StateSummary,
    /// As leader: what it believes of the other nodes.
    pub peers: Vec<PeerProgress>,
    /// The index of the log entry that set the configuration in force.
    pub configuration: Index,
    /// The nodes whose majority decides.
    pub voters: Vec<NodeId>,
    /// While several voters change at once: those of before, whose majority decides as well.
    pub outgoing: Vec<NodeId>,
    /// The nodes that are sent the log and have no vote.
    pub learners: Vec<NodeId>,
    /// Whom it is handing leadership over to.
    pub transfer: Option<NodeId>,
    /// Its log begins after this index.
    pub base: Index,
    /// The bytes of its log, roughly.
    pub log_bytes: u64,
    /// Where its newest snapshot ends; 0 if it has none.
    pub snapshot: Index,
    /// The bytes of that snapshot.
    pub snapshot_bytes: u64,
    /// Proposals that wait for their answer.
    pub proposals: u64,
    /// Reads that wait for their answer.
    pub reads: u64,
    /// Promises that wait for its disk.
    pub held: u64,
    /// Whether its disk is full: it takes no more entries.
    pub storage_full: bool,
    /// Whether its storage has failed for good.
    pub storage_failed: bool,
    /// Whether it runs when it has to, and what got lost on its way.
    pub runtime: RuntimeSummary,
}

/// What happens around a node's consensus, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeSummary {
    /// How often it ran a whole heartbeat later than it had asked to.
    pub late_wakeups: u64,
    /// By how much at worst, in milliseconds.
    pub lateness_max_ms: u64,
    /// How often it was busy with one thing for longer than a heartbeat.
    pub long_turns: u64,
    /// For how long at worst, in milliseconds.
    pub turn_max_ms: u64,
    /// Messages to other nodes, appends and snapshots included, that had to be dropped.
    pub messages_dropped: u64,
    /// Connections that others tried and were refused.
    pub connections_refused: u64,
}

/// A replica of the store in a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSummary {
    /// The index of the last command applied. Replicas with the same have the same `hash`.
    pub index: Index,
    /// The store's revision.
    pub revision: Revision,
    /// How many keys there are.
    pub keys: u64,
    /// How many sessions are open.
    pub sessions: u64,
    /// The digest of everything: keys, values, revisions, versions and sessions.
    pub hash: StateHash,
}

/// What a leader believes of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerProgress {
    /// The node.
    pub node: NodeId,
    /// Known to hold the leader's log, durably, up to here.
    pub matched: Index,
    /// The next entry that it is sent.
    pub next: Index,
    /// Appends that are under way to it.
    pub inflight: u64,
    /// How the leader supplies it.
    pub supply: ProgressMode,
    /// How long ago the newest message was sent that it has answered, in milliseconds.
    pub silent_for_ms: u64,
}

/// Encodes a request.
pub fn encode_request(request: &Request) -> Bytes {
    envelope::encode(Kind::Request, VERSION, request)
}

/// How many bytes a request has once it is encoded.
pub(crate) fn request_len(request: &Request) -> usize {
    envelope::encoded_len(request)
}

/// Decodes a request.
///
/// # Errors
/// If it is none of a known version.
pub fn decode_request(bytes: &[u8]) -> Result<Request, DecodeError> {
    envelope::decode(Kind::Request, VERSION, bytes)
}

/// Encodes a response.
pub fn encode_response(response: &Response) -> Bytes {
    envelope::encode(Kind::Response, VERSION, response)
}

/// Decodes a response.
///
/// # Errors
/// If it is none of a known version.
pub fn decode_response(bytes: &[u8]) -> Result<Response, DecodeError> {
    envelope::decode(Kind::Response, VERSION, bytes)
}

#[cfg(test)]
mod tests;
