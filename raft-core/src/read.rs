//! Layer 4, rules: reads that see every write acknowledged before them, without a log entry.
//! §8; Thesis 6.4 (ReadIndex); contract Q1–Q3.
//!
//! ```text
//!  Read ──▶ waiting ──(next round sent)──▶ asked ──(majority answers)──▶ confirmed ──(applied)──▶ ReadReady
//! ```

use crate::effect::{Busy, Outcome};
use crate::majority;
use crate::role::Leader;
use crate::state::State;
use crate::types::{RequestId, Round};

/// A client wants to read. It waits for a round that has not been sent yet: an answer that is
/// already under way says nothing about now (contract Q1).
pub(crate) fn on_read(state: &mut State, leader: &mut Leader, request: RequestId) {
    if leader.reads.len() >= state.config.limits().pending_reads_max {
        state.outbox.reply(request, Outcome::Busy(Busy::Reads));
        return;
    }
    leader.reads.waiting.push_back(request);
}

/// Moves reads on. Returns the round that has to be sent now, for all that were waiting.
pub(crate) fn settle(state: &mut State, leader: &mut Leader) -> Option<Round> {
    let round = ask(state, leader);
    // A sole voter confirms itself: there is nobody else to ask.
    let confirmed = if leader.reads.asked.is_empty() { None } else { majority::confirmed_round(state, leader) };
    let reads = &mut leader.reads;
    while let Some((_, index, request)) = reads.asked.front().copied().filter(|(round, ..)| Some(*round) <= confirmed) {
        reads.asked.pop_front();
        reads.confirmed.push_back((index, request));
    }
    // Q2: only now can the machine be read; nobody else has to compare indices.
    while let Some((index, request)) =
        reads.confirmed.front().copied().filter(|(index, _)| *index <= state.applying.applied)
    {
        reads.confirmed.pop_front();
        state.outbox.reply(request, Outcome::ReadReady { index });
    }
    round
}

/// Gives everything that waits the next round, and the commit index as of now. §8 – not before an
/// entry of the own term is committed: until then a new leader may not know what its predecessor
/// acknowledged.
fn ask(state: &State, leader: &mut Leader) -> Option<Round> {
    if leader.reads.waiting.is_empty() || !majority::has_committed_in_term(state, leader) {
        return None;
    }
    let round = leader.rounds.open(state.now(), state.config.timing().heartbeat_interval / 8);
    let index = state.commit;
    let reads = &mut leader.reads;
    reads.asked.extend(reads.waiting.drain(..).map(|request| (round, index, request)));
    Some(round)
}
