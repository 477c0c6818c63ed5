//! Layer 3: a new member of a cluster that runs: an id, a certificate, a formatted data directory,
//! and its place in the configuration file.
//!
//! The cluster decides first: it gives the newcomer's store an id that nobody ever had. Only then
//! are files made for that id. If something fails in between, the cluster has a learner that
//! never comes; it has no vote, and `member remove` lets it go.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use raft_tokio::certs::{Authority, IssueError};
use raft_tokio::core::{Change, Membership, NodeId, StoreId};
use raft_tokio::storage::{self, Birth, StorageError};

use crate::client::{Client, ClientError};
use crate::config::{ClusterConfig, ConfigError, ValueProblem, check_address};
use crate::init::{PUBLIC, SECRET, node_text, write_new};
use crate::random::{self, RandomError};

/// Takes a new node into the cluster, as a learner; the leader makes it a voter when it has caught
/// up, if `promote`. It is reached at `address`. Returns its id; from then on it can be served.
///
/// # Errors
/// If the address is none or taken, the authority's key is not at hand, the cluster declines, or
/// something cannot be written; the message says what is left then.
pub async fn join(config: &ClusterConfig, client: &Client, address: &str, promote: bool) -> Result<NodeId, JoinError> {
    check_address(address).map_err(JoinError::Address)?;
    if let Some(first) = config.nodes().find(|node| node.address == address) {
        return Err(JoinError::Address(ValueProblem::DuplicateAddress { first: first.id }));
    }
    let authority = authority(config)?;
    let store = StoreId::new(random::identity()?);
    let reply = client.change_membership(None, vec![Change::AddLearner { store, promote }]).await?;
    let node = reply.node.ok_or(ClientError::Confused)?;
    write(config, &authority, node, store, address)
        .map_err(|cause| JoinError::Unfinished { node, cause: Box::new(cause) })?;
    Ok(node)
}

/// The authority, whose key lies beside its certificate.
fn authority(config: &ClusterConfig) -> Result<Authority, JoinError> {
    let read =
        |path: PathBuf| fs::read_to_string(&path).map_err(|error| JoinError::Authority { path: path.clone(), error });
    let (certificate, key) = (config.authority().to_owned(), config.authority().with_extension("key"));
    Ok(Authority::load(&read(certificate)?, &read(key)?)?)
}

fn write(
    config: &ClusterConfig,
    authority: &Authority,
    node: NodeId,
    store: StoreId,
    address: &str,
) -> Result<(), JoinError> {
    let root = config.path().parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let certificates = root.join("certs");
    let issued = authority.issue_node(node)?;
    let made = |path: PathBuf, content: &str, mode| {
        write_new(&path, content, mode).map_err(|error| JoinError::CannotWrite { path: path.clone(), error })
    };
    fs::create_dir_all(&certificates).map_err(|error| JoinError::CannotWrite { path: certificates.clone(), error })?;
    made(certificates.join(format!("{node}.pem")), &issued.cert_pem, PUBLIC)?;
    made(certificates.join(format!("{node}.key")), &issued.key_pem, SECRET)?;
    // It belongs to nobody until a leader tells it otherwise (contract M1).
    let birth = Birth { cluster: config.cluster(), node, store, membership: Membership::default() };
    storage::format(&root.join(node.to_string()), &birth)?;
    append(config.path(), &node_text(node, address))
        .map_err(|error| JoinError::CannotWrite { path: config.path().to_owned(), error })?;
    // Whoever reads it from now on must find it in order.
    ClusterConfig::load(config.path())?;
    Ok(())
}

/// Adds text to the end of a file: all of it or nothing, whoever reads it meanwhile.
fn append(path: &Path, text: &str) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut replacement = tempfile::NamedTempFile::new_in(parent)?;
    replacement.write_all(fs::read_to_string(path)?.as_bytes())?;
    replacement.write_all(text.as_bytes())?;
    fs::set_permissions(replacement.path(), fs::metadata(path)?.permissions())?;
    replacement.as_file().sync_all()?;
    replacement.persist(path).map_err(|error| error.error)?;
    fs::File::open(parent)?.sync_all()
}

/// A node that has not joined, or not altogether.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It cannot be reached there.
    #[error("the address of the new node {0}")]
    Address(ValueProblem),
    /// Without the authority there is no certificate for it.
    #[error(
        "cannot read {}: {error}; the key of the cluster's authority, which `raft-kv init` wrote, is needed to issue \
         a certificate for a new node", path.display()
    )]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// A certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] IssueError),
    /// An identity needs random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The cluster has not taken it in, or has not said so.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    CannotWrite {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// The data directory cannot be formatted.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The configuration file is not in order.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster has taken it in, but its files are not complete.
    #[error(
        "{node} is a member of the cluster by now, without a vote, but its files are not complete: {cause}; \
         `raft-kv member remove {node}` lets it go, then try again"
    )]
    Unfinished {
        /// The id that it got.
        node: NodeId,
        /// What went wrong.
        cause: Box<JoinError>,
    },
}
