//! Opening the log: everything is read once and verified, in memory bounded by the tail that is
//! asked for and the largest group; `format.rs` says what may be cut, and why nothing else may.

use raft_core::StoreId;

use super::anchor::Anchor;
use super::disk::Disk;
use super::error::StorageError;
use super::format::{Link, Stamp};
use super::replay::Replay;
use super::segment::{self, Scanner, Segment, Step};

/// What was found; ready for the next write once it is [mended](Recovered::mend).
pub(super) struct Recovered {
    /// The segment that the next group goes to, if it fits.
    pub(super) current: Segment,
    /// Where in it.
    pub(super) sector: u64,
    pub(super) link: Link,
    /// The newest segment that exists.
    pub(super) newest: u64,
    pub(super) replay: Replay,
    /// A crash has torn the end, or has left the file too short.
    cut: bool,
    /// Segments without a group and without their full length.
    shortened: Vec<End>,
}

/// Reads the whole log, and refuses what no crash leaves behind. Changes nothing but to remove
/// segments that were being made.
pub(super) fn recover(
    disk: &dyn Disk,
    store: StoreId,
    anchor: Anchor,
    tail_bytes: u64,
) -> Result<Recovered, StorageError> {
    let newest = survey(disk, anchor.first.segment)?;
    if newest < anchor.segment {
        let found = format!("the file is missing, although the log had reached segment {}", anchor.segment);
        return Err(StorageError::Damaged { path: disk.path(&segment::name(newest + 1)), offset: 0, found });
    }
    let mut replay = Replay::new(anchor.first, tail_bytes);
    let mut link = anchor.first.link;
    let mut end: Option<End> = None;
    // Without a group, and without its full length. Mended only when it is certain that nothing is missing.
    let mut shortened: Vec<End> = Vec::new();
    for number in anchor.first.segment..=newest {
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
        return Err(StorageError::Damaged { path: disk.path(&segment::name(anchor.first.segment)), offset: 0, found });
    };
    if link.group <= anchor.group {
        let found = format!("the log ends here with group {}, but had reached group {}", link.group - 1, anchor.group);
        return Err(current.damaged(sector, found));
    }
    Ok(Recovered { current, sector, link, newest, replay, cut: torn || !whole, shortened })
}

impl Recovered {
    /// Cuts what a crash has torn, and makes durable what was read.
    pub(super) fn mend(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let Self { current, sector, .. } = self;
        for blank in &self.shortened {
            blank.segment.erase(blank.sector)?;
        }
        if self.cut {
            let path = current.path.display();
            tracing::warn!(%path, sector, "cut a group that was never completed, nor acknowledged");
            current.erase(*sector)?;
        }
        // What was read may be in the page cache only: whoever wrote it can have been killed before
        // its sync. From here on it counts as durable, so it has to be.
        current.sync()?;
        disk.sync().map_err(|error| StorageError::io("sync", &disk.path(""), error))
    }
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

/// The number of the newest segment. Removes what a crash left of one that was being made. Those
/// before the first one that counts do not matter: whoever opens the log removes them.
fn survey(disk: &dyn Disk, first: u64) -> Result<u64, StorageError> {
    let names = disk.list().map_err(|error| StorageError::io("read the directory", &disk.path(""), error))?;
    for name in names.iter().filter(|name| segment::is_unfinished(name)) {
        disk.remove(name).map_err(|error| StorageError::io("remove", &disk.path(name), error))?;
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.retain(|number| *number >= first);
    numbers.sort_unstable();
    match (first..).zip(&numbers).find(|(expected, number)| expected != *number) {
        None => Ok(numbers.last().copied().unwrap_or(first.saturating_sub(1))),
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
