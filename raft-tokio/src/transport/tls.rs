//! TLS 1.3, both sides authenticated by the cluster's authority, no resumption, no early data.
//!
//! A handshake costs a millisecond and connections live long. So every connection proves its
//! certificate anew, and an expired or exchanged one is noticed at the next connect.

use std::sync::Arc;

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, ServerConfig, TransportConfig};
use ring::hmac;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;

use super::limits;
use crate::certs::{Credentials, Identity};

/// What is spoken on a connection; each needs a certificate of its own role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Peer,
    Client,
}

impl Protocol {
    /// Its name in the handshake (ALPN).
    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::Peer => b"raft-peer/1",
            Self::Client => b"raft-client/1",
        }
    }
}

/// For the side that accepts.
pub(super) fn server_config(credentials: &Credentials) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(credentials.roots(), provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let certificate = SingleCertAndKey::from(credentials.certified());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificate));
    tls.alpn_protocols = [Protocol::Peer, Protocol::Client].map(|protocol| protocol.name().to_vec()).to_vec();
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    let quic = QuicServerConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    limits::limit_strangers(&mut config);
    Ok(config)
}

/// For the side that dials.
pub(super) fn client_config(
    credentials: &Credentials,
    protocol: Protocol,
    transport: Arc<TransportConfig>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = SingleCertAndKey::from(credentials.certified());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(credentials.roots())
        .with_client_cert_resolver(Arc::new(certificate));
    tls.alpn_protocols = vec![protocol.name().to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    let quic = QuicClientConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(transport);
    Ok(config)
}

/// For the socket: a process that was killed and came back on the same port can tell the others
/// that their connections are void, because its reset tokens depend on its private key only.
/// Otherwise they would wait for a timeout.
pub(super) fn endpoint_config(credentials: &Credentials) -> EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, credentials.secret());
    let derived = hmac::sign(&key, b"raft-tokio: QUIC stateless reset, version 1");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())));
    config.cid_generator(|| Box::new(PlainConnectionIds));
    config
}

/// Random ids. quinn's own generator only recognises ids of its own life, and stays silent about all others.
#[derive(Debug)]
struct PlainConnectionIds;

impl quinn::ConnectionIdGenerator for PlainConnectionIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id)
            .expect("because a system that runs has randomness");
        quinn::ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// Whom the other side has proved to be, and what it wants to speak; `None` if the certificate
/// names nobody, although the authority has signed it.
pub(super) fn authenticated(connection: &quinn::Connection) -> Option<(Protocol, Identity)> {
    let handshake = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    let spoken = handshake.protocol.as_deref()?;
    let protocol = [Protocol::Peer, Protocol::Client].into_iter().find(|protocol| protocol.name() == spoken)?;
    let certificates = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Some((protocol, Identity::from_certificate(certificates.first()?)?))
}

const CONNECTION_ID_BYTES: usize = 8;
