//! Layer 3: what leaves this server, and what may not leave yet.
//!
//! Whatever promises something is held here until the disk has it: vote requests, granted votes,
//! append acknowledgements (contract D1). What promises nothing leaves at once (D2). Nobody who
//! executes effects can get this order wrong, because the promise is not among the effects yet.
//!
//! ```text
//!   step 1: grant a vote ──▶ Persist #7 ───────▶ disk
//!                            reply held at #7       │
//!   step 2:                      ◀── Persisted #7 ──┘
//!                            Send reply
//! ```
//!
//! Each write has a number of its own, so a late completion of an overwritten entry cannot be
//! taken for the completion of its successor at the same index (the ABA race, T103).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::durable::SnapshotMeta;
use crate::effect::{Effect, Observation, Outcome};
use crate::entry::Entries;
use crate::log::Log;
use crate::message::Rpc;
use crate::types::{HardState, Index, NodeId, RequestId, Round, Term, Time, WriteSeq};

/// Effects on their way out, writes under way, and promises that wait for them.
///
/// Invariants: `persisted <= written`; a held promise's stamp is above `persisted`, or its write
/// has not been issued yet; writes under way are in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// What leaves with this step.
    effects: Vec<Effect>,
    /// The newest write issued.
    written: WriteSeq,
    /// The newest write known to be durable.
    persisted: WriteSeq,
    /// The newest write that carried term and vote.
    hard_state_written: WriteSeq,
    /// The newest write that replaced the log.
    install_written: WriteSeq,
    /// Writes under way.
    writes: VecDeque<Write>,
    unsynced_bytes: u64,
    /// What the next write has to carry.
    staged: Staged,
    /// Vote requests and granted votes, oldest first.
    held: VecDeque<Held>,
    /// The acknowledgement owed to the leader.
    ack: Option<Ack>,
}

/// A write under way, and how far it makes the log durable.
#[derive(Debug)]
struct Write {
    seq: WriteSeq,
    last: Index,
    bytes: u64,
    issued: Time,
}

/// What has changed in memory since the last write was issued.
#[derive(Debug, Default)]
struct Staged {
    hard_state: bool,
    /// The log was replaced, and what is staged besides comes after.
    install: Option<Arc<SnapshotMeta>>,
    entries_from: Option<Index>,
}

/// A message that leaves when `stamp` is durable; not stamped yet while `None`.
#[derive(Debug)]
struct Held {
    stamp: Option<WriteSeq>,
    to: NodeId,
    rpc: Rpc,
}

/// One acknowledgement for everything taken from the leader of a term: it leaves as far as the
/// log is durable, and again whenever that is further (contract D4).
#[derive(Debug)]
struct Ack {
    to: NodeId,
    term: Term,
    round: Round,
    matched: Index,
    /// What the leader has been told, or knew before.
    reported: Index,
    /// Whether an append waits for its answer, even if that says nothing new.
    owed: bool,
}

impl Outbox {
    /// Lends the caller's vector for the length of a step, so that no effect is copied twice.
    pub(crate) fn open(&mut self, effects: Vec<Effect>) {
        self.effects = effects;
    }

    /// Gives it back, filled.
    pub(crate) fn close(&mut self) -> Vec<Effect> {
        core::mem::take(&mut self.effects)
    }

    /// Sends what promises nothing.
    pub(crate) fn send(&mut self, to: NodeId, rpc: Rpc) {
        self.effects.push(Effect::Send { to, rpc });
    }

    pub(crate) fn reply(&mut self, request: RequestId, outcome: Outcome) {
        self.effects.push(Effect::Reply { request, outcome });
    }

    pub(crate) fn observe(&mut self, observation: Observation) {
        self.effects.push(Effect::Observe(observation));
    }

    pub(crate) fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Sends what promises something, once everything staged until the end of this step is durable.
    pub(crate) fn hold(&mut self, to: NodeId, rpc: Rpc) {
        if let Rpc::VoteReply { .. } = rpc {
            // One grant a peer is enough: it needs the newest, and cannot make us hoard.
            self.held.retain(|held| held.to != to || !matches!(held.rpc, Rpc::VoteReply { .. }));
        }
        self.held.push_back(Held { stamp: None, to, rpc });
    }

    /// Acknowledges the leader's log up to `matched`, as soon and as far as it is durable.
    /// `durable` is how far that is already.
    pub(crate) fn hold_ack(&mut self, to: NodeId, term: Term, round: Round, matched: Index, durable: Index) {
        match &mut self.ack {
            Some(ack) if ack.to == to && ack.term == term => {
                ack.round = ack.round.max(round);
                ack.matched = ack.matched.max(matched);
                ack.owed = true;
            }
            _ => self.ack = Some(Ack { to, term, round, matched, reported: durable.min(matched), owed: true }),
        }
    }

    /// Term or vote has changed.
    pub(crate) fn stage_hard_state(&mut self) {
        self.staged.hard_state = true;
    }

    /// The log has changed from `first` on.
    pub(crate) fn stage_entries(&mut self, first: Index) {
        let from = self.staged.entries_from.map_or(first, |from| from.min(first));
        self.staged.entries_from = Some(from);
    }

    /// The log was replaced by a snapshot: nothing of it that was written, or promised, counts.
    pub(crate) fn stage_install(&mut self, meta: Arc<SnapshotMeta>) {
        self.on_truncated(Index::ZERO);
        self.ack = None;
        self.staged.entries_from = None;
        self.staged.install = Some(meta);
    }

    /// Whether a snapshot that replaces the log is not on stable storage yet.
    pub(crate) fn is_installing(&self) -> bool {
        self.staged.install.is_some() || self.install_written > self.persisted
    }

    /// The log was cut before `from`: nothing above it that was written, or promised, counts any
    /// more (contract D4).
    pub(crate) fn on_truncated(&mut self, from: Index) {
        for write in &mut self.writes {
            write.last = write.last.min(from.prev());
        }
        if let Some(ack) = &mut self.ack {
            ack.matched = ack.matched.min(from.prev());
        }
    }

    /// The term has changed: an acknowledgement to the old leader is void, and so are our own
    /// requests for votes. Grants stay: a vote given in an older term was given.
    pub(crate) fn on_new_term(&mut self, term: Term) {
        self.ack = None;
        self.held.retain(|held| !matches!(held.rpc, Rpc::Vote { .. }) || held.rpc.term() == term);
    }

    /// Issues one write for everything staged, if anything is.
    pub(crate) fn persist(&mut self, hard_state: HardState, log: &Log, now: Time) {
        let Staged { hard_state: hard_state_changed, install, entries_from } = core::mem::take(&mut self.staged);
        let installs = install.is_some();
        if let Some(meta) = install {
            // Term and vote first: after a crash in between the disk must not hold a log of a later term.
            if hard_state_changed {
                self.written = self.written.next();
                self.hard_state_written = self.written;
                let (seq, entries) = (self.written, Entries::EMPTY);
                self.effects.push(Effect::Persist { seq, hard_state: Some(Box::new(hard_state)), entries });
            }
            self.written = self.written.next();
            self.install_written = self.written;
            let last = meta.last.index;
            self.writes.push_back(Write { seq: self.written, last, bytes: 0, issued: now });
            self.effects.push(Effect::InstallSnapshot { seq: self.written, meta });
        }
        let hard_state_changed = hard_state_changed && !installs;
        if hard_state_changed || entries_from.is_some() {
            self.written = self.written.next();
            let last = log.last().index;
            let entries = entries_from.map_or_else(Default::default, |from| {
                // What is not durable is pinned in memory (D6), and staged entries are not durable.
                log.entries(from, last, u64::MAX).expect("staged entries are in memory")
            });
            let bytes = entries.cost();
            self.unsynced_bytes = self.unsynced_bytes.saturating_add(bytes);
            // Terms can rise for as long as a disk hangs; what adds nothing to the log needs no place here.
            if bytes > 0 || self.writes.is_empty() {
                self.writes.push_back(Write { seq: self.written, last, bytes, issued: now });
            }
            if hard_state_changed {
                self.hard_state_written = self.written;
            }
            let hard_state = hard_state_changed.then(|| Box::new(hard_state));
            self.effects.push(Effect::Persist { seq: self.written, hard_state, entries });
        }
        let stamp = self.written;
        self.held.iter_mut().filter(|held| held.stamp.is_none()).for_each(|held| held.stamp = Some(stamp));
    }

    /// Everything up to `seq` is on stable storage. Returns how far the log is durable by that.
    ///
    /// # Panics
    /// If `seq` was never issued: the driver has made it up.
    pub(crate) fn on_persisted(&mut self, seq: WriteSeq) -> Option<Index> {
        assert!(seq <= self.written, "write {seq} reported as durable, but only {} were issued", self.written);
        self.persisted = self.persisted.max(seq);
        let mut durable = None;
        while let Some(write) = self.writes.front().filter(|write| write.seq <= seq) {
            durable = Some(write.last);
            self.unsynced_bytes = self.unsynced_bytes.saturating_sub(write.bytes);
            self.writes.pop_front();
        }
        durable
    }

    /// Lets go of every promise that the disk now covers.
    pub(crate) fn release(&mut self, durable: Index) {
        let durable = if self.is_installing() { Index::ZERO } else { durable };
        let persisted = self.persisted;
        while self.held.front().is_some_and(|held| held.stamp.is_some_and(|stamp| stamp <= persisted)) {
            self.effects.extend(self.held.pop_front().map(|Held { to, rpc, .. }| Effect::Send { to, rpc }));
        }
        let hard_state_durable = self.is_hard_state_durable();
        if let Some(ack) = self.ack.as_mut().filter(|_| hard_state_durable) {
            let matched = ack.matched.min(durable);
            let complete = matched == ack.matched;
            if matched > ack.reported || (complete && ack.owed) {
                let rpc = Rpc::AppendReply { term: ack.term, round: ack.round, matched };
                self.effects.push(Effect::Send { to: ack.to, rpc });
                ack.reported = matched;
                ack.owed &= !complete;
            }
        }
    }

    /// Whether the newest term and vote are on stable storage.
    pub(crate) fn is_hard_state_durable(&self) -> bool {
        !self.staged.hard_state && self.hard_state_written <= self.persisted
    }

    /// When the oldest write under way was issued.
    pub(crate) fn writing_since(&self) -> Option<Time> {
        self.writes.front().map(|write| write.issued)
    }

    /// Bytes of entries handed to the log writer and not yet durable.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// Promises that wait for the disk.
    pub(crate) fn held(&self) -> usize {
        self.held.len().saturating_add(usize::from(self.ack.as_ref().is_some_and(|ack| ack.owed)))
    }

    /// The newest write issued, and the newest one known to be durable.
    pub(crate) fn writes(&self) -> (WriteSeq, WriteSeq) {
        (self.written, self.persisted)
    }

    /// Storage has failed: what is held will never leave.
    pub(crate) fn on_storage_failed(&mut self) {
        self.held.clear();
        self.ack = None;
    }
}
