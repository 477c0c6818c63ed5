//! The serving side of clients: one framed stream a connection, many requests in flight.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::contain::{Held, failure};
use super::endpoint::Shared;
use super::error::Refusal;
use super::frame::{FrameReader, FrameWriter, ReadFrameError};
use super::limits::{COALESCE_BYTES, FLUSH_TIMEOUT, UNREAD_ANSWER_BYTES_MAX};
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
    reader.set_body_max(limits.request_bytes_max.saturating_add(EXCHANGE_ID));
    let answers = Arc::new(Answers::default());
    let mut closing = shared.closing();
    let mut writing = JoinSet::new();
    writing.spawn(write(answers.clone(), writer, limits.answer_bytes_max));
    let mut requests = Requests {
        service,
        caller: Arc::new(caller),
        answers: answers.clone(),
        in_flight: Arc::new(Semaphore::new(limits.requests_in_flight_max)),
        bytes: Arc::new(Semaphore::new(
            kibibytes(limits.request_bytes_in_flight_max.max(limits.request_bytes_max)) as usize
        )),
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
        let bytes = self.bytes.clone().acquire_many_owned(kibibytes(request.len())).await;
        let (Ok(in_flight), Ok(bytes)) = (in_flight, bytes) else { return };
        let pending = Pending { answers: self.answers.clone(), id, permits: Some([in_flight, bytes]) };
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

/// The answers of one connection that wait to be written.
#[derive(Default)]
struct Answers {
    waiting: Mutex<Waiting>,
    added: Notify,
}

#[derive(Default)]
struct Waiting {
    answers: VecDeque<Answer>,
    bytes: usize,
    closed: bool,
}

impl Answers {
    fn push(&self, answer: Answer) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        waiting.bytes += answer.outcome.as_ref().map_or(0, Bytes::len);
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
                std::mem::swap(&mut waiting.answers, into);
                waiting.bytes = 0;
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
            if self.lock().bytes > UNREAD_ANSWER_BYTES_MAX {
                return;
            }
            self.added.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
