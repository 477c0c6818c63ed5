//! Layer 2: the log: all terms, the newest entries, and how much of it is durable.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::durable::{Durable, TermRun};
use crate::entry::{Chunk, Entries};
use crate::ledger::Extent;
use crate::types::{Index, Position, ReadId, Term, Time};

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
    extent: Extent,
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
        let extent = Extent::new(durable.base.index, durable.last, durable.bytes);
        let (base, runs, last) = (durable.base, durable.runs.clone(), durable.last);
        Self { base, extent, runs, last, durable: last, cache }
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
            self.extent.append(self.last, chunk.cost());
            self.cache.push(chunk);
        }
    }

    /// Forgets everything up to `through`, which a snapshot covers.
    pub(crate) fn compact(&mut self, through: Index) {
        let Some(term) = self.term_at(through).filter(|_| through <= self.durable) else {
            unreachable!("compacted through {through}, but only {} is durable", self.durable)
        };
        self.base = Position::new(through, term);
        if through == self.last {
            self.extent = Extent::new(through, through, 0);
        } else {
            self.extent.compact(through);
        }
        let gone = self.runs.partition_point(|run| run.first <= through.next());
        let kept = self.runs.split_off(gone.saturating_sub(1).min(self.runs.len()));
        self.runs = kept;
        match self.runs.first_mut() {
            Some(run) if self.last > through => run.first = run.first.max(through.next()),
            _ => self.runs.clear(),
        }
        while let Some(oldest) = self.cache.chunks.front().filter(|chunk| chunk.last() <= through) {
            self.cache.bytes = self.cache.bytes.saturating_sub(oldest.cost());
            self.cache.chunks.pop_front();
        }
        if let Some(cut) = self.cache.chunks.front().filter(|chunk| chunk.first() <= through)
            && let Some(kept) = cut.slice(through.next(), cut.last())
        {
            self.cache.bytes = self.cache.bytes.saturating_sub(cut.cost()).saturating_add(kept.cost());
            self.cache.chunks.pop_front();
            self.cache.chunks.push_front(kept);
        }
    }

    /// Starts anew after a snapshot that ends at `base`.
    pub(crate) fn reset(&mut self, base: Position) {
        let extent = Extent::new(base.index, base.index, 0);
        *self = Self { base, extent, runs: Vec::new(), last: base.index, durable: base.index, cache: Cache::default() };
    }

    /// Bytes of entries after `index`, roughly.
    pub(crate) fn bytes_after(&self, index: Index) -> u64 {
        self.extent.after(index)
    }

    /// The index after which the log has at most so many bytes, roughly.
    pub(crate) fn first_within(&self, bytes: u64) -> Index {
        self.extent.first_within(bytes).unwrap_or(self.last).max(self.base.index)
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
        let (is_known, before) = (from >= self.cached_from(), self.cache.bytes);
        self.cache.truncate_from(from);
        let cost = before.saturating_sub(self.cache.bytes);
        self.extent.truncate_from(from, is_known.then_some(cost));
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

/// A question to whoever reads the log back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) id: ReadId,
    asked: Time,
    patience: Duration,
}

impl Reading {
    /// Asked now, for the first time or again. Each time the answer is waited for twice as long:
    /// a disk that is slower than our patience must not have every answer come too late.
    pub(crate) fn ask(id: ReadId, before: Option<Self>, now: Time, patience: Duration) -> Self {
        let longest = patience.saturating_mul(32);
        let patience = before.map_or(patience, |before| before.patience.saturating_mul(2).min(longest));
        Self { id, asked: now, patience }
    }

    /// When it counts as lost.
    pub(crate) fn overdue_at(&self) -> Time {
        self.asked.after(self.patience)
    }

    /// Whether the answer may still come in time.
    pub(crate) fn is_pending(&self, now: Time) -> bool {
        now < self.overdue_at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::Identity;
    use crate::entry::{Entry, Payload};
    use crate::membership::{Configuration, Membership};
    use crate::types::{Boot, ClusterId, HardState, NodeId, StoreId};
    use proptest::prelude::*;

    fn empty() -> Log {
        Log::new(&Durable {
            identity: Identity {
                cluster: ClusterId::new(1),
                node: NodeId::new(1).expect("1 is not 0"),
                store: StoreId::new(1),
                boot: Boot::new(1),
            },
            hard_state: HardState::default(),
            base: Position::ZERO,
            configuration: Configuration { index: Index::ZERO, membership: Membership::default().into() },
            configurations: Vec::new(),
            applied: Index::ZERO,
            last: Index::ZERO,
            runs: Vec::new(),
            snapshot: None,
            bytes: 0,
            tail: Entries::EMPTY,
        })
    }

    /// What can happen to a log.
    #[derive(Clone, Debug)]
    enum Change {
        /// A batch: how much each entry's term rises, and how long it is.
        Append(Vec<(u64, usize)>),
        /// Everything but so many of the first entries goes.
        Truncate(u64),
        /// So many of the first entries are durable.
        Durable(u64),
        Evict(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            4 => proptest::collection::vec((0..2_u64, 0..20_usize), 1..6).prop_map(Change::Append),
            1 => (0..20_u64).prop_map(Change::Truncate),
            2 => (0..30_u64).prop_map(Change::Durable),
            2 => (0..300_u64).prop_map(Change::Evict),
        ]
    }

    /// A log as one vector, all of it in memory.
    #[derive(Default)]
    struct Naive {
        entries: Vec<Entry>,
        durable: usize,
    }

    impl Naive {
        fn term_at(&self, index: u64) -> Option<Term> {
            match index {
                0 => Some(Term::ZERO),
                _ => self.entries.get(index as usize - 1).map(|entry| entry.term),
            }
        }

        fn newest_not_above(&self, limit: Position) -> Position {
            let fits = |entry: &&Entry| entry.index <= limit.index && entry.term <= limit.term;
            self.entries.iter().rev().find(fits).map_or(Position::ZERO, Entry::position)
        }

        fn entries(&self, from: u64, through: u64, max_bytes: u64) -> Vec<Entry> {
            let wanted = self.entries.iter().filter(|entry| (from..=through).contains(&entry.index.as_u64()));
            let mut spent = 0;
            let mut fitting = Vec::new();
            for entry in wanted {
                spent += entry.cost();
                if spent > max_bytes && !fitting.is_empty() {
                    break;
                }
                fitting.push(entry.clone());
            }
            fitting
        }

        fn change(&mut self, change: &Change) -> Option<Vec<Entry>> {
            match change {
                Change::Append(batch) => {
                    let mut term = self.entries.last().map_or(Term::new(1), |entry| entry.term);
                    let mut index = Index::new(self.entries.len() as u64);
                    let mut new = Vec::new();
                    for (rise, length) in batch {
                        (index, term) = (index.next(), Term::new(term.as_u64() + rise));
                        let payload = Payload::Command(alloc::vec![0; *length].into());
                        new.push(Entry { term, index, payload });
                    }
                    self.entries.extend(new.iter().cloned());
                    return Some(new);
                }
                Change::Truncate(kept) => {
                    self.entries.truncate(*kept as usize);
                    self.durable = self.durable.min(self.entries.len());
                }
                Change::Durable(through) => {
                    self.durable = self.durable.max((*through as usize).min(self.entries.len()));
                }
                Change::Evict(_) => {}
            }
            None
        }
    }

    fn apply(log: &mut Log, change: &Change, new: Option<Vec<Entry>>) {
        match change {
            Change::Append(_) => log.append(Entries::new(new.unwrap_or_default()).expect("the model counts right")),
            Change::Truncate(kept) => log.truncate_from(Index::new(kept + 1)),
            Change::Durable(through) => log.mark_durable(Index::new(*through)),
            Change::Evict(max_bytes) => log.evict(*max_bytes),
        }
    }

    proptest! {
        #[test]
        fn a_log_answers_like_one_vector_that_forgets_nothing(
            changes in proptest::collection::vec(change(), 1..30),
            max_bytes in 0..200_u64,
        ) {
            let (mut log, mut naive) = (empty(), Naive::default());
            for change in changes {
                let new = naive.change(&change);
                apply(&mut log, &change, new);
                let last = naive.entries.len() as u64;
                prop_assert_eq!(log.last(), naive.entries.last().map_or(Position::ZERO, Entry::position));
                prop_assert_eq!(log.durable(), Index::new(naive.durable as u64));
                prop_assert!(log.cached_from() <= log.durable().next());
                let cached: u64 = naive.entries.iter().filter(|e| e.index >= log.cached_from()).map(Entry::cost).sum();
                prop_assert_eq!(log.cached_bytes(), cached);
                for index in 0..=last + 2 {
                    prop_assert_eq!(log.term_at(Index::new(index)), naive.term_at(index));
                    for term in 0..=log.last().term.as_u64() + 1 {
                        let position = Position::new(Index::new(index), Term::new(term));
                        prop_assert_eq!(log.newest_not_above(position), naive.newest_not_above(position));
                        prop_assert_eq!(log.holds(position), naive.term_at(index) == Some(Term::new(term)));
                    }
                }
                for (from, through) in (1..=last).map(|from| (from, last - last / 4)) {
                    let found = log.entries(Index::new(from), Index::new(through), max_bytes);
                    let expected = if from <= through && Index::new(from) < log.cached_from() {
                        None
                    } else {
                        Some(naive.entries(from, through, max_bytes))
                    };
                    prop_assert_eq!(found.map(|entries| entries.iter().cloned().collect::<Vec<_>>()), expected);
                }
            }
        }

        #[test]
        fn an_eviction_stops_where_it_must(changes in proptest::collection::vec(change(), 1..30), max in 0..300_u64) {
            let (mut log, mut naive) = (empty(), Naive::default());
            for change in changes {
                let new = naive.change(&change);
                apply(&mut log, &change, new);
            }
            log.evict(max);
            let oldest = log.cache.chunks.front();
            let pinned = oldest.is_some_and(|chunk| chunk.last() > log.durable());
            prop_assert!(log.cached_bytes() <= max || pinned, "{} bytes stay, and nothing forces them to", log.cached_bytes());
        }
    }
}
