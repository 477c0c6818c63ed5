//! Layer 3: the client: finds the leader, follows hints, retries safely.
//!
//! A write carries a session and a sequence number and is repeated with the same ones until it
//! is answered, so it is applied once however often it is sent. Reads are simply repeated.
//! When the time is up a write that may have reached a log is reported as
//! [unknown](ClientError::OutcomeUnknown), never as failed.

mod call;
mod dial;
mod endpoint;
mod error;
mod operation;
mod pool;
mod quic;
mod tickets;
mod trail;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_tokio::certs::Credentials;
use raft_tokio::core::{Change, ClusterId, Index, NodeId, Position};
use tokio::time::Instant;

pub use self::error::{ClientError, UnknownCause};
pub use self::operation::{
    Consistency, CountReply, DeleteOptions, GetReply, MembershipReply, PutOptions, RangePage, RangeReply, RangeRequest,
    WriteReply,
};
pub use self::trail::{AttemptOutcome, EndpointTrail, Need, Trail};
pub use self::trust::{CredentialFiles, Distrust};

use self::call::{Finished, Target};
use self::dial::Dial;
use self::pool::Pool;
use self::quic::QuicDial;
use self::tickets::{OpenSession, Sessions};
use self::trail::HeldUp;
use self::trust::Presented;
use crate::key::{Key, KeyError, KeyRange};
use crate::protocol::{
    Freshness, NodeStatus, Part, REQUEST_BYTES_MAX, Refusal, Reply, Request, Ticket, encode_request, request_len,
};
use crate::random::{self, Jitter};
use crate::session::{Nonce, SessionId};

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The nodes and where they listen, as `host:port`.
    pub endpoints: BTreeMap<NodeId, String>,
    /// The cluster that they must belong to.
    pub cluster: ClusterId,
    /// Who this client is.
    pub credentials: Credentials,
    /// Where they were read from, if messages are to say so.
    pub credential_files: Option<CredentialFiles>,
    /// How long one operation may take, with all its retries.
    pub timeout: Duration,
}

/// A client of a cluster. Cloning it is cheap, and all clones share connections and session;
/// any number of operations may be under way at once.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    sessions: Sessions,
    timeout: Duration,
}

impl Client {
    /// A client of the cluster that `config` describes. Nothing is connected before the first
    /// operation, so the cluster need not be up. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// If there is no endpoint, or the credentials cannot be used.
    pub fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let ClientConfig { endpoints, cluster, credentials, credential_files, timeout } = config;
        let dial: Arc<dyn Dial> = Arc::new(QuicDial::new(cluster, &credentials)?);
        let presented = Presented { identity: credentials.identity().clone(), files: credential_files };
        Self::over(endpoints, timeout, &dial, presented)
    }

    /// A client over any kind of connection.
    fn over(
        endpoints: BTreeMap<NodeId, String>,
        timeout: Duration,
        dial: &Arc<dyn Dial>,
        presented: Presented,
    ) -> Result<Self, ClientError> {
        if endpoints.is_empty() {
            return Err(ClientError::NoEndpoints);
        }
        let seed = random::identity()?;
        // Half of the drawn bits are plenty for jitter.
        let pool = Pool::new(endpoints, dial, presented, Jitter::new(seed as u64));
        Ok(Self { shared: Arc::new(Shared { pool, sessions: Sessions::new(), timeout }) })
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`ClientError::CompareFailed`] if a condition does not hold; [`ClientError::Unavailable`] if
    /// the write certainly was not done, [`ClientError::OutcomeUnknown`] if it may have been; others
    /// if it never can be.
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<WriteReply, ClientError> {
        let (key, value) = (checked_key(key.into())?, value.into());
        let PutOptions { if_revision } = options;
        let request = |ticket| Request::Put { ticket, key: key.clone(), value: value.clone(), if_revision };
        let done = |reply| match reply {
            Reply::Put { revision, previous } => Some(WriteReply { revision, previous }),
            _ => None,
        };
        self.write(request, done).await
    }

    /// Removes a key. Removing one that does not exist is no error: `previous` is `None` then.
    ///
    /// # Errors
    /// As for [`Self::put`].
    pub async fn delete(&self, key: impl Into<Bytes>, options: DeleteOptions) -> Result<WriteReply, ClientError> {
        let key = checked_key(key.into())?;
        let DeleteOptions { if_revision } = options;
        let request = |ticket| Request::Delete { ticket, key: key.clone(), if_revision };
        let done = |reply| match reply {
            Reply::Deleted { revision, previous } => Some(WriteReply { revision, previous }),
            _ => None,
        };
        self.write(request, done).await
    }

    /// Reads a key.
    ///
    /// # Errors
    /// If no node could answer in time, or the key can be none.
    pub async fn get(&self, key: impl Into<Bytes>, consistency: Consistency) -> Result<GetReply, ClientError> {
        let key = Key::new(checked_key(key.into())?).map_err(key_error)?;
        let deadline = Instant::now() + self.shared.timeout;
        let page = self.page(KeyRange::single(&key), Some(1), consistency, deadline).await?;
        Ok(GetReply { kv: page.kvs.into_iter().next(), revision: page.revision })
    }

    /// Reads the pairs of a range, in as many pages as it takes, and counts those behind the
    /// limit; each request has the full timeout.
    ///
    /// # Errors
    /// If no node could answer in time.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeReply, ClientError> {
        let RangeRequest { range, limit, consistency } = request;
        let RangePage { mut kvs, mut more, revision } = self.range_page(range.clone(), limit, consistency).await?;
        let mut revision_last = revision;
        while more {
            let wanted = limit.map(|limit| limit.saturating_sub(kvs.len() as u64));
            let Some(last) = kvs.last().filter(|_| wanted != Some(0)) else { break };
            let page = self.range_page(range.after(&last.key), wanted, consistency).await?;
            (more, revision_last) = (page.more, page.revision);
            kvs.extend(page.kvs);
        }
        let mut count = kvs.len() as u64;
        if more {
            let rest = kvs.last().map_or(range.clone(), |last| range.after(&last.key));
            let counted = self.count(rest, consistency).await?;
            count = count.saturating_add(counted.count);
            revision_last = counted.revision_last;
        }
        Ok(RangeReply { kvs, more, count, revision, revision_last })
    }

    /// Reads the first pairs of a range, as many as the server puts into one answer: one
    /// consistent picture. Go on with [`KeyRange::after`] the last key.
    ///
    /// # Errors
    /// If no node could answer in time.
    pub async fn range_page(
        &self,
        range: KeyRange,
        limit: Option<u64>,
        consistency: Consistency,
    ) -> Result<RangePage, ClientError> {
        self.page(range, limit, consistency, Instant::now() + self.shared.timeout).await
    }

    /// Counts the pairs of a range, in as many requests as it takes: a server counts so many at
    /// once only that its other work does not wait. Each request has the full timeout.
    ///
    /// # Errors
    /// If no node could answer in time.
    pub async fn count(&self, range: KeyRange, consistency: Consistency) -> Result<CountReply, ClientError> {
        let (target, freshness) = route(consistency);
        let mut sum: Option<CountReply> = None;
        let mut rest = Some(range);
        while let Some(range) = rest {
            let deadline = Instant::now() + self.shared.timeout;
            let reply = self.read(&Request::Count { range, freshness }, target, deadline).await?;
            let Reply::Counted { count, rest: further, revision } = reply else { return Err(ClientError::Confused) };
            let before = sum.unwrap_or(CountReply { count: 0, revision, revision_last: revision });
            sum = Some(CountReply { count: before.count.saturating_add(count), revision_last: revision, ..before });
            rest = further;
        }
        sum.ok_or(ClientError::Confused)
    }

    /// Asks one node how it is. It answers even if it is alone.
    ///
    /// # Errors
    /// If it did not answer in time, or is none of the endpoints.
    pub async fn status(&self, node: NodeId) -> Result<NodeStatus, ClientError> {
        let deadline = Instant::now() + self.shared.timeout;
        match self.read(&Request::Status, Target::Node(node), deadline).await? {
            Reply::Status(status) => Ok(*status),
            _ => Err(ClientError::Confused),
        }
    }

    /// Changes the membership, all of `changes` at once, if the configuration of the index
    /// `expected` is in force; `None`: whichever is. Returns when the change is complete.
    ///
    /// # Errors
    /// [`ClientError::Declined`] if it cannot be made as things stand; [`ClientError::OutcomeUnknown`] if
    /// it may have been made. Adding the same store again is safe: it gets one id, however often it is asked.
    pub async fn change_membership(
        &self,
        expected: Option<Index>,
        changes: Vec<Change>,
    ) -> Result<MembershipReply, ClientError> {
        match self.decide(&Request::Change { expected, changes }).await? {
            Reply::Changed { configuration, node } => Ok(MembershipReply { configuration, node }),
            _ => Err(ClientError::Confused),
        }
    }

    /// Hands leadership over to a node, or to the best. Returns who leads then, if the old leader
    /// knows it already.
    ///
    /// # Errors
    /// [`ClientError::Declined`] if the node cannot take over, or has not in time;
    /// [`ClientError::OutcomeUnknown`] if it may have.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<Option<NodeId>, ClientError> {
        match self.decide(&Request::Transfer { to }).await? {
            Reply::Transferred { leader } => Ok(leader),
            _ => Err(ClientError::Confused),
        }
    }

    /// Has one node write a snapshot and cut its log. Returns where the snapshot ends.
    ///
    /// # Errors
    /// If it does not answer in time, or cannot write.
    pub async fn snapshot(&self, node: NodeId) -> Result<Position, ClientError> {
        let deadline = Instant::now() + self.shared.timeout;
        match self.read(&Request::Snapshot, Target::Node(node), deadline).await? {
            Reply::SnapshotTaken { last } => Ok(last),
            _ => Err(ClientError::Confused),
        }
    }

    /// The nodes that this client knows, and where they listen.
    pub fn endpoints(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.shared.pool.addresses()
    }

    /// The leader that this client saw last, if any.
    pub fn leader(&self) -> Option<NodeId> {
        self.shared.pool.leader_seen().map(|(node, _)| node)
    }

    async fn page(
        &self,
        range: KeyRange,
        limit: Option<u64>,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<RangePage, ClientError> {
        let (target, freshness) = route(consistency);
        match self.read(&Request::Range { range, limit, freshness }, target, deadline).await? {
            Reply::Range { kvs, more, revision } => Ok(RangePage { kvs, more, revision }),
            _ => Err(ClientError::Confused),
        }
    }

    async fn read(&self, request: &Request, target: Target, deadline: Instant) -> Result<Reply, ClientError> {
        check_size(request)?;
        let request = encode_request(request);
        let need = match target {
            Target::Leader => Need::Read,
            Target::Any => Need::AnyNode,
            Target::Node(node) => Need::Node(node),
        };
        let mut trail = self.shared.pool.trail(need, self.shared.timeout);
        match self.shared.pool.ask(target, || request.clone(), &mut trail, deadline).await? {
            Finished::Answered(reply) => Ok(reply),
            Finished::Refused(refusal) => Err(refused(refusal)),
            Finished::Distrusted => Err(ClientError::Distrusted(Box::new(trail))),
            Finished::OutOfTime => Err(ClientError::Unavailable(Box::new(trail))),
        }
    }

    /// Has the leader decide something about the cluster itself. It is asked again like a read; but
    /// once an attempt was not answered, nothing but an answer tells what became of it.
    async fn decide(&self, request: &Request) -> Result<Reply, ClientError> {
        check_size(request)?;
        let request = encode_request(request);
        let Shared { pool, timeout, .. } = &*self.shared;
        let mut trail = pool.trail(Need::Decision, *timeout);
        let cause = match pool.ask(Target::Leader, || request.clone(), &mut trail, Instant::now() + *timeout).await? {
            Finished::Answered(reply) => return Ok(reply),
            Finished::Refused(refusal) if trail.may_be_applied() => UnknownCause::RetryRefused(refusal),
            Finished::Refused(refusal) => return Err(refused(refusal)),
            Finished::Distrusted if trail.may_be_applied() => UnknownCause::Distrusted,
            Finished::Distrusted => return Err(ClientError::Distrusted(Box::new(trail))),
            Finished::OutOfTime if trail.may_be_applied() => UnknownCause::OutOfTime,
            Finished::OutOfTime => return Err(ClientError::Unavailable(Box::new(trail))),
        };
        Err(ClientError::OutcomeUnknown { cause, trail: Box::new(trail) })
    }

    /// Carries out one write, once; `done` takes the reply that it must have.
    async fn write(
        &self,
        request: impl Fn(Ticket) -> Request,
        done: impl Fn(Reply) -> Option<WriteReply>,
    ) -> Result<WriteReply, ClientError> {
        let Shared { pool, sessions, timeout } = &*self.shared;
        // The numbers in it grow from attempt to attempt, and "too large" must be certain.
        check_size(&request(Ticket::LONGEST))?;
        let deadline = Instant::now() + *timeout;
        let mut trail = pool.trail(Need::Write, *timeout);
        loop {
            let session = self.session(&mut trail, deadline).await?;
            let Some(place) = session.take_place(deadline).await else {
                trail.on_held_up(HeldUp::Window);
                return Err(ClientError::Unavailable(Box::new(trail)));
            };
            let encode = || encode_request(&request(place.ticket()));
            let unknown = match pool.ask(Target::Leader, encode, &mut trail, deadline).await? {
                Finished::Answered(reply) => match done(reply) {
                    Some(reply) => return Ok(reply),
                    None => UnknownCause::Confused,
                },
                Finished::Refused(Refusal::SessionUnknown) if !trail.may_be_applied() => {
                    // Nothing of it can be in a log, so another session may carry it.
                    sessions.discard(&session, deadline).await;
                    continue;
                }
                Finished::Refused(Refusal::SessionUnknown | Refusal::SequenceStale { .. }) => {
                    sessions.discard(&session, deadline).await;
                    UnknownCause::SessionLost
                }
                Finished::Refused(refusal) if trail.may_be_applied() && !settles(&refusal) => {
                    UnknownCause::RetryRefused(refusal)
                }
                Finished::Refused(refusal) => return Err(refused(refusal)),
                Finished::Distrusted if trail.may_be_applied() => UnknownCause::Distrusted,
                Finished::Distrusted => return Err(ClientError::Distrusted(Box::new(trail))),
                Finished::OutOfTime if trail.may_be_applied() => UnknownCause::OutOfTime,
                Finished::OutOfTime => return Err(ClientError::Unavailable(Box::new(trail))),
            };
            return Err(ClientError::OutcomeUnknown { cause: unknown, trail: Box::new(trail) });
        }
    }

    /// The open session; opened now if there is none.
    async fn session(&self, trail: &mut Trail, deadline: Instant) -> Result<Arc<OpenSession>, ClientError> {
        let Shared { pool, sessions, .. } = &*self.shared;
        let Some(mut current) = sessions.lock_until(deadline).await else {
            trail.on_held_up(HeldUp::Session);
            return Err(ClientError::Unavailable(Box::new(trail.clone())));
        };
        if let Some(open) = &*current {
            return Ok(open.clone());
        }
        // One nonce for all attempts: whichever of them get into the log, they open one session.
        let nonce = Nonce::new(random::identity()?);
        let request = encode_request(&Request::Register { nonce });
        let finished = pool.ask(Target::Leader, || request.clone(), trail, deadline).await?;
        // An empty session that nobody knows of is no change to the store: whatever became of
        // these attempts, the write itself was not sent.
        trail.nothing_applied();
        match finished {
            Finished::Answered(Reply::Registered { session }) => {
                tracing::info!(%session, "session opened");
                let open = Arc::new(OpenSession::new(session));
                *current = Some(open.clone());
                Ok(open)
            }
            Finished::Answered(_) => Err(ClientError::Confused),
            Finished::Refused(refusal) => Err(refused(refusal)),
            Finished::Distrusted => Err(ClientError::Distrusted(Box::new(trail.clone()))),
            Finished::OutOfTime => {
                // Its turn came when the time was up.
                if trail.attempts() == 0 {
                    trail.on_held_up(HeldUp::Session);
                }
                Err(ClientError::Unavailable(Box::new(trail.clone())))
            }
        }
    }

    /// The session that writes go through, once one is open.
    pub async fn session_id(&self) -> Option<SessionId> {
        self.shared.sessions.id().await
    }
}

fn checked_key(key: Bytes) -> Result<Bytes, ClientError> {
    Key::new(key.clone()).map(|_| key).map_err(key_error)
}

fn key_error(error: KeyError) -> ClientError {
    match error {
        KeyError::Empty => ClientError::EmptyKey,
        KeyError::TooLarge { size, limit } => {
            ClientError::TooLarge { what: Part::Key, size: size as u64, limit: limit as u64 }
        }
    }
}

/// Who has to answer a read, and how.
fn route(consistency: Consistency) -> (Target, Freshness) {
    match consistency {
        Consistency::Linearizable => (Target::Leader, Freshness::Linearizable),
        Consistency::Lease => (Target::Leader, Freshness::Lease),
        Consistency::LinearizableAt { node } => (Target::Node(node), Freshness::Linearizable),
        Consistency::Stale { node: Some(node) } => (Target::Node(node), Freshness::Stale),
        Consistency::Stale { node: None } => (Target::Any, Freshness::Stale),
    }
}

/// Whether a request fits, so that nothing is sent that does not.
fn check_size(request: &Request) -> Result<(), ClientError> {
    match request_len(request) {
        size if size > REQUEST_BYTES_MAX => {
            Err(ClientError::TooLarge { what: Part::Request, size: size as u64, limit: REQUEST_BYTES_MAX as u64 })
        }
        _ => Ok(()),
    }
}

/// Whether a refusal says what became of all attempts, earlier ones included. Only the state
/// machine can: it decides about a write once, and gives every copy of it the same answer.
fn settles(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::CompareFailed { .. } => true,
        Refusal::NotLeader { .. }
        | Refusal::Busy { .. }
        | Refusal::Unknown { .. }
        | Refusal::StorageFailed
        | Refusal::Stopping
        | Refusal::TooLarge { .. }
        | Refusal::EmptyKey
        | Refusal::SessionUnknown
        | Refusal::SequenceStale { .. }
        | Refusal::SequenceAhead { .. }
        | Refusal::Declined { .. }
        | Refusal::Misunderstood(_) => false,
    }
}

/// The error for a refusal that no retry will change.
fn refused(refusal: Refusal) -> ClientError {
    match refusal {
        Refusal::CompareFailed { revision, current } => ClientError::CompareFailed { revision, current },
        Refusal::TooLarge { what, size, limit } => ClientError::TooLarge { what, size, limit },
        Refusal::EmptyKey => ClientError::EmptyKey,
        Refusal::Declined { reason } => ClientError::Declined { reason },
        other => ClientError::Refused(other),
    }
}

#[cfg(test)]
mod tests;
