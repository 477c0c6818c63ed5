//! The trace of a run: a hash of every event and effect, and the same in words for whoever asks.
//!
//! Words cost more than the run itself, so they are made only when somebody reads them; a run
//! that fails is run again with words.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::io::Write;

use raft_core::{Effect, Entries, Event, LogReadOutcome, NodeId, Outcome, Position, Rpc, Term, Time, Verdict};

use crate::digest::{mix, of_position};

/// Where the words of a trace go.
pub enum Sink {
    /// Nowhere.
    None,
    /// The newest lines are kept, so many at most.
    Tail(usize),
    /// Each line is written at once.
    Stream(Box<dyn Write + Send>),
}

/// The trace of one run.
pub struct Trace {
    hash: u64,
    recorded: u64,
    sink: Sink,
    tail: VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    pub fn new(sink: Sink) -> Self {
        Self { hash: 0, recorded: 0, sink, tail: VecDeque::new() }
    }

    /// The digest of everything recorded so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many things were recorded.
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// The newest lines, as far as they were kept.
    pub fn into_tail(self) -> Vec<String> {
        self.tail.into()
    }

    /// Records `words`, and the line that `describe` makes, if anybody reads it.
    pub(crate) fn record<D: Display>(&mut self, now: Time, words: &[u64], describe: impl FnOnce() -> D) {
        self.recorded += 1;
        self.hash = mix(self.hash, now.as_nanos());
        for word in words {
            self.hash = mix(self.hash, *word);
        }
        if !matches!(self.sink, Sink::None) {
            let nanos = now.as_nanos();
            let line = format!("{:>4}.{:06} {}", nanos / 1_000_000_000, nanos / 1_000 % 1_000_000, describe());
            self.write(line);
        }
    }

    /// Writes a line that is no part of the run.
    pub(crate) fn write(&mut self, line: String) {
        match &mut self.sink {
            Sink::None => {}
            Sink::Tail(max) => {
                if self.tail.len() >= *max {
                    self.tail.pop_front();
                }
                self.tail.push_back(line);
            }
            Sink::Stream(stream) => {
                // A reader that has gone away (`| head`) is no reason to fail the run.
                if writeln!(stream, "{line}").is_err() {
                    self.sink = Sink::None;
                }
            }
        }
    }

    /// Records that a node was given an event.
    pub(crate) fn on_event(&mut self, now: Time, speaker: Speaker, event: &Event) {
        let node = speaker.node.as_u64();
        match event {
            Event::Received { from, rpc } => {
                let words = [1, node, from.node.as_u64(), from.boot.as_u64(), digest_of_rpc(rpc)];
                self.record(now, &words, || format!("{speaker} ← {from} {rpc}"));
            }
            Event::Tick => self.record(now, &[2, node], || format!("{speaker} tick")),
            Event::Propose { request, command } => {
                let words = [3, node, request.as_u64(), command.len() as u64];
                self.record(now, &words, || format!("{speaker} is asked to propose, request {request}"));
            }
            Event::Read { request } => {
                let words = [4, node, request.as_u64()];
                self.record(now, &words, || format!("{speaker} is asked to read, request {request}"));
            }
            Event::Persisted { seq } => {
                self.record(now, &[5, node, seq.as_u64()], || format!("{speaker} persisted #{seq}"));
            }
            Event::Applied { index } => {
                self.record(now, &[6, node, index.as_u64()], || format!("{speaker} applied {index}"));
            }
            Event::LogRead { id, outcome } => match outcome {
                LogReadOutcome::Entries(entries) => {
                    let words = [7, node, id.as_u64(), digest_of_entries(entries)];
                    self.record(now, &words, || format!("{speaker} log read {id} gives {entries}"));
                }
                LogReadOutcome::Damaged => {
                    self.record(now, &[8, node, id.as_u64()], || format!("{speaker} log read {id} fails"));
                }
            },
            Event::PeerUnreachable { node: peer } => {
                self.record(now, &[9, node, peer.as_u64()], || format!("{speaker} lost its channel to {peer}"));
            }
            Event::StorageFailed => self.record(now, &[10, node], || format!("{speaker} storage failed")),
        }
    }

    /// Records what a node asks for.
    pub(crate) fn on_effect(&mut self, now: Time, speaker: Speaker, effect: &Effect) {
        let node = speaker.node.as_u64();
        match effect {
            Effect::Send { to, rpc } => {
                let words = [21, node, to.as_u64(), digest_of_rpc(rpc)];
                self.record(now, &words, || format!("{speaker} → {to} {rpc}"));
            }
            Effect::Persist { seq, hard_state, entries } => {
                let (term, vote) = hard_state.map_or((0, 0), |hard_state| {
                    (hard_state.term.as_u64(), hard_state.voted_for.map_or(0, NodeId::as_u64))
                });
                let words = [22, node, seq.as_u64(), term, vote, digest_of_entries(entries)];
                self.record(now, &words, || {
                    let hard_state = match hard_state {
                        Some(new) => match new.voted_for {
                            Some(candidate) => format!(" term={} vote={candidate}", new.term),
                            None => format!(" term={}", new.term),
                        },
                        None => String::new(),
                    };
                    format!("{speaker} persist #{seq}{hard_state} {entries}")
                });
            }
            Effect::Apply { entries, tokens } => {
                let words = [23, node, digest_of_entries(entries), tokens.len() as u64];
                self.record(now, &words, || format!("{speaker} apply {entries} with {} answers", tokens.len()));
            }
            Effect::Reply { request, outcome } => {
                let words = [24, node, request.as_u64(), digest_of_outcome(*outcome)];
                self.record(now, &words, || format!("{speaker} reply to request {request}: {outcome:?}"));
            }
            Effect::ReadLog { id, purpose, from, through, max_bytes } => {
                let words = [25, node, id.as_u64(), from.as_u64(), through.as_u64(), *max_bytes];
                self.record(now, &words, || format!("{speaker} read log {id} for {purpose:?}: {from} to {through}"));
            }
            Effect::Configured { membership } => {
                let words = [26, node, membership.voters().len() as u64];
                self.record(now, &words, || {
                    format!("{speaker} is configured with {} voters", membership.voters().len())
                });
            }
            Effect::Observe(observation) => self.record(now, &[27, node], || format!("{}{observation}", speaker.node)),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("hash", &self.hash).field("recorded", &self.recorded).finish_non_exhaustive()
    }
}

/// `n1@3`: a node, and its term.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speaker {
    pub(crate) node: NodeId,
    pub(crate) term: Term,
}

impl Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.term)
    }
}

fn digest_of_entries(entries: &Entries) -> u64 {
    let first = entries.first().map_or(Position::ZERO, |entry| entry.position());
    let last = entries.last().map_or(Position::ZERO, |entry| entry.position());
    // What the entries hold is checked against what was created; their place is enough here.
    mix(of_position(first), of_position(last))
}

fn digest_of_verdict(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Granted => 1,
        Verdict::Refused => 2,
        Verdict::LeaderAlive => 3,
    }
}

fn digest_of_outcome(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::ReadReady { index } => mix(1, index.as_u64()),
        Outcome::NotLeader { leader } => mix(2, leader.map_or(0, NodeId::as_u64)),
        Outcome::Busy(_) => 3,
        Outcome::Unknown { leader } => mix(4, leader.map_or(0, NodeId::as_u64)),
        Outcome::StorageFailed => 5,
    }
}

fn digest_of_rpc(rpc: &Rpc) -> u64 {
    let fold = |words: &[u64]| words.iter().fold(rpc.term().as_u64(), |hash, word| mix(hash, *word));
    match rpc {
        Rpc::PreVote { campaign, last, .. } => fold(&[1, campaign.boot.as_u64(), campaign.number, of_position(*last)]),
        Rpc::PreVoteReply { campaign, verdict, .. } => fold(&[2, campaign.number, digest_of_verdict(*verdict)]),
        Rpc::Vote { last, .. } => fold(&[3, of_position(*last)]),
        Rpc::VoteReply { verdict, .. } => fold(&[4, digest_of_verdict(*verdict)]),
        Rpc::Append(append) => fold(&[
            5,
            append.round.as_u64(),
            of_position(append.prev),
            append.commit.as_u64(),
            digest_of_entries(&append.entries),
        ]),
        Rpc::AppendReply { round, matched, .. } => fold(&[6, round.as_u64(), matched.as_u64()]),
        Rpc::AppendRejected(rejection) => fold(&[
            7,
            rejection.round.as_u64(),
            rejection.prev.as_u64(),
            of_position(rejection.hint),
            rejection.commit.as_u64(),
        ]),
        Rpc::Heartbeat { round, commit, .. } => fold(&[8, round.as_u64(), commit.as_u64()]),
        Rpc::HeartbeatReply { round, matched, verified, .. } => {
            fold(&[9, round.as_u64(), matched.as_u64(), verified.as_u64()])
        }
        Rpc::CommitNotice { commit, .. } => fold(&[10, commit.as_u64()]),
        Rpc::TermOver { .. } => fold(&[11]),
    }
}
