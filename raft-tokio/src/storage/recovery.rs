//! Opening the log: everything is read once and verified, in memory bounded by the tail that is
//! asked for and the largest group; `format.rs` says what may be cut, and why nothing else may.

use std::collections::VecDeque;

use bytes::Bytes;
use raft_core::{Entries, Entry, HardState, Index, Payload, Position, StoreId};

use super::anchor::Anchor;
use super::contents::{Contents, Place};
use super::disk::Disk;
use super::error::StorageError;
use super::format::{Link, Record, Stamp};
use super::segment::{self, Scanner, Segment, Step};

/// Entries are shared in batches of about this size, because a cache evicts them as a whole.
const BATCH_BYTES: u64 = 64 << 10;

/// What was found, ready for the next write.
pub(super) struct Recovered {
    /// The segment that the next group goes to, if it fits.
    pub(super) current: Segment,
    /// Where in it.
    pub(super) sector: u64,
    pub(super) link: Link,
    /// The newest segment that exists.
    pub(super) newest: u64,
    pub(super) hard_state: HardState,
    pub(super) contents: Contents,
    pub(super) tail: Entries,
}

/// Reads the whole log, cuts a torn end durably, refuses anything worse.
pub(super) fn recover(
    disk: &dyn Disk,
    store: StoreId,
    anchor: Anchor,
    tail_bytes: u64,
) -> Result<Recovered, StorageError> {
    let newest = survey(disk)?;
    if newest < anchor.segment {
        let found = format!("the file is missing, although the log had reached segment {}", anchor.segment);
        return Err(StorageError::Damaged { path: disk.path(&segment::name(newest + 1)), offset: 0, found });
    }
    let mut replay = Replay::new(tail_bytes);
    let mut link = Link::START;
    let mut end: Option<End> = None;
    // Without a group, and without its full length. Mended only when it is certain that nothing is missing.
    let mut shortened: Vec<End> = Vec::new();
    for number in 1..=newest {
        let segment = Segment::open(disk, store, number)?;
        let whole = segment.is_whole()?;
        let mut scanner = Scanner::new(&segment, 1, Some(link));
        let step = loop {
            match scanner.step()? {
                Step::Group => replay.on_group(&segment, &scanner)?,
                step => break step,
            }
        };
        let sector = scanner.sector;
        let torn = match step {
            Step::Incomplete { extent } => is_torn(&segment, &mut scanner, extent)?,
            Step::Rotten { sector: 1, found } => {
                return Err(whose_fault(shortened.last().or(end.as_ref()), &segment, found));
            }
            Step::Rotten { sector, found } => return Err(segment.damaged(sector, found)),
            Step::Group | Step::Full => false,
        };
        if let Some(end @ End { torn: true, .. }) = &end
            && (torn || sector_is_written(&mut scanner)?)
        {
            return Err(end.is_no_end(number));
        }
        let grew = scanner.link.is_some_and(|after| after != link);
        link = scanner.link.unwrap_or(link);
        if grew || torn || end.is_none() {
            end = Some(End { segment, sector, torn, whole });
        } else if !whole {
            shortened.push(End { segment, sector, torn, whole });
        }
    }
    let Some(End { segment: current, sector, torn, whole }) = end else {
        let found = "the log has no segment at all".to_owned();
        return Err(StorageError::Damaged { path: disk.path(&segment::name(1)), offset: 0, found });
    };
    if link.group <= anchor.group {
        let found = format!("the log ends here with group {}, but had reached group {}", link.group - 1, anchor.group);
        return Err(current.damaged(sector, found));
    }
    for blank in shortened {
        blank.segment.erase(blank.sector)?;
    }
    mend(disk, &current, sector, torn || !whole)?;
    let Replay { hard_state, contents, tail, .. } = replay;
    let Some(tail) = share(tail) else {
        return Err(current.damaged(sector, "the newest entries are out of order".to_owned()));
    };
    Ok(Recovered { current, sector, link, newest, hard_state, contents, tail })
}

/// Cuts what a crash has torn, and makes durable what was read.
fn mend(disk: &dyn Disk, current: &Segment, sector: u64, cut: bool) -> Result<(), StorageError> {
    if cut {
        tracing::warn!(path = %current.path.display(), sector, "cut a group that was never completed, nor acknowledged");
        current.erase(sector)?;
    }
    // What was read may be in the page cache only: whoever wrote it can have been killed before
    // its sync. From here on it counts as durable, so it has to be.
    current.sync()?;
    disk.sync().map_err(|error| StorageError::io("sync", &disk.path(""), error))
}

/// Where the log ends, as far as it has been read.
struct End {
    segment: Segment,
    sector: u64,
    torn: bool,
    whole: bool,
}

impl End {
    /// Something was written after it, in segment `later`: what is missing here was synced.
    fn is_no_end(&self, later: u64) -> StorageError {
        let what = if self.torn { "an incomplete group" } else { "the file has been cut short" };
        self.segment.damaged(self.sector, format!("{what}, although segment {later} was written after it"))
    }
}

/// A segment begins with something that does not follow on what came before: if that has lost its
/// end, the fault is there.
fn whose_fault(before: Option<&End>, segment: &Segment, found: String) -> StorageError {
    match before.filter(|end| end.torn || !end.whole) {
        Some(end) => end.is_no_end(segment.number),
        None => segment.damaged(1, found),
    }
}

/// The number of the newest segment. Removes what a crash left of one that was being made.
fn survey(disk: &dyn Disk) -> Result<u64, StorageError> {
    let names = disk.list().map_err(|error| StorageError::io("read the directory", &disk.path(""), error))?;
    for name in names.iter().filter(|name| segment::is_unfinished(name)) {
        disk.remove(name).map_err(|error| StorageError::io("remove", &disk.path(name), error))?;
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    match (1..).zip(&numbers).find(|(expected, number)| expected != *number) {
        None => Ok(numbers.last().copied().unwrap_or(0)),
        Some((missing, later)) => {
            let found = format!("the file is missing, although segment {later} is there");
            Err(StorageError::Damaged { path: disk.path(&segment::name(missing)), offset: 0, found })
        }
    }
}

fn sector_is_written(scanner: &mut Scanner<'_>) -> Result<bool, StorageError> {
    // It has groups, or at least a sector that is not blank.
    Ok(scanner.sector > 1 || scanner.written_from(1)?.is_some())
}

/// Whether the incomplete group that the scanner stands at was torn by a crash; `false` if there
/// is nothing at all. Refuses if something lies behind it, which was written after it was synced.
fn is_torn(segment: &Segment, scanner: &mut Scanner<'_>, extent: Option<u64>) -> Result<bool, StorageError> {
    let start = scanner.sector;
    let Some(_) = scanner.written_from(start)? else { return Ok(false) };
    if let Some(extent) = extent {
        return match scanner.written_from(start + extent)? {
            None => Ok(true),
            Some((later, _)) => {
                let found = format!("an incomplete group, although sector {later} was written after it");
                Err(segment.damaged(start, found))
            }
        };
    }
    let mut from = start + 1;
    while let Some((sector, stamp)) = scanner.written_from(from)? {
        match stamp {
            Stamp::Later | Stamp::Absent => from = sector + 1,
            Stamp::First | Stamp::Wrong => {
                let found = format!("no complete group, although sector {sector} was written after it");
                return Err(segment.damaged(start, found));
            }
        }
    }
    Ok(true)
}

/// What the groups read so far amount to.
struct Replay {
    hard_state: HardState,
    contents: Contents,
    tail: VecDeque<Entry>,
    tail_cost: u64,
    tail_bytes: u64,
}

impl Replay {
    fn new(tail_bytes: u64) -> Self {
        let (hard_state, contents) = (HardState::default(), Contents::default());
        Self { hard_state, contents, tail: VecDeque::new(), tail_cost: 0, tail_bytes }
    }

    fn on_group(&mut self, segment: &Segment, scanner: &Scanner<'_>) -> Result<(), StorageError> {
        let place = Place { segment: segment.number, sector: scanner.place };
        let impossible = || segment.damaged(place.sector, "a record that no version of this program writes".to_owned());
        let mut records = scanner.records().ok_or_else(impossible)?;
        let mut begun = false;
        while !records.is_empty() {
            match records.take().ok_or_else(impossible)? {
                Record::HardState(hard_state) => self.hard_state = hard_state,
                Record::Entry { index, term, command } => {
                    let position = Position::new(index, term);
                    let last = self.contents.last();
                    if !begun && self.contents.admits(position) {
                        self.contents.begin(place, index);
                        begun = true;
                    }
                    if !(begun && self.contents.push(position)) {
                        let found = format!("entry {position}, which does not follow on {last}");
                        return Err(segment.damaged(place.sector, found));
                    }
                    self.keep(entry(position, command));
                }
            }
        }
        Ok(())
    }

    /// Keeps the newest entries, as many as fit.
    fn keep(&mut self, entry: Entry) {
        while self.tail.back().is_some_and(|last| last.index >= entry.index) {
            let Some(replaced) = self.tail.pop_back() else { break };
            self.tail_cost -= replaced.cost();
        }
        self.tail_cost += entry.cost();
        self.tail.push_back(entry);
        while self.tail_cost > self.tail_bytes {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_cost -= oldest.cost();
        }
    }
}

/// An entry with a payload of its own, so that it keeps nothing else in memory (contract R7).
pub(super) fn entry(position: Position, command: Option<&[u8]>) -> Entry {
    let payload = match command {
        None => Payload::Blank,
        Some(command) => Payload::Command(Bytes::copy_from_slice(command)),
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
