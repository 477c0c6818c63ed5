//! Whole runs: clean, repeatable, and loud when something is wrong.

use std::io::{self, Write};
use std::time::Duration;

use raft_core::{Limits, Timing};
use raft_sim::plan::Plan;
use raft_sim::{Invariant, OPERATIONS_MIN, Sink, check, run, run_traced};

#[test]
fn a_few_seeds_run_clean_and_have_their_shape() {
    let totals = check(0..6, 2, |_| {}).unwrap_or_else(|failures| panic!("{}", failures[0]));
    assert_eq!(totals.seeds, 6);
    assert!(totals.sum.counts.leader_crashes >= 6 && totals.sum.counts.partitions >= 6);
    assert!(totals.sum.writes + totals.sum.reads >= 6 * OPERATIONS_MIN);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let hash = |seed| run(seed, 0).map(|summary| summary.hash).unwrap_or_else(|failure| panic!("{failure}"));
    let (once, again, other) = (hash(11), hash(11), hash(12));
    assert_eq!(once, again);
    assert_ne!(once, other);
}

#[test]
fn a_trace_in_words_does_not_change_the_run() {
    let silent = run(13, 0).unwrap_or_else(|failure| panic!("{failure}"));
    let told = run(13, 1_000).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(silent, told);
}

#[test]
fn the_totals_do_not_depend_on_the_number_of_threads() {
    let hash = |jobs| {
        check(20..23, jobs, |_| {}).map(|totals| totals.sum).unwrap_or_else(|failures| panic!("{}", failures[0]))
    };
    assert_eq!(hash(1), hash(3));
}

#[test]
fn a_cluster_that_cannot_serve_in_time_fails_the_liveness_check() {
    // Elections that take longer than anybody waits for clients.
    let slow = Timing {
        heartbeat_interval: Duration::from_secs(40),
        election_timeout_min: Duration::from_secs(120),
        election_timeout_max: Duration::from_secs(180),
        stall_limit: Duration::from_secs(1_800),
    };
    let mut plan = Plan { timing: slow, limits: Limits::DEFAULT, fault_time: Duration::from_secs(1), ..Plan::draw(1) };
    plan.faults.clear();
    let failure = run_traced(&plan, Sink::Tail(5)).expect_err("nothing can be served so slowly");
    assert!(matches!(failure.violation.invariant, Invariant::Liveness | Invariant::RunShape), "{}", failure.violation);
    assert!(!failure.trace.is_empty() && failure.trace.len() <= 5);
}

#[test]
fn a_panic_becomes_a_failure_of_its_seed() {
    /// Panics in the middle of a run, like a core whose contract was broken.
    struct Bomb(u32);
    impl Write for Bomb {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).expect("because this is where the bomb goes off");
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let failure = run_traced(&Plan::draw(3), Sink::Stream(Box::new(Bomb(200)))).expect_err("the bomb goes off");
    assert_eq!((failure.seed, failure.violation.invariant), (3, Invariant::NoPanic));
    assert!(failure.violation.detail.contains("the bomb goes off"), "{}", failure.violation.detail);
}
