//! The log on a healthy disk.

use raft_core::{Boot, Durable, Entries, Index, Payload, Position, Term, TermRun};
use raft_tokio::storage::{self, Options, StorageError, Write};

use super::{SMALL, all, append, birth, entries, entry, expected, formatted, node, reopen, vote};

#[test]
fn what_was_written_is_there_after_reopening() -> Result<(), StorageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("n1");
    storage::format(&dir, &birth())?;

    let mut opened = storage::open(&dir, &expected(), &Options::DEFAULT)?;
    let Durable { identity, hard_state, last, .. } = &opened.durable;
    assert_eq!((identity.boot, hard_state.term, *last), (Boot::new(1), Term::ZERO, Index::ZERO));
    let blank = raft_core::Entry { term: Term::new(2), index: Index::new(1), payload: Payload::Blank };
    opened.log.write(&[vote(1, 2, 1), append(2, vec![blank.clone(), entry(2, 2, "two")])])?;
    opened.log.write(&[append(3, vec![entry(3, 3, "")]), vote(4, 3, 0)])?;
    opened.log.close()?;

    let opened = storage::open(&dir, &expected(), &Options::DEFAULT)?;
    let written = entries(vec![blank, entry(2, 2, "two"), entry(3, 3, "")]);
    let runs = [(1, 2), (3, 3)].map(|(first, term)| TermRun { first: Index::new(first), term: Term::new(term) });
    assert_eq!(
        opened.durable,
        Durable {
            identity: raft_core::Identity { boot: Boot::new(2), ..*identity },
            hard_state: raft_core::HardState { term: Term::new(3), voted_for: None, floor: None },
            base: Position::ZERO,
            snapshot: None,
            configuration: raft_core::Configuration { index: Index::ZERO, membership: birth().membership.into() },
            configurations: Vec::new(),
            applied: Index::ZERO,
            last: Index::new(3),
            runs: runs.to_vec(),
            bytes: written.cost(),
            tail: written.clone(),
        }
    );
    assert_eq!(all(&opened)?, written);
    Ok(())
}

#[test]
fn every_opening_is_another_life() -> Result<(), StorageError> {
    let disk = formatted();
    for boot in 1..=5 {
        assert_eq!(reopen(&disk, &SMALL)?.durable.identity.boot, Boot::new(boot));
    }
    Ok(())
}

#[test]
fn entries_replace_the_suffix_from_their_first_index_on() -> Result<(), StorageError> {
    let disk = formatted();
    let mut opened = reopen(&disk, &SMALL)?;
    opened.log.write(&[append(1, (1..=10).map(|index| entry(index, 1, "old")).collect())])?;
    opened.log.write(&[append(2, vec![entry(4, 2, "new"), entry(5, 2, "new")])])?;
    opened.log.write(&[append(3, vec![entry(6, 2, "newer")])])?;
    let mut wanted: Vec<_> = (1..=3).map(|index| entry(index, 1, "old")).collect();
    wanted.extend([entry(4, 2, "new"), entry(5, 2, "new"), entry(6, 2, "newer")]);
    let wanted = entries(wanted);
    assert_eq!(opened.log.read(Index::new(1), Index::new(10), u64::MAX)?, wanted);
    drop(opened);
    let opened = reopen(&disk, &SMALL)?;
    assert_eq!((all(&opened)?, &opened.durable.tail), (wanted.clone(), &wanted));
    Ok(())
}

#[test]
fn writes_of_one_group_replace_each_other_before_they_are_written() -> Result<(), StorageError> {
    let disk = formatted();
    let mut opened = reopen(&disk, &SMALL)?;
    opened.log.write(&[append(1, vec![entry(1, 1, "a"), entry(2, 1, "b")])])?;
    let before = disk.counts();
    opened.log.write(&[
        append(2, vec![entry(3, 1, "c"), entry(4, 1, "d")]),
        vote(3, 2, 1),
        append(4, vec![entry(4, 2, "e")]),
        vote(5, 3, 2),
        append(6, vec![entry(2, 3, "f")]),
    ])?;
    let after = disk.counts();
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1), "one write, one sync");
    drop(opened);
    let opened = reopen(&disk, &SMALL)?;
    assert_eq!(all(&opened)?, entries(vec![entry(1, 1, "a"), entry(2, 3, "f")]));
    assert_eq!(opened.durable.hard_state.voted_for, Some(node(2)));
    Ok(())
}

#[test]
fn a_write_that_does_not_follow_is_refused() -> Result<(), StorageError> {
    let gaps: [&[Write]; 4] = [
        &[append(1, vec![entry(3, 5, "")])],
        &[append(1, vec![entry(2, 4, "")])],
        &[append(1, vec![entry(2, 5, "")]), append(2, vec![entry(4, 5, "")])],
        &[append(1, vec![entry(2, 6, "")]), append(2, vec![entry(3, 5, "")])],
    ];
    for gap in gaps {
        let mut opened = reopen(&formatted(), &SMALL)?;
        opened.log.write(&[append(1, vec![entry(1, 5, "")])])?;
        assert!(matches!(opened.log.write(gap), Err(StorageError::OutOfOrder { .. })), "{gap:?}");
    }
    Ok(())
}

#[test]
fn segments_follow_each_other_and_old_entries_are_read_from_them() -> Result<(), StorageError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("n1");
    storage::format(&dir, &birth())?;
    let options = Options { tail_bytes: 10_000, segment_bytes: 16 << 10, prepare_ahead: true };
    let mut opened = storage::open(&dir, &expected(), &options)?;
    let command = |index: u64| vec![index as u8; (index * 7 % 900) as usize];
    // The first segment has 64 KiB; this fills it and a hundred small ones.
    for index in 1..=6_000 {
        opened.log.write(&[append(index, vec![entry(index, 1 + index / 500, command(index))])])?;
    }
    drop(opened);
    let names = std::fs::read_dir(&dir).expect("the directory is there").count();
    assert!(names > 60, "{names} files");

    let mut opened = storage::open(&dir, &expected(), &options)?;
    assert_eq!(opened.durable.last, Index::new(6_000));
    assert!(opened.durable.tail.cost() <= 10_000 && opened.durable.tail.cost() > 8_000);
    assert_eq!(opened.durable.tail.last().map(|entry| entry.index), Some(Index::new(6_000)));
    for index in (1..=6_000).step_by(97).chain([6_000]) {
        let read = opened.log.read(Index::new(index), Index::new(index + 3), u64::MAX)?;
        let wanted: Vec<_> =
            (index..=(index + 3).min(6_000)).map(|index| entry(index, 1 + index / 500, command(index))).collect();
        assert_eq!(read, entries(wanted));
    }
    opened.log.write(&[append(1, vec![entry(6_001, 99, "on")])])?;
    assert_eq!(all(&opened)?.len(), 6_000);
    Ok(())
}

#[test]
fn a_group_larger_than_a_segment_gets_a_segment_of_its_own() -> Result<(), StorageError> {
    let disk = formatted();
    let mut opened = reopen(&disk, &SMALL)?;
    opened.log.write(&[append(1, vec![entry(1, 1, vec![1; 2_000_000])])])?;
    opened.log.write(&[append(2, vec![entry(2, 1, vec![2; 5_000])])])?;
    opened.log.write(&[append(3, vec![entry(3, 1, vec![3; 300])])])?;
    drop(opened);
    let opened = reopen(&disk, &SMALL)?;
    let lengths: Vec<_> = all(&opened)?.iter().map(|entry| entry.cost() - raft_core::Entry::OVERHEAD).collect();
    assert_eq!(lengths, [2_000_000, 5_000, 300]);
    Ok(())
}

#[test]
fn a_read_stops_before_its_limit_but_gives_at_least_one_entry() -> Result<(), StorageError> {
    let mut opened = reopen(&formatted(), &SMALL)?;
    opened.log.write(&[append(1, (1..=9).map(|index| entry(index, 1, vec![0; 68])).collect())])?;
    let count = |from, through, limit| {
        let read = opened.log.read(Index::new(from), Index::new(through), limit)?;
        Ok::<_, StorageError>(read.len())
    };
    assert_eq!(count(2, 9, 0)?, 1);
    assert_eq!(count(2, 9, 299)?, 2);
    assert_eq!(count(2, 9, 300)?, 3);
    assert_eq!(count(2, 4, u64::MAX)?, 3);
    assert_eq!(count(8, 100, u64::MAX)?, 2);
    assert_eq!(count(10, 12, u64::MAX)?, 0);
    Ok(())
}

#[test]
fn an_entry_read_back_keeps_nothing_but_itself_in_memory() -> Result<(), StorageError> {
    let disk = formatted();
    let mut opened = reopen(&disk, &SMALL)?;
    opened.log.write(&[append(1, (1..=50).map(|index| entry(index, 1, vec![7; 100])).collect())])?;
    drop(opened);
    let opened = reopen(&disk, &SMALL)?;
    for entries in [&opened.durable.tail, &all(&opened)?] {
        for entry in entries.iter() {
            let Payload::Command(command) = &entry.payload else { continue };
            assert!(command.is_unique(), "the buffer of {} is shared", entry.position());
        }
    }
    Ok(())
}

#[test]
fn the_tail_is_given_in_batches_that_a_cache_can_evict() -> Result<(), StorageError> {
    let disk = formatted();
    let mut opened = reopen(&disk, &SMALL)?;
    for index in 1..=500 {
        opened.log.write(&[append(index, vec![entry(index, 1, vec![7; 1_000])])])?;
    }
    drop(opened);
    let opened = reopen(&disk, &SMALL)?;
    let largest = opened.durable.tail.batches().map(<[_]>::len).max();
    assert!(opened.durable.tail.len() == 500 && largest < Some(100), "{largest:?}");
    Ok(())
}

#[test]
fn nothing_to_write_costs_nothing() -> Result<(), StorageError> {
    let disk = formatted();
    let mut opened = reopen(&disk, &SMALL)?;
    let before = disk.counts();
    let nothing = Write { seq: raft_core::WriteSeq::new(1), hard_state: None, entries: Entries::EMPTY };
    opened.log.write(&[])?;
    opened.log.write(&[nothing])?;
    assert_eq!(disk.counts(), before);
    Ok(())
}
