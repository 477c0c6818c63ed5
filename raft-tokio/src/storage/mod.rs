//! The durable log of one node, and the directory that it lives in.
//!
//! A data directory is [formatted](format()) once, for one node of one cluster, and
//! [opened](open()) at every start. What it holds then is in [`Opened::durable`], ready for
//! [`raft_core::Raft::new`]. The [`Log`] and its [`Snapshots`] are synchronous; a [`Writer`] runs
//! them on two threads of its own and makes everything that waits durable with one sync.
//!
//! What it promises: after [`Log::write`] or [`Log::install`] has returned, or
//! [`Completion::Persisted`] was reported, no crash loses what was written. A write that a crash
//! interrupted is there as a whole or not at all, and so is an installed snapshot, together with the
//! log that begins after it. What a durable snapshot covers can be compacted, and is forgotten only
//! then. Bytes that are not what was written are never returned: opening or reading fails, and says
//! where; a snapshot that has rotted gives way to an older one if the log reaches back to that. A
//! failed write or sync is final, but for that of a snapshot. `format.rs` describes the bytes, with
//! the argument.
//!
//! Omitted: reuse of segments (they are removed), snapshots larger than memory, going on after a full
//! disk, and repair of damage from other nodes.
//!
//! ```
//! use raft_core::{ClusterId, Entries, HardState, Membership, NodeId, StoreId, Term, WriteSeq};
//! use raft_tokio::storage::{self, Birth, Expected, Options, Write};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let dir = folder.path().join("n1");
//! let (cluster, store) = (ClusterId::new(7), StoreId::new(8)); // draw these at random
//! let node = NodeId::new(1).ok_or("ids begin at 1")?;
//! storage::format(&dir, &Birth { cluster, node, store, membership: Membership::default() })?;
//!
//! let expected = Expected { cluster, node };
//! let mut opened = storage::open(&dir, &expected, &Options::default())?;
//! let promise = HardState { term: Term::new(3), voted_for: Some(node), floor: None };
//! opened.log.write(&[Write { seq: WriteSeq::new(1), hard_state: Some(promise), entries: Entries::EMPTY }])?;
//! drop(opened);
//!
//! let opened = storage::open(&dir, &expected, &Options::default())?;
//! assert_eq!(opened.durable.hard_state, promise);
//! # Ok(())
//! # }
//! ```

mod anchor;
mod contents;
mod disk;
mod error;
mod format;
mod header;
mod identity;
mod jobs;
mod log;
mod recovery;
mod replay;
mod saver;
mod segment;
mod snapshot;
mod snapshots;
mod starts;
mod writer;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{
    ClusterId, Configuration, Durable, Entries, HardState, Identity, Index, Membership, NodeId, Position, StoreId,
    WriteSeq,
};

use anchor::{Anchor, AnchorFile};

pub use disk::{Disk, DiskFile, FileDisk};
pub use error::StorageError;
pub use log::Log;
pub use snapshots::Snapshots;
pub use writer::{Completion, Writer};

/// The first segment of a store is small, so that formatting one is quick.
const FIRST_SEGMENT_BYTES: u64 = 64 << 10;

/// What a fresh data directory is formatted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The cluster that it will belong to.
    pub cluster: ClusterId,
    /// The node that it will belong to.
    pub node: NodeId,
    /// Its own name, drawn at random, so that no other directory is ever taken for it.
    pub store: StoreId,
    /// The cluster's first configuration.
    pub membership: Membership,
}

/// Whom the configuration says that a directory should belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// What may be chosen about a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many bytes of the newest entries to return in [`Durable::tail`].
    pub tail_bytes: u64,
    /// The length of new segments, at least 4 KiB; one that must hold a larger group is larger.
    pub segment_bytes: u64,
    /// Whether a thread makes the next segment ahead of need. Without it, the write that needs it waits.
    pub prepare_ahead: bool,
}

impl Options {
    /// For servers.
    pub const DEFAULT: Self = Self { tail_bytes: 32 << 20, segment_bytes: 16 << 20, prepare_ahead: true };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One thing to write, as the core asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Names the write.
    pub seq: WriteSeq,
    /// The new term and vote, if they changed.
    pub hard_state: Option<HardState>,
    /// Entries to append; they replace what the log holds from the first one's index on.
    pub entries: Entries,
}

/// A data directory that was opened.
#[derive(Debug)]
pub struct Opened {
    /// What it holds; the boot is already raised.
    pub durable: Durable,
    /// The state machine as of [`Durable::snapshot`], verified.
    pub snapshot: Option<Bytes>,
    /// Its log. The directory stays locked while this, or a [`Writer`] that took it over, lives.
    pub log: Log,
}

/// Makes a data directory: as a whole, or not at all.
///
/// # Errors
/// If there is something at `dir` already, other than an empty directory, or if it cannot be made.
pub fn format(dir: &Path, birth: &Birth) -> Result<(), StorageError> {
    match disk::names(dir) {
        Ok(names) => {
            if let Some(found) = names.into_iter().next() {
                return Err(StorageError::NotEmpty { dir: dir.to_path_buf(), found });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let found = "it is not a directory".to_owned();
            return Err(StorageError::NotADataDirectory { dir: dir.to_path_buf(), found });
        }
        Err(error) => return Err(StorageError::io("read the directory", dir, error)),
    }
    let absolute = std::path::absolute(dir).map_err(|error| StorageError::io("find", dir, error))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(StorageError::io("format", dir, io::ErrorKind::InvalidInput.into()));
    };
    create_durably(parent)?;
    // Built under another name, which carries the store's own, and given the right one when all of it is durable.
    let building = parent.join(format!(".{}.{}", name.to_string_lossy(), birth.store));
    let build = || {
        // What is in it is nobody else's business.
        let private = fs::DirBuilder::new().mode(0o700).create(&building);
        private.map_err(|error| StorageError::io("create the directory", &building, error))?;
        format_on(&FileDisk::private(&building), birth)?;
        fs::rename(&building, &absolute).map_err(|error| StorageError::io("create the directory", dir, error))
    };
    let built = build();
    if built.is_err() {
        // What is left of it harms nobody: it has a name of its own.
        let _ = fs::remove_dir_all(&building);
    }
    built?;
    disk::sync_directory(parent).map_err(|error| StorageError::io("sync", parent, error))
}

/// Creates a directory and those above it, durably.
fn create_durably(dir: &Path) -> Result<(), StorageError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_durably(parent)?;
    }
    match fs::create_dir(dir) {
        // Somebody else was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created.map_err(|error| StorageError::io("create the directory", dir, error))?,
    }
    let above = dir.parent().unwrap_or(dir);
    disk::sync_directory(above).map_err(|error| StorageError::io("sync", above, error))
}

/// Formats any empty [`Disk`]. It counts as formatted only once its identity is there, which comes last.
///
/// # Errors
/// If it is not empty, or a write fails.
pub fn format_on(disk: &dyn Disk, birth: &Birth) -> Result<(), StorageError> {
    let dir = disk.path("");
    let names = disk.list().map_err(|error| StorageError::io("read the directory", &dir, error))?;
    if let Some(found) = names.into_iter().next() {
        return Err(StorageError::NotEmpty { dir, found });
    }
    let write = |name: &str, bytes: &[u8]| {
        let path = disk.path(name);
        let file = disk.create(name).map_err(|error| StorageError::io("create", &path, error))?;
        file.write_at(0, bytes).map_err(|error| StorageError::io("write", &path, error))?;
        file.sync().map_err(|error| StorageError::io("sync", &path, error))
    };
    write(anchor::FILE, &AnchorFile::fresh(birth.store))?;
    segment::create(disk, birth.store, 1, FIRST_SEGMENT_BYTES / format::SECTOR as u64)?;
    write(identity::FILE, &identity::encode(birth))?;
    disk.sync().map_err(|error| StorageError::io("sync", &dir, error))
}

/// A data directory that nobody else can open meanwhile, and in which nothing has been changed.
pub struct Locked {
    disk: Arc<dyn Disk>,
    birth: Birth,
}

/// Locks a data directory, and finds out whose it is. Whatever else a node needs can be had
/// before it is opened, and the directory left as it is if that fails.
///
/// # Errors
/// If there is no data directory of the expected node, or it is in use.
pub fn lock(dir: &Path, expected: &Expected) -> Result<Locked, StorageError> {
    Locked::on(Arc::new(FileDisk::lock(dir)?), expected)
}

impl Locked {
    fn on(disk: Arc<dyn Disk>, expected: &Expected) -> Result<Self, StorageError> {
        let dir = disk.path("");
        let names = disk.list().map_err(|error| StorageError::io("read the directory", &dir, error))?;
        identity::recognise(&dir, &names)?;
        let birth = identity::read(&*disk, expected)?;
        Ok(Self { disk, birth })
    }

    /// What it was formatted with.
    pub fn birth(&self) -> &Birth {
        &self.birth
    }

    /// Reads and verifies everything in it, and raises its boot.
    ///
    /// # Errors
    /// If it is damaged, or if the disk fails.
    pub fn open(self, options: &Options) -> Result<Opened, StorageError> {
        let Self { disk, birth: Birth { cluster, node, store, membership } } = self;
        let (mut anchor_file, anchor) = AnchorFile::open(&*disk, store)?;
        let mut recovered = recovery::recover(&*disk, store, anchor, options.tail_bytes)?;
        let replay = &mut recovered.replay;
        let mut found = snapshots::survey(&*disk, cluster, &replay.contents, replay.reset.as_ref())?;
        // Nothing was changed until here.
        recovered.mend(&*disk)?;
        let replay = &mut recovered.replay;
        if let Some(reset) = &replay.reset {
            replay.starts.compact(reset.last.index);
        }
        let boot = anchor.boot.next();
        let (group, segment) = (recovered.link.group - 1, recovered.current.number.max(anchor.segment));
        let first = replay.starts.first();
        let leftovers = segment::names_before(&*disk, first.segment)?;
        found.discard(leftovers);
        let (snapshots, newest) = found.settle(disk.clone(), cluster, first.before.index)?;
        let noted = Anchor { boot, group, segment, first };
        if first == anchor.first {
            anchor_file.write(noted)?;
        } else {
            anchor_file.write_twice(noted)?;
        }
        // Not before both slots of the anchor know that it is needed no more.
        snapshots.sweep();
        let (meta, data) = newest.unzip();
        let base = replay.contents.base();
        let (base, configuration) = match &meta {
            Some(meta) if base != Position::ZERO => (meta.last, meta.configuration.clone()),
            Some(_) | None => (base, Configuration { index: Index::ZERO, membership: Arc::new(membership) }),
        };
        replay.compact(base.index);
        let damaged = || recovered.current.damaged(recovered.sector, "the newest entries are out of order".to_owned());
        let tail = recovered.replay.take_tail().ok_or_else(damaged)?;
        let replay = &recovered.replay;
        let durable = Durable {
            identity: Identity { cluster, node, store, boot },
            hard_state: replay.hard_state,
            base,
            snapshot: meta,
            configuration,
            configurations: replay.configurations.clone(),
            applied: base.index,
            last: replay.contents.last().index,
            runs: replay.contents.runs().to_vec(),
            bytes: replay.bytes(),
            tail,
        };
        let log = Log::new(disk, (store, boot), *options, anchor_file, recovered, Arc::new(snapshots));
        Ok(Opened { durable, snapshot: data, log })
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").field("birth", &self.birth).finish_non_exhaustive()
    }
}

/// [Locks](lock()) a data directory and [opens](Locked::open) it.
///
/// # Errors
/// As those.
pub fn open(dir: &Path, expected: &Expected, options: &Options) -> Result<Opened, StorageError> {
    lock(dir, expected)?.open(options)
}

/// Opens what [`format_on`] has formatted. That nobody else does is up to the caller.
///
/// # Errors
/// As [`open`].
pub fn open_on(disk: Arc<dyn Disk>, expected: &Expected, options: &Options) -> Result<Opened, StorageError> {
    Locked::on(disk, expected)?.open(options)
}
