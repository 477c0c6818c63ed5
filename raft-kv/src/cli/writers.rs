//! Many writes, many of them under way at once.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use raft_kv::client::{Client, ClientError, PutOptions};
use raft_kv::key::{Key, Revision};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Writes pairs in their order, a fixed number at a time, until one fails; those under way then
/// still end. Dropping it stops it.
pub(crate) struct Writers {
    acknowledgements: mpsc::Receiver<Result<Acknowledgement, WriteFailure>>,
    /// The first write that may not begin yet.
    limit: watch::Sender<usize>,
    tasks: JoinSet<()>,
}

/// Further than any write, with room for each writer to count on.
const NEVER: usize = usize::MAX / 2;

/// An acknowledged write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledgement {
    /// Which of the writes it is, from 0.
    pub(crate) nth: usize,
    /// The revision that it was given.
    pub(crate) revision: Revision,
    /// When it was handed to the client.
    pub(crate) begun: Instant,
    /// When the client said that it was done.
    pub(crate) done: Instant,
}

/// A write that was not acknowledged.
#[derive(Debug, thiserror::Error)]
#[error("the write of \"{key}\" was not acknowledged")]
pub(crate) struct WriteFailure {
    key: Key,
    #[source]
    cause: ClientError,
}

impl WriteFailure {
    /// Whether the write may have been done all the same.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.cause, ClientError::OutcomeUnknown { .. })
    }

    /// How much it tells: that a write may be done above all, and one that was tried rather than
    /// one that waited for others.
    pub(crate) fn weight(&self) -> (bool, u64) {
        let attempts = match &self.cause {
            ClientError::Unavailable(trail)
            | ClientError::Distrusted(trail)
            | ClientError::OutcomeUnknown { trail, .. } => trail.attempts(),
            // Decided by what was found.
            ClientError::CompareFailed { .. }
            | ClientError::TooLarge { .. }
            | ClientError::EmptyKey
            | ClientError::Declined { .. }
            | ClientError::Refused(_)
            | ClientError::Confused
            | ClientError::NoEndpoints
            | ClientError::NoSuchNode { .. }
            | ClientError::ForeignCertificate { .. }
            | ClientError::Setup { .. }
            | ClientError::Random(_) => u64::MAX,
        };
        (self.is_unknown(), attempts)
    }
}

impl Writers {
    /// Begins to write. Writes from `limit` on wait until the [gate](Self::gate) is raised.
    pub(crate) fn begin(client: &Client, writes: &Arc<[(Key, Bytes)]>, inflight: usize, limit: usize) -> Self {
        let (limit, allowed) = watch::channel(limit);
        // As many places as writers: none of them ever waits for the reader of the other end,
        // which would look like a slow cluster.
        let (report, acknowledgements) = mpsc::channel(inflight.max(1));
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..inflight.min(writes.len()) {
            let writer = Writer {
                client: client.clone(),
                writes: writes.clone(),
                next: next.clone(),
                allowed: allowed.clone(),
                report: report.clone(),
            };
            tasks.spawn(writer.run());
        }
        Self { acknowledgements, limit, tasks }
    }

    /// Holds the first write that may not begin yet; send a higher number to let more begin.
    pub(crate) fn gate(&self) -> watch::Sender<usize> {
        self.limit.clone()
    }

    /// The next write that was acknowledged, or was not; `None` when all are done.
    pub(crate) async fn next(&mut self) -> Option<Result<Acknowledgement, WriteFailure>> {
        let report = self.acknowledgements.recv().await;
        if report.is_none() {
            // A writer that panicked has taken a write along: that must not pass for the end.
            while let Some(ended) = self.tasks.join_next().await {
                ended.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()));
            }
        }
        report
    }
}

/// One of the tasks: one write under way.
struct Writer {
    client: Client,
    writes: Arc<[(Key, Bytes)]>,
    next: Arc<AtomicUsize>,
    allowed: watch::Receiver<usize>,
    report: mpsc::Sender<Result<Acknowledgement, WriteFailure>>,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let nth = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((key, value)) = self.writes.get(nth) else { return };
            if self.allowed.wait_for(|limit| nth < *limit).await.is_err() {
                return;
            }
            let begun = Instant::now();
            let outcome = self.client.put(key.as_bytes().clone(), value.clone(), PutOptions::default()).await;
            let done = Instant::now();
            let report = match outcome {
                Ok(reply) => Ok(Acknowledgement { nth, revision: reply.revision, begun, done }),
                Err(cause) => {
                    // Nothing is begun any more; what has begun, at about the same time, ends soon.
                    self.next.store(NEVER, Ordering::Relaxed);
                    Err(WriteFailure { key: key.clone(), cause })
                }
            };
            if self.report.send(report).await.is_err() {
                return;
            }
        }
    }
}
