//! Layer 0: log entries, and the shared runs in which they travel.
//!
//! A batch of entries is made once, as one immutable chunk. The log's cache, the write to disk,
//! the message to a peer and the hand-over to the state machine all hold ranges of that chunk;
//! no payload is ever copied by the core (contract E1).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

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

/// A range of one immutable batch.
#[derive(Clone)]
struct Chunk {
    batch: Arc<[Entry]>,
    start: usize,
    end: usize,
}

impl Chunk {
    fn as_slice(&self) -> &[Entry] {
        self.batch.get(self.start..self.end).unwrap_or_default()
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
        if batch.is_empty() {
            return Self::EMPTY;
        }
        let end = batch.len();
        Self { chunks: alloc::vec![Chunk { batch: batch.into(), start: 0, end }] }
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

    /// The sum of [`Entry::cost`].
    pub fn cost(&self) -> u64 {
        self.iter().map(Entry::cost).sum()
    }

    /// Appends entries that follow on directly.
    ///
    /// # Panics
    /// If `more` leaves a gap or overlaps: the caller has lost count.
    pub fn extend(&mut self, more: Self) {
        if let (Some(last), Some(first)) = (self.last(), more.first()) {
            assert!(first.index == last.index.next(), "entries {} do not follow {}", first.position(), last.position());
        }
        self.chunks.extend(more.chunks);
    }

    /// The part from index `from` on, up to index `through` (both included).
    #[must_use]
    pub fn slice(&self, from: Index, through: Index) -> Self {
        let mut chunks = Vec::new();
        for chunk in &self.chunks {
            let Some(first) = chunk.as_slice().first().map(|entry| entry.index) else { continue };
            let length = chunk.as_slice().len() as u64;
            let skip = from.since(first).min(length);
            let keep = through.next().since(first).min(length);
            if skip < keep {
                // Both are at most the chunk's length, which is a `usize`.
                let (start, end) = (chunk.start + skip as usize, chunk.start + keep as usize);
                chunks.push(Chunk { batch: chunk.batch.clone(), start, end });
            }
        }
        Self { chunks }
    }

    /// The longest prefix that costs at most `max_bytes`, but at least one entry if there is one.
    #[must_use]
    pub fn prefix(&self, max_bytes: u64) -> Self {
        let Some(first) = self.first() else { return Self::EMPTY };
        let mut spent = 0_u64;
        let mut through = first.index;
        for entry in self.iter() {
            spent = spent.saturating_add(entry.cost());
            if spent > max_bytes && entry.index != first.index {
                break;
            }
            through = entry.index;
        }
        self.slice(first.index, through)
    }

    /// The runs of one batch each, in order: what can be evicted or encoded as a unit.
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
