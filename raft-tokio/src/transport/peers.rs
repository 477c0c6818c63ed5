//! The receiving side of peers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::VarInt;
use raft_core::{NodeId, Peer, Rpc};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::Incoming;
use super::contain::{Held, failure};
use super::endpoint::Shared;
use super::error::Refusal;
use super::frame::{FrameReader, ReadFrameError};
use super::limits::{PEER_RECEIVE_WINDOW, PEER_STREAMS};
use super::link::closed;
use super::snapshot;
use crate::codec::{self, FrameError, Kind};

/// The newest connection of each peer: one that it has given up without our noticing must not
/// linger beside its successor.
#[derive(Debug, Default)]
pub(super) struct Senders {
    newest: Mutex<BTreeMap<NodeId, oneshot::Sender<()>>>,
}

impl Senders {
    /// Notes a new connection; the future ends when a newer one has come.
    fn enter(&self, node: NodeId) -> oneshot::Receiver<()> {
        let (superseded, until) = oneshot::channel();
        let before = self.newest.lock().unwrap_or_else(PoisonError::into_inner).insert(node, superseded);
        if let Some(before) = before {
            // It may have ended long ago.
            let _ = before.send(());
        }
        until
    }
}

/// Why receiving ended, if it was not the network.
enum End {
    Refuse(Refusal, String),
    Gone(String),
}

/// Delivers what the peer sends until the connection ends.
pub(super) async fn receive(shared: &Arc<Shared>, connection: &Held<quinn::Connection>, from: Peer) {
    let superseded = shared.senders.enter(from.node);
    connection.set_receive_window(VarInt::from_u32(PEER_RECEIVE_WINDOW));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(PEER_STREAMS));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(0));
    if let Some(slot) = shared.slot(from.node) {
        slot.on_heard(from.boot);
    }
    let mut closing = shared.closing();
    let end = tokio::select! {
        end = deliver(shared, connection, from) => end,
        Ok(()) = superseded => End::Refuse(Refusal::Superseded, String::new()),
        () = closed(&mut closing) => End::Refuse(Refusal::ShuttingDown, String::new()),
    };
    match end {
        End::Refuse(refusal, detail) => {
            if !detail.is_empty() {
                shared.log_failure(from.node, &format_args!("its connection is closed: {detail}"));
            }
            connection.close(refusal.code(), detail.as_bytes());
        }
        End::Gone(reason) => tracing::debug!(peer = %from, reason, "the peer's connection has ended"),
    }
}

async fn deliver(shared: &Arc<Shared>, connection: &Held<quinn::Connection>, from: Peer) -> End {
    let mut streams = JoinSet::new();
    let place = Arc::new(Semaphore::new(1));
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    let reader = FrameReader::new(Held::new(stream), shared.limits().rpc_bytes_max);
                    streams.spawn(read(shared.clone(), reader, from, place.clone()));
                }
                Err(error) => {
                    // What has arrived before the end still counts.
                    while streams.join_next().await.is_some() {}
                    return End::Gone(error.to_string());
                }
            },
            Some(ended) = streams.join_next(), if !streams.is_empty() => match ended {
                // The peer ends a stream when it has said all.
                Ok(Ok(())) => {}
                Ok(Err(ReadFrameError::Frame(error))) => return End::Refuse(Refusal::Malformed, error.to_string()),
                // The connection is lost: the other streams may still have something.
                Ok(Err(ReadFrameError::Stream(_))) => {}
                Err(error) => {
                    return End::Refuse(Refusal::Internal, format!("what it sent made a task fail: {}", failure(error)));
                }
            },
        }
    }
}

/// Delivers one stream, in its order: messages, or one snapshot, for which there is one `place`.
async fn read(
    shared: Arc<Shared>,
    mut reader: FrameReader,
    from: Peer,
    place: Arc<Semaphore>,
) -> Result<(), ReadFrameError> {
    let mut is_first = true;
    loop {
        while let Some((kind, body)) = reader.take()? {
            if kind == Kind::Snapshot && is_first {
                let header = codec::decode_body(kind, &body)?;
                drop(body);
                snapshot::receive(&shared, from, header, reader, &place).await;
                return Ok(());
            }
            if kind != Kind::Rpc {
                return Err(FrameError::OutOfPlace { found: kind, wanted: Kind::Rpc }.into());
            }
            is_first = false;
            let rpc: Rpc = codec::decode_body(kind, &body)?;
            drop(body);
            shared.report(Incoming::Received { from, rpc });
            // A full buffer must not keep the thread from everybody else.
            tokio::task::coop::consume_budget().await;
        }
        if !reader.fill().await? {
            return Ok(());
        }
    }
}
