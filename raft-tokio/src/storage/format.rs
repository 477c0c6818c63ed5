//! The bytes of the log, and why a crash cannot make them lie. Version 1.
//!
//! All numbers are little-endian. Checksums are CRC32C.
//!
//! # Segments
//!
//! The log is a series of files `log-000000000001`, `log-000000000002`, … without a gap; which one
//! is the first that counts, and what came before it, says the *anchor* (see `anchor.rs`). Each is
//! a row of 512-byte sectors, and is zeroed to its full length and synced before its first use.
//! Sector 0 is the segment's header:
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | `raft-log` |
//! | 8–11 | format version, 1 |
//! | 12–27 | the store's id |
//! | 28–35 | the segment's number |
//! | 36–43 | its length in sectors, header included |
//! | 44–47 | checksum of bytes 0–43 |
//! | 48–511 | zeros |
//!
//! # Groups
//!
//! Everything that waits for the disk is written as one *group*: one write, one `fdatasync`. A
//! group fills whole sectors, so that no sector is written a second time once it holds something
//! acknowledged, and lies in one segment. The last four bytes of each of its sectors are a
//! *stamp*: three bytes of the segment's seed (the checksum of store id and segment number), then
//! `0x96` in the group's first sector and `0x69` in the others. The other 508 bytes of each
//! sector, put together, are the group:
//!
//! | bytes | what |
//! |---|---|
//! | 0–7 | the group's number; they rise by one over the life of the store |
//! | 8–11 | length of the records, in bytes |
//! | 12–15 | the checksum that the group before ended with |
//! | 16–19 | checksum of bytes 0–15, continued from the segment's seed and the group's first sector number |
//! | 20– | the records; after them zeros to the end of the sector |
//!
//! # Records
//!
//! | bytes | what |
//! |---|---|
//! | 0–3 | length of the payload |
//! | 4 | kind: 1 term and vote, 2 blank entry, 3 command, 4 configuration, 5 reset |
//! | 5–12 | an entry's index; for kind 1 the node voted for, 0 for nobody; for kind 5 the snapshot's last index |
//! | 13–20 | the term; for kind 5 that of the snapshot's last entry |
//! | 21–24 | checksum of bytes 0–20 and the payload, continued from the checksum before it (that of the group for the first record) |
//! | 25– | the payload |
//!
//! The payload of kind 1 is empty, or the floor below which the node takes no part in elections: its
//! term and its index, 8 bytes each; the payload of kind 3 is the command; that of kind 4 the `Membership`, that of kind 5 the
//! `SnapshotMeta`, both in postcard and valid as such; the others have none.
//!
//! A group holds at most one record of kind 1, and it comes first; the first group of each segment
//! begins with one, so that no segment holds the only copy for those after it. Then comes either
//! one record of kind 5, which is only written to a fresh segment, or entries with successive
//! indices. Those replace what the log held from the first one's index on: there is no record for
//! cutting a suffix.
//!
//! # Snapshots
//!
//! `snapshot.rs` describes their files. An own one is written beside the log and changes nothing
//! in it. One that was received is installed by a *reset*: the log is empty from there on, and
//! begins after the snapshot's last entry. The received file is durable before the reset is
//! written, and gets its final name after that was synced; opening finishes a renaming that a
//! crash has prevented. So a crash shows the old log and snapshot, or the new ones.
//!
//! Segments are removed when all that still counts in them is covered by a durable snapshot, but
//! the anchor names the new first one before; what a crash leaves of them is removed at opening.
//! A missing file from the first one on is damage.
//!
//! # What a crash can leave, and how it is told from rot
//!
//! Group n + 1 is not written before group n is synced, so whatever a crash takes away is part of
//! the *last* group, which nobody has been told about. It leaves some of that group's sectors
//! new, others as they were: blank, since the segment was zeroed and synced. So the last group
//! may be cut if it is *incomplete*: one of its sectors lacks its stamp, ending in a zero byte.
//! (The stamp comes last in its sector, so this also covers a disk that tears within a sector.)
//! The cut is made durable by zeroing it before anything else is written; no later group can
//! connect to what was cut.
//!
//! Everything else is rot, and opening the log is refused:
//! * a sector whose stamp is neither right nor absent, or a group with all its stamps and a wrong
//!   checksum, even at the very end: a crash does not do this;
//! * an incomplete group with something after it: it was synced before that was written;
//! * a group whose number or chained checksum does not follow on the one before: a lost or stale
//!   write. Seeds and numbers make bytes of another store, segment, place or time fail here;
//! * a first group of a segment without term and vote, or a snapshot that covers what the log lacks;
//! * a log that ends before the point that the *anchor* (see `anchor.rs`) says it had reached,
//!   which is moved at every open, every new segment and every orderly close.
//!
//! What stays ambiguous: if a sector of the last group *is zeroed by the disk* after the group was
//! acknowledged, or the file is truncated within that group, and the node was not closed in good
//! order since, that looks like a crash, and the group is cut.

use std::borrow::Cow;
use std::sync::Arc;

use raft_core::{Entries, Entry, HardState, Index, Membership, NodeId, Payload, Position, SnapshotMeta, StoreId, Term};

use super::header::{Fields, put};

/// The unit that a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
/// Bytes of a sector before its stamp.
pub(super) const ROOM: usize = SECTOR - 4;
/// The version written, and the only one read.
pub(super) const VERSION: u32 = 1;

const GROUP_HEADER: usize = 20;
const RECORD_HEADER: usize = 25;
const FIRST: u8 = 0x96;
const LATER: u8 = 0x69;

const HARD_STATE: u8 = 1;
const BLANK: u8 = 2;
const COMMAND: u8 = 3;
const CONFIGURATION: u8 = 4;
const RESET: u8 = 5;

/// What every checksum and stamp of a segment starts from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u32);

/// How a sector looks from its last bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// Not written, or not to its end.
    Absent,
    /// The first of a group.
    First,
    /// A later one of a group.
    Later,
    /// None of these: not what was written.
    Wrong,
}

impl Seed {
    pub(super) fn new(store: StoreId, segment: u64) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&store.as_u128().to_le_bytes()), &segment.to_le_bytes()))
    }

    fn stamp(self, last: u8) -> [u8; 4] {
        let [a, b, c, _] = self.0.to_le_bytes();
        [a, b, c, last]
    }

    pub(super) fn stamp_of(self, sector: &[u8]) -> Stamp {
        match sector.last_chunk::<4>() {
            Some(stamp) if *stamp == self.stamp(FIRST) => Stamp::First,
            Some(stamp) if *stamp == self.stamp(LATER) => Stamp::Later,
            Some([.., 0]) => Stamp::Absent,
            _ => Stamp::Wrong,
        }
    }
}

/// What ties a group to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The number of the next group.
    pub(super) group: u64,
    /// The checksum that the group before ended with.
    pub(super) chain: u32,
}

impl Link {
    /// Before the first group of a store.
    pub(super) const START: Self = Self { group: 1, chain: 0 };
}

/// The beginning of a group, once its checksum is known to be right.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupHeader {
    pub(super) link: Link,
    /// Length of the records.
    pub(super) length: usize,
    /// What the first record's checksum continues.
    crc: u32,
}

impl GroupHeader {
    /// Reads the header from a group's first sector; `None` if its checksum is wrong.
    pub(super) fn decode(sector: &[u8], seed: Seed, place: u64) -> Option<Self> {
        let (covered, _) = sector.split_first_chunk::<{ GROUP_HEADER - 4 }>()?;
        let mut fields = Fields(sector);
        let (group, length, chain, crc) = (fields.u64()?, fields.u32()?, fields.u32()?, fields.u32()?);
        (crc == header_crc(seed, place, covered)).then_some(Self {
            link: Link { group, chain },
            length: usize::try_from(length).ok()?,
            crc,
        })
    }

    /// How many sectors the group fills.
    pub(super) fn sectors(&self) -> u64 {
        sectors(self.length)
    }
}

fn header_crc(seed: Seed, place: u64, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed.0, &place.to_le_bytes()), covered)
}

fn sectors(length: usize) -> u64 {
    (GROUP_HEADER + length).div_ceil(ROOM) as u64
}

/// One record of a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    HardState(HardState),
    /// The log is empty from here on, and begins after this snapshot.
    Reset(SnapshotMeta),
    Entry(Position, Stored<'a>),
}

/// What an entry asks for, as it lies in the buffer that it was read into.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored<'a> {
    Blank,
    Command(&'a [u8]),
    Configuration(Arc<Membership>),
}

/// The records of a group whose sectors have been put together, without their stamps.
pub(super) struct Records<'a> {
    rest: &'a [u8],
    chain: u32,
}

impl<'a> Records<'a> {
    /// `group` begins with the group's header.
    pub(super) fn new(header: &GroupHeader, group: &'a [u8]) -> Option<Self> {
        let rest = group.get(GROUP_HEADER..GROUP_HEADER.checked_add(header.length)?)?;
        Some(Self { rest, chain: header.crc })
    }

    /// Whether there is none left.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The checksum of the last record taken.
    pub(super) fn chain(&self) -> u32 {
        self.chain
    }

    /// The next record; `None` if its checksum is wrong or its content impossible.
    pub(super) fn take(&mut self) -> Option<Record<'a>> {
        let (covered, _) = self.rest.split_first_chunk::<{ RECORD_HEADER - 4 }>()?;
        let mut fields = Fields(self.rest);
        let length = usize::try_from(fields.u32()?).ok()?;
        let [kind] = fields.take::<1>()?;
        let (number, term, crc) = (fields.u64()?, Term::new(fields.u64()?), fields.u32()?);
        let (payload, rest) = fields.0.split_at_checked(length)?;
        if crc != crc32c::crc32c_append(crc32c::crc32c_append(self.chain, covered), payload) {
            return None;
        }
        (self.rest, self.chain) = (rest, crc);
        let position = Position::new(Index::new(number), term);
        match (kind, payload) {
            (HARD_STATE, _) => {
                let floor = decode_floor(payload)?;
                Some(Record::HardState(HardState { term, voted_for: NodeId::new(number), floor }))
            }
            (BLANK, []) => Some(Record::Entry(position, Stored::Blank)),
            (COMMAND, _) => Some(Record::Entry(position, Stored::Command(payload))),
            (CONFIGURATION, _) => Some(Record::Entry(position, Stored::Configuration(whole(payload)?))),
            (RESET, _) => whole(payload).filter(|meta: &SnapshotMeta| meta.last == position).map(Record::Reset),
            _ => None,
        }
    }
}

/// Nothing, or term and index.
fn encode_floor(floor: Option<Position>) -> Vec<u8> {
    floor.map_or_else(Vec::new, |Position { term, index }| {
        [term.as_u64().to_le_bytes(), index.as_u64().to_le_bytes()].concat()
    })
}

/// The other way round; `None` if it is neither.
fn decode_floor(payload: &[u8]) -> Option<Option<Position>> {
    if payload.is_empty() {
        return Some(None);
    }
    let mut fields = Fields(payload);
    let floor = Position { term: Term::new(fields.u64()?), index: Index::new(fields.u64()?) };
    fields.0.is_empty().then_some(Some(floor))
}

/// Reads a value in postcard that fills its bytes; its own conditions are checked along with it.
pub(super) fn whole<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

/// A value in postcard.
pub(super) fn postcard_of<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_else(|error| unreachable!("plain data can be written to memory, but: {error}"))
}

/// What a group is to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'c> {
    pub(super) hard_state: Option<HardState>,
    /// Nothing follows on it in the same group.
    pub(super) reset: Option<&'c SnapshotMeta>,
    pub(super) entries: &'c Entries,
}

/// Encodes groups, one after the other, into one buffer.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// How many bytes of records this makes; `None` if more than a group can hold.
    pub(super) fn length(content: Content<'_>) -> Option<u32> {
        let Content { hard_state, reset, entries } = content;
        let hard_state = hard_state.map_or(0, |state| RECORD_HEADER + encode_floor(state.floor).len());
        let reset = reset.map_or(0, |meta| RECORD_HEADER.saturating_add(postcard_of(meta).len()));
        let length = entries.iter().fold(hard_state.saturating_add(reset), |sum, entry| {
            sum.saturating_add(RECORD_HEADER).saturating_add(payload(entry).len())
        });
        u32::try_from(length).ok()
    }

    /// How many sectors a group of that many bytes of records fills.
    pub(super) fn sectors(length: u32) -> u64 {
        sectors(length as usize)
    }

    /// Encodes a group for `place` (a sector number); returns its bytes and the link of the next group.
    pub(super) fn encode(
        &mut self,
        seed: Seed,
        place: u64,
        link: Link,
        length: u32,
        content: Content<'_>,
    ) -> (&[u8], Link) {
        let Content { hard_state, reset, entries } = content;
        self.bytes.clear();
        let mut covered = [0; GROUP_HEADER - 4];
        put(&mut covered, &[&link.group.to_le_bytes(), &length.to_le_bytes(), &link.chain.to_le_bytes()]);
        let mut chain = header_crc(seed, place, &covered);
        self.push(seed, &covered);
        self.push(seed, &chain.to_le_bytes());
        if let Some(HardState { term, voted_for, floor }) = hard_state {
            let vote = voted_for.map_or(0, NodeId::as_u64);
            chain = self.record(seed, chain, HARD_STATE, vote, term, &encode_floor(floor));
        }
        if let Some(meta) = reset {
            let Position { term, index } = meta.last;
            chain = self.record(seed, chain, RESET, index.as_u64(), term, &postcard_of(meta));
        }
        for entry in entries.iter() {
            let kind = match entry.payload {
                Payload::Blank => BLANK,
                Payload::Command(_) => COMMAND,
                Payload::Configuration(_) => CONFIGURATION,
            };
            chain = self.record(seed, chain, kind, entry.index.as_u64(), entry.term, &payload(entry));
        }
        self.finish(seed);
        (&self.bytes, Link { group: link.group + 1, chain })
    }

    fn record(&mut self, seed: Seed, chain: u32, kind: u8, number: u64, term: Term, payload: &[u8]) -> u32 {
        // `length` has been through every payload: none exceeds 32 bits.
        let length = payload.len() as u32;
        let mut covered = [0; RECORD_HEADER - 4];
        put(&mut covered, &[&length.to_le_bytes(), &[kind], &number.to_le_bytes(), &term.as_u64().to_le_bytes()]);
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(chain, &covered), payload);
        self.push(seed, &covered);
        self.push(seed, &crc.to_le_bytes());
        self.push(seed, payload);
        crc
    }

    /// Appends bytes, and a stamp wherever a sector is full.
    fn push(&mut self, seed: Seed, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = ROOM - self.bytes.len() % SECTOR;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.bytes.extend_from_slice(now);
            bytes = later;
            if now.len() == room {
                let last = if self.bytes.len() < SECTOR { FIRST } else { LATER };
                self.bytes.extend_from_slice(&seed.stamp(last));
            }
        }
    }

    /// Fills up the last sector.
    fn finish(&mut self, seed: Seed) {
        let used = self.bytes.len() % SECTOR;
        if used > 0 {
            let zeros = [0; ROOM];
            self.push(seed, zeros.get(used..).unwrap_or_default());
        }
    }
}

fn payload(entry: &Entry) -> Cow<'_, [u8]> {
    match &entry.payload {
        Payload::Blank => Cow::Borrowed(&[]),
        Payload::Command(command) => Cow::Borrowed(command),
        Payload::Configuration(membership) => Cow::Owned(postcard_of(membership)),
    }
}

/// Appends the content of a group's sectors to `group`, without their stamps.
pub(super) fn strip(sectors: &[u8], group: &mut Vec<u8>) {
    for sector in sectors.chunks_exact(SECTOR) {
        group.extend_from_slice(sector.get(..ROOM).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
