//! Layer 1: the replicated state machine, as whoever applies entries sees it.

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
}
