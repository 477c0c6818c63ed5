//! The thread that writes: everything that waits becomes one group, one write and one sync. Snapshots
//! have a [thread of their own](super::saver).

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use raft_core::{Index, LogReadOutcome, NodeId, Position, ReadId, SnapshotMeta, WriteSeq};

use super::Write;
use super::error::StorageError;
use super::jobs::{Job, Jobs};
use super::log::Log;
use super::saver::{self, Task, Tasks};

/// A group is closed when its entries cost this much, so that no sync takes for ever.
const GROUP_BYTES: u64 = 8 << 20;

/// What the writer has done.
#[derive(Debug)]
pub enum Completion {
    /// Everything up to this write is durable. One of these stands for a whole group.
    Persisted {
        /// The newest durable write.
        seq: WriteSeq,
    },
    /// The answer to a read.
    Read {
        /// Which one.
        id: ReadId,
        /// What was found.
        outcome: LogReadOutcome,
    },
    /// A snapshot of this node's own machine is on stable storage, or could not be written.
    SnapshotTaken {
        /// The last index that it covers.
        index: Index,
        /// Its size; `None` if it could not be written, which has been logged.
        bytes: Option<u64>,
    },
    /// A snapshot from another node is on stable storage, or could not be written.
    SnapshotReceived {
        /// Where it ends.
        last: Position,
        /// Whether it is there.
        complete: bool,
    },
    /// The snapshot to send, read back and verified. Nothing is reported if it is gone.
    SnapshotLoaded {
        /// Who is to have it.
        to: NodeId,
        /// What it stands for.
        meta: SnapshotMeta,
        /// The state.
        data: Bytes,
    },
    /// A write or sync failed. Said once; nothing is written or reported as durable after it.
    Failed(StorageError),
}

/// Whom the threads tell what they have done, one at a time.
pub(super) struct Report(Mutex<Box<dyn FnMut(Completion) + Send>>);

impl Report {
    pub(super) fn say(&self, completion: Completion) {
        // Whoever panicked at one piece of news may bear the next.
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        report(completion);
    }
}

/// The handle of the writer's two threads. Dropping it does what [`Writer::close`] does.
#[derive(Debug)]
pub struct Writer {
    jobs: Arc<Jobs>,
    tasks: Arc<Tasks>,
    /// Both `None` once it has been closed.
    thread: Option<JoinHandle<()>>,
    saver: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the threads; they own `log` from now on. `report` is called on them, and must not
    /// block them for long.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(log: Log, report: impl FnMut(Completion) + Send + 'static) -> Result<Self, StorageError> {
        let path = log.path();
        let (jobs, tasks) = (Arc::new(Jobs::default()), Arc::new(Tasks::default()));
        let report = Arc::new(Report(Mutex::new(Box::new(report))));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(|error| StorageError::io("start a thread to write to", &path, error))
        };
        let (snapshots, todo, told) = (log.snapshots().clone(), tasks.clone(), report.clone());
        let saver = spawn("raft-snapshot", Box::new(move || saver::live(&snapshots, &todo, &told)))?;
        // From here on, dropping it ends the first thread if there is no second one.
        let mut writer = Self { jobs, tasks, thread: None, saver: Some(saver) };
        let (inbox, tasks) = (writer.jobs.clone(), writer.tasks.clone());
        let worker = Worker { log, report, tasks, failed: false };
        writer.thread = Some(spawn("raft-log", Box::new(move || worker.live(&inbox)))?);
        Ok(writer)
    }

    /// Hands over a write; it is reported once it is durable.
    pub fn write(&self, write: Write) {
        self.jobs.write(write);
    }

    /// Hands over a read of entries that all earlier writes have left in the log; see [`Log::read`].
    pub fn read(&self, id: ReadId, from: Index, through: Index, max_bytes: u64) {
        self.jobs.read(id, from, through, max_bytes);
    }

    /// Writes down a snapshot of the own machine; [`Completion::SnapshotTaken`] follows.
    pub fn save_snapshot(&self, meta: &SnapshotMeta, data: Bytes) {
        self.tasks.add(Task::Save { meta: meta.clone(), data });
    }

    /// Writes down a snapshot that has arrived, under a name of its own; [`Completion::SnapshotReceived`]
    /// follows. One that has arrived before can be installed no more, unless it was told to already.
    pub fn save_received(&self, meta: SnapshotMeta, data: Bytes) {
        self.jobs.receive(meta, data);
    }

    /// Reads the own snapshot that ends at `last` back; [`Completion::SnapshotLoaded`] follows, unless
    /// there is none any more.
    pub fn load_snapshot(&self, to: NodeId, last: Position) {
        self.tasks.add(Task::Load { to, last });
    }

    /// Replaces the log by the snapshot that was received, in order with the writes; a write like
    /// any other: [`Completion::Persisted`] follows.
    pub fn install(&self, seq: WriteSeq, meta: Arc<SnapshotMeta>) {
        self.jobs.install(seq, meta);
    }

    /// The log up to `through` is needed no more. What a snapshot does not cover stays.
    pub fn compact(&self, through: Index) {
        self.jobs.compact(through);
    }

    /// Does everything that was handed over, closes the log, and frees the directory. Blocks
    /// until then.
    pub fn close(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.jobs.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the log panicked");
        }
        // Only now: the log's thread has tasks for the other one.
        self.tasks.close();
        if let Some(saver) = self.saver.take()
            && saver.join().is_err()
        {
            tracing::error!("the thread that writes snapshots panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What runs on the log's thread.
struct Worker {
    log: Log,
    report: Arc<Report>,
    tasks: Arc<Tasks>,
    failed: bool,
}

impl Worker {
    /// Works until nobody has work any more. A panic is a failure like any other for whoever waits.
    fn live(mut self, inbox: &Jobs) {
        let worked = panic::catch_unwind(AssertUnwindSafe(|| self.run(inbox)));
        if let Err(panic) = worked {
            inbox.abandon();
            if !self.failed {
                let reason = reason_of(&*panic).to_owned();
                self.report.say(Completion::Failed(StorageError::Panicked { dir: self.log.path(), reason }));
            }
            panic::resume_unwind(panic);
        }
        if self.failed {
            return;
        }
        if let Err(error) = self.log.close() {
            tracing::warn!(%error, "could not note the end of the log at its closing");
        }
    }

    fn run(&mut self, inbox: &Jobs) {
        let mut group = Vec::new();
        while let Some(first) = inbox.take() {
            let mut job = Some(first);
            let mut bytes = 0;
            // Everything that waits by now shares one sync; whatever else ends the group, to see it.
            while let Some(next) = job.take() {
                if let Job::Write(write) = next {
                    bytes += write.entries.cost();
                    group.push(write);
                    if bytes < GROUP_BYTES {
                        job = inbox.try_take();
                    }
                } else {
                    self.on_writes(&mut group);
                    self.on_other(next);
                }
            }
            self.on_writes(&mut group);
        }
    }

    fn on_writes(&mut self, group: &mut Vec<Write>) {
        let Some(seq) = group.last().map(|write| write.seq) else { return };
        self.attempt(|log| log.write(group), Some(Completion::Persisted { seq }));
        group.clear();
    }

    fn on_other(&mut self, job: Job) {
        match job {
            Job::Write(write) => self.on_writes(&mut vec![write]),
            Job::Read { id, from, through, max_bytes } => self.on_read(id, from, through, max_bytes),
            Job::Install { seq, meta } => {
                self.attempt(|log| log.install(&meta), Some(Completion::Persisted { seq }));
                self.tasks.add(Task::Sweep);
            }
            Job::Compact { through } => {
                self.attempt(|log| log.compact(through), None);
                self.tasks.add(Task::Sweep);
            }
            Job::Pass(task) => self.tasks.add(task),
        }
    }

    /// Does what can fail only once, and says how it went.
    fn attempt(&mut self, work: impl FnOnce(&mut Log) -> Result<(), StorageError>, done: Option<Completion>) {
        if self.failed {
            return;
        }
        let completion = match work(&mut self.log) {
            Ok(()) => done,
            Err(error) => {
                self.failed = true;
                Some(Completion::Failed(error))
            }
        };
        if let Some(completion) = completion {
            self.report.say(completion);
        }
    }

    fn on_read(&mut self, id: ReadId, from: Index, through: Index, max_bytes: u64) {
        let outcome = match self.log.read(from, through, max_bytes) {
            Ok(entries) if !entries.is_empty() => LogReadOutcome::Entries(entries),
            // The log has become shorter since the question was asked, at one end or the other; whoever
            // still wants an answer asks again.
            Ok(_) => LogReadOutcome::Damaged,
            Err(error) => {
                tracing::error!(%error, %from, %through, "could not read entries back");
                LogReadOutcome::Damaged
            }
        };
        self.report.say(Completion::Read { id, outcome });
    }
}

/// What a panic said.
fn reason_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it gave no reason")
}
