//! What will happen, in the order in which it will.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use raft_core::Time;

/// A queue of future events. Two of the same moment come out as they went in, so that a run
/// depends on nothing but its seed.
#[derive(Debug)]
pub struct Schedule<E> {
    now: Time,
    scheduled: u64,
    heap: BinaryHeap<Planned<E>>,
}

#[derive(Debug)]
struct Planned<E> {
    at: Time,
    sequence: u64,
    event: E,
}

impl<E> Schedule<E> {
    /// Nothing planned, at the origin of time.
    pub fn new() -> Self {
        Self { now: Time::ZERO, scheduled: 0, heap: BinaryHeap::new() }
    }

    /// The moment of the event that came out last.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Plans `event`; what should have happened already happens now.
    pub fn plan(&mut self, at: Time, event: E) {
        let at = at.max(self.now);
        self.heap.push(Planned { at, sequence: self.scheduled, event });
        self.scheduled += 1;
    }

    /// The next event if it comes no later than `until`; otherwise time stands at `until`.
    pub fn pop(&mut self, until: Time) -> Option<E> {
        if self.heap.peek().is_none_or(|planned| planned.at > until) {
            self.now = self.now.max(until);
            return None;
        }
        let planned = self.heap.pop()?;
        self.now = planned.at;
        Some(planned.event)
    }
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self::new()
    }
}

// The heap gives its greatest element first, so the earliest must be the greatest.
impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Planned<E> {}
