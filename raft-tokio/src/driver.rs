//! The one task that owns a [`Raft`]: wait, drain, step, dispatch.
//!
//! Architecture invariant: nothing but this task touches the core or the state machine, and no
//! lock guards either. Executors speak to it by putting events into its inbox.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    Change, Effect, Event, Index, LogReadOutcome, Message, NodeId, Position, Raft, ReadMode, RestoreError,
    SnapshotMeta, StateMachine, Status, Time, WriteSeq,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::dispatch::{CLOSE_PATIENCE, Executors};
use crate::error::{AdminError, ProposeError, ReadError};
use crate::pending::{Changed, Pending, Proposed, Query, Wish};
use crate::punctuality::{Punctuality, RuntimeStatus};
use crate::storage::Completion;

/// How many messages one step takes at most (contract B2): enough to share one sync among all
/// that waits for one, and few enough that heartbeats are not late.
const BATCH_MAX: usize = 1024;

/// How many messages wait for the driver at most, in each queue. Whoever has more for it waits; a
/// peer's message is dropped then, as the network may do at any time.
const QUEUE_MAX: usize = 16_384;

/// How many snapshots that have arrived are kept in memory.
const ARRIVED_MAX: usize = 2;

/// Later than this is not the coarseness of a timer.
const UNPUNCTUAL: Duration = Duration::from_millis(5);

/// How often other tasks are let run before the clock of a node that overslept is believed: a
/// datagram passes four of them on its way from the socket to the inbox.
const HOPS: usize = 8;

/// What can be put into a node's inbox.
pub(crate) enum Input<M> {
    /// Something happened.
    Event(Event),
    /// The log writer has finished something.
    Storage(Completion),
    /// A client wants something written.
    Propose { command: bytes::Bytes, waiter: oneshot::Sender<Result<Proposed, ProposeError>> },
    /// A client wants to read what is current.
    Read(ReadMode, Query<M>),
    /// An operator wants other members.
    Change { expected: Index, changes: Vec<Change>, waiter: oneshot::Sender<Result<Changed, AdminError>> },
    /// An operator wants another leader.
    Transfer { to: Option<NodeId>, waiter: oneshot::Sender<Result<Option<NodeId>, AdminError>> },
    /// An operator wants a snapshot.
    Snapshot(oneshot::Sender<Result<Position, AdminError>>),
    /// A peer has sent a snapshot, all of it.
    Arrived { meta: SnapshotMeta, data: Bytes },
    /// A peer has said where it listens.
    Introduced { node: NodeId, address: String },
    /// A client wants to read whatever there is.
    ReadStale(Query<M>),
    /// An operator wants to know.
    Status(oneshot::Sender<Status>),
    /// The same, about what the core knows nothing of.
    RuntimeStatus(oneshot::Sender<RuntimeStatus>),
    /// The application has had enough.
    Stop,
}

/// The two ways into a driver's inbox.
pub(crate) struct Entrances<M> {
    /// For executors and peers. A queue of its own, so that no crowd of clients can keep a
    /// heartbeat waiting.
    pub(crate) events: mpsc::Sender<Input<M>>,
    /// For the application and its clients.
    pub(crate) requests: mpsc::Sender<Input<M>>,
}

/// What comes out of an inbox.
pub(crate) struct Inbox<M> {
    events: mpsc::Receiver<Input<M>>,
    requests: mpsc::Receiver<Input<M>>,
}

impl<M> Inbox<M> {
    pub(crate) fn new() -> (Entrances<M>, Self) {
        let (events, heard) = mpsc::channel(QUEUE_MAX);
        let (requests, asked) = mpsc::channel(QUEUE_MAX);
        (Entrances { events, requests }, Self { events: heard, requests: asked })
    }
}

/// Owns the core, the machine, and whoever waits for an answer.
pub(crate) struct Driver<M> {
    pub(crate) raft: Raft,
    pub(crate) machine: M,
    /// The newest snapshots that have arrived, for the case that the core wants one installed. Two,
    /// because one can come while the one before it is being written.
    pub(crate) arrived: VecDeque<(SnapshotMeta, Bytes)>,
    pub(crate) pending: Pending<M>,
    pub(crate) inbox: Inbox<M>,
    pub(crate) executors: Executors,
    /// Where the core's time begins.
    pub(crate) origin: Instant,
    pub(crate) punctuality: Punctuality,
}

impl<M: StateMachine> Driver<M> {
    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self) {
        let mut inputs = Vec::with_capacity(BATCH_MAX);
        let mut turn = Turn::default();
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let mut stopping = false;
        while !stopping {
            let deadline = self.raft.deadline();
            if let Some(deadline) = deadline {
                timer.as_mut().reset(self.origin + deadline.since(Time::ZERO));
            }
            tokio::select! {
                biased;
                Some(input) = self.inbox.events.recv() => inputs.push(input),
                Some(input) = self.inbox.requests.recv() => inputs.push(input),
                () = &mut timer, if deadline.is_some() => turn.events.push(Event::Tick),
            }
            self.punctuality.on_woken(self.overdue());
            stopping = self.drain(&mut inputs, &mut turn);
            stopping |= self.take(&mut inputs, &mut turn).await;
        }
        self.inbox.events.close();
        self.inbox.requests.close();
        self.pending.on_stopped();
        let Status { identity, log, load, .. } = self.raft.status();
        if !self.executors.stop().await {
            let (node, writes) = (identity.node, load.written.as_u64() - load.persisted.as_u64());
            tracing::error!(
                "{node} stops without its disk, which has not answered for {CLOSE_PATIENCE:?}: {writes} writes are \
                 abandoned, entries {} to {} among them; none of it was promised to anybody. The data directory stays \
                 locked until the disk answers or the process ends; check the disk",
                log.durable.next(),
                log.last
            );
        }
    }

    /// Takes what has been received, and what else waits, as far as a batch goes. Returns whether
    /// "stop" was among it.
    fn drain(&mut self, inputs: &mut Vec<Input<M>>, turn: &mut Turn) -> bool {
        drain(&mut self.inbox.events, inputs);
        drain(&mut self.inbox.requests, inputs);
        self.accept_all(inputs, turn)
    }

    fn accept_all(&mut self, inputs: &mut Vec<Input<M>>, turn: &mut Turn) -> bool {
        let mut stop = false;
        for input in inputs.drain(..) {
            stop |= self.accept(input, turn);
        }
        stop
    }

    /// Turns what was put into the inbox into what happened. Returns whether it was "stop".
    fn accept(&mut self, input: Input<M>, turn: &mut Turn) -> bool {
        match input {
            Input::Event(event) => turn.events.push(event),
            Input::Storage(completion) => turn.events.extend(self.on_completion(completion)),
            Input::Arrived { meta, data } => {
                self.executors.writer.save_received(meta.clone(), data.clone());
                self.arrived.push_back((meta, data));
                while self.arrived.len() > ARRIVED_MAX {
                    self.arrived.pop_front();
                }
            }
            Input::Introduced { node, address } => self.executors.on_introduced(node, address),
            Input::Change { expected, changes, waiter } => {
                let request = self.pending.add_wish(Wish::Change(waiter));
                turn.events.push(Event::ChangeMembership { request, expected, changes });
            }
            Input::Transfer { to, waiter } => {
                let request = self.pending.add_wish(Wish::Transfer(waiter));
                turn.events.push(Event::TransferLeadership { request, to });
            }
            Input::Snapshot(waiter) => {
                let request = self.pending.add_wish(Wish::Snapshot(waiter));
                turn.events.push(Event::RequestSnapshot { request });
            }
            Input::Propose { command, waiter } => {
                let request = self.pending.add_proposal(waiter);
                turn.events.push(Event::Propose { request, command });
            }
            Input::Read(mode, query) => {
                let request = self.pending.add_read(query);
                turn.events.push(Event::Read { request, mode });
            }
            Input::ReadStale(query) => query(Ok(&self.machine)),
            // Whoever asked may have gone away.
            Input::Status(waiter) => drop(waiter.send(self.raft.status())),
            Input::RuntimeStatus(waiter) => {
                let _ = waiter.send(self.punctuality.status(self.executors.endpoint.counters()));
            }
            Input::Stop => return true,
        }
        false
    }

    /// Steps until nothing more follows from what happened. What the machine has applied at once
    /// is news for the core at once, and lets reads go; but applying takes time, so whatever came
    /// in meanwhile is heard before the clock is looked at again (contract T2). Returns whether
    /// "stop" was among it.
    async fn take(&mut self, inputs: &mut Vec<Input<M>>, turn: &mut Turn) -> bool {
        let mut stopping = false;
        while !turn.events.is_empty() {
            if self.overdue() >= UNPUNCTUAL {
                self.hear_out(inputs, turn).await;
            }
            // The clock is read after the queue was drained, never before (contract T1).
            let at = self.now();
            self.raft.step_into(turn.events.drain(..).map(|event| Message { at, event }), &mut turn.effects);
            for effect in turn.effects.drain(..) {
                if let Some(event) = self.dispatch(effect) {
                    turn.events.push(event);
                }
            }
            self.punctuality.on_turn(self.now().since(at));
            if !turn.events.is_empty() {
                stopping |= self.drain(inputs, turn);
            }
        }
        stopping
    }

    /// The core should have been asked earlier: the machine was slow, or the process did not run.
    /// What peers have said meanwhile is not in the inbox but in the socket, several tasks away,
    /// while the timer is here already. So those tasks run first, or every pause would end with
    /// a campaign against a leader that was never silent (contract T2).
    async fn hear_out(&mut self, inputs: &mut Vec<Input<M>>, turn: &mut Turn) {
        for _ in 0..HOPS {
            tokio::task::yield_now().await;
        }
        drain(&mut self.inbox.events, inputs);
        // Nobody says "stop" in this queue.
        self.accept_all(inputs, turn);
    }

    /// How long ago the core wanted to be asked.
    fn overdue(&self) -> Duration {
        self.raft.deadline().map_or(Duration::ZERO, |deadline| self.now().since(deadline))
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.origin.elapsed())
    }

    /// Executes what concerns the machine, and passes on the rest.
    fn dispatch(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Apply { entries, tokens } => {
                crate::applier::apply(&mut self.machine, &mut self.pending, &entries, &tokens)
                    .map(|index| Event::Applied { index })
            }
            Effect::Reply { request, outcome } => {
                self.pending.on_reply(request, outcome, &self.machine);
                None
            }
            Effect::Send { to, rpc } => self.executors.send(to, rpc),
            Effect::Persist { seq, hard_state, entries } => {
                self.executors.persist(seq, hard_state.map(|hard_state| *hard_state), entries)
            }
            Effect::ReadLog { id, purpose: _, from, through, max_bytes } => {
                self.executors.read_log(id, from, through, max_bytes)
            }
            Effect::Configured { configuration } => self.executors.configure(&configuration),
            Effect::TakeSnapshot { meta } => {
                // As of here: whatever was handed over before has been applied, nothing else has.
                self.executors.writer.save_snapshot(&meta, self.machine.snapshot());
                None
            }
            Effect::SendSnapshot { to, meta } => self.executors.send_snapshot(to, &meta),
            Effect::InstallSnapshot { seq, meta } => self.install(seq, meta),
            Effect::Compact { through } => self.executors.compact(through),
            Effect::Observe(observation) => self.executors.observe(&observation),
        }
    }
}

impl<M: StateMachine> Driver<M> {
    /// Replaces the machine by a snapshot that has arrived, and the log with it. If the machine cannot
    /// read it, the node must not go on: it would answer as if it had.
    fn install(&mut self, seq: WriteSeq, meta: Arc<SnapshotMeta>) -> Option<Event> {
        let index = meta.last.index;
        let arrived = core::mem::take(&mut self.arrived).into_iter().find(|(arrived, _)| arrived.last == meta.last);
        let restored = match arrived {
            Some((_, data)) => self.machine.restore(&data),
            None => Err(RestoreError { reason: format!("the bytes of snapshot {} are gone", meta.last) }),
        };
        match restored {
            Ok(()) => {
                tracing::info!("{} goes on from snapshot {}, sent by another node", self.executors.me, meta.last);
                self.executors.install(seq, meta);
                Some(Event::Applied { index })
            }
            Err(error) => {
                tracing::error!("{error}; this node cannot go on, and promises nothing any more");
                Some(Event::StorageFailed)
            }
        }
    }

    fn on_completion(&mut self, completion: Completion) -> Option<Event> {
        Some(match completion {
            Completion::Persisted { seq } => Event::Persisted { seq },
            Completion::Read { id, outcome } => {
                if outcome == LogReadOutcome::Damaged {
                    tracing::error!(%id, "entries of the log could not be read back");
                }
                Event::LogRead { id, outcome }
            }
            Completion::SnapshotTaken { index, bytes } => {
                if let Some(bytes) = bytes {
                    tracing::info!("{} has written a snapshot up to {index}, {bytes} bytes", self.executors.me);
                }
                Event::SnapshotTaken { index, bytes }
            }
            Completion::SnapshotReceived { last, complete } => Event::SnapshotReceived { last, complete },
            Completion::SnapshotLoaded { to, meta, data } => {
                self.executors.endpoint.send_snapshot(to, meta, data);
                return None;
            }
            Completion::Failed(error) => {
                tracing::error!("{error}; this node promises nothing any more, and the others go on without it");
                Event::StorageFailed
            }
        })
    }
}

/// The vectors of one turn, kept so that a quiet node allocates nothing.
#[derive(Default)]
struct Turn {
    events: Vec<Event>,
    effects: Vec<Effect>,
}

/// Takes what waits, as far as a batch goes.
fn drain<M>(queue: &mut mpsc::Receiver<Input<M>>, inputs: &mut Vec<Input<M>>) {
    let limit = inputs.len().saturating_add(BATCH_MAX);
    while inputs.len() < limit
        && let Ok(input) = queue.try_recv()
    {
        inputs.push(input);
    }
}

/// Never answered, because the node is gone.
impl From<oneshot::error::RecvError> for ProposeError {
    fn from(_: oneshot::error::RecvError) -> Self {
        Self::Unknown { leader: None }
    }
}

/// Never answered, because the node is gone.
impl From<oneshot::error::RecvError> for ReadError {
    fn from(_: oneshot::error::RecvError) -> Self {
        Self::Stopped
    }
}

#[cfg(test)]
mod tests;
