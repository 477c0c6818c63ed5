//! Layer 3: a new member of a cluster that runs: an id, a certificate, a formatted data directory,
//! and its place in the configuration file.
//!
//! The cluster decides: it gives the newcomer's store an id that nobody ever had. What can be found
//! out before that is found out before, and leaves no file. Then files are made for that id, beside
//! where they belong, and moved into place together, the configuration last. If that fails they are
//! taken back, and the cluster has a learner that never comes; it has no vote, and `member remove`
//! lets it go.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use raft_tokio::certs::{Authority, IssueError};
use raft_tokio::core::{Change, Membership, NodeId, StoreId};
use raft_tokio::storage::{self, Birth, StorageError};
use tempfile::{NamedTempFile, TempDir};

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
    let places = Places::new(config)?;
    let store = StoreId::new(random::identity()?);
    let decided = client.change_membership(None, vec![Change::AddLearner { store, promote }]).await;
    let reply = decided.map_err(|error| match error {
        ClientError::OutcomeUnknown { .. } => JoinError::Undecided(Box::new(error)),
        other => JoinError::Client(other),
    })?;
    let node = reply.node.ok_or(JoinError::Client(ClientError::Confused))?;
    let newcomer = Newcomer { config, authority: &authority, node, store, address };
    newcomer.settle(&places).map_err(|cause| JoinError::Unfinished { node, cause: Box::new(cause) })?;
    Ok(node)
}

/// The authority, whose key lies beside its certificate.
fn authority(config: &ClusterConfig) -> Result<Authority, JoinError> {
    let read =
        |path: PathBuf| fs::read_to_string(&path).map_err(|error| JoinError::Authority { path: path.clone(), error });
    let (certificate, key) = (config.authority().to_owned(), config.authority().with_extension("key"));
    Ok(Authority::load(&read(certificate)?, &read(key)?)?)
}

/// Where a node's files belong, and where they are made. If it exists, both can be written to.
struct Places {
    root: PathBuf,
    certificates: PathBuf,
    staging: TempDir,
}

impl Places {
    fn new(config: &ClusterConfig) -> Result<Self, JoinError> {
        let root = folder_of(config.path()).to_owned();
        let certificates = root.join("certs");
        let staging = tempfile::Builder::new().prefix(".raft-kv-join-").tempdir_in(&root);
        let staging = staging.map_err(|error| cannot_write(&root, error))?;
        fs::create_dir_all(&certificates).map_err(|error| cannot_write(&certificates, error))?;
        tempfile::tempfile_in(&certificates).map_err(|error| cannot_write(&certificates, error))?;
        Ok(Self { root, certificates, staging })
    }
}

/// What the cluster has decided on, and who can make its files.
struct Newcomer<'a> {
    config: &'a ClusterConfig,
    authority: &'a Authority,
    node: NodeId,
    store: StoreId,
    address: &'a str,
}

impl Newcomer<'_> {
    /// Makes all of its files, and moves them to where they belong; or leaves none.
    fn settle(&self, places: &Places) -> Result<(), JoinError> {
        let Self { config, authority, node, store, address } = *self;
        let Places { root, certificates, staging } = places;
        let made = |name: &str| staging.path().join(name);
        let (data, certificate, key) = (node.to_string(), format!("{node}.pem"), format!("{node}.key"));
        let issued = authority.issue_node(node)?;
        for (name, content, mode) in [(&certificate, issued.cert_pem, PUBLIC), (&key, issued.key_pem, SECRET)] {
            write_new(&made(name), &content, mode).map_err(|error| cannot_write(&made(name), error))?;
        }
        // It belongs to nobody until a leader tells it otherwise (contract M1).
        let birth = Birth { cluster: config.cluster(), node, store, membership: Membership::default() };
        storage::format(&made(&data), &birth)?;

        let targets = [root.join(&data), certificates.join(&certificate), certificates.join(&key)];
        let mut moved = Moved::default();
        for (name, target) in [&data, &certificate, &key].into_iter().zip(targets) {
            moved.put(made(name), target)?;
        }
        for folder in [certificates, root] {
            sync(folder).map_err(|error| cannot_write(folder, error))?;
        }
        append(config, &node_text(node, address))?;
        moved.keep();
        Ok(())
    }
}

/// What has been moved into place. Goes back to where it was made unless it is [kept](Self::keep).
#[derive(Default)]
struct Moved(Vec<(PathBuf, PathBuf)>);

impl Moved {
    /// Moves a file or a folder to where nothing is.
    fn put(&mut self, from: PathBuf, to: PathBuf) -> Result<(), JoinError> {
        // A file would be replaced by a rename without a word.
        if to.symlink_metadata().is_ok() {
            return Err(cannot_write(&to, io::ErrorKind::AlreadyExists.into()));
        }
        fs::rename(&from, &to).map_err(|error| cannot_write(&to, error))?;
        self.0.push((from, to));
        Ok(())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for (from, to) in self.0.drain(..).rev() {
            // The error that has led here is the one to report.
            let _ = fs::rename(to, from);
        }
    }
}

/// Adds a node to the end of the configuration file: all of it or nothing, whoever reads it
/// meanwhile, and whoever else joins from here at the same time.
fn append(config: &ClusterConfig, node: &str) -> Result<(), JoinError> {
    // What is replaced is the file, not a link to it.
    let path = config.path().canonicalize().map_err(|error| cannot_write(config.path(), error))?;
    let failed = |error| cannot_write(&path, error);
    let parent = folder_of(&path);
    let folder = File::open(parent).map_err(failed)?;
    folder.lock().map_err(failed)?;
    let text = fs::read_to_string(&path).map_err(failed)? + node;
    // Whoever reads it from now on must find it in order.
    ClusterConfig::parse(config.path(), &text)?;
    let mut replacement = NamedTempFile::new_in(parent).map_err(failed)?;
    replacement.write_all(text.as_bytes()).map_err(failed)?;
    let permissions = fs::metadata(&path).map_err(failed)?.permissions();
    fs::set_permissions(replacement.path(), permissions).map_err(failed)?;
    replacement.as_file().sync_all().map_err(failed)?;
    replacement.persist(&path).map_err(|error| failed(error.error))?;
    folder.sync_all().map_err(failed)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn cannot_write(path: &Path, error: io::Error) -> JoinError {
    JoinError::CannotWrite { path: path.to_owned(), error }
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
    /// The cluster has not taken it in.
    #[error(transparent)]
    Client(ClientError),
    /// Nobody knows whether the cluster has taken it in.
    #[error(
        "{0}\n  no file was made; if there is a learner that is not in the configuration file, `raft-kv member remove` \
         lets it go, then try again"
    )]
    Undecided(Box<ClientError>),
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
    /// The cluster has taken it in, but it has no files.
    #[error(
        "{node} is a member of the cluster by now, without a vote, but its files cannot be put in place: {cause}; none of \
         them is left; `raft-kv member remove {node}` lets it go, then try again"
    )]
    Unfinished {
        /// The id that it got.
        node: NodeId,
        /// What went wrong.
        cause: Box<JoinError>,
    },
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::init::init;

    #[test]
    fn nodes_that_are_added_at_the_same_time_are_all_in_the_file() {
        let folder = tempfile::tempdir().expect("because a test machine has room for a folder");
        let config = init(&folder.path().join("c"), &["h:1".to_owned()]).expect("because the folder is empty");
        let numbers = 2..=12;
        thread::scope(|scope| {
            for number in numbers.clone() {
                let (config, node) = (&config, NodeId::new(number).expect("because the tests count from 1"));
                scope
                    .spawn(move || append(config, &node_text(node, &format!("h:{number}"))).map_err(|e| e.to_string()));
            }
        });
        let config = ClusterConfig::load(config.path()).expect("because every addition is checked");
        assert!(config.nodes().map(|node| node.id.as_u64()).eq(1..=12), "{config:?}");
    }

    #[test]
    fn an_addition_that_would_break_the_file_leaves_it_and_a_link_to_it_stays_one() {
        let folder = tempfile::tempdir().expect("because a test machine has room for a folder");
        let config = init(&folder.path().join("c"), &["h:1".to_owned()]).expect("because the folder is empty");
        let before = fs::read_to_string(config.path()).expect("because init has written it");
        let node = NodeId::new(2).expect("because the tests count from 1");
        let broken = append(&config, &node_text(node, "h:1")).expect_err("because the address is taken").to_string();
        assert!(broken.contains("`address` is already the address of n1"), "{broken}");
        assert_eq!(fs::read_to_string(config.path()).ok(), Some(before));

        let link = folder.path().join("c/link.toml");
        std::os::unix::fs::symlink("cluster.toml", &link).expect("because the folder is ours");
        let linked = ClusterConfig::load(&link).expect("because it leads to a good file");
        append(&linked, &node_text(node, "h:2")).expect("because the address is free");
        assert!(fs::symlink_metadata(&link).is_ok_and(|metadata| metadata.is_symlink()));
        assert_eq!(ClusterConfig::load(config.path()).map(|config| config.nodes().len()).ok(), Some(2));
    }
}
