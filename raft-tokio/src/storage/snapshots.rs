//! The snapshots of a data directory: which there are, which are needed, what may go.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use raft_core::{ClusterId, Index, Position, SnapshotMeta};

use super::contents::Contents;
use super::disk::Disk;
use super::error::StorageError;
use super::segment;
use super::snapshot::{self, Kind, SnapshotFile};

/// How many snapshots are kept: the newest, and one to fall back to if it rots, for as long as the
/// log reaches back to that.
const KEPT: usize = 2;

/// The snapshots of one data directory.
///
/// It writes and removes files; one caller at a time does that, and the log meanwhile goes on.
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    cluster: ClusterId,
    shelf: Mutex<Shelf>,
}

/// Invariants: what is in `kept` and `received` is durable; nothing in `garbage` is in them.
#[derive(Debug, Default)]
struct Shelf {
    /// Oldest first.
    kept: Vec<SnapshotMeta>,
    /// Has arrived, and waits for being installed.
    received: Option<SnapshotMeta>,
    /// Files that could not be read, kept for whoever wants to know why.
    unreadable: Vec<Position>,
    /// The log still has all entries after this one.
    reach: Index,
    /// Files that nobody needs.
    garbage: BTreeSet<String>,
}

impl Shelf {
    fn newest(&self) -> Position {
        self.kept.last().map_or(Position::ZERO, |meta| meta.last)
    }

    /// A snapshot counts from now on.
    fn keep(&mut self, meta: SnapshotMeta) {
        self.unreadable.retain(|last| *last != meta.last);
        self.garbage.remove(&Kind::Own.name(meta.last));
        self.kept.push(meta);
        self.kept.sort_by_key(|meta| meta.last.index);
        self.trim();
    }

    /// Throws away what is neither the newest nor can stand in for it.
    fn trim(&mut self) {
        let newest = self.newest();
        let mut spare = KEPT;
        let mut gone: Vec<Position> = Vec::new();
        for meta in self.kept.iter().rev() {
            if meta.last != newest && (meta.last.index < self.reach || spare == 0) {
                gone.push(meta.last);
            }
            spare = spare.saturating_sub(1);
        }
        self.kept.retain(|meta| !gone.contains(&meta.last));
        // One that rotted is of no use once there is a newer one.
        gone.extend(self.unreadable.extract_if(.., |last| last.index < newest.index));
        self.garbage.extend(gone.into_iter().map(|last| Kind::Own.name(last)));
    }
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots").field("shelf", &*self.shelf()).finish_non_exhaustive()
    }
}

impl Snapshots {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the newest snapshot ends; `0@0` if there is none.
    pub fn newest(&self) -> Position {
        self.shelf().newest()
    }

    /// Writes down a snapshot of this node's own machine, durably. The log must hold its last entry.
    /// Returns its size. If there is a newer one nothing is written.
    ///
    /// # Errors
    /// If it cannot be written; then everything is as it was.
    pub fn save(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<u64, StorageError> {
        let meta = SnapshotMeta { bytes: data.len() as u64, ..meta.clone() };
        if meta.last.index > self.newest().index {
            self.write(Kind::Own, &meta, data)?;
            self.shelf().keep(meta);
        }
        Ok(data.len() as u64)
    }

    /// Writes down a snapshot that has arrived, durably, for [`Log::install`](super::Log::install).
    /// It takes the place of one that has arrived before.
    ///
    /// # Errors
    /// If it cannot be written, or its size is not what it says.
    pub fn save_received(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), StorageError> {
        if meta.bytes != data.len() as u64 {
            let (last, expected, found) = (meta.last, meta.bytes, data.len() as u64);
            return Err(StorageError::SnapshotSize { last, expected, found });
        }
        if self.shelf().received.as_ref() == Some(meta) {
            return Ok(());
        }
        self.write(Kind::Received, meta, data)?;
        let mut shelf = self.shelf();
        let before = shelf.received.replace(meta.clone());
        shelf.garbage.extend(before.map(|before| Kind::Received.name(before.last)));
        shelf.garbage.remove(&Kind::Received.name(meta.last));
        Ok(())
    }

    fn write(&self, kind: Kind, meta: &SnapshotMeta, data: &[u8]) -> Result<(), StorageError> {
        let name = kind.name(meta.last);
        let written = snapshot::write(&*self.disk, &name, self.cluster, meta, data);
        if written.is_err() {
            // It takes room that may be what is missing. If it stays, the next opening removes it.
            let _ = self.disk.remove(&snapshot::unfinished(&name));
        }
        written
    }

    /// Reads a snapshot back, verified; `None` if there is none that ends at `last`.
    ///
    /// # Errors
    /// If it is damaged or the disk fails. A damaged one counts no more.
    pub fn load(&self, last: Position) -> Result<Option<(SnapshotMeta, Bytes)>, StorageError> {
        if !self.shelf().kept.iter().any(|meta| meta.last == last) {
            return Ok(None);
        }
        match self.read(last) {
            Err(error @ StorageError::Damaged { .. }) => {
                let mut shelf = self.shelf();
                shelf.kept.retain(|meta| meta.last != last);
                shelf.unreadable.push(last);
                Err(error)
            }
            read => read.map(Some),
        }
    }

    fn read(&self, last: Position) -> Result<(SnapshotMeta, Bytes), StorageError> {
        let file = SnapshotFile::open(&*self.disk, &Kind::Own.name(last), Kind::Own, self.cluster)?;
        let data = file.read()?;
        Ok((file.meta, data))
    }

    /// Removes the files that nobody needs any more. What cannot be removed is tried again.
    pub fn sweep(&self) {
        let garbage = std::mem::take(&mut self.shelf().garbage);
        for name in garbage {
            if let Err(error) = self.disk.remove(&name)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %self.disk.path(&name).display(), %error, "could not remove a file");
                self.shelf().garbage.insert(name);
            }
        }
    }

    /// The log begins later: these segments are needed no more, and it has the entries after `reach`.
    pub(super) fn on_released(&self, segments: Range<u64>, reach: Index) {
        let mut shelf = self.shelf();
        shelf.garbage.extend(segments.map(segment::name));
        shelf.reach = reach;
        shelf.trim();
    }

    /// Whether the snapshot to install is there, and the one that is meant.
    pub(super) fn check_received(&self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let name = Kind::Received.name(meta.last);
        let missing = |found: String| StorageError::NotReceived { path: self.disk.path(&name), found };
        if self.shelf().received.as_ref() != Some(meta) {
            return Err(missing("it was never received as a whole".to_owned()));
        }
        let file = SnapshotFile::open(&*self.disk, &name, Kind::Received, self.cluster);
        let found = file.map_err(|error| missing(error.to_string()))?.meta;
        if found == *meta { Ok(()) } else { Err(missing("it is another one by now".to_owned())) }
    }

    /// The log was reset to the snapshot that was received: it counts from now on.
    pub(super) fn promote(&self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        promote(&*self.disk, meta.last)?;
        let mut shelf = self.shelf();
        shelf.received = None;
        // What was taken of the log before it stands for nothing that the log still has.
        let older = std::mem::take(&mut shelf.kept);
        shelf.garbage.extend(older.iter().map(|meta| Kind::Own.name(meta.last)));
        shelf.keep(meta.clone());
        Ok(())
    }
}

/// Gives the received snapshot that the log was reset to the name of one that counts.
fn promote(disk: &dyn Disk, last: Position) -> Result<(), StorageError> {
    let received = Kind::Received.name(last);
    disk.rename(&received, &Kind::Own.name(last))
        .map_err(|error| StorageError::io("rename", &disk.path(&received), error))?;
    disk.sync().map_err(|error| StorageError::io("sync", &disk.path(""), error))
}

/// What an opening has found out about snapshots, before it changes anything.
pub(super) struct Found {
    /// The newest that can be read, if the log needs one or has one.
    pub(super) newest: Option<(SnapshotMeta, Bytes)>,
    /// The one that the log was reset to still has the name under which it was received.
    unpromoted: Option<Position>,
    shelf: Shelf,
}

/// Reads the snapshots of a directory whose log holds `contents`, and was once reset to `reset`.
///
/// # Errors
/// If the log needs a snapshot and none can be read; if one shows that the log lacks something.
pub(super) fn survey(
    disk: &dyn Disk,
    cluster: ClusterId,
    contents: &Contents,
    reset: Option<&SnapshotMeta>,
) -> Result<Found, StorageError> {
    let names = disk.list().map_err(|error| StorageError::io("read the directory", &disk.path(""), error))?;
    let mut found = Found { newest: None, unpromoted: None, shelf: Shelf::default() };
    let mut candidates: Vec<(Position, String, Kind)> = Vec::new();
    for name in &names {
        if let Some(last) = Kind::Own.position(name) {
            candidates.push((last, name.clone(), Kind::Own));
        } else if let Some(last) = Kind::Received.position(name) {
            let own = Kind::Own.name(last);
            if reset.is_some_and(|reset| reset.last == last) && !names.contains(&own) {
                found.unpromoted = Some(last);
                candidates.push((last, name.clone(), Kind::Received));
            } else {
                found.shelf.garbage.insert(name.clone());
            }
        } else if snapshot::is_unfinished(name) {
            found.shelf.garbage.insert(name.clone());
        }
    }
    candidates.sort_by_key(|(last, _, _)| std::cmp::Reverse(last.index));
    let mut reasons = Vec::new();
    for (last, name, kind) in candidates {
        if last.index < contents.base().index {
            found.shelf.garbage.insert(name);
            continue;
        }
        match examine(disk, cluster, contents, (&name, kind), found.newest.is_none()) {
            Ok((meta, data)) => {
                if let Some(data) = data {
                    found.newest = Some((meta.clone(), data));
                }
                found.shelf.kept.insert(0, meta);
            }
            Err(StorageError::Damaged { path, offset, found: what }) => {
                let error = StorageError::Damaged { path, offset, found: what };
                tracing::error!(%error, "a snapshot cannot be read");
                found.shelf.unreadable.push(last);
                reasons.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    if contents.base() != Position::ZERO && found.newest.is_none() {
        let found = if reasons.is_empty() { "there is none".to_owned() } else { reasons.join("; ") };
        return Err(StorageError::NoSnapshot { dir: disk.path(""), base: contents.base(), found });
    }
    Ok(found)
}

/// Verifies a snapshot, and reads its state if that is wanted.
fn examine(
    disk: &dyn Disk,
    cluster: ClusterId,
    contents: &Contents,
    (name, kind): (&str, Kind),
    wanted: bool,
) -> Result<(SnapshotMeta, Option<Bytes>), StorageError> {
    let file = SnapshotFile::open(disk, name, kind, cluster)?;
    let last = file.meta.last;
    if contents.term(last.index) != Some(last.term) {
        let (path, end) = (file.path().to_path_buf(), contents.last());
        return Err(StorageError::LogBehindSnapshot { path, last, end });
    }
    let data = if wanted { Some(file.read()?) } else { None };
    Ok((file.meta, data))
}

impl Found {
    /// Finishes what a crash has interrupted. The log is durable by now, and has the entries after `reach`.
    pub(super) fn settle(
        self,
        disk: Arc<dyn Disk>,
        cluster: ClusterId,
        reach: Index,
    ) -> Result<(Snapshots, Option<(SnapshotMeta, Bytes)>), StorageError> {
        let Self { newest, unpromoted, mut shelf } = self;
        if let Some(last) = unpromoted {
            promote(&*disk, last)?;
        }
        shelf.reach = reach;
        shelf.trim();
        Ok((Snapshots { disk, cluster, shelf: Mutex::new(shelf) }, newest))
    }

    /// Segments that a crash has left although the log begins after them.
    pub(super) fn discard(&mut self, names: impl Iterator<Item = String>) {
        self.shelf.garbage.extend(names);
    }
}
