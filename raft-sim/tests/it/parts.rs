//! The things in the world behave as they say.

use std::time::Duration;

use raft_core::{Entries, HardState, RequestId, StoreId, Time, WriteSeq};
use raft_sim::disk::{Disk, Write};
use raft_sim::machine::{Command, Registers};
use raft_sim::plan::{DiskPlan, FaultKind, Plan};
use raft_sim::rng::{CERTAIN, Rng};
use raft_sim::schedule::Schedule;

use crate::rig::{at, blank, entries, founders, index, node, snapshot_of, term};

#[test]
fn a_fork_does_not_depend_on_what_was_drawn_before() {
    let (fresh, mut used) = (Rng::from_seed(7), Rng::from_seed(7));
    let drawn: Vec<u64> = (0..100).map(|_| used.draw()).collect();
    assert_eq!(fresh.fork("loss").draw(), used.fork("loss").draw());
    assert_ne!(fresh.fork("loss").draw(), fresh.fork("delay").draw());
    assert_ne!(fresh.fork_nth("client", 0).draw(), fresh.fork_nth("client", 1).draw());
    assert!(!drawn.contains(&fresh.fork("loss").draw()));
}

#[test]
fn exponential_durations_have_their_mean() {
    let mut rng = Rng::from_seed(1);
    let mean = Duration::from_millis(10);
    let sum: Duration = (0..20_000).map(|_| rng.exponential(mean)).sum();
    let average = sum / 20_000;
    assert!(average > mean * 9 / 10 && average < mean * 11 / 10, "the mean of {mean:?} came out as {average:?}");
}

#[test]
fn chances_are_as_likely_as_they_say() {
    let mut rng = Rng::from_seed(2);
    let hits = (0..100_000).filter(|_| rng.chance(CERTAIN / 10)).count();
    assert!((9_500..10_500).contains(&hits), "one in ten came {hits} times in 100,000");
    assert!((0..1_000).all(|_| rng.chance(CERTAIN)) && !(0..1_000).any(|_| rng.chance(0)));
}

#[test]
fn events_of_one_moment_come_out_as_they_went_in() {
    let mut schedule = Schedule::new();
    let moment = |nanos| Time::from_nanos(nanos);
    for (at, name) in [(20, "c"), (10, "a"), (20, "d"), (10, "b")] {
        schedule.plan(moment(at), name);
    }
    let order: Vec<_> = std::iter::from_fn(|| schedule.pop(moment(20))).collect();
    assert_eq!(order, ["a", "b", "c", "d"]);
    schedule.plan(moment(5), "late");
    assert_eq!((schedule.pop(moment(30)), schedule.now()), (Some("late"), moment(20)));
}

fn disk_with_three_synced_and_two_not() -> Disk {
    let mut disk = Disk::format(node(1), StoreId::new(1), founders());
    let hard_state = Some(HardState { term: term(1), voted_for: Some(node(1)), floor: None });
    disk.write(Write::Log {
        seq: WriteSeq::new(1),
        hard_state,
        entries: entries(vec![blank(1, 1), blank(2, 1), blank(3, 1)]),
    });
    assert!(disk.start_sync());
    // The next write overwrites what the first one wrote, in a newer term, and is not synced.
    let hard_state = Some(HardState { term: term(2), voted_for: None, floor: None });
    disk.write(Write::Log { seq: WriteSeq::new(2), hard_state, entries: entries(vec![blank(3, 2), blank(4, 2)]) });
    assert_eq!(disk.finish_sync(), Some(WriteSeq::new(1)));
    disk
}

#[test]
fn a_crash_keeps_a_prefix_of_what_was_not_synced_and_all_that_was() {
    let plan = DiskPlan { keep_all: CERTAIN / 4, lose_all: CERTAIN / 4, ..Plan::draw(0).disk };
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut disk = disk_with_three_synced_and_two_not();
        disk.crash(&plan, &mut Rng::from_seed(seed));
        let log: Vec<(u64, u64)> =
            disk.log().iter().map(|record| (record.entry.index.as_u64(), record.entry.term.as_u64())).collect();
        seen.insert((disk.hard_state().term.as_u64(), log));
    }
    let expected = [
        (1, vec![(1, 1), (2, 1), (3, 1)]),
        (2, vec![(1, 1), (2, 1), (3, 1)]),
        (2, vec![(1, 1), (2, 1), (3, 2)]),
        (2, vec![(1, 1), (2, 1), (3, 2), (4, 2)]),
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    let mut disk = disk_with_three_synced_and_two_not();
    disk.crash(&DiskPlan { keep_all: 0, lose_all: CERTAIN, ..plan }, &mut Rng::from_seed(0));
    assert_eq!((disk.hard_state().term, disk.log().len()), (term(1), 3));
}

#[test]
fn a_failed_disk_syncs_nothing_more() {
    let mut disk = disk_with_three_synced_and_two_not();
    assert!(disk.start_sync());
    disk.fail();
    assert_eq!(disk.finish_sync(), None);
    assert_eq!((disk.log().len(), disk.start_sync()), (3, false));
}

#[test]
fn a_log_read_stays_within_its_bytes_but_gives_one_entry() {
    let disk = disk_with_three_synced_and_two_not();
    let length = |from, max_bytes| disk.read(index(from), index(9), max_bytes).map(|found: Entries| found.len());
    assert_eq!([length(1, 0), length(1, 64), length(2, 1_000), length(4, 1_000)], [Some(1), Some(2), Some(2), None]);
}

#[test]
fn commands_survive_their_encoding() {
    for command in [
        Command::Put { key: 3, attempt: RequestId::new(9) },
        Command::Append { key: 4, attempt: RequestId::new(1 << 40) },
    ] {
        assert_eq!(Command::decode(&command.encode(5)), Some(command));
    }
    assert_eq!(Command::decode(b"odd"), None);
    assert_eq!(Command::decode(&[]), None);
}

#[test]
fn seeds_differ_in_size_and_in_faults() {
    let plans: Vec<Plan> = (0..200).map(Plan::draw).collect();
    for nodes in 3..=7 {
        assert!(plans.iter().any(|plan| plan.nodes == nodes), "no seed of 200 has {nodes} nodes");
    }
    for kind in FaultKind::ALL {
        let with = plans.iter().filter(|plan| plan.has(kind)).count();
        assert!((50..150).contains(&with), "{kind:?} is in {with} of 200 mixes");
    }
    assert!(plans.iter().any(|plan| plan.faults.len() == FaultKind::ALL.len()));
    assert!(plans.iter().any(|plan| plan.faults.len() == 1));
}

#[test]
fn a_machine_comes_back_from_its_snapshot_as_it_was() {
    let mut machine = Registers::default();
    for (nth, key) in [(1, 7), (2, 7), (3, 8)] {
        machine.execute(at(nth, 1), Command::Append { key, attempt: RequestId::new(nth) });
    }
    let bytes = machine.image();
    assert_eq!(Registers::of_image(&bytes), Some(machine.clone()));
    assert_eq!(Registers::of_image(&bytes.slice(..bytes.len() - 1)), None);
    machine.skip(at(4, 1));
    assert_ne!(machine.image(), bytes);
}

/// A crash while a snapshot replaces the log 1@1 2@1 3@1, and 11@3 comes after it.
fn crashed_amid_installing(plan: &DiskPlan, seed: u64) -> (u64, u64, usize) {
    let mut disk = disk_with_three_synced_and_two_not();
    assert!(disk.start_sync());
    disk.finish_sync();
    let snapshot = snapshot_of(&Registers::default(), at(10, 2), 77);
    disk.receive(snapshot.clone());
    disk.write(Write::Install { seq: WriteSeq::new(3), snapshot });
    disk.write(Write::Log { seq: WriteSeq::new(4), hard_state: None, entries: entries(vec![blank(11, 3)]) });
    assert!(disk.is_installing());
    disk.crash(plan, &mut Rng::from_seed(seed));
    let known = disk.newest_snapshot().map_or(0, |snapshot| snapshot.meta.last.index.as_u64());
    assert_eq!(disk.received(at(10, 2)), None, "what was received goes with the process");
    (disk.base().index.as_u64(), known, disk.log().len())
}

#[test]
fn a_crash_leaves_the_log_or_the_snapshot_but_never_one_without_the_other() {
    let plan = DiskPlan { keep_all: CERTAIN / 4, lose_all: CERTAIN / 4, ..Plan::draw(0).disk };
    let seen: std::collections::BTreeSet<_> = (0..200).map(|seed| crashed_amid_installing(&plan, seed)).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(0, 0, 4), (10, 10, 0), (10, 10, 1)]);
}

#[test]
fn a_compacted_log_goes_on_where_it_went_on_before() {
    let mut disk = disk_with_three_synced_and_two_not();
    disk.start_sync();
    disk.finish_sync();
    let digest = disk.digest_at(index(3));
    disk.write(Write::Compact { through: index(2) });
    disk.start_sync();
    assert_eq!(disk.finish_sync(), None, "nobody waits for a compaction");
    assert_eq!((disk.base(), disk.last(), disk.digest_at(index(3))), (at(2, 1), at(4, 2), digest));
    assert_eq!(disk.digest_at(index(1)), None);
    assert!(disk.holds(index(1), 99), "a snapshot stands for it");
    assert!(disk.read(index(2), index(4), 1_000).is_none());
    assert_eq!(disk.read(index(3), index(4), 1_000).map(|found| found.len()), Some(2));
}
