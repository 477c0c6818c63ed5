//! Layer 1: the file that describes a cluster.
//!
//! One TOML file serves every node and every client: the cluster's id, where each node listens
//! and keeps its data, and the certificates. Paths in it are relative to the file.

mod credentials;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use raft_tokio::core::{ClusterId, Leases, Limits, Membership, NodeId, Priority};
use serde::Deserialize;
use toml::Spanned;

pub use self::credentials::IdentityError;

/// A cluster, as its file describes it. If it exists, it is consistent: at least one node, no
/// id, address or data directory twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    path: PathBuf,
    cluster: ClusterId,
    authority: PathBuf,
    client: Identity,
    limits: Limits,
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
            let problem = error.message().trim_end().replace("expected u64", "expected a whole number from 1 on");
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

/// The file, as it is written. What has a span can be complained about by line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cluster: Spanned<String>,
    tls: WrittenTls,
    #[serde(default)]
    snapshots: WrittenSnapshots,
    leases: Option<WrittenLeases>,
    #[serde(rename = "node", default)]
    nodes: Vec<Spanned<WrittenNode>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTls {
    authority: Spanned<PathBuf>,
    client_certificate: Spanned<PathBuf>,
    client_key: Spanned<PathBuf>,
}

/// When snapshots are taken; each of these may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSnapshots {
    entries: Option<Spanned<u64>>,
    bytes: Option<Spanned<u64>>,
    retain_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLeases {
    drift_ppm: Spanned<u32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenPriority {
    #[default]
    High,
    Middle,
    Low,
    Never,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNode {
    id: Spanned<u64>,
    address: Spanned<String>,
    listen: Option<Spanned<String>>,
    #[serde(default)]
    priority: WrittenPriority,
    data: Spanned<PathBuf>,
    certificate: Spanned<PathBuf>,
    key: Spanned<PathBuf>,
}

/// As many as can be members at once.
const NODES_MAX: usize = Membership::VOTERS_MAX + Membership::LEARNERS_MAX;

/// Where a value is, what it is called, and what is wrong with it.
type Complaint = (usize, &'static str, ValueProblem);

impl Written {
    fn check(&self, path: &Path) -> Result<ClusterConfig, Complaint> {
        let root = path.parent().unwrap_or(Path::new(""));
        let cluster = parse_cluster(self.cluster.get_ref()).ok_or((
            self.cluster.span().start,
            "cluster",
            ValueProblem::NotAClusterId,
        ))?;
        let mut nodes: BTreeMap<NodeId, NodeConfig> = BTreeMap::new();
        for written in &self.nodes {
            let node = written.get_ref().check(root)?;
            for other in nodes.values() {
                let first = other.id;
                if first == node.id {
                    return Err((written.get_ref().id.span().start, "id", ValueProblem::DuplicateNode { id: first }));
                }
                if other.address == node.address {
                    let at = written.get_ref().address.span().start;
                    return Err((at, "address", ValueProblem::DuplicateAddress { first }));
                }
                if other.data == node.data {
                    return Err((written.get_ref().data.span().start, "data", ValueProblem::DuplicateData { first }));
                }
            }
            nodes.insert(node.id, node);
        }
        match nodes.len() {
            0 => return Err((0, "node", ValueProblem::NoNode)),
            found if found > NODES_MAX => {
                return Err((0, "node", ValueProblem::TooManyNodes { found, max: NODES_MAX }));
            }
            _ => {}
        }
        let leases = self.leases.as_ref().map(|WrittenLeases { drift_ppm }| {
            let unbearable = |_| ValueProblem::TooMuchDrift { max: Leases::DRIFT_PPM_MAX };
            Leases::new(*drift_ppm.get_ref()).map_err(|error| (drift_ppm.span().start, "drift_ppm", unbearable(error)))
        });
        Ok(ClusterConfig {
            path: path.to_owned(),
            cluster,
            authority: file(root, "authority", &self.tls.authority)?,
            client: Identity {
                certificate: file(root, "client_certificate", &self.tls.client_certificate)?,
                key: file(root, "client_key", &self.tls.client_key)?,
            },
            limits: self.snapshots.limits()?,
            leases: leases.transpose()?,
            nodes,
        })
    }
}

impl WrittenSnapshots {
    fn limits(&self) -> Result<Limits, Complaint> {
        let Limits { snapshot_entries, snapshot_bytes, retain_bytes, .. } = Limits::DEFAULT;
        let some = |written: &Option<Spanned<u64>>, field, default| match written {
            Some(zero) if *zero.get_ref() == 0 => Err((zero.span().start, field, ValueProblem::Zero)),
            Some(number) => Ok(*number.get_ref()),
            None => Ok(default),
        };
        Ok(Limits {
            snapshot_entries: some(&self.entries, "entries", snapshot_entries)?,
            snapshot_bytes: some(&self.bytes, "bytes", snapshot_bytes)?,
            retain_bytes: self.retain_bytes.unwrap_or(retain_bytes),
            ..Limits::DEFAULT
        })
    }
}

impl From<WrittenPriority> for Priority {
    fn from(written: WrittenPriority) -> Self {
        match written {
            WrittenPriority::High => Self::High,
            WrittenPriority::Middle => Self::Middle,
            WrittenPriority::Low => Self::Low,
            WrittenPriority::Never => Self::Never,
        }
    }
}

impl WrittenNode {
    fn check(&self, root: &Path) -> Result<NodeConfig, Complaint> {
        let id = NodeId::new(*self.id.get_ref()).ok_or((self.id.span().start, "id", ValueProblem::ZeroNode))?;
        let address = |field, written: &Spanned<String>| {
            check_address(written.get_ref()).map_err(|problem| (written.span().start, field, problem))
        };
        address("address", &self.address)?;
        self.listen.as_ref().map(|listen| address("listen", listen)).transpose()?;
        Ok(NodeConfig {
            id,
            address: self.address.get_ref().clone(),
            listen: self.listen.as_ref().map(|listen| listen.get_ref().clone()),
            data: file(root, "data", &self.data)?,
            priority: self.priority.into(),
            identity: Identity {
                certificate: file(root, "certificate", &self.certificate)?,
                key: file(root, "key", &self.key)?,
            },
        })
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

fn parse_cluster(text: &str) -> Option<ClusterId> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(ClusterId::new)
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

fn file(root: &Path, field: &'static str, written: &Spanned<PathBuf>) -> Result<PathBuf, Complaint> {
    if written.get_ref().as_os_str().is_empty() {
        return Err((written.span().start, field, ValueProblem::EmptyPath));
    }
    Ok(root.join(written.get_ref()))
}

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

#[cfg(test)]
mod tests;
