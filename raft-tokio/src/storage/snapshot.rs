//! The file of one snapshot: `snapshot-<index>-<term>` for one that counts,
//! `received-<index>-<term>` for one that another node has sent and that was not installed yet.
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | `raftsnap` |
//! | 8–11 | format version, 1 |
//! | 12–27 | the cluster's id |
//! | 28–31 | length of the meta data, m |
//! | 32–39 | length of the state |
//! | 40–43 | checksum (CRC32C) of the state |
//! | 44–47 | checksum of bytes 0–43 and the meta data |
//! | 48–47+m | `SnapshotMeta` in postcard: the last entry that it covers, the configuration in force there, its size |
//! | 48+m– | the state, to the end of the file |
//!
//! It is written under another name, with `.new` behind it, synced, and only then given its own,
//! which is synced as well. It names no store: snapshots of one cluster that end at the same
//! position are of the same state, whoever made them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{ClusterId, Index, Position, SnapshotMeta, Term};

use super::disk::{Disk, DiskFile, read_fully};
use super::error::StorageError;
use super::format::{VERSION, postcard_of, whole};
use super::header::Fields;

const MAGIC: [u8; 8] = *b"raftsnap";
const UNFINISHED: &str = ".new";
const FIXED: usize = 48;
/// No meta data comes near this: a configuration has a few dozen members.
const META_MAX: usize = 64 << 10;
/// So much is written at once.
const PIECE: usize = 1 << 20;
/// After so many pieces comes a sync, so that the log's own never waits behind a whole snapshot.
const PIECES: usize = 8;

/// What a snapshot's file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The log may begin with it.
    Own,
    /// It waits for being installed.
    Received,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Own => "snapshot-",
            Self::Received => "received-",
        }
    }

    /// The name of such a file.
    pub(super) fn name(self, last: Position) -> String {
        format!("{}{:020}-{}", self.prefix(), last.index.as_u64(), last.term)
    }

    /// The position in the name of such a file; `None` if it is none.
    pub(super) fn position(self, name: &str) -> Option<Position> {
        let (index, term) = name.strip_prefix(self.prefix())?.split_once('-')?;
        let position = Position::new(Index::new(index.parse().ok()?), Term::new(term.parse().ok()?));
        (self.name(position) == name).then_some(position)
    }
}

/// Whether this is a snapshot that was not finished when its maker stopped.
pub(super) fn is_unfinished(name: &str) -> bool {
    let finished = name.strip_suffix(UNFINISHED);
    finished.is_some_and(|name| [Kind::Own, Kind::Received].iter().any(|kind| kind.position(name).is_some()))
}

/// The name of such a file while it is written.
pub(super) fn unfinished(name: &str) -> String {
    format!("{name}{UNFINISHED}")
}

/// What comes before the state.
fn encode(cluster: ClusterId, meta: &SnapshotMeta, data: &[u8]) -> Vec<u8> {
    let meta = postcard_of(meta);
    let mut bytes = Vec::with_capacity(FIXED + meta.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&cluster.as_u128().to_le_bytes());
    // A configuration has a few dozen members at most.
    bytes.extend_from_slice(&(meta.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(data.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(data).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &meta);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&meta);
    bytes
}

/// Writes a snapshot durably, in place of an older file of that name.
pub(super) fn write(
    disk: &dyn Disk,
    name: &str,
    cluster: ClusterId,
    meta: &SnapshotMeta,
    data: &[u8],
) -> Result<(), StorageError> {
    let made = unfinished(name);
    let path = disk.path(&made);
    let failed = |action| move |error| StorageError::io(action, &path, error);
    let file = disk.create(&made).map_err(failed.clone()("create"))?;
    let header = encode(cluster, meta, data);
    file.write_at(0, &header).map_err(failed.clone()("write"))?;
    let mut at = header.len() as u64;
    for (nth, piece) in (1_usize..).zip(data.chunks(PIECE)) {
        file.write_at(at, piece).map_err(failed.clone()("write"))?;
        at += piece.len() as u64;
        if nth.is_multiple_of(PIECES) {
            file.sync().map_err(failed.clone()("sync"))?;
        }
    }
    file.sync().map_err(failed.clone()("sync"))?;
    disk.rename(&made, name).map_err(failed("rename"))?;
    disk.sync().map_err(|error| StorageError::io("sync", &disk.path(""), error))
}

/// An open snapshot, whose header is right.
pub(super) struct SnapshotFile {
    pub(super) meta: SnapshotMeta,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    start: u64,
    crc: u32,
}

impl SnapshotFile {
    /// Opens a snapshot, and verifies everything but the state.
    pub(super) fn open(disk: &dyn Disk, name: &str, kind: Kind, cluster: ClusterId) -> Result<Self, StorageError> {
        let path = disk.path(name);
        let file = disk.open(name).map_err(|error| StorageError::io("open", &path, error))?;
        let failed = |error| StorageError::io("read", &path, error);
        let damaged = |found: &str| StorageError::Damaged { path: path.clone(), offset: 0, found: found.to_owned() };
        let mut fixed = [0; FIXED];
        let filled = read_fully(&*file, 0, &mut fixed).map_err(failed)?;
        let fixed = fixed.get(..filled).unwrap_or_default();
        let mut fields = Fields(fixed);
        if fields.take() != Some(MAGIC) {
            return Err(damaged("it does not begin like a snapshot"));
        }
        let short = || damaged("it ends within its header");
        match fields.u32().ok_or_else(short)? {
            VERSION => {}
            found => return Err(StorageError::UnknownVersion { path, found, known: VERSION }),
        }
        let mut parse = || Some((fields.u128()?, fields.u32()?, fields.u64()?, fields.u32()?, fields.u32()?));
        let (found_cluster, meta_length, length, crc, header_crc) = parse().ok_or_else(short)?;
        let meta_length = usize::try_from(meta_length).ok().filter(|length| *length <= META_MAX);
        let mut meta = vec![0; meta_length.ok_or_else(|| damaged("its header has a wrong checksum"))?];
        let filled = read_fully(&*file, FIXED as u64, &mut meta).map_err(failed)?;
        let covered = fixed.get(..FIXED - 4).unwrap_or_default();
        let is_right = header_crc == crc32c::crc32c_append(crc32c::crc32c(covered), &meta);
        if filled < meta.len() || !is_right {
            return Err(damaged("its header has a wrong checksum"));
        }
        if found_cluster != cluster.as_u128() {
            let found = ClusterId::new(found_cluster);
            return Err(damaged(&format!("it is of cluster {found}, and this is cluster {cluster}")));
        }
        let start = (FIXED + meta.len()) as u64;
        let meta: SnapshotMeta = whole(&meta).ok_or_else(|| damaged("its meta data say nothing valid"))?;
        if kind.position(name) != Some(meta.last) {
            return Err(damaged(&format!("it is the snapshot of {} under another's name", meta.last)));
        }
        let full = file.length().map_err(|error| StorageError::io("measure", &path, error))?;
        if meta.bytes != length || start.checked_add(length) != Some(full) {
            return Err(damaged(&format!("it has {full} bytes instead of {}", start.saturating_add(length))));
        }
        Ok(Self { meta, path, file, start, crc })
    }

    /// Reads the state, and verifies it.
    pub(super) fn read(&self) -> Result<Bytes, StorageError> {
        let failed = |error| StorageError::io("read", &self.path, error);
        // The file is as long: a length that was made up has been refused.
        let length = usize::try_from(self.meta.bytes).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let mut data = vec![0; length];
        let filled = read_fully(&*self.file, self.start, &mut data).map_err(failed)?;
        if filled < length || crc32c::crc32c(&data) != self.crc {
            let found = "the state has a wrong checksum".to_owned();
            return Err(StorageError::Damaged { path: self.path.clone(), offset: self.start, found });
        }
        Ok(data.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raft_core::{Configuration, Member, Membership, NodeId, StoreId};

    use super::*;

    #[test]
    fn a_snapshot_is_these_bytes() {
        let member = Member { node: NodeId::new(1).expect("not 0"), store: StoreId::new(0x11) };
        let membership = Arc::new(Membership::new([member]).expect("one member"));
        let last = Position::new(Index::new(300), Term::new(3));
        let configuration = Configuration { index: Index::new(7), membership };
        let meta = SnapshotMeta { last, configuration, bytes: 5 };
        let header = encode(ClusterId::new(7), &meta, b"state");
        let hex: String = header.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "72616674736e617001000000070000000000000000000000000000000b0000000500000000000000df68db6647e5121403ac020701011100000205"
        );
    }

    #[test]
    fn a_name_says_where_the_snapshot_ends() {
        let last = Position::new(Index::new(300), Term::new(3));
        assert_eq!(Kind::Own.name(last), "snapshot-00000000000000000300-3");
        assert_eq!(Kind::Own.position("snapshot-00000000000000000300-3"), Some(last));
        assert_eq!(Kind::Received.position("received-00000000000000000300-3"), Some(last));
        for other in ["snapshot-300-3", "snapshot-00000000000000000300-03", "snapshot-00000000000000000300", "anchor"] {
            assert_eq!(Kind::Own.position(other), None, "{other}");
        }
        assert!(is_unfinished("received-00000000000000000300-3.new") && !is_unfinished("log-000000000001.new"));
    }
}
