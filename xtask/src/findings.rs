//! What a check has found: all of it at once, so that one run is enough to mend it.

use anyhow::{Result, bail};

/// Violations of one rule.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings(Vec<String>);

impl Findings {
    pub(crate) fn add(&mut self, finding: impl Into<String>) {
        self.0.push(finding.into());
    }

    /// Adds the finding unless `holds`.
    pub(crate) fn expect(&mut self, holds: bool, finding: impl FnOnce() -> String) {
        if !holds {
            self.add(finding());
        }
    }

    #[cfg(test)]
    pub(crate) fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// `note` says what was looked at, for the summary.
    ///
    /// # Errors
    /// If there is any finding; the error lists them, under a `rule` that says what should hold.
    pub(crate) fn into_result(self, rule: &str, note: impl Into<String>) -> Result<String> {
        if self.0.is_empty() {
            return Ok(note.into());
        }
        bail!("{rule}\n  {}", self.0.join("\n  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_everything_that_was_found() {
        let mut findings = Findings::default();
        findings.expect(true, || "never built".to_owned());
        findings.expect(false, || "first".to_owned());
        findings.add("second");
        let error = findings.into_result("The rule.", "").expect_err("because there are two findings");
        assert_eq!(error.to_string(), "The rule.\n  first\n  second");
    }

    #[test]
    fn no_finding_is_a_note() {
        assert_eq!(Findings::default().into_result("The rule.", "3 files").ok().as_deref(), Some("3 files"));
    }
}
