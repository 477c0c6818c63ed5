//! Many runs: on several threads, some of them twice, added up.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::checks::{Invariant, Violation};
use crate::digest::mix;
use crate::run::{Failure, Summary, run};
use raft_core::Time;

/// How many lines of its trace a failure shows.
const TAIL: usize = 60;

/// Every so many seeds one is run twice, and both runs must be the same.
const REPEAT_EVERY: u64 = 10;

/// What many runs came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many seeds ran clean.
    pub seeds: u64,
    /// How many of them ran twice.
    pub repeated: u64,
    /// The sums of all summaries; `hash` does not depend on the order in which the seeds ran.
    pub sum: Summary,
    /// The longest wait for a leader after healing.
    pub slowest_election: Duration,
    /// How long it took, on the wall.
    pub wall: Duration,
}

impl Totals {
    fn add(&mut self, seed: u64, summary: &Summary) {
        self.seeds += 1;
        self.repeated += u64::from(is_repeated(seed));
        let sum = &mut self.sum;
        // Addition commutes: the threads may finish in any order.
        sum.hash = sum.hash.wrapping_add(mix(seed, summary.hash));
        sum.simulated += summary.simulated;
        sum.recorded += summary.recorded;
        sum.operations += summary.operations;
        sum.writes += summary.writes;
        sum.reads += summary.reads;
        sum.elections += summary.elections;
        sum.counts.crashes += summary.counts.crashes;
        sum.counts.leader_crashes += summary.counts.leader_crashes;
        sum.counts.partitions += summary.counts.partitions;
        sum.counts.other_faults += summary.counts.other_faults;
        sum.counts.log_reads += summary.counts.log_reads;
        sum.counts.pauses += summary.counts.pauses;
        sum.counts.stalls += summary.counts.stalls;
        sum.counts.disk_stalls += summary.counts.disk_stalls;
        sum.counts.disks_full += summary.counts.disks_full;
        sum.counts.changes += summary.counts.changes;
        sum.counts.changes_refused += summary.counts.changes_refused;
        sum.counts.transfers += summary.counts.transfers;
        sum.counts.snapshots_taken += summary.counts.snapshots_taken;
        sum.counts.snapshots_sent += summary.counts.snapshots_sent;
        sum.counts.snapshots_installed += summary.counts.snapshots_installed;
        sum.counts.steps += summary.counts.steps;
        sum.traffic.sent += summary.traffic.sent;
        sum.traffic.lost += summary.traffic.lost;
        sum.traffic.duplicated += summary.traffic.duplicated;
        sum.traffic.reordered += summary.traffic.reordered;
        self.slowest_election = self.slowest_election.max(summary.leader_after);
    }
}

fn is_repeated(seed: u64) -> bool {
    // A digit of a hash, not of the seed: neighbouring seeds must not share a fate for ever.
    mix(seed, 1).is_multiple_of(REPEAT_EVERY)
}

/// The table that ends a clean run.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, repeated, sum, slowest_election, wall } = self;
        let Summary { hash, simulated, recorded, operations, writes, reads, elections, counts, traffic, .. } = sum;
        let speed = simulated.as_secs_f64() / wall.as_secs_f64().max(1e-9);
        let rate = operations.checked_div(simulated.as_secs()).unwrap_or(0);
        writeln!(f, "seeds              {seeds} clean, {repeated} of them run twice with the same trace")?;
        writeln!(f, "simulated          {:.0} s, {speed:.0} × real time", simulated.as_secs_f64())?;
        writeln!(f, "client operations  {operations} ({rate} a second): {writes} writes acknowledged, {reads} reads")?;
        writeln!(
            f,
            "faults             {} crashes, {} of leaders; {} partitions; {} others",
            counts.crashes, counts.leader_crashes, counts.partitions, counts.other_faults
        )?;
        writeln!(
            f,
            "messages           {} sent, {} lost, {} duplicated, {} reordered",
            traffic.sent, traffic.lost, traffic.duplicated, traffic.reordered
        )?;
        writeln!(
            f,
            "standstill         {} pauses, {} stalls before a step; {} disks stalled, {} full",
            counts.pauses, counts.stalls, counts.disk_stalls, counts.disks_full
        )?;
        writeln!(
            f,
            "membership         {} configurations committed, {} changes refused; {} transfers",
            counts.changes, counts.changes_refused, counts.transfers
        )?;
        writeln!(
            f,
            "snapshots          {} taken, {} sent, {} installed",
            counts.snapshots_taken, counts.snapshots_sent, counts.snapshots_installed
        )?;
        writeln!(
            f,
            "elections          {elections}; after healing a leader within {:.2} s at most",
            slowest_election.as_secs_f64()
        )?;
        writeln!(
            f,
            "checked            {} steps, {recorded} events and effects; {} log reads",
            counts.steps, counts.log_reads
        )?;
        write!(f, "trace hash         {hash:016x}")
    }
}

/// Runs a seed, a tenth of the seeds twice; a failing one again, with its trace in words.
///
/// # Errors
/// The first invariant that does not hold.
pub fn check_seed(seed: u64) -> Result<Summary, Box<Failure>> {
    let Ok(summary) = run(seed, 0) else {
        let again = run(seed, TAIL);
        return Err(again.err().unwrap_or_else(|| differs(seed, "fails once and then does not")));
    };
    if is_repeated(seed) {
        match run(seed, 0) {
            Ok(again) if again == summary => {}
            Ok(again) => {
                let detail = format!("gives trace hash {:016x} and then {:016x}", summary.hash, again.hash);
                return Err(differs(seed, &detail));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(summary)
}

fn differs(seed: u64, how: &str) -> Box<Failure> {
    let violation = Violation::new(Invariant::Determinism, format!("seed {seed} {how}"));
    Box::new(Failure { seed, at: Time::ZERO, violation, trace: Vec::new() })
}

/// Runs all `seeds` on `jobs` threads; tells `progress` the totals after each.
///
/// # Errors
/// The failing seeds that were found before the others were stopped, the lowest first.
pub fn check(seeds: Range<u64>, jobs: usize, mut progress: impl FnMut(&Totals)) -> Result<Totals, Vec<Failure>> {
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let (send, receive) = mpsc::channel();
    let mut totals = Totals::default();
    let mut failures = Vec::new();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (send, next, stop) = (send.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Nobody listens any more only if the scope is being left.
                    if seed >= seeds.end || send.send((seed, check_seed(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for (seed, outcome) in receive {
            match outcome {
                Ok(summary) => {
                    totals.add(seed, &summary);
                    totals.wall = started.elapsed();
                    progress(&totals);
                }
                Err(failure) => {
                    stop.store(true, Ordering::Relaxed);
                    failures.push(*failure);
                }
            }
        }
    });
    failures.sort_by_key(|failure| failure.seed);
    if failures.is_empty() { Ok(totals) } else { Err(failures) }
}
