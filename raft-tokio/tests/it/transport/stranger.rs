//! Somebody who knows nothing of our code, only what its documentation says.

use std::net::SocketAddr;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// A program that speaks QUIC, but not as ours do.
pub(super) struct Stranger {
    _endpoint: quinn::Endpoint,
    pub(super) connection: quinn::Connection,
}

impl Stranger {
    pub(super) async fn connect(
        trusted: &Authority,
        issued: &Issued,
        alpn: &str,
        address: SocketAddr,
        name: &str,
    ) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(trusted.cert_pem().as_bytes()).expect("because it is PEM");
        roots.add(root).expect("because it is an authority");
        let certificate = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).expect("because it is PEM");
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("because it is PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("because ring has TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .expect("because they were issued together");
        tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let config = QuicClientConfig::try_from(tls).expect("because it is TLS 1.3");
        let any = "127.0.0.1:0".parse().expect("because it is an address");
        let mut endpoint = quinn::Endpoint::client(any).expect("because a port is free");
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
        let connecting = endpoint.connect(address, name).expect("because the name is one");
        let connection = in_time("the handshake", connecting).await.expect("because the server's part of it is good");
        Self { _endpoint: endpoint, connection }
    }

    /// A peer that has been welcomed; the stream of its hello stays open.
    pub(super) async fn peer(authority: &Authority, me: Peer, station: &Station, listens_at: Option<&str>) -> Self {
        let issued = authority.issue_node(me.node).expect("because the system has randomness");
        let address = station.endpoint.local_addr();
        let stranger = Self::connect(authority, &issued, "raft-peer/1", address, &any_node(authority)).await;
        let (mut send, mut welcome) =
            in_time("a stream", stranger.connection.open_bi()).await.expect("because one is allowed");
        send.write_all(&hello_at(authority.cluster(), Some(me), listens_at)).await.expect("because the window is open");
        let mut envelope = [0; 12];
        in_time("the welcome", welcome.read_exact(&mut envelope)).await.expect("because the hello is good");
        stranger
    }

    pub(super) async fn open_uni(&self) -> quinn::SendStream {
        in_time("a stream", self.connection.open_uni()).await.expect("because so many are allowed")
    }

    /// Writes bytes on the stream of the hello.
    pub(super) async fn say(&self, bytes: &[u8]) {
        let (mut send, _receive) =
            in_time("a stream", self.connection.open_bi()).await.expect("because one is allowed");
        send.write_all(bytes).await.expect("because the window is open");
        // Ended streams and lost connections both end this.
        let _ = send.stopped().await;
    }

    /// With what number and words the other side has ended the connection.
    pub(super) async fn turned_away(&self) -> (u64, String) {
        match in_time("the end of the connection", self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => {
                (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
            }
            other => panic!("the connection ended with {other}"),
        }
    }
}

/// A frame, put together from the description of the format alone.
pub(super) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![b'R', b'F', 1, kind];
    frame.extend((body.len() as u32).to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&frame), body);
    frame.extend(checksum.to_le_bytes());
    frame.extend(body);
    frame
}

/// A hello of versions 1 to 1, to anybody, from `from`.
pub(super) fn hello(cluster: ClusterId, from: Option<Peer>) -> Vec<u8> {
    hello_at(cluster, from, None)
}

/// The same from somebody who says where it listens.
pub(super) fn hello_at(cluster: ClusterId, from: Option<Peer>, listens_at: Option<&str>) -> Vec<u8> {
    let fields = (1_u16, 1_u16, cluster, None::<NodeId>, from, listens_at);
    frame(1, &postcard::to_stdvec(&fields).expect("because memory suffices"))
}

/// A name that each node of the cluster answers to.
pub(super) fn any_node(authority: &Authority) -> String {
    format!("any.{}.raft-node", authority.cluster())
}
