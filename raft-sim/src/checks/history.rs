//! Clients: I13 linearizability by log index, I14 requests end once, I15 acknowledged writes stay.
//!
//! The log is the witness. A write takes effect at its index and a read at the index that its
//! state machine had applied, so no order has to be searched for: it is enough that each read
//! returns what a replay of the committed log has at that index, and that every operation comes
//! later in the log than all that was committed when it was handed to a node. That is a little
//! more than clients can see, and exactly what `ReadIndex` promises.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raft_core::{Busy, Effect, Index, NodeId, Outcome, Position, RequestId, RoleKind, StoreId};

use super::commits::Commits;
use super::logs::Mirrored;
use super::{Step, Verdict, ensure};
use crate::machine::{Command, Key, Registers, value_digest};
use crate::slot;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody has heard of an end.
    Open,
    /// Certain not to happen.
    Refused,
    /// May have happened, or may yet happen.
    Unknown,
    /// Answered, at this index.
    Done(Index),
}

/// One attempt of a client to get one operation done by one node.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    command: Option<Command>,
    key: Key,
    /// What was committed when a node got hold of it; none did yet, if none.
    floor: Option<Index>,
    fate: Fate,
    committed: Option<Index>,
}

/// What an operator wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Other members; the store, if that is all that is to be added.
    Change {
        /// The only store to be added.
        store: Option<StoreId>,
    },
    /// Another leader.
    Transfer,
    /// A snapshot.
    Snapshot {
        /// What the node had applied when it was asked.
        applied: Index,
    },
}

/// What clients asked and were told, beside a replay of the committed log.
#[derive(Debug)]
pub struct History {
    attempts: Vec<Attempt>,
    /// What operators asked; their requests are numbered from [`ERRANDS`] on.
    errands: Vec<Errand>,
    /// What each node owes an answer for.
    owed: Vec<BTreeSet<RequestId>>,
    replay: Registers,
    versions: BTreeMap<Key, Vec<(Index, u64)>>,
    fingerprints: Vec<u64>,
    /// The highest index that an answer has shown to a client.
    shown: Index,
    writes: u64,
    reads: u64,
}

impl History {
    /// No client has asked anything.
    pub fn new(nodes: usize) -> Self {
        Self {
            attempts: Vec::new(),
            errands: Vec::new(),
            owed: vec![BTreeSet::new(); nodes],
            replay: Registers::default(),
            versions: BTreeMap::new(),
            fingerprints: Vec::new(),
            shown: Index::ZERO,
            writes: 0,
            reads: 0,
        }
    }

    /// How many writes were acknowledged.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// How many reads were answered.
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// A client begins an attempt to read `key`.
    pub fn begin_read(&mut self, key: Key) -> RequestId {
        self.begin(key, |_| None)
    }

    /// A client begins an attempt to write; `command` makes the command out of its number.
    pub fn begin_write(&mut self, key: Key, command: impl FnOnce(RequestId) -> Command) -> RequestId {
        self.begin(key, |request| Some(command(request)))
    }

    fn begin(&mut self, key: Key, command: impl FnOnce(RequestId) -> Option<Command>) -> RequestId {
        let request = RequestId::new(self.attempts.len() as u64 + 1);
        let command = command(request);
        self.attempts.push(Attempt { command, key, floor: None, fate: Fate::Open, committed: None });
        request
    }

    /// A node gets hold of an errand.
    pub fn begin_errand(&mut self, node: NodeId, errand: Errand) -> RequestId {
        let request = RequestId::new(ERRANDS + self.errands.len() as u64);
        self.errands.push(errand);
        self.owed[slot(node)].insert(request);
        request
    }

    /// What an operator wanted with this request; none if it is a client's.
    pub fn errand(&self, request: RequestId) -> Option<Errand> {
        let place = request.as_u64().checked_sub(ERRANDS)?;
        self.errands.get(place as usize).copied()
    }

    /// The command of an attempt; none for a read.
    pub fn command(&self, request: RequestId) -> Option<Command> {
        self.attempt(request).and_then(|attempt| attempt.command)
    }

    /// Which register an attempt is about.
    pub fn key(&self, request: RequestId) -> Key {
        self.attempt(request).map(|attempt| attempt.key).unwrap_or_default()
    }

    fn attempt(&self, request: RequestId) -> Option<&Attempt> {
        self.attempts.get(place(request))
    }

    /// A node gets hold of an attempt.
    pub fn on_handed_over(&mut self, node: NodeId, request: RequestId) {
        let committed = self.committed();
        if let Some(attempt) = self.attempts.get_mut(place(request)) {
            attempt.floor = Some(committed);
            self.owed[slot(node)].insert(request);
        }
    }

    fn committed(&self) -> Index {
        Index::new(self.fingerprints.len() as u64)
    }

    /// A client hears that an attempt did not get through, or hears nothing any more.
    pub fn on_given_up(&mut self, request: RequestId, certain_not_to_be: bool) {
        if let Some(attempt) = self.attempts.get_mut(place(request))
            && attempt.fate == Fate::Open
        {
            attempt.fate = if certain_not_to_be { Fate::Refused } else { Fate::Unknown };
        }
    }

    /// Replays what is newly committed.
    pub(super) fn on_committed(&mut self, entries: Vec<(Position, Mirrored)>) -> Verdict {
        for (position, entry) in entries {
            if let Some(command) = entry.command {
                self.on_command(position, command)?;
                self.replay.execute(position, command);
                let digest = value_digest(self.replay.read(command.key()));
                self.versions.entry(command.key()).or_default().push((position.index, digest));
            } else {
                self.replay.skip(position);
            }
            self.fingerprints.push(self.replay.fingerprint());
        }
        Ok(())
    }

    fn on_command(&mut self, position: Position, command: Command) -> Verdict {
        let request = command.attempt();
        let Some(attempt) = self.attempts.get_mut(place(request)) else {
            ensure!(false, Linearizability, "{position} is committed, a write that nobody asked for: {command:?}");
            return Ok(());
        };
        ensure!(
            attempt.command == Some(command),
            Linearizability,
            "{position} is committed with {command:?}; what was asked for is {:?}",
            attempt.command
        );
        ensure!(
            attempt.committed.is_none(),
            RequestsEndOnce,
            "request {request} is committed at {position} after it was at {:?}",
            attempt.committed
        );
        ensure!(
            attempt.fate != Fate::Refused,
            RequestsEndOnce,
            "request {request} was refused as certain not to be, and is committed at {position}"
        );
        ensure!(
            attempt.floor.is_some_and(|floor| position.index > floor),
            Linearizability,
            "request {request} is committed at {position}, but was handed over when {:?} was committed",
            attempt.floor
        );
        attempt.committed = Some(position.index);
        Ok(())
    }

    /// Judges the answers of a step.
    pub(super) fn on_step(&mut self, step: &Step<'_>, commits: &Commits) -> Verdict {
        for effect in step.effects {
            match effect {
                Effect::Apply { tokens, .. } => {
                    for (_, request) in tokens {
                        self.on_ended(step.node, *request)?;
                    }
                }
                Effect::Reply { request, outcome } => {
                    self.on_ended(step.node, *request)?;
                    match self.errand(*request) {
                        Some(errand) => errand_ended(step, *request, errand, outcome, commits)?,
                        None => self.on_outcome(step, *request, outcome)?,
                    }
                }
                Effect::Send { .. }
                | Effect::Persist { .. }
                | Effect::ReadLog { .. }
                | Effect::TakeSnapshot { .. }
                | Effect::SendSnapshot { .. }
                | Effect::InstallSnapshot { .. }
                | Effect::Compact { .. }
                | Effect::Configured { .. }
                | Effect::Observe(_) => {}
            }
        }
        Ok(())
    }

    fn on_ended(&mut self, node: NodeId, request: RequestId) -> Verdict {
        ensure!(
            self.owed[slot(node)].remove(&request),
            RequestsEndOnce,
            "{node} answers request {request}, which it was not asked or has answered"
        );
        Ok(())
    }

    fn on_outcome(&mut self, step: &Step<'_>, request: RequestId, outcome: &Outcome) -> Verdict {
        let node = step.node;
        let Some(attempt) = self.attempts.get_mut(place(request)) else { return Ok(()) };
        let is_read = attempt.command.is_none();
        match outcome {
            Outcome::ReadReady { index } => {
                ensure!(is_read, RequestsEndOnce, "{node} answers the write {request} as if it were a read");
                ensure!(
                    attempt.floor.is_some_and(|floor| *index >= floor),
                    Linearizability,
                    "{node} answers the read {request} as of index {index}; {:?} was committed when it was asked",
                    attempt.floor
                );
                ensure!(
                    *index <= step.after.log.applied,
                    Linearizability,
                    "{node} answers a read as of index {index}, having applied only {}",
                    step.after.log.applied
                );
            }
            Outcome::Unknown { .. } => {
                ensure!(!is_read, RequestsEndOnce, "{node} says of the read {request} that it may have happened");
            }
            Outcome::NotLeader { .. }
            | Outcome::StorageFailed
            | Outcome::Busy(
                Busy::Unsynced
                | Busy::Uncommitted
                | Busy::Proposals
                | Busy::Reads
                | Busy::StorageFull
                | Busy::Transferring,
            ) => {
                ensure!(
                    attempt.committed.is_none(),
                    RequestsEndOnce,
                    "{node} says {outcome:?} to request {request}, which is committed at {:?}",
                    attempt.committed
                );
                attempt.fate = Fate::Refused;
            }
            Outcome::Changed { .. }
            | Outcome::NotChanged(_)
            | Outcome::Transferred { .. }
            | Outcome::NotTransferred(_)
            | Outcome::SnapshotTaken { .. }
            | Outcome::SnapshotFailed => {
                ensure!(false, RequestsEndOnce, "{node} answers the client's request {request} with {outcome:?}");
            }
        }
        Ok(())
    }

    /// A node answers a read with what its state machine holds now.
    ///
    /// # Errors
    /// If a replay of the log has something else at that index, or the past is shown.
    pub fn on_read(&mut self, node: NodeId, request: RequestId, as_of: Index, machine: &Registers) -> Verdict {
        let (key, applied) = (self.key(request), machine.applied());
        ensure!(
            applied >= as_of,
            Linearizability,
            "{node} answers a read as of index {as_of} with a state machine that has applied only {applied}"
        );
        let value = machine.read(key);
        ensure!(
            value_digest(value) == self.replayed(key, applied),
            Linearizability,
            "{node} answers request {request} with register {key} = {value:?} at index {applied}, unlike a replay"
        );
        self.reads += 1;
        self.on_done(request, applied);
        Ok(())
    }

    fn replayed(&self, key: Key, at: Index) -> u64 {
        let versions = self.versions.get(&key).map_or(&[][..], Vec::as_slice);
        let newer = versions.partition_point(|(index, _)| *index <= at);
        newer.checked_sub(1).map_or_else(|| value_digest(&[]), |newest| versions[newest].1)
    }

    /// A node acknowledges a write that its state machine has applied at `index`.
    ///
    /// # Errors
    /// If it is not committed there.
    pub fn on_acknowledged(&mut self, node: NodeId, request: RequestId, index: Index) -> Verdict {
        let committed = self.attempt(request).and_then(|attempt| attempt.committed);
        ensure!(
            committed == Some(index),
            AcknowledgedWrites,
            "{node} acknowledges request {request} at index {index}; it is committed at {committed:?}"
        );
        self.writes += 1;
        self.on_done(request, index);
        Ok(())
    }

    fn on_done(&mut self, request: RequestId, index: Index) {
        self.shown = self.shown.max(index);
        if let Some(attempt) = self.attempts.get_mut(place(request)) {
            attempt.fate = Fate::Done(index);
        }
    }

    pub(super) fn on_applied(&self, node: NodeId, machine: &Registers) -> Verdict {
        let known = match machine.applied().as_u64() {
            0 => Some(0),
            nth => self.fingerprints.get(nth as usize - 1).copied(),
        };
        ensure!(
            known == Some(machine.fingerprint()),
            StateMachineSafety,
            "the state machine of {node} at index {} is not what a replay of the committed log gives",
            machine.applied()
        );
        Ok(())
    }

    /// I17: a snapshot holds in each register what a replay has there at its index.
    pub(super) fn on_snapshot(&self, node: NodeId, bytes: &Bytes) -> Verdict {
        let Some(machine) = Registers::of_image(bytes) else {
            ensure!(false, SnapshotFidelity, "{node} wrote a snapshot that nobody can read");
            return Ok(());
        };
        self.on_applied(node, &machine)?;
        let at = machine.applied();
        let keys = self.versions.keys().filter(|key| self.replayed(**key, at) != value_digest(machine.read(**key)));
        let keys: Vec<_> = keys.collect();
        ensure!(keys.is_empty(), SnapshotFidelity, "{node} wrote a snapshot of {at} unlike a replay in {keys:?}");
        Ok(())
    }

    /// Whether a node owes nobody an answer.
    pub fn is_idle(&self, node: NodeId) -> bool {
        self.owed[slot(node)].is_empty()
    }

    pub(super) fn on_crash(&mut self, node: NodeId) {
        for request in std::mem::take(&mut self.owed[slot(node)]) {
            self.on_given_up(request, false);
        }
    }

    /// Every acknowledged write is in the committed log, where it was said to be.
    pub(super) fn at_end(&self) -> Verdict {
        for (place, attempt) in self.attempts.iter().enumerate() {
            let Fate::Done(index) = attempt.fate else { continue };
            ensure!(
                attempt.command.is_none() || attempt.committed == Some(index),
                AcknowledgedWrites,
                "request {} was acknowledged at index {index} and is {:?} in the end",
                place + 1,
                attempt.committed
            );
            ensure!(
                index <= self.committed() && index <= self.shown,
                AcknowledgedWrites,
                "request {} was answered as of index {index}, but only {} is committed",
                place + 1,
                self.committed()
            );
        }
        Ok(())
    }
}

/// Judges the answer to an operator.
fn errand_ended(step: &Step<'_>, request: RequestId, errand: Errand, outcome: &Outcome, commits: &Commits) -> Verdict {
    let node = step.node;
    let fits = match (errand, outcome) {
        (_, Outcome::NotLeader { .. } | Outcome::StorageFailed) => !matches!(errand, Errand::Snapshot { .. }),
        (Errand::Change { store }, Outcome::Changed { configuration, node: added }) => {
            // A node that has restarted calls it by where its log begins.
            let known = commits.configuration_at(*configuration);
            let is_member = |store| known.membership.member_by_store(store).map(|member| member.node) == *added;
            *configuration <= commits.last() && store.is_none_or(is_member)
        }
        (
            Errand::Change { .. },
            Outcome::NotChanged(_) | Outcome::Unknown { .. } | Outcome::Busy(Busy::StorageFull),
        ) => true,
        (Errand::Transfer, Outcome::Transferred { .. }) => {
            step.after.role != RoleKind::Leader || step.after.hard_state.term > step.before.hard_state.term
        }
        (Errand::Transfer, Outcome::NotTransferred(_)) => true,
        (Errand::Snapshot { applied }, Outcome::SnapshotTaken { last }) => {
            let newest = step.disks[slot(node)].newest_snapshot().map(|snapshot| snapshot.meta.last);
            // One that is being installed has arrived, and counts.
            last.index >= applied && (newest >= Some(*last) || step.after.log.base == *last)
        }
        (Errand::Snapshot { .. }, Outcome::SnapshotFailed | Outcome::Busy(Busy::Reads)) => true,
        _ => false,
    };
    ensure!(fits, RequestsEndOnce, "{node} answers request {request}, {errand:?}, with {outcome:?}");
    Ok(())
}

/// The requests of operators are numbered from here on.
const ERRANDS: u64 = 1 << 40;

fn place(request: RequestId) -> usize {
    // Number 0 is nobody's; it wraps to a place that no attempt has.
    request.as_u64().wrapping_sub(1) as usize
}
