//! Runs named steps one after another and says at the end how each of them went.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::output::say;
use crate::project::Project;
use crate::tally::Tally;

/// One thing to run. It counts its tests, if it has any, and returns a note for the summary.
pub(crate) struct Step<'a> {
    name: &'static str,
    run: Run<'a>,
}

type Run<'a> = Box<dyn Fn(&mut Tally) -> Result<String> + 'a>;

impl<'a> Step<'a> {
    /// A step that runs tests.
    pub(crate) fn tests(name: &'static str, run: impl Fn(&mut Tally) -> Result<String> + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// A step that looks at the project.
    pub(crate) fn check(name: &'static str, project: &'a Project, check: fn(&Project) -> Result<String>) -> Self {
        Self { name, run: Box::new(move |_| check(project)) }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// How a step went.
struct Record {
    name: &'static str,
    took: Duration,
    verdict: &'static str,
    note: String,
}

/// Runs the steps up to the first that fails, or all of them with `keep_going`; returns the tests
/// of all. A step that fails without a failed test counts as one failure.
pub(crate) fn run(steps: &[Step<'_>], keep_going: bool) -> Tally {
    let mut total = Tally::default();
    let mut records = Vec::new();
    let mut has_stopped = false;
    for (nth, step) in steps.iter().enumerate() {
        if has_stopped {
            records.push(Record { name: step.name, took: Duration::ZERO, verdict: "not run", note: String::new() });
            continue;
        }
        say(format_args!("\n── {}/{} {} ──", nth + 1, steps.len(), step.name));
        let start = Instant::now();
        let mut tally = Tally::default();
        let result = (step.run)(&mut tally);
        let took = start.elapsed();
        let (verdict, note) = match result {
            Ok(note) if tally.failed() == 0 => ("ok", note),
            Ok(note) => ("FAILED", note),
            Err(error) => {
                say(format_args!("error: {error:#}"));
                if tally.failed() == 0 {
                    tally.on_failure();
                }
                ("FAILED", first_line(&format!("{error:#}")))
            }
        };
        has_stopped = tally.failed() > 0 && !keep_going;
        total.add(tally);
        records.push(Record { name: step.name, took, verdict, note });
    }
    summarise(&records);
    total
}

fn summarise(records: &[Record]) {
    let widest = records.iter().map(|record| record.name.chars().count()).max().unwrap_or_default();
    let total: Duration = records.iter().map(|record| record.took).sum();
    say(format_args!("\n── summary ──"));
    for Record { name, took, verdict, note } in records {
        let line = format!("{name:widest$}  {verdict:7}  {:>7.1} s  {note}", took.as_secs_f64());
        say(line.trim_end());
    }
    say(format_args!("{:widest$}  {:7}  {:>7.1} s\n", "in all", "", total.as_secs_f64()));
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::bail;

    use super::*;

    const ONE_TEST: &str = "test result: ok. 1 passed; 0 failed; 0 ignored";

    #[test]
    fn stops_at_the_first_failure_unless_told_otherwise() {
        for (keep_going, expected) in [(false, "1 passed, 1 failed"), (true, "2 passed, 1 failed")] {
            let run_last = Cell::new(false);
            let steps = [
                Step::tests("first", |tally| {
                    tally.on_line(ONE_TEST);
                    Ok(String::new())
                }),
                Step::tests("second", |_| bail!("broken")),
                Step::tests("third", |tally| {
                    run_last.set(true);
                    tally.on_line(ONE_TEST);
                    Ok(String::new())
                }),
            ];
            assert_eq!(run(&steps, keep_going).to_string(), expected);
            assert_eq!(run_last.get(), keep_going);
        }
    }

    #[test]
    fn failed_tests_are_not_counted_twice() {
        let steps = [Step::tests("tests", |tally| {
            tally.on_line("test result: FAILED. 3 passed; 2 failed; 0 ignored");
            bail!("cargo test failed")
        })];
        assert_eq!(run(&steps, false).to_string(), "3 passed, 2 failed");
    }
}
