//! What can go wrong between two processes, said so that one knows which side to look at.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectionError, VarInt};
use raft_core::{ClusterId, NodeId};

use super::AddressFault;
use crate::certs::{Identity, Part};

/// Why the transport could not start, or a connection not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Another process listens there.
    #[error(
        "UDP address {address} is already in use; stop the process that listens there (`ss -ulpn`), or choose another port"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on UDP address {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate is not the one of this node.
    #[error(
        "{certificate} names {found}, but this is node {node} of cluster {cluster}; give this node the certificate \
         and key that were issued to it"
    )]
    WrongIdentity {
        /// The certificate.
        certificate: Box<Part>,
        /// Whom the certificate names.
        found: Identity,
        /// This node.
        node: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// A client's endpoint was given a certificate that is not a client's.
    #[error("{certificate} names {found}; a client needs one that was issued to a client")]
    NotAClient {
        /// The certificate.
        certificate: Box<Part>,
        /// Whom the certificate names.
        found: Identity,
    },
    /// TLS does not accept the credentials.
    #[error("TLS cannot use the credentials: {reason}")]
    Tls {
        /// What it objects to.
        reason: String,
    },
    /// There is no tokio runtime here.
    #[error("the transport must be started within a tokio runtime")]
    NoRuntime,
    /// Nobody could connect to this address.
    #[error(
        "'{address}' is no address that others can connect to: {fault}; it is written host:port, such as 10.0.0.1:7400"
    )]
    BadAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        fault: AddressFault,
    },
    /// A host name could not be resolved.
    #[error("cannot resolve '{address}': {reason}; addresses are written host:port, such as 10.0.0.1:7400")]
    Resolve {
        /// What was asked for.
        address: String,
        /// Why not.
        reason: String,
    },
    /// A connection could not be made.
    #[error("no connection to {address}: {cause}")]
    Dial {
        /// Who was dialled.
        address: String,
        /// How far it got.
        cause: DialError,
    },
}

/// How far a connection got that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody answered.
    #[error("nobody answered within {within:?}; is the process running, and UDP not filtered?")]
    NoAnswer {
        /// How long was waited.
        within: Duration,
    },
    /// This side does not accept the other's certificate.
    #[error("its certificate was not accepted here: {fault} ({detail})")]
    Distrusted {
        /// What is wrong with it.
        fault: CertificateFault,
        /// In the words of the TLS library.
        detail: String,
    },
    /// The other side does not accept this one's certificate.
    #[error("our certificate was not accepted there: {fault}")]
    NotTrusted {
        /// What is wrong with it.
        fault: CertificateFault,
    },
    /// The certificates are good, but the other side does not want this connection.
    #[error("refused: {refusal}{}", Colon(detail))]
    Refused {
        /// The reason.
        refusal: Refusal,
        /// What it said besides.
        detail: String,
    },
    /// The connection broke before it was usable.
    #[error("the connection broke before it was usable: {reason}")]
    Broken {
        /// What broke it.
        reason: String,
    },
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// It was issued by another authority.
    #[error("it was issued by another authority; are the certificates of two clusters?")]
    OtherAuthority,
    /// It has expired, or is not valid yet.
    #[error("it has expired or is not valid yet, by the clock of whoever checks it")]
    NotValidNow,
    /// It names another node, or a node of another cluster, than was dialled.
    #[error("it names another node than the one dialled")]
    OtherName,
    /// It must not be used this way: a client's certificate cannot serve.
    #[error("it is not for this use; a client's certificate cannot act as a node")]
    WrongUse,
    /// Something else, as a TLS alert.
    #[error("TLS alert {0}")]
    Other(u8),
}

/// Why a side ends a connection whose certificates are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The process stops.
    #[error("it is shutting down")]
    ShuttingDown,
    /// A client's certificate on the peers' protocol, or a node's on the clients'.
    #[error("the certificate's role does not fit the protocol; clients need a client's certificate, peers a node's")]
    WrongRole,
    /// The other side belongs to another cluster.
    #[error("it belongs to another cluster")]
    WrongCluster,
    /// The hello claims to be, or to look for, another node than the certificates say.
    #[error("the hello names another node than the certificate")]
    WrongNode,
    /// There is no version of the protocol that both speak.
    #[error("there is no version of the protocol that both sides speak; upgrade the older one")]
    NoCommonVersion,
    /// This node serves no clients.
    #[error("it does not serve clients")]
    NotServed,
    /// Too many connections.
    #[error("it has too many connections")]
    Overloaded,
    /// The same peer has connected anew.
    #[error("the same node has connected anew")]
    Superseded,
    /// A deadline passed, or answers were not read.
    #[error("this side was too slow")]
    TooSlow,
    /// What was sent cannot be understood.
    #[error("what this side sent could not be understood")]
    Malformed,
    /// A task failed.
    #[error("it had an internal failure")]
    Internal,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The request has certainly not been carried out: it never left.
    #[error("the request was not sent: {reason}")]
    NotSent {
        /// Why the connection is gone.
        reason: String,
    },
    /// The request was sent, and may have been carried out or may yet be.
    #[error("the request was sent, but its outcome is unknown: {reason}")]
    Unknown {
        /// Why no answer will come.
        reason: String,
    },
    /// The request is larger than the server accepts; it was not sent.
    #[error("the request has {bytes} bytes; the server accepts {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The request was carried out, but its answer is larger than may be sent.
    #[error("the request was carried out, but the answer is larger than the limit; ask for less at once")]
    AnswerTooLarge,
}

impl TransportError {
    pub(super) fn bind(address: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse {
            Self::AddressInUse { address }
        } else {
            Self::Bind { address, source }
        }
    }
}

impl DialError {
    /// Reads quinn's account of a failed connection.
    pub(super) fn from_connection(error: &ConnectionError, within: Duration) -> Self {
        match error {
            ConnectionError::TransportError(error) => match tls_alert(error.code) {
                Some(alert) => {
                    Self::Distrusted { fault: CertificateFault::from_alert(alert), detail: error.reason.clone() }
                }
                None => Self::Broken { reason: error.to_string() },
            },
            ConnectionError::ConnectionClosed(close) => match tls_alert(close.error_code) {
                Some(alert) => Self::NotTrusted { fault: CertificateFault::from_alert(alert) },
                None if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED => {
                    Self::Refused { refusal: Refusal::Overloaded, detail: String::new() }
                }
                None => Self::Broken { reason: close.to_string() },
            },
            ConnectionError::ApplicationClosed(close) => match Refusal::from_code(close.error_code) {
                Some(refusal) => Self::Refused { refusal, detail: String::from_utf8_lossy(&close.reason).into_owned() },
                None => Self::Broken { reason: close.to_string() },
            },
            ConnectionError::TimedOut => Self::NoAnswer { within },
            error => Self::Broken { reason: error.to_string() },
        }
    }
}

impl CertificateFault {
    fn from_alert(alert: u8) -> Self {
        match alert {
            // unknown_ca; decrypt_error is what a signature by another key of the same name gives.
            48 | 51 => Self::OtherAuthority,
            // certificate_expired.
            45 => Self::NotValidNow,
            // bad_certificate.
            42 => Self::OtherName,
            // unsupported_certificate.
            43 => Self::WrongUse,
            other => Self::Other(other),
        }
    }
}

impl Refusal {
    const ALL: [Self; 11] = [
        Self::ShuttingDown,
        Self::WrongRole,
        Self::WrongCluster,
        Self::WrongNode,
        Self::NoCommonVersion,
        Self::NotServed,
        Self::Overloaded,
        Self::Superseded,
        Self::TooSlow,
        Self::Malformed,
        Self::Internal,
    ];

    /// Its number on the wire.
    pub(super) fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Self::ShuttingDown => 1,
            Self::WrongRole => 2,
            Self::WrongCluster => 3,
            Self::WrongNode => 4,
            Self::NoCommonVersion => 5,
            Self::NotServed => 6,
            Self::Overloaded => 7,
            Self::Superseded => 8,
            Self::TooSlow => 9,
            Self::Malformed => 10,
            Self::Internal => 11,
        })
    }

    fn from_code(code: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }
}

/// The number of the TLS alert that a transport error code stands for (RFC 9001, 4.8).
fn tls_alert(code: quinn::TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then_some((code & 0xff) as u8)
}

/// `: detail`, or nothing.
struct Colon<'a>(&'a str);

impl std::fmt::Display for Colon<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}
