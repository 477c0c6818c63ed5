//! The log itself: synchronous, without threads but for the one that zeroes the next segment.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use raft_core::{Boot, Entries, Entry, HardState, Index, Position, SnapshotMeta, StoreId};

use super::anchor::{Anchor, AnchorFile};
use super::contents::{Contents, Place};
use super::disk::Disk;
use super::error::StorageError;
use super::format::{Content, Encoder, Link, Record, SECTOR};
use super::recovery::Recovered;
use super::replay::{Replay, entry, share};
use super::segment::{self, Scanner, Segment, Step};
use super::snapshots::Snapshots;
use super::starts::{Start, Starts};
use super::{Options, Write};

/// The open log of one data directory.
///
/// Invariants: everything before (`current`, `sector`) is durable; everything from there on is
/// blank, in this segment and in those up to `newest`; `contents` and `hard_state` say what is
/// durable; no segment from the first of `starts` on is missing.
pub struct Log {
    disk: Arc<dyn Disk>,
    snapshots: Arc<Snapshots>,
    store: StoreId,
    boot: Boot,
    options: Options,
    anchor: AnchorFile,
    /// The segment that the next group goes to, if it fits.
    current: Segment,
    /// Where in it.
    sector: u64,
    link: Link,
    /// The newest segment that exists.
    newest: u64,
    /// The thread that makes the segment after `newest`.
    ahead: Option<JoinHandle<Result<(), StorageError>>>,
    hard_state: HardState,
    contents: Contents,
    starts: Starts,
    encoder: Encoder,
    poisoned: bool,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("path", &self.path()).field("last", &self.last()).finish_non_exhaustive()
    }
}

/// A group about to be written: what several writes amount to.
struct Merged {
    hard_state: Option<HardState>,
    entries: Entries,
}

impl Log {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        (store, boot): (StoreId, Boot),
        options: Options,
        anchor: AnchorFile,
        recovered: Recovered,
        snapshots: Arc<Snapshots>,
    ) -> Self {
        let Recovered { current, sector, link, newest, replay, .. } = recovered;
        let Replay { hard_state, contents, starts, .. } = replay;
        Self {
            disk,
            snapshots,
            store,
            boot,
            options,
            anchor,
            current,
            sector,
            link,
            newest,
            ahead: None,
            hard_state,
            contents,
            starts,
            encoder: Encoder::default(),
            poisoned: false,
        }
    }

    /// The snapshots that lie beside it.
    pub fn snapshots(&self) -> &Arc<Snapshots> {
        &self.snapshots
    }

    /// The position of the last durable entry.
    pub fn last(&self) -> Position {
        self.contents.last()
    }

    /// The directory it lives in.
    pub fn path(&self) -> PathBuf {
        self.disk.path("")
    }

    /// Writes a group durably, as a whole or not at all: one write, one `fdatasync`. Of several
    /// terms and votes the last one counts; entries replace the log's from their first index on.
    ///
    /// # Errors
    /// If anything fails. That is final: nobody knows then what is on the disk, so this and every
    /// later write fails. Reading goes on.
    pub fn write(&mut self, group: &[Write]) -> Result<(), StorageError> {
        self.attempt(|log| log.append(group))
    }

    /// Replaces the log by a snapshot that [was received](Snapshots::save_received): it is empty
    /// then, and begins after the snapshot's last entry. Term and vote stay. Log and snapshot
    /// change together, durably, or not at all.
    ///
    /// # Errors
    /// As [`Self::write`], and if that snapshot is not there; whoever wanted it installed cannot go on then.
    pub fn install(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        self.attempt(|log| log.reset(meta))
    }

    /// Forgets the entries up to `through`, as far as a durable snapshot covers them, and lets go of
    /// the segments that hold nothing else; [`Snapshots::sweep`] removes them.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn compact(&mut self, through: Index) -> Result<(), StorageError> {
        let through = through.min(self.snapshots.newest().index).min(self.last().index);
        self.attempt(|log| {
            log.contents.compact(through);
            log.release(through)
        })
    }

    /// Does what may fail only once.
    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Result<(), StorageError>) -> Result<(), StorageError> {
        if self.poisoned {
            return Err(StorageError::Poisoned { dir: self.path() });
        }
        let done = work(self);
        self.poisoned = done.is_err();
        done
    }

    fn append(&mut self, group: &[Write]) -> Result<(), StorageError> {
        let Merged { hard_state, entries } = self.merge(group)?;
        if hard_state.is_none() && entries.is_empty() {
            return Ok(());
        }
        let link = self.link;
        let place = self.put(Content { hard_state, reset: None, entries: &entries })?;
        if let Some(first) = entries.first() {
            self.contents.begin(place, first.index);
            self.starts.truncate(first.index);
        }
        self.on_segment_begun(place, link);
        for entry in entries.iter() {
            let follows = self.contents.push(entry.position());
            debug_assert!(follows, "merging has checked the first entry, and their type the others");
        }
        self.prepare_ahead();
        Ok(())
    }

    fn reset(&mut self, meta: &SnapshotMeta) -> Result<(), StorageError> {
        let (first, last) = (meta.last, self.contents.base());
        if first.index < last.index {
            return Err(StorageError::OutOfOrder { first, last });
        }
        self.snapshots.check_received(meta)?;
        let link = self.link;
        // A server that lives in this term has not voted in it, unless it says so itself.
        let behind = self.hard_state.term < first.term;
        let hard_state =
            behind.then_some(HardState { term: first.term, voted_for: None, floor: self.hard_state.floor });
        let place = self.put(Content { hard_state, reset: Some(meta), entries: &Entries::EMPTY })?;
        self.contents = Contents::after(meta.last);
        self.starts.truncate(Index::ZERO);
        self.on_segment_begun(place, link);
        self.snapshots.promote(meta)?;
        self.release(meta.last.index)
    }

    /// A group was written at the beginning of a segment, and follows on `link`: the log may begin there once.
    fn on_segment_begun(&mut self, place: Place, link: Link) {
        if place.sector == 1 {
            self.starts.begin(Start { segment: place.segment, link, before: self.contents.last() });
        }
    }

    /// Writes one group durably, and returns where it is.
    fn put(&mut self, content: Content<'_>) -> Result<Place, StorageError> {
        let mut content = content;
        let hard_state = content.hard_state.unwrap_or(self.hard_state);
        let is_fresh = self.sector == 1;
        let fits = |log: &Self, content| {
            let length = log.length(content)?;
            Ok::<_, StorageError>(Encoder::sectors(length) <= log.current.sectors - log.sector)
        };
        if is_fresh {
            content.hard_state = Some(hard_state);
        }
        if !fits(self, content)? || (content.reset.is_some() && !is_fresh) {
            // No segment may hold the only copy of a term and vote for those after it.
            content.hard_state = Some(hard_state);
            self.advance(Encoder::sectors(self.length(content)?))?;
        }
        let length = self.length(content)?;
        let (bytes, link) = self.encoder.encode(self.current.seed, self.sector, self.link, length, content);
        self.current.write(self.sector, bytes)?;
        let place = Place { segment: self.current.number, sector: self.sector };
        self.sector += Encoder::sectors(length);
        self.link = link;
        self.hard_state = hard_state;
        Ok(place)
    }

    fn length(&self, content: Content<'_>) -> Result<u32, StorageError> {
        Encoder::length(content).ok_or_else(|| {
            let too_long = std::io::ErrorKind::InvalidInput.into();
            StorageError::io("write more than 4 GiB at once to", &self.current.path, too_long)
        })
    }

    /// Begins as late as it may when nothing up to `through` is needed any more.
    fn release(&mut self, through: Index) -> Result<(), StorageError> {
        let before = self.starts.first().segment;
        let Some(first) = self.starts.compact(through) else { return Ok(()) };
        self.anchor.write_twice(self.anchor(self.current.number))?;
        self.snapshots.on_released(before..first.segment, first.before.index);
        Ok(())
    }

    /// What the anchor should say by now.
    fn anchor(&self, segment: u64) -> Anchor {
        Anchor { boot: self.boot, group: self.link.group - 1, segment, first: self.starts.first() }
    }

    /// What the writes amount to, one after the other.
    fn merge(&self, group: &[Write]) -> Result<Merged, StorageError> {
        let mut merged = Merged { hard_state: None, entries: Entries::EMPTY };
        for Write { hard_state, entries, seq: _ } in group {
            merged.hard_state = hard_state.or(merged.hard_state);
            let Some(first) = entries.first().map(Entry::position) else { continue };
            let start = merged.entries.first().map_or(first.index, |entry| entry.index);
            let mut kept =
                if start < first.index { merged.entries.slice(start, first.index.prev()) } else { Entries::EMPTY };
            let last = kept.last().map(Entry::position);
            let follows = match last {
                Some(last) => last.index.next() == first.index && last.term <= first.term,
                None => self.contents.admits(first),
            };
            if !follows {
                return Err(StorageError::OutOfOrder { first, last: last.unwrap_or_else(|| self.last()) });
            }
            kept.extend(entries.clone());
            merged.entries = kept;
        }
        Ok(merged)
    }

    /// Moves on to a segment in which a group of that many sectors fits.
    fn advance(&mut self, sectors: u64) -> Result<(), StorageError> {
        let mut number = self.current.number;
        let next = loop {
            number += 1;
            self.await_ahead();
            if number > self.newest {
                segment::create(&*self.disk, self.store, number, self.segment_sectors().max(sectors + 1))?;
                self.newest = number;
            }
            let segment = Segment::open(&*self.disk, self.store, number)?;
            // One that was made ahead can be too small for an enormous group: it stays empty.
            if segment.sectors > sectors {
                break segment;
            }
        };
        self.anchor.write(self.anchor(number))?;
        (self.current, self.sector) = (next, 1);
        Ok(())
    }

    fn segment_sectors(&self) -> u64 {
        (self.options.segment_bytes / SECTOR as u64).max(8)
    }

    /// Has the next segment made by a thread, once this one is half full: zeroing one takes as
    /// long as hundreds of writes.
    fn prepare_ahead(&mut self) {
        let due = self.newest == self.current.number && self.sector > self.current.sectors / 2;
        if !self.options.prepare_ahead || !due || self.ahead.is_some() {
            return;
        }
        let (disk, store, number, sectors) = (self.disk.clone(), self.store, self.newest + 1, self.segment_sectors());
        // Without a thread it is made when it is needed.
        self.ahead = thread::Builder::new()
            .name("raft-log-ahead".to_owned())
            .spawn(move || segment::create(&*disk, store, number, sectors))
            .ok();
    }

    fn await_ahead(&mut self) {
        match self.ahead.take().map(JoinHandle::join) {
            None => {}
            Some(Ok(Ok(()))) => self.newest += 1,
            // Nothing depends on it yet: it is tried again when it is needed, and counts then.
            Some(Ok(Err(error))) => tracing::warn!(%error, "could not make the next segment ahead of need"),
            Some(Err(_)) => tracing::warn!("the thread that makes the next segment panicked"),
        }
    }

    /// Reads entries back, each verified against its checksum: from index `from` up to `through`
    /// or the end of the log, stopping before they cost more than `max_bytes`, but at least one if
    /// the log holds the first. It holds none that was compacted.
    ///
    /// # Errors
    /// If the disk fails, or what it gives is not what was written.
    pub fn read(&self, from: Index, through: Index, max_bytes: u64) -> Result<Entries, StorageError> {
        let through = through.min(self.last().index);
        let mut reading = Reading { next: from, through, budget: max_bytes, entries: Vec::new() };
        while !reading.is_done() {
            let Some((place, until)) = self.contents.locate(reading.next) else { break };
            if place.segment == self.current.number {
                self.read_stretch(&self.current, place, until, &mut reading)?;
            } else {
                let segment = Segment::open(&*self.disk, self.store, place.segment)?;
                self.read_stretch(&segment, place, until, &mut reading)?;
            }
        }
        share(reading.entries)
            .ok_or_else(|| self.current.damaged(self.sector, "the entries read are out of order".to_owned()))
    }

    fn read_stretch(
        &self,
        segment: &Segment,
        place: Place,
        until: Index,
        reading: &mut Reading,
    ) -> Result<(), StorageError> {
        let mut scanner = Scanner::new(segment, place.sector, None);
        while !reading.is_done() && reading.next <= until {
            match scanner.step()? {
                Step::Group => {}
                Step::Rotten { sector, found } => return Err(segment.damaged(sector, found)),
                Step::Full | Step::Incomplete { .. } => {
                    let found = format!("the log ends here, before entry {}", reading.next);
                    return Err(segment.damaged(scanner.sector, found));
                }
            }
            let impossible = || segment.damaged(scanner.place, "an unreadable record".to_owned());
            let mut records = scanner.records().ok_or_else(impossible)?;
            while !records.is_empty() && !reading.is_done() && reading.next <= until {
                let Record::Entry(position, stored) = records.take().ok_or_else(impossible)? else { continue };
                if position.index < reading.next {
                    continue;
                }
                if position.index > reading.next || self.contents.term(position.index) != Some(position.term) {
                    let found = format!("entry {position} where entry {} should be", reading.next);
                    return Err(segment.damaged(scanner.place, found));
                }
                reading.on_entry(entry(position, stored));
            }
        }
        Ok(())
    }

    /// Closes the log in good order: notes how far it reaches, so that the next opening misses
    /// nothing, however the disk treats it until then.
    ///
    /// # Errors
    /// If that cannot be noted. Nothing is lost by it.
    pub fn close(mut self) -> Result<(), StorageError> {
        if self.poisoned {
            return Err(StorageError::Poisoned { dir: self.path() });
        }
        self.anchor.write(self.anchor(self.current.number))
    }
}

impl Drop for Log {
    /// The directory is free for the next one who opens it only when no thread works in it.
    fn drop(&mut self) {
        self.await_ahead();
    }
}

/// A read under way.
struct Reading {
    next: Index,
    through: Index,
    budget: u64,
    entries: Vec<Entry>,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.next > self.through
    }

    fn on_entry(&mut self, entry: Entry) {
        match self.budget.checked_sub(entry.cost()) {
            Some(rest) => self.budget = rest,
            None if self.entries.is_empty() => self.budget = 0,
            None => {
                self.through = self.next.prev();
                return;
            }
        }
        self.next = entry.index.next();
        self.entries.push(entry);
    }
}
