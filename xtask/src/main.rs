//! The project's own tasks. `cargo xtask test` is what a newcomer runs, `cargo xtask ci` is that
//! plus every check, and neither writes to the checkout; `cargo xtask fix` may.
//!
//! Architecture invariant: xtask depends on no crate of this workspace. It runs cargo and reads
//! text, so that a broken crate can still be tested, checked and reported.
#![forbid(unsafe_code)]

mod campaigns;
mod checks;
mod ci;
mod confinement;
mod dependencies;
mod documents;
mod findings;
mod hygiene;
mod layers;
mod licences;
mod metadata;
mod output;
mod process;
mod project;
mod purity;
mod steps;
mod tally;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::output::say;
use crate::project::Project;
use crate::tally::Tally;

/// The project's own tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every test, doctest and example; needs only Rust and a C compiler
    Test {
        /// Passed on to each `cargo test`, for example a filter; then the examples are left out
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run the tests and every check, as continuous integration does
    Ci {
        /// Go on after a failed step
        #[arg(long)]
        keep_going: bool,
        /// Run only the steps whose name contains this
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
    },
    /// Simulate clusters under faults, each drawn from a seed
    Sim {
        /// Passed on to the simulator [default: --seeds 0..500]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Kill a random node of a loading cluster and restart it, again and again; then the same with logs
    /// that are cut all the time and members that are replaced
    KillRounds {
        /// How often
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Repeats the choices of an earlier run
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Format the code and apply what clippy can mend by itself
    Fix,
    /// Check licences, bans, sources and advisories with cargo-deny
    Audit,
}

fn main() -> ExitCode {
    let Arguments { task } = Arguments::parse();
    let project = Project::here();
    match task {
        Task::Test { arguments } => verdict(test::run(&project, &arguments)),
        Task::Ci { keep_going, only } => verdict(ci::run(&project, keep_going, only.as_deref())),
        Task::Sim { arguments } => ended(campaigns::simulate(&project, &arguments)),
        Task::KillRounds { rounds, seed } => {
            ended(campaigns::kill_rounds(&project, rounds, seed, &mut Tally::default()).map(drop))
        }
        Task::Fix => ended(checks::fix(&project)),
        Task::Audit => ended(checks::audit(&project)),
    }
}

/// Prints the tally as the very last line: whoever reads the log from its end needs no more.
fn verdict(tally: Tally) -> ExitCode {
    say(tally);
    if tally.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
