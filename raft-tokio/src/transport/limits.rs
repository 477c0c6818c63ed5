//! Every limit of the transport in one place; none is left to a default of quinn's.

use std::sync::Arc;
use std::time::Duration;

use quinn::{AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt};

/// What the transport keeps, accepts and waits for at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message between peers.
    pub rpc_bytes_max: usize,
    /// Bytes of one request of a client.
    pub request_bytes_max: usize,
    /// Bytes of one answer to a client.
    pub answer_bytes_max: usize,
    /// Urgent messages waiting for one peer; the oldest are dropped.
    pub urgent_queue_max: usize,
    /// Appends waiting for one peer. Must not be less than the core keeps in flight
    /// (contract R5); when it is exceeded all of them are dropped, and the core is told.
    pub bulk_queue_max: usize,
    /// Bytes of the same.
    pub bulk_queue_bytes_max: u64,
    /// Bytes of one snapshot from a peer: so much memory it takes while it arrives.
    pub snapshot_bytes_max: u64,
    /// A snapshot of which nothing has come for so long is given up.
    pub snapshot_silence_max: Duration,
    /// Requests of one client's connection that have no answer yet; when reached, the connection is not read.
    pub requests_in_flight_max: usize,
    /// Bytes of the same.
    pub request_bytes_in_flight_max: usize,
    /// Bytes of the requests of all clients together that have no answer yet; when reached, no
    /// connection of a client is read until others have their answers.
    pub all_request_bytes_in_flight_max: usize,
    /// Bytes of the answers of all clients together that wait to be read by them; when exceeded,
    /// those who leave more than a little unread are given up.
    pub all_unread_answer_bytes_max: usize,
    /// Connections of clients.
    pub client_connections_max: usize,
    /// Handshakes a second with parties that are not known to be peers: each costs half a
    /// millisecond of this process before it has proved anything. As many may come at once.
    pub handshakes_per_second: u32,
    /// From the first packet to the end of the hello.
    pub handshake_timeout: Duration,
    /// The pause before a lost peer is dialled again: at first, and at most.
    pub redial: (Duration, Duration),
}

impl Limits {
    /// For servers.
    pub const DEFAULT: Self = Self {
        rpc_bytes_max: 16 << 20,
        request_bytes_max: (3 << 19) + (64 << 10),
        answer_bytes_max: 16 << 20,
        urgent_queue_max: 1_024,
        bulk_queue_max: 1_024,
        bulk_queue_bytes_max: 32 << 20,
        snapshot_bytes_max: 1 << 30,
        snapshot_silence_max: Duration::from_secs(30),
        requests_in_flight_max: 1_024,
        request_bytes_in_flight_max: 16 << 20,
        all_request_bytes_in_flight_max: 256 << 20,
        all_unread_answer_bytes_max: 256 << 20,
        client_connections_max: 4_096,
        handshakes_per_second: 500,
        handshake_timeout: Duration::from_secs(3),
        redial: (Duration::from_millis(20), Duration::from_secs(1)),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Handshakes under way at once with parties that are not known to be peers.
pub(super) const HANDSHAKES_MAX: usize = 256;
/// Handshakes under way at once with the addresses of peers.
pub(super) const PEER_HANDSHAKES_MAX: usize = 32;
/// Beyond so many handshakes under way, a party must first prove that it receives at its address.
pub(super) const HANDSHAKES_UNVALIDATED_MAX: usize = 64;
/// Connection attempts waiting for their handshake.
pub(super) const HANDSHAKES_WAITING_MAX: usize = 512;
/// Streams that a peer opens towards us: one urgent, one bulk, one for a snapshot. The next
/// snapshot's can be opened when the one before is done with.
pub(super) const PEER_STREAMS: u32 = 3;
/// Bytes that a peer may have on its way to us.
pub(super) const PEER_RECEIVE_WINDOW: u32 = 16 << 20;
/// Bytes of frames that are handed to quinn at once (performance: 4 to 64 KiB).
pub(super) const COALESCE_BYTES: usize = 64 << 10;
/// Bytes of a snapshot that are handed to quinn at once.
pub(super) const SNAPSHOT_PIECE_BYTES: usize = 64 << 10;
/// Bytes of a snapshot from one report of its progress to the next.
pub(super) const SNAPSHOT_REPORT_BYTES: usize = 256 << 10;
/// Bytes of answers that a client does not read before its connection is given up.
pub(super) const UNREAD_ANSWER_BYTES_MAX: usize = 64 << 20;
/// What a client may leave unread even when all of them together leave too much: it may be
/// reading an answer as fast as it can.
pub(super) const UNREAD_ANSWER_BYTES_FAIR: usize = 2 << 20;
/// Bytes of a hello or a welcome.
pub(super) const HELLO_BYTES_MAX: usize = 1 << 10;
/// What is still queued at a shutdown has this long to leave.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_millis(250);
/// The rest of a shutdown.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Silence after which a client and a server give each other up.
pub(super) const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

const CLIENT_RECEIVE_WINDOW: u32 = 2 << 20;
const STREAM_RECEIVE_WINDOW: u32 = 5 << 18;
const SEND_WINDOW: u64 = 8 << 20;

/// For connections that others open to us. It is a client's until the certificate says that it is a peer's.
pub(super) fn accepting() -> Arc<TransportConfig> {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(CLIENT_RECEIVE_WINDOW))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(10_000))));
    Arc::new(config)
}

/// For connections to a peer: it is missed soon.
pub(super) fn dialing_peer() -> Arc<TransportConfig> {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(CLIENT_RECEIVE_WINDOW))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(3_000))))
        .keep_alive_interval(Some(Duration::from_secs(1)))
        .ack_frequency_config(Some(few_acknowledgements()));
    Arc::new(config)
}

/// For a client's connections.
pub(super) fn dialing_server() -> Arc<TransportConfig> {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(PEER_RECEIVE_WINDOW))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(10_000))))
        .keep_alive_interval(Some(Duration::from_secs(3)));
    Arc::new(config)
}

/// Messages flow one way on a connection to a peer, so that its acknowledgements travel alone.
/// By default that is one datagram for every two of ours: half as much work again.
fn few_acknowledgements() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.ack_eliciting_threshold(VarInt::from_u32(8)).max_ack_delay(Some(Duration::from_millis(5)));
    config
}

fn common() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        // A first packet that is lost is sent again after three times this.
        .initial_rtt(Duration::from_millis(100))
        .crypto_buffer_size(16 << 10)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .allow_spin(false);
    config
}

/// Caps what strangers can make the endpoint hold before a handshake.
pub(super) fn limit_strangers(config: &mut quinn::ServerConfig) {
    config
        .transport_config(accepting())
        .migration(false)
        .max_incoming(1_024)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(16 << 20);
}
