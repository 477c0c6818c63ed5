//! The writer's second thread: snapshots beside the log, and never in its way.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use bytes::Bytes;
use raft_core::{Index, LogReadOutcome, Position, ReadId, SnapshotMeta, WriteSeq};
use raft_tokio::storage::{Completion, StorageError, Writer};

use super::memory_disk::{Keep, MemoryDisk};
use super::reference::{Reference, Step, at, state};
use super::snapshots::Pair;
use super::{SMALL, append, entry, node, reopen};

fn start(disk: &MemoryDisk) -> Result<(Writer, Receiver<Completion>), StorageError> {
    let (report, completions) = mpsc::channel();
    let log = reopen(disk, &SMALL)?.log;
    let writer = Writer::spawn(log, move |completion| drop(report.send(completion)))?;
    Ok((writer, completions))
}

/// A disk with thirty entries.
fn filled() -> Result<(MemoryDisk, Reference), StorageError> {
    let mut pair = Pair::new()?;
    pair.fill(1, 30)?;
    Ok((pair.disk, pair.reference))
}

fn received(last: Position) -> SnapshotMeta {
    let mut reference = Reference::new();
    reference.on_step(&Step::Receive(last, 9));
    reference.received.expect("it was received")
}

/// One word for each completion.
fn said(completion: Completion) -> String {
    match completion {
        Completion::Persisted { seq } => format!("persisted {seq}"),
        Completion::Read { id, outcome: LogReadOutcome::Entries(entries) } => format!("read {id}: {}", entries.len()),
        Completion::Read { id, outcome: LogReadOutcome::Damaged } => format!("read {id}: nothing"),
        Completion::SnapshotTaken { index, bytes } => format!("taken {index}: {}", bytes.is_some()),
        Completion::SnapshotReceived { last, complete } => format!("received {last}: {complete}"),
        Completion::SnapshotLoaded { to, meta, data } => {
            format!("loaded {} for {to}: {}", meta.last, data == state(meta.last) && meta.bytes == data.len() as u64)
        }
        Completion::Failed(error) => format!("failed: {error}"),
    }
}

fn next(completions: &Receiver<Completion>) -> String {
    completions.recv().map_or("nothing more".to_owned(), said)
}

#[test]
fn a_snapshot_does_not_keep_the_log_waiting() -> Result<(), StorageError> {
    let (disk, reference) = filled()?;
    let (writer, completions) = start(&disk)?;
    disk.hold_files("snapshot-");
    writer.save_snapshot(&reference.meta(20), state(at(20, 1)));
    disk.await_held();
    for seq in 1..=20 {
        writer.write(append(seq, vec![entry(30 + seq, 1, vec![0; 900])]));
        assert_eq!(next(&completions), format!("persisted {seq}"));
    }
    writer.compact(Index::new(20));
    writer.read(ReadId::new(1), Index::new(20), Index::new(21), u64::MAX);
    assert_eq!(next(&completions), "read 1: 2", "nothing is compacted that no durable snapshot covers");
    disk.release();
    assert_eq!(next(&completions), "taken 20: true");
    writer.compact(Index::new(20));
    writer.read(ReadId::new(2), Index::new(20), Index::new(21), u64::MAX);
    writer.read(ReadId::new(3), Index::new(21), Index::new(22), u64::MAX);
    assert_eq!((next(&completions), next(&completions)), ("read 2: nothing".to_owned(), "read 3: 2".to_owned()));
    writer.close();
    assert!(!disk.file_names().contains(&"log-000000000001".to_owned()), "{:?}", disk.file_names());
    assert_eq!(reopen(&disk.crash(Keep::Nothing), &SMALL)?.durable.base, at(20, 1));
    Ok(())
}

#[test]
fn a_snapshot_is_installed_in_order_with_the_writes() -> Result<(), StorageError> {
    let (disk, _) = filled()?;
    let (writer, completions) = start(&disk)?;
    let meta = received(at(50, 2));
    writer.save_received(meta.clone(), state(meta.last));
    assert_eq!(next(&completions), "received 50@2: true");
    disk.hold();
    writer.write(append(1, vec![entry(31, 1, "before")]));
    disk.await_held();
    writer.install(WriteSeq::new(2), Arc::new(meta.clone()));
    writer.write(append(3, vec![entry(51, 2, "after")]));
    assert!(completions.try_recv().is_err(), "nothing is durable yet");
    disk.release();
    let order = [(); 3].map(|()| next(&completions));
    assert_eq!(order, ["persisted 1", "persisted 2", "persisted 3"]);
    // Nothing more: reported means durable.
    let opened = reopen(&disk.crash(Keep::Nothing), &SMALL)?;
    assert_eq!((opened.durable.base, opened.durable.last), (at(50, 2), Index::new(51)));
    assert_eq!(opened.durable.snapshot, Some(meta));
    writer.close();
    Ok(())
}

#[test]
fn regress_a_newer_snapshot_that_arrives_does_not_take_away_the_one_that_is_to_be_installed() -> Result<(), StorageError>
{
    let (disk, reference) = filled()?;
    let (writer, completions) = start(&disk)?;
    let (first, second) = (received(at(50, 2)), received(at(60, 2)));
    writer.save_received(first.clone(), state(first.last));
    assert_eq!(next(&completions), "received 50@2: true");
    disk.hold_files("log-");
    writer.write(append(1, vec![entry(31, 1, "before")]));
    disk.await_held();
    writer.install(WriteSeq::new(2), Arc::new(first));
    writer.save_received(second.clone(), state(second.last));
    writer.save_snapshot(&reference.meta(20), state(at(20, 1)));
    assert_eq!(next(&completions), "taken 20: true", "the other one waits for the installation");
    disk.release();
    let order = [(); 3].map(|()| next(&completions));
    assert_eq!(order, ["persisted 1", "persisted 2", "received 60@2: true"]);
    writer.install(WriteSeq::new(3), Arc::new(second));
    assert_eq!(next(&completions), "persisted 3");
    writer.close();
    let names = disk.file_names();
    assert!(names.iter().all(|name| !name.starts_with("received-") && !name.contains("50-2")), "{names:?}");
    Ok(())
}

#[test]
fn a_failed_snapshot_is_said_and_the_log_goes_on() -> Result<(), StorageError> {
    let (disk, reference) = filled()?;
    let (writer, completions) = start(&disk)?;
    disk.fail_writes(Some(std::io::ErrorKind::StorageFull));
    writer.save_snapshot(&reference.meta(20), state(at(20, 1)));
    assert_eq!(next(&completions), "taken 20: false");
    let meta = received(at(50, 2));
    writer.save_received(meta.clone(), state(meta.last));
    assert_eq!(next(&completions), "received 50@2: false");
    writer.load_snapshot(node(2), at(20, 1));
    disk.heal();
    writer.write(append(1, vec![entry(31, 1, "on")]));
    assert_eq!(next(&completions), "persisted 1");
    writer.save_received(meta, Bytes::from_static(b"something else"));
    assert_eq!(next(&completions), "received 50@2: false", "not as long as it says");
    writer.close();
    assert_eq!(next(&completions), "nothing more");
    Ok(())
}

#[test]
fn a_snapshot_is_read_back_for_whoever_needs_it_if_it_is_still_there() -> Result<(), StorageError> {
    let (disk, reference) = filled()?;
    let (writer, completions) = start(&disk)?;
    writer.save_snapshot(&reference.meta(20), state(at(20, 1)));
    writer.load_snapshot(node(3), at(19, 1));
    writer.load_snapshot(node(2), at(20, 1));
    assert_eq!(next(&completions), "taken 20: true");
    assert_eq!(next(&completions), "loaded 20@1 for n2: true");
    disk.rot("snapshot-00000000000000000020-1", |bytes| bytes[70] ^= 1);
    writer.load_snapshot(node(2), at(20, 1));
    writer.close();
    assert_eq!(next(&completions), "nothing more", "nobody is sent what is damaged");
    Ok(())
}

#[test]
fn an_installation_of_what_is_not_there_stops_the_node_once() -> Result<(), StorageError> {
    let (disk, _) = filled()?;
    let (writer, completions) = start(&disk)?;
    writer.install(WriteSeq::new(1), Arc::new(received(at(50, 2))));
    writer.write(append(2, vec![entry(51, 2, "never")]));
    writer.install(WriteSeq::new(3), Arc::new(received(at(60, 2))));
    let failure = next(&completions);
    let expected = "failed: cannot replace the log by the snapshot memory/received-00000000000000000050-2: it was never \
                    received as a whole; the log is as it was: start the node again, and its leader will send another one";
    assert_eq!(failure, expected);
    writer.close();
    assert_eq!(next(&completions), "nothing more");
    let opened = reopen(&disk.crash(Keep::Nothing), &SMALL)?;
    assert_eq!((opened.durable.base, opened.durable.last), (Position::ZERO, Index::new(30)));
    Ok(())
}

#[test]
fn closing_finishes_a_snapshot_that_was_handed_over() -> Result<(), StorageError> {
    let (disk, reference) = filled()?;
    let (writer, completions) = start(&disk)?;
    writer.save_snapshot(&reference.meta(20), state(at(20, 1)));
    drop(writer);
    assert_eq!(next(&completions), "taken 20: true");
    let opened = reopen(&disk.crash(Keep::Nothing), &SMALL)?;
    assert_eq!(opened.durable.snapshot, Some(reference.meta(20)));
    Ok(())
}
