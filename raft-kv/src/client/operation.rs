//! What may be asked for, and what is answered.

use raft_tokio::core::{Index, NodeId};

use crate::key::{KeyRange, Revision};
use crate::store::{KeyValue, Metadata};

/// Conditions of a put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Only if the key was last changed at this revision; 0 means: only if it does not exist.
    pub if_revision: Option<Revision>,
}

/// Conditions of a delete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Only if the key was last changed at this revision.
    pub if_revision: Option<Revision>,
}

/// What a write has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteReply {
    /// The store's revision after the write.
    pub revision: Revision,
    /// What the key was before; `None` if it did not exist.
    pub previous: Option<Metadata>,
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write that was acknowledged before it began. The leader answers.
    #[default]
    Linearizable,
    /// The same, but the leader may rely on the promises of a majority instead of asking it, if
    /// the cluster was set up for that.
    Lease,
    /// As linearizable, but this node answers from its own replica; it asks the leader up to
    /// where it has to wait.
    LinearizableAt {
        /// Which node.
        node: NodeId,
    },
    /// It sees what one node has applied so far, and works without a majority.
    Stale {
        /// Which node; `None`: any.
        node: Option<NodeId>,
    },
}

/// What a get has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetReply {
    /// The pair, if the key exists.
    pub kv: Option<KeyValue>,
    /// The store's revision.
    pub revision: Revision,
}

/// What to read of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// So many pairs at most; `None`: all of them.
    pub limit: Option<u64>,
    /// How fresh.
    pub consistency: Consistency,
}

/// The pairs of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeReply {
    /// The pairs, in the order of their keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the range holds more than the limit let through.
    pub more: bool,
    /// How many pairs the range holds, limit aside.
    pub count: u64,
    /// The store's revision when the first pair was read.
    pub revision: Revision,
    /// The store's revision when the last pair was read or counted. A large range takes several
    /// requests; if both revisions are the same, the reply is one consistent picture.
    pub revision_last: Revision,
}

/// What has become of the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembershipReply {
    /// The configuration by now, for the next change to be compared with.
    pub configuration: Index,
    /// The id of the member that was added, or had been before.
    pub node: Option<NodeId>,
}

/// The first pairs of a range: one consistent picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    /// The pairs, in the order of their keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the range holds more.
    pub more: bool,
    /// The store's revision.
    pub revision: Revision,
}

/// How many pairs a range holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountReply {
    /// So many.
    pub count: u64,
    /// The store's revision when the count began.
    pub revision: Revision,
    /// The store's revision when it ended; if both are the same, it is the count of one moment.
    pub revision_last: Revision,
}
