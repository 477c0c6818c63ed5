//! Layer 3: the server: what a node does with a client's request.
//!
//! A write becomes a [`Command`] in the log, and its answer comes from the machine once it is
//! applied; a read looks at the machine. Everything that could be wrong with a request is found
//! before anything is proposed.

mod admin;
mod journal;
mod status;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use raft_tokio::core::{Change, Index, NodeId};
use raft_tokio::storage::StorageError;
use raft_tokio::transport::{Caller, Service, TransportError};
use raft_tokio::{Node, ProposeError, Proposed, ReadError, StartError};

use self::journal::Journal;
use crate::command::{Answer, Command, Operation};
use crate::config::{ClusterConfig, ConfigError, IdentityError, NodeConfig};
use crate::key::{Key, KeyError, KeyRange};
use crate::machine::Machine;
use crate::protocol::{
    COUNT_STEPS_MAX, Freshness, PAGE_BYTES_MAX, Part, REQUEST_BYTES_MAX, Refusal, Reply, Request, Response, Ticket,
    decode_request, encode_response,
};
use crate::store::{Count, Page, PageLimit};

/// Answers the clients of one node.
pub struct KeyValueService {
    node: Node<Machine>,
    journal: Arc<Journal>,
}

/// Starts node `id` of the cluster that `config` describes, with its service for clients, on the
/// current runtime.
///
/// # Errors
/// If the configuration has no such node, its certificate cannot be used, its address is not one
/// of this machine, or its data directory is not its own or in use.
pub fn start(config: &ClusterConfig, id: NodeId) -> Result<Node<Machine>, ServeError> {
    let node = config.node(id)?;
    let credentials = config.node_credentials(node)?;
    let builder = Node::builder(config.cluster(), id, &node.data, listen_address(config, node)?, credentials)
        .peers(config.endpoints())
        .limits(config.limits())
        .timing(config.timing())
        .priority(node.priority);
    let builder = match config.leases() {
        Some(leases) => builder.leases(leases),
        None => builder,
    };
    builder
        .advertise(node.address.clone())
        .service(|node| Arc::new(KeyValueService::new(node)))
        .start(Machine::new())
        .map_err(|error| ServeError::from_start(error, config, node))
}

/// The socket address that a node listens on.
fn listen_address(config: &ClusterConfig, node: &NodeConfig) -> Result<SocketAddr, ServeError> {
    let address = node.listen.as_ref().unwrap_or(&node.address);
    let reason = match address.to_socket_addrs() {
        Ok(mut found) => match found.next() {
            Some(found) => return Ok(found),
            None => "the name has no address".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    Err(ServeError::Unresolved { address: address.clone(), reason, config: config.path().to_owned() })
}

/// A node that did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration has no such node.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its certificate cannot be used, or is not its own.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its address means nothing here.
    #[error(
        "cannot resolve {address}, where it is to listen: {reason}; correct its `address` in {}, or give it a `listen` \
         address there", config.display()
    )]
    Unresolved {
        /// The address.
        address: String,
        /// What the operating system says.
        reason: String,
        /// The configuration.
        config: PathBuf,
    },
    /// Its address belongs to another machine.
    #[error(
        "cannot listen on UDP address {address}: this machine does not have it (`ip address` shows those that it has); \
         run the node where it belongs, or correct its `address` in {0}; if others reach it there through a router, \
         add `listen = \"0.0.0.0:{1}\"`", config.display(), address.port()
    )]
    ForeignAddress {
        /// The address.
        address: SocketAddr,
        /// The configuration.
        config: PathBuf,
    },
    /// A file that every data directory has is not in this one.
    #[error(
        "{} is missing, so the data directory {} is not the whole of what this node has promised; bring back the whole \
         directory as the node left it, never a copy from earlier; if it is lost, the node is", path.display(), data.display()
    )]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The data directory.
        data: PathBuf,
    },
    /// The replica did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl ServeError {
    fn from_start(error: StartError, config: &ClusterConfig, node: &NodeConfig) -> Self {
        match error {
            StartError::Storage(StorageError::Io { path, source, .. })
                if source.kind() == io::ErrorKind::NotFound && path.starts_with(&node.data) =>
            {
                Self::Incomplete { path, data: node.data.clone() }
            }
            StartError::Transport(TransportError::Bind { address, source })
                if source.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                Self::ForeignAddress { address, config: config.path().to_owned() }
            }
            other => Self::Start(other),
        }
    }
}

impl KeyValueService {
    /// A service on top of `node`.
    pub fn new(node: Node<Machine>) -> Self {
        Self { node, journal: Arc::default() }
    }
}

impl Service for KeyValueService {
    fn call(&self, caller: &Caller, request: Bytes) -> Pin<Box<dyn Future<Output = Bytes> + Send>> {
        let (node, journal, caller) = (self.node.clone(), self.journal.clone(), caller.clone());
        Box::pin(async move {
            let (begun, asked) = (Instant::now(), parse(&request));
            journal.on_request(&caller, request.len(), &asked);
            let response = match asked {
                Ok(asked) => respond(&node, asked).await,
                Err(refusal) => Err(refusal),
            };
            journal.on_response(&caller, begun.elapsed(), &response);
            encode_response(&response)
        })
    }
}

async fn respond(node: &Node<Machine>, asked: Asked) -> Response {
    match asked {
        Asked::Write(command) => write(node, &command).await,
        Asked::Range { range, limit, freshness } => {
            read(node, freshness, move |machine| page(machine, &range, limit)).await
        }
        Asked::Count { range, freshness } => read(node, freshness, move |machine| count(machine, &range)).await,
        Asked::Status => status::status(node).await,
        Asked::Change { expected, changes } => admin::change(node, expected, changes).await,
        Asked::Transfer { to } => admin::transfer(node, to).await,
        Asked::Snapshot => admin::snapshot(node).await,
    }
}

/// The errors of a node say themselves what it is busy with.
fn busy(error: &impl ToString) -> Refusal {
    Refusal::Busy { reason: error.to_string() }
}

/// A request whose parts are all valid.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Write(Command),
    Range { range: KeyRange, limit: PageLimit, freshness: Freshness },
    Count { range: KeyRange, freshness: Freshness },
    Status,
    Change { expected: Option<Index>, changes: Vec<Change> },
    Transfer { to: Option<NodeId> },
    Snapshot,
}

fn parse(bytes: &[u8]) -> Result<Asked, Refusal> {
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(too_large(Part::Request, bytes.len(), REQUEST_BYTES_MAX));
    }
    Ok(match decode_request(bytes).map_err(Refusal::Misunderstood)? {
        Request::Register { nonce } => Asked::Write(Command::Register { nonce }),
        Request::Put { ticket, key, value, if_revision } => {
            in_session(ticket, Operation::Put { key: parse_key(key)?, value, if_revision })
        }
        Request::Delete { ticket, key, if_revision } => {
            in_session(ticket, Operation::Delete { key: parse_key(key)?, if_revision })
        }
        Request::Range { range, limit, freshness } => {
            let pairs = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
            Asked::Range { range, limit: PageLimit { pairs, bytes: PAGE_BYTES_MAX }, freshness }
        }
        Request::Count { range, freshness } => Asked::Count { range, freshness },
        Request::Status => Asked::Status,
        Request::Change { expected, changes } => Asked::Change { expected, changes },
        Request::Transfer { to } => Asked::Transfer { to },
        Request::Snapshot => Asked::Snapshot,
    })
}

fn in_session(ticket: Ticket, operation: Operation) -> Asked {
    let Ticket { session, sequence, acknowledged } = ticket;
    Asked::Write(Command::Write { session, sequence, acknowledged, operation })
}

fn parse_key(bytes: Bytes) -> Result<Key, Refusal> {
    Key::new(bytes).map_err(|error| match error {
        KeyError::Empty => Refusal::EmptyKey,
        KeyError::TooLarge { size, limit } => too_large(Part::Key, size, limit),
    })
}

fn too_large(what: Part, size: usize, limit: usize) -> Refusal {
    Refusal::TooLarge { what, size: size as u64, limit: limit as u64 }
}

async fn write(node: &Node<Machine>, command: &Command) -> Response {
    let Proposed { answer, .. } = node.propose(command.encode()).await.map_err(|error| match error {
        ProposeError::NotLeader { leader } => Refusal::NotLeader { leader },
        ProposeError::Busy(_) => busy(&error),
        ProposeError::Unknown { leader } => Refusal::Unknown { leader },
        ProposeError::TooLarge { size, limit } => too_large(Part::Request, size, limit),
        ProposeError::StorageFailed => Refusal::StorageFailed,
        ProposeError::Stopped => Refusal::Stopping,
    })?;
    answered(&answer)
}

/// The machine's answer, in the client's terms.
fn answered(answer: &[u8]) -> Response {
    let answer = Answer::decode(answer).map_err(|error| {
        // The command is applied, whatever its answer is: only "unknown" is true.
        tracing::error!(%error, "the machine's answer cannot be read; this is a defect");
        Refusal::Unknown { leader: None }
    })?;
    match answer {
        Answer::Registered { session } => Ok(Reply::Registered { session }),
        Answer::Put { revision, previous } => Ok(Reply::Put { revision, previous }),
        Answer::Deleted { revision, previous } => Ok(Reply::Deleted { revision, previous }),
        Answer::CompareFailed { revision, current } => Err(Refusal::CompareFailed { revision, current }),
        Answer::SessionUnknown => Err(Refusal::SessionUnknown),
        Answer::SequenceStale { floor } => Err(Refusal::SequenceStale { floor }),
        Answer::SequenceAhead { ceiling } => Err(Refusal::SequenceAhead { ceiling }),
        Answer::Malformed(error) => Err(Refusal::Misunderstood(error)),
    }
}

async fn read<F>(node: &Node<Machine>, freshness: Freshness, look: F) -> Response
where
    F: FnOnce(&Machine) -> Reply + Send + 'static,
{
    match freshness {
        Freshness::Linearizable => node.read(look).await,
        Freshness::Stale => node.read_stale(look).await,
        Freshness::Lease => node.read_lease(look).await,
    }
    .map_err(refused)
}

fn page(machine: &Machine, range: &KeyRange, limit: PageLimit) -> Reply {
    let Page { kvs, more } = machine.store().range(range, limit);
    Reply::Range { kvs, more, revision: machine.store().revision() }
}

fn count(machine: &Machine, range: &KeyRange) -> Reply {
    let Count { count, rest } = machine.store().count(range, COUNT_STEPS_MAX);
    Reply::Counted { count, rest, revision: machine.store().revision() }
}

fn refused(error: ReadError) -> Refusal {
    match error {
        ReadError::NotLeader { leader } => Refusal::NotLeader { leader },
        ReadError::Busy(_) => busy(&error),
        ReadError::StorageFailed => Refusal::StorageFailed,
        ReadError::Stopped => Refusal::Stopping,
    }
}

#[cfg(test)]
mod tests {
    use raft_tokio::core::{Index, Position, StateMachine as _, Term};

    use super::*;
    use crate::envelope::DecodeError;
    use crate::key::Revision;
    use crate::protocol::encode_request;
    use crate::session::{Nonce, Sequence, SessionId};

    fn put(key: Bytes, value: Bytes) -> Request {
        let ticket = Ticket { session: SessionId::new(4), sequence: Sequence::new(2), acknowledged: Sequence::new(1) };
        Request::Put { ticket, key, value, if_revision: None }
    }

    /// Puts so many keys that begin with `k`.
    fn fill(machine: &mut Machine, keys: u64) {
        let mut index = 0;
        let mut apply = |command: &Command| {
            index += 1;
            let position = Position::new(Index::new(index), Term::new(1));
            Answer::decode(&machine.apply(position, &command.encode()))
                .expect("because the machine encodes its answers")
        };
        let Answer::Registered { session } = apply(&Command::Register { nonce: Nonce::new(1) }) else {
            panic!("a registration was answered with something else")
        };
        for nth in 1..=keys {
            let key = Key::new(format!("k{nth}")).expect("because it has a byte");
            let operation = Operation::Put { key, value: Bytes::new(), if_revision: None };
            let sequence = Sequence::new(nth);
            let answer = apply(&Command::Write { session, sequence, acknowledged: sequence, operation });
            assert!(matches!(answer, Answer::Put { .. }), "{answer:?}");
        }
    }

    fn asked(request: &Request) -> Result<Asked, Refusal> {
        parse(&encode_request(request))
    }

    #[test]
    fn a_write_becomes_a_command_of_its_session() {
        let operation =
            Operation::Put { key: Key::new("k").expect("because it has a byte"), value: "v".into(), if_revision: None };
        let command = Command::Write {
            session: SessionId::new(4),
            sequence: Sequence::new(2),
            acknowledged: Sequence::new(1),
            operation,
        };
        assert_eq!(asked(&put("k".into(), "v".into())), Ok(Asked::Write(command)));
    }

    #[test]
    fn what_is_over_a_limit_is_refused_with_size_and_limit() {
        assert_eq!(asked(&put(Bytes::new(), Bytes::new())), Err(Refusal::EmptyKey));
        let long = asked(&put(vec![b'k'; 4097].into(), Bytes::new()));
        assert_eq!(long, Err(Refusal::TooLarge { what: Part::Key, size: 4097, limit: 4096 }));
        let request = encode_request(&put("k".into(), vec![0; REQUEST_BYTES_MAX].into()));
        let size = request.len() as u64;
        assert_eq!(parse(&request), Err(Refusal::TooLarge { what: Part::Request, size, limit: 1_572_864 }));
    }

    #[test]
    fn the_largest_key_and_value_fit_into_a_request() {
        let request = put(vec![b'k'; Key::BYTES_MAX].into(), vec![0; crate::protocol::VALUE_BYTES_MAX].into());
        assert!(asked(&request).is_ok());
    }

    #[test]
    fn regress_an_answer_that_cannot_be_read_leaves_the_outcome_unknown() {
        assert_eq!(answered(b"nonsense"), Err(Refusal::Unknown { leader: None }));
        let answer = Answer::Put { revision: Revision::new(4), previous: None };
        assert_eq!(answered(&answer.encode()), Ok(Reply::Put { revision: Revision::new(4), previous: None }));
        // What the machine could not read was certainly not done.
        let refused = Answer::Malformed(DecodeError::Malformed);
        assert_eq!(answered(&refused.encode()), Err(Refusal::Misunderstood(DecodeError::Malformed)));
    }

    /// Neither a page nor a count takes longer, however large the range is: the node's one task
    /// does it, and its heartbeats wait meanwhile.
    #[test]
    fn regress_one_request_counts_no_more_than_its_share() {
        let mut machine = Machine::new();
        let keys = COUNT_STEPS_MAX as u64 * 2 + 3;
        fill(&mut machine, keys);
        let prefix = KeyRange::prefix("k");
        let revision = machine.store().revision();
        let mut rest = Some(prefix.clone());
        let mut counts = Vec::new();
        while let Some(range) = rest {
            let Reply::Counted { count, rest: further, revision: at } = count(&machine, &range) else {
                panic!("a count was answered with something else")
            };
            assert_eq!(at, revision);
            counts.push(count);
            rest = further;
        }
        assert_eq!(counts, [COUNT_STEPS_MAX as u64, COUNT_STEPS_MAX as u64, 3]);
        // The number of all keys is known without counting.
        assert_eq!(count(&machine, &KeyRange::all()), Reply::Counted { count: keys, rest: None, revision });
        let limit = PageLimit { pairs: 1, bytes: PAGE_BYTES_MAX };
        assert!(matches!(page(&machine, &prefix, limit), Reply::Range { kvs, more: true, .. } if kvs.len() == 1));
    }

    #[test]
    fn what_is_no_request_is_not_understood() {
        assert_eq!(parse(b""), Err(Refusal::Misunderstood(DecodeError::Foreign)));
        let newer = [&[0xc2, 4][..], &encode_request(&Request::Status)[2..]].concat();
        let unsupported = DecodeError::UnsupportedVersion { found: 4, newest: 3 };
        assert_eq!(parse(&newer), Err(Refusal::Misunderstood(unsupported)));
    }
}
