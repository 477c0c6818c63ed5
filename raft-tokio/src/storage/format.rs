//! The bytes of the log, and why a crash cannot make them lie. Version 1.
//!
//! All numbers are little-endian. Checksums are CRC32C.
//!
//! # Segments
//!
//! The log is a series of files `log-000000000001`, `log-000000000002`, … without a gap. Each is
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
//! | 4 | kind: 1 term and vote, 2 blank entry, 3 command |
//! | 5–12 | an entry's index; for kind 1 the node voted for, 0 for nobody |
//! | 13–20 | the term |
//! | 21–24 | checksum of bytes 0–20 and the payload, continued from the checksum before it (that of the group for the first record) |
//! | 25– | the payload |
//!
//! A group holds at most one record of kind 1, and it comes first; then entries with successive
//! indices. They replace what the log held from the first one's index on: there is no record for
//! cutting a suffix.
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
//! * a log that ends before the point that the *anchor* (see `anchor.rs`) says it had reached,
//!   which is moved at every open, every new segment and every orderly close.
//!
//! What stays ambiguous: if a sector of the last group *is zeroed by the disk* after the group was
//! acknowledged, or the file is truncated within that group, and the node was not closed in good
//! order since, that looks like a crash, and the group is cut.

use raft_core::{Entry, HardState, Index, NodeId, Payload, StoreId, Term};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    HardState(HardState),
    Entry { index: Index, term: Term, command: Option<&'a [u8]> },
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
        match (kind, payload) {
            (HARD_STATE, []) => Some(Record::HardState(HardState { term, voted_for: NodeId::new(number) })),
            (BLANK, []) => Some(Record::Entry { index: Index::new(number), term, command: None }),
            (COMMAND, _) => Some(Record::Entry { index: Index::new(number), term, command: Some(payload) }),
            _ => None,
        }
    }
}

/// Encodes groups, one after the other, into one buffer.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// How many bytes of records this makes; `None` if more than a group can hold.
    pub(super) fn length<'e>(hard_state: Option<HardState>, entries: impl Iterator<Item = &'e Entry>) -> Option<u32> {
        let length = entries.fold(if hard_state.is_some() { RECORD_HEADER } else { 0 }, |sum, entry| {
            sum.saturating_add(RECORD_HEADER).saturating_add(command(entry).len())
        });
        u32::try_from(length).ok()
    }

    /// How many sectors a group of that many bytes of records fills.
    pub(super) fn sectors(length: u32) -> u64 {
        sectors(length as usize)
    }

    /// Encodes a group for `place` (a sector number); returns its bytes and the link of the next group.
    pub(super) fn encode<'e>(
        &mut self,
        seed: Seed,
        place: u64,
        link: Link,
        length: u32,
        hard_state: Option<HardState>,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> (&[u8], Link) {
        self.bytes.clear();
        let mut covered = [0; GROUP_HEADER - 4];
        put(&mut covered, &[&link.group.to_le_bytes(), &length.to_le_bytes(), &link.chain.to_le_bytes()]);
        let mut chain = header_crc(seed, place, &covered);
        self.push(seed, &covered);
        self.push(seed, &chain.to_le_bytes());
        if let Some(HardState { term, voted_for }) = hard_state {
            let vote = voted_for.map_or(0, NodeId::as_u64);
            chain = self.record(seed, chain, HARD_STATE, vote, term, &[]);
        }
        for entry in entries {
            let kind = match entry.payload {
                Payload::Blank => BLANK,
                Payload::Command(_) => COMMAND,
                Payload::Configuration(_) => todo!("storage helper"),
            };
            chain = self.record(seed, chain, kind, entry.index.as_u64(), entry.term, command(entry));
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

fn command(entry: &Entry) -> &[u8] {
    match &entry.payload {
        Payload::Blank => &[],
        Payload::Command(command) => command,
        Payload::Configuration(_) => todo!("storage helper"),
    }
}

/// Appends the content of a group's sectors to `group`, without their stamps.
pub(super) fn strip(sectors: &[u8], group: &mut Vec<u8>) {
    for sector in sectors.chunks_exact(SECTOR) {
        group.extend_from_slice(sector.get(..ROOM).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: StoreId = StoreId::new(7);

    fn hard_state() -> HardState {
        HardState { term: Term::new(3), voted_for: NodeId::new(2) }
    }

    fn entries() -> Vec<Entry> {
        let entry = |index, payload| Entry { term: Term::new(3), index: Index::new(index), payload };
        vec![entry(9, Payload::Blank), entry(10, Payload::Command(bytes::Bytes::from_static(b"hello")))]
    }

    fn encoded(encoder: &mut Encoder, entries: &[Entry]) -> (Vec<u8>, Link) {
        let length = Encoder::length(Some(hard_state()), entries.iter()).expect("it is short");
        let link = Link { group: 4, chain: 0xabcd };
        let (bytes, next) = encoder.encode(Seed::new(SEED, 1), 5, link, length, Some(hard_state()), entries.iter());
        assert_eq!(bytes.len() as u64, Encoder::sectors(length) * SECTOR as u64);
        (bytes.to_vec(), next)
    }

    #[test]
    fn a_group_is_these_bytes() {
        let (bytes, next) = encoded(&mut Encoder::default(), &entries());
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().concat();
        assert_eq!(part(0..20), "040000000000000050000000cdab0000c3ee1650");
        assert_eq!(part(20..45), "000000000102000000000000000300000000000000464380aa");
        assert_eq!(part(45..70), "0000000002090000000000000003000000000000003db5bfa2");
        assert_eq!(part(70..100), "05000000030a000000000000000300000000000000715ef63568656c6c6f");
        assert!(bytes.get(100..508).is_some_and(|padding| padding.iter().all(|byte| *byte == 0)));
        assert_eq!(part(508..512), "70471c96");
        assert_eq!(next, Link { group: 5, chain: 0x35f6_5e71 });
    }

    #[test]
    fn a_group_is_right_only_where_it_belongs() {
        let (bytes, next) = encoded(&mut Encoder::default(), &entries());
        let header = GroupHeader::decode(&bytes, Seed::new(SEED, 1), 5).expect("it is where it belongs");
        let mut records = Records::new(&header, &bytes).expect("it is complete");
        let mut taken = Vec::new();
        while !records.is_empty() {
            taken.push(records.take().expect("each checksum is right"));
        }
        let entry = |index, command| Record::Entry { index: Index::new(index), term: Term::new(3), command };
        assert_eq!(taken, [Record::HardState(hard_state()), entry(9, None), entry(10, Some(&b"hello"[..]))]);
        assert_eq!(records.chain(), next.chain);
        for (store, segment, place) in [(7, 1, 4), (7, 1, 6), (7, 2, 5), (8, 1, 5)] {
            let seed = Seed::new(StoreId::new(store), segment);
            assert!(GroupHeader::decode(&bytes, seed, place).is_none(), "store {store} segment {segment} at {place}");
        }
        for (store, segment) in [(7, 2), (8, 1)] {
            let seed = Seed::new(StoreId::new(store), segment);
            assert_eq!(seed.stamp_of(&bytes), Stamp::Wrong, "store {store} segment {segment}");
        }
    }

    #[test]
    fn every_sector_of_a_group_of_any_length_ends_with_its_stamp() {
        let mut encoder = Encoder::default();
        for length in 0..1_600 {
            let command = Payload::Command(bytes::Bytes::from(vec![0; length]));
            let entry = Entry { term: Term::new(1), index: Index::new(1), payload: command };
            let (bytes, _) = encoded(&mut encoder, &[entry]);
            let stamps: Vec<Stamp> = bytes.chunks(SECTOR).map(|sector| Seed::new(SEED, 1).stamp_of(sector)).collect();
            assert_eq!(stamps.first(), Some(&Stamp::First));
            assert!(stamps.iter().skip(1).all(|stamp| *stamp == Stamp::Later), "{length} bytes");
            let header = GroupHeader::decode(&bytes, Seed::new(SEED, 1), 5).expect("it is where it belongs");
            assert_eq!(header.sectors(), stamps.len() as u64);
        }
    }
}
