//! The serving side of clients: one framed stream a connection, many requests in flight.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Limits;
use super::contain::{Held, failure};
use super::endpoint::Shared;
use super::error::Refusal;
use super::frame::{FrameReader, FrameWriter, ReadFrameError};
use super::limits::{COALESCE_BYTES, FLUSH_TIMEOUT, UNREAD_ANSWER_BYTES_FAIR, UNREAD_ANSWER_BYTES_MAX};
use super::link::closed;
use crate::codec::{self, EXCHANGE_ID, FrameError, Kind};

/// What a node does for its clients.
pub trait Service: Send + Sync + 'static {
    /// Carries out one request.
    ///
    /// Requests of one connection are carried out side by side, and answered in the order in which
    /// they are done. If the future is dropped, the client is gone. If it panics, the client learns
    /// that the outcome is unknown, and nobody else learns anything.
    fn call(&self, caller: &Caller, request: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send>>;
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name in its certificate.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
}

/// Why a request has no answer, as told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Panicked = 1,
    AnswerTooLarge = 2,
}

impl Failure {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Panicked, Self::AnswerTooLarge].into_iter().find(|failure| *failure as u8 == byte)
    }
}

/// Serves one client until its connection or the endpoint ends.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    connection: &Held<quinn::Connection>,
    service: Arc<dyn Service>,
    caller: Caller,
    mut reader: FrameReader,
    writer: FrameWriter,
) {
    let limits = shared.limits();
    let ClientBytes { requests: all_bytes, answers: all_answers, answers_max } = &shared.clients;
    reader.set_body_max(limits.request_bytes_max.saturating_add(EXCHANGE_ID));
    let answers = Arc::new(Answers::new(all_answers.clone(), *answers_max));
    let mut closing = shared.closing();
    let mut writing = JoinSet::new();
    writing.spawn(write(answers.clone(), writer, limits.answer_bytes_max));
    let mut requests = Requests {
        service,
        caller: Arc::new(caller),
        answers: answers.clone(),
        in_flight: Arc::new(Semaphore::new(limits.requests_in_flight_max)),
        bytes: budget(limits.request_bytes_in_flight_max, limits),
        all_bytes: all_bytes.clone(),
        running: JoinSet::new(),
    };
    let (refusal, detail) = tokio::select! {
        end = requests.read(&mut reader) => match end {
            Ok(()) | Err(ReadFrameError::Stream(_)) => return,
            Err(ReadFrameError::Frame(error)) => (Refusal::Malformed, error.to_string()),
        },
        ended = writing.join_next() => match ended {
            Some(Ok(Ok(()))) => (Refusal::TooSlow, "answers are not read".to_owned()),
            Some(Err(error)) => (Refusal::Internal, failure(error)),
            // The connection is gone.
            Some(Ok(Err(_))) | None => return,
        },
        () = closed(&mut closing) => {
            // What is answered already should still arrive; of the rest nobody knows the outcome.
            answers.close();
            let _ = timeout(FLUSH_TIMEOUT, writing.join_next()).await;
            (Refusal::ShuttingDown, String::new())
        }
    };
    if refusal != Refusal::ShuttingDown {
        shared.log_refused(connection.remote_address(), &detail);
    }
    connection.close(refusal.code(), detail.as_bytes());
}

/// The requests of one connection.
struct Requests {
    service: Arc<dyn Service>,
    caller: Arc<Caller>,
    answers: Arc<Answers>,
    in_flight: Arc<Semaphore>,
    /// In units of 1 KiB.
    bytes: Arc<Semaphore>,
    /// The same, of all connections together.
    all_bytes: Arc<Semaphore>,
    running: JoinSet<()>,
}

impl Requests {
    /// Starts one request after the other, until the stream ends.
    async fn read(&mut self, reader: &mut FrameReader) -> Result<(), ReadFrameError> {
        loop {
            while let Some((kind, body)) = reader.take()? {
                if kind != Kind::Request {
                    return Err(FrameError::OutOfPlace { found: kind, wanted: Kind::Request }.into());
                }
                let (id, request) = codec::decode_exchange(kind, body)?;
                let backing = reader.backing(request.len());
                self.start(id, codec::detach(request, backing)).await;
            }
            if !reader.fill().await? {
                return Ok(());
            }
        }
    }

    /// Starts a request; waits while too many have no answer yet, so that the client's stream fills up.
    async fn start(&mut self, id: u64, request: Bytes) {
        while self.running.try_join_next().is_some() {}
        let in_flight = self.in_flight.clone().acquire_owned().await;
        let size = kibibytes(request.len());
        let bytes = self.bytes.clone().acquire_many_owned(size).await;
        // Last, so that nobody holds a part of what all share while waiting for what is only its own.
        let shared = self.all_bytes.clone().acquire_many_owned(size).await;
        let (Ok(in_flight), Ok(bytes), Ok(shared)) = (in_flight, bytes, shared) else { return };
        let permits = Some([in_flight, bytes]);
        let pending = Pending { answers: self.answers.clone(), id, permits, _shared: shared };
        let (service, caller) = (self.service.clone(), self.caller.clone());
        self.running.spawn(async move {
            let answer = service.call(&caller, request).await;
            pending.answer(answer);
        });
    }
}

/// A request without an answer. If it is dropped so, the client is told.
struct Pending {
    answers: Arc<Answers>,
    id: u64,
    permits: Option<[OwnedSemaphorePermit; 2]>,
    /// Given back with the answer, not when that has been read: who does not read keeps nobody else waiting.
    _shared: OwnedSemaphorePermit,
}

impl Pending {
    fn answer(mut self, answer: Bytes) {
        let permits = self.permits.take();
        self.answers.push(Answer { id: self.id, outcome: Ok(answer), _permits: permits });
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(permits) = self.permits.take() {
            self.answers.push(Answer { id: self.id, outcome: Err(Failure::Panicked), _permits: Some(permits) });
        }
    }
}

/// An answer that waits to be written. Until it is, its request counts as in flight: a client
/// that does not read its answers gets no further ones.
struct Answer {
    id: u64,
    outcome: Result<Bytes, Failure>,
    _permits: Option<[OwnedSemaphorePermit; 2]>,
}

/// What the connections of all clients may hold in memory together.
pub(super) struct ClientBytes {
    /// Of requests without an answer, in units of 1 KiB.
    requests: Arc<Semaphore>,
    /// Of answers that wait to be written, as counted.
    answers: Arc<AtomicUsize>,
    answers_max: usize,
}

impl ClientBytes {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            requests: budget(limits.all_request_bytes_in_flight_max, limits),
            answers: Arc::default(),
            answers_max: limits.all_unread_answer_bytes_max,
        }
    }
}

/// A semaphore for so many bytes, at least for one request.
fn budget(bytes: usize, limits: &Limits) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(kibibytes(bytes.max(limits.request_bytes_max)) as usize))
}

/// The answers of one connection that wait to be written.
///
/// Invariant: `all` includes the bytes of `waiting`, and of the batch that is being written.
struct Answers {
    waiting: Mutex<Waiting>,
    added: Notify,
    all: Arc<AtomicUsize>,
    all_max: usize,
}

#[derive(Default)]
struct Waiting {
    answers: VecDeque<Answer>,
    bytes: usize,
    /// Of the batch that is being written.
    taken: usize,
    closed: bool,
}

impl Answers {
    fn new(all: Arc<AtomicUsize>, all_max: usize) -> Self {
        Self { waiting: Mutex::default(), added: Notify::new(), all, all_max }
    }

    fn push(&self, answer: Answer) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        let bytes = answer.outcome.as_ref().map_or(0, Bytes::len);
        waiting.bytes += bytes;
        self.all.fetch_add(bytes, Ordering::Relaxed);
        waiting.answers.push_back(answer);
        drop(waiting);
        self.added.notify_one();
    }

    /// No more will come.
    fn close(&self) {
        self.lock().closed = true;
        self.added.notify_one();
    }

    /// Waits for answers and takes them all; false when there will be none.
    async fn take(&self, into: &mut VecDeque<Answer>) -> bool {
        loop {
            {
                let mut waiting = self.lock();
                self.all.fetch_sub(waiting.taken, Ordering::Relaxed);
                std::mem::swap(&mut waiting.answers, into);
                waiting.taken = std::mem::take(&mut waiting.bytes);
                if !into.is_empty() {
                    return true;
                }
                if waiting.closed {
                    return false;
                }
            }
            self.added.notified().await;
        }
    }

    /// Returns when more waits than any client may leave unread.
    async fn overflowed(&self) {
        loop {
            {
                let waiting = self.lock();
                let unread = waiting.bytes.saturating_add(waiting.taken);
                let crowded = self.all.load(Ordering::Relaxed) > self.all_max;
                if unread > if crowded { UNREAD_ANSWER_BYTES_FAIR } else { UNREAD_ANSWER_BYTES_MAX } {
                    return;
                }
            }
            self.added.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let Waiting { bytes, taken, .. } = self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.all.fetch_sub(bytes.saturating_add(*taken), Ordering::Relaxed);
    }
}

/// Writes answers. Ends well only when the endpoint closes, or if the client does not read.
async fn write(answers: Arc<Answers>, mut writer: FrameWriter, max: usize) -> Result<(), quinn::WriteError> {
    let mut batch = VecDeque::new();
    while answers.take(&mut batch).await {
        let written = write_batch(&mut batch, &mut writer, max);
        tokio::select! {
            written = written => written?,
            () = answers.overflowed() => return Ok(()),
        }
    }
    writer.finish().await;
    Ok(())
}

async fn write_batch(
    batch: &mut VecDeque<Answer>,
    writer: &mut FrameWriter,
    max: usize,
) -> Result<(), quinn::WriteError> {
    for Answer { id, outcome, _permits } in batch.drain(..) {
        let failed = match outcome {
            Ok(answer) => codec::encode_exchange(&mut writer.buffer, Kind::Answer, id, &answer, max)
                .err()
                .map(|_| Failure::AnswerTooLarge),
            Err(failure) => Some(failure),
        };
        if let Some(failure) = failed {
            // One byte is never too long.
            let _ = codec::encode_exchange(&mut writer.buffer, Kind::Failure, id, &[failure as u8], 1);
        }
        writer.flush_beyond(COALESCE_BYTES).await?;
    }
    writer.flush_beyond(0).await
}

/// At least one.
fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    const MAX: usize = 10 << 20;

    fn is_given_up(answers: &Answers) -> bool {
        let mut overflowed = std::pin::pin!(answers.overflowed());
        overflowed.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn answer(bytes: usize) -> Answer {
        Answer { id: 0, outcome: Ok(Bytes::from(vec![0; bytes])), _permits: None }
    }

    fn take(answers: &Answers) {
        let mut batch = VecDeque::new();
        let mut taken = std::pin::pin!(answers.take(&mut batch));
        let _ = taken.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    #[test]
    fn who_leaves_much_unread_is_given_up_when_all_together_leave_too_much() {
        let all = Arc::new(AtomicUsize::new(0));
        let [greedy, modest] = [(); 2].map(|()| Answers::new(all.clone(), MAX));
        for nth in 0..10 {
            assert!(!is_given_up(&greedy), "{nth} MiB are not too much");
            greedy.push(answer(1 << 20));
        }
        modest.push(answer(1 << 20));
        assert!(is_given_up(&greedy) && !is_given_up(&modest));
        // Handed over is not read yet.
        take(&greedy);
        assert!(is_given_up(&greedy));
        take(&greedy);
        assert!(!is_given_up(&greedy), "it has caught up");
        assert_eq!(all.load(Ordering::Relaxed), 1 << 20);
        drop((greedy, modest));
        assert_eq!(all.load(Ordering::Relaxed), 0, "nothing is counted for ever");
    }
}
