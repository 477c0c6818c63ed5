//! Exit statuses: which there are, and which one an error means.

use std::fmt;
use std::process::ExitCode;

use raft_kv::client::ClientError;
use raft_kv::config::{ConfigError, IdentityError};

use super::output::OutputError;

/// What scripts may rely on; printed by `--help`.
pub(crate) const TABLE: &str = "\
Exit status:
  0  done; for status: the cluster can serve
  1  tried and failed; the message says what was tried, what was found and what to do
  2  not even tried: an unknown flag, a missing argument, a key or value over the limit,
     a configuration that is missing or wrong, certificates that are not the ones it needs
  3  get: there is no such key
  4  put --if-rev: the key was changed at another revision; nothing was written
  5  the outcome is unknown: a write was sent, no answer came, it may still happen
  6  the cluster cannot serve: no majority, no leader, or no node could be reached
  7  serve: the address is taken";

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything that was asked for happened.
    Done = 0,
    /// Something else went wrong.
    Failed = 1,
    /// What was typed, or what the configuration says, cannot be done.
    Usage = 2,
    /// The key does not exist.
    NotFound = 3,
    /// The condition of a write did not hold.
    ConditionFailed = 4,
    /// A write may or may not happen.
    OutcomeUnknown = 5,
    /// No majority of the cluster answers.
    Unavailable = 6,
    /// Another process has the address.
    AddressTaken = 7,
}

impl Exit {
    /// The status that an error means.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(Self::Failed)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.exit);
        }
        if cause.is::<ConfigError>() || cause.is::<IdentityError>() {
            return Some(Self::Usage);
        }
        match cause.downcast_ref::<ClientError>()? {
            ClientError::Unavailable(_) => Some(Self::Unavailable),
            ClientError::OutcomeUnknown { .. } => Some(Self::OutcomeUnknown),
            ClientError::CompareFailed { .. } => Some(Self::ConditionFailed),
            ClientError::TooLarge { .. } | ClientError::EmptyKey | ClientError::NoSuchNode { .. } => Some(Self::Usage),
            ClientError::Distrusted(_)
            | ClientError::Declined { .. }
            | ClientError::Refused(_)
            | ClientError::Confused
            | ClientError::NoEndpoints
            | ClientError::Setup { .. }
            | ClientError::ForeignCertificate { .. }
            | ClientError::Random(_) => None,
        }
    }

    /// The text of an error and its causes, each said once: many errors quote their cause.
    pub(crate) fn explain(error: &anyhow::Error) -> String {
        let mut text = String::new();
        for cause in error.chain() {
            let said = cause.to_string();
            if text.contains(&said) {
                continue;
            }
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        text
    }

    /// Whether nobody is there any more to read what is printed.
    pub(crate) fn is_closed_output(error: &anyhow::Error) -> bool {
        matches!(error.downcast_ref(), Some(OutputError::Closed))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error whose exit status was decided where it arose.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
