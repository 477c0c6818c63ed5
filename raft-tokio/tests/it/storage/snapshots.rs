//! Snapshots and compaction on a healthy disk.

use raft_core::{HardState, Index, Position, Term};
use raft_tokio::storage::{Opened, StorageError};

use super::memory_disk::{Keep, MemoryDisk};
use super::reference::{Reference, Step, at, configuration_entry, execute, state};
use super::{SMALL, append, entry, formatted, reopen, vote};

/// A store, and what it should hold.
pub(super) struct Pair {
    pub(super) disk: MemoryDisk,
    pub(super) opened: Opened,
    pub(super) reference: Reference,
}

impl Pair {
    pub(super) fn new() -> Result<Self, StorageError> {
        let disk = formatted();
        let opened = reopen(&disk, &SMALL)?;
        Ok(Self { disk, opened, reference: Reference::new() })
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), StorageError> {
        execute(&mut self.opened, step, &self.reference)?;
        self.reference.on_step(step);
        Ok(())
    }

    /// Entries `from` to `through` of term 1, three to a segment.
    pub(super) fn fill(&mut self, from: u64, through: u64) -> Result<(), StorageError> {
        self.fill_term(from, through, 1)
    }

    fn fill_term(&mut self, from: u64, through: u64, term: u64) -> Result<(), StorageError> {
        for index in from..=through {
            // The first segment is larger than the others.
            let size = if index == 1 { 62_000 } else { 900 };
            let mut write = append(index, vec![entry(index, term, vec![index as u8; size])]);
            if self.reference.hard_state.term == Term::ZERO {
                write.hard_state = Some(HardState { term: Term::new(1), voted_for: None, floor: None });
            }
            self.step(&Step::Write(vec![write]))?;
        }
        Ok(())
    }

    pub(super) fn reopen(&mut self) -> Result<(), StorageError> {
        self.disk = self.disk.crash(Keep::Nothing);
        self.opened = reopen(&self.disk, &SMALL)?;
        assert_eq!(self.reference.differs(&self.opened), None);
        Ok(())
    }

    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        self.disk.file_names().into_iter().filter(|name| name.starts_with(prefix)).collect()
    }
}

#[test]
fn a_compacted_log_begins_with_its_newest_snapshot() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.step(&Step::Write(vec![vote(1, 1, 1)]))?;
    pair.fill(1, 30)?;
    pair.step(&Step::Write(vec![append(31, vec![configuration_entry(31, 1, 7)])]))?;
    pair.step(&Step::Save(20))?;
    pair.reopen()?;
    assert_eq!(pair.opened.durable.base, Position::ZERO, "nothing was compacted yet");
    let before = pair.names("log-").len();
    pair.step(&Step::Compact(20))?;
    assert_eq!(pair.names("log-").len(), before, "the log's thread removes nothing");
    pair.step(&Step::Sweep)?;
    assert!(pair.names("log-").len() <= before - 5, "{before} were there, and {:?} are", pair.names("log-"));
    pair.reopen()?;
    assert_eq!(pair.opened.durable.base, at(20, 1));
    assert_eq!(pair.opened.snapshot, Some(state(at(20, 1))));
    assert_eq!(pair.opened.durable.hard_state.voted_for, raft_core::NodeId::new(1), "written anew in each segment");
    Ok(())
}

#[test]
fn what_no_snapshot_covers_is_not_compacted() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.fill(1, 30)?;
    let names = pair.names("log-");
    pair.step(&Step::Compact(25))?;
    pair.step(&Step::Sweep)?;
    assert_eq!(pair.names("log-"), names);
    pair.step(&Step::Save(10))?;
    pair.step(&Step::Compact(25))?;
    pair.step(&Step::Sweep)?;
    assert!(pair.names("log-").len() < names.len());
    let read = pair.opened.log.read(Index::new(11), Index::new(30), u64::MAX)?;
    assert_eq!(read.len(), 20);
    assert!(pair.opened.log.read(Index::new(10), Index::new(30), u64::MAX)?.is_empty(), "that one is compacted");
    pair.reopen()
}

#[test]
fn a_snapshot_is_kept_until_the_log_no_longer_reaches_back_to_it() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.fill(1, 30)?;
    for index in [5, 10, 15] {
        pair.step(&Step::Save(index))?;
        pair.step(&Step::Sweep)?;
    }
    let name = |index: u64| format!("snapshot-{index:020}-1");
    assert_eq!(pair.names("snapshot-"), [name(10), name(15)], "one to fall back to");
    pair.step(&Step::Compact(15))?;
    pair.step(&Step::Sweep)?;
    assert_eq!(pair.names("snapshot-"), [name(15)]);
    assert_eq!(pair.opened.log.snapshots().load(at(10, 1))?, None);
    let meta = pair.reference.meta(15);
    assert_eq!(pair.opened.log.snapshots().load(at(15, 1))?, Some((meta, state(at(15, 1)))));
    Ok(())
}

#[test]
fn an_installation_replaces_the_log_and_goes_on_after_it() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.step(&Step::Write(vec![vote(1, 2, 1)]))?;
    pair.fill(1, 20)?;
    pair.step(&Step::Save(10))?;
    pair.step(&Step::Receive(at(50, 2), 9))?;
    pair.step(&Step::Install)?;
    assert_eq!((pair.opened.log.last(), pair.opened.log.snapshots().newest()), (at(50, 2), at(50, 2)));
    pair.step(&Step::Sweep)?;
    assert_eq!(pair.names("snapshot-").len() + pair.names("log-").len() + pair.names("received-").len(), 2);
    pair.reopen()?;
    pair.step(&Step::Write(vec![append(2, vec![entry(51, 2, "on")])]))?;
    pair.reopen()
}

#[test]
fn only_what_was_received_as_a_whole_is_installed() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.fill(1, 5)?;
    let mut received = pair.reference.clone();
    received.on_step(&Step::Receive(at(50, 2), 9));
    let meta = received.received.expect("it was received");
    let snapshots = pair.opened.log.snapshots();
    let short = snapshots.save_received(&meta, b"too short");
    assert!(matches!(short, Err(StorageError::SnapshotSize { found: 9, .. })), "{short:?}");
    snapshots.save_received(&meta, &state(meta.last))?;
    let other = raft_core::SnapshotMeta { bytes: 7, ..meta };
    let missing = pair.opened.log.install(&other);
    assert!(matches!(missing, Err(StorageError::NotReceived { .. })), "{missing:?}");
    // The core has forgotten its log already: this life is over, and the next one finds the old log.
    assert!(matches!(pair.opened.log.write(&[vote(9, 9, 1)]), Err(StorageError::Poisoned { .. })));
    pair.reopen()
}

#[test]
fn a_large_snapshot_comes_back_as_it_was() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.fill(1, 3)?;
    let data: Vec<u8> = (0..20_000_000_u32).map(|nth| (nth % 251) as u8).collect();
    let before = pair.disk.counts();
    let snapshots = pair.opened.log.snapshots();
    assert_eq!(snapshots.save(&pair.reference.meta(3), &data)?, 20_000_000);
    assert_eq!(pair.disk.counts().1 - before.1, 3, "a sync now and then, so that none takes long");
    let opened = reopen(&pair.disk.crash(Keep::Nothing), &SMALL)?;
    assert_eq!(opened.snapshot.as_deref(), Some(&data[..]));
    Ok(())
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_everything_as_it_was() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.fill(1, 10)?;
    pair.step(&Step::Save(3))?;
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::Other] {
        pair.disk.fail_writes(Some(kind));
        let failed = pair.opened.log.snapshots().save(&pair.reference.meta(8), b"state");
        assert!(failed.is_err());
        pair.disk.heal();
        assert_eq!(pair.names("snapshot-").len(), 1, "{:?}", pair.names("snapshot-"));
    }
    // The log has not failed, and the next snapshot may succeed.
    pair.fill(11, 12)?;
    pair.step(&Step::Save(9))?;
    pair.reopen()
}

#[test]
fn the_first_group_of_a_segment_repeats_term_and_vote_after_a_torn_one_too() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.step(&Step::Write(vec![vote(1, 1, 2)]))?;
    pair.fill(1, 9)?;
    let before = pair.reference.clone();
    let segments = pair.names("log-").len();
    // A group that does not fit behind the others, and that a crash tears.
    pair.step(&Step::Write(vec![append(10, vec![entry(10, 1, vec![7; 2_800])])]))?;
    assert_eq!(pair.names("log-").len(), segments + 1, "the test needs a new segment");
    let newest = pair.names("log-").pop().expect("there is a log");
    pair.disk = pair.disk.tampered(&newest, |bytes| bytes[1_024..1_536].fill(0));
    pair.reference = before;
    pair.reopen()?;
    pair.fill(10, 10)?;
    pair.reopen()
}
