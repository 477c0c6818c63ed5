//! One file of the log: how it is made, opened and read.

use std::path::PathBuf;
use std::sync::Arc;

use raft_core::StoreId;

use super::disk::{Disk, DiskFile, read_fully};
use super::error::StorageError;
use super::format::{GroupHeader, Link, Records, SECTOR, Seed, Stamp, VERSION, strip};
use super::header::{BadHeader, SegmentHeader};

/// How much is read or zeroed at once.
const CHUNK: usize = 256 << 10;
const PREFIX: &str = "log-";
const UNFINISHED: &str = ".new";

/// The name of a segment.
pub(super) fn name(number: u64) -> String {
    format!("{PREFIX}{number:012}")
}

/// The number of the segment with this name; `None` if it is no segment's.
pub(super) fn number(file: &str) -> Option<u64> {
    let number = file.strip_prefix(PREFIX)?.parse().ok()?;
    (name(number) == file).then_some(number)
}

/// Whether this is a segment that was not finished when its maker stopped.
pub(super) fn is_unfinished(file: &str) -> bool {
    file.strip_suffix(UNFINISHED).is_some_and(|file| number(file).is_some())
}

/// The names of the segments before number `first`.
pub(super) fn names_before(disk: &dyn Disk, first: u64) -> Result<impl Iterator<Item = String>, StorageError> {
    let names = disk.list().map_err(|error| StorageError::io("read the directory", &disk.path(""), error))?;
    Ok(names.into_iter().filter(move |name| number(name).is_some_and(|number| number < first)))
}

/// Makes a segment of `sectors`: zeroed, synced, and only then under its name.
pub(super) fn create(disk: &dyn Disk, store: StoreId, number: u64, sectors: u64) -> Result<(), StorageError> {
    let (made, named) = (format!("{}{UNFINISHED}", name(number)), name(number));
    let path = disk.path(&made);
    let failed = |action| move |error| StorageError::io(action, &path, error);
    let file = disk.create(&made).map_err(failed.clone()("create"))?;
    file.write_at(0, &SegmentHeader { store, number, sectors }.encode()).map_err(failed.clone()("write"))?;
    fill(&*file, SECTOR as u64, sectors * SECTOR as u64).map_err(failed.clone()("write"))?;
    file.sync().map_err(failed.clone()("sync"))?;
    disk.rename(&made, &named).map_err(failed("rename"))?;
    disk.sync().map_err(|error| StorageError::io("sync", &disk.path(""), error))
}

/// Writes zeros from `start` up to `end`.
fn fill(file: &dyn DiskFile, start: u64, end: u64) -> std::io::Result<()> {
    let zeros = vec![0; CHUNK];
    let mut at = start;
    while at < end {
        // At most `CHUNK`, which is a `usize`.
        let length = (end - at).min(CHUNK as u64) as usize;
        file.write_at(at, zeros.get(..length).unwrap_or_default())?;
        at += length as u64;
    }
    Ok(())
}

/// An open segment.
pub(super) struct Segment {
    pub(super) number: u64,
    /// Its length, header included.
    pub(super) sectors: u64,
    pub(super) seed: Seed,
    pub(super) path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl Segment {
    /// Opens a segment and checks whose it is.
    pub(super) fn open(disk: &dyn Disk, store: StoreId, number: u64) -> Result<Self, StorageError> {
        let name = name(number);
        let path = disk.path(&name);
        let file = disk.open(&name).map_err(|error| StorageError::io("open", &path, error))?;
        let mut sector = [0; SECTOR];
        let length = read_fully(&*file, 0, &mut sector).map_err(|error| StorageError::io("read", &path, error))?;
        let damaged = |found| StorageError::Damaged { path: path.clone(), offset: 0, found };
        match SegmentHeader::decode(sector.get(..length).unwrap_or_default()) {
            Ok(header) if header.store == store && header.number == number => {
                Ok(Self { number, sectors: header.sectors, seed: Seed::new(store, number), path, file })
            }
            Ok(header) => Err(damaged(format!(
                "the header is that of segment {} of store {}, but this is segment {number} of store {store}",
                header.number, header.store
            ))),
            Err(BadHeader::Version(found)) => Err(StorageError::UnknownVersion { path, found, known: VERSION }),
            Err(BadHeader::Damaged) => Err(damaged("the segment's header is unreadable".to_owned())),
        }
    }

    /// Writes whole sectors, durably.
    pub(super) fn write(&self, sector: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let offset = sector * SECTOR as u64;
        self.file.write_at(offset, bytes).map_err(|error| StorageError::io("write", &self.path, error))?;
        self.file.sync().map_err(|error| StorageError::io("sync", &self.path, error))
    }

    /// Makes everything in it durable.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.file.sync().map_err(|error| StorageError::io("sync", &self.path, error))
    }

    /// Zeroes everything from `sector` on, durably; a file that was cut short gets its length back.
    pub(super) fn erase(&self, sector: u64) -> Result<(), StorageError> {
        let failed = |action| move |error| StorageError::io(action, &self.path, error);
        fill(&*self.file, sector * SECTOR as u64, self.sectors * SECTOR as u64).map_err(failed("write"))?;
        self.file.sync().map_err(failed("sync"))
    }

    /// Whether the file has its full length; fails if it has more.
    pub(super) fn is_whole(&self) -> Result<bool, StorageError> {
        let length = self.file.length().map_err(|error| StorageError::io("measure", &self.path, error))?;
        let full = self.sectors * SECTOR as u64;
        if length > full {
            // No crash makes a file longer, and nobody would ever read what is there.
            return Err(self.damaged(self.sectors, format!("{} bytes beyond its end", length - full)));
        }
        Ok(length == full)
    }

    /// Names a place in this file where something is wrong.
    pub(super) fn damaged(&self, sector: u64, found: String) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), offset: sector * SECTOR as u64, found }
    }
}

/// A part of a segment in memory that moves along with its reader.
struct Window<'a> {
    segment: &'a Segment,
    bytes: Vec<u8>,
    start: u64,
}

impl Window<'_> {
    /// `count` sectors from `first` on; what lies beyond the end of the file reads as zeros.
    fn sectors(&mut self, first: u64, count: u64) -> Result<&[u8], StorageError> {
        let failed = |error| StorageError::io("read", &self.segment.path, error);
        let (offset, length) = (first * SECTOR as u64, count * SECTOR as u64);
        if offset < self.start || offset + length > self.start + self.bytes.len() as u64 {
            let rest = self.segment.sectors.saturating_sub(first) * SECTOR as u64;
            let wanted = rest.min(CHUNK as u64).max(length);
            let wanted = usize::try_from(wanted).map_err(|_| failed(std::io::ErrorKind::OutOfMemory.into()))?;
            if self.bytes.len() != wanted {
                self.bytes = vec![0; wanted];
            }
            self.start = offset;
            match read_fully(&*self.segment.file, offset, &mut self.bytes) {
                Ok(filled) => self.bytes.get_mut(filled..).unwrap_or_default().fill(0),
                Err(error) => {
                    // What is in the window now is neither old nor new.
                    self.bytes.clear();
                    return Err(failed(error));
                }
            }
        }
        // Both lie within the window now, and its length is a `usize`.
        let from = (offset - self.start) as usize;
        Ok(self.bytes.get(from..from + length as usize).unwrap_or_default())
    }
}

/// What a scanner came upon.
#[derive(Debug)]
pub(super) enum Step {
    /// A group, complete and right.
    Group,
    /// No group, and no room for one.
    Full,
    /// A place where no complete group starts: the end of what was written, or a torn one.
    /// `extent` is what the group would fill, if its header says so.
    Incomplete { extent: Option<u64> },
    /// Complete, and wrong: no crash does this.
    Rotten { sector: u64, found: String },
}

/// Reads a segment's groups one after the other, verifying every byte that means something.
pub(super) struct Scanner<'a> {
    window: Window<'a>,
    /// Where the next group starts.
    pub(super) sector: u64,
    /// Where the group just read starts.
    pub(super) place: u64,
    /// What the next group must say; `None` at first, if it is not known.
    pub(super) link: Option<Link>,
    header: Option<GroupHeader>,
    group: Vec<u8>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(segment: &'a Segment, sector: u64, link: Option<Link>) -> Self {
        let window = Window { segment, bytes: Vec::new(), start: 0 };
        Self { window, sector, place: sector, link, header: None, group: Vec::new() }
    }

    /// Moves over the next group. After [`Step::Group`], [`Self::records`] are its records; after
    /// anything else it has not moved.
    pub(super) fn step(&mut self) -> Result<Step, StorageError> {
        let Segment { seed, sectors, .. } = *self.window.segment;
        let place = self.sector;
        if place >= sectors {
            return Ok(Step::Full);
        }
        let rotten = |sector, found: &str| Ok(Step::Rotten { sector, found: found.to_owned() });
        let first = self.window.sectors(place, 1)?;
        let header = match seed.stamp_of(first) {
            Stamp::Absent => return Ok(Step::Incomplete { extent: None }),
            Stamp::Later => return rotten(place, "the middle of a group where one should start"),
            Stamp::Wrong => return rotten(place, "a sector with a wrong stamp where a group should start"),
            Stamp::First => GroupHeader::decode(first, seed, place),
        };
        let Some(header) = header else { return rotten(place, "a group whose header has a wrong checksum") };
        if let Some(link) = self.link.filter(|link| *link != header.link) {
            let found = format!("group {}, which does not follow on group {}", header.link.group, link.group - 1);
            return rotten(place, &found);
        }
        let extent = header.sectors();
        if extent > sectors - place {
            return rotten(place, "a group that reaches beyond the end of its segment");
        }
        let bytes = self.window.sectors(place, extent)?;
        let mut complete = true;
        for (sector, bytes) in (place..).zip(bytes.chunks_exact(SECTOR)).skip(1) {
            match seed.stamp_of(bytes) {
                Stamp::Later => {}
                Stamp::Absent => complete = false,
                Stamp::First | Stamp::Wrong => return rotten(sector, "a sector with a wrong stamp in a group"),
            }
        }
        if !complete {
            return Ok(Step::Incomplete { extent: Some(extent) });
        }
        self.group.clear();
        strip(bytes, &mut self.group);
        let Some(chain) = verify(&header, &self.group) else {
            return rotten(place, "a group with a record whose checksum is wrong");
        };
        self.link = Some(Link { group: header.link.group + 1, chain });
        self.header = Some(header);
        (self.place, self.sector) = (place, place + extent);
        Ok(Step::Group)
    }

    /// The records of the group just read.
    pub(super) fn records(&self) -> Option<Records<'_>> {
        Records::new(self.header.as_ref()?, &self.group)
    }

    /// What the group just read says that it follows on.
    pub(super) fn link_before(&self) -> Option<Link> {
        self.header.as_ref().map(|header| header.link)
    }

    /// The first sector from `sector` on that is not blank, with its stamp.
    pub(super) fn written_from(&mut self, sector: u64) -> Result<Option<(u64, Stamp)>, StorageError> {
        let Segment { seed, sectors, .. } = *self.window.segment;
        for sector in sector..sectors {
            let bytes = self.window.sectors(sector, 1)?;
            if bytes != [0; SECTOR] {
                return Ok(Some((sector, seed.stamp_of(bytes))));
            }
        }
        Ok(None)
    }
}

/// The checksum that the group ends with; `None` if one in it is wrong.
fn verify(header: &GroupHeader, group: &[u8]) -> Option<u32> {
    let mut records = Records::new(header, group)?;
    while !records.is_empty() {
        records.take()?;
    }
    Some(records.chain())
}
