//! Power cuts: at every operation, with every kind of loss, nothing acknowledged is lost.

use raft_core::{Entry, HardState, Index};
use raft_tokio::storage::{self, Disk as _, Log, Opened, StorageError, Write};

use super::memory_disk::{Keep, MemoryDisk};
use super::{SMALL, all, append, birth, entry, formatted, reopen, vote};

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    hard_state: HardState,
    entries: Vec<Entry>,
}

impl Model {
    fn on_write(&mut self, write: &Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        self.entries.extend(write.entries.iter().cloned());
    }

    fn of(opened: &Opened) -> Self {
        let entries: Vec<_> = all(opened).expect("what was accepted can be read").iter().cloned().collect();
        assert_eq!(opened.durable.last, entries.last().map_or(Index::ZERO, |entry| entry.index));
        let tail: Vec<_> = opened.durable.tail.iter().cloned().collect();
        assert!(entries.ends_with(&tail), "the tail is not the end of the log");
        Self { hard_state: opened.durable.hard_state, entries }
    }
}

/// Groups of every shape: one sector and many, votes alone and with entries, overwrites, and enough
/// to fill several segments.
fn groups() -> Vec<Vec<Write>> {
    let big = |index, term, size: usize| entry(index, term, vec![index as u8; size]);
    vec![
        vec![vote(1, 1, 1)],
        vec![append(2, vec![big(1, 1, 10), big(2, 1, 2_000)])],
        vec![append(3, vec![big(3, 1, 600)]), vote(4, 2, 2), append(5, vec![big(4, 2, 40)])],
        // Beyond the first segment, which has 64 KiB.
        vec![append(6, (5..=8).map(|index| big(index, 2, 15_500)).collect())],
        vec![append(7, vec![big(7, 3, 1_500)]), vote(8, 3, 0)],
        vec![append(9, vec![big(8, 3, 1_700)])],
        vec![append(10, vec![big(9, 3, 200), big(10, 3, 200), big(11, 3, 200)])],
        vec![vote(11, 4, 1)],
        vec![append(12, vec![big(9, 4, 3_000)])],
    ]
}

/// Writes the groups, reopening halfway; returns what was acknowledged, and what was under way
/// when the power failed.
fn run(disk: &MemoryDisk) -> (Model, Option<Model>) {
    let mut acknowledged = Model::default();
    let open = || reopen(disk, &SMALL).map(|opened| opened.log);
    let mut log: Option<Log> = None;
    for (nth, group) in groups().iter().enumerate() {
        if nth == 5 {
            // Once without closing; at the end, in good order.
            log = None;
        }
        let Ok(open) = log.take().map_or_else(open, Ok) else { return (acknowledged, None) };
        let mut after = acknowledged.clone();
        for write in group {
            after.on_write(write);
        }
        let mut open = open;
        match open.write(group) {
            Ok(()) => acknowledged = after,
            Err(_) => return (acknowledged, Some(after)),
        }
        log = Some(open);
    }
    // A power failure while closing takes nothing away.
    let _ = log.map(Log::close);
    (acknowledged, None)
}

/// What one power cut leaves behind.
struct PowerCut {
    operation: u64,
    disk: MemoryDisk,
    acknowledged: Model,
    under_way: Option<Model>,
}

/// A run of the same story for each operation at which the power can fail in it.
fn power_cuts() -> impl Iterator<Item = PowerCut> {
    (1..).map_while(|operation| {
        let disk = formatted();
        disk.fail_power_at(operation);
        let (acknowledged, under_way) = run(&disk);
        disk.is_off().then_some(PowerCut { operation, disk, acknowledged, under_way })
    })
}

fn keeps() -> impl Iterator<Item = Keep> {
    [Keep::Nothing, Keep::Everything].into_iter().chain((0..6).map(Keep::Some))
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let (mut points, mut kept, mut cut) = (0, 0, 0);
    for PowerCut { operation, disk, acknowledged, under_way } in power_cuts() {
        for keep in keeps() {
            points += 1;
            let case = format!("power cut at operation {operation}, keeping {keep:?}");
            let crashed = disk.crash(keep);
            let opened = reopen(&crashed, &SMALL).unwrap_or_else(|error| panic!("{case}: {error}"));
            let found = Model::of(&opened);
            if Some(&found) == under_way.as_ref() {
                kept += 1;
            } else {
                assert_eq!(found, acknowledged, "{case}");
                cut += u32::from(under_way.is_some());
            }
            go_on(opened, &crashed, found, &case);
        }
    }
    assert!(points > 400 && kept > 10 && cut > 100, "{points} points, {kept} groups kept, {cut} cut");
}

/// The log is as good as new: it takes another group, and loses none in a crash after it.
fn go_on(mut opened: Opened, disk: &MemoryDisk, mut model: Model, case: &str) {
    let next = model.entries.len() as u64 + 1;
    let write = append(99, vec![entry(next, 9, "after the crash"), entry(next + 1, 9, vec![9; 700])]);
    opened.log.write(std::slice::from_ref(&write)).unwrap_or_else(|error| panic!("{case}, then writing: {error}"));
    model.on_write(&write);
    drop(opened);
    let crashed = disk.crash(Keep::Nothing);
    let opened = reopen(&crashed, &SMALL).unwrap_or_else(|error| panic!("{case}, and another one: {error}"));
    assert_eq!(Model::of(&opened), model, "{case}, and another one");
}

#[test]
fn regress_what_a_killed_process_had_not_synced_is_durable_once_it_was_recovered() {
    let mut unsynced = 0;
    for PowerCut { operation, disk, acknowledged, .. } in power_cuts() {
        let killed = disk.kill();
        let opened = reopen(&killed, &SMALL).unwrap_or_else(|error| panic!("killed at operation {operation}: {error}"));
        let found = Model::of(&opened);
        unsynced += u32::from(found != acknowledged);
        drop(opened);
        for keep in keeps() {
            let case = format!("killed at operation {operation}, then a power cut that keeps {keep:?}");
            let again = reopen(&killed.crash(keep), &SMALL).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(Model::of(&again), found, "{case}");
        }
    }
    assert!(unsynced > 5, "only {unsynced} groups were found that nobody had synced");
}

#[test]
fn a_second_power_cut_during_recovery_changes_nothing() {
    let mut points = 0;
    for PowerCut { operation, disk, acknowledged, under_way } in power_cuts() {
        for second in 1.. {
            let crashed = disk.crash(Keep::Some(operation));
            crashed.fail_power_at(second);
            let recovered = reopen(&crashed, &SMALL);
            if !crashed.is_off() {
                assert!(recovered.is_ok(), "power cut at operation {operation}");
                break;
            }
            points += 1;
            for keep in [Keep::Nothing, Keep::Everything, Keep::Some(second)] {
                let case = format!("power cuts at operation {operation} and {second}, keeping {keep:?}");
                let opened = reopen(&crashed.crash(keep), &SMALL).unwrap_or_else(|error| panic!("{case}: {error}"));
                let found = Model::of(&opened);
                assert!(found == acknowledged || Some(&found) == under_way.as_ref(), "{case}");
            }
        }
    }
    assert!(points > 100, "{points} points");
}

#[test]
fn a_boot_number_is_never_used_twice() -> Result<(), StorageError> {
    // An opening changes only the anchor: one write, one sync.
    for operation in 1..=2 {
        for keep in keeps() {
            let disk = formatted();
            let before = reopen(&disk, &SMALL)?.durable.identity.boot;
            disk.fail_power_at(operation);
            assert!(reopen(&disk, &SMALL).is_err());
            let after = reopen(&disk.crash(keep), &SMALL)?.durable.identity.boot;
            assert!(after > before, "{after} after {before}");
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_while_formatting_leaves_a_directory_or_an_error_but_nothing_in_between() {
    let identity = formatted().bytes("identity");
    let (mut opens, mut refuses) = (0, 0);
    for operation in 1.. {
        let disk = MemoryDisk::new();
        disk.fail_power_at(operation);
        let formatted = storage::format_on(&disk, &birth());
        if !disk.is_off() {
            assert!(formatted.is_ok());
            let opened = reopen(&disk.crash(Keep::Nothing), &SMALL);
            assert!(opened.is_ok(), "what was formatted is durable: {opened:?}");
            break;
        }
        for keep in keeps() {
            let case = format!("power cut at operation {operation}, keeping {keep:?}");
            let crashed = disk.crash(keep);
            let names = crashed.list().expect("the disk is on again");
            let is_formatted = names.iter().any(|name| name == "identity") && crashed.bytes("identity") == identity;
            match reopen(&crashed, &SMALL) {
                Ok(opened) => {
                    assert!(is_formatted, "{case}");
                    assert_eq!(Model::of(&opened), Model::default());
                    assert_eq!(*opened.durable.configuration.membership, birth().membership);
                    opens += 1;
                    go_on(opened, &crashed, Model::default(), &case);
                }
                // Nobody takes it for a directory that has lost something.
                Err(error) => {
                    assert!(!is_formatted, "{case}: {error}");
                    refuses += 1;
                }
            }
        }
    }
    assert!(opens >= 5 && refuses >= 20, "{opens} open, {refuses} are refused");
}

/// The log before its last group, with it, and where that group lies in the newest segment.
fn with_a_last_group() -> Result<(MemoryDisk, Model, Model, std::ops::Range<usize>), StorageError> {
    let disk = formatted();
    let mut opened = reopen(&disk, &SMALL)?;
    let first = [append(1, vec![entry(1, 1, "one"), entry(2, 1, vec![2; 600])]), vote(2, 1, 1)];
    let last =
        [vote(3, 2, 2), append(4, vec![entry(3, 2, vec![3; 500]), entry(4, 2, vec![0; 1_100]), entry(5, 2, "")])];
    let mut models = vec![Model::default()];
    let mut ends = Vec::new();
    for group in [&first, &last] {
        opened.log.write(group)?;
        let mut model = models.last().cloned().unwrap_or_default();
        group.iter().for_each(|write| model.on_write(write));
        models.push(model);
        let written = disk.bytes("log-000000000001");
        ends.push(written.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    }
    let (after, before) = (models.pop().unwrap_or_default(), models.pop().unwrap_or_default());
    let extent = ends[0]..ends[1];
    assert!(extent.start % 512 == 0 && extent.len() == 4 * 512);
    Ok((disk, before, after, extent))
}

#[test]
fn a_last_group_torn_at_any_byte_is_cut_and_everything_before_it_kept() -> Result<(), StorageError> {
    let (disk, before, after, extent) = with_a_last_group()?;
    assert_eq!(Model::of(&reopen(&disk.crash(Keep::Nothing), &SMALL)?), after);
    for at in extent {
        let truncated = disk.tampered("log-000000000001", |bytes| bytes.truncate(at));
        let zeroed = disk.tampered("log-000000000001", |bytes| bytes[at..].fill(0));
        for (disk, how) in [(truncated, "truncated"), (zeroed, "zeroed")] {
            let case = format!("{how} from byte {at} on");
            let opened = reopen(&disk, &SMALL).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(Model::of(&opened), before, "{case}");
            assert_eq!(disk.bytes("log-000000000001").len(), 64 << 10, "{case}: the file has its length again");
            go_on(opened, &disk, before.clone(), &case);
        }
    }
    Ok(())
}

#[test]
fn any_of_a_torn_groups_sectors_may_be_missing() -> Result<(), StorageError> {
    let (disk, before, after, extent) = with_a_last_group()?;
    for missing in 0_usize..16 {
        let torn = disk.tampered("log-000000000001", |bytes| {
            let sectors = bytes[extent.clone()].chunks_mut(512).enumerate();
            for (_, sector) in sectors.filter(|(nth, _)| missing >> nth & 1 == 1) {
                sector.fill(0);
            }
        });
        let opened = reopen(&torn, &SMALL)?;
        let wanted = if missing == 0 { &after } else { &before };
        assert_eq!(&Model::of(&opened), wanted, "missing {missing:04b}");
        go_on(opened, &torn, wanted.clone(), &format!("missing {missing:04b}"));
    }
    Ok(())
}
