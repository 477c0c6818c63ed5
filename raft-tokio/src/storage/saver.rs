//! The thread that writes, reads and removes snapshots, so that the log's own never waits for them.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use raft_core::{NodeId, Position, SnapshotMeta};

use super::error::StorageError;
use super::snapshots::Snapshots;
use super::writer::{Completion, Report};

/// More than there are peers.
const LOADS_MAX: usize = 64;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Task {
    /// Write down a snapshot of the own machine.
    Save { meta: SnapshotMeta, data: Bytes },
    /// Write down one that has arrived.
    Receive { meta: SnapshotMeta, data: Bytes },
    /// Read one back, to be sent.
    Load { to: NodeId, last: Position },
    /// Remove what nobody needs.
    Sweep,
    /// Nothing is done, because something newer came: only say so.
    Refuse(Completion),
}

/// A queue between the driver and the log's thread, which never wait, and the saver.
///
/// Invariant: at most one own snapshot and one that has arrived wait, with all their bytes; at most
/// one question a peer.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    waiting: Mutex<Waiting>,
    added: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    tasks: VecDeque<Task>,
    closed: bool,
}

impl Tasks {
    /// Adds a task. One of the same kind that has not begun gives way to it.
    pub(super) fn add(&self, task: Task) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        let same = |other: &Task| match (&task, other) {
            (Task::Load { to, .. }, Task::Load { to: other, .. }) => to == other,
            (task, other) => std::mem::discriminant(task) == std::mem::discriminant(other),
        };
        let is_load = |task: &Task| matches!(task, Task::Load { .. });
        match waiting.tasks.iter().position(same).filter(|_| !matches!(task, Task::Refuse(_))) {
            Some(nth) => {
                if let Some(older) = waiting.tasks.remove(nth).and_then(refusal) {
                    waiting.tasks.push_back(Task::Refuse(older));
                }
            }
            // Whoever wants to send it asks again.
            None if is_load(&task) && waiting.tasks.iter().filter(|task| is_load(task)).count() >= LOADS_MAX => return,
            None => {}
        }
        waiting.tasks.push_back(task);
        drop(waiting);
        self.added.notify_one();
    }

    /// No more will come: the thread ends when it has done what waits.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.added.notify_one();
    }

    fn take(&self) -> Option<Task> {
        let nothing = |waiting: &mut Waiting| waiting.tasks.is_empty() && !waiting.closed;
        self.added.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner).tasks.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to say about a task that was not, or not successfully, done.
pub(super) fn refusal(task: Task) -> Option<Completion> {
    match task {
        Task::Save { meta, .. } => Some(Completion::SnapshotTaken { index: meta.last.index, bytes: None }),
        Task::Receive { meta, .. } => Some(Completion::SnapshotReceived { last: meta.last, complete: false }),
        Task::Refuse(completion) => Some(completion),
        Task::Load { .. } | Task::Sweep => None,
    }
}

/// Works until there will be no more tasks. A task that fails, or even panics, is the only one that does.
pub(super) fn live(snapshots: &Snapshots, tasks: &Tasks, report: &Report) {
    while let Some(task) = tasks.take() {
        let index = match &task {
            Task::Save { meta, .. } | Task::Receive { meta, .. } => Some(meta.last),
            Task::Load { last, .. } => Some(*last),
            Task::Sweep | Task::Refuse(_) => None,
        };
        let done = panic::catch_unwind(AssertUnwindSafe(|| work(snapshots, &task)));
        let completion = match done {
            Ok(Ok(completion)) => completion.or_else(|| refusal(task)),
            Ok(Err(error)) => {
                tracing::error!(%error, "a snapshot could not be written or read");
                refusal(task)
            }
            Err(_) => {
                tracing::error!(?index, "the thread that writes snapshots panicked: this is a bug, please report it");
                refusal(task)
            }
        };
        if let Some(completion) = completion {
            report.say(completion);
        }
    }
}

fn work(snapshots: &Snapshots, task: &Task) -> Result<Option<Completion>, StorageError> {
    match task {
        Task::Save { meta, data } => {
            let bytes = snapshots.save(meta, data)?;
            snapshots.sweep();
            Ok(Some(Completion::SnapshotTaken { index: meta.last.index, bytes: Some(bytes) }))
        }
        Task::Receive { meta, data } => {
            snapshots.save_received(meta, data)?;
            snapshots.sweep();
            Ok(Some(Completion::SnapshotReceived { last: meta.last, complete: true }))
        }
        Task::Load { to, last } => {
            let loaded = snapshots.load(*last)?;
            Ok(loaded.map(|(meta, data)| Completion::SnapshotLoaded { to: *to, meta, data }))
        }
        Task::Sweep => {
            snapshots.sweep();
            Ok(None)
        }
        Task::Refuse(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raft_core::{Configuration, Index, Membership, Term};

    use super::*;

    fn meta(index: u64) -> SnapshotMeta {
        let configuration = Configuration { index: Index::ZERO, membership: Arc::new(Membership::default()) };
        SnapshotMeta { last: Position::new(Index::new(index), Term::new(1)), configuration, bytes: 0 }
    }

    fn load(peer: u64, index: u64) -> Task {
        let to = NodeId::new(peer).expect("not 0");
        Task::Load { to, last: meta(index).last }
    }

    fn taken(tasks: &Tasks) -> Vec<String> {
        tasks.close();
        std::iter::from_fn(|| tasks.take())
            .map(|task| match task {
                Task::Save { meta, .. } => format!("save {}", meta.last.index),
                Task::Receive { meta, .. } => format!("receive {}", meta.last.index),
                Task::Load { to, last } => format!("load {} for {to}", last.index),
                Task::Sweep => "sweep".to_owned(),
                Task::Refuse(Completion::SnapshotTaken { index, bytes: None }) => format!("not {index}"),
                Task::Refuse(Completion::SnapshotReceived { last, complete: false }) => format!("not {}", last.index),
                Task::Refuse(other) => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn only_the_newest_snapshot_waits_and_the_others_are_answered() {
        let tasks = Tasks::default();
        for index in 1..=3 {
            tasks.add(Task::Save { meta: meta(index), data: Bytes::new() });
            tasks.add(Task::Receive { meta: meta(10 * index), data: Bytes::new() });
            tasks.add(Task::Sweep);
        }
        assert_eq!(taken(&tasks), ["not 1", "not 10", "not 2", "save 3", "not 20", "receive 30", "sweep"]);
    }

    #[test]
    fn each_peer_has_one_question_and_they_are_limited() {
        let tasks = Tasks::default();
        [load(1, 5), load(2, 5), load(1, 6)].into_iter().for_each(|task| tasks.add(task));
        (3..1_000).for_each(|peer| tasks.add(load(peer, 6)));
        tasks.add(load(2, 7));
        let taken = taken(&tasks);
        assert_eq!(taken.len(), LOADS_MAX);
        assert_eq!(taken.first().map(String::as_str), Some("load 6 for n1"));
        assert_eq!(taken.last().map(String::as_str), Some("load 7 for n2"));
    }
}
