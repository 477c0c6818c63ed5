//! Executes `Apply`: commands into the machine, answers to whoever proposed them.

use raft_core::{Entries, Index, Payload, RequestId, StateMachine};

use crate::pending::{Pending, Proposed};

/// Applies `entries` in order and answers the proposals among them. Returns the last index.
pub(crate) fn apply<M: StateMachine>(
    machine: &mut M,
    pending: &mut Pending<M>,
    entries: &Entries,
    tokens: &[(Index, RequestId)],
) -> Option<Index> {
    let mut tokens = tokens.iter().peekable();
    for entry in entries.iter() {
        let command = match &entry.payload {
            // The core has taken a configuration to heart when it was appended.
            Payload::Blank | Payload::Configuration(_) => continue,
            Payload::Command(command) => command,
        };
        let position = entry.position();
        let answer = machine.apply(position, command);
        if let Some((_, request)) = tokens.next_if(|(index, _)| *index == entry.index) {
            pending.on_applied(*request, Proposed { position, answer });
        }
    }
    entries.last().map(|entry| entry.index)
}
