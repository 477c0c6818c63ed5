//! `cargo xtask test`: every test, doctest and example, with plain cargo.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::output::say;
use crate::process::Program;
use crate::project::Project;
use crate::steps::{self, Step};
use crate::tally::Tally;

/// The tests under each set of features that somebody takes.
///
/// In the workspace's build the core has all of its features, because its siblings ask for them;
/// so whoever takes it alone gets a run of their own.
const SUITES: [(&str, &[&str]); 3] = [
    ("tests of the workspace", &["--workspace"]),
    ("tests of the core alone", &["-p", "raft-core", "--no-default-features"]),
    ("tests of the core with serde", &["-p", "raft-core", "--no-default-features", "--features", "serde"]),
];

/// Runs the tests; `arguments` go to each `cargo test`. A filter may leave one suite without a
/// test, but not all of them: then it is misspelt.
pub(crate) fn run(project: &Project, arguments: &[String]) -> Tally {
    let mut tally = steps::run(&plan(project, arguments), true);
    if tally.passed() == 0 && tally.failed() == 0 {
        say("error: no test was run");
        tally.on_failure();
    }
    tally
}

/// The steps, for whoever has more of them.
pub(crate) fn plan<'a>(project: &'a Project, arguments: &'a [String]) -> Vec<Step<'a>> {
    let suites = SUITES.into_iter();
    let mut steps: Vec<Step<'_>> = suites
        .map(|(name, features)| Step::tests(name, move |tally| suite(project, features, arguments, tally)))
        .collect();
    if arguments.is_empty() {
        steps.push(Step::check("examples", project, examples));
    }
    steps
}

fn suite(project: &Project, features: &[&str], arguments: &[String], tally: &mut Tally) -> Result<String> {
    let program = Program::cargo(project.root()).args(["test", "--no-fail-fast"]).args(features).args(arguments);
    run_tests(program, arguments.is_empty(), tally)
}

/// Runs a program whose output ends in results of tests, and counts them.
///
/// # Errors
/// If it fails, leaves tests out, or was expected to run tests and ran none.
pub(crate) fn run_tests(program: Program, must_run_some: bool, tally: &mut Tally) -> Result<String> {
    let shown = program.to_string();
    program.watch(|line| tally.on_line(line))?;
    ensure!(tally.failed() == 0, "`{shown}` exits with 0, and yet tests failed");
    ensure!(tally.ignored() == 0, "{} tests are left out; a test that does not run proves nothing", tally.ignored());
    ensure!(tally.passed() > 0 || !must_run_some, "`{shown}` ran no test");
    Ok(format!("{} tests", tally.passed()))
}

/// Runs every example; one that exits with 0 is fine.
///
/// They are built as `cargo test` built them, with the features of the whole workspace: asking for
/// one package would build the network stack a second time with fewer features.
fn examples(project: &Project) -> Result<String> {
    let build = ["build", "--workspace", "--examples", "--message-format=json-render-diagnostics"];
    let messages = Program::cargo(project.root()).args(build).capture()?;
    let examples = executables(&messages)?;
    if examples.is_empty() {
        bail!("there is no example");
    }
    for (_, path) in &examples {
        Program::at(path.as_ref(), project.root()).show()?;
    }
    let names: Vec<&str> = examples.iter().map(|(name, _)| name.as_str()).collect();
    Ok(names.join(", "))
}

/// Names and paths of the examples in cargo's messages.
fn executables(messages: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cargo prints something that is no JSON")?;
        let target = message.get("target");
        let is_example = target
            .and_then(|target| target.get("kind")?.as_array())
            .is_some_and(|kinds| kinds.iter().any(|kind| kind == "example"));
        let name = target.and_then(|target| target.get("name")?.as_str());
        let path = message.get("executable").and_then(Value::as_str);
        if let (true, Some(name), Some(path)) = (is_example, name, path) {
            found.push((name.to_owned(), path.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn runner(script: &str) -> Program {
        Program::at(Path::new("sh"), Path::new(".")).args(["-c", script])
    }

    fn error(script: &str) -> String {
        run_tests(runner(script), true, &mut Tally::default()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_run_without_tests_is_an_error() {
        assert!(error("echo 'test result: ok. 0 passed; 0 failed; 0 ignored'").ends_with("ran no test"));
        assert!(error("true").ends_with("ran no test"));
        assert_eq!(error("echo 'test result: ok. 2 passed; 0 failed; 0 ignored'"), "2 tests");
    }

    #[test]
    fn a_test_that_is_left_out_is_an_error() {
        assert!(error("echo 'test result: ok. 2 passed; 0 failed; 1 ignored'").starts_with("1 tests are left out"));
    }

    #[test]
    fn a_runner_that_crashes_is_an_error_also_when_its_tests_passed() {
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; exit 101";
        let mut tally = Tally::default();
        assert!(run_tests(runner(script), true, &mut tally).is_err());
        assert_eq!(tally.passed(), 2);
    }

    #[test]
    fn examples_are_found_among_the_artifacts() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"raft_core"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["example"],"name":"counter"},"executable":"t/counter"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = executables(messages).ok();
        assert_eq!(found, Some(vec![("counter".to_owned(), "t/counter".to_owned())]));
    }
}
