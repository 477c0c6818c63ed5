//! The first frames of a connection: who speaks, to whom, and in which version.
//!
//! The dialling side opens a stream and says hello, the accepting side answers with a welcome or
//! ends the connection with a [`Refusal`]. Everything in a hello that a certificate also says is
//! checked against the certificate.

use raft_core::{ClusterId, NodeId, Peer};
use serde::{Deserialize, Serialize};

use super::contain::Held;
use super::error::DialError;
use super::frame::{FrameReader, FrameWriter, ReadFrameError};
use super::limits::HELLO_BYTES_MAX;
use super::{Refusal, tls};
use crate::certs::{Identity, Role};
use crate::codec::{self, FrameError, Kind};

/// The versions of the protocol that a side speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Versions {
    pub(super) min: u16,
    pub(super) max: u16,
}

impl Versions {
    /// What this program speaks.
    pub(super) const OURS: Self = Self { min: 1, max: 1 };

    /// The newest that both speak.
    fn common(self, other: Self) -> Option<u16> {
        let (min, max) = (self.min.max(other.min), self.max.min(other.max));
        (min <= max).then_some(max)
    }
}

/// What the dialling side says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) versions: Versions,
    pub(super) cluster: ClusterId,
    /// Whom it looks for, if it knows.
    pub(super) to: Option<NodeId>,
    /// Who it is, if it is a node.
    pub(super) from: Option<Peer>,
    /// Where it listens itself (`host:port`), if it is a node that wants to be found.
    pub(super) listens_at: Option<String>,
}

/// What the accepting side answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) version: u16,
    pub(super) me: Peer,
    /// Bytes that a request may have; 0 towards peers.
    pub(super) request_bytes_max: u64,
}

/// The stream on which the hello was said.
pub(super) struct Opened {
    pub(super) welcome: Welcome,
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
}

/// Says hello and waits for the welcome.
pub(super) async fn say(connection: &Held<quinn::Connection>, hello: &Hello) -> Result<Opened, SayError> {
    let (send, receive) = connection.open_bi().await?;
    let mut writer = FrameWriter::new(Held::new(send));
    let mut reader = FrameReader::new(Held::new(receive), HELLO_BYTES_MAX);
    // A hello is far smaller than its limit.
    let _ = codec::encode_frame(&mut writer.buffer, Kind::Hello, hello, HELLO_BYTES_MAX);
    writer.flush_beyond(0).await.map_err(ReadOrWrite::from)?;
    let Some((kind, body)) = reader.next().await.map_err(ReadOrWrite::from)? else {
        return Err(SayError::Silent);
    };
    let welcome: Welcome =
        expect(Kind::Welcome, kind, &body).map_err(|error| ReadOrWrite::from(ReadFrameError::from(error)))?;
    // Whoever does not look for a certain node must still not be told a wrong name.
    let certified = tls::authenticated(connection).map(|(_, identity)| identity.role);
    if certified != Some(Role::Node(welcome.me.node)) {
        return Err(SayError::OtherNode { found: welcome.me.node });
    }
    Ok(Opened { welcome, reader, writer })
}

/// Why no welcome came.
#[derive(Debug, thiserror::Error)]
pub(super) enum SayError {
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Stream(#[from] ReadOrWrite),
    #[error("the other side ended the stream without a welcome")]
    Silent,
    #[error("the other side says that it is {found}, but its certificate does not")]
    OtherNode { found: NodeId },
}

/// A failure of either half of a stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadOrWrite {
    #[error(transparent)]
    Read(#[from] ReadFrameError),
    #[error(transparent)]
    Write(#[from] quinn::WriteError),
}

impl SayError {
    /// In the terms of whoever dialled. A lost stream is explained by what ended its connection.
    pub(super) fn into_dial_error(self, connection: &quinn::Connection, within: std::time::Duration) -> DialError {
        match (&self, connection.close_reason()) {
            (_, Some(error)) => DialError::from_connection(&error, within),
            (Self::Connection(error), None) => DialError::from_connection(error, within),
            (_, None) => DialError::Broken { reason: self.to_string() },
        }
    }
}

/// Waits for the hello.
pub(super) async fn hear(connection: &Held<quinn::Connection>) -> Result<(Hello, FrameReader, FrameWriter), HearError> {
    let (send, receive) = connection.accept_bi().await?;
    let (send, receive) = (Held::new(send), Held::new(receive));
    let mut reader = FrameReader::new(receive, HELLO_BYTES_MAX);
    let Some((kind, body)) = reader.next().await? else { return Err(HearError::Silent) };
    let hello = expect(Kind::Hello, kind, &body).map_err(ReadFrameError::from)?;
    Ok((hello, reader, FrameWriter::new(send)))
}

/// Why no hello came.
#[derive(Debug, thiserror::Error)]
pub(super) enum HearError {
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Read(#[from] ReadFrameError),
    #[error("the stream ended without a hello")]
    Silent,
}

/// Answers a hello that was found good.
pub(super) async fn welcome(writer: &mut FrameWriter, welcome: &Welcome) -> Result<(), quinn::WriteError> {
    // A welcome is far smaller than its limit.
    let _ = codec::encode_frame(&mut writer.buffer, Kind::Welcome, welcome, HELLO_BYTES_MAX);
    writer.flush_beyond(0).await
}

/// Whom a hello, with its certificate, has introduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Party {
    Peer(Peer),
    /// By the name in its certificate.
    Client(String),
}

/// Checks a hello against the certificate that it came with and against who we are; gives the
/// version to speak, and with whom.
pub(super) fn check(
    hello: &Hello,
    identity: Identity,
    cluster: ClusterId,
    me: Peer,
) -> Result<(u16, Party), (Refusal, String)> {
    if identity.cluster != cluster || hello.cluster != cluster {
        let other = if identity.cluster == cluster { hello.cluster } else { identity.cluster };
        return Err((Refusal::WrongCluster, format!("this is cluster {cluster}, not {other}")));
    }
    if hello.to.is_some_and(|to| to != me.node) {
        return Err((Refusal::WrongNode, format!("this is {}", me.node)));
    }
    let party = match (identity.role, hello.from) {
        (Role::Node(node), _) if node == me.node => {
            return Err((Refusal::WrongNode, format!("this is {node} itself; two processes share its certificate")));
        }
        (Role::Node(node), Some(from)) if from.node == node => Party::Peer(from),
        (Role::Node(node), Some(from)) => {
            return Err((Refusal::WrongNode, format!("the certificate is {node}'s, the hello is {}'s", from.node)));
        }
        (Role::Node(node), None) => return Err((Refusal::WrongNode, format!("{node} does not say who it is"))),
        (Role::Client(name), None) => Party::Client(name),
        (Role::Client(name), Some(_)) => {
            return Err((Refusal::WrongRole, format!("client {name} says that it is a node")));
        }
    };
    let ours = Versions::OURS;
    match ours.common(hello.versions) {
        Some(version) => Ok((version, party)),
        None => {
            let Versions { min, max } = hello.versions;
            let detail = format!("this side speaks {} to {}, the other {min} to {max}", ours.min, ours.max);
            Err((Refusal::NoCommonVersion, detail))
        }
    }
}

fn expect<T: serde::de::DeserializeOwned>(wanted: Kind, found: Kind, body: &[u8]) -> Result<T, FrameError> {
    if found == wanted { codec::decode_body(found, body) } else { Err(FrameError::OutOfPlace { found, wanted }) }
}

#[cfg(test)]
mod tests {
    use raft_core::{Boot, StoreId};

    use super::*;

    const CLUSTER: ClusterId = ClusterId::new(7);

    fn peer(node: u64) -> Peer {
        let node = NodeId::new(node).expect("because no test asks for node 0");
        Peer { node, store: StoreId::new(1), boot: Boot::new(1) }
    }

    fn node(node: u64) -> Identity {
        Identity { cluster: CLUSTER, role: Role::Node(peer(node).node) }
    }

    fn hello(from: Option<Peer>) -> Hello {
        Hello { versions: Versions::OURS, cluster: CLUSTER, to: Some(peer(1).node), from, listens_at: None }
    }

    fn refusal(hello: &Hello, identity: &Identity) -> Option<Refusal> {
        check(hello, identity.clone(), CLUSTER, peer(1)).err().map(|(refusal, _)| refusal)
    }

    #[test]
    fn a_hello_must_say_what_its_certificate_says() {
        let client = Identity { cluster: CLUSTER, role: Role::Client("ops".to_owned()) };
        assert_eq!(refusal(&hello(Some(peer(2))), &node(2)), None);
        assert_eq!(refusal(&hello(None), &client), None);
        assert_eq!(refusal(&hello(Some(peer(3))), &node(2)), Some(Refusal::WrongNode));
        assert_eq!(refusal(&hello(None), &node(2)), Some(Refusal::WrongNode));
        assert_eq!(refusal(&hello(Some(peer(1))), &node(1)), Some(Refusal::WrongNode));
        assert_eq!(refusal(&hello(Some(peer(2))), &client), Some(Refusal::WrongRole));
    }

    #[test]
    fn a_hello_must_be_meant_for_this_node_of_this_cluster() {
        let good = hello(Some(peer(2)));
        let elsewhere = Hello { to: Some(peer(3).node), ..good.clone() };
        assert_eq!(refusal(&elsewhere, &node(2)), Some(Refusal::WrongNode));
        let foreign = Hello { cluster: ClusterId::new(8), ..good.clone() };
        assert_eq!(refusal(&foreign, &node(2)), Some(Refusal::WrongCluster));
        let foreigner = Identity { cluster: ClusterId::new(8), ..node(2) };
        assert_eq!(refusal(&good, &foreigner), Some(Refusal::WrongCluster));
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let versions = |min, max| Versions { min, max };
        assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
        assert_eq!(versions(2, 5).common(versions(1, 3)), Some(3));
        assert_eq!(versions(1, 1).common(versions(2, 2)), None);
        let future = Hello { versions: versions(2, 9), ..hello(Some(peer(2))) };
        assert_eq!(refusal(&future, &node(2)), Some(Refusal::NoCommonVersion));
    }
}
