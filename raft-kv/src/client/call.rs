//! One operation: attempt after attempt, until an answer that settles it or the end of its time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_tokio::core::NodeId;
use tokio::time::{Instant, sleep_until, timeout};

use super::dial::{CallFailure, DialFailure};
use super::endpoint::Endpoint;
use super::error::ClientError;
use super::pool::Pool;
use super::trail::{AttemptOutcome, Trail};
use crate::protocol::{Part, Refusal, Reply, Response, decode_response};

/// Between attempts that were refused for the moment, at first …
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// … doubled each time, up to this.
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// Who can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The leader, whoever it is.
    Leader,
    /// Any node.
    Any,
    /// This node.
    Node(NodeId),
}

/// How an operation ended.
#[derive(Debug)]
pub(super) enum Finished {
    /// With its result.
    Answered(Reply),
    /// With a refusal that another attempt would not change.
    Refused(Refusal),
    /// Nobody who was asked, and nobody else, will talk to this client.
    Distrusted,
    /// Without any of these.
    OutOfTime,
}

/// What to do after an attempt.
enum Next {
    Finish(Finished),
    /// Somebody else can be asked at once.
    Elsewhere,
    /// Everybody needs a moment.
    Pause,
}

impl Pool {
    /// Sends what `encode` returns until it is settled. Each attempt is encoded anew, and noted in `trail`.
    pub(super) async fn ask(
        &self,
        target: Target,
        encode: impl Fn() -> Bytes,
        trail: &mut Trail,
        deadline: Instant,
    ) -> Result<Finished, ClientError> {
        let (mut silences, mut attempts, mut pause) = (0, 0_usize, PAUSE_MIN);
        loop {
            let now = Instant::now();
            if now >= deadline {
                trail.leader_seen = self.leader_seen();
                return Ok(Finished::OutOfTime);
            }
            let endpoint = self.choose(target, trail)?;
            let patience = whole_millis(self.patience(silences).min(deadline - now));
            let (node, request) = (endpoint.node(), encode());
            attempts += 1;
            tracing::debug!(%node, attempt = attempts, bytes = request.len(), "asking");
            let (outcome, response) = attempt(endpoint, request, patience).await;
            let next = match response {
                Some(response) => {
                    self.on_answer(node, now.elapsed());
                    self.on_response(target, node, response)
                }
                // A connection that broke says little about the node; a new one will tell.
                None if outcome.broke_connection() => Next::Pause,
                None => {
                    // A handshake goes on without us, so waiting longer for it wins nothing.
                    silences += u32::from(matches!(outcome, AttemptOutcome::NoAnswer { .. }));
                    self.on_silence(node);
                    // What fails at once must not be repeated at once.
                    if now.elapsed() < PAUSE_MIN { Next::Pause } else { Next::Elsewhere }
                }
            };
            trail.on_attempt(node, outcome);
            if trail.is_distrusted() {
                return Ok(Finished::Distrusted);
            }
            let outcome = trail.outcome(node).map(tracing::field::display);
            match next {
                Next::Finish(finished) => {
                    tracing::debug!(%node, attempt = attempts, outcome, elapsed = ?now.elapsed(), "settled");
                    return Ok(finished);
                }
                // Nodes that point at each other are in the middle of an election.
                Next::Elsewhere if !attempts.is_multiple_of(self.len() + 1) => {
                    tracing::info!(%node, attempt = attempts, outcome, "asking elsewhere");
                }
                Next::Elsewhere | Next::Pause => {
                    let end = (Instant::now() + self.jitter.spread(pause)).min(deadline);
                    let pause_now = end.saturating_duration_since(Instant::now());
                    tracing::info!(%node, attempt = attempts, outcome, pause = ?pause_now, "asking again");
                    sleep_until(end).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn choose(&self, target: Target, trail: &Trail) -> Result<&Arc<Endpoint>, ClientError> {
        match target {
            Target::Leader => self.toward_leader(trail).ok_or(ClientError::NoEndpoints),
            Target::Any => self.toward_any(trail).ok_or(ClientError::NoEndpoints),
            Target::Node(node) => self.endpoint(node).ok_or_else(|| ClientError::NoSuchNode {
                node,
                known: self.addresses().map(|(node, _)| node).collect(),
            }),
        }
    }

    fn on_response(&self, target: Target, from: NodeId, response: Response) -> Next {
        let refusal = match response {
            Ok(reply) => {
                if target == Target::Leader {
                    self.on_leader(from);
                }
                return Next::Finish(Finished::Answered(reply));
            }
            Err(refusal) => refusal,
        };
        match refusal {
            Refusal::NotLeader { leader } | Refusal::Unknown { leader } => {
                if self.on_redirect(from, leader) {
                    Next::Elsewhere
                } else {
                    Next::Pause
                }
            }
            Refusal::Stopping | Refusal::StorageFailed => {
                self.on_silence(from);
                Next::Pause
            }
            Refusal::Busy { .. } | Refusal::SequenceAhead { .. } => Next::Pause,
            Refusal::CompareFailed { .. } => {
                self.on_leader(from);
                Next::Finish(Finished::Refused(refusal))
            }
            Refusal::TooLarge { .. }
            | Refusal::EmptyKey
            | Refusal::SessionUnknown
            | Refusal::SequenceStale { .. }
            | Refusal::Declined { .. }
            | Refusal::Misunderstood(_) => Next::Finish(Finished::Refused(refusal)),
        }
    }
}

/// Rounded up: for messages, and so that it never is nothing.
fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}

/// One request to one node: how far it got, and the response if there was one.
async fn attempt(endpoint: &Arc<Endpoint>, request: Bytes, patience: Duration) -> (AttemptOutcome, Option<Response>) {
    let until = Instant::now() + patience;
    let line = match timeout(patience, endpoint.line()).await {
        Ok(Ok(line)) => line,
        Ok(Err(DialFailure::Unreachable(reason))) => return (AttemptOutcome::Unreachable { reason }, None),
        Ok(Err(DialFailure::Distrusted(distrust))) => return (AttemptOutcome::Distrusted(distrust), None),
        Err(_) => return (AttemptOutcome::Connecting { waited: patience }, None),
    };
    let answers = endpoint.answers();
    let answer = match tokio::time::timeout_at(until, line.call(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(CallFailure::NotSent(reason))) => {
            endpoint.discard(&line);
            return (AttemptOutcome::NotSent { reason }, None);
        }
        Ok(Err(CallFailure::Lost(reason))) => {
            endpoint.discard(&line);
            return (AttemptOutcome::Lost { reason }, None);
        }
        Ok(Err(CallFailure::TooLarge { size, limit })) => {
            let refusal = Refusal::TooLarge { what: Part::Request, size, limit };
            return (AttemptOutcome::Refused(refusal.clone()), Some(Err(refusal)));
        }
        Err(_) => {
            if endpoint.answers() == answers {
                // Not this call is slow: nothing comes through. The node may have died and come
                // back, and would not know this connection any more.
                endpoint.discard(&line);
            }
            return (AttemptOutcome::NoAnswer { waited: patience }, None);
        }
    };
    endpoint.on_answer();
    match decode_response(&answer) {
        Ok(Ok(reply)) => (AttemptOutcome::Answered, Some(Ok(reply))),
        Ok(Err(refusal)) => (AttemptOutcome::Refused(refusal.clone()), Some(Err(refusal))),
        Err(error) => (AttemptOutcome::Garbled(error), None),
    }
}
