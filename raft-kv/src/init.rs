//! Layer 3: a new cluster: its configuration, its certificates, and a formatted data directory
//! for each node.
//!
//! Everything is written to a directory beside the target and moved into place at the end. If
//! anything fails before, the target is as it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use raft_tokio::certs::{Authority, IssueError, Issued};
use raft_tokio::core::{ClusterId, Member, Membership, MembershipError, NodeId, StoreId};
use raft_tokio::storage::{self, Birth, StorageError};
use tempfile::TempDir;

use crate::config::{ClusterConfig, ConfigError, ValueProblem, check_address};
use crate::random::{self, RandomError};

/// Makes a cluster in `directory`, which must be empty or not exist: one node for each address,
/// numbered from 1.
///
/// # Errors
/// If an address is none or appears twice, if there are none or too many, if the directory holds
/// something already, or if something cannot be written. Then nothing is left behind.
pub fn init(directory: &Path, addresses: &[String]) -> Result<ClusterConfig, InitError> {
    let plan = Plan::new(addresses)?;
    all_or_nothing(directory, |staging| plan.write(staging))?;
    Ok(ClusterConfig::load(&directory.join(ClusterConfig::FILE_NAME))?)
}

/// Addresses for `nodes` nodes on one host, with successive ports.
///
/// # Errors
/// If there are not that many ports from `first_port` on.
pub fn successive_addresses(host: &str, first_port: u16, nodes: u16) -> Result<Vec<String>, InitError> {
    let ports = (0..nodes).map(|nth| first_port.checked_add(nth).map(|port| format!("{host}:{port}")));
    ports.collect::<Option<_>>().ok_or(InitError::OutOfPorts { first_port, nodes })
}

/// What will be written.
struct Plan {
    cluster: ClusterId,
    nodes: Vec<(Member, String)>,
    membership: Membership,
}

impl Plan {
    fn new(addresses: &[String]) -> Result<Self, InitError> {
        if addresses.is_empty() {
            return Err(InitError::NoNode);
        }
        let mut nodes: Vec<(Member, String)> = Vec::new();
        for (nth, address) in addresses.iter().enumerate() {
            let node = NodeId::new(nth as u64 + 1).ok_or(InitError::NoNode)?;
            check_address(address).map_err(|problem| InitError::Address { node, problem })?;
            if let Some((first, _)) = nodes.iter().find(|(_, other)| other == address) {
                let problem = ValueProblem::DuplicateAddress { first: first.node };
                return Err(InitError::Address { node, problem });
            }
            nodes.push((Member { node, store: StoreId::new(random::identity()?) }, address.clone()));
        }
        let membership = Membership::new(nodes.iter().map(|(member, _)| *member))?;
        Ok(Self { cluster: ClusterId::new(random::identity()?), nodes, membership })
    }

    fn write(&self, root: &Path) -> Result<(), InitError> {
        let certificates = root.join("certs");
        fs::create_dir(&certificates).map_err(|error| cannot_write(&certificates, error))?;
        let authority = Authority::new(self.cluster)?;
        let pair = |name: &str, issued: Issued| {
            write_file(&certificates.join(format!("{name}.pem")), &issued.cert_pem, PUBLIC)?;
            write_file(&certificates.join(format!("{name}.key")), &issued.key_pem, SECRET)
        };
        write_file(&certificates.join("ca.pem"), authority.cert_pem(), PUBLIC)?;
        write_file(&certificates.join("ca.key"), &authority.key_pem(), SECRET)?;
        pair("client", authority.issue_client("client")?)?;
        for (Member { node, store }, _) in &self.nodes {
            pair(&node.to_string(), authority.issue_node(*node)?)?;
            let birth =
                Birth { cluster: self.cluster, node: *node, store: *store, membership: self.membership.clone() };
            storage::format(&root.join(node.to_string()), &birth)?;
        }
        write_file(&root.join(ClusterConfig::FILE_NAME), &self.text(), PUBLIC)?;
        sync_directory(&certificates)?;
        sync_directory(root)
    }

    /// The configuration file.
    fn text(&self) -> String {
        let mut text = format!(
            "# A raft-kv cluster. Paths are relative to this file. Each node needs this file, its own data\n\
             # directory, its own certificate and key, and certs/ca.pem; a client needs certs/client.* and\n\
             # certs/ca.pem. Keep certs/ca.key to yourself: whoever has it can issue certificates.\n\
             cluster = \"{}\"\n\n\
             [tls]\n\
             authority = \"certs/ca.pem\"\n\
             client_certificate = \"certs/client.pem\"\n\
             client_key = \"certs/client.key\"\n{SETTINGS}",
            self.cluster
        );
        for (Member { node, .. }, address) in &self.nodes {
            text += &node_text(*node, address);
        }
        text
    }
}

/// What else may be said, with the defaults.
const SETTINGS: &str = "
# What follows is optional, and shown with what holds without it; docs/operating.md explains it. It has to
# be the same on all nodes, which read it at their start.

#[timing]
#preset = \"lan\"                    # or \"wan\": heartbeats every 200 ms, elections after 1 to 2 s
#heartbeat_ms = 50                 # each of these three takes the place of the preset's
#election_timeout_ms = [150, 300]
#stall_limit_ms = 1000             # a leader whose disk hangs for so long hands over

#[snapshots]
#entries = 1000000                 # a node writes one when its log has grown by so many entries,
#bytes = 67108864                  # or by so many bytes
#retain_bytes = 16777216           # so much of the log is kept for nodes that are a little behind

#[leases]                          # not there by default: `get --lease` relies on clocks,
#drift_ppm = 200                   # of which none may run faster or slower than this, in millionths

# A [[node]] may also have a priority = \"high\" (as without it), \"middle\", \"low\" or \"never\": how eagerly
# it runs for leader.
";

/// A node's part of the configuration file.
pub(crate) fn node_text(node: NodeId, address: &str) -> String {
    let (id, address) = (node.as_u64(), toml::Value::from(address));
    format!(
        "\n[[node]]\n\
         id = {id}\n\
         address = {address}\n\
         data = \"{node}\"\n\
         certificate = \"certs/{node}.pem\"\n\
         key = \"certs/{node}.key\"\n"
    )
}

/// Everybody may read it.
pub(crate) const PUBLIC: u32 = 0o644;
/// Only its owner may.
pub(crate) const SECRET: u32 = 0o600;

/// Runs `populate` on an empty directory and makes that one `target`, if it succeeded.
fn all_or_nothing(target: &Path, populate: impl FnOnce(&Path) -> Result<(), InitError>) -> Result<(), InitError> {
    let exists = inspect(target)?;
    // A directory that exists may be the one that somebody stands in, or a mount: it stays, and
    // is filled. Otherwise the whole directory appears at once.
    let beside = if exists { Some(target) } else { target.parent() };
    let beside = beside.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let staging = tempfile::Builder::new()
        .prefix(".raft-kv-init-")
        .tempdir_in(beside)
        .map_err(|error| cannot_write(beside, error))?;
    populate(staging.path())?;
    if exists {
        fill(target, &staging)?;
    } else {
        fs::rename(staging.path(), target).map_err(|error| cannot_write(target, error))?;
        // It has moved: there is nothing to remove any more.
        let _moved = staging.keep();
        sync_directory(beside)?;
    }
    Ok(())
}

/// Whether the target exists; an error if it is in use.
fn inspect(target: &Path) -> Result<bool, InitError> {
    let mut entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(cannot_write(target, error)),
    };
    match entries.next() {
        None => Ok(true),
        Some(entry) => {
            let found = entry.map_err(|error| cannot_write(target, error))?.file_name();
            Err(InitError::NotEmpty { directory: target.to_owned(), found: found.to_string_lossy().into_owned() })
        }
    }
}

/// Moves what was made into an existing directory, the configuration last: without it, the rest
/// is no cluster. Takes everything back if that fails.
fn fill(target: &Path, staging: &TempDir) -> Result<(), InitError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(staging.path()).map_err(|error| cannot_write(staging.path(), error))? {
        names.push(entry.map_err(|error| cannot_write(staging.path(), error))?.file_name());
    }
    names.sort_by_key(|name| name == ClusterConfig::FILE_NAME);
    for (nth, name) in names.iter().enumerate() {
        let moved = fs::rename(staging.path().join(name), target.join(name));
        if let Err(error) = moved {
            for moved in names.iter().take(nth) {
                // Back into the staging directory, which is removed; the first error is the one to report.
                fs::rename(target.join(moved), staging.path().join(moved)).ok();
            }
            return Err(cannot_write(&target.join(name), error));
        }
    }
    sync_directory(target)
}

fn write_file(path: &Path, content: &str, mode: u32) -> Result<(), InitError> {
    write_new(path, content, mode).map_err(|error| cannot_write(path, error))
}

/// Writes a file that was not there before, durably.
pub(crate) fn write_new(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), InitError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| cannot_write(path, error))
}

fn cannot_write(path: &Path, error: io::Error) -> InitError {
    InitError::CannotWrite { path: path.to_owned(), error }
}

/// A cluster that was not made. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A cluster of nobody.
    #[error("a cluster has at least one node")]
    NoNode,
    /// There are not so many ports.
    #[error("there are no {nodes} ports from {first_port} on; the last one is 65535")]
    OutOfPorts {
        /// The first port.
        first_port: u16,
        /// How many are needed.
        nodes: u16,
    },
    /// An address is none, or is taken.
    #[error("the address of {node} {problem}")]
    Address {
        /// The node that was to have it.
        node: NodeId,
        /// What is wrong with it.
        problem: ValueProblem,
    },
    /// These nodes make no cluster.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The target is in use.
    #[error(
        "{} is not empty (it holds {found}); a cluster is made in a new or an empty directory, and nothing was changed",
        directory.display()
    )]
    NotEmpty {
        /// The target.
        directory: PathBuf,
        /// Something in it.
        found: String,
    },
    /// Something cannot be written.
    #[error("cannot write {}: {error}; nothing was left behind", path.display())]
    CannotWrite {
        /// What.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Identities need random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] IssueError),
    /// A data directory cannot be formatted.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What was written cannot be read back.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

#[cfg(test)]
mod tests;
