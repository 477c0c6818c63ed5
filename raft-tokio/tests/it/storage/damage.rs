//! Rot, lost and misdirected writes, missing and foreign files: never wrong data, never a silent cut.

use raft_core::{Entries, HardState, Index, StoreId};
use raft_tokio::storage::{self, Birth, Opened, StorageError, Write};

use super::memory_disk::{Keep, MemoryDisk};
use super::{SMALL, all, append, birth, entry, formatted, reopen, vote};

const FIRST: &str = "log-000000000001";
const SECTOR: usize = 512;

/// Writes one group with each of these; returns how many bytes of it mean something.
fn written(opened: &mut Opened, group: &[Write]) -> Result<usize, StorageError> {
    opened.log.write(group)?;
    let votes = group.iter().filter(|write| write.hard_state.is_some()).count().min(1);
    let entries: u64 =
        group.iter().map(|write| write.entries.iter().map(|entry| 25 + entry.cost() - 32).sum::<u64>()).sum();
    let content = 20 + 25 * votes + usize::try_from(entries).expect("the test's groups are small");
    Ok(content + 4 * content.div_ceil(SECTOR - 4))
}

fn first_groups() -> Vec<Vec<Write>> {
    vec![
        vec![vote(1, 1, 1), append(2, vec![entry(1, 1, "one"), entry(2, 1, vec![0; 700])])],
        vec![append(3, vec![entry(3, 1, ""), entry(4, 1, "four")])],
        vec![append(4, vec![entry(3, 2, "three")]), vote(5, 2, 2)],
        vec![vote(6, 3, 0)],
        vec![append(7, vec![entry(4, 3, vec![0xff; 500]), entry(5, 3, "five")])],
    ]
}

/// A disk with a few groups in one segment, what it holds, and how many bytes of the groups mean something.
fn small() -> Result<(MemoryDisk, Opened, usize), StorageError> {
    let disk = formatted();
    let mut opened = reopen(&disk, &SMALL)?;
    let mut meaningful = 0;
    for group in first_groups() {
        meaningful += written(&mut opened, &group)?;
    }
    Ok((disk, opened, meaningful))
}

fn held(opened: &Opened) -> (HardState, Entries) {
    (opened.durable.hard_state, all(opened).expect("what was accepted can be read"))
}

/// Where the groups lie: behind the header, up to the first blank sector.
fn groups(disk: &MemoryDisk) -> std::ops::Range<usize> {
    let bytes = disk.bytes(FIRST);
    let sectors = bytes.chunks(SECTOR).skip(1).take_while(|sector| sector.iter().any(|byte| *byte != 0)).count();
    SECTOR..SECTOR * (1 + sectors)
}

#[test]
fn a_flip_of_any_byte_of_a_log_is_refused_or_means_nothing() -> Result<(), StorageError> {
    for closed in [false, true] {
        let (disk, opened, meaningful) = small()?;
        if closed {
            opened.log.close()?;
        } else {
            drop(opened);
        }
        let truth = held(&reopen(&disk.crash(Keep::Nothing), &SMALL)?);
        for all_bits in [true, false] {
            let mut refused = 0;
            for at in groups(&disk) {
                let mask = if all_bits { 0xff } else { 1 << (at % 8) };
                match reopen(&disk.tampered(FIRST, |bytes| bytes[at] ^= mask), &SMALL) {
                    Err(StorageError::Damaged { offset, .. }) => {
                        assert!(offset <= at as u64 && at as u64 - offset < 2_000, "{at} reported at {offset}");
                        refused += 1;
                    }
                    Err(error) => panic!("byte {at} gave {error}"),
                    Ok(opened) => assert_eq!(held(&opened), truth, "byte {at}"),
                }
            }
            // Whatever is not refused is padding, which means nothing: here even the end of the log,
            // which nothing follows, is not taken for a torn write.
            assert_eq!(refused, meaningful, "closed in good order: {closed}, all bits: {all_bits}");
        }
    }
    Ok(())
}

#[test]
fn a_flip_in_a_segments_header_is_refused() -> Result<(), StorageError> {
    let (disk, opened, _) = small()?;
    drop(opened);
    for at in 0..48 {
        let tampered = disk.tampered(FIRST, |bytes| bytes[at] ^= 0x10);
        match reopen(&tampered, &SMALL) {
            Err(StorageError::Damaged { offset: 0, .. } | StorageError::UnknownVersion { .. }) => {}
            other => panic!("byte {at} gave {other:?}"),
        }
    }
    Ok(())
}

#[test]
fn a_flip_in_unused_space_changes_nothing() -> Result<(), StorageError> {
    let (disk, opened, _) = small()?;
    drop(opened);
    let truth = held(&reopen(&disk.crash(Keep::Nothing), &SMALL)?);
    let end = groups(&disk).end;
    for at in (48..SECTOR).chain((end..end + 4 * SECTOR).step_by(7)).chain([disk.bytes(FIRST).len() - 1]) {
        // A flip where a stamp would be looks like something; refusing it is safe.
        if let Ok(opened) = reopen(&disk.tampered(FIRST, |bytes| bytes[at] ^= 0xff), &SMALL) {
            assert_eq!(held(&opened), truth, "byte {at}");
        }
    }
    Ok(())
}

#[test]
fn a_flip_in_the_anchor_costs_nothing_but_a_boot_number() -> Result<(), StorageError> {
    for closed in [false, true] {
        let (disk, opened, _) = small()?;
        let before = opened.durable.identity.boot;
        if closed {
            opened.log.close()?;
        } else {
            drop(opened);
        }
        let truth = held(&reopen(&disk.crash(Keep::Nothing), &SMALL)?);
        for at in (0..36).chain(4096..4096 + 36) {
            let opened = reopen(&disk.tampered("anchor", |bytes| bytes[at] ^= 0x01), &SMALL)?;
            assert_eq!(held(&opened), truth);
            assert!(opened.durable.identity.boot > before, "byte {at}, closed in good order: {closed}");
        }
        let both = disk.tampered("anchor", |bytes| bytes.fill(0));
        assert!(matches!(reopen(&both, &SMALL), Err(StorageError::Damaged { .. })));
    }
    Ok(())
}

#[test]
fn a_flip_in_the_identity_is_refused() {
    let disk = formatted();
    for at in 0..disk.bytes("identity").len() {
        let tampered = disk.tampered("identity", |bytes| bytes[at] ^= 0x01);
        match reopen(&tampered, &SMALL) {
            Err(StorageError::Damaged { .. } | StorageError::UnknownVersion { .. }) => {}
            other => panic!("byte {at} gave {other:?}"),
        }
    }
}

#[test]
fn a_zeroed_or_misplaced_sector_is_refused() -> Result<(), StorageError> {
    let (disk, opened, _) = small()?;
    opened.log.close()?;
    let sectors: Vec<usize> = groups(&disk).step_by(SECTOR).collect();
    for &at in &sectors {
        let zeroed = disk.tampered(FIRST, |bytes| bytes[at..at + SECTOR].fill(0));
        assert!(matches!(reopen(&zeroed, &SMALL), Err(StorageError::Damaged { .. })), "zeroed at {at}");
        for &from in sectors.iter().filter(|from| **from != at) {
            let misplaced = disk.tampered(FIRST, |bytes| bytes.copy_within(from..from + SECTOR, at));
            assert!(matches!(reopen(&misplaced, &SMALL), Err(StorageError::Damaged { .. })), "{from} to {at}");
        }
    }
    Ok(())
}

#[test]
fn a_zeroed_sector_before_the_last_group_is_refused_after_a_crash_too() -> Result<(), StorageError> {
    let (disk, opened, _) = small()?;
    drop(opened);
    let groups = groups(&disk);
    // The last group has two sectors.
    for at in (groups.start..groups.end - 2 * SECTOR).step_by(SECTOR) {
        let zeroed = disk.tampered(FIRST, |bytes| bytes[at..at + SECTOR].fill(0));
        assert!(matches!(reopen(&zeroed, &SMALL), Err(StorageError::Damaged { .. })), "zeroed at {at}");
    }
    Ok(())
}

/// A log of several segments, closed in good order.
fn large() -> Result<MemoryDisk, StorageError> {
    let (disk, mut opened, _) = small()?;
    opened.log.write(&[append(8, vec![entry(6, 3, vec![6; 60_000])])])?;
    for index in 7..30 {
        opened.log.write(&[append(index, vec![entry(index, 3, vec![7; 900])])])?;
    }
    opened.log.close()?;
    Ok(disk)
}

#[test]
fn an_incomplete_group_before_a_torn_segment_is_refused_even_without_an_anchor() -> Result<(), StorageError> {
    let (disk, mut opened, _) = small()?;
    opened.log.write(&[append(8, vec![entry(6, 3, vec![6; 60_000])])])?;
    let end = groups(&disk).end;
    opened.log.write(&[append(9, vec![entry(7, 3, vec![7; 3_000])])])?;
    drop(opened);
    let second = "log-000000000002";
    // Its first sector is missing, so that it does not say which group it should follow.
    let torn = disk.tampered(second, |bytes| bytes[SECTOR..2 * SECTOR].fill(0));
    assert_eq!(reopen(&torn.crash(Keep::Nothing), &SMALL)?.durable.last, Index::new(6), "a torn group alone is cut");
    // Without the slot that the new segment was noted in, only the segments can tell.
    let both = torn
        .tampered("anchor", |bytes| bytes[4096..].fill(0))
        .tampered(FIRST, |bytes| bytes[end - SECTOR..end].fill(0));
    match reopen(&both, &SMALL) {
        Err(StorageError::Damaged { path, .. }) => assert!(path.ends_with(FIRST), "{}", path.display()),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn a_missing_or_truncated_file_is_named() -> Result<(), StorageError> {
    let disk = large()?;
    let names = disk.file_names();
    assert!(names.len() > 6, "{names:?}");
    for name in &names {
        let Err(error) = reopen(&disk.without(name), &SMALL) else { panic!("without {name} it opens") };
        assert!(error.to_string().contains(name), "{name}: {error}");
        let Err(error) = reopen(&disk.tampered(name, Vec::clear), &SMALL) else { panic!("empty {name} opens") };
        assert!(error.to_string().contains(name), "{name}: {error}");
        if name.starts_with("log-") {
            let truncated = disk.tampered(name, |bytes| bytes.truncate(2 * SECTOR));
            let Err(error) = reopen(&truncated, &SMALL) else { panic!("{name} cut short opens") };
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
    }
    Ok(())
}

#[test]
fn regress_a_segment_that_was_cut_short_is_named_and_not_the_one_after_it() -> Result<(), StorageError> {
    let disk = large()?;
    for name in ["log-000000000001", "log-000000000002"] {
        // In the middle of a group, and where one ends.
        for sectors in 1..4 {
            let truncated = disk.tampered(name, |bytes| bytes.truncate(sectors * SECTOR));
            match reopen(&truncated, &SMALL) {
                Err(error @ StorageError::Damaged { .. }) => {
                    assert!(error.to_string().contains(name), "{name}, {sectors} sectors: {error}");
                }
                other => panic!("{name}, {sectors} sectors: {other:?}"),
            }
        }
    }
    Ok(())
}

#[test]
fn regress_bytes_beyond_a_segments_end_are_not_passed_over() -> Result<(), StorageError> {
    let disk = large()?;
    for name in ["log-000000000001", "log-000000000002"] {
        for stray in [&[0_u8][..], b"something else"] {
            let full = disk.bytes(name).len();
            match reopen(&disk.tampered(name, |bytes| bytes.extend_from_slice(stray)), &SMALL) {
                Err(StorageError::Damaged { path, offset, found }) => {
                    assert!(path.ends_with(name) && offset == full as u64, "{}, {offset}", path.display());
                    assert_eq!(found, format!("{} bytes beyond its end", stray.len()));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    Ok(())
}

#[test]
fn files_of_another_store_place_or_time_are_refused() -> Result<(), StorageError> {
    let disk = large()?;
    let other = MemoryDisk::new();
    storage::format_on(&other, &Birth { store: StoreId::new(0x99), ..birth() })?;
    let mut opened = reopen(&other, &SMALL)?;
    for group in first_groups() {
        opened.log.write(&group)?;
    }
    drop(opened);
    let (earlier, opened, _) = small()?;
    opened.log.close()?;
    let second = disk.bytes("log-000000000002");
    for (whose, file, bytes) in [
        ("another store's", FIRST, other.bytes(FIRST)),
        ("another store's", "anchor", other.bytes("anchor")),
        ("another segment's", FIRST, second.clone()),
        ("another segment's", "log-000000000003", second),
        ("an earlier", FIRST, earlier.bytes(FIRST)),
    ] {
        let mixed = disk.tampered(file, |content| *content = bytes);
        assert!(matches!(reopen(&mixed, &SMALL), Err(StorageError::Damaged { .. })), "{whose} {file}");
    }
    Ok(())
}

#[test]
fn damage_that_appears_while_running_is_found_by_the_read() -> Result<(), StorageError> {
    let (disk, opened, _) = small()?;
    let truth = all(&opened).map(|entries| entries.len());
    assert!(matches!(truth, Ok(0)), "nothing was there at the opening");
    let read = |opened: &Opened| opened.log.read(Index::new(1), Index::new(5), u64::MAX);
    assert_eq!(read(&opened)?.len(), 5);
    disk.rot(FIRST, |bytes| bytes[SECTOR + 100] ^= 0x40);
    assert!(matches!(read(&opened), Err(StorageError::Damaged { .. })));
    assert_eq!(opened.log.read(Index::new(4), Index::new(5), u64::MAX)?.len(), 2, "the rest can still be read");
    Ok(())
}

#[test]
fn a_stale_group_with_a_right_checksum_is_found_by_the_read() -> Result<(), StorageError> {
    let (disk, opened, _) = small()?;
    drop(opened);
    // Two futures of one disk: at the same place, one wrote another entry than the other.
    let (disk, other) = (disk.crash(Keep::Nothing), disk.crash(Keep::Nothing));
    let mut opened = reopen(&disk, &SMALL)?;
    opened.log.write(&[append(8, vec![entry(6, 4, "this")])])?;
    reopen(&other, &SMALL)?.log.write(&[append(8, vec![entry(6, 3, "that")])])?;
    disk.rot(FIRST, |bytes| *bytes = other.bytes(FIRST));
    assert!(matches!(opened.log.read(Index::new(6), Index::new(6), u64::MAX), Err(StorageError::Damaged { .. })));
    Ok(())
}

#[test]
fn a_vote_lost_at_the_end_of_a_segment_is_missed() -> Result<(), StorageError> {
    let (disk, mut opened, _) = small()?;
    opened.log.write(&[vote(8, 9, 2)])?;
    let end = groups(&disk).end;
    opened.log.write(&[append(9, vec![entry(6, 9, vec![6; 70_000])])])?;
    drop(opened);
    assert!(reopen(&disk.crash(Keep::Nothing), &SMALL).is_ok());
    let lost = disk.tampered(FIRST, |bytes| bytes[end - SECTOR..end].fill(0));
    match reopen(&lost, &SMALL) {
        Err(StorageError::Damaged { found, .. }) => assert!(found.contains("does not follow on"), "{found}"),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn what_is_found_is_said_with_file_and_offset_and_what_to_do() -> Result<(), StorageError> {
    let (disk, opened, _) = small()?;
    drop(opened);
    let Err(error) = reopen(&disk.tampered(FIRST, |bytes| bytes[SECTOR + 30] ^= 1), &SMALL) else {
        panic!("a damaged log opens")
    };
    assert_eq!(
        error.to_string(),
        "memory/log-000000000001 is damaged at byte 512: a group with a record whose checksum is wrong; nothing was \
         changed; this node must not run with a part of what it promised missing: keep the directory, check the \
         disk, and replace the node by a new member"
    );
    Ok(())
}
