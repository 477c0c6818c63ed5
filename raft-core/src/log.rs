//! Layer 2: the log: all terms, the newest entries, and how much of it is durable.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::durable::{Durable, TermRun};
use crate::entry::{Chunk, Entries};
use crate::types::{Index, Position, Term};

/// The log of one server.
///
/// The terms of *all* entries are known, as runs; the entries themselves only from some index on:
/// older ones are read back from disk by whoever executes `ReadLog` (contract: memory is bounded).
///
/// Invariants: `base.index <= durable <= last`; runs start at `base.index + 1`, rise strictly in
/// index and term, and end at `last`; the cache is contiguous and ends at `last`.
#[derive(Debug)]
pub(crate) struct Log {
    base: Position,
    runs: Vec<TermRun>,
    last: Index,
    durable: Index,
    cache: Cache,
}

/// The newest entries.
#[derive(Default)]
struct Cache {
    chunks: VecDeque<Chunk>,
    bytes: u64,
}

impl Cache {
    fn push(&mut self, chunk: Chunk) {
        self.bytes = self.bytes.saturating_add(chunk.cost());
        self.chunks.push_back(chunk);
    }

    fn truncate_from(&mut self, from: Index) {
        while let Some(chunk) = self.chunks.pop_back() {
            self.bytes = self.bytes.saturating_sub(chunk.cost());
            if chunk.first() < from {
                if let Some(kept) = chunk.slice(chunk.first(), from.prev()) {
                    self.push(kept);
                }
                return;
            }
        }
    }
}

impl core::fmt::Debug for Cache {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let first = self.chunks.front().map(Chunk::first);
        f.debug_struct("Cache").field("first", &first).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Log {
    /// The log as storage found it. Everything in it is durable.
    pub(crate) fn new(durable: &Durable) -> Self {
        let mut cache = Cache::default();
        durable.tail.clone().into_chunks().for_each(|chunk| cache.push(chunk));
        Self { base: durable.base, runs: durable.runs.clone(), last: durable.last, durable: durable.last, cache }
    }

    /// The position before the first entry.
    pub(crate) fn base(&self) -> Position {
        self.base
    }

    /// The last entry, durable or not.
    pub(crate) fn last(&self) -> Position {
        self.runs.last().map_or(self.base, |run| Position::new(self.last, run.term))
    }

    /// On stable storage up to here.
    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    /// Bytes of entries in memory.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cache.bytes
    }

    /// The first index whose entry is in memory; one past the last if none is.
    pub(crate) fn cached_from(&self) -> Index {
        self.cache.chunks.front().map_or(self.last.next(), Chunk::first)
    }

    /// The runs, for whoever checks invariants.
    pub(crate) fn runs(&self) -> &[TermRun] {
        &self.runs
    }

    /// The term of the entry at `index`, if the log reaches that far.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        let following = self.runs.partition_point(|run| run.first <= index);
        self.runs.get(following.checked_sub(1)?).map(|run| run.term)
    }

    /// Whether the log holds this entry, and so (§5.3) everything before it as well.
    pub(crate) fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The newest entry at or before `limit.index` whose term is not above `limit.term`: where two
    /// logs may still agree, skipping whole terms (§5.3, contract R2).
    pub(crate) fn newest_not_above(&self, limit: Position) -> Position {
        let above = self.runs.partition_point(|run| run.term <= limit.term);
        let end = self.runs.get(above).map_or(self.last, |run| run.first.prev());
        let index = end.min(limit.index).max(self.base.index);
        Position::new(index, self.term_at(index).unwrap_or(self.base.term))
    }

    /// Entries from `from` to `through` as far as `max_bytes` go, but at least one; `None` if the
    /// first of them is no longer in memory.
    pub(crate) fn entries(&self, from: Index, through: Index, max_bytes: u64) -> Option<Entries> {
        if from > through || from > self.last {
            return Some(Entries::EMPTY);
        }
        if from < self.cached_from() {
            return None;
        }
        let start = self.cache.chunks.partition_point(|chunk| chunk.last() < from);
        let mut entries = Entries::EMPTY;
        let mut left = max_bytes;
        for chunk in self.cache.chunks.range(start..) {
            if chunk.first() > through {
                break;
            }
            let Some(wanted) = chunk.slice(from, through) else { break };
            let whole = wanted.cost();
            let fitting = wanted.prefix(left);
            let fitting = if entries.is_empty() { fitting.or_else(|| wanted.slice(from, from)) } else { fitting };
            let Some(fitting) = fitting else { break };
            let partial = fitting.cost() < whole;
            left = left.saturating_sub(fitting.cost());
            entries.push(fitting);
            if partial {
                break;
            }
        }
        Some(entries)
    }

    /// Appends entries that follow on directly; they are not durable yet.
    pub(crate) fn append(&mut self, entries: Entries) {
        for chunk in entries.into_chunks() {
            assert!(chunk.first() == self.last.next(), "index {} appended after {}", chunk.first(), self.last());
            self.note_terms(&chunk);
            self.last = chunk.last();
            self.cache.push(chunk);
        }
    }

    /// Extends the runs by the terms of a chunk.
    fn note_terms(&mut self, chunk: &Chunk) {
        let entries = chunk.as_slice();
        let last_term = entries.last().map(|entry| entry.term);
        let mut newest = self.runs.last().map(|run| run.term);
        for entry in entries {
            if newest == last_term {
                // Terms never fall: the rest of the chunk belongs to the newest run.
                break;
            }
            if newest != Some(entry.term) {
                self.runs.push(TermRun { first: entry.index, term: entry.term });
                newest = Some(entry.term);
            }
        }
    }

    /// Removes everything from `from` on. What replaces it is durable only when its own write is.
    pub(crate) fn truncate_from(&mut self, from: Index) {
        assert!(from > self.base.index, "cannot remove index {from}: the log begins after {}", self.base);
        self.cache.truncate_from(from);
        let kept = self.runs.partition_point(|run| run.first < from);
        self.runs.truncate(kept);
        self.last = self.last.min(from.prev());
        self.durable = self.durable.min(self.last);
    }

    /// Notes that stable storage has everything up to `index`.
    pub(crate) fn mark_durable(&mut self, index: Index) {
        self.durable = self.durable.max(index.min(self.last));
    }

    /// Drops the oldest entries from memory until at most `max_bytes` remain. What is not durable
    /// stays: there is no other copy here (contract D6).
    pub(crate) fn evict(&mut self, max_bytes: u64) {
        while self.cache.bytes > max_bytes {
            let Some(oldest) = self.cache.chunks.front().filter(|chunk| chunk.last() <= self.durable) else { return };
            self.cache.bytes = self.cache.bytes.saturating_sub(oldest.cost());
            self.cache.chunks.pop_front();
        }
    }

    /// Whether every entry stands where the runs say (contract R4).
    pub(crate) fn agrees_with(&self, entries: &Entries) -> bool {
        entries.iter().all(|entry| self.term_at(entry.index) == Some(entry.term))
    }
}

/// What each batch costs until an index has passed it: bytes on their way somewhere.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    batches: VecDeque<(Index, u64)>,
    total: u64,
}

impl Ledger {
    /// A batch that ends at `last` sets out.
    pub(crate) fn charge(&mut self, last: Index, cost: u64) {
        self.total = self.total.saturating_add(cost);
        self.batches.push_back((last, cost));
    }

    /// Everything up to `through` has arrived.
    pub(crate) fn settle(&mut self, through: Index) {
        while let Some((_, cost)) = self.batches.front().copied().filter(|(last, _)| *last <= through) {
            self.total = self.total.saturating_sub(cost);
            self.batches.pop_front();
        }
    }

    /// Bytes on their way.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}
