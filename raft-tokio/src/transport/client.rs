//! The calling side of clients.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use raft_core::{ClusterId, NodeId};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::contain::{Drivers, Held, failure};
use super::dial::dial;
use super::error::{CallError, DialError, Refusal};
use super::frame::{FrameReader, FrameWriter, ReadFrameError};
use super::hello::{self, Hello, Versions};
use super::limits::{self, CLOSE_TIMEOUT, COALESCE_BYTES, FLUSH_TIMEOUT};
use super::service::Failure;
use super::{Limits, TransportError, tls};
use crate::certs::{self, Credentials, Role};
use crate::codec::{self, EXCHANGE_ID, FrameError, Kind};

/// A client's presence on the network: one UDP port for all its connections.
pub struct ClientEndpoint {
    socket: Mutex<Socket>,
    credentials: Credentials,
    cluster: ClusterId,
    limits: Limits,
}

/// One life of the QUIC endpoint.
#[derive(Clone)]
struct Socket {
    quinn: Arc<Held<quinn::Endpoint>>,
    drivers: Arc<Drivers>,
}

impl Socket {
    fn open(credentials: &Credentials) -> Result<Self, TransportError> {
        let unusable = |error: rustls::Error| TransportError::Tls { reason: error.to_string() };
        let config =
            tls::client_config(credentials, tls::Protocol::Client, limits::dialing_server()).map_err(unusable)?;
        // An IPv6 socket reaches both families, where there is IPv6 at all.
        let any4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let bind4 = |_| UdpSocket::bind(any4);
        let bind = |source| TransportError::bind(any4, source);
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(bind4).map_err(bind)?;
        let drivers = Arc::new(Drivers::default());
        let mut quinn =
            quinn::Endpoint::new(tls::endpoint_config(credentials), None, socket, drivers.clone()).map_err(bind)?;
        quinn.set_default_client_config(config);
        Ok(Self { quinn: Arc::new(Held::new(quinn)), drivers })
    }
}

impl ClientEndpoint {
    /// Opens a port. Must be called within a tokio runtime, of either flavour; contacts nobody yet.
    ///
    /// The cluster is the one that the credentials are for.
    ///
    /// # Errors
    /// If there is no runtime or no port, or the credentials are not a client's.
    pub fn new(credentials: &Credentials, limits: Limits) -> Result<Self, TransportError> {
        tokio::runtime::Handle::try_current().map_err(|_| TransportError::NoRuntime)?;
        let identity = credentials.identity();
        if !matches!(identity.role, Role::Client(_)) {
            return Err(TransportError::NotAClient {
                certificate: Box::new(credentials.certificate().clone()),
                found: identity.clone(),
            });
        }
        let socket = Mutex::new(Socket::open(credentials)?);
        Ok(Self { socket, credentials: credentials.clone(), cluster: identity.cluster, limits })
    }

    /// Connects to a node (`host:port`), to `expected` and no other if it is given.
    ///
    /// # Errors
    /// If the address cannot be resolved, nobody answers there, or either side does not accept
    /// the other: the cause says which.
    pub async fn connect(&self, address: &str, expected: Option<NodeId>) -> Result<ClientConnection, TransportError> {
        let within = self.limits.handshake_timeout;
        let failed = |cause| TransportError::Dial { address: address.to_owned(), cause };
        let name = match expected {
            Some(node) => certs::node_name(self.cluster, node),
            None => certs::any_node_name(self.cluster),
        };
        let Socket { quinn, drivers } = self.socket()?;
        let attempt = async {
            let connection = dial(&quinn, address, &name, within).await?;
            let hello =
                Hello { versions: Versions::OURS, cluster: self.cluster, to: expected, from: None, listens_at: None };
            let opened = hello::say(&connection, &hello).await;
            let opened = opened.map_err(|error| failed(error.into_dial_error(&connection, within)))?;
            Ok(ClientConnection::start(connection, opened, &drivers, &self.limits))
        };
        timeout(within, attempt).await.unwrap_or_else(|_| Err(failed(DialError::NoAnswer { within })))
    }

    /// Closes every connection and gives the port back. Takes a second at most.
    pub async fn close(self) {
        let Socket { quinn, drivers } = self.socket.into_inner().unwrap_or_else(PoisonError::into_inner);
        if drivers.has_panicked() {
            std::mem::forget(quinn);
        } else {
            quinn.close(Refusal::ShuttingDown.code(), b"");
            let _ = timeout(CLOSE_TIMEOUT, quinn.wait_idle()).await;
            drop(quinn);
        }
        drivers.stop().await;
        let _ = timeout(FLUSH_TIMEOUT, drivers.released()).await;
    }

    /// The socket; another one if a panic in the QUIC library has spoilt it (contract X1).
    fn socket(&self) -> Result<Socket, TransportError> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.drivers.has_panicked() {
            let spoilt = std::mem::replace(&mut *socket, Socket::open(&self.credentials)?);
            // Its destructor may meet a poisoned mutex.
            std::mem::forget(spoilt);
        }
        Ok(socket.clone())
    }
}

impl fmt::Debug for ClientEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientEndpoint").field("identity", self.credentials.identity()).finish_non_exhaustive()
    }
}

/// A connection to one node. Clones share it; it is closed when the last one is dropped.
#[derive(Clone, Debug)]
pub struct ClientConnection {
    calls: Arc<Calls>,
    node: NodeId,
    request_bytes_max: usize,
    _guard: Arc<Guard>,
}

/// Ends the tasks of a connection with its last handle.
#[derive(Debug)]
struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ClientConnection {
    fn start(
        connection: Held<quinn::Connection>,
        opened: hello::Opened,
        drivers: &Arc<Drivers>,
        limits: &Limits,
    ) -> Self {
        let hello::Opened { welcome, mut reader, writer } = opened;
        reader.set_body_max(limits.answer_bytes_max.saturating_add(EXCHANGE_ID));
        let theirs = usize::try_from(welcome.request_bytes_max).unwrap_or(usize::MAX);
        let calls = Arc::new(Calls::default());
        let task = tokio::spawn(run(connection, drivers.clone(), calls.clone(), reader, writer));
        Self {
            calls,
            node: welcome.me.node,
            request_bytes_max: theirs.min(limits.request_bytes_max),
            _guard: Arc::new(Guard(task.abort_handle())),
        }
    }

    /// Who is at the other end.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Sends a request and waits for its answer, for as long as the connection lives: a deadline
    /// is the caller's matter. If the future is dropped after the request has been sent, the
    /// answer is thrown away; the request may be carried out all the same.
    ///
    /// # Errors
    /// [`CallError::NotSent`] and [`CallError::TooLarge`] if it has certainly not been carried
    /// out; [`CallError::Unknown`] if that is not certain.
    pub async fn call(&self, request: Bytes) -> Result<Bytes, CallError> {
        let bytes = request.len();
        if bytes > self.request_bytes_max {
            return Err(CallError::TooLarge { bytes, max: self.request_bytes_max });
        }
        let (id, answer) = self.calls.enter(request)?;
        let _forget = Forget { calls: &self.calls, id };
        // The other half is dropped unanswered only if the task that holds it is stopped.
        answer.await.unwrap_or_else(|_| Err(CallError::Unknown { reason: "the connection was dropped".to_owned() }))
    }

    /// Whether the connection has ended, so that every call will fail.
    pub fn is_closed(&self) -> bool {
        self.calls.lock().ended.is_some()
    }

    /// Returns when the connection has ended, and says why.
    pub async fn closed(&self) -> String {
        let mut ended = self.calls.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
        self.calls.lock().ended.clone().unwrap_or_default()
    }
}

/// The calls of one connection.
///
/// Invariants: each id in `waiting` is in `queued` or has been handed to the stream, never both;
/// once `ended` is set, both are empty.
#[derive(Debug, Default)]
struct Calls {
    state: Mutex<State>,
    added: Notify,
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    queued: VecDeque<(u64, Bytes)>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Bytes, CallError>>>,
    ended: Option<String>,
}

/// Forgets a call whose future is dropped.
struct Forget<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut state = self.calls.lock();
        // Not there any more: it was answered.
        if state.waiting.remove(&self.id).is_some() {
            state.queued.retain(|(id, _)| *id != self.id);
        }
    }
}

impl Calls {
    /// Queues a request.
    fn enter(&self, request: Bytes) -> Result<(u64, oneshot::Receiver<Result<Bytes, CallError>>), CallError> {
        let mut state = self.lock();
        if let Some(reason) = &state.ended {
            return Err(CallError::NotSent { reason: reason.clone() });
        }
        let id = state.next_id;
        state.next_id += 1;
        let (sender, answer) = oneshot::channel();
        state.waiting.insert(id, sender);
        state.queued.push_back((id, request));
        drop(state);
        self.added.notify_one();
        Ok((id, answer))
    }

    /// Waits for requests and takes them all: from now on they count as sent.
    async fn take(&self, into: &mut VecDeque<(u64, Bytes)>) {
        loop {
            std::mem::swap(&mut self.lock().queued, into);
            if !into.is_empty() {
                return;
            }
            self.added.notified().await;
        }
    }

    /// An answer has come.
    fn on_answer(&self, id: u64, answer: Result<Bytes, CallError>) {
        let sender = self.lock().waiting.remove(&id);
        if let Some(sender) = sender {
            // Its caller may have gone this very moment.
            let _ = sender.send(answer);
        }
    }

    /// The connection is gone: nothing that waits will be answered.
    fn on_end(&self, reason: &str) {
        let mut state = self.lock();
        if state.ended.is_some() {
            return;
        }
        state.ended = Some(reason.to_owned());
        let queued = std::mem::take(&mut state.queued);
        let mut waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (id, _) in queued {
            if let Some(sender) = waiting.remove(&id) {
                let _ = sender.send(Err(CallError::NotSent { reason: reason.to_owned() }));
            }
        }
        for sender in waiting.into_values() {
            let _ = sender.send(Err(CallError::Unknown { reason: reason.to_owned() }));
        }
        self.ended.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// However the task of a connection ends, by a panic or from outside, its calls end with it.
struct EndOnDrop(Arc<Calls>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.on_end("the connection was dropped");
    }
}

/// Serves a connection until it ends.
async fn run(
    connection: Held<quinn::Connection>,
    drivers: Arc<Drivers>,
    calls: Arc<Calls>,
    reader: FrameReader,
    writer: FrameWriter,
) {
    let _end = EndOnDrop(calls.clone());
    tokio::select! {
        () = exchange(&connection, &calls, reader, writer) => {}
        () = drivers.panicked() => {
            calls.on_end("the QUIC library panicked");
            // Its destructor may meet a poisoned mutex.
            std::mem::forget(connection);
        }
    }
}

async fn exchange(connection: &Held<quinn::Connection>, calls: &Arc<Calls>, reader: FrameReader, writer: FrameWriter) {
    let (mut reading, mut writing) = (JoinSet::new(), JoinSet::new());
    reading.spawn(read(calls.clone(), reader));
    writing.spawn(write(calls.clone(), writer));
    let (mut ended, writer_ended) = tokio::select! {
        ended = reading.join_next() => (ended, false),
        ended = writing.join_next() => (ended, true),
    };
    // A server that stops ends the stream first, and says why with the connection.
    let reason = timeout(FLUSH_TIMEOUT, connection.closed()).await.ok();
    if reason.is_none() {
        connection.close(Refusal::Malformed.code(), b"");
    }
    if writer_ended {
        // What has arrived before the end is still an answer.
        let read = reading.join_next().await;
        ended = ended.or(read);
    }
    calls.on_end(&match (reason, ended) {
        (Some(error), _) => DialError::from_connection(&error, limits::CLIENT_IDLE_TIMEOUT).to_string(),
        (None, Some(Ok(reason))) => reason,
        (None, Some(Err(error))) => failure(error),
        (None, None) => String::new(),
    });
}

/// Hands out answers; says why there will be no more.
async fn read(calls: Arc<Calls>, mut reader: FrameReader) -> String {
    loop {
        match reader.next().await {
            Ok(Some((kind, body))) => {
                if let Err(error) = deliver(&calls, kind, body, &reader) {
                    return error.to_string();
                }
            }
            Ok(None) => return "the server has ended the stream".to_owned(),
            Err(ReadFrameError::Frame(error)) => return error.to_string(),
            Err(ReadFrameError::Stream(error)) => return error.to_string(),
        }
    }
}

fn deliver(calls: &Calls, kind: Kind, body: bytes::BytesMut, reader: &FrameReader) -> Result<(), FrameError> {
    match kind {
        Kind::Answer => {
            let (id, answer) = codec::decode_exchange(kind, body)?;
            let backing = reader.backing(answer.len());
            calls.on_answer(id, Ok(codec::detach(answer, backing)));
            Ok(())
        }
        Kind::Failure => {
            let (id, reason) = codec::decode_exchange(kind, body)?;
            let failure = reason.first().copied().and_then(Failure::from_byte);
            calls.on_answer(
                id,
                Err(match failure {
                    Some(Failure::AnswerTooLarge) => CallError::AnswerTooLarge,
                    Some(Failure::Panicked) | None => {
                        CallError::Unknown { reason: "the server failed while it carried out the request".to_owned() }
                    }
                }),
            );
            Ok(())
        }
        Kind::Hello | Kind::Welcome | Kind::Rpc | Kind::Request | Kind::Snapshot => {
            Err(FrameError::OutOfPlace { found: kind, wanted: Kind::Answer })
        }
    }
}

/// Writes requests; says why it cannot any more.
async fn write(calls: Arc<Calls>, mut writer: FrameWriter) -> String {
    let mut batch = VecDeque::new();
    loop {
        calls.take(&mut batch).await;
        for (id, request) in batch.drain(..) {
            // Its size was checked when it was entered.
            let _ = codec::encode_exchange(&mut writer.buffer, Kind::Request, id, &request, usize::MAX);
            if let Err(error) = writer.flush_beyond(COALESCE_BYTES).await {
                return error.to_string();
            }
        }
        if let Err(error) = writer.flush_beyond(0).await {
            return error.to_string();
        }
    }
}
