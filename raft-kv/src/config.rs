//! Layer 1: the file that describes a cluster.
//!
//! One TOML file serves every node and every client: the cluster's id, where each node listens
//! and keeps its data, and the certificates. Paths in it are relative to the file.

mod credentials;
mod error;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use raft_tokio::core::{ClusterId, Leases, Limits, NodeId, Priority, Timing};

pub use self::credentials::IdentityError;
pub use self::error::{ConfigError, ValueProblem};

use self::written::Written;

/// A cluster, as its file describes it. If it exists, it is consistent: at least one node, no
/// id, address or data directory twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    path: PathBuf,
    cluster: ClusterId,
    authority: PathBuf,
    client: Identity,
    limits: Limits,
    timing: Timing,
    leases: Option<Leases>,
    nodes: BTreeMap<NodeId, NodeConfig>,
}

/// One node of the cluster; its paths can be used as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its id.
    pub id: NodeId,
    /// Where others reach it, as `host:port`.
    pub address: String,
    /// Where it listens, as `host:port`, if that is not its address: behind a translating router, say.
    pub listen: Option<String>,
    /// Its data directory.
    pub data: PathBuf,
    /// How eagerly it runs for leader.
    pub priority: Priority,
    /// Its certificate and key.
    pub identity: Identity,
}

/// A certificate and the key that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The file with the certificate.
    pub certificate: PathBuf,
    /// The file with the key.
    pub key: PathBuf,
}

impl ClusterConfig {
    /// The name of the file in a directory made by [`init`](crate::init::init).
    pub const FILE_NAME: &'static str = "cluster.toml";

    /// Reads and checks a file.
    ///
    /// # Errors
    /// If it cannot be read, or does not describe a cluster; the error names the file, the line
    /// and the field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(path, &text)
    }

    /// Checks the content of the file at `path`.
    ///
    /// # Errors
    /// If it does not describe a cluster.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let line = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
        let written: Written = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line(span.start));
            // The parser speaks of Rust's types.
            let problem = error
                .message()
                .trim_end()
                .replace("expected u64", "expected a whole number")
                .replace("expected u32", "expected a whole number");
            ConfigError::Syntax { path: path.to_owned(), line, problem, place: place(text, line) }
        })?;
        written.check(path).map_err(|(offset, field, problem)| ConfigError::Value {
            path: path.to_owned(),
            line: line(offset),
            field,
            problem,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file with the certificate of the cluster's authority.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// The cluster's id.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What a node keeps, and when it writes snapshots.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How long a node waits for what.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Whether, and how, the cluster reads by lease.
    pub fn leases(&self) -> Option<Leases> {
        self.leases
    }

    /// The nodes, by id.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeConfig> {
        self.nodes.values()
    }

    /// One node.
    ///
    /// # Errors
    /// If there is no such node in the file.
    pub fn node(&self, id: NodeId) -> Result<&NodeConfig, ConfigError> {
        self.nodes.get(&id).ok_or_else(|| ConfigError::NoSuchNode {
            path: self.path.clone(),
            id,
            known: self.nodes.keys().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        })
    }

    /// Where the nodes are, as `host:port`.
    pub fn endpoints(&self) -> BTreeMap<NodeId, String> {
        self.nodes().map(|node| (node.id, node.address.clone())).collect()
    }
}

/// Where a line is, for people: `` (`id` of the 2nd [[node]])``. It is found without the parser,
/// which has just failed.
fn place(text: &str, line: usize) -> String {
    let assigned =
        |line: &str| line.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    let lines: Vec<&str> = text.lines().collect();
    let until = line.min(lines.len());
    let header = lines[..until].iter().rposition(|line| line.trim_start().starts_with('['));
    let table = header.map(|at| {
        let name = lines[at].trim();
        let block = lines[at + 1..].iter().take_while(|line| !line.trim_start().starts_with('['));
        let id =
            block.filter_map(|line| assigned(line)).find(|(key, _)| key == "id").and_then(|(_, id)| id.parse().ok());
        match (id.and_then(NodeId::new), lines[..=at].iter().filter(|line| line.trim() == name).count()) {
            (Some(node), _) => node.to_string(),
            (None, 0 | 1) => format!("the first {name}"),
            (None, nth) => format!("{name} number {nth}"),
        }
    });
    let field = until.checked_sub(1).and_then(|at| assigned(lines[at])).map(|(key, _)| format!("`{key}`"));
    match (field, table) {
        (Some(field), Some(table)) => format!(" ({field} of {table})"),
        (Some(field), None) => format!(" ({field})"),
        (None, Some(table)) => format!(" (in {table})"),
        (None, None) => String::new(),
    }
}

/// Whether an address is `host:port`; whether the host exists shows when it is used.
pub(crate) fn check_address(address: &str) -> Result<(), ValueProblem> {
    let not_an_address = || ValueProblem::NotAnAddress { found: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(not_an_address)?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    let port = port.parse::<u16>().ok().filter(|port| *port != 0);
    if host.is_empty() || bare_v6 || port.is_none() || address.contains(char::is_whitespace) {
        return Err(not_an_address());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
