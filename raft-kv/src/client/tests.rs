//! The client against a small cluster without a network: one replicated machine, a leader that
//! moves, and connections that lose whatever they are told to lose. Time is simulated.

mod decisions;

use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::sync::{Mutex, MutexGuard};

use raft_tokio::certs::{Identity, Role};
use raft_tokio::core::{Index, Position, StateMachine as _, Term};
use raft_tokio::transport::CertificateFault;

use super::dial::{BoxFuture, CallFailure, DialFailure, Line};
use super::*;
use crate::command::{Answer, Command, Operation};
use crate::envelope::DecodeError;
use crate::key::Revision;
use crate::machine::Machine;
use crate::protocol::{REQUEST_BYTES_MAX, Response, decode_request, encode_response};
use crate::session::{Sequence, SessionLimits};

/// What happens to one request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is answered.
    Deliver,
    /// It never leaves.
    NotSent,
    /// It is carried out, and the connection breaks before the answer comes.
    LoseAnswer,
    /// The connection breaks before it arrives, which the client cannot know.
    LoseRequest,
    /// It is carried out, and no answer ever comes.
    Silence,
    /// The leader loses its office with the request in its log, where it is committed later.
    DeposeCommitted,
    /// The leader loses its office, and the request with it.
    DeposeLost,
    /// The node is busy.
    Busy,
    /// The node does not understand the request: it runs an older program.
    Misunderstand,
    /// The node takes smaller requests only.
    TooLarge,
    /// It is carried out, and answered with something else.
    Confuse,
}

struct World {
    machine: Machine,
    members: BTreeSet<NodeId>,
    index: u64,
    leader: Option<u64>,
    hint: Option<u64>,
    down: Vec<u64>,
    /// Nodes that do not accept the client's certificate.
    strangers: Vec<u64>,
    /// For the requests that the leader gets, one after the other; then everything is delivered.
    fates: VecDeque<Fate>,
    /// Which node got what, in order.
    seen: Vec<(u64, Request)>,
}

#[derive(Clone)]
struct Cluster(Arc<Mutex<World>>);

struct Wire {
    cluster: Cluster,
    node: u64,
}

impl Cluster {
    fn new(leader: Option<u64>) -> Self {
        Self::with_limits(leader, SessionLimits::DEFAULT)
    }

    fn with_limits(leader: Option<u64>, limits: SessionLimits) -> Self {
        Self(Arc::new(Mutex::new(World {
            machine: Machine::with_limits(limits),
            members: (1..=3).map(node).collect(),
            index: 0,
            leader,
            hint: leader,
            down: Vec::new(),
            strangers: Vec::new(),
            fates: VecDeque::new(),
            seen: Vec::new(),
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("because no test panics while it holds the world")
    }

    fn fates(&self, fates: &[Fate]) {
        self.world().fates.extend(fates);
    }

    fn client(&self) -> Client {
        let endpoints = (1..=3).map(|id| (node(id), format!("host{id}:7401"))).collect();
        let dial: Arc<dyn Dial> = Arc::new(self.clone());
        Client::over(endpoints, Duration::from_secs(5), &dial, presented()).expect("because there are endpoints")
    }

    /// A client whose session is open already, so that fates hit the writes that a test makes.
    async fn client_with_session(&self) -> Client {
        let client = self.client();
        client.put("session", "open", PutOptions::default()).await.expect("because nothing is lost");
        self.world().seen.clear();
        client
    }

    fn version(&self, key: &str) -> Option<u64> {
        self.world().machine.store().get(key.as_bytes()).map(|kv| kv.version)
    }
}

impl World {
    fn apply(&mut self, request: &Request) -> Response {
        let command = match request.clone() {
            Request::Register { nonce } => Command::Register { nonce },
            Request::Put { ticket: Ticket { session, sequence, acknowledged }, key, value, if_revision } => {
                let key = Key::new(key).expect("because clients check their keys");
                Command::Write {
                    session,
                    sequence,
                    acknowledged,
                    operation: Operation::Put { key, value, if_revision },
                }
            }
            Request::Delete { ticket: Ticket { session, sequence, acknowledged }, key, if_revision } => {
                let key = Key::new(key).expect("because clients check their keys");
                Command::Write { session, sequence, acknowledged, operation: Operation::Delete { key, if_revision } }
            }
            Request::Range { range, limit, .. } => return self.range(&range, limit),
            Request::Count { range, .. } => return self.count(&range),
            Request::Change { changes, .. } => return self.change(&changes),
            Request::Transfer { .. } => {
                self.leader = self.leader.map(|leader| leader % 3 + 1);
                self.hint = self.leader;
                return Ok(Reply::Transferred { leader: self.leader.map(node) });
            }
            Request::Status | Request::Snapshot => return Err(Refusal::Busy { reason: "busy".to_owned() }),
        };
        self.index += 1;
        let position = Position::new(Index::new(self.index), Term::new(1));
        let answer = self.machine.apply(position, &command.encode());
        match Answer::decode(&answer).expect("because the machine encodes its answers") {
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

    /// Lets members go, each once.
    fn change(&mut self, changes: &[Change]) -> Response {
        for change in changes {
            let Change::Remove { node } = change else { panic!("only removals are played here, no {change:?}") };
            if !self.members.remove(node) {
                return Err(Refusal::Declined { reason: format!("{node} is not a member") });
            }
        }
        self.index += 1;
        Ok(Reply::Changed { configuration: Index::new(self.index), node: None })
    }

    /// Pages of two pairs, so that few are enough to need several.
    fn range(&self, range: &KeyRange, limit: Option<u64>) -> Response {
        let pairs = limit.map_or(2, |limit| (limit as usize).min(2));
        let page = self.machine.store().range(range, crate::store::PageLimit { pairs, bytes: usize::MAX });
        let revision = self.machine.store().revision();
        Ok(Reply::Range { kvs: page.kvs, more: page.more, revision })
    }

    /// Two at a time.
    fn count(&self, range: &KeyRange) -> Response {
        let crate::store::Count { count, rest } = self.machine.store().count(range, 2);
        Ok(Reply::Counted { count, rest, revision: self.machine.store().revision() })
    }
}

impl Dial for Cluster {
    fn dial<'a>(&'a self, node: NodeId, _: &'a str) -> BoxFuture<'a, Result<Arc<dyn Line>, DialFailure>> {
        let (cluster, node) = (self.clone(), node.as_u64());
        Box::pin(async move {
            if cluster.world().down.contains(&node) {
                return pending().await;
            }
            if cluster.world().strangers.contains(&node) {
                let distrust = Distrust::Ours { fault: CertificateFault::OtherAuthority };
                return Err(DialFailure::Distrusted(distrust));
            }
            let line: Arc<dyn Line> = Arc::new(Wire { cluster, node });
            Ok(line)
        })
    }
}

impl Line for Wire {
    fn call(&self, request: Bytes) -> BoxFuture<'_, Result<Bytes, CallFailure>> {
        Box::pin(async move {
            let request = decode_request(&request).expect("because clients encode requests");
            let outcome = {
                let mut world = self.cluster.world();
                if world.strangers.contains(&self.node) {
                    return Err(CallFailure::NotSent("the node was restarted".to_owned()));
                }
                if world.down.contains(&self.node) { None } else { world.take(self.node, &request) }
            };
            match outcome {
                None => pending().await,
                Some(outcome) => outcome.map(|response| encode_response(&response)),
            }
        })
    }
}

impl World {
    /// What comes of a request that reached a node; `None` is silence.
    fn take(&mut self, at: u64, request: &Request) -> Option<Result<Response, CallFailure>> {
        let stale = matches!(request, Request::Range { freshness: Freshness::Stale, .. });
        let fate =
            if self.leader == Some(at) { self.fates.pop_front().unwrap_or(Fate::Deliver) } else { Fate::Deliver };
        if fate != Fate::NotSent {
            self.seen.push((at, request.clone()));
        }
        if self.leader != Some(at) && !stale {
            return Some(Ok(Err(Refusal::NotLeader { leader: self.hint.and_then(NodeId::new) })));
        }
        let lost = || CallFailure::Lost("the connection broke".to_owned());
        Some(match fate {
            Fate::Deliver => Ok(self.apply(request)),
            Fate::NotSent => Err(CallFailure::NotSent("the connection was closed".to_owned())),
            Fate::LoseRequest => Err(lost()),
            Fate::LoseAnswer => {
                drop(self.apply(request));
                Err(lost())
            }
            Fate::Silence => {
                drop(self.apply(request));
                return None;
            }
            Fate::DeposeCommitted | Fate::DeposeLost => {
                if fate == Fate::DeposeCommitted {
                    drop(self.apply(request));
                }
                self.leader = Some(at % 3 + 1);
                self.hint = self.leader;
                Ok(Err(Refusal::Unknown { leader: None }))
            }
            Fate::Busy => Ok(Err(Refusal::Busy { reason: "busy".to_owned() })),
            Fate::Misunderstand => Ok(Err(Refusal::Misunderstood(DecodeError::Malformed))),
            Fate::TooLarge => Ok(Err(Refusal::TooLarge { what: Part::Request, size: 9, limit: 8 })),
            Fate::Confuse => {
                drop(self.apply(request));
                Ok(Ok(Reply::Registered { session: SessionId::new(77) }))
            }
        })
    }
}

/// What a client of these tests shows of itself.
pub(super) fn presented() -> Presented {
    let identity = Identity { cluster: ClusterId::new(7), role: Role::Client("tester".to_owned()) };
    Presented {
        identity,
        files: Some(CredentialFiles { authority: "c/ca.pem".into(), certificate: "c/client.pem".into() }),
    }
}

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("because the tests count from 1")
}

const PLAIN: PutOptions = PutOptions { if_revision: None };

#[tokio::test(start_paused = true)]
async fn the_leader_is_found_by_hints_and_kept() {
    let cluster = Cluster::new(Some(2));
    let client = cluster.client();
    assert_eq!(client.put("k", "v", PLAIN).await.map(|reply| reply.revision).ok(), Some(Revision::new(2)));
    assert_eq!(client.leader(), Some(node(2)));
    cluster.world().seen.clear();
    client.put("k", "v", PLAIN).await.expect("because nothing is lost");
    assert!(matches!(cluster.world().seen[..], [(2, Request::Put { .. })]));
}

#[tokio::test(start_paused = true)]
async fn whatever_is_lost_a_write_is_applied_once() {
    let fates = [
        Fate::NotSent,
        Fate::LoseRequest,
        Fate::LoseAnswer,
        Fate::Silence,
        Fate::DeposeCommitted,
        Fate::DeposeLost,
        Fate::Busy,
    ];
    for first in fates {
        for second in fates {
            let cluster = Cluster::new(Some(1));
            let client = cluster.client_with_session().await;
            cluster.fates(&[first, second]);
            let reply = client.put("k", "v", PLAIN).await.map_err(|error| error.to_string());
            let expected = WriteReply { revision: Revision::new(3), previous: None };
            assert_eq!(reply, Ok(expected), "{first:?}, {second:?}");
            assert_eq!(cluster.version("k"), Some(1), "{first:?}, {second:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_registration_is_retried_and_opens_one_session() {
    let cluster = Cluster::new(Some(1));
    cluster.fates(&[Fate::LoseAnswer, Fate::Silence]);
    let client = cluster.client();
    client.put("k", "v", PLAIN).await.expect("because the third attempt is answered");
    assert_eq!(cluster.world().machine.sessions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_never_sent_certainly_was_not_done() {
    let cluster = Cluster::new(None);
    let client = cluster.client();
    let error = client.put("k", "v", PLAIN).await.expect_err("because there is no leader");
    assert!(matches!(error, ClientError::Unavailable(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("no leader could take the write within 5s; nothing was changed\n  tried n1 at host1:7401, "),
        "{text}"
    );
    assert!(text.contains("is not the leader and knows of none"), "{text}");
}

/// The one that opens the session for all is tried; the others say what they have waited for.
#[tokio::test(start_paused = true)]
async fn regress_a_write_that_waited_for_another_one_says_so() {
    let cluster = Cluster::new(None);
    let client = cluster.client();
    let (first, second) = tokio::join!(client.put("a", "v", PLAIN), client.put("b", "v", PLAIN));
    let first = first.expect_err("because there is no leader").to_string();
    let second = second.expect_err("because there is no leader").to_string();
    assert!(first.contains(" times, last: is not the leader") && !first.contains("waited for its turn"), "{first}");
    assert!(second.contains("not tried\n  it waited for its turn: another write of this client"), "{second}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_sent_and_not_answered_is_unknown_and_never_failed() {
    for fate in [Fate::Silence, Fate::LoseRequest] {
        let cluster = Cluster::new(Some(1));
        let client = cluster.client_with_session().await;
        cluster.fates(&[fate]);
        // After that, there is no leader any more.
        let write = client.put("k", "v", PLAIN);
        let depose = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut world = cluster.world();
            (world.leader, world.hint) = (None, None);
        };
        let (result, ()) = tokio::join!(write, depose);
        let error = result.expect_err("because there is no leader");
        assert!(matches!(error, ClientError::OutcomeUnknown { cause: UnknownCause::OutOfTime, .. }), "{error}");
        assert!(error.to_string().contains("may or may not have been applied"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn regress_a_refusal_of_a_retry_does_not_make_an_unknown_outcome_certain() {
    for first in [Fate::Silence, Fate::LoseAnswer, Fate::DeposeCommitted] {
        for second in [Fate::Misunderstand, Fate::TooLarge] {
            let cluster = Cluster::new(Some(1));
            let client = cluster.client_with_session().await;
            cluster.fates(&[first, second]);
            let error = client.put("k", "v", PLAIN).await.expect_err("because the retry is refused");
            assert!(
                matches!(error, ClientError::OutcomeUnknown { cause: UnknownCause::RetryRefused(_), .. }),
                "{first:?}, {second:?}: {error}"
            );
            assert_eq!(cluster.version("k"), Some(1), "{first:?}, {second:?}");
        }
    }
    // Without an earlier attempt, the same refusals are certain.
    let cluster = Cluster::new(Some(1));
    let client = cluster.client_with_session().await;
    cluster.fates(&[Fate::Misunderstand, Fate::TooLarge]);
    let error = client.put("k", "v", PLAIN).await.expect_err("because the node does not understand it");
    assert!(matches!(error, ClientError::Refused(Refusal::Misunderstood(_))), "{error}");
    let error = client.put("k", "v", PLAIN).await.expect_err("because the node takes less");
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn regress_an_answer_to_another_question_leaves_the_outcome_of_a_write_unknown() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client_with_session().await;
    for _ in 0..2 {
        cluster.fates(&[Fate::Confuse]);
    }
    let error = client.put("k", "v", PLAIN).await.expect_err("because the answer is none to a put");
    assert!(matches!(error, ClientError::OutcomeUnknown { cause: UnknownCause::Confused, .. }), "{error}");
    assert_eq!(cluster.version("k"), Some(1));
    let error = client.delete("k", DeleteOptions::default()).await.expect_err("because the answer is none to a delete");
    assert!(matches!(error, ClientError::OutcomeUnknown { cause: UnknownCause::Confused, .. }), "{error}");
    assert_eq!(cluster.version("k"), None);
}

/// The numbers in a request grow with its retries, so it must fit with the largest ones.
#[tokio::test(start_paused = true)]
async fn regress_a_write_that_would_outgrow_the_limit_by_its_retries_is_not_even_sent() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client_with_session().await;
    let ticket = Ticket { session: SessionId::new(1), sequence: Sequence::new(2), acknowledged: Sequence::new(2) };
    let request = |value: Bytes| Request::Put { ticket, key: "k".into(), value, if_revision: None };
    let overhead = encode_request(&request(vec![0; REQUEST_BYTES_MAX / 2].into())).len() - REQUEST_BYTES_MAX / 2;
    let value = Bytes::from(vec![0; REQUEST_BYTES_MAX - overhead]);
    assert_eq!(encode_request(&request(value.clone())).len(), REQUEST_BYTES_MAX);
    let error = client.put("k", value, PLAIN).await.expect_err("because a retry might be longer");
    assert!(matches!(error, ClientError::TooLarge { what: Part::Request, .. }), "{error}");
    assert_eq!(cluster.world().seen, []);
    let largest = vec![0; crate::protocol::VALUE_BYTES_MAX];
    client.put(vec![b'k'; Key::BYTES_MAX], largest, PLAIN).await.expect("because that always fits");
}

#[tokio::test(start_paused = true)]
async fn regress_giving_up_a_session_does_not_outlast_the_time_of_the_write() {
    let limits = SessionLimits { sessions_max: 1, ..SessionLimits::DEFAULT };
    let cluster = Cluster::with_limits(Some(1), limits);
    let (first, second) = (cluster.client_with_session().await, cluster.client());
    cluster.fates(&[Fate::Silence]);
    let evict_and_lock = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        second.put("other", "v", PLAIN).await.expect("because nothing else is lost");
        // Another write opens a session for longer than the first one may take.
        let _opening = first.shared.sessions.lock_until(Instant::now() + Duration::from_secs(1)).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    };
    let start = Instant::now();
    tokio::select! {
        result = first.put("k", "v", PLAIN) => {
            let error = result.expect_err("because its answer is forgotten");
            assert!(matches!(error, ClientError::OutcomeUnknown { cause: UnknownCause::SessionLost, .. }), "{error}");
            assert!(start.elapsed() <= Duration::from_secs(5), "it took {:?}", start.elapsed());
        }
        () = evict_and_lock => panic!("the write waits for the session of another one"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_session_is_replaced_if_the_write_cannot_have_been_applied() {
    let limits = SessionLimits { sessions_max: 1, ..SessionLimits::DEFAULT };
    let cluster = Cluster::with_limits(Some(1), limits);
    let (first, second) = (cluster.client_with_session().await, cluster.client());
    second.put("other", "v", PLAIN).await.expect("because nothing is lost");
    let old = first.session_id().await;
    first.put("k", "v", PLAIN).await.expect("because another session is opened");
    assert_ne!(first.session_id().await, old);
    assert_eq!(cluster.version("k"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_session_makes_a_write_unknown_if_it_may_have_been_applied() {
    let limits = SessionLimits { sessions_max: 1, ..SessionLimits::DEFAULT };
    let cluster = Cluster::with_limits(Some(1), limits);
    let (first, second) = (cluster.client_with_session().await, cluster.client());
    cluster.fates(&[Fate::Silence]);
    let evict = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        second.put("other", "v", PLAIN).await.expect("because nothing else is lost");
    };
    let (result, ()) = tokio::join!(first.put("k", "v", PLAIN), evict);
    let error = result.expect_err("because its answer is forgotten");
    assert!(matches!(error, ClientError::OutcomeUnknown { cause: UnknownCause::SessionLost, .. }), "{error}");
    assert_eq!(cluster.version("k"), Some(1));
    // And the client can go on.
    first.put("k", "w", PLAIN).await.expect("because another session is opened");
    assert_eq!(cluster.version("k"), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_its_caller_gave_up_does_not_hold_the_floor_back() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client_with_session().await;
    cluster.fates(&[Fate::Silence]);
    let given_up = tokio::time::timeout(Duration::from_millis(5), client.put("k", "v", PLAIN)).await;
    assert!(given_up.is_err());
    client.put("k", "w", PLAIN).await.expect("because nothing else is lost");
    let world = cluster.world();
    let Some((_, Request::Put { ticket, .. })) = world.seen.last() else { panic!("no write was seen") };
    assert_eq!(ticket.acknowledged, ticket.sequence);
}

#[tokio::test(start_paused = true)]
async fn many_writes_at_once_share_one_session_and_all_are_applied_once() {
    let cluster = Cluster::new(Some(1));
    cluster
        .fates(&[Fate::LoseAnswer, Fate::Deliver, Fate::Silence, Fate::DeposeCommitted, Fate::DeposeLost].repeat(20));
    let client = cluster.client();
    let mut writes = tokio::task::JoinSet::new();
    for nth in 0..200 {
        let client = client.clone();
        writes.spawn(async move { client.put(format!("k{nth}"), "v", PLAIN).await.map(|_| ()) });
    }
    while let Some(written) = writes.join_next().await {
        let written = written.expect("because no write panics");
        assert!(written.is_ok(), "{written:?}");
    }
    assert!((0..200).all(|nth| cluster.version(&format!("k{nth}")) == Some(1)));
    assert_eq!(cluster.world().machine.sessions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_left_for_the_next_one() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client_with_session().await;
    {
        let mut world = cluster.world();
        world.down.push(1);
        // The others still believe in the dead one for a while.
        (world.leader, world.hint) = (Some(3), Some(1));
    }
    let elect = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        cluster.world().hint = Some(3);
    };
    let (result, ()) = tokio::join!(client.put("k", "v", PLAIN), elect);
    result.expect("because there is a new leader");
    assert_eq!(client.leader(), Some(node(3)));
    assert_eq!(cluster.version("k"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn regress_nodes_that_all_refuse_the_client_end_an_operation_at_once() {
    let cluster = Cluster::new(Some(1));
    cluster.world().strangers.extend([1, 2, 3]);
    let (client, start) = (cluster.client(), Instant::now());
    let error = client.put("k", "v", PLAIN).await.expect_err("because nobody accepts the client");
    assert!(matches!(error, ClientError::Distrusted(_)), "{error}");
    let error = client.get("k", Consistency::Linearizable).await.expect_err("because nobody accepts the client");
    assert!(matches!(error, ClientError::Distrusted(_)), "{error}");
    let error = client.get("k", Consistency::Stale { node: None }).await.expect_err("because nobody does");
    assert!(matches!(error, ClientError::Distrusted(_)), "{error}");
    let stale = Consistency::Stale { node: Some(node(2)) };
    let error = client.get("k", stale).await.expect_err("because n2 does not accept the client");
    assert!(error.to_string().starts_with("n2 and this client do not accept each other\n  tried n2 at"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1), "it took {:?}", start.elapsed());
}

/// What cannot be reached may accept the client once it comes back, and what accepts it may lead.
#[tokio::test(start_paused = true)]
async fn some_nodes_that_refuse_the_client_are_no_reason_to_give_up() {
    let cluster = Cluster::new(Some(3));
    cluster.world().strangers.extend([1, 2]);
    cluster.client().put("k", "v", PLAIN).await.expect("because the leader accepts the client");
    cluster.world().down.push(3);
    let error = cluster.client().put("k", "v", PLAIN).await.expect_err("because the leader is down");
    assert!(matches!(error, ClientError::Unavailable(_)), "{error}");
    let come_back = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.world().down.clear();
    };
    let client = cluster.client();
    let (result, ()) = tokio::join!(client.put("k", "v", PLAIN), come_back);
    result.expect("because the leader has come back");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_be_applied_stays_unknown_when_the_client_is_refused_afterwards() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client_with_session().await;
    cluster.fates(&[Fate::Silence]);
    let come_back_with_other_certificates = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        cluster.world().strangers.extend([1, 2, 3]);
    };
    let (result, ()) = tokio::join!(client.put("k", "v", PLAIN), come_back_with_other_certificates);
    let error = result.expect_err("because nobody accepts the client any more");
    assert!(matches!(error, ClientError::OutcomeUnknown { cause: UnknownCause::Distrusted, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_in_nobodys_way() {
    let cluster = Cluster::new(Some(3));
    cluster.world().down.extend([1, 2]);
    let start = Instant::now();
    cluster.client().put("k", "v", PLAIN).await.expect("because the leader is up");
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_failed_condition_says_what_is_there() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client();
    client.put("k", "v", PLAIN).await.expect("because nothing is lost");
    let options = PutOptions { if_revision: Some(Revision::ZERO) };
    let error = client.put("k", "w", options).await.expect_err("because the key exists");
    assert_eq!(error.to_string(), "nothing was changed, because the key is at revision 2");
    let options = DeleteOptions { if_revision: Some(Revision::new(2)) };
    let reply = client.delete("k", options).await.expect("because the key is at revision 2");
    assert_eq!(reply.previous.map(|previous| previous.version), Some(1));
    assert_eq!(client.delete("k", DeleteOptions::default()).await.ok().and_then(|reply| reply.previous), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_a_limit_is_not_even_sent() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client_with_session().await;
    let error = client.put("", "v", PLAIN).await.expect_err("because the key is empty");
    assert!(matches!(error, ClientError::EmptyKey));
    let error = client.put(vec![b'k'; 4097], "v", PLAIN).await.expect_err("because the key is too long");
    assert_eq!(error.to_string(), "the key has 4097 bytes; the limit is 4096");
    let error = client.put("k", vec![0; 1_572_864], PLAIN).await.expect_err("because the value is too long");
    assert!(matches!(error, ClientError::TooLarge { what: Part::Request, limit: 1_572_864, .. }), "{error}");
    assert_eq!(cluster.world().seen, []);
}

#[tokio::test(start_paused = true)]
async fn a_range_is_read_page_by_page_up_to_its_limit() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client();
    for key in ["a", "b", "c", "d", "e"] {
        client.put(key, "v", PLAIN).await.expect("because nothing is lost");
    }
    for (limit, expected) in
        [(None, 5), (Some(0), 0), (Some(1), 1), (Some(2), 2), (Some(3), 3), (Some(5), 5), (Some(9), 5)]
    {
        let request = RangeRequest { range: KeyRange::all(), limit, consistency: Consistency::Linearizable };
        let reply = client.range(request).await.expect("because nothing is lost");
        let keys: Vec<_> = reply.kvs.iter().map(|kv| kv.key[0]).collect();
        assert_eq!(keys, (b'a'..b'a' + expected).collect::<Vec<_>>(), "{limit:?}");
        assert_eq!((reply.more, reply.count), (expected < 5, 5), "{limit:?}");
        assert_eq!(reply.revision, reply.revision_last);
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_takes_as_many_requests_as_it_needs() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client();
    for key in ["a", "b", "c", "d", "e"] {
        client.put(key, "v", PLAIN).await.expect("because nothing is lost");
    }
    cluster.world().seen.clear();
    for (range, expected, requests) in [
        (KeyRange::all(), 5, 1),
        (KeyRange::from("a"), 5, 3),
        (KeyRange::between("b", "d"), 2, 1),
        (KeyRange::between("d", "b"), 0, 1),
    ] {
        let reply = client.count(range.clone(), Consistency::Linearizable).await.expect("because nothing is lost");
        let revision = Revision::new(6);
        assert_eq!(reply, CountReply { count: expected, revision, revision_last: revision }, "{range:?}");
        assert_eq!(std::mem::take(&mut cluster.world().seen).len(), requests, "{range:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_needs_no_leader_and_can_name_its_node() {
    let cluster = Cluster::new(Some(1));
    let client = cluster.client();
    client.put("k", "v", PLAIN).await.expect("because nothing is lost");
    (cluster.world().leader, cluster.world().hint) = (None, None);
    cluster.world().seen.clear();
    let consistency = Consistency::Stale { node: Some(node(3)) };
    let reply = client.get("k", consistency).await.expect("because n3 is up");
    assert_eq!(reply.kv.map(|kv| kv.value), Some(Bytes::from("v")));
    assert!(matches!(cluster.world().seen[..], [(3, Request::Range { freshness: Freshness::Stale, .. })]));
    assert!(client.get("k", Consistency::Stale { node: None }).await.is_ok());
    assert!(client.get("k", Consistency::Linearizable).await.is_err());
    let consistency = Consistency::Stale { node: Some(node(4)) };
    let error = client.get("k", consistency).await.expect_err("because there is no n4");
    assert_eq!(error.to_string(), "n4 is not a node of this cluster; it has n1, n2, n3");
}
