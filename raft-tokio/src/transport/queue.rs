//! What waits to be sent to one peer: two bounded queues and room for one snapshot, filled by
//! whoever calls `send`, emptied by the peer's link.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use raft_core::{Class, Rpc};
use tokio::sync::Notify;

use super::Limits;
use super::snapshot::Outgoing;

/// The messages that wait for one peer.
///
/// Invariants: neither queue exceeds its limits; once a bulk message was dropped, all that were
/// queued before it are dropped too, and `bulk_lost` holds until the link has reported it.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    limits: QueueLimits,
    urgent_added: Notify,
    bulk_added: Notify,
    bulk_dropped: Notify,
    snapshot_added: Notify,
}

#[derive(Clone, Copy, Debug)]
struct QueueLimits {
    urgent: usize,
    bulk: usize,
    bulk_bytes: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    urgent: VecDeque<Rpc>,
    bulk: VecDeque<Rpc>,
    bulk_bytes: u64,
    bulk_lost: bool,
    snapshot: Option<Outgoing>,
}

/// What a message did to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Queued,
    /// It waits, and the oldest urgent one was dropped for it.
    DroppedOldest,
    /// It was dropped, and with it so many bulk messages.
    DroppedBulk(usize),
}

impl Queue {
    pub(super) fn new(limits: &Limits) -> Self {
        let Limits { urgent_queue_max, bulk_queue_max, bulk_queue_bytes_max, .. } = limits;
        Self {
            waiting: Mutex::default(),
            limits: QueueLimits { urgent: *urgent_queue_max, bulk: *bulk_queue_max, bulk_bytes: *bulk_queue_bytes_max },
            urgent_added: Notify::new(),
            bulk_added: Notify::new(),
            bulk_dropped: Notify::new(),
            snapshot_added: Notify::new(),
        }
    }

    /// Adds a message; never waits.
    pub(super) fn push(&self, rpc: Rpc) -> Pushed {
        let mut waiting = self.lock();
        match rpc.class() {
            Class::Urgent => {
                let full = waiting.urgent.len() >= self.limits.urgent;
                if full {
                    waiting.urgent.pop_front();
                }
                waiting.urgent.push_back(rpc);
                drop(waiting);
                self.urgent_added.notify_one();
                if full { Pushed::DroppedOldest } else { Pushed::Queued }
            }
            Class::Bulk => {
                let bytes = waiting.bulk_bytes.saturating_add(cost(&rpc));
                // One message may exceed the limit of bytes, or it could never be sent.
                let full = waiting.bulk.len() >= self.limits.bulk
                    || (bytes > self.limits.bulk_bytes && !waiting.bulk.is_empty());
                if full {
                    // Appends build on each other: with one lost, the others are of little use.
                    let dropped = waiting.drop_bulk() + 1;
                    waiting.bulk_lost = true;
                    drop(waiting);
                    self.bulk_dropped.notify_one();
                    return Pushed::DroppedBulk(dropped);
                }
                waiting.bulk_bytes = bytes;
                waiting.bulk.push_back(rpc);
                drop(waiting);
                self.bulk_added.notify_one();
                Pushed::Queued
            }
        }
    }

    /// Adds a snapshot; never waits. True if it takes the place of one that waited.
    pub(super) fn push_snapshot(&self, snapshot: Outgoing) -> bool {
        let replaced = self.lock().snapshot.replace(snapshot);
        self.snapshot_added.notify_one();
        replaced.is_some()
    }

    /// Waits for a snapshot and takes it. Loses nothing when it is dropped half-way.
    pub(super) async fn take_snapshot(&self) -> Outgoing {
        loop {
            if let Some(snapshot) = self.lock().snapshot.take() {
                return snapshot;
            }
            self.snapshot_added.notified().await;
        }
    }

    /// Waits for urgent messages and takes them all.
    pub(super) async fn take_urgent(&self, into: &mut VecDeque<Rpc>) {
        loop {
            self.try_take_urgent(into);
            if !into.is_empty() {
                return;
            }
            self.urgent_added.notified().await;
        }
    }

    /// Takes the urgent messages that wait.
    pub(super) fn try_take_urgent(&self, into: &mut VecDeque<Rpc>) {
        std::mem::swap(&mut self.lock().urgent, into);
    }

    /// Waits for bulk messages and takes the first, and those behind it that fit into `bytes` with it.
    pub(super) async fn take_bulk(&self, bytes: u64, into: &mut VecDeque<Rpc>) {
        loop {
            {
                let mut waiting = self.lock();
                let mut taken = 0_u64;
                while let Some(rpc) = waiting.bulk.front() {
                    let cost = cost(rpc);
                    taken = taken.saturating_add(cost);
                    if taken > bytes && !into.is_empty() {
                        break;
                    }
                    waiting.bulk_bytes = waiting.bulk_bytes.saturating_sub(cost);
                    into.extend(waiting.bulk.pop_front());
                }
            }
            if !into.is_empty() {
                return;
            }
            self.bulk_added.notified().await;
        }
    }

    /// Returns once for each time that the bulk queue overflowed, or was lost before with nobody waiting.
    pub(super) async fn overflowed(&self) {
        loop {
            let dropped = self.bulk_dropped.notified();
            if std::mem::take(&mut self.lock().bulk_lost) {
                return;
            }
            dropped.await;
        }
    }

    /// Drops the bulk messages: one before them could not be sent.
    pub(super) fn lose_bulk(&self) {
        let mut waiting = self.lock();
        waiting.drop_bulk();
        waiting.bulk_lost = true;
        drop(waiting);
        self.bulk_dropped.notify_one();
    }

    /// Drops everything, because it is too old by the time that a connection stands again.
    /// True if bulk messages were lost, now or before, or a snapshot, and nobody was told.
    pub(super) fn clear(&self) -> bool {
        let mut waiting = self.lock();
        waiting.urgent.clear();
        let dropped = waiting.drop_bulk();
        let snapshot = waiting.snapshot.take();
        std::mem::take(&mut waiting.bulk_lost) || dropped > 0 || snapshot.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn drop_bulk(&mut self) -> usize {
        self.bulk_bytes = 0;
        std::mem::take(&mut self.bulk).len()
    }
}

/// What a bulk message counts against the limit of bytes.
pub(super) fn cost(rpc: &Rpc) -> u64 {
    match rpc {
        Rpc::Append(append) => append.entries.cost(),
        Rpc::PreVote { .. }
        | Rpc::PreVoteReply { .. }
        | Rpc::Vote { .. }
        | Rpc::VoteReply { .. }
        | Rpc::AppendReply { .. }
        | Rpc::AppendRejected(_)
        | Rpc::Heartbeat { .. }
        | Rpc::HeartbeatReply { .. }
        | Rpc::CommitNotice { .. }
        | Rpc::TermOver { .. }
        | Rpc::TimeoutNow { .. }
        | Rpc::Resigned { .. }
        | Rpc::InstallSnapshot(_)
        | Rpc::SnapshotStatus { .. }
        | Rpc::Regressed { .. }
        | Rpc::ReadIndex { .. }
        | Rpc::ReadIndexReply { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use raft_core::{Append, Entries, Entry, Index, Payload, Position, Round, Term};

    use super::*;

    fn queue() -> Queue {
        Queue::new(&Limits { urgent_queue_max: 2, bulk_queue_max: 3, bulk_queue_bytes_max: 1_000, ..Limits::DEFAULT })
    }

    fn urgent(term: u64) -> Rpc {
        Rpc::TermOver { term: Term::new(term) }
    }

    fn bulk(round: u64, bytes: usize) -> Rpc {
        let payload = Payload::Command(Bytes::from(vec![0; bytes]));
        let entry = Entry { term: Term::new(1), index: Index::new(round), payload };
        let entries = Entries::new(vec![entry]).expect("because one entry is in order");
        let (term, round) = (Term::new(1), Round::new(round));
        Rpc::Append(Arc::new(Append { term, round, prev: Position::ZERO, commit: Index::ZERO, entries }))
    }

    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    fn taken(queue: &Queue, bytes: u64) -> usize {
        let mut into = VecDeque::new();
        ready(queue.take_bulk(bytes, &mut into));
        into.len()
    }

    #[test]
    fn the_oldest_urgent_message_makes_room() {
        let queue = queue();
        let pushed: Vec<_> = (1..=3).map(|term| queue.push(urgent(term))).collect();
        assert_eq!(pushed, [Pushed::Queued, Pushed::Queued, Pushed::DroppedOldest]);
        let mut into = VecDeque::new();
        queue.try_take_urgent(&mut into);
        assert_eq!(into, [urgent(2), urgent(3)]);
    }

    #[test]
    fn rule_r5_a_bulk_queue_that_overflows_is_dropped_whole_and_told_once() {
        let queue = queue();
        for round in 1..=3 {
            assert_eq!(queue.push(bulk(round, 10)), Pushed::Queued);
        }
        assert_eq!(ready(queue.overflowed()), None);
        assert_eq!(queue.push(bulk(4, 10)), Pushed::DroppedBulk(4));
        assert_eq!(taken(&queue, 1_000), 0);
        assert_eq!(ready(queue.overflowed()), Some(()));
        assert_eq!(ready(queue.overflowed()), None);
        assert_eq!(queue.push(bulk(5, 10)), Pushed::Queued, "the queue is usable again");
    }

    #[test]
    fn bytes_are_limited_but_one_large_message_passes() {
        let queue = queue();
        assert_eq!(queue.push(bulk(1, 5_000)), Pushed::Queued);
        assert_eq!(queue.push(bulk(2, 10)), Pushed::DroppedBulk(2));
        assert_eq!(queue.push(bulk(3, 400)), Pushed::Queued);
        assert_eq!(queue.push(bulk(4, 400)), Pushed::Queued);
        assert_eq!(queue.push(bulk(5, 400)), Pushed::DroppedBulk(3));
    }

    #[test]
    fn a_batch_is_taken_up_to_its_bytes_but_at_least_one() {
        let queue = queue();
        for round in 1..=3 {
            queue.push(bulk(round, 100));
        }
        assert_eq!([taken(&queue, 300), taken(&queue, 1), taken(&queue, 1)], [2, 1, 0]);
    }

    #[test]
    fn clearing_tells_whether_something_was_lost() {
        let queue = queue();
        assert!(!queue.clear());
        queue.push(urgent(1));
        assert!(!queue.clear(), "urgent messages may be lost");
        queue.push(bulk(1, 10));
        assert!(queue.clear());
        assert!(!queue.clear());
    }
}
