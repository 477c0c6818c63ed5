//! Rot, lost, exchanged and foreign snapshots: an older one if the log reaches back to it, else a
//! refusal that names the file; never another state, never an empty one.

use raft_core::{ClusterId, Position, StoreId};
use raft_tokio::storage::{self, Birth, Expected, Opened, StorageError};

use super::memory_disk::{Keep, MemoryDisk};
use super::reference::{Step, at, state};
use super::snapshots::Pair;
use super::{SMALL, birth, expected, formatted, node, reopen};

const OLDER: &str = "snapshot-00000000000000000010-1";
const NEWER: &str = "snapshot-00000000000000000020-1";

/// Two snapshots; the log reaches back to 1, to the older one, or only to the newer one.
fn two(compacted: u64) -> Result<MemoryDisk, StorageError> {
    let mut pair = Pair::new()?;
    pair.fill(1, 30)?;
    for step in
        [Step::Save(10), Step::Compact(compacted.min(10)), Step::Save(20), Step::Compact(compacted), Step::Sweep]
    {
        pair.step(&step)?;
    }
    pair.reopen()?;
    Ok(pair.disk)
}

/// What must hold of whatever opens: the entries are all there that the snapshot does not cover.
fn check(opened: &Opened, case: &str) {
    let last = opened.durable.snapshot.as_ref().map(|meta| meta.last);
    assert_eq!(opened.snapshot, last.map(state), "{case}");
    assert!(last.unwrap_or_default() >= opened.durable.base, "{case}");
    assert_eq!(opened.durable.last_position(), at(30, 1), "{case}");
    let held = super::all(opened).expect("what was accepted can be read");
    assert_eq!(held.len() as u64, 30 - opened.durable.base.index.as_u64(), "{case}");
}

#[test]
fn a_flip_of_any_byte_of_the_newest_snapshot_makes_the_older_one_count() -> Result<(), StorageError> {
    for (compacted, base) in [(0, Position::ZERO), (10, at(10, 1))] {
        let disk = two(compacted)?;
        check(&reopen(&disk.crash(Keep::Nothing), &SMALL)?, "as it was");
        for flip in 0..disk.bytes(NEWER).len() {
            let case = format!("byte {flip}, compacted through {compacted}");
            match reopen(&disk.tampered(NEWER, |bytes| bytes[flip] ^= 0x04), &SMALL) {
                Ok(opened) => {
                    check(&opened, &case);
                    assert_eq!(opened.durable.snapshot.as_ref().map(|meta| meta.last), Some(at(10, 1)), "{case}");
                    assert_eq!(opened.durable.base, base, "{case}");
                }
                Err(StorageError::UnknownVersion { path, .. }) => {
                    assert!((8..12).contains(&flip) && path.ends_with(NEWER), "{case}");
                }
                Err(error) => panic!("{case}: {error}"),
            }
        }
    }
    Ok(())
}

#[test]
fn without_a_snapshot_that_the_log_reaches_back_to_the_store_is_refused() -> Result<(), StorageError> {
    let disk = two(20)?;
    assert!(!disk.file_names().contains(&OLDER.to_owned()));
    for (case, broken) in [
        ("flipped", disk.tampered(NEWER, |bytes| bytes[60] ^= 1)),
        ("rotten state", disk.tampered(NEWER, |bytes| *bytes.last_mut().expect("it has bytes") ^= 1)),
        ("cut short", disk.tampered(NEWER, |bytes| bytes.truncate(bytes.len() - 1))),
        ("longer", disk.tampered(NEWER, |bytes| bytes.push(0))),
        ("empty", disk.tampered(NEWER, Vec::clear)),
        ("zeroed", disk.tampered(NEWER, |bytes| bytes.fill(0))),
    ] {
        let refused = reopen(&broken, &SMALL);
        assert!(matches!(refused, Err(StorageError::NoSnapshot { .. })), "{case}: {refused:?}");
        let Err(error) = refused else { continue };
        assert!(error.to_string().contains(NEWER), "{case}: {error}");
        // Whoever looks at it later finds what there was.
        assert_eq!(broken.crash(Keep::Nothing).bytes(NEWER), broken.bytes(NEWER));
    }
    let Err(error) = reopen(&disk.without(NEWER), &SMALL) else { panic!("without its snapshot it opens") };
    let said = "no snapshot that reaches from there can be read: there is none";
    assert!(matches!(error, StorageError::NoSnapshot { .. }) && error.to_string().contains(said), "{error}");
    Ok(())
}

#[test]
fn without_any_snapshot_a_log_from_the_beginning_is_applied_from_there() -> Result<(), StorageError> {
    let disk = two(0)?.without(NEWER).without(OLDER);
    let opened = reopen(&disk, &SMALL)?;
    check(&opened, "no snapshot");
    assert_eq!((opened.durable.snapshot.is_none(), opened.durable.base), (true, Position::ZERO));
    Ok(())
}

#[test]
fn exchanged_snapshots_are_not_taken_for_each_other() -> Result<(), StorageError> {
    let disk = two(10)?;
    let (older, newer) = (disk.bytes(OLDER), disk.bytes(NEWER));
    let exchanged = disk.tampered(NEWER, |bytes| *bytes = older).tampered(OLDER, |bytes| *bytes = newer);
    match reopen(&exchanged, &SMALL) {
        Err(StorageError::NoSnapshot { found, .. }) => {
            assert!(found.contains(OLDER) && found.contains(NEWER) && found.contains("another's name"), "{found}");
        }
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn a_snapshot_of_another_cluster_is_not_taken() -> Result<(), StorageError> {
    let disk = two(20)?;
    let other = MemoryDisk::new();
    let cluster = ClusterId::new(0xc2);
    storage::format_on(&other, &Birth { cluster, store: StoreId::new(0x99), ..birth() })?;
    let expected = Expected { cluster, node: node(1) };
    let opened = storage::open_on(std::sync::Arc::new(other.clone()), &expected, &SMALL)?;
    let meta = reopen(&disk.crash(Keep::Nothing), &SMALL)?.durable.snapshot.expect("there is one");
    opened.log.snapshots().save(&meta, &state(meta.last))?;
    let mixed = disk.tampered(NEWER, |bytes| *bytes = other.bytes(NEWER));
    match reopen(&mixed, &SMALL) {
        Err(StorageError::NoSnapshot { found, .. }) => assert!(found.contains("of cluster"), "{found}"),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn a_snapshot_that_the_log_should_hold_and_does_not_shows_what_was_lost() -> Result<(), StorageError> {
    // The end of the log rots in a way that looks like a crash; only the snapshot tells.
    let mut pair = Pair::new()?;
    pair.fill(1, 1)?;
    pair.fill(2, 3)?;
    pair.step(&Step::Save(3))?;
    pair.reopen()?;
    let file = pair.names("log-").pop().expect("there is a log");
    let end = pair.disk.bytes(&file).iter().rposition(|byte| *byte != 0).expect("it has groups");
    // Not closed in good order, so that the anchor does not know.
    let lost = pair.disk.tampered(&file, |bytes| bytes[end / 512 * 512..].fill(0)).tampered("anchor", |bytes| {
        bytes[16..24].fill(0);
        bytes[4096..].fill(0);
    });
    let refused = reopen(&lost, &SMALL);
    assert!(refused.is_err(), "{refused:?}");
    Ok(())
}

/// A disk on which an installation was cut off between its two halves.
fn half_installed() -> Result<(MemoryDisk, &'static str), StorageError> {
    let received = "received-00000000000000000050-2";
    for operation in 1..200 {
        let mut pair = Pair::new()?;
        pair.fill(1, 10)?;
        pair.step(&Step::Receive(at(50, 2), 9))?;
        pair.disk.fail_power_at(operation);
        assert!(pair.step(&Step::Install).is_err(), "there is a moment when the log is reset and the file not renamed");
        let crashed = pair.disk.crash(Keep::Nothing);
        let opened = reopen(&crashed.crash(Keep::Nothing), &SMALL)?;
        if opened.durable.base == at(50, 2) && crashed.file_names().contains(&received.to_owned()) {
            return Ok((crashed, received));
        }
    }
    panic!("an installation takes less than 200 operations")
}

#[test]
fn an_installation_that_was_cut_off_is_finished_or_refused_but_never_half_done() -> Result<(), StorageError> {
    let (disk, received) = half_installed()?;
    let finished = disk.crash(Keep::Nothing);
    let opened = reopen(&finished, &SMALL)?;
    assert_eq!((opened.durable.base, opened.snapshot), (at(50, 2), Some(state(at(50, 2)))));
    assert!(!finished.file_names().contains(&received.to_owned()), "it has its final name");
    for flip in (0..disk.bytes(received).len()).filter(|flip| !(8..12).contains(flip)) {
        let refused = reopen(&disk.tampered(received, |bytes| bytes[flip] ^= 0x20), &SMALL);
        assert!(matches!(refused, Err(StorageError::NoSnapshot { .. })), "byte {flip}: {refused:?}");
    }
    let refused = reopen(&disk.without(received), &SMALL);
    assert!(matches!(refused, Err(StorageError::NoSnapshot { .. })), "{refused:?}");
    Ok(())
}

#[test]
fn a_received_snapshot_that_rots_before_it_is_installed_leaves_the_log_alone() -> Result<(), StorageError> {
    let received = "received-00000000000000000050-2";
    let mut pair = Pair::new()?;
    pair.fill(1, 10)?;
    pair.step(&Step::Receive(at(50, 2), 9))?;
    pair.disk.rot(received, |bytes| bytes[20] ^= 1);
    let failed = pair.step(&Step::Install);
    assert!(matches!(failed, Err(StorageError::NotReceived { .. })), "{failed:?}");
    pair.reopen()
}

#[test]
fn a_missing_segment_is_named_unless_it_is_needed_no_more() -> Result<(), StorageError> {
    let disk = two(20)?;
    let names: Vec<String> = disk.file_names().into_iter().filter(|name| name.starts_with("log-")).collect();
    assert!(names.len() > 3 && names.first().is_some_and(|first| first != "log-000000000001"), "{names:?}");
    for name in &names {
        let Err(error) = reopen(&disk.without(name), &SMALL) else { panic!("without {name} it opens") };
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
    Ok(())
}

#[test]
fn neither_slot_of_the_anchor_asks_for_a_segment_that_was_removed() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.fill(1, 30)?;
    for step in [Step::Save(20), Step::Compact(20), Step::Sweep] {
        pair.step(&step)?;
    }
    // The same after an installation that only the next opening could finish.
    let (half, _) = half_installed()?;
    drop(reopen(&half, &SMALL)?);
    for (disk, base) in [(pair.disk.crash(Keep::Everything), at(20, 1)), (half.crash(Keep::Everything), at(50, 2))] {
        assert!(!disk.file_names().contains(&"log-000000000001".to_owned()), "{:?}", disk.file_names());
        for at in (0..72).chain(4096..4096 + 72) {
            let opened = reopen(&disk.tampered("anchor", |bytes| bytes[at] ^= 0x01), &SMALL)?;
            assert_eq!(opened.durable.base, base, "byte {at}");
        }
    }
    Ok(())
}

#[test]
fn a_snapshot_that_rots_while_running_is_not_sent_and_its_place_is_free() -> Result<(), StorageError> {
    let mut pair = Pair::new()?;
    pair.fill(1, 30)?;
    pair.step(&Step::Save(10))?;
    pair.step(&Step::Save(20))?;
    pair.disk.rot(NEWER, |bytes| *bytes.last_mut().expect("it has bytes") ^= 1);
    let snapshots = pair.opened.log.snapshots();
    assert!(matches!(snapshots.load(at(20, 1)), Err(StorageError::Damaged { .. })));
    assert_eq!((snapshots.load(at(20, 1))?, snapshots.newest()), (None, at(10, 1)));
    // What stands in for it is kept, and so is the log after that.
    pair.opened.log.compact(raft_core::Index::new(20))?;
    pair.opened.log.snapshots().sweep();
    let opened = reopen(&pair.disk.crash(Keep::Everything), &SMALL)?;
    check(&opened, "after a compaction");
    assert_eq!(opened.durable.snapshot.as_ref().map(|meta| meta.last), Some(at(10, 1)));
    opened.log.snapshots().save(&pair.reference.meta(20), &state(at(20, 1)))?;
    assert_eq!(opened.log.snapshots().newest(), at(20, 1));
    Ok(())
}

#[test]
fn a_fresh_store_needs_no_snapshot() -> Result<(), StorageError> {
    let opened = storage::open_on(std::sync::Arc::new(formatted()), &expected(), &SMALL)?;
    assert!(opened.snapshot.is_none() && opened.durable.snapshot.is_none());
    Ok(())
}
