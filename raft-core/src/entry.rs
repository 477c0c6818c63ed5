//! Layer 0: log entries, and the shared runs in which they travel.
//!
//! A batch of entries is made once, as one immutable chunk. The log's cache, the write to disk,
//! the message to a peer and the hand-over to the state machine all hold ranges of that chunk;
//! no payload is ever copied by the core (contract E1).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::membership::Membership;
use crate::types::{Index, Position, Term};

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Entry {
    /// The term in which a leader created it.
    pub term: Term,
    /// Its place in the log.
    pub index: Index,
    /// What it asks for.
    pub payload: Payload,
}

/// What an entry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Payload {
    /// Nothing: the entry with which a leader opens its term, so that entries of earlier terms
    /// can be committed (§5.4.2, §8).
    Blank,
    /// A command for the state machine, opaque to Raft.
    Command(Bytes),
    /// A new configuration, in force from the moment it is appended (§6).
    Configuration(Arc<Membership>),
}

impl Entry {
    /// Bytes charged for an entry besides its payload: its header in memory and on the wire.
    pub const OVERHEAD: u64 = 32;

    /// The entry's index and term.
    pub fn position(&self) -> Position {
        Position::new(self.index, self.term)
    }

    /// What the entry costs against every limit that counts bytes.
    pub fn cost(&self) -> u64 {
        let payload = match &self.payload {
            Payload::Blank => 0,
            Payload::Command(command) => command.len() as u64,
            Payload::Configuration(membership) => membership.cost(),
        };
        payload.saturating_add(Self::OVERHEAD)
    }
}

/// Successive entries, shared: cloning copies references only.
///
/// Invariants: indices rise by one; no chunk is empty.
#[derive(Clone, Default)]
pub struct Entries {
    chunks: Vec<Chunk>,
}

/// A range of one immutable batch, with what it costs.
///
/// Invariant: it is not empty.
#[derive(Clone)]
pub(crate) struct Chunk {
    batch: Arc<[Entry]>,
    start: usize,
    end: usize,
    cost: u64,
}

impl Chunk {
    /// A whole batch; `None` if it is empty.
    fn whole(batch: Vec<Entry>) -> Option<Self> {
        let (end, cost) = (batch.len(), batch.iter().map(Entry::cost).sum());
        (end > 0).then(|| Self { batch: batch.into(), start: 0, end, cost })
    }

    pub(crate) fn as_slice(&self) -> &[Entry] {
        self.batch.get(self.start..self.end).unwrap_or_default()
    }

    /// The index of the first entry.
    pub(crate) fn first(&self) -> Index {
        self.as_slice().first().map_or(Index::ZERO, |entry| entry.index)
    }

    /// The index of the last entry.
    pub(crate) fn last(&self) -> Index {
        self.as_slice().last().map_or(Index::ZERO, |entry| entry.index)
    }

    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// The part between two indices, both included; `None` if there is none.
    pub(crate) fn slice(&self, from: Index, through: Index) -> Option<Self> {
        if from <= self.first() && through >= self.last() {
            return Some(self.clone());
        }
        let length = self.as_slice().len() as u64;
        // Both are at most the chunk's length, which is a `usize`.
        let skip = from.since(self.first()).min(length) as usize;
        let keep = through.next().since(self.first()).min(length) as usize;
        let cost = self.as_slice().get(skip..keep)?.iter().map(Entry::cost).sum();
        (skip < keep).then(|| Self {
            batch: self.batch.clone(),
            start: self.start.saturating_add(skip),
            end: self.start.saturating_add(keep),
            cost,
        })
    }

    /// The longest prefix that costs at most `max_bytes`; `None` if the first entry costs more.
    pub(crate) fn prefix(&self, max_bytes: u64) -> Option<Self> {
        if self.cost <= max_bytes {
            return Some(self.clone());
        }
        let mut spent = 0_u64;
        let fits = self.as_slice().iter().take_while(|entry| {
            spent = spent.saturating_add(entry.cost());
            spent <= max_bytes
        });
        let through = fits.last()?.index;
        self.slice(self.first(), through)
    }
}

impl Entries {
    /// No entries.
    pub const EMPTY: Self = Self { chunks: Vec::new() };

    /// Shares a batch; `None` unless its indices rise by one and its terms never fall.
    pub fn new(batch: Vec<Entry>) -> Option<Self> {
        let ordered =
            batch.windows(2).all(|pair| matches!(pair, [a, b] if b.index == a.index.next() && b.term >= a.term));
        ordered.then(|| Self::from_ordered(batch))
    }

    /// Shares a batch that is known to be in order.
    pub(crate) fn from_ordered(batch: Vec<Entry>) -> Self {
        Self { chunks: Chunk::whole(batch).into_iter().collect() }
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.as_slice().len()).sum()
    }

    /// The entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.as_slice())
    }

    /// The first entry.
    pub fn first(&self) -> Option<&Entry> {
        self.chunks.first().and_then(|chunk| chunk.as_slice().first())
    }

    /// The last entry.
    pub fn last(&self) -> Option<&Entry> {
        self.chunks.last().and_then(|chunk| chunk.as_slice().last())
    }

    /// The sum of [`Entry::cost`]; known, not counted.
    pub fn cost(&self) -> u64 {
        self.chunks.iter().map(Chunk::cost).sum()
    }

    /// Appends entries that follow on directly.
    ///
    /// # Panics
    /// If `more` leaves a gap or overlaps: the caller has lost count.
    pub fn extend(&mut self, more: Self) {
        more.chunks.into_iter().for_each(|chunk| self.push(chunk));
    }

    /// Appends one chunk that follows on directly.
    pub(crate) fn push(&mut self, chunk: Chunk) {
        if let Some(last) = self.last() {
            assert!(chunk.first() == last.index.next(), "index {} does not follow {}", chunk.first(), last.position());
        }
        self.chunks.push(chunk);
    }

    pub(crate) fn into_chunks(self) -> impl Iterator<Item = Chunk> {
        self.chunks.into_iter()
    }

    /// The part from index `from` up to index `through`, both included.
    #[must_use]
    pub fn slice(&self, from: Index, through: Index) -> Self {
        Self { chunks: self.chunks.iter().filter_map(|chunk| chunk.slice(from, through)).collect() }
    }

    /// The runs of one batch each, in order: what can be encoded as a unit.
    pub fn batches(&self) -> impl Iterator<Item = &[Entry]> {
        self.chunks.iter().map(Chunk::as_slice)
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Entries {}

/// `[8@3 9@3]`, or `[8@3 .. 40@3]` when long.
impl fmt::Display for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first(), self.last(), self.len()) {
            (Some(first), Some(last), 5..) => write!(f, "[{} .. {}]", first.position(), last.position()),
            _ => {
                f.write_str("[")?;
                for (nth, entry) in self.iter().enumerate() {
                    let gap = if nth == 0 { "" } else { " " };
                    write!(f, "{gap}{}", entry.position())?;
                }
                f.write_str("]")
            }
        }
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// As a sequence of entries: where a batch was cut in memory is nobody else's business.
#[cfg(feature = "serde")]
impl serde::Serialize for Entries {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq as _;
        let mut sequence = serializer.serialize_seq(Some(self.len()))?;
        for entry in self.iter() {
            sequence.serialize_element(entry)?;
        }
        sequence.end()
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let batch = Vec::<Entry>::deserialize(deserializer)?;
        Self::new(batch).ok_or_else(|| serde::de::Error::custom("entries out of order"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn entry(index: u64, term: u64, length: usize) -> Entry {
        let payload = Payload::Command(alloc::vec![0; length].into());
        Entry { term: Term::new(term), index: Index::new(index), payload }
    }

    /// Entries from index `first` on, in chunks of these lengths, and the same as one vector.
    fn chunked(first: u64, chunks: &[Vec<usize>]) -> (Entries, Vec<Entry>) {
        let (mut entries, mut flat) = (Entries::EMPTY, Vec::new());
        for chunk in chunks {
            let from = first + flat.len() as u64;
            let batch: Vec<Entry> = chunk.iter().zip(from..).map(|(length, index)| entry(index, 1, *length)).collect();
            flat.extend(batch.iter().cloned());
            entries.extend(Entries::from_ordered(batch));
        }
        (entries, flat)
    }

    fn chunks() -> impl Strategy<Value = Vec<Vec<usize>>> {
        proptest::collection::vec(proptest::collection::vec(0..30_usize, 0..6), 0..5)
    }

    proptest! {
        #[test]
        fn a_slice_is_what_a_filter_finds(first in 1..5_u64, chunks in chunks(), from in 0..40_u64, through in 0..40_u64) {
            let (entries, flat) = chunked(first, &chunks);
            let slice = entries.slice(Index::new(from), Index::new(through));
            let expected: Vec<Entry> =
                flat.into_iter().filter(|entry| (from..=through).contains(&entry.index.as_u64())).collect();
            prop_assert!(slice.iter().eq(&expected));
            prop_assert_eq!(slice.len(), expected.len());
            prop_assert_eq!(slice.is_empty(), expected.is_empty());
            prop_assert_eq!((slice.first(), slice.last()), (expected.first(), expected.last()));
            prop_assert_eq!(slice.cost(), expected.iter().map(Entry::cost).sum::<u64>());
        }

        #[test]
        fn a_prefix_is_the_longest_that_fits(lengths in proptest::collection::vec(0..30_usize, 1..8), max in 0..300_u64) {
            let (_, flat) = chunked(1, core::slice::from_ref(&lengths));
            let chunk = Chunk::whole(flat.clone()).expect("at least one entry");
            let mut left = max;
            let fits = |entry: &&Entry| left.checked_sub(entry.cost()).map(|rest| left = rest).is_some();
            let expected: Vec<Entry> = flat.iter().take_while(fits).cloned().collect();
            let prefix = chunk.prefix(max);
            prop_assert_eq!(prefix.as_ref().map_or(&[][..], Chunk::as_slice), expected.as_slice());
            prop_assert_eq!(prefix.map_or(0, |prefix| prefix.cost()), expected.iter().map(Entry::cost).sum::<u64>());
        }

        #[test]
        fn how_entries_are_cut_makes_no_difference(chunks in chunks()) {
            let (entries, flat) = chunked(1, &chunks);
            prop_assert!(entries.batches().flatten().eq(&flat));
            prop_assert!(entries.batches().all(|batch| !batch.is_empty()));
            prop_assert_eq!(entries, Entries::from_ordered(flat));
        }

        #[test]
        fn only_what_is_in_order_becomes_entries(list in proptest::collection::vec((0..4_u64, 0..3_u64), 0..5)) {
            let batch: Vec<Entry> = list.iter().map(|(index, term)| entry(*index, *term, 0)).collect();
            let ordered = list.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1 && pair[1].1 >= pair[0].1);
            prop_assert_eq!(Entries::new(batch).is_some(), ordered);
        }
    }

    #[test]
    fn entries_are_printed_in_the_shared_notation() {
        let of = |count: usize| chunked(8, &[alloc::vec![0; count]]).0.to_string();
        assert_eq!([of(0), of(1), of(2), of(5)], ["[]", "[8@1]", "[8@1 9@1]", "[8@1 .. 12@1]"]);
    }
}
