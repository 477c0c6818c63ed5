//! What a program that asked for JSON gets to read when a command fails.

use raft_kv::client::ClientError;
use serde_json::{Value, json};

use super::admin::SnapshotFailure;
use super::data::metadata_json;
use super::exit::Exit;
use super::load::LoadFailure;

/// The failure as one document: the message, a word for it that stays the same, the exit
/// status, and what else a program would otherwise have to ask for.
pub(crate) fn document(error: &anyhow::Error) -> Value {
    let exit = Exit::of(error);
    let mut fields = json!({ "error": Exit::explain(error), "code": code(exit), "exit_status": exit as u8 });
    for cause in error.chain() {
        let details = match cause.downcast_ref::<ClientError>() {
            Some(ClientError::CompareFailed { revision, current }) => {
                json!({ "revision": revision.as_u64(), "current": current.map(metadata_json) })
            }
            Some(_) => continue,
            None => match cause.downcast_ref::<LoadFailure>() {
                Some(failure) => failure.json(),
                None => match cause.downcast_ref::<SnapshotFailure>() {
                    Some(failure) => failure.json(),
                    None => continue,
                },
            },
        };
        if let (Value::Object(fields), Value::Object(details)) = (&mut fields, details) {
            fields.extend(details);
        }
    }
    fields
}

fn code(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "done",
        Exit::Failed => "failed",
        Exit::Usage => "usage",
        Exit::NotFound => "not_found",
        Exit::ConditionFailed => "condition_failed",
        Exit::OutcomeUnknown => "outcome_unknown",
        Exit::Unavailable => "unavailable",
        Exit::AddressTaken => "address_taken",
    }
}
