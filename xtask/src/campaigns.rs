//! The long way round: simulated clusters, killed processes, and the README's first command.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::documents;
use crate::process::Program;
use crate::project::Project;
use crate::tally::Tally;
use crate::test;

/// The seeds that continuous integration simulates.
const SEEDS: [&str; 2] = ["--seeds", "0..500"];

/// Real input for the demo: 2,000 lines of `key<TAB>value`.
const SAMPLE: &str = "raft-kv/testdata/sample.tsv";

/// The demo takes seconds.
const DEMO_TIME_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Whoever starts a long campaign by hand watches it, and ends it.
const BY_HAND: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Runs the simulator.
pub(crate) fn simulate(project: &Project, arguments: &[String]) -> Result<()> {
    simulator(project, arguments).time_limit(BY_HAND).show()
}

/// Runs the seeds of continuous integration; the note is what the simulator says at its end.
pub(crate) fn simulation(project: &Project) -> Result<String> {
    let mut last_line = String::new();
    simulator(project, &[]).watch(|line| {
        if !line.trim().is_empty() {
            line.trim().clone_into(&mut last_line);
        }
    })?;
    Ok(last_line)
}

fn simulator(project: &Project, arguments: &[String]) -> Program {
    let program = Program::cargo(project.root()).args(["run", "--release", "-p", "raft-sim", "--"]);
    if arguments.is_empty() { program.args(SEEDS) } else { program.args(arguments) }
}

/// Kills and restarts nodes of a cluster that is being loaded; no acknowledged write may be missing.
///
/// # Errors
/// If a write is missing, or if there is no such test.
pub(crate) fn kill_rounds(project: &Project, rounds: u32, seed: Option<u64>, tally: &mut Tally) -> Result<String> {
    let mut program = Program::cargo(project.root()).env("RAFT_KV_KILL_ROUNDS", rounds.to_string()).args([
        "test",
        "-p",
        "raft-kv",
        "--test",
        "it",
        "kill_rounds",
        "--",
        "--nocapture",
        // Each has the machine for itself.
        "--test-threads=1",
    ]);
    if let Some(seed) = seed {
        program = program.env("RAFT_KV_KILL_SEED", seed.to_string());
    }
    test::run_tests(program, true, tally)?;
    Ok(format!("{rounds} rounds"))
}

/// Runs the README's first command as it is printed there, with `more` arguments behind it, as a
/// script does: nothing on standard input, and no terminal to draw on.
fn readme_command(project: &Project, more: &[&str]) -> Result<String> {
    let command = documents::first_command(project)?;
    let (program, arguments) = command.split_first().context("README.md has an empty command")?;
    ensure!(program == "cargo", "README.md begins with `{program}`, which a fresh machine may not have");

    let folder = project.root().join("target/xtask/tmp");
    make_empty(&folder)?;
    let mut printed = 0;
    let mut escape = None;
    let demo = Program::cargo(project.root()).env("TMPDIR", &folder).args(arguments).args(more);
    demo.time_limit(DEMO_TIME_LIMIT).watch(|line| {
        printed += 1;
        if line.contains(['\u{1b}', '\r']) {
            escape.get_or_insert_with(|| line.to_owned());
        }
    })?;
    ensure!(printed > 0, "the demo prints nothing");
    ensure!(escape.is_none(), "the demo draws on something that is no terminal: {escape:?}");
    let left = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?.count();
    ensure!(left == 0, "the demo leaves {left} things behind in {}", folder.display());
    Ok(format!("{printed} lines"))
}

/// Compiles what the README's first command runs, so that the time of the demo is its own.
pub(crate) fn build_demo(project: &Project) -> Result<String> {
    Program::cargo(project.root()).args(["build", "--release", "-p", "raft-kv"]).show()?;
    Ok(String::new())
}

/// The README's first command, as printed.
pub(crate) fn demo(project: &Project) -> Result<String> {
    readme_command(project, &[])
}

/// The README's first command, with a file to load.
pub(crate) fn demo_with_load(project: &Project) -> Result<String> {
    readme_command(project, &["--load", SAMPLE])
}

fn make_empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
