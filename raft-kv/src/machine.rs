//! Layer 3: the replicated state machine: the store behind its sessions.
//!
//! Pure: its state is a function of the commands that it was given and their places in the log.
//! The simulator runs this very code.

use bytes::Bytes;
use raft_tokio::core::{Index, Position, RestoreError, StateMachine};

use crate::command::{Answer, Command, Operation};
use crate::digest::StateHash;
use crate::image::Image;
use crate::session::{Admission, SessionLimits, Sessions};
use crate::store::{Change, Mismatch, Store};

/// What every node of the cluster has a replica of.
#[derive(Clone, Debug)]
pub struct Machine {
    store: Store,
    sessions: Sessions,
    applied: Position,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// Before the first command.
    pub fn new() -> Self {
        Self::with_limits(SessionLimits::DEFAULT)
    }

    /// With other limits, for tests that want to reach them.
    pub fn with_limits(limits: SessionLimits) -> Self {
        Self { store: Store::new(), sessions: Sessions::new(limits), applied: Position::ZERO }
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The sessions, for reading.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The position of the last command applied. Two machines that stand at the same position
    /// have the same [`hash`](Self::hash).
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// A digest of the whole content: keys, values, revisions, versions, sessions and remembered
    /// answers. It is kept up to date by every command; asking costs nothing.
    pub fn hash(&self) -> StateHash {
        self.store.digest().and(self.sessions.digest())
    }

    fn execute(&mut self, at: Index, command: Command) -> Answer {
        match command {
            Command::Register { nonce } => Answer::Registered { session: self.sessions.register(at, nonce) },
            Command::Write { session, sequence, acknowledged, operation } => {
                match self.sessions.admit(at, session, sequence, acknowledged) {
                    Admission::Answered(answer) => answer,
                    Admission::Execute => {
                        let answer = self.change(operation);
                        self.sessions.remember(session, sequence, answer);
                        answer
                    }
                }
            }
        }
    }

    fn change(&mut self, operation: Operation) -> Answer {
        let changed = match operation {
            Operation::Put { key, value, if_revision } => self
                .store
                .put(key, value, if_revision)
                .map(|Change { revision, previous }| Answer::Put { revision, previous }),
            Operation::Delete { key, if_revision } => self
                .store
                .delete(&key, if_revision)
                .map(|Change { revision, previous }| Answer::Deleted { revision, previous }),
        };
        changed
            .unwrap_or_else(|Mismatch { current }| Answer::CompareFailed { revision: self.store.revision(), current })
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, position: Position, command: &Bytes) -> Bytes {
        self.applied = position;
        let answer = match Command::decode(command) {
            Ok(command) => self.execute(position.index, command),
            // Every replica finds the same bytes and answers alike.
            Err(error) => Answer::Malformed(error),
        };
        answer.encode()
    }

    fn snapshot(&self) -> Bytes {
        let Self { store, sessions, applied } = self;
        let (pairs, sessions) = (store.pairs().collect(), sessions.images().collect());
        Image { applied: *applied, revision: store.revision(), pairs, sessions, hash: self.hash() }.encode()
    }

    fn restore(&mut self, snapshot: &Bytes) -> Result<(), RestoreError> {
        let Image { applied, revision, pairs, sessions, hash } = Image::decode(snapshot)?;
        let contradiction = |what: &str| RestoreError { reason: format!("its {what} contradict themselves") };
        let store = Store::restored(revision, pairs).ok_or_else(|| contradiction("keys"))?;
        let sessions = Sessions::restored(self.sessions.limits(), sessions).ok_or_else(|| contradiction("sessions"))?;
        let restored = Self { store, sessions, applied };
        let found = restored.hash();
        if found != hash {
            return Err(RestoreError { reason: format!("its content has the hash {found}, not {hash}") });
        }
        *self = restored;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
