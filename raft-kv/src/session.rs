//! Layer 2: sessions: what makes a retried write happen once.
//!
//! A client opens a session and numbers its writes. The table remembers the answer to each write
//! until the client says that it has it; a write that arrives again gets the same answer and
//! changes nothing. The table is part of the replicated state, so a new leader knows it too, and
//! everything in it is decided by the log: sessions are named by the index that opened them, and
//! forgotten in the order of the index that used them last. No clock is asked.

use std::collections::BTreeMap;
use std::fmt;

use raft_tokio::core::Index;
use serde::{Deserialize, Serialize};

use crate::command::Answer;
use crate::digest::{Digest, Element, ElementHash, ElementHasher};

/// Names a session: the index of the log entry that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(u64);

impl SessionId {
    /// Wraps a bare number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The bare number, for encoding and printing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Numbers the writes of a session, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(u64);

impl Sequence {
    /// The first write of a session.
    pub const FIRST: Self = Self(1);

    /// Wraps a bare number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The bare number, for encoding and printing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number `count` further on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that a client draws at random for each session that it opens, so that opening can be
/// retried: the same number again gives the same session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(u128);

impl Nonce {
    /// Wraps a bare number.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }
}

/// What the table keeps at most. Part of the machine's definition: every replica must use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions; opening one more forgets the one that was used the longest ago.
    pub sessions_max: usize,
    /// How far a write's number may lie ahead of the lowest one that its client waits for; so
    /// many answers a session can have remembered.
    pub window: u64,
    /// Answers remembered in all; one more forgets the session that was used the longest ago.
    pub answers_max: usize,
}

impl SessionLimits {
    /// 10,000 sessions with 4,096 writes in flight each, but no more than a million answers: some
    /// 200 MB when everything is full.
    pub const DEFAULT: Self = Self { sessions_max: 10_000, window: 4096, answers_max: 1 << 20 };
}

/// The open sessions and the answers that they remember.
///
/// Invariants: `by_nonce` and `by_use` each name every session exactly once; every remembered
/// answer lies in its session's window; the limits hold; the digest is the sum over all sessions
/// and answers.
#[derive(Clone, Debug)]
pub struct Sessions {
    limits: SessionLimits,
    sessions: BTreeMap<SessionId, Session>,
    by_nonce: BTreeMap<Nonce, SessionId>,
    /// Each index of the log touches one session at most, so it names one.
    by_use: BTreeMap<Index, SessionId>,
    answers: usize,
    digest: Digest,
}

/// One client's standing.
#[derive(Clone, Debug)]
struct Session {
    nonce: Nonce,
    used: Index,
    /// Every write below has been answered, and the client has the answer or wants it no more.
    floor: Sequence,
    answers: BTreeMap<Sequence, Remembered>,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    answer: Answer,
    hash: ElementHash,
}

/// A session as a snapshot holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionImage {
    id: SessionId,
    nonce: Nonce,
    used: Index,
    floor: Sequence,
    answers: Vec<(Sequence, Answer)>,
}

/// What to do with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Never seen: execute it, then [`Sessions::remember`] the answer.
    Execute,
    /// Do not execute it; this is the answer.
    Answered(Answer),
}

impl Sessions {
    /// No sessions.
    pub fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            sessions: BTreeMap::new(),
            by_nonce: BTreeMap::new(),
            by_use: BTreeMap::new(),
            answers: 0,
            digest: Digest::default(),
        }
    }

    /// Opens the session of `nonce`, by the entry at index `at`; finds it if it is open already.
    pub fn register(&mut self, at: Index, nonce: Nonce) -> SessionId {
        if let Some(&session) = self.by_nonce.get(&nonce) {
            self.touch(at, session, Sequence::FIRST);
            return session;
        }
        while self.sessions.len() >= self.limits.sessions_max.max(1) {
            self.forget_least_recent();
        }
        let id = SessionId(at.as_u64());
        let session = Session { nonce, used: at, floor: Sequence::FIRST, answers: BTreeMap::new() };
        self.digest.add(session.hash(id));
        self.by_nonce.insert(nonce, id);
        self.by_use.insert(at, id);
        self.sessions.insert(id, session);
        id
    }

    /// Decides about a write, by the entry at index `at`.
    pub fn admit(&mut self, at: Index, id: SessionId, sequence: Sequence, acknowledged: Sequence) -> Admission {
        // Nobody can have the answer to a write that is still on its way.
        let Some(floor) = self.touch(at, id, acknowledged.min(sequence)) else {
            return Admission::Answered(Answer::SessionUnknown);
        };
        let ceiling = floor.plus(self.limits.window);
        if sequence < floor {
            return Admission::Answered(Answer::SequenceStale { floor });
        }
        if sequence >= ceiling {
            return Admission::Answered(Answer::SequenceAhead { ceiling });
        }
        match self.sessions.get(&id).and_then(|session| session.answers.get(&sequence)) {
            Some(remembered) => Admission::Answered(remembered.answer),
            None => Admission::Execute,
        }
    }

    /// Keeps the answer to a write that was just executed.
    ///
    /// # Panics
    /// If the write was not admitted: the machine would have executed it without protection.
    pub fn remember(&mut self, id: SessionId, sequence: Sequence, answer: Answer) {
        let hash = hash_answer(id, sequence, &answer);
        let session = self.sessions.get_mut(&id);
        let replaced = session.map(|session| session.answers.insert(sequence, Remembered { answer, hash }));
        assert!(matches!(replaced, Some(None)), "write {sequence} of session {id} was executed without being admitted");
        self.digest.add(hash);
        self.answers += 1;
        // The session of this write is the most recent one: it goes last.
        while self.answers > self.limits.answers_max.max(1) && self.sessions.len() > 1 {
            self.forget_least_recent();
        }
    }

    /// What the table keeps at most.
    pub(crate) fn limits(&self) -> SessionLimits {
        self.limits
    }

    /// All sessions, in the order of their ids.
    pub(crate) fn images(&self) -> impl Iterator<Item = SessionImage> {
        self.sessions.iter().map(|(id, Session { nonce, used, floor, answers })| SessionImage {
            id: *id,
            nonce: *nonce,
            used: *used,
            floor: *floor,
            answers: answers.iter().map(|(sequence, remembered)| (*sequence, remembered.answer)).collect(),
        })
    }

    /// The table with these sessions; `None` if there can be no such table.
    pub(crate) fn restored(limits: SessionLimits, images: Vec<SessionImage>) -> Option<Self> {
        let mut table = Self::new(limits);
        for SessionImage { id, nonce, used, floor, answers } in images {
            let mut session = Session { nonce, used, floor, answers: BTreeMap::new() };
            table.digest.add(session.hash(id));
            for (sequence, answer) in answers {
                if sequence < floor || sequence >= floor.plus(limits.window) {
                    return None;
                }
                let hash = hash_answer(id, sequence, &answer);
                table.digest.add(hash);
                table.answers += 1;
                if session.answers.insert(sequence, Remembered { answer, hash }).is_some() {
                    return None;
                }
            }
            let is_new = table.sessions.insert(id, session).is_none()
                && table.by_nonce.insert(nonce, id).is_none()
                && table.by_use.insert(used, id).is_none();
            if !is_new {
                return None;
            }
        }
        Some(table)
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The sum of the hashes of everything in the table.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Notes that the entry at `at` used the session, and that its client waits for no answer
    /// below `acknowledged`; returns the floor. `None` if there is no such session.
    fn touch(&mut self, at: Index, id: SessionId, acknowledged: Sequence) -> Option<Sequence> {
        let session = self.sessions.get_mut(&id)?;
        self.digest.remove(session.hash(id));
        self.by_use.remove(&session.used);
        self.by_use.insert(at, id);
        session.used = at;
        session.floor = session.floor.max(acknowledged);
        while let Some(oldest) = session.answers.first_entry().filter(|entry| *entry.key() < session.floor) {
            self.digest.remove(oldest.remove().hash);
            self.answers -= 1;
        }
        self.digest.add(session.hash(id));
        Some(session.floor)
    }

    fn forget_least_recent(&mut self) {
        let Some((_, id)) = self.by_use.pop_first() else { return };
        let Some(session) = self.sessions.remove(&id) else { return };
        self.by_nonce.remove(&session.nonce);
        self.digest.remove(session.hash(id));
        self.answers -= session.answers.len();
        for remembered in session.answers.values() {
            self.digest.remove(remembered.hash);
        }
    }
}

impl Session {
    fn hash(&self, id: SessionId) -> ElementHash {
        ElementHasher::new(Element::Session)
            .number(id.0)
            .bytes(&self.nonce.0.to_le_bytes())
            .number(self.used.as_u64())
            .number(self.floor.0)
            .finish()
    }
}

fn hash_answer(id: SessionId, sequence: Sequence, answer: &Answer) -> ElementHash {
    ElementHasher::new(Element::Answer).number(id.0).number(sequence.0).bytes(&answer.encode()).finish()
}

#[cfg(test)]
mod tests;
