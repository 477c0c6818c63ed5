//! What is wrong with a file.

use std::path::PathBuf;

use raft_tokio::core::NodeId;

/// A file that describes no cluster, or not the node that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error(
        "cannot read the configuration file {}: {error}; `raft-kv init` makes one, `--config` names another",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// It is not TOML, or a field is missing, unknown or of the wrong type.
    #[error("{}:{line}: {problem}{place}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        problem: String,
        /// The field and the node, as far as there are any; follows the problem in a message.
        place: String,
    },
    /// A field has a value that it cannot have.
    #[error("{}:{line}: `{field}` {problem}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: ValueProblem,
    },
    /// It does not know the node.
    #[error("{} has no node {id}; it has {known}", path.display())]
    NoSuchNode {
        /// The file.
        path: PathBuf,
        /// The node.
        id: NodeId,
        /// The nodes in the file.
        known: String,
    },
}

/// What is wrong with a value. Follows the name of its field in a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueProblem {
    /// Not 32 hexadecimal digits.
    #[error("is not a cluster id, which is 32 hexadecimal digits")]
    NotAClusterId,
    /// Ids start at 1.
    #[error("is 0; node ids start at 1")]
    ZeroNode,
    /// The id is taken.
    #[error("repeats {id}, which is already a node")]
    DuplicateNode {
        /// The id.
        id: NodeId,
    },
    /// The address is taken.
    #[error("is already the address of {first}")]
    DuplicateAddress {
        /// By this node.
        first: NodeId,
    },
    /// The data directory is taken.
    #[error("is already the data directory of {first}")]
    DuplicateData {
        /// By this node.
        first: NodeId,
    },
    /// Not an address.
    #[error("is \"{found}\"; an address is host:port, such as 127.0.0.1:7401 or [::1]:7401")]
    NotAnAddress {
        /// What it is instead.
        found: String,
    },
    /// Nothing would ever reach it.
    #[error("is 0; it is at least 1")]
    Zero,
    /// The core cannot work with these times.
    #[error("cannot be: {0}")]
    Timing(raft_tokio::core::ConfigError),
    /// Clocks that drift so far are none.
    #[error("is too much: clocks that drift by more than {max} ppm cannot be relied on; do without [leases]")]
    TooMuchDrift {
        /// The most there may be.
        max: u32,
    },
    /// No path.
    #[error("is empty; it names a file or directory")]
    EmptyPath,
    /// There is no node.
    #[error("is missing: a cluster has at least one [[node]]")]
    NoNode,
    /// There are too many nodes.
    #[error("appears {found} times; a cluster has at most {max} nodes")]
    TooManyNodes {
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
}
