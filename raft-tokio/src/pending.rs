//! Who waits for which answer.

use std::collections::HashMap;

use bytes::Bytes;
use raft_core::{Index, NodeId, Outcome, Position, RequestId};
use tokio::sync::oneshot;

use crate::error::{AdminError, ProposeError, ReadError};

/// The answer to a proposal: where it stands in the log, and what the state machine said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its place in the log.
    pub position: Position,
    /// What [`StateMachine::apply`](raft_core::StateMachine::apply) returned for it.
    pub answer: Bytes,
}

/// What has become of the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The configuration by now, for the next change to be compared with.
    pub configuration: Index,
    /// The id of the member that was added, or had been before.
    pub node: Option<NodeId>,
}

/// Looks at the machine, or learns why it must not.
pub(crate) type Query<M> = Box<dyn FnOnce(Result<&M, ReadError>) + Send>;

/// Whoever waits for a request.
enum Waiter<M> {
    Proposal(oneshot::Sender<Result<Proposed, ProposeError>>),
    Read(Query<M>),
    Admin(Wish),
}

/// What an operator waits for.
pub(crate) enum Wish {
    Change(oneshot::Sender<Result<Changed, AdminError>>),
    Transfer(oneshot::Sender<Result<Option<NodeId>, AdminError>>),
    Snapshot(oneshot::Sender<Result<Position, AdminError>>),
}

impl Wish {
    /// Whoever asked may have gone away meanwhile; then nobody misses the answer.
    fn answer(self, outcome: Outcome) {
        match self {
            Self::Change(waiter) => drop(waiter.send(AdminError::of_change(outcome))),
            Self::Transfer(waiter) => drop(waiter.send(AdminError::of_transfer(outcome))),
            Self::Snapshot(waiter) => drop(waiter.send(AdminError::of_snapshot(outcome))),
        }
    }
}

/// All requests without an answer. Each leaves the table in exactly one of these ways.
pub(crate) struct Pending<M> {
    newest: RequestId,
    waiters: HashMap<RequestId, Waiter<M>>,
}

impl<M> Pending<M> {
    pub(crate) fn new() -> Self {
        Self { newest: RequestId::ZERO, waiters: HashMap::new() }
    }

    pub(crate) fn add_proposal(&mut self, waiter: oneshot::Sender<Result<Proposed, ProposeError>>) -> RequestId {
        self.add(Waiter::Proposal(waiter))
    }

    pub(crate) fn add_read(&mut self, query: Query<M>) -> RequestId {
        self.add(Waiter::Read(query))
    }

    pub(crate) fn add_wish(&mut self, wish: Wish) -> RequestId {
        self.add(Waiter::Admin(wish))
    }

    fn add(&mut self, waiter: Waiter<M>) -> RequestId {
        self.newest = self.newest.next();
        self.waiters.insert(self.newest, waiter);
        self.newest
    }

    /// A proposal was applied.
    pub(crate) fn on_applied(&mut self, request: RequestId, proposed: Proposed) {
        match self.waiters.remove(&request) {
            // Whoever asked may have gone away meanwhile; then nobody misses the answer.
            Some(Waiter::Proposal(waiter)) => drop(waiter.send(Ok(proposed))),
            Some(Waiter::Read(_) | Waiter::Admin(_)) | None => {
                unreachable!("request {request} was applied, but is no open proposal")
            }
        }
    }

    /// The core has answered.
    pub(crate) fn on_reply(&mut self, request: RequestId, outcome: Outcome, machine: &M) {
        match self.waiters.remove(&request) {
            Some(Waiter::Proposal(waiter)) => drop(waiter.send(Err(ProposeError::of(&outcome)))),
            Some(Waiter::Read(query)) => query(ReadError::of(&outcome).map(|()| machine)),
            Some(Waiter::Admin(wish)) => wish.answer(outcome),
            None => unreachable!("request {request} was answered twice"),
        }
    }

    /// The node stops: nobody will be answered any more. What was proposed may still happen.
    pub(crate) fn on_stopped(&mut self) {
        for (_, waiter) in self.waiters.drain() {
            match waiter {
                Waiter::Proposal(waiter) => drop(waiter.send(Err(ProposeError::Unknown { leader: None }))),
                Waiter::Read(query) => query(Err(ReadError::Stopped)),
                Waiter::Admin(wish) => wish.answer(Outcome::Unknown { leader: None }),
            }
        }
    }
}
