//! What the groups of the log amount to, read one after the other.

use std::collections::VecDeque;

use bytes::Bytes;
use raft_core::{Configuration, Entries, Entry, HardState, Index, Payload, Position, SnapshotMeta};

use super::contents::{Contents, Place};
use super::error::StorageError;
use super::format::{Record, Stored};
use super::segment::{Scanner, Segment};
use super::starts::{Start, Starts};

/// Entries are shared in batches of about this size, because a cache evicts them as a whole.
const BATCH_BYTES: u64 = 64 << 10;

/// What the groups read so far amount to.
pub(super) struct Replay {
    pub(super) hard_state: HardState,
    pub(super) contents: Contents,
    pub(super) starts: Starts,
    /// The configurations that the log sets, in order.
    pub(super) configurations: Vec<Configuration>,
    /// The snapshot that the log was reset to, if it was.
    pub(super) reset: Option<SnapshotMeta>,
    tail: VecDeque<Entry>,
    tail_cost: u64,
    tail_bytes: u64,
    extent: Extent,
}

impl Replay {
    pub(super) fn new(first: Start, tail_bytes: u64) -> Self {
        Self {
            hard_state: HardState::default(),
            contents: Contents::after(first.before),
            starts: Starts::new(first),
            configurations: Vec::new(),
            reset: None,
            tail: VecDeque::new(),
            tail_cost: 0,
            tail_bytes,
            extent: Extent::default(),
        }
    }

    /// Takes in the group that the scanner has just read.
    pub(super) fn on_group(&mut self, segment: &Segment, scanner: &Scanner<'_>) -> Result<(), StorageError> {
        let place = Place { segment: segment.number, sector: scanner.place };
        let wrong = |found: &str| segment.damaged(place.sector, found.to_owned());
        let impossible = || wrong("a record that no version of this program writes");
        let (mut records, link) = scanner.records().zip(scanner.link_before()).ok_or_else(impossible)?;
        let opens_segment = place.sector == 1;
        // The entry before the group's first one.
        let mut before = None;
        for nth in 0.. {
            if records.is_empty() {
                break;
            }
            let record = records.take().ok_or_else(impossible)?;
            if opens_segment && nth == 0 && !matches!(record, Record::HardState(_)) {
                return Err(wrong("a segment that does not begin with term and vote"));
            }
            match record {
                Record::HardState(hard_state) if nth == 0 => self.hard_state = hard_state,
                Record::Reset(meta) if opens_segment && nth == 1 && records.is_empty() => self.on_reset(meta),
                Record::HardState(_) | Record::Reset(_) => return Err(impossible()),
                Record::Entry(position, stored) => {
                    let last = self.contents.last();
                    if before.is_none() && self.contents.admits(position) {
                        before = Some(self.begin(place, position.index));
                    }
                    if before.is_none() || !self.contents.push(position) {
                        return Err(wrong(&format!("entry {position}, which does not follow on {last}")));
                    }
                    self.on_entry(entry(position, stored));
                }
            }
        }
        if opens_segment {
            let before = before.unwrap_or_else(|| self.contents.last());
            self.starts.begin(Start { segment: segment.number, link, before });
        }
        Ok(())
    }

    /// Entries from `first` on follow, and replace what is there. Returns the one before.
    fn begin(&mut self, place: Place, first: Index) -> Position {
        self.contents.begin(place, first);
        self.starts.truncate(first);
        self.extent.truncate(first);
        self.configurations.retain(|configuration| configuration.index < first);
        while self.tail.back().is_some_and(|last| last.index >= first) {
            let Some(replaced) = self.tail.pop_back() else { break };
            self.tail_cost -= replaced.cost();
        }
        self.contents.last()
    }

    /// Keeps the newest entries, as many as fit, and what the log says about members.
    fn on_entry(&mut self, entry: Entry) {
        if let Payload::Configuration(membership) = &entry.payload {
            self.configurations.push(Configuration { index: entry.index, membership: membership.clone() });
        }
        let cost = entry.cost();
        self.extent.append(entry.index, cost);
        self.tail_cost += cost;
        self.tail.push_back(entry);
        while self.tail_cost > self.tail_bytes {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.tail.pop_front() else { return };
        self.tail_cost -= oldest.cost();
    }

    /// Nothing from before counts any more.
    fn on_reset(&mut self, meta: SnapshotMeta) {
        self.contents = Contents::after(meta.last);
        self.starts.truncate(Index::ZERO);
        self.configurations.clear();
        (self.tail, self.tail_cost) = (VecDeque::new(), 0);
        self.extent = Extent::default();
        self.reset = Some(meta);
    }

    /// Forgets the entries up to `through`, which a snapshot covers.
    pub(super) fn compact(&mut self, through: Index) {
        self.contents.compact(through);
        self.configurations.retain(|configuration| configuration.index > through);
        while self.tail.front().is_some_and(|oldest| oldest.index <= through) {
            self.drop_oldest();
        }
    }

    /// What the entries cost, roughly.
    pub(super) fn bytes(&self) -> u64 {
        self.extent.after(self.contents.base().index)
    }

    /// The newest entries; `None` if they are out of order.
    pub(super) fn take_tail(&mut self) -> Option<Entries> {
        self.tail_cost = 0;
        share(std::mem::take(&mut self.tail))
    }
}

/// How long the log is in bytes, exactly at its end and, so that little is remembered of a long
/// one, to within a grain where it was cut.
#[derive(Debug, Default)]
struct Extent {
    /// At each index: what everything up to there costs.
    marks: Vec<(Index, u64)>,
    total: u64,
}

impl Extent {
    /// How far marks are apart.
    const GRAIN: u64 = 64 << 10;

    fn append(&mut self, index: Index, cost: u64) {
        self.total += cost;
        if self.total - self.marks.last().map_or(0, |(_, sum)| *sum) >= Self::GRAIN {
            self.marks.push((index, self.total));
        }
    }

    /// Forgets what `from` and later entries cost. Within a grain, entries count as equally large.
    fn truncate(&mut self, from: Index) {
        let kept = self.marks.partition_point(|(index, _)| *index < from);
        let Some((later, upper)) = self.marks.get(kept).copied() else { return };
        self.marks.truncate(kept);
        let (mark, lower) = self.marks.last().copied().unwrap_or_default();
        let share = (upper - lower) / later.since(mark).max(1) * from.prev().since(mark);
        self.total = lower + share;
    }

    fn after(&self, index: Index) -> u64 {
        let before = self.marks.partition_point(|(mark, _)| *mark <= index).checked_sub(1);
        self.total - before.and_then(|nth| self.marks.get(nth)).map_or(0, |(_, sum)| *sum)
    }
}

/// An entry with a payload of its own, so that it keeps nothing else in memory (contract R7).
pub(super) fn entry(position: Position, stored: Stored<'_>) -> Entry {
    let payload = match stored {
        Stored::Blank => Payload::Blank,
        Stored::Command(command) => Payload::Command(Bytes::copy_from_slice(command)),
        Stored::Configuration(membership) => Payload::Configuration(membership),
    };
    Entry { term: position.term, index: position.index, payload }
}

/// Shares successive entries, in batches of moderate size; `None` if they are out of order.
pub(super) fn share(entries: impl IntoIterator<Item = Entry>) -> Option<Entries> {
    let mut shared = Entries::EMPTY;
    let mut batch: Vec<Entry> = Vec::new();
    let mut cost = 0;
    let mut next: Option<Index> = None;
    for entry in entries {
        if next.is_some_and(|next| next != entry.index) {
            return None;
        }
        next = Some(entry.index.next());
        cost += entry.cost();
        batch.push(entry);
        if cost >= BATCH_BYTES {
            shared.extend(Entries::new(std::mem::take(&mut batch))?);
            cost = 0;
        }
    }
    shared.extend(Entries::new(batch)?);
    Some(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_log_is_known_to_within_a_grain() {
        let mut extent = Extent::default();
        (1..=1_000).for_each(|index| extent.append(Index::new(index), 1_000));
        assert_eq!(extent.after(Index::ZERO), 1_000_000);
        assert!((500_000..500_000 + Extent::GRAIN).contains(&extent.after(Index::new(500))));
        extent.truncate(Index::new(1_001));
        assert_eq!(extent.after(Index::ZERO), 1_000_000, "nothing was replaced");
    }

    #[test]
    fn regress_a_log_whose_end_is_replaced_again_and_again_is_not_taken_for_an_empty_one() {
        // Each round makes a grain full, and replaces the entry that did.
        let mut extent = Extent::default();
        for round in 0..20 {
            let first = 1 + 60 * round;
            (first..first + 60).for_each(|index| extent.append(Index::new(index), 1_000));
            extent.append(Index::new(first + 60), 10_000);
            extent.truncate(Index::new(first + 60));
        }
        let found = extent.after(Index::ZERO);
        assert!((1_000_000..=1_500_000).contains(&found), "{found} for 1,200 entries of 1,000 bytes");
    }
}
