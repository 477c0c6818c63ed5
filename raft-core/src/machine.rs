//! Layer 1: the replicated state machine, as whoever applies entries sees it.

use alloc::string::String;

use bytes::Bytes;

use crate::types::Position;

/// What a cluster replicates. Every replica applies the same commands in the same order, so
/// `apply` must depend on nothing but the machine's state and its arguments: no clock, no
/// randomness, no hash order.
///
/// The core never calls it. It is defined here because everything that executes
/// [`Effect::Apply`](crate::Effect::Apply) needs the same notion of it: the runtime for servers,
/// the simulator for tests.
pub trait StateMachine {
    /// Applies the command at `position` and returns the answer for whoever proposed it.
    ///
    /// Called exactly once for each position in one life of the machine, in order. A command
    /// that makes no sense is answered with an error in the machine's own terms; every replica
    /// answers alike.
    fn apply(&mut self, position: Position, command: &Bytes) -> Bytes;

    /// Writes down all that [`Self::apply`] and its answers depend on. Replicas that have applied the same
    /// commands write the same bytes.
    fn snapshot(&self) -> Bytes;

    /// Becomes what the machine was that wrote `snapshot`, whatever this one was before.
    ///
    /// # Errors
    /// If these are not bytes that [`Self::snapshot`] has written; then the machine is as before.
    fn restore(&mut self, snapshot: &Bytes) -> Result<(), RestoreError>;
}

/// A snapshot that a state machine cannot read: another version wrote it, or it was damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot cannot be read: {reason}")]
pub struct RestoreError {
    /// What is wrong with it.
    pub reason: String,
}
