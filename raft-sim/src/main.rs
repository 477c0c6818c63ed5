//! `raft-sim`: runs seeds, and says what came of them.
#![forbid(unsafe_code)]

use std::io::{BufWriter, IsTerminal as _, Write as _, stderr, stdout};
use std::ops::Range;
use std::panic;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use raft_sim::plan::Plan;
use raft_sim::{Failure, Invariant, Sink, Totals, check, check_seed, run_traced};

/// Drives raft-core through faults drawn from seeds, and checks its invariants after every event.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The seeds to run: FROM..TO, without TO
    #[arg(long, value_name = "FROM..TO", value_parser = range_of, default_value = "0..500", conflicts_with = "seed")]
    seeds: Range<u64>,

    /// How many threads run seeds; as many as there are cores if not given
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,

    /// The only seed to run
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    /// Print every event and effect of the one seed
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn range_of(words: &str) -> Result<Range<u64>, String> {
    let parsed = words.split_once("..").and_then(|(from, to)| Some(from.trim().parse().ok()?..to.trim().parse().ok()?));
    match parsed {
        Some(range) if !Range::is_empty(&range) => Ok(range),
        Some(range) => Err(format!("there is no seed from {} to before {}", range.start, range.end)),
        None => Err("write it as two numbers, like 0..500".to_owned()),
    }
}

fn main() -> ExitCode {
    let Arguments { seeds, jobs, seed, trace } = Arguments::parse();
    // A panic in a run becomes a failure of its seed, with the command that shows it again; the
    // usual message would come many times, from threads that nobody knows.
    let usual_hook = panic::take_hook();
    panic::set_hook(Box::new(move |information| {
        if trace {
            usual_hook(information);
        }
    }));
    let outcome = match seed {
        Some(seed) if trace => print_trace(seed),
        Some(seed) => check_one(seed),
        None => check_all(seeds, jobs),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failures) => {
            for failure in &failures {
                complain(failure);
            }
            ExitCode::FAILURE
        }
    }
}

fn print_trace(seed: u64) -> Result<(), Vec<Failure>> {
    let sink = Sink::Stream(Box::new(BufWriter::new(stdout())));
    let summary = run_traced(&Plan::draw(seed), sink).map_err(|failure| vec![*failure])?;
    say(&format!("seed {seed} is clean\ntrace hash         {:016x}", summary.hash));
    Ok(())
}

fn check_one(seed: u64) -> Result<(), Vec<Failure>> {
    let summary = check_seed(seed).map_err(|failure| vec![*failure])?;
    say(&format!("{}\n{summary:#?}\ntrace hash         {:016x}", Plan::draw(seed), summary.hash));
    Ok(())
}

fn check_all(seeds: Range<u64>, jobs: Option<usize>) -> Result<(), Vec<Failure>> {
    let jobs = jobs.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let wanted = seeds.end - seeds.start;
    let on_terminal = stderr().is_terminal();
    let mut shown = Instant::now();
    let outcome = check(seeds, jobs, |totals: &Totals| {
        if on_terminal && shown.elapsed() >= Duration::from_millis(200) {
            shown = Instant::now();
            let simulated = totals.sum.simulated.as_secs();
            eprint!("\r{} of {wanted} seeds, {simulated} s simulated ", totals.seeds);
        }
    });
    if on_terminal {
        eprint!("\r\x1b[K");
    }
    say(&outcome?.to_string());
    Ok(())
}

fn complain(failure: &Failure) {
    let Failure { seed, at, violation, trace } = failure;
    let mut words = String::new();
    for line in trace {
        words.push_str(line);
        words.push('\n');
    }
    words.push_str(&format!("\nseed {seed} fails at {at} of virtual time\n"));
    words.push_str(&format!("check: {}\n", violation.invariant));
    words.push_str(&format!("found: {}\n", violation.detail));
    if violation.invariant == Invariant::Determinism {
        words.push_str("a run must depend on nothing but its seed: look for clocks, threads and hash order\n");
    }
    words.push_str(&format!("again: cargo xtask sim --seed {seed} --trace\n"));
    say(&words);
}

/// Prints; a reader that has gone away (`| head`) is no reason to fail.
fn say(words: &str) {
    let mut out = stdout();
    let _gone = writeln!(out, "{words}").and_then(|()| out.flush());
}
