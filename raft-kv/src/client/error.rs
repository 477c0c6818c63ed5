//! What can go wrong for a client.

use raft_tokio::core::{ClusterId, NodeId};

use super::trail::Trail;
use crate::key::Revision;
use crate::protocol::{Part, Refusal};
use crate::random::RandomError;
use crate::store::Metadata;

/// Why an operation did not succeed, or is not known to have.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// Certainly not done: no node was able to within the time.
    #[error("{verdict}\n{0}", verdict = .0.verdict())]
    Unavailable(Box<Trail>),
    /// Certainly not done: every node that could do it, and this client, do not accept each other.
    /// A retry changes nothing.
    #[error("{verdict}\n{0}", verdict = .0.verdict_of_distrust())]
    Distrusted(Box<Trail>),
    /// A write, or a change to the cluster, that may or may not be applied, now or later.
    #[error("{cause}: {}\n{trail}\n  {}", .trail.doubt(), .trail.way_to_find_out())]
    OutcomeUnknown {
        /// How the answer was missed.
        cause: UnknownCause,
        /// What was tried.
        trail: Box<Trail>,
    },
    /// Not done: the key was not last changed at the revision that was demanded.
    #[error("nothing was changed, because {}", found(*current))]
    CompareFailed {
        /// The store's revision.
        revision: Revision,
        /// What the key is instead; `None` if it does not exist.
        current: Option<Metadata>,
    },
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
    /// Not done: the cluster cannot do it as things stand.
    #[error("{reason}")]
    Declined {
        /// Why.
        reason: String,
    },
    /// Not done: the server will not do it, and a retry will not change that.
    #[error("the server {0}")]
    Refused(Refusal),
    /// The server answered something else than it was asked: it is another program.
    #[error("the server's answer does not belong to the question; is it a raft-kv of another version?")]
    Confused,
    /// There is nobody to ask.
    #[error("no endpoint was given; name at least one node and its address")]
    NoEndpoints,
    /// The node is not one of the client's endpoints.
    #[error("{node} is not a node of this cluster; it has {}", list(known))]
    NoSuchNode {
        /// Which node.
        node: NodeId,
        /// The ones that there are.
        known: Vec<NodeId>,
    },
    /// The client's certificate is for another cluster.
    #[error(
        "the client's certificate is for cluster {certified}, but the nodes belong to cluster {cluster}; use the one that was issued for it"
    )]
    ForeignCertificate {
        /// The cluster of the nodes.
        cluster: ClusterId,
        /// The cluster of the certificate.
        certified: ClusterId,
    },
    /// The client's certificate or key cannot be used, or no socket can be opened.
    #[error("cannot set up the client's side of the connection: {reason}")]
    Setup {
        /// What the transport says.
        reason: String,
    },
    /// A session cannot be opened without random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Why the answer to a write is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCause {
    /// The time is up.
    #[error("no answer came in time")]
    OutOfTime,
    /// The cluster has forgotten the session, and with it the answer.
    #[error("the cluster has forgotten this client's session, and with it the answer")]
    SessionLost,
    /// One attempt was not answered, and the node that was asked next will not carry it out.
    #[error("an attempt was not answered, and a retry was refused ({0})")]
    RetryRefused(Refusal),
    /// One attempt was not answered, and now no node and this client accept each other.
    #[error("an attempt was not answered, and now the nodes and this client do not accept each other")]
    Distrusted,
    /// The server answered something else than it was asked: it is another program.
    #[error("the server's answer does not belong to the question; is it a raft-kv of another version?")]
    Confused,
}

fn found(current: Option<Metadata>) -> String {
    match current {
        Some(Metadata { mod_revision, .. }) => format!("the key is at revision {mod_revision}"),
        None => "the key does not exist".to_owned(),
    }
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
