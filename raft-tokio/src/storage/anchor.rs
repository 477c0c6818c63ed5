//! The file `anchor`: which life of the store this is, and how far the log is known to reach.
//!
//! Two slots, 4096 bytes apart, written in turn, so that a crash in the middle of a write leaves
//! the other one. In each:
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | revision: how often the anchor was written; the slot is this modulo 2 |
//! | 8–15 | boot: the number of the newest life; it rises with every opening, by one or by two |
//! | 16–23 | the number of the newest group known to be durable, 0 for none |
//! | 24–31 | the newest segment that may hold groups |
//! | 32–39 | the first segment: those before it are needed no more |
//! | 40–47 | the number of the first group in it |
//! | 48–51 | the checksum that the group before that one ended with |
//! | 52–59 | the index of the entry before the first one in it |
//! | 60–67 | the term of that entry |
//! | 68–71 | checksum (CRC32C) of the store's id and bytes 0–67 |
//!
//! It is written at every opening, at every new segment, and at every orderly close. A log that
//! ends before its anchor has lost something that was durable: nothing is cut there. When the
//! first segment changes it is written twice, before anything is removed: neither slot is left that
//! asks for a segment which is gone.
//!
//! If one slot cannot be read, a crash may have torn it or it may have rotted, and then it may
//! have been the newer one. Its boot was at most one higher, so one boot number is left out:
//! no life of the store ever shares its number with another. Its group may have been higher by any
//! number, which is forgotten: a log that was *also* cut short, between the two, is then taken
//! for one that a crash has torn. The next write goes to the slot that could not be read.

use std::sync::Arc;

use raft_core::{Boot, Index, Position, StoreId, Term};

use super::disk::{Disk, DiskFile, read_whole};
use super::error::StorageError;
use super::format::Link;
use super::header::{Fields, put};
use super::starts::Start;

/// Its name.
pub(super) const FILE: &str = "anchor";

const SLOT: usize = 4096;
const LENGTH: usize = 72;

/// What the anchor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) boot: Boot,
    pub(super) group: u64,
    pub(super) segment: u64,
    pub(super) first: Start,
}

/// The open file.
pub(super) struct AnchorFile {
    path: std::path::PathBuf,
    file: Arc<dyn DiskFile>,
    store: StoreId,
    revision: u64,
}

fn crc(store: StoreId, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&store.as_u128().to_le_bytes()), covered)
}

fn encode(store: StoreId, revision: u64, anchor: Anchor) -> [u8; LENGTH] {
    let mut covered = [0; LENGTH - 4];
    let Anchor { boot, group, segment, first: Start { segment: first, link, before } } = anchor;
    put(
        &mut covered,
        &[
            &revision.to_le_bytes(),
            &boot.as_u64().to_le_bytes(),
            &group.to_le_bytes(),
            &segment.to_le_bytes(),
            &first.to_le_bytes(),
            &link.group.to_le_bytes(),
            &link.chain.to_le_bytes(),
            &before.index.as_u64().to_le_bytes(),
            &before.term.as_u64().to_le_bytes(),
        ],
    );
    let mut slot = [0; LENGTH];
    put(&mut slot, &[&covered, &crc(store, &covered).to_le_bytes()]);
    slot
}

fn decode(store: StoreId, slot: &[u8], parity: u64) -> Option<(u64, Anchor)> {
    let (covered, _) = slot.split_first_chunk::<{ LENGTH - 4 }>()?;
    let mut fields = Fields(slot);
    let revision = fields.u64()?;
    let (boot, group, segment, first) = (Boot::new(fields.u64()?), fields.u64()?, fields.u64()?, fields.u64()?);
    let link = Link { group: fields.u64()?, chain: fields.u32()? };
    let before = Position::new(Index::new(fields.u64()?), Term::new(fields.u64()?));
    let anchor = Anchor { boot, group, segment, first: Start { segment: first, link, before } };
    (fields.u32()? == crc(store, covered) && revision % 2 == parity).then_some((revision, anchor))
}

impl AnchorFile {
    /// What a fresh directory holds: never opened, no group, one segment.
    pub(super) fn fresh(store: StoreId) -> Vec<u8> {
        let anchor = Anchor { boot: Boot::ZERO, group: 0, segment: 1, first: Start::FRESH };
        let mut bytes = vec![0; 2 * SLOT];
        put(&mut bytes, &[&encode(store, 0, anchor)]);
        if let Some(second) = bytes.get_mut(SLOT..) {
            put(second, &[&encode(store, 1, anchor)]);
        }
        bytes
    }

    /// Opens it and reads the newer slot.
    pub(super) fn open(disk: &dyn Disk, store: StoreId) -> Result<(Self, Anchor), StorageError> {
        let path = disk.path(FILE);
        let bytes = read_whole(disk, FILE)?;
        let slots = [
            decode(store, bytes.get(..SLOT).unwrap_or(&bytes), 0),
            decode(store, bytes.get(SLOT..).unwrap_or_default(), 1),
        ];
        let (revision, anchor) = match slots {
            [Some(even), Some(odd)] => {
                if even.0 > odd.0 {
                    even
                } else {
                    odd
                }
            }
            [Some((revision, anchor)), None] | [None, Some((revision, anchor))] => {
                tracing::warn!(path = %path.display(), "one of the two slots of the anchor is unreadable");
                (revision, Anchor { boot: anchor.boot.next(), ..anchor })
            }
            [None, None] => {
                let found = "neither of its two slots has a right checksum".to_owned();
                return Err(StorageError::Damaged { path, offset: 0, found });
            }
        };
        let file = disk.open(FILE).map_err(|error| StorageError::io("open", &path, error))?;
        Ok((Self { path, file, store, revision }, anchor))
    }

    /// Replaces both slots, durably, one after the other.
    pub(super) fn write_twice(&mut self, anchor: Anchor) -> Result<(), StorageError> {
        self.write(anchor)?;
        self.write(anchor)
    }

    /// Replaces the older slot, durably.
    pub(super) fn write(&mut self, anchor: Anchor) -> Result<(), StorageError> {
        let revision = self.revision + 1;
        let offset = if revision.is_multiple_of(2) { 0 } else { SLOT as u64 };
        let slot = encode(self.store, revision, anchor);
        self.file.write_at(offset, &slot).map_err(|error| StorageError::io("write", &self.path, error))?;
        self.file.sync().map_err(|error| StorageError::io("sync", &self.path, error))?;
        self.revision = revision;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_these_bytes() {
        let before = Position::new(Index::new(6), Term::new(7));
        let first = Start { segment: 4, link: Link { group: 5, chain: 0xabcd }, before };
        let anchor = Anchor { boot: Boot::new(1), group: 2, segment: 9, first };
        let slot = encode(StoreId::new(7), 8, anchor);
        assert_eq!(decode(StoreId::new(7), &slot, 0), Some((8, anchor)));
        assert_eq!(decode(StoreId::new(7), &slot, 1), None, "the other slot's");
        assert_eq!(decode(StoreId::new(8), &slot, 0), None, "another store's");
        let hex: String = slot.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "080000000000000001000000000000000200000000000000090000000000000004000000000000000500000000000000cdab0000060000000000000007000000000000008c9aecb7"
        );
    }
}
