//! The thread that writes: everything that waits becomes one group, one write and one sync.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use raft_core::{Index, LogReadOutcome, ReadId, WriteSeq};

use super::Write;
use super::error::StorageError;
use super::jobs::{Job, Jobs};
use super::log::Log;

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
    /// A write or sync failed. Said once; nothing is written or reported as durable after it.
    Failed(StorageError),
}

/// The handle of the writer thread. Dropping it does what [`Writer::close`] does.
#[derive(Debug)]
pub struct Writer {
    jobs: Arc<Jobs>,
    /// `None` once it has been closed.
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread; it owns `log` from now on. `report` is called on that thread, and must
    /// not block it for long.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(log: Log, report: impl FnMut(Completion) + Send + 'static) -> Result<Self, StorageError> {
        let path = log.path();
        let jobs = Arc::new(Jobs::default());
        let inbox = jobs.clone();
        let thread = thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || Worker { log, report, failed: false }.live(&inbox))
            .map_err(|error| StorageError::io("start a thread to write to", &path, error))?;
        Ok(Self { jobs, thread: Some(thread) })
    }

    /// Hands over a write; it is reported once it is durable.
    pub fn write(&self, write: Write) {
        self.jobs.write(write);
    }

    /// Hands over a read of entries that all earlier writes have left in the log; see [`Log::read`].
    pub fn read(&self, id: ReadId, from: Index, through: Index, max_bytes: u64) {
        self.jobs.read(id, from, through, max_bytes);
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
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What runs on the thread.
struct Worker<R> {
    log: Log,
    report: R,
    failed: bool,
}

impl<R: FnMut(Completion)> Worker<R> {
    /// Works until nobody has work any more. A panic is a failure like any other for whoever waits.
    fn live(mut self, inbox: &Jobs) {
        let worked = panic::catch_unwind(AssertUnwindSafe(|| self.run(inbox)));
        if let Err(panic) = worked {
            inbox.abandon();
            if !self.failed {
                let reason = reason_of(&*panic).to_owned();
                (self.report)(Completion::Failed(StorageError::Panicked { dir: self.log.path(), reason }));
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
            // Everything that waits by now shares one sync; a read ends the group, to see it.
            while let Some(next) = job.take() {
                match next {
                    Job::Write(write) => {
                        bytes += write.entries.cost();
                        group.push(write);
                        if bytes < GROUP_BYTES {
                            job = inbox.try_take();
                        }
                    }
                    Job::Read { id, from, through, max_bytes } => {
                        self.on_writes(&mut group);
                        self.on_read(id, from, through, max_bytes);
                    }
                }
            }
            self.on_writes(&mut group);
        }
    }

    fn on_writes(&mut self, group: &mut Vec<Write>) {
        let Some(seq) = group.last().map(|write| write.seq) else { return };
        if !self.failed {
            let completion = match self.log.write(group) {
                Ok(()) => Completion::Persisted { seq },
                Err(error) => {
                    self.failed = true;
                    Completion::Failed(error)
                }
            };
            (self.report)(completion);
        }
        group.clear();
    }

    fn on_read(&mut self, id: ReadId, from: Index, through: Index, max_bytes: u64) {
        let outcome = match self.log.read(from, through, max_bytes) {
            Ok(entries) if !entries.is_empty() => LogReadOutcome::Entries(entries),
            // The log has become shorter since the question was asked; whoever still wants an answer asks again.
            Ok(_) => LogReadOutcome::Damaged,
            Err(error) => {
                tracing::error!(%error, %from, %through, "could not read entries back");
                LogReadOutcome::Damaged
            }
        };
        (self.report)(Completion::Read { id, outcome });
    }
}

/// What a panic said.
fn reason_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it gave no reason")
}
