//! What can be wrong with a data directory, by who is to blame and what to do next.

use std::io;
use std::path::{Path, PathBuf};

use raft_core::{ClusterId, NodeId, Position};

/// Why a data directory could not be formatted, opened, written or read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// There is nothing at the path.
    #[error(
        "cannot open the data directory {dir}: it does not exist; check the path, or format a directory for a new \
         member (`raft-kv init`)", dir = dir.display()
    )]
    Missing {
        /// The path that was tried.
        dir: PathBuf,
    },
    /// There is a directory without anything in it where a member's data is expected.
    #[error(
        "cannot open the data directory {dir}: it is empty; an empty directory never silently resumes an identity, \
         because the member that owned it has promised votes and entries that are not here; restore the right \
         directory (is a volume not mounted?), or format one for a new member (`raft-kv init`)", dir = dir.display()
    )]
    Empty {
        /// The path that was tried.
        dir: PathBuf,
    },
    /// What is there was not made by [`format`](super::format()).
    #[error("cannot open {dir} as a data directory: {found}; check the path", dir = dir.display())]
    NotADataDirectory {
        /// The path that was tried.
        dir: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// A data directory is formatted once, into nothing.
    #[error(
        "cannot format {dir}: it already holds {found:?}; choose another directory, or remove this one if nobody \
         needs what is in it", dir = dir.display()
    )]
    NotEmpty {
        /// The path that was to be formatted.
        dir: PathBuf,
        /// One of the names that were found there.
        found: String,
    },
    /// The directory was formatted for another node or another cluster.
    #[error(
        "the data directory {dir} belongs to {found_node} of cluster {found_cluster}, but {expected_node} of cluster \
         {expected_cluster} was to be started on it; point the configuration at the right directory", dir = dir.display()
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// The cluster in the configuration.
        expected_cluster: ClusterId,
        /// The node in the configuration.
        expected_node: NodeId,
        /// The cluster that the directory was formatted for.
        found_cluster: ClusterId,
        /// The node that the directory was formatted for.
        found_node: NodeId,
    },
    /// Somebody else holds the directory's lock.
    #[error(
        "the data directory {dir} is in use by another process; stop the node that runs on it, or give this one a \
         directory of its own", dir = dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A file in a format that this program does not know. Formats are never guessed.
    #[error(
        "{path} is in format version {found}, but this program reads version {known}; use the program that wrote it",
        path = path.display()
    )]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// The version that it claims.
        found: u32,
        /// The version that this program reads and writes.
        known: u32,
    },
    /// Something that was durable once is gone or wrong. Nothing is cut or repaired behind the operator's back.
    #[error(
        "{path} is damaged at byte {offset}: {found}; nothing was changed; this node must not run with a part of \
         what it promised missing: keep the directory, check the disk, and replace the node by a new member",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes from its beginning.
        offset: u64,
        /// What was found there.
        found: String,
    },
    /// The log was compacted, and the snapshot that says what came before cannot be read.
    #[error(
        "the log in {dir} begins after entry {base}, and no snapshot that reaches from there can be read: {found}; \
         this node cannot know what was applied before: keep the directory, check the disk, and replace the node by \
         a new member", dir = dir.display()
    )]
    NoSnapshot {
        /// The data directory.
        dir: PathBuf,
        /// The entry before the log's first one.
        base: Position,
        /// What is wrong with each snapshot that is there.
        found: String,
    },
    /// A snapshot covers entries that the log should hold and does not.
    #[error(
        "the snapshot {path} covers entries up to {last}, but the log that it was taken of ends at {end} or holds \
         others: what was durable once is missing; nothing was changed; keep the directory, check the disk, and \
         replace the node by a new member", path = path.display()
    )]
    LogBehindSnapshot {
        /// The snapshot's file.
        path: PathBuf,
        /// The last entry that it covers.
        last: Position,
        /// The last entry of the log.
        end: Position,
    },
    /// The snapshot that the log was to be replaced by is not there.
    #[error(
        "cannot replace the log by the snapshot {path}: {found}; the log is as it was: start the node again, and its \
         leader will send another one", path = path.display()
    )]
    NotReceived {
        /// Where it should be.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// A snapshot that arrived is not as long as it says: a defect of whoever sent it.
    #[error("the snapshot of {last} should have {expected} bytes, and {found} have arrived; it was not taken")]
    SnapshotSize {
        /// The last entry that it covers.
        last: Position,
        /// How long it should be.
        expected: u64,
        /// How long it is.
        found: u64,
    },
    /// The disk, or the quota on it, has no room left.
    #[error("cannot {action} {path}: the disk is full ({source}); make room and start the node again", path = path.display())]
    Full {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system refused or failed an operation.
    #[error("cannot {action} {path}: {source}; check the disk and the permissions", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Entries that do not follow on what the log holds: a defect of the caller.
    #[error("entries from {first} on do not follow on a log that ends at {last}; this is a defect of the caller")]
    OutOfOrder {
        /// The first entry of the write.
        first: Position,
        /// The end of the log.
        last: Position,
    },
    /// The thread that writes the log has failed in a way that nobody has foreseen.
    #[error(
        "the thread that writes the log in {dir} panicked: {reason}; this is a bug, please report it; what was \
         acknowledged is safe: start the node again", dir = dir.display()
    )]
    Panicked {
        /// The data directory.
        dir: PathBuf,
        /// What it said.
        reason: String,
    },
    /// An earlier write or sync failed, so nobody knows what is on the disk: nothing more is written.
    #[error(
        "the log in {dir} takes no more writes: an earlier write or sync failed, and after that nobody knows what \
         reached the disk; check the disk and start the node again", dir = dir.display()
    )]
    Poisoned {
        /// The data directory.
        dir: PathBuf,
    },
}

impl StorageError {
    /// Names what was tried; a full disk is told apart, because its cure is another one.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { action, path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }
}
