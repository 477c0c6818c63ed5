//! What waits for the thread that writes the log, bounded however long the disk hangs.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use raft_core::{Index, ReadId, SnapshotMeta, WriteSeq};

use super::Write;
use super::saver::{Task, refusal};

/// One thing to do.
#[derive(Debug)]
pub(super) enum Job {
    Write(Write),
    Read {
        id: ReadId,
        from: Index,
        through: Index,
        max_bytes: u64,
    },
    Install {
        seq: WriteSeq,
        meta: Arc<SnapshotMeta>,
    },
    Compact {
        through: Index,
    },
    /// For the saver, when everything before it is done: what has arrived takes the place of
    /// something that an installation before it may need.
    Pass(Task),
}

/// A queue between the driver, which never waits, and the thread.
///
/// Invariants: two writes next to each other both have entries, so that the core's limit of
/// unsynced bytes limits their number as well (each entry costs some); at most `READS_MAX` reads,
/// one compaction, and one snapshot that has arrived.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: Mutex<Waiting>,
    added: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    reads: usize,
    closed: bool,
}

impl Jobs {
    /// Adds a write. A term or vote alone joins the write before it, if that has not begun: they would
    /// share a sync anyway, and terms that rise while the disk hangs then take no room.
    pub(super) fn write(&self, write: Write) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        match waiting.jobs.back_mut() {
            Some(Job::Write(last)) if write.entries.is_empty() => {
                last.seq = write.seq;
                last.hard_state = write.hard_state.or(last.hard_state);
            }
            Some(_) | None => waiting.jobs.push_back(Job::Write(write)),
        }
        drop(waiting);
        self.added.notify_one();
    }

    /// Adds a read, or loses it if there are too many: whoever asked asks again.
    pub(super) fn read(&self, id: ReadId, from: Index, through: Index, max_bytes: u64) {
        let mut waiting = self.lock();
        if waiting.closed || waiting.reads >= READS_MAX {
            return;
        }
        waiting.reads += 1;
        waiting.jobs.push_back(Job::Read { id, from, through, max_bytes });
        drop(waiting);
        self.added.notify_one();
    }

    /// Adds an installation.
    pub(super) fn install(&self, seq: WriteSeq, meta: Arc<SnapshotMeta>) {
        self.push(Job::Install { seq, meta }, |_| false);
    }

    /// Adds a compaction. One that waits already is part of it.
    pub(super) fn compact(&self, through: Index) {
        self.push(Job::Compact { through }, |job| matches!(job, Job::Compact { .. }));
    }

    /// Adds a snapshot that has arrived. One that waits already gives way, and that is said.
    pub(super) fn receive(&self, meta: SnapshotMeta, data: Bytes) {
        let older =
            self.push(Job::Pass(Task::Receive { meta, data }), |job| matches!(job, Job::Pass(Task::Receive { .. })));
        if let Some(Job::Pass(older)) = older
            && let Some(completion) = refusal(older)
        {
            self.push(Job::Pass(Task::Refuse(completion)), |_| false);
        }
    }

    /// Adds a job, in place of one that waits and is like that, which is returned.
    fn push(&self, job: Job, replaces: impl Fn(&Job) -> bool) -> Option<Job> {
        let mut waiting = self.lock();
        if waiting.closed {
            return None;
        }
        let older = waiting.jobs.iter().position(replaces).and_then(|nth| waiting.jobs.remove(nth));
        waiting.jobs.push_back(job);
        drop(waiting);
        self.added.notify_one();
        older
    }

    /// No more will come: the thread ends when it has done what waits.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.added.notify_one();
    }

    /// Nobody will do anything any more.
    pub(super) fn abandon(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting { closed: true, ..Waiting::default() };
    }

    /// Waits for the next one; `None` if there will be none.
    pub(super) fn take(&self) -> Option<Job> {
        let nothing = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.closed;
        let mut waiting = self.added.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner);
        waiting.take()
    }

    /// The next one, if it waits already.
    pub(super) fn try_take(&self) -> Option<Job> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front();
        if matches!(job, Some(Job::Read { .. })) {
            self.reads -= 1;
        }
        job
    }
}

/// More than a core asks for: one for each peer, and for those that it has given up meanwhile.
const READS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use raft_core::{Configuration, Entries, Entry, HardState, Membership, Payload, Position, Term};

    use super::*;

    fn vote(seq: u64) -> Write {
        let hard_state = HardState { term: Term::new(seq), voted_for: None, floor: None };
        Write { seq: WriteSeq::new(seq), hard_state: Some(hard_state), entries: Entries::EMPTY }
    }

    fn append(seq: u64) -> Write {
        let payload = Payload::Command(Bytes::from_static(b"value"));
        let entry = Entry { term: Term::new(1), index: Index::new(seq), payload };
        let entries = Entries::new(vec![entry]).expect("because one entry is in order");
        Write { seq: WriteSeq::new(seq), hard_state: None, entries }
    }

    fn taken(jobs: &Jobs) -> Vec<(u64, Option<u64>, usize)> {
        std::iter::from_fn(|| jobs.try_take())
            .map(|job| match job {
                Job::Write(Write { seq, hard_state, entries }) => {
                    (seq.as_u64(), hard_state.map(|state| state.term.as_u64()), entries.len())
                }
                Job::Read { id, .. } => (id.as_u64(), None, 0),
                Job::Install { seq, .. } => (seq.as_u64(), None, 0),
                Job::Compact { through } => (through.as_u64(), None, 0),
                Job::Pass(Task::Receive { meta, .. }) => (meta.last.index.as_u64(), None, 0),
                Job::Pass(_) => (0, None, 0),
            })
            .collect()
    }

    #[test]
    fn terms_that_rise_while_the_disk_hangs_take_no_room() {
        let jobs = Jobs::default();
        (1..=100_000).for_each(|seq| jobs.write(vote(seq)));
        assert_eq!(taken(&jobs), [(100_000, Some(100_000), 0)]);
        assert_eq!(taken(&jobs), []);
    }

    #[test]
    fn a_term_joins_what_was_written_before_it_and_nothing_passes_anything() {
        let jobs = Jobs::default();
        jobs.write(append(1));
        jobs.write(vote(2));
        jobs.write(append(3));
        jobs.read(ReadId::new(7), Index::new(1), Index::new(2), 10);
        jobs.write(vote(4));
        jobs.write(append(5));
        assert_eq!(taken(&jobs), [(2, Some(2), 1), (3, None, 1), (7, None, 0), (4, Some(4), 0), (5, None, 1)]);
    }

    #[test]
    fn reads_that_nobody_waits_for_any_more_do_not_pile_up() {
        let jobs = Jobs::default();
        (1..=1_000).for_each(|id| jobs.read(ReadId::new(id), Index::new(1), Index::new(2), 10));
        assert_eq!(taken(&jobs).len(), READS_MAX);
        jobs.read(ReadId::new(2_000), Index::new(1), Index::new(2), 10);
        assert_eq!(taken(&jobs), [(2_000, None, 0)], "there is room again");
    }

    fn meta(index: u64) -> SnapshotMeta {
        let configuration = Configuration { index: Index::ZERO, membership: Arc::new(Membership::default()) };
        SnapshotMeta { last: Position::new(Index::new(index), Term::new(1)), configuration, bytes: 0 }
    }

    #[test]
    fn compactions_and_snapshots_do_not_pile_up_and_pass_nothing() {
        let jobs = Jobs::default();
        for seq in 1..=3 {
            jobs.write(append(seq));
            jobs.compact(Index::new(10 * seq));
            jobs.receive(meta(100 * seq), Bytes::from_static(b"state"));
        }
        jobs.install(WriteSeq::new(4), Arc::new(meta(300)));
        jobs.write(vote(5));
        let order = [(1, None, 1), (2, None, 1), (0, None, 0), (3, None, 1), (30, None, 0), (300, None, 0)];
        let end = [(0, None, 0), (4, None, 0), (5, Some(5), 0)];
        assert_eq!(taken(&jobs), [&order[..], &end[..]].concat());
    }

    #[test]
    fn what_waits_at_the_end_is_done() {
        let jobs = Jobs::default();
        jobs.write(append(1));
        jobs.close();
        assert!(matches!(jobs.take(), Some(Job::Write(_))));
        assert!(jobs.take().is_none());
    }

    #[test]
    fn what_nobody_will_do_is_not_kept() {
        let jobs = Jobs::default();
        jobs.write(append(1));
        jobs.abandon();
        jobs.write(append(2));
        jobs.read(ReadId::new(1), Index::new(1), Index::new(2), 10);
        assert_eq!(taken(&jobs), []);
    }
}
