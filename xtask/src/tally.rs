//! Counts tests by what the test runners themselves report.

use std::fmt;

/// Tests that were really executed, and what failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Adds what a line of a test runner says; any other line counts nothing.
    ///
    /// The line is `test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; …`.
    pub(crate) fn on_line(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|result| result.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Counts something that is no test and went wrong: a check, a build, a crashed runner.
    pub(crate) fn on_failure(&mut self) {
        self.failed += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    pub(crate) fn passed(self) -> u64 {
        self.passed
    }

    pub(crate) fn failed(self) -> u64 {
        self.failed
    }

    pub(crate) fn ignored(self) -> u64 {
        self.ignored
    }
}

/// `12 passed, 0 failed`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &str) -> Tally {
        let mut tally = Tally::default();
        lines.lines().for_each(|line| tally.on_line(line));
        tally
    }

    #[test]
    fn sums_over_the_runners() {
        let sum = tally(
            "running 3 tests\n\
             test a ... ok\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s\n\
             test result: FAILED. 4 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             all doctests ran in 0.37s; merged doctests compilation took 0.35s\n",
        );
        assert_eq!(sum, Tally { passed: 7, failed: 1, ignored: 2 });
        assert_eq!(sum.to_string(), "7 passed, 1 failed");
    }

    #[test]
    fn takes_no_other_line_for_a_result() {
        let spoken = "the log says test result: ok. 5 passed; 0 failed\n\
                      test result: pending\n\
                      9 passed; 0 failed\n";
        assert_eq!(tally(spoken), Tally::default());
    }

    #[test]
    fn a_failure_outside_of_the_tests_shows_in_the_last_line() {
        let mut sum = tally("test result: ok. 6 passed; 0 failed; 0 ignored");
        sum.on_failure();
        assert_eq!(sum.to_string(), "6 passed, 1 failed");
    }
}
