//! One node, and the one connection to it that all operations share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft_tokio::core::NodeId;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::dial::{Dial, DialFailure, Line};

/// A first handshake is given this long. Its packets may have gone to a port that nobody had
/// opened yet, and QUIC waits a second before it repeats them: a fresh handshake is faster.
const HANDSHAKE_MIN: Duration = Duration::from_millis(500);
/// Doubled with each failure, as the network may be slow, up to this.
const HANDSHAKE_MAX: Duration = Duration::from_secs(4);

/// A node, where it is, and the connection to it.
pub(super) struct Endpoint {
    node: NodeId,
    address: String,
    dial: Arc<dyn Dial>,
    state: Mutex<State>,
    answers: AtomicU64,
}

enum State {
    Closed { failures: u32 },
    Dialing { done: watch::Receiver<Option<Dialed>> },
    Open { line: Arc<dyn Line> },
}

type Dialed = Result<Arc<dyn Line>, DialFailure>;

impl Endpoint {
    pub(super) fn new(node: NodeId, address: String, dial: Arc<dyn Dial>) -> Self {
        Self { node, address, dial, state: Mutex::new(State::Closed { failures: 0 }), answers: AtomicU64::new(0) }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(&*self.state(), State::Open { .. })
    }

    /// The connection; the first who asks has it made, the others wait with it. The handshake
    /// goes on in the background when they stop waiting.
    pub(super) async fn line(self: &Arc<Self>) -> Dialed {
        let mut done = match self.line_or_dial() {
            Ok(line) => return Ok(line),
            Err(done) => done,
        };
        let dialed = done.wait_for(Option::is_some).await.ok().and_then(|dialed| dialed.clone());
        dialed.unwrap_or_else(|| Err(DialFailure::Unreachable("the client is shutting down".to_owned())))
    }

    /// The connection if it is open; else what tells when its making is done, which begins now at the latest.
    fn line_or_dial(self: &Arc<Self>) -> Result<Arc<dyn Line>, watch::Receiver<Option<Dialed>>> {
        let mut state = self.state();
        let failures = match &*state {
            State::Open { line } => return Ok(line.clone()),
            State::Dialing { done } => return Err(done.clone()),
            State::Closed { failures } => *failures,
        };
        let (report, done) = watch::channel(None);
        *state = State::Dialing { done: done.clone() };
        drop(state);
        tokio::spawn(self.clone().dial(failures, report));
        Err(done)
    }

    async fn dial(self: Arc<Self>, failures: u32, report: watch::Sender<Option<Dialed>>) {
        let (node, begun) = (self.node, Instant::now());
        tracing::info!(%node, address = self.address, "dialling");
        let limit = HANDSHAKE_MIN.saturating_mul(1 << failures.min(8)).min(HANDSHAKE_MAX);
        let dialed = timeout(limit, self.dial.dial(self.node, &self.address)).await;
        let dialed = dialed
            .unwrap_or_else(|_| Err(DialFailure::Unreachable(format!("no answer to the handshake within {limit:?}"))));
        *self.state() = match &dialed {
            Ok(line) => {
                tracing::info!(%node, elapsed = ?begun.elapsed(), "connected");
                State::Open { line: line.clone() }
            }
            Err(failure) => {
                tracing::info!(%node, elapsed = ?begun.elapsed(), "not connected: {failure}");
                State::Closed { failures: failures.saturating_add(1) }
            }
        };
        // Nobody may be waiting any more.
        report.send(Some(dialed)).ok();
    }

    /// The connection is of no use any more; the next who asks gets a new one.
    pub(super) fn discard(&self, broken: &Arc<dyn Line>) {
        let mut state = self.state();
        if matches!(&*state, State::Open { line } if Arc::ptr_eq(line, broken)) {
            tracing::info!(node = %self.node, "the connection is given up");
            *state = State::Closed { failures: 0 };
        }
    }

    /// How many answers came so far: if the number stands still while a call waits, it is not
    /// this call that is slow, the connection is dead.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    pub(super) fn on_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the state is half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
