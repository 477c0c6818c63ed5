//! What the log says of requests: each at debug, and refusals that an operator should know of as
//! warnings, but not as many as a client can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use raft_tokio::transport::Caller;

use super::Asked;
use crate::command::{Command, Operation};
use crate::protocol::{Refusal, Response};

/// One warning in so much time; what was left out is counted.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// Writes about requests.
#[derive(Debug, Default)]
pub(super) struct Journal {
    warnings: Mutex<Warnings>,
}

#[derive(Debug, Default)]
struct Warnings {
    last: Option<Instant>,
    suppressed: u64,
}

impl Journal {
    /// A request came. Neither keys nor values are written down: they are the clients' own.
    pub(super) fn on_request(&self, caller: &Caller, bytes: usize, asked: &Result<Asked, Refusal>) {
        if let Ok(asked) = asked {
            tracing::debug!(client = caller.name, address = %caller.address, request = name(asked), bytes, "asked");
        }
    }

    /// It was carried out, or not.
    pub(super) fn on_response(&self, caller: &Caller, elapsed: Duration, response: &Response) {
        let (client, address) = (&caller.name, caller.address);
        match response {
            Ok(_) => tracing::debug!(client, %address, ?elapsed, "answered"),
            Err(refusal) if concerns_operator(refusal) => match self.admit(Instant::now()) {
                Some(suppressed) => tracing::warn!(client, %address, suppressed, "refused: {refusal}"),
                None => tracing::debug!(client, %address, "refused: {refusal}"),
            },
            Err(refusal) => tracing::debug!(client, %address, "refused: {refusal}"),
        }
    }

    /// Whether a warning may be written now, and how many were not since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.last.is_some_and(|last| now.saturating_duration_since(last) < WARNING_INTERVAL) {
            warnings.suppressed += 1;
            return None;
        }
        warnings.last = Some(now);
        Some(std::mem::take(&mut warnings.suppressed))
    }
}

fn name(asked: &Asked) -> &'static str {
    match asked {
        Asked::Write(Command::Register { .. }) => "register",
        Asked::Write(Command::Write { operation: Operation::Put { .. }, .. }) => "put",
        Asked::Write(Command::Write { operation: Operation::Delete { .. }, .. }) => "delete",
        Asked::Range { .. } => "range",
        Asked::Count { .. } => "count",
        Asked::Status => "status",
        Asked::Change { .. } => "change",
        Asked::Transfer { .. } => "transfer",
        Asked::Snapshot => "snapshot",
    }
}

/// Whether a refusal tells of a limit, a failure, or a client that does not fit; the others are
/// how clients find the leader, and how conditions fail.
fn concerns_operator(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Busy { .. }
        | Refusal::StorageFailed
        | Refusal::TooLarge { .. }
        | Refusal::EmptyKey
        | Refusal::Misunderstood(_) => true,
        Refusal::NotLeader { .. }
        | Refusal::Unknown { .. }
        | Refusal::Stopping
        | Refusal::CompareFailed { .. }
        | Refusal::SessionUnknown
        | Refusal::SequenceStale { .. }
        | Refusal::SequenceAhead { .. }
        | Refusal::Declined { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_refusals_is_one_warning_a_second() {
        let (journal, start) = (Journal::default(), Instant::now());
        assert_eq!(journal.admit(start), Some(0));
        assert_eq!(journal.admit(start), None);
        assert_eq!(journal.admit(start + WARNING_INTERVAL / 2), None);
        assert_eq!(journal.admit(start + WARNING_INTERVAL), Some(2));
        assert_eq!(journal.admit(start + WARNING_INTERVAL * 2), Some(0));
    }
}
