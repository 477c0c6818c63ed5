//! The sending side of one peer: dials, says hello, writes, and dials again.
//!
//! Each node dials every other one for what it sends; what it receives comes over the connections
//! that the others have dialled. So there is never a tie between two dials to break, a connection
//! lives exactly as long as the queue that it empties, and each direction finds out by itself that
//! it is broken. The price is a second handshake and second keep-alives for each pair.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft_core::{Boot, NodeId, Rpc};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::contain::{Held, failure};
use super::dial::dial;
use super::endpoint::Shared;
use super::error::{DialError, Refusal};
use super::frame::FrameWriter;
use super::hello::{self, Hello, Versions};
use super::limits::COALESCE_BYTES;
use super::queue::Queue;
use super::{Incoming, Limits, TransportError, snapshot};
use crate::certs;
use crate::codec::{self, Kind};

/// One peer, as configured.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) node: NodeId,
    pub(super) address: String,
    pub(super) queue: Queue,
    heard: watch::Sender<Heard>,
}

/// What is known of a peer from its own connections to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The life in which it connected last.
    pub(super) boot: Option<Boot>,
    /// How often it has connected.
    pub(super) times: u64,
}

impl Slot {
    pub(super) fn new(node: NodeId, address: String, limits: &Limits) -> Self {
        Self { node, address, queue: Queue::new(limits), heard: watch::Sender::default() }
    }

    /// The peer has connected to us: whatever is believed of it, it is there now.
    pub(super) fn on_heard(&self, boot: Boot) {
        self.heard.send_modify(|heard| {
            *heard = Heard { boot: heard.boot.max(Some(boot)), times: heard.times.wrapping_add(1) };
        });
    }
}

/// Serves one peer until the endpoint closes.
pub(super) async fn run(shared: Arc<Shared>, quinn: Arc<Held<quinn::Endpoint>>, slot: Arc<Slot>) {
    let overflows = async {
        loop {
            slot.queue.overflowed().await;
            shared.report(Incoming::Unreachable { node: slot.node });
        }
    };
    tokio::select! {
        () = keep_connected(&shared, &quinn, &slot) => {}
        () = overflows => {}
    }
}

async fn keep_connected(shared: &Arc<Shared>, quinn: &Arc<Held<quinn::Endpoint>>, slot: &Arc<Slot>) {
    let mut pause = Pause::new(shared.limits().redial);
    let mut patience = DIAL_PATIENCE_MIN;
    let mut heard = slot.heard.subscribe();
    let mut closing = shared.closing();
    loop {
        heard.mark_unchanged();
        let attempt = tokio::select! {
            attempt = open(shared, quinn, slot) => attempt,
            () = overtaken(&mut heard, patience) => {
                // Two that overtake each other must come to an end.
                patience = patience.saturating_mul(2);
                continue;
            }
            () = closed(&mut closing) => return,
        };
        match attempt {
            Ok(outbound) => {
                tracing::info!(peer = %slot.node, address = %slot.address, "connected");
                patience = DIAL_PATIENCE_MIN;
                let since = Instant::now();
                let end = serve(shared, slot, outbound, &mut heard).await;
                slot.queue.clear();
                shared.report(Incoming::Unreachable { node: slot.node });
                pause.on_lived(since.elapsed());
                match end {
                    End::Flushed => return,
                    End::Restarted => continue,
                    End::Lost(reason) => {
                        shared.log_failure(slot.node, &format_args!("the connection is lost: {reason}"));
                    }
                }
            }
            Err(error) => {
                if slot.queue.clear() {
                    shared.report(Incoming::Unreachable { node: slot.node });
                }
                shared.log_failure(slot.node, &error);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause.next()) => {}
            // It has just connected to us, so it is there.
            _ = heard.changed() => {}
            () = closed(&mut closing) => return,
        }
    }
}

/// Returns when a dial that began now has been overtaken: the peer has connected to us
/// meanwhile, and the dial had its time. Its first packet was probably lost, because the peer was
/// not there yet, and is not sent again for long.
async fn overtaken(heard: &mut watch::Receiver<Heard>, patience: Duration) {
    tokio::time::sleep(patience).await;
    if heard.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A connection that is ready for messages.
struct Outbound {
    connection: Held<quinn::Connection>,
    urgent: FrameWriter,
    bulk: FrameWriter,
    /// The life of the peer that it leads to.
    boot: Boot,
}

/// Connects, says hello, and opens the streams.
async fn open(shared: &Shared, quinn: &Arc<Held<quinn::Endpoint>>, slot: &Slot) -> Result<Outbound, TransportError> {
    let within = shared.limits().handshake_timeout;
    let failed = |cause| TransportError::Dial { address: slot.address.clone(), cause };
    let attempt = async {
        let name = certs::node_name(shared.cluster(), slot.node);
        let connection = dial(quinn, &slot.address, &name, within).await?;
        shared.know_address(slot.node, connection.remote_address());
        let hello = Hello {
            versions: Versions::OURS,
            cluster: shared.cluster(),
            to: Some(slot.node),
            from: Some(shared.me()),
            listens_at: shared.advertise().map(str::to_owned),
        };
        let said = hello::say(&connection, &hello).await;
        let boot = said.map_err(|error| failed(error.into_dial_error(&connection, within)))?.welcome.me.boot;
        let opened = async { Ok((connection.open_uni().await?, connection.open_uni().await?)) };
        let (urgent, bulk) =
            opened.await.map_err(|error: quinn::ConnectionError| failed(DialError::from_connection(&error, within)))?;
        let (urgent, bulk) = (Held::new(urgent), Held::new(bulk));
        // A stream that is not closed takes a priority; if it is, the writer finds out.
        let _ = urgent.set_priority(1);
        Ok(Outbound { connection, urgent: FrameWriter::new(urgent), bulk: FrameWriter::new(bulk), boot })
    };
    timeout(within, attempt).await.unwrap_or_else(|_| Err(failed(DialError::NoAnswer { within })))
}

/// How the service of a connection ended.
enum End {
    /// The endpoint closes, and what was urgent has left.
    Flushed,
    /// The peer runs in a newer life than the one that this connection goes to.
    Restarted,
    /// The connection broke.
    Lost(String),
}

/// Writes until the connection ends.
async fn serve(shared: &Arc<Shared>, slot: &Arc<Slot>, outbound: Outbound, heard: &mut watch::Receiver<Heard>) -> End {
    let Outbound { connection, urgent, bulk, boot } = outbound;
    let mut writers = JoinSet::new();
    writers.spawn(write_urgent(shared.clone(), slot.clone(), urgent));
    writers.spawn(write_bulk(shared.clone(), slot.clone(), bulk));
    writers.spawn(snapshot::send_all(shared.clone(), slot.clone(), Held::new(connection.clone())));
    loop {
        tokio::select! {
            ended = writers.join_next() => {
                return match ended {
                    Some(Ok(Ok(()))) => {
                        connection.close(Refusal::ShuttingDown.code(), b"");
                        End::Flushed
                    }
                    Some(Ok(Err(error))) => {
                        End::Lost(connection.close_reason().map_or_else(|| error.to_string(), |error| error.to_string()))
                    }
                    Some(Err(error)) => End::Lost(format!("a writer failed: {}", failure(error))),
                    None => End::Lost("its writers are gone".to_owned()),
                };
            }
            error = connection.closed() => return End::Lost(error.to_string()),
            changed = heard.changed() => {
                if changed.is_ok() && heard.borrow_and_update().boot > Some(boot) {
                    connection.close(Refusal::Superseded.code(), b"");
                    return End::Restarted;
                }
            }
        }
    }
}

/// Writes urgent messages until the endpoint closes, and then those that still wait.
async fn write_urgent(shared: Arc<Shared>, slot: Arc<Slot>, mut writer: FrameWriter) -> Result<(), quinn::WriteError> {
    let mut batch = VecDeque::new();
    let mut closing = shared.closing();
    loop {
        let last = tokio::select! {
            biased;
            () = closed(&mut closing) => true,
            () = slot.queue.take_urgent(&mut batch) => false,
        };
        if last {
            slot.queue.try_take_urgent(&mut batch);
        }
        for rpc in batch.drain(..) {
            if let Err(error) = codec::encode_frame(&mut writer.buffer, Kind::Rpc, &rpc, shared.limits().rpc_bytes_max)
            {
                shared.log_failure(slot.node, &format_args!("an urgent message is dropped: {error}"));
            }
            writer.flush_beyond(COALESCE_BYTES).await?;
        }
        writer.flush_beyond(0).await?;
        if last {
            writer.finish().await;
            return Ok(());
        }
    }
}

/// Writes appends, small ones together, large ones alone.
async fn write_bulk(shared: Arc<Shared>, slot: Arc<Slot>, mut writer: FrameWriter) -> Result<(), quinn::WriteError> {
    let max = shared.limits().rpc_bytes_max;
    let mut batch = VecDeque::new();
    loop {
        slot.queue.take_bulk(COALESCE_BYTES as u64, &mut batch).await;
        for rpc in batch.drain(..) {
            let outcome = match rpc {
                Rpc::Append(append) if append.entries.cost() >= ALONE_BYTES => {
                    match shared.encoded.frame(&append, max) {
                        Ok(frame) => {
                            writer.write(frame).await?;
                            Ok(())
                        }
                        Err(error) => Err(error),
                    }
                }
                rpc => codec::encode_frame(&mut writer.buffer, Kind::Rpc, &rpc, max),
            };
            if let Err(error) = outcome {
                shared.log_failure(slot.node, &format_args!("an append is dropped: {error}; lower the core's limit"));
                slot.queue.lose_bulk();
            }
            writer.flush_beyond(COALESCE_BYTES).await?;
        }
        writer.flush_beyond(0).await?;
    }
}

/// The growing, jittered pause between attempts.
pub(super) struct Pause {
    min: Duration,
    max: Duration,
    next: Duration,
    random: RandomState,
    drawn: u64,
}

impl Pause {
    pub(super) fn new((min, max): (Duration, Duration)) -> Self {
        Self { min, max, next: min, random: RandomState::new(), drawn: 0 }
    }

    /// Between half of the current pause and all of it; the next one is twice as long.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        self.drawn = self.drawn.wrapping_add(1);
        let thousandths = (self.random.hash_one(self.drawn) % 501) as u32;
        pause / 2 + pause * thousandths / 1_000
    }

    /// What was good for a while starts over; what fails at once goes on pausing longer.
    pub(super) fn on_lived(&mut self, lived: Duration) {
        if lived >= self.max {
            self.next = self.min;
        }
    }
}

/// Returns when the endpoint closes.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the endpoint is gone altogether.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Appends from this cost on are frames of their own, encoded once for all peers.
const ALONE_BYTES: u64 = 16 << 10;
/// How long a dial goes on at least, even if the peer connects to us meanwhile.
const DIAL_PATIENCE_MIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_start_over_after_a_good_while() {
        let (min, max) = (Duration::from_millis(20), Duration::from_secs(1));
        let mut pause = Pause::new((min, max));
        for full in [20, 40, 80, 160, 320, 640, 1_000, 1_000] {
            let full = Duration::from_millis(full);
            let drawn = pause.next();
            assert!((full / 2..=full).contains(&drawn), "{drawn:?} of {full:?}");
        }
        pause.on_lived(max / 2);
        assert!(pause.next() >= max / 2);
        pause.on_lived(max);
        assert!(pause.next() <= min);
    }
}
