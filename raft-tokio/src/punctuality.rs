//! Whether the node runs when it has to: what an operator of a crowded machine is told.
//!
//! Raft's timeouts measure how long others are silent. A process that does not get the processor
//! is silent too, and hears nobody: on a machine with too much to do, leaders change although
//! nothing has failed. Nobody but the driver can see the difference.

use std::time::{Duration, Instant};

use raft_core::{NodeId, Timing};

use crate::throttle::Throttle;
use crate::transport;

/// What happens around a node's core, and the core does not know; see
/// [`Node::runtime_status`](crate::Node::runtime_status).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// How often the node ran a whole heartbeat interval later than it had asked to: the machine
    /// has too much to do, or the process was stopped. Rises on several nodes at once if they
    /// share a machine that was paused. Elections that nothing else explains come from here.
    pub late_wakeups: u64,
    /// By how much at worst.
    pub lateness_max: Duration,
    /// How often one turn of the node's task took longer than a heartbeat interval: mostly a
    /// slow [`apply`](raft_core::StateMachine::apply). Nobody is heard or answered meanwhile.
    pub long_turns: u64,
    /// How long at worst.
    pub turn_max: Duration,
    /// What the transport has dropped and refused.
    pub transport: transport::Counters,
}

/// Compares when the driver runs with when it should.
pub(crate) struct Punctuality {
    me: NodeId,
    tolerance: Duration,
    seen: RuntimeStatus,
    throttle: Throttle,
}

impl Punctuality {
    pub(crate) fn new(me: NodeId, timing: Timing) -> Self {
        let tolerance = timing.heartbeat_interval;
        Self { me, tolerance, seen: RuntimeStatus::default(), throttle: Throttle::default() }
    }

    /// Whether that is later than can be passed over: by now others may have missed something.
    fn is_late(&self, overdue: Duration) -> bool {
        overdue >= self.tolerance
    }

    /// The driver runs again, so long after it should have.
    pub(crate) fn on_woken(&mut self, overdue: Duration) {
        if !self.is_late(overdue) {
            return;
        }
        self.seen.late_wakeups += 1;
        self.seen.lateness_max = self.seen.lateness_max.max(overdue);
        if let Some(suppressed) = self.throttle.admit("late", Instant::now()) {
            let (late_ms, total) = (overdue.as_millis(), self.seen.late_wakeups);
            tracing::warn!(
                late_ms,
                total,
                suppressed,
                "{} ran {late_ms} ms too late: this machine gives it too little processor time, and leaders may \
                 change because of it; give it more, or choose longer timeouts",
                self.me
            );
        }
    }

    /// The driver was busy for so long, and heard nobody.
    pub(crate) fn on_turn(&mut self, took: Duration) {
        if !self.is_late(took) {
            return;
        }
        self.seen.long_turns += 1;
        self.seen.turn_max = self.seen.turn_max.max(took);
        if let Some(suppressed) = self.throttle.admit("turn", Instant::now()) {
            let (took_ms, total) = (took.as_millis(), self.seen.long_turns);
            tracing::warn!(
                took_ms,
                total,
                suppressed,
                "{} was busy for {took_ms} ms in one turn, and heard nobody meanwhile: the state machine is slow, or \
                 this machine gives the process too little processor time",
                self.me
            );
        }
    }

    pub(crate) fn status(&self, transport: transport::Counters) -> RuntimeStatus {
        RuntimeStatus { transport, ..self.seen }
    }
}
