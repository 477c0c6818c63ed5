//! The client's picture of the cluster: connections, who leads, and who does not answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft_tokio::core::NodeId;
use tokio::time::Instant;

use super::dial::Dial;
use super::endpoint::Endpoint;
use super::trail::{Need, Trail};
use super::trust::Presented;
use crate::random::Jitter;

/// An attempt without an answer is given at least this long, before another node is asked.
const PATIENCE_MIN: Duration = Duration::from_millis(250);
/// And at most this long.
const PATIENCE_MAX: Duration = Duration::from_secs(4);
/// A silent node is asked again after this long, doubled with each further silence …
const SUSPICION_MIN: Duration = Duration::from_millis(250);
/// … up to this long.
const SUSPICION_MAX: Duration = Duration::from_secs(2);
/// A silent node that others say is the leader is tried this often, by one request at a time.
const PROBE_INTERVAL: Duration = Duration::from_millis(40);

/// The nodes, the connections to them, and what is known of them.
pub(super) struct Pool {
    endpoints: BTreeMap<NodeId, Arc<Endpoint>>,
    presented: Arc<Presented>,
    pub(super) jitter: Jitter,
    view: Mutex<View>,
    next: AtomicUsize,
    /// Smoothed over the answers so far, in microseconds.
    latency: AtomicU64,
}

#[derive(Default)]
struct View {
    leader: Option<NodeId>,
    leader_seen: Option<(NodeId, Instant)>,
    suspects: BTreeMap<NodeId, Suspicion>,
}

/// A node that did not answer. It is asked again when there is no better one, or after a while.
#[derive(Clone, Copy)]
struct Suspicion {
    until: Instant,
    strikes: u32,
    next_probe: Instant,
}

impl View {
    fn suspects(&self, node: NodeId, now: Instant) -> bool {
        self.suspects.get(&node).is_some_and(|suspicion| now < suspicion.until)
    }

    /// Whether a request for the leader may go to `node`, which is said to be it. If the node is
    /// silent, then only now and then: it may be dead, and those who name it behind the times.
    fn may_lead(&self, node: NodeId, now: Instant) -> bool {
        !self.suspects(node, now) || self.suspects.get(&node).is_some_and(|suspicion| now >= suspicion.next_probe)
    }
}

impl Pool {
    pub(super) fn new(
        addresses: BTreeMap<NodeId, String>,
        dial: &Arc<dyn Dial>,
        presented: Presented,
        jitter: Jitter,
    ) -> Self {
        let first = jitter.spread(Duration::from_nanos(1 << 20)).as_nanos() as usize;
        let endpoints = addresses
            .into_iter()
            .map(|(node, address)| (node, Arc::new(Endpoint::new(node, address, dial.clone()))))
            .collect();
        // Clients that start together should not all begin with the same node.
        Self {
            endpoints,
            presented: Arc::new(presented),
            jitter,
            view: Mutex::default(),
            next: AtomicUsize::new(first),
            latency: AtomicU64::new(0),
        }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.endpoints.iter().map(|(node, endpoint)| (*node, endpoint.address()))
    }

    pub(super) fn endpoint(&self, node: NodeId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&node)
    }

    pub(super) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// An empty trail for an operation that may take `timeout`.
    pub(super) fn trail(&self, need: Need, timeout: Duration) -> Trail {
        Trail::new(need, timeout, self.presented.clone(), self.addresses())
    }

    pub(super) fn leader_seen(&self) -> Option<(NodeId, Instant)> {
        self.view().leader_seen
    }

    /// Where to send a request that the leader must answer: to it, as far as known; else to
    /// everybody in turn, as each may know more.
    pub(super) fn toward_leader(&self, trail: &Trail) -> Option<&Arc<Endpoint>> {
        let leader = {
            let (mut view, now) = (self.view(), Instant::now());
            let leader = view.leader.filter(|leader| view.may_lead(*leader, now));
            if let Some(suspicion) = leader.and_then(|leader| view.suspects.get_mut(&leader)) {
                suspicion.next_probe = now + PROBE_INTERVAL;
            }
            leader
        };
        leader.and_then(|leader| self.endpoint(leader)).or_else(|| self.in_turn(trail))
    }

    /// Where to send a request that any node can answer: to one that is connected already, if any.
    pub(super) fn toward_any(&self, trail: &Trail) -> Option<&Arc<Endpoint>> {
        let connected = {
            let (view, now) = (self.view(), Instant::now());
            self.endpoints.values().find(|endpoint| endpoint.is_connected() && !view.suspects(endpoint.node(), now))
        };
        connected.or_else(|| self.in_turn(trail))
    }

    /// The next node in turn that is not silent; if all are, the one whose turn comes back first.
    /// One that has refused this very operation comes last: it will again, and if all do, the
    /// sooner that is known the better.
    fn in_turn(&self, trail: &Trail) -> Option<&Arc<Endpoint>> {
        let (view, now) = (self.view(), Instant::now());
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.endpoints.len().max(1);
        let in_turn = self.endpoints.values().cycle().skip(turn).take(self.endpoints.len());
        in_turn.min_by_key(|endpoint| {
            let suspicion = view.suspects.get(&endpoint.node()).map(|suspicion| suspicion.until);
            (trail.is_distrusted_by(endpoint.node()), suspicion.filter(|until| now < *until))
        })
    }

    /// How long to wait for one answer, after so many silences within one operation.
    ///
    /// Asking twice is safe, so impatience only costs work; but under load the answers are late,
    /// and work is what must not be added then. So patience grows with the latency seen.
    pub(super) fn patience(&self, silences: u32) -> Duration {
        let latency = Duration::from_micros(self.latency.load(Ordering::Relaxed));
        let base = latency.saturating_mul(4).max(PATIENCE_MIN);
        base.saturating_mul(1 << silences.min(8)).min(PATIENCE_MAX)
    }

    /// A node answered after `latency`.
    pub(super) fn on_answer(&self, node: NodeId, latency: Duration) {
        self.view().suspects.remove(&node);
        let sample = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX >> 3);
        let smoothed = self.latency.load(Ordering::Relaxed);
        // Lost updates between concurrent answers do not matter for an average.
        self.latency.store(smoothed - smoothed / 8 + sample / 8, Ordering::Relaxed);
    }

    /// A node did what only a leader does.
    pub(super) fn on_leader(&self, node: NodeId) {
        let mut view = self.view();
        view.leader = Some(node);
        view.leader_seen = Some((node, Instant::now()));
    }

    /// A node says that it does not lead, and who does. Whether the hint can be followed at once.
    pub(super) fn on_redirect(&self, from: NodeId, leader: Option<NodeId>) -> bool {
        let mut view = self.view();
        let now = Instant::now();
        let known = leader.filter(|leader| *leader != from && self.endpoints.contains_key(leader));
        match known {
            Some(leader) => {
                view.leader = Some(leader);
                view.leader_seen = Some((leader, now));
                view.may_lead(leader, now)
            }
            None => {
                if view.leader == Some(from) {
                    view.leader = None;
                }
                false
            }
        }
    }

    /// A node did not answer, or could not be connected to.
    pub(super) fn on_silence(&self, node: NodeId) {
        let mut view = self.view();
        if view.leader == Some(node) {
            view.leader = None;
        }
        let now = Instant::now();
        let suspicion = view.suspects.entry(node).or_insert(Suspicion { until: now, strikes: 0, next_probe: now });
        // A thousand requests that stall together are one silence.
        if suspicion.until <= now {
            let pause = SUSPICION_MIN.saturating_mul(1 << suspicion.strikes.min(8)).min(SUSPICION_MAX);
            let (until, strikes) = (now + self.jitter.spread(pause), suspicion.strikes.saturating_add(1));
            *suspicion = Suspicion { until, strikes, next_probe: now + PROBE_INTERVAL };
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        // Nothing panics while the view is half changed.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::super::dial::{BoxFuture, DialFailure, Line};
    use super::super::tests::presented;
    use super::*;

    struct Unreachable;

    impl Dial for Unreachable {
        fn dial<'a>(&'a self, _: NodeId, _: &'a str) -> BoxFuture<'a, Result<Arc<dyn Line>, DialFailure>> {
            Box::pin(async { Err(DialFailure::Unreachable("nobody is there".to_owned())) })
        }
    }

    fn node(id: u64) -> NodeId {
        NodeId::new(id).expect("because the tests count from 1")
    }

    fn pool() -> Pool {
        let dial: Arc<dyn Dial> = Arc::new(Unreachable);
        Pool::new((1..=3).map(|id| (node(id), format!("host{id}:1"))).collect(), &dial, presented(), Jitter::new(1))
    }

    fn chosen(pool: &Pool) -> u64 {
        let trail = pool.trail(Need::Read, Duration::from_secs(1));
        pool.toward_leader(&trail).expect("because there are endpoints").node().as_u64()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_leader_is_avoided_until_it_answers() {
        let pool = pool();
        pool.on_leader(node(1));
        assert_eq!(chosen(&pool), 1);
        pool.on_silence(node(1));
        assert!((0..6).all(|_| chosen(&pool) != 1));
        pool.on_answer(node(1), Duration::from_millis(1));
        pool.on_leader(node(1));
        assert!((0..6).all(|_| chosen(&pool) == 1));
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_that_were_not_heard_of_are_asked_in_turn() {
        let pool = pool();
        let mut asked: Vec<u64> = (0..3).map(|_| chosen(&pool)).collect();
        asked.sort_unstable();
        assert_eq!(asked, [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_that_others_call_the_leader_is_tried_by_one_request_at_a_time() {
        let pool = pool();
        pool.on_silence(node(1));
        assert!(!pool.on_redirect(node(2), Some(node(1))), "it has just been silent");
        advance(PROBE_INTERVAL).await;
        assert!(pool.on_redirect(node(2), Some(node(1))));
        assert_eq!(chosen(&pool), 1);
        assert_ne!(chosen(&pool), 1);
        advance(PROBE_INTERVAL).await;
        assert_eq!(chosen(&pool), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_silent_the_first_to_be_asked_is_the_one_whose_pause_ends_first() {
        let pool = pool();
        for id in [2, 3, 1] {
            pool.on_silence(node(id));
        }
        let pauses: BTreeMap<NodeId, Instant> =
            pool.view().suspects.iter().map(|(node, suspicion)| (*node, suspicion.until)).collect();
        let first = pauses.iter().min_by_key(|(_, until)| **until).map(|(node, _)| node.as_u64());
        assert_eq!(Some(chosen(&pool)), first);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_grows_with_the_latency_and_with_each_silence() {
        let pool = pool();
        assert_eq!((pool.patience(0), pool.patience(1)), (PATIENCE_MIN, PATIENCE_MIN * 2));
        for _ in 0..50 {
            pool.on_answer(node(1), Duration::from_millis(200));
        }
        assert!(pool.patience(0) > Duration::from_millis(700));
        assert_eq!(pool.patience(31), PATIENCE_MAX);
    }
}
