//! The trace of a run: a hash of every event and effect, and the same in words for whoever asks.
//!
//! Words cost more than the run itself, so they are made only when somebody reads them; a run
//! that fails is run again with words.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::io::Write;

use raft_core::{
    Change, Effect, Entries, Event, LogReadOutcome, NodeId, Outcome, Position, ReadMode, Rpc, SnapshotFate, Term, Time,
    Verdict,
};

use crate::digest::{mix, of_membership, of_position};
use crate::rng::nanos;

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
            Event::Read { request, mode } => {
                let words = [4, node, request.as_u64(), u64::from(*mode == ReadMode::Lease)];
                self.record(now, &words, || format!("{speaker} is asked to read, request {request} {mode:?}"));
            }
            Event::ChangeMembership { request, expected, changes } => {
                let words = [11, node, request.as_u64(), expected.as_u64(), digest_of_changes(changes)];
                self.record(now, &words, || {
                    format!("{speaker} is asked to change configuration {expected}: {changes:?}, request {request}")
                });
            }
            Event::TransferLeadership { request, to } => {
                let words = [12, node, request.as_u64(), to.map_or(0, NodeId::as_u64)];
                self.record(now, &words, || format!("{speaker} is asked to hand over to {to:?}, request {request}"));
            }
            Event::RequestSnapshot { request } => {
                let words = [13, node, request.as_u64()];
                self.record(now, &words, || format!("{speaker} is asked for a snapshot, request {request}"));
            }
            Event::SnapshotTaken { index, bytes } => {
                let words = [14, node, index.as_u64(), bytes.unwrap_or(u64::MAX)];
                self.record(now, &words, || format!("{speaker} has a snapshot of {index}: {bytes:?} bytes"));
            }
            Event::SnapshotProgress { last, received } => {
                let words = [15, node, of_position(*last), *received];
                self.record(now, &words, || format!("{speaker} has {received} bytes of snapshot {last}"));
            }
            Event::SnapshotReceived { last, complete } => {
                let words = [16, node, of_position(*last), u64::from(*complete)];
                let fate = if *complete { "complete" } else { "lost" };
                self.record(now, &words, || format!("{speaker} snapshot {last} is {fate}"));
            }
            Event::StorageFull => self.record(now, &[17, node], || format!("{speaker} storage is full")),
            Event::StorageReady => self.record(now, &[18, node], || format!("{speaker} storage has space again")),
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
                let (term, vote) = hard_state.as_ref().map_or((0, 0), |hard_state| {
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
                let words = [24, node, request.as_u64(), digest_of_outcome(outcome)];
                self.record(now, &words, || format!("{speaker} reply to request {request}: {outcome:?}"));
            }
            Effect::ReadLog { id, purpose, from, through, max_bytes } => {
                let words = [25, node, id.as_u64(), from.as_u64(), through.as_u64(), *max_bytes];
                self.record(now, &words, || format!("{speaker} read log {id} for {purpose:?}: {from} to {through}"));
            }
            Effect::Configured { configuration } => {
                let raft_core::Configuration { index, membership } = configuration;
                let words = [26, node, index.as_u64(), of_membership(membership)];
                self.record(now, &words, || format!("{speaker} is in configuration {index}: {membership}"));
            }
            Effect::TakeSnapshot { meta } => {
                let words = [28, node, of_position(meta.last), meta.configuration.index.as_u64()];
                self.record(now, &words, || format!("{speaker} take snapshot {}", meta.last));
            }
            Effect::SendSnapshot { to, meta } => {
                let words = [29, node, to.as_u64(), of_position(meta.last)];
                self.record(now, &words, || format!("{speaker} send snapshot {} to {to}", meta.last));
            }
            Effect::InstallSnapshot { seq, meta } => {
                let words = [30, node, seq.as_u64(), of_position(meta.last)];
                self.record(now, &words, || format!("{speaker} install snapshot #{seq} {}", meta.last));
            }
            Effect::Compact { through } => {
                self.record(now, &[31, node, through.as_u64()], || format!("{speaker} compact through {through}"));
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

fn digest_of_changes(changes: &[Change]) -> u64 {
    changes.iter().fold(changes.len() as u64, |hash, change| match change {
        Change::AddLearner { store, promote } => mix(mix(hash, store.as_u128() as u64), u64::from(*promote)),
        Change::Promote { node } => mix(mix(hash, 2), node.as_u64()),
        Change::Demote { node } => mix(mix(hash, 3), node.as_u64()),
        Change::Remove { node } => mix(mix(hash, 4), node.as_u64()),
    })
}

fn digest_of_outcome(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::ReadReady { index } => mix(1, index.as_u64()),
        Outcome::NotLeader { leader } => mix(2, leader.map_or(0, NodeId::as_u64)),
        Outcome::Busy(_) => 3,
        Outcome::Unknown { leader } => mix(4, leader.map_or(0, NodeId::as_u64)),
        Outcome::StorageFailed => 5,
        Outcome::Changed { configuration, node } => mix(mix(6, configuration.as_u64()), node.map_or(0, NodeId::as_u64)),
        Outcome::NotChanged(_) => 7,
        Outcome::Transferred { leader } => mix(8, leader.map_or(0, NodeId::as_u64)),
        Outcome::NotTransferred(_) => 9,
        Outcome::SnapshotTaken { last } => mix(10, of_position(*last)),
        Outcome::SnapshotFailed => 11,
    }
}

fn digest_of_rpc(rpc: &Rpc) -> u64 {
    let fold = |words: &[u64]| words.iter().fold(rpc.term().as_u64(), |hash, word| mix(hash, *word));
    match rpc {
        Rpc::PreVote { campaign, last, .. } => fold(&[1, campaign.boot.as_u64(), campaign.number, of_position(*last)]),
        Rpc::PreVoteReply { campaign, verdict, .. } => fold(&[2, campaign.number, digest_of_verdict(*verdict)]),
        Rpc::Vote { last, ordered_in, .. } => {
            fold(&[3, of_position(*last), ordered_in.map_or(0, |term| term.as_u64() + 1)])
        }
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
        Rpc::Heartbeat { round, commit, promise, .. } => fold(&[8, round.as_u64(), commit.as_u64(), nanos(*promise)]),
        Rpc::HeartbeatReply { round, matched, verified, granted, .. } => {
            fold(&[9, round.as_u64(), matched.as_u64(), verified.as_u64(), nanos(*granted)])
        }
        Rpc::CommitNotice { commit, .. } => fold(&[10, commit.as_u64()]),
        Rpc::TermOver { .. } => fold(&[11]),
        Rpc::TimeoutNow { .. } => fold(&[12]),
        Rpc::Resigned { .. } => fold(&[13]),
        Rpc::InstallSnapshot(offer) => {
            fold(&[14, offer.round.as_u64(), of_position(offer.meta.last), offer.source.as_u64()])
        }
        Rpc::SnapshotStatus { last, fate, .. } => {
            let fate = match fate {
                SnapshotFate::Received(bytes) => *bytes,
                SnapshotFate::Failed => u64::MAX,
            };
            fold(&[15, of_position(*last), fate])
        }
        Rpc::Regressed { acknowledged, .. } => fold(&[18, of_position(*acknowledged)]),
        Rpc::ReadIndex { id, mode, .. } => {
            fold(&[16, id.boot.as_u64(), id.number, u64::from(*mode == ReadMode::Lease)])
        }
        Rpc::ReadIndexReply { id, index, .. } => {
            fold(&[17, id.boot.as_u64(), id.number, index.map_or(u64::MAX, |index| index.as_u64())])
        }
    }
}
