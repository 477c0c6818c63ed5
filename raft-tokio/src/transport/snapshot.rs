//! Snapshots between peers: each on a stream of its own, behind everything else.
//!
//! ```text
//! frame   kind 7: what it stands for, its length, the CRC32C of its bytes
//! bytes   as many as announced, then the end of the stream
//! ```
//!
//! The stream has the lowest priority, and no more in flight than its window: votes, heartbeats
//! and appends pass it. At most one is under way to each peer, a newer one resets the one before.
//! What is wrong with a snapshot ends its stream and nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, StoppedError, VarInt, WriteError};
use raft_core::{Peer, Position, SnapshotMeta};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Incoming;
use super::contain::Held;
use super::endpoint::Shared;
use super::frame::FrameReader;
use super::limits::{SNAPSHOT_PIECE_BYTES, SNAPSHOT_REPORT_BYTES};
use super::link::Slot;
use crate::codec::{self, Kind};

/// A snapshot to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) meta: SnapshotMeta,
    pub(super) data: Bytes,
}

/// What precedes the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    meta: SnapshotMeta,
    bytes: u64,
    checksum: u32,
}

// ---- sending -------------------------------------------------------------------------------

/// Sends one snapshot after the other until the connection is lost.
pub(super) async fn send_all(
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    connection: Held<quinn::Connection>,
) -> Result<(), WriteError> {
    let mut next = slot.queue.take_snapshot().await;
    loop {
        let last = next.meta.last;
        let mut stage = Stage::Preparing;
        let newer = tokio::select! {
            biased;
            newer = slot.queue.take_snapshot() => Some(newer),
            outcome = send(&shared, &connection, &mut stage, next) => {
                match outcome {
                    Ok(()) => tracing::debug!(peer = %slot.node, %last, "a snapshot has been sent"),
                    Err(WriteError::Stopped(code)) => {
                        let reason = Stop::from_code(code);
                        shared.log_failure(slot.node, &format_args!("it does not take snapshot {last}: {reason}"));
                    }
                    Err(lost) => return Err(lost),
                }
                None
            }
        };
        next = match newer {
            Some(newer) => {
                if stage.abandon() {
                    shared.tally.snapshots_dropped.fetch_add(1, Ordering::Relaxed);
                }
                newer
            }
            None => slot.queue.take_snapshot().await,
        };
    }
}

/// How far one has got.
enum Stage {
    Preparing,
    Sending(Held<quinn::SendStream>),
    /// The rest is on its way, whatever else follows.
    Sent,
}

impl Stage {
    /// Takes back what has not left yet. Returns false if there is nothing to take back.
    fn abandon(self) -> bool {
        match self {
            Self::Preparing => true,
            Self::Sending(mut stream) => {
                // An error says that it is over already.
                let _ = stream.reset(SUPERSEDED);
                true
            }
            Self::Sent => false,
        }
    }
}

/// Sends one, and waits until the other side has all of it.
async fn send(
    shared: &Shared,
    connection: &quinn::Connection,
    stage: &mut Stage,
    outgoing: Outgoing,
) -> Result<(), WriteError> {
    let Outgoing { meta, mut data } = outgoing;
    let header = Header { meta, bytes: data.len() as u64, checksum: checksum(&data).await };
    let mut frame = BytesMut::new();
    // What a header says is far smaller than the limit of a message.
    let _ = codec::encode_frame(&mut frame, Kind::Snapshot, &header, shared.limits().rpc_bytes_max);
    *stage = Stage::Sending(Held::new(connection.open_uni().await?));
    let Stage::Sending(stream) = stage else { unreachable!("because it was set one line before") };
    // A stream that is not closed takes a priority; if it is, writing to it tells.
    let _ = stream.set_priority(PRIORITY);
    stream.write_chunk(frame.freeze()).await?;
    while !data.is_empty() {
        // A part of the same memory, not a copy.
        let piece = data.split_to(data.len().min(SNAPSHOT_PIECE_BYTES));
        stream.write_chunk(piece).await?;
        tokio::task::coop::consume_budget().await;
    }
    // An error says that the other side has stopped it, which is told next.
    let _ = stream.finish();
    let ended = stream.stopped();
    *stage = Stage::Sent;
    match ended.await {
        Ok(None) => Ok(()),
        Ok(Some(code)) => Err(WriteError::Stopped(code)),
        Err(StoppedError::ConnectionLost(error)) => Err(WriteError::ConnectionLost(error)),
        Err(StoppedError::ZeroRttRejected) => Err(WriteError::ZeroRttRejected),
    }
}

/// The checksum of much, without keeping the thread from everybody else.
async fn checksum(data: &[u8]) -> u32 {
    let mut sum = 0;
    for piece in data.chunks(SNAPSHOT_PIECE_BYTES) {
        sum = crc32c::crc32c_append(sum, piece);
        tokio::task::coop::consume_budget().await;
    }
    sum
}

// ---- receiving -----------------------------------------------------------------------------

/// Receives the rest of a stream that begins with `header`, and reports what becomes of it. While
/// another snapshot has the `place` it waits.
pub(super) async fn receive(shared: &Shared, from: Peer, header: Header, mut reader: FrameReader, place: &Semaphore) {
    let meta = header.meta.clone();
    let mut promised = Promised { shared, from, last: meta.last, is_open: true };
    match gather(shared, from, header, &mut reader, place).await {
        Ok(data) => {
            promised.is_open = false;
            shared.report(Incoming::Snapshot { from, meta, data });
        }
        Err(Fault::Superseded) => {
            promised.is_open = false;
            tracing::debug!(peer = %from, last = %meta.last, "a snapshot is replaced by a newer one");
        }
        Err(fault) => {
            shared.log_failure(from.node, &format_args!("its snapshot {} is given up: {fault}", meta.last));
            if let Some(stop) = fault.stop() {
                reader.stop(stop.code());
            }
        }
    }
}

async fn gather(
    shared: &Shared,
    from: Peer,
    header: Header,
    reader: &mut FrameReader,
    place: &Semaphore,
) -> Result<Bytes, Fault> {
    let (last, limits) = (header.meta.last, shared.limits());
    let mut gathering = Gathering::new(&header, limits.snapshot_bytes_max)?;
    let Ok(_place) = place.acquire().await else { unreachable!("because nobody closes the semaphore") };
    loop {
        let within = limits.snapshot_silence_max;
        let piece = timeout(within, reader.next_bytes()).await;
        match piece.map_err(|_| Fault::Stalled { received: gathering.data.len(), within })?? {
            Some(piece) => {
                if let Some(received) = gathering.add(&piece)? {
                    shared.report(Incoming::SnapshotProgress { from, last, received });
                }
            }
            None => return gathering.finish(),
        }
        // A full window must not keep the thread from everybody else.
        tokio::task::coop::consume_budget().await;
    }
}

/// A snapshot that was announced: if nothing else becomes of it, it has failed; also when
/// whoever waits for it is stopped.
struct Promised<'a> {
    shared: &'a Shared,
    from: Peer,
    last: Position,
    is_open: bool,
}

impl Drop for Promised<'_> {
    fn drop(&mut self) {
        // If handing over is what panics, it must not be tried in here again.
        if self.is_open && !std::thread::panicking() {
            self.shared.report(Incoming::SnapshotFailed { from: self.from, last: self.last });
        }
    }
}

/// The bytes so far.
///
/// Invariant: its memory is less than twice what has arrived, and never more than was announced.
#[derive(Debug)]
struct Gathering {
    announced: usize,
    expected: u32,
    data: Vec<u8>,
    computed: u32,
    reported: usize,
}

impl Gathering {
    fn new(header: &Header, max: u64) -> Result<Self, Fault> {
        let too_large = Fault::TooLarge { bytes: header.bytes, max };
        if header.bytes > max {
            return Err(too_large);
        }
        let announced = usize::try_from(header.bytes).map_err(|_| too_large)?;
        Ok(Self { announced, expected: header.checksum, data: Vec::new(), computed: 0, reported: 0 })
    }

    /// Takes what has come; gives the number of bytes so far if that is worth telling.
    fn add(&mut self, piece: &[u8]) -> Result<Option<u64>, Fault> {
        let received = self.data.len().saturating_add(piece.len());
        if received > self.announced {
            return Err(Fault::Longer { announced: self.announced });
        }
        if received > self.data.capacity() {
            let capacity = self.data.capacity().saturating_mul(2).clamp(received, self.announced);
            let room = capacity.saturating_sub(self.data.len());
            self.data.try_reserve_exact(room).map_err(|_| Fault::NoMemory { bytes: capacity })?;
        }
        self.data.extend_from_slice(piece);
        self.computed = crc32c::crc32c_append(self.computed, piece);
        let is_news = received.saturating_sub(self.reported) >= SNAPSHOT_REPORT_BYTES;
        Ok(is_news.then(|| {
            self.reported = received;
            received as u64
        }))
    }

    fn finish(self) -> Result<Bytes, Fault> {
        let Self { announced, expected, data, computed, reported: _ } = self;
        if data.len() < announced {
            return Err(Fault::Shorter { received: data.len(), announced });
        }
        if computed != expected {
            return Err(Fault::Checksum { announced: expected, computed });
        }
        Ok(data.into())
    }
}

/// Why no snapshot came of a stream.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it announces {bytes} bytes; at most {max} are accepted (snapshot_bytes_max)")]
    TooLarge { bytes: u64, max: u64 },
    #[error("there is no memory for {bytes} bytes")]
    NoMemory { bytes: usize },
    #[error("after {received} bytes nothing came for {within:?}")]
    Stalled { received: usize, within: Duration },
    #[error("more came than the {announced} bytes that it announced")]
    Longer { announced: usize },
    #[error("it ended after {received} of {announced} bytes")]
    Shorter { received: usize, announced: usize },
    #[error("its checksum is {announced:08x}, but its bytes give {computed:08x}")]
    Checksum { announced: u32, computed: u32 },
    #[error("its sender sends a newer one instead")]
    Superseded,
    #[error(transparent)]
    Stream(ReadError),
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        if error == ReadError::Reset(SUPERSEDED) { Self::Superseded } else { Self::Stream(error) }
    }
}

impl Fault {
    /// What to tell the sender, if it goes on sending.
    fn stop(&self) -> Option<Stop> {
        match self {
            Self::TooLarge { .. } => Some(Stop::TooLarge),
            Self::NoMemory { .. } => Some(Stop::NoMemory),
            Self::Stalled { .. } => Some(Stop::Stalled),
            Self::Longer { .. } => Some(Stop::Longer),
            Self::Shorter { .. } | Self::Checksum { .. } | Self::Superseded | Self::Stream(_) => None,
        }
    }
}

/// Why a receiver wants no more of a snapshot, as the sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Stop {
    /// Its task was ended, with the connection mostly.
    #[error("it has stopped the stream")]
    Ended,
    #[error("it is larger than what is accepted there; raise snapshot_bytes_max there")]
    TooLarge,
    #[error("there is no memory for it")]
    NoMemory,
    #[error("nothing came for too long")]
    Stalled,
    #[error("more came than was announced")]
    Longer,
}

impl Stop {
    const ALL: [Self; 4] = [Self::TooLarge, Self::NoMemory, Self::Stalled, Self::Longer];

    /// Its number on the wire.
    fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Ended => 0,
            Self::TooLarge => 1,
            Self::NoMemory => 2,
            Self::Stalled => 3,
            Self::Longer => 4,
        })
    }

    fn from_code(code: VarInt) -> Self {
        Self::ALL.into_iter().find(|stop| stop.code() == code).unwrap_or(Self::Ended)
    }
}

/// Below appends (0) and urgent messages (1).
const PRIORITY: i32 = -1;
/// A stream that is reset with this is followed by a newer snapshot.
const SUPERSEDED: VarInt = VarInt::from_u32(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use raft_core::{Configuration, Index, Membership, Term};

    use super::*;

    fn header(data: &[u8]) -> Header {
        let membership = Arc::new(Membership::default());
        let last = Position::new(Index::new(8), Term::new(3));
        let meta = SnapshotMeta { last, configuration: Configuration { index: Index::ZERO, membership }, bytes: 0 };
        Header { meta, bytes: data.len() as u64, checksum: crc32c::crc32c(data) }
    }

    #[test]
    fn whoever_announces_much_and_sends_little_costs_little() {
        let header = Header { bytes: 1 << 30, ..header(b"") };
        let mut gathering = Gathering::new(&header, 1 << 30).expect("because it is just allowed");
        assert_eq!(gathering.data.capacity(), 0);
        let mut sent = 0;
        for piece in [1, 1_400, 64 << 10, 1_400, 100, 1] {
            gathering.add(&vec![7; piece]).expect("because it is less than announced");
            sent += piece;
            assert!(gathering.data.capacity() <= 2 * sent, "{} bytes for {sent}", gathering.data.capacity());
        }
    }

    #[test]
    fn memory_never_exceeds_what_was_announced() {
        let data = vec![7; 1_000];
        let mut gathering = Gathering::new(&header(&data), 1_000).expect("because it is just allowed");
        for piece in data.chunks(300) {
            gathering.add(piece).expect("because it is what was announced");
            assert!(gathering.data.capacity() <= 1_000);
        }
        assert_eq!(gathering.finish().expect("because it is whole"), data);
    }

    #[test]
    fn what_is_larger_than_allowed_is_refused_by_its_header() {
        let refused = Gathering::new(&Header { bytes: 1_001, ..header(b"") }, 1_000);
        assert!(matches!(refused, Err(Fault::TooLarge { bytes: 1_001, max: 1_000 })), "{refused:?}");
    }

    #[test]
    fn progress_is_told_now_and_then() {
        let data = vec![7; 3 * SNAPSHOT_REPORT_BYTES];
        let mut gathering = Gathering::new(&header(&data), u64::MAX).expect("because all is allowed");
        let told: Vec<u64> = data
            .chunks(SNAPSHOT_REPORT_BYTES / 2 + 1)
            .filter_map(|piece| gathering.add(piece).expect("because it is what was announced"))
            .collect();
        let report = SNAPSHOT_REPORT_BYTES as u64;
        assert_eq!(told, [report + 2, 2 * report + 4]);
    }

    #[test]
    fn what_is_not_what_was_announced_is_named() {
        let gathered = |announced: &Header, sent: &[u8]| {
            let mut gathering = Gathering::new(announced, 100)?;
            gathering.add(sent)?;
            gathering.finish()
        };
        let announced = header(b"state");
        assert!(matches!(gathered(&announced, b"state"), Ok(data) if data == "state"));
        assert!(matches!(gathered(&announced, b"stat"), Err(Fault::Shorter { received: 4, announced: 5 })));
        assert!(matches!(gathered(&announced, b"states"), Err(Fault::Longer { announced: 5 })));
        assert!(matches!(gathered(&announced, b"stale"), Err(Fault::Checksum { .. })));
        assert!(matches!(gathered(&header(b""), b""), Ok(data) if data.is_empty()));
    }
}
