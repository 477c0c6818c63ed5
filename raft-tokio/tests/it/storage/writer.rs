//! The writer thread: group commit, order, failure, closing.

use std::io;
use std::sync::mpsc::{self, Receiver};

use raft_core::{Index, LogReadOutcome, ReadId, WriteSeq};
use raft_tokio::storage::{Completion, StorageError, Writer};

use super::memory_disk::{Keep, MemoryDisk};
use super::{SMALL, append, entries, entry, formatted, reopen, vote};

fn writer(disk: &MemoryDisk) -> Result<(Writer, Receiver<Completion>), StorageError> {
    let (report, completions) = mpsc::channel();
    let log = reopen(disk, &SMALL)?.log;
    // A test that has seen enough stops listening.
    let writer = Writer::spawn(log, move |completion| drop(report.send(completion)))?;
    Ok((writer, completions))
}

fn persisted(completions: &Receiver<Completion>) -> u64 {
    match completions.recv() {
        Ok(Completion::Persisted { seq }) => seq.as_u64(),
        other => panic!("{other:?} instead of a durable write"),
    }
}

#[test]
fn everything_that_waits_shares_one_write_and_one_sync() -> Result<(), StorageError> {
    let disk = formatted();
    let (writer, completions) = writer(&disk)?;
    let before = disk.counts();
    disk.hold();
    writer.write(vote(1, 1, 1));
    disk.await_held();
    for seq in 2..=100 {
        writer.write(append(seq, vec![entry(seq - 1, 1, "value")]));
    }
    writer.write(vote(101, 2, 2));
    disk.release();
    assert_eq!((persisted(&completions), persisted(&completions)), (1, 101));
    let after = disk.counts();
    assert_eq!((after.0 - before.0, after.1 - before.1), (2, 2));
    // Nothing more: reported means durable, whatever a crash takes.
    let opened = reopen(&disk.crash(Keep::Nothing), &SMALL)?;
    assert_eq!((opened.durable.last, opened.durable.hard_state.term.as_u64()), (Index::new(99), 2));
    writer.close();
    Ok(())
}

#[test]
fn nothing_is_reported_before_it_is_durable() -> Result<(), StorageError> {
    let disk = formatted();
    let (writer, completions) = writer(&disk)?;
    disk.hold();
    writer.write(append(1, vec![entry(1, 1, "value")]));
    disk.await_held();
    assert!(matches!(completions.try_recv(), Err(mpsc::TryRecvError::Empty)));
    assert_eq!(reopen(&disk.crash(Keep::Nothing), &SMALL).map(|opened| opened.durable.last)?, Index::ZERO);
    disk.release();
    assert_eq!(persisted(&completions), 1);
    Ok(())
}

#[test]
fn a_read_sees_the_writes_before_it() -> Result<(), StorageError> {
    let disk = formatted();
    let (writer, completions) = writer(&disk)?;
    disk.hold();
    writer.write(append(1, vec![entry(1, 1, "a"), entry(2, 1, "b")]));
    disk.await_held();
    writer.write(append(2, vec![entry(2, 2, "c"), entry(3, 2, "d")]));
    writer.read(ReadId::new(5), Index::new(1), Index::new(2), u64::MAX);
    writer.write(append(3, vec![entry(2, 3, "e")]));
    writer.read(ReadId::new(6), Index::new(3), Index::new(3), u64::MAX);
    disk.release();
    assert_eq!((persisted(&completions), persisted(&completions)), (1, 2));
    match completions.recv() {
        Ok(Completion::Read { id, outcome: LogReadOutcome::Entries(found) }) => {
            assert_eq!((id, found), (ReadId::new(5), entries(vec![entry(1, 1, "a"), entry(2, 2, "c")])));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(persisted(&completions), 3);
    // Entry 3 is gone by now: there is nothing to give.
    assert!(matches!(
        completions.recv(),
        Ok(Completion::Read { id, outcome: LogReadOutcome::Damaged }) if id == ReadId::new(6)
    ));
    Ok(())
}

#[test]
fn a_failed_sync_is_final_and_reported_once() -> Result<(), StorageError> {
    let disk = formatted();
    let (writer, completions) = writer(&disk)?;
    writer.write(append(1, vec![entry(1, 1, "kept")]));
    assert_eq!(persisted(&completions), 1);
    disk.fail_syncs();
    writer.write(append(2, vec![entry(2, 1, "lost")]));
    match completions.recv() {
        Ok(Completion::Failed(error @ StorageError::Io { action: "sync", .. })) => {
            assert!(error.to_string().contains("log-000000000001"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // The disk claims to be well again. That proves nothing about what it lost.
    disk.heal();
    let before = disk.counts();
    writer.write(append(3, vec![entry(2, 1, "later")]));
    writer.read(ReadId::new(1), Index::new(1), Index::new(9), u64::MAX);
    match completions.recv() {
        Ok(Completion::Read { outcome: LogReadOutcome::Entries(found), .. }) => {
            assert_eq!(found, entries(vec![entry(1, 1, "kept")]));
        }
        other => panic!("{other:?}"),
    }
    writer.close();
    assert!(completions.recv().is_err(), "nothing more is reported");
    assert_eq!(disk.counts(), before, "nothing more is written");
    Ok(())
}

#[test]
fn regress_a_panic_on_the_thread_is_reported_as_a_failure() -> Result<(), StorageError> {
    let disk = formatted();
    let (report, completions) = mpsc::channel();
    let mut reported = 0;
    let writer = Writer::spawn(reopen(&disk, &SMALL)?.log, move |completion| {
        reported += 1;
        assert!(reported != 2, "a bug of the log's own");
        drop(report.send(completion));
    })?;
    writer.write(append(1, vec![entry(1, 1, "kept")]));
    assert_eq!(persisted(&completions), 1);
    writer.write(append(2, vec![entry(2, 1, "nobody will know")]));
    match completions.recv() {
        Ok(Completion::Failed(StorageError::Panicked { reason, .. })) => assert_eq!(reason, "a bug of the log's own"),
        other => panic!("{other:?}"),
    }
    // Whoever goes on writing is not told a second time, nor kept waiting.
    writer.write(append(3, vec![entry(3, 1, "never")]));
    writer.close();
    assert!(completions.recv().is_err(), "nothing more is reported");
    Ok(())
}

#[test]
fn a_log_that_has_failed_takes_no_more_writes() -> Result<(), StorageError> {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let disk = formatted();
        let mut log = reopen(&disk, &SMALL)?.log;
        log.write(&[append(1, vec![entry(1, 1, "kept")])])?;
        disk.fail_writes(Some(kind));
        let error = log.write(&[append(2, vec![entry(2, 1, "lost")])]).expect_err("the disk fails");
        let full = matches!(error, StorageError::Full { .. });
        assert_eq!(full, kind == io::ErrorKind::StorageFull, "{error}");
        disk.heal();
        for _ in 0..2 {
            assert!(matches!(log.write(&[vote(3, 2, 1)]), Err(StorageError::Poisoned { .. })));
        }
        assert!(matches!(log.close(), Err(StorageError::Poisoned { .. })));
        assert_eq!(reopen(&disk.crash(Keep::Nothing), &SMALL)?.durable.last, Index::new(1));
    }
    Ok(())
}

#[test]
fn closing_finishes_what_was_handed_over() -> Result<(), StorageError> {
    for orderly in [true, false] {
        let disk = formatted();
        let (writer, completions) = writer(&disk)?;
        for seq in 1..=50 {
            writer.write(append(seq, vec![entry(seq, 1, vec![1; 300])]));
        }
        if orderly {
            writer.close();
        } else {
            drop(writer);
        }
        let newest = completions.iter().map(|completion| match completion {
            Completion::Persisted { seq } => seq,
            other => panic!("{other:?}"),
        });
        assert_eq!(newest.last(), Some(WriteSeq::new(50)));
        assert_eq!(reopen(&disk.crash(Keep::Nothing), &SMALL)?.durable.last, Index::new(50));
    }
    Ok(())
}
