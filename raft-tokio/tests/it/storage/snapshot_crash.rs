//! Power cuts while snapshots are taken, received and installed, and the log is compacted.

use raft_core::{HardState, NodeId, Term};
use raft_tokio::storage::{Disk as _, Opened, StorageError};

use super::memory_disk::{Keep, MemoryDisk};
use super::reference::{Reference, Step, at, configuration_entry, execute};
use super::{SMALL, append, entry, formatted, reopen, vote};

/// Everything that can happen to a store, so that every kind of step comes after every other one.
fn steps() -> Vec<Step> {
    let big = |from: u64, through: u64, term| {
        (from..=through).map(|index| entry(index, term, vec![index as u8; 1_400])).collect::<Vec<_>>()
    };
    vec![
        Step::Write(vec![vote(1, 1, 1), append(2, vec![entry(1, 1, "one"), configuration_entry(2, 1, 7)])]),
        Step::Save(1),
        // Beyond the first segment, which has 64 KiB.
        Step::Write(vec![append(3, vec![entry(3, 1, vec![3; 62_000])])]),
        Step::Write(vec![append(4, big(4, 5, 1))]),
        Step::Write(vec![append(5, big(6, 7, 1)), vote(6, 2, 2)]),
        Step::Save(5),
        Step::Compact(5),
        Step::Sweep,
        Step::Write(vec![append(7, big(8, 9, 2))]),
        // Replaces entries of an earlier segment.
        Step::Write(vec![vote(8, 3, 0), append(8, [vec![configuration_entry(7, 3, 8)], big(8, 10, 3)].concat())]),
        Step::Write(vec![append(9, big(11, 13, 3))]),
        Step::Save(10),
        Step::Compact(8),
        Step::Compact(10),
        Step::Sweep,
        Step::Write(vec![vote(10, 4, 1)]),
        Step::Receive(at(30, 5), 9),
        Step::Receive(at(40, 6), 10),
        Step::Install,
        Step::Sweep,
        Step::Write(vec![append(11, big(41, 43, 6)), vote(12, 6, 2)]),
        Step::Write(vec![append(13, big(44, 46, 7)), vote(13, 7, 1)]),
        Step::Save(44),
        Step::Compact(44),
        Step::Sweep,
        Step::Write(vec![append(14, vec![configuration_entry(47, 7, 11)])]),
        // Into a log that is longer than the snapshot, and differs from it.
        Step::Receive(at(46, 8), 12),
        Step::Install,
        Step::Write(vec![append(15, vec![entry(47, 8, "last")])]),
        Step::Sweep,
    ]
}

/// Does the steps, opening the store anew now and then; returns what was acknowledged, and what was
/// under way when the power failed.
fn run(disk: &MemoryDisk, reopened_every: usize) -> (Reference, Option<Reference>) {
    let mut acknowledged = Reference::new();
    let mut kept: Option<Opened> = None;
    for (nth, step) in (1..).zip(steps()) {
        let opened = kept.take().map_or_else(|| reopen(disk, &SMALL), Ok);
        let Ok(mut opened) = opened else { return (acknowledged, None) };
        let mut after = acknowledged.clone();
        after.on_step(&step);
        if execute(&mut opened, &step, &acknowledged).is_err() {
            return (acknowledged, Some(after));
        }
        acknowledged = after;
        // What was received is forgotten by whoever starts again, unless it is installed.
        let may_reopen = acknowledged.received.is_none();
        kept = (!may_reopen || nth % reopened_every != 0).then_some(opened);
    }
    (acknowledged, None)
}

fn keeps() -> impl Iterator<Item = Keep> {
    [Keep::Nothing, Keep::Everything].into_iter().chain((0..4).map(Keep::Some))
}

/// What was found is what was acknowledged, or that with what was under way, as a whole.
fn check(opened: &Opened, (acknowledged, under_way): &(Reference, Option<Reference>), case: &str) -> Reference {
    let forgets = |reference: &Reference| Reference { received: None, ..reference.clone() };
    let Some(why) = acknowledged.differs(opened) else { return forgets(acknowledged) };
    match under_way {
        Some(under_way) => match under_way.differs(opened) {
            None => forgets(under_way),
            Some(other) => panic!("{case}:\nneither {why}\nnor {other}"),
        },
        None => panic!("{case}: {why}"),
    }
}

/// The store is as good as new: it takes entries and a snapshot, is compacted, and survives another cut.
fn go_on(mut opened: Opened, disk: &MemoryDisk, reference: Reference, case: &str) {
    let mut reference = reference;
    let next = reference.last().index.as_u64() + 1;
    let term = reference.hard_state.term.max(Term::new(1)).as_u64();
    let mut write = append(98, vec![entry(next, term, vec![1; 3_000]), configuration_entry(next + 1, term, 13)]);
    // No term and vote but where they are needed: the store itself repeats them in a new segment.
    write.hard_state = (reference.hard_state.term == Term::ZERO).then_some(HardState {
        term: Term::new(1),
        voted_for: None,
        floor: None,
    });
    for step in [
        Step::Write(vec![write]),
        Step::Write(vec![append(99, vec![entry(next + 2, term, vec![2; 3_000])])]),
        Step::Save(next + 1),
        Step::Compact(next + 1),
        Step::Sweep,
    ] {
        execute(&mut opened, &step, &reference).unwrap_or_else(|error| panic!("{case}, then {step:?}: {error}"));
        reference.on_step(&step);
    }
    drop(opened);
    let opened = reopen(&disk.crash(Keep::Nothing), &SMALL).unwrap_or_else(|error| panic!("{case}, again: {error}"));
    assert_eq!(reference.differs(&opened), None, "{case}, again");
}

#[test]
fn a_power_cut_at_any_operation_shows_the_old_pair_or_the_new_one() {
    let (mut points, mut old, mut new) = (0, 0, 0);
    for reopened_every in [4, 1_000] {
        for operation in 1.. {
            let disk = formatted();
            disk.fail_power_at(operation);
            let outcome = run(&disk, reopened_every);
            if !disk.is_off() {
                break;
            }
            for keep in keeps() {
                points += 1;
                let case = format!("power cut at {operation}, reopened every {reopened_every}, keeping {keep:?}");
                let crashed = disk.crash(keep);
                let opened = reopen(&crashed, &SMALL).unwrap_or_else(|error| panic!("{case}: {error}"));
                let found = check(&opened, &outcome, &case);
                let is_old = Reference { received: None, ..outcome.0.clone() } == found;
                if is_old {
                    old += 1;
                } else {
                    new += 1;
                }
                go_on(opened, &crashed, found, &case);
            }
        }
    }
    assert!(points > 1_500 && old > 1_000 && new > 50, "{points} points: {old} old, {new} new");
}

#[test]
fn a_second_power_cut_during_recovery_changes_nothing() {
    let mut points = 0;
    for operation in 1.. {
        let disk = formatted();
        disk.fail_power_at(operation);
        let outcome = run(&disk, 1_000);
        if !disk.is_off() {
            break;
        }
        for second in 1.. {
            let crashed = disk.crash(Keep::Some(operation));
            crashed.fail_power_at(second);
            let _ = reopen(&crashed, &SMALL);
            if !crashed.is_off() {
                break;
            }
            points += 1;
            for keep in [Keep::Nothing, Keep::Everything, Keep::Some(second)] {
                let case = format!("power cuts at operation {operation} and {second}, keeping {keep:?}");
                let opened = reopen(&crashed.crash(keep), &SMALL).unwrap_or_else(|error| panic!("{case}: {error}"));
                check(&opened, &outcome, &case);
            }
        }
    }
    assert!(points > 400, "{points} points");
}

#[test]
fn what_a_killed_process_had_not_synced_is_durable_once_it_was_recovered() {
    for operation in 1.. {
        let disk = formatted();
        disk.fail_power_at(operation);
        let outcome = run(&disk, 1_000);
        if !disk.is_off() {
            break;
        }
        let killed = disk.kill();
        let case = format!("killed at operation {operation}");
        let opened = reopen(&killed, &SMALL).unwrap_or_else(|error| panic!("{case}: {error}"));
        let found = check(&opened, &outcome, &case);
        drop(opened);
        for keep in keeps() {
            let case = format!("{case}, then a power cut that keeps {keep:?}");
            let opened = reopen(&killed.crash(keep), &SMALL).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(found.differs(&opened), None, "{case}");
        }
    }
}

#[test]
fn a_crash_leaves_no_file_that_nobody_needs() -> Result<(), StorageError> {
    let mut removed = 0;
    for operation in 1.. {
        let disk = formatted();
        disk.fail_power_at(operation);
        run(&disk, 1_000);
        if !disk.is_off() {
            break;
        }
        for keep in keeps() {
            let crashed = disk.crash(keep);
            let before = crashed.file_names().len();
            let opened = reopen(&crashed, &SMALL)?;
            let names = crashed.list().expect("the disk is on again");
            removed += before.saturating_sub(names.len());
            let stale = names.iter().find(|name| name.ends_with(".new") || name.starts_with("received-"));
            assert_eq!(stale, None, "power cut at {operation}, keeping {keep:?}");
            let snapshots = names.iter().filter(|name| name.starts_with("snapshot-")).count();
            assert!(snapshots <= 2 && (snapshots > 0) == opened.durable.snapshot.is_some(), "{names:?}");
        }
    }
    assert!(removed > 100, "only {removed} files were left");
    Ok(())
}

#[test]
fn regress_a_term_from_a_snapshot_is_as_durable_as_the_snapshot() -> Result<(), StorageError> {
    // The core asks for the installation before it asks for the term: a crash may come in between.
    let disk = formatted();
    let (mut opened, mut reference) = (reopen(&disk, &SMALL)?, Reference::new());
    for step in [Step::Write(vec![vote(1, 3, 2)]), Step::Receive(at(40, 7), 9), Step::Install] {
        execute(&mut opened, &step, &reference)?;
        reference.on_step(&step);
    }
    let opened = reopen(&disk.crash(Keep::Nothing), &SMALL)?;
    assert_eq!(opened.durable.hard_state, HardState { term: Term::new(7), voted_for: None, floor: None });
    assert_eq!(reference.differs(&opened), None);
    // A vote of the snapshot's own term stays.
    let disk = formatted();
    let (mut opened, mut reference) = (reopen(&disk, &SMALL)?, Reference::new());
    for step in [Step::Write(vec![vote(1, 7, 2)]), Step::Receive(at(40, 7), 9), Step::Install] {
        execute(&mut opened, &step, &reference)?;
        reference.on_step(&step);
    }
    let opened = reopen(&disk.crash(Keep::Nothing), &SMALL)?;
    assert_eq!(opened.durable.hard_state.voted_for, NodeId::new(2));
    Ok(())
}
