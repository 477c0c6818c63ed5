//! A node: what stays when its process dies, and the process around a core, which comes and goes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use raft_core::{
    ClusterId, Config, ConfigError, Entries, Event, Index, NodeId, Payload, Raft, ReadMode, RequestId, Rpc,
    SnapshotMeta, StateMachine as _, Status, Time, WriteSeq,
};

use crate::checks::Inbox;
use crate::disk::{Disk, Snapshot};
use crate::machine::Registers;
use crate::plan::{InboxOrder, ProcessPlan};
use crate::rng::Rng;
use crate::slot;

/// One member of the cluster, but for its disk: the checks look at the disks of all.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// It outlives the process only if the plan says that it is durable.
    pub(crate) machine: Registers,
    pub(crate) process: Option<Process>,
    /// Which process this is; what was planned for an earlier one is void.
    pub(crate) life: u64,
    /// There is such a node: it belongs to the founders, or has been added.
    pub(crate) exists: bool,
    /// It was removed, and is not started any more.
    pub(crate) retired: bool,
    /// Nothing is handled before.
    pub(crate) paused_until: Time,
    /// How many times slower than usual its disk is.
    pub(crate) disk_factor: u32,
    /// No sync ends before.
    pub(crate) disk_stalled_until: Time,
    /// Its disk has no space left.
    pub(crate) disk_full: bool,
}

/// The life of a node between two crashes.
pub(crate) struct Process {
    pub(crate) raft: Raft,
    /// What the core said of itself after its last step.
    pub(crate) status: Status,
    clock: Clock,
    inbox: Mailbox,
    pub(crate) drain_planned: bool,
    pub(crate) held: Option<Held>,
    pub(crate) timer: Option<Time>,
    applier: VecDeque<HandOver>,
}

/// What a state machine has to do, in order.
#[derive(Debug)]
pub(crate) enum HandOver {
    /// Apply entries; and who waits for their results.
    Entries { entries: Entries, tokens: Vec<(Index, RequestId)> },
    /// Become what this snapshot says.
    Install { seq: WriteSeq, snapshot: Arc<Snapshot> },
    /// Be written down.
    Take { meta: Arc<SnapshotMeta> },
}

/// A process's clock counts from an origin of its own; nothing may depend on which.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Time,
    origin: Time,
    /// How long a million nanoseconds of the world are on it.
    rate: u64,
}

impl Clock {
    const EXACT: u128 = 1_000_000;

    fn local(self, now: Time) -> Time {
        let elapsed = now.since(self.started).as_nanos() * u128::from(self.rate) / Self::EXACT;
        self.origin.after(nanoseconds(elapsed))
    }

    /// The first moment at which it shows `local`.
    fn world(self, local: Time) -> Time {
        let elapsed = (local.since(self.origin).as_nanos() * Self::EXACT).div_ceil(u128::from(self.rate));
        self.started.after(nanoseconds(elapsed))
    }
}

fn nanoseconds(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What a process took out of its inbox before something held it up.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) batch: Vec<Event>,
    /// When it read the clock, if it had by then.
    pub(crate) read_at: Option<Time>,
}

/// What waits for a process: each channel in its own order.
#[derive(Debug, Default)]
struct Mailbox {
    arrived: u64,
    clients: VecDeque<(u64, Event)>,
    peers: VecDeque<(u64, Event)>,
    own: VecDeque<(u64, Event)>,
}

impl Mailbox {
    fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.peers.is_empty() && self.own.is_empty()
    }

    fn push(&mut self, event: Event) {
        self.arrived += 1;
        let channel = match event {
            Event::Propose { .. }
            | Event::Read { .. }
            | Event::ChangeMembership { .. }
            | Event::TransferLeadership { .. }
            | Event::RequestSnapshot { .. } => &mut self.clients,
            Event::Received { .. } | Event::PeerUnreachable { .. } => &mut self.peers,
            Event::Tick
            | Event::Persisted { .. }
            | Event::Applied { .. }
            | Event::LogRead { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotProgress { .. }
            | Event::SnapshotReceived { .. }
            | Event::StorageFull
            | Event::StorageReady
            | Event::StorageFailed => &mut self.own,
        };
        channel.push_back((self.arrived, event));
    }

    fn pop(&mut self, order: InboxOrder, rng: &mut Rng) -> Option<Event> {
        let channels = [&mut self.clients, &mut self.peers, &mut self.own];
        let mut waiting: Vec<_> = channels.into_iter().filter(|channel| !channel.is_empty()).collect();
        let chosen = match order {
            InboxOrder::Arrival => {
                (0..waiting.len()).min_by_key(|nth| waiting[*nth].front().map(|(arrived, _)| *arrived))
            }
            InboxOrder::ClientsFirst => Some(0),
            InboxOrder::Random => Some(rng.below(waiting.len() as u64) as usize),
        };
        waiting.get_mut(chosen?)?.pop_front().map(|(_, event)| event)
    }
}

impl Node {
    pub(crate) fn new(id: NodeId, exists: bool) -> Self {
        Self {
            id,
            machine: Registers::default(),
            process: None,
            life: 0,
            exists,
            retired: false,
            paused_until: Time::ZERO,
            disk_factor: 1,
            disk_stalled_until: Time::ZERO,
            disk_full: false,
        }
    }

    /// The process, if it runs and is the one that `life` names.
    pub(crate) fn alive(&mut self, life: u64) -> Option<&mut Process> {
        if self.life == life { self.process.as_mut() } else { None }
    }

    /// What the running process last said of itself.
    pub(crate) fn status(&self) -> Option<&Status> {
        self.process.as_ref().map(|process| &process.status)
    }

    /// Opens the disk and starts a process on it.
    pub(crate) fn start(&mut self, disk: &mut Disk, now: Time, start: Start) -> Result<(), ConfigError> {
        let Start { config, cluster, durable_machine, cache_bytes, origin, rate } = start;
        // A machine that has kept its state needs a snapshot only if the log does not go on from there.
        let needed = if durable_machine { disk.base().index } else { Index::new(u64::MAX) };
        if let Some(snapshot) = disk.newest_snapshot().filter(|_| self.machine.applied() < needed) {
            self.machine = restored(snapshot);
        }
        let durable = disk.open(cluster, self.machine.applied(), cache_bytes);
        let raft = Raft::new(config, durable)?;
        self.life += 1;
        self.process = Some(Process {
            status: raft.status(),
            raft,
            clock: Clock { started: now, origin, rate },
            inbox: Mailbox::default(),
            drain_planned: false,
            held: None,
            timer: None,
            applier: VecDeque::new(),
        });
        Ok(())
    }
}

fn restored(snapshot: &Snapshot) -> Registers {
    Registers::of_image(&snapshot.machine).expect("because nothing harms bytes here")
}

/// What a process is started with.
pub(crate) struct Start {
    pub(crate) config: Config,
    pub(crate) cluster: ClusterId,
    /// Whether its state machine keeps its state by itself.
    pub(crate) durable_machine: bool,
    /// How much of its log it may keep in memory.
    pub(crate) cache_bytes: u64,
    /// What its clock shows.
    pub(crate) origin: Time,
    /// How fast it runs: exact is a million.
    pub(crate) rate: u64,
}

impl Process {
    pub(crate) fn push(&mut self, event: Event) {
        self.inbox.push(event);
    }

    pub(crate) fn has_mail(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Takes events out of the inbox.
    pub(crate) fn drain(&mut self, plan: &ProcessPlan, rng: &mut Rng) -> Vec<Event> {
        let mut batch = Vec::new();
        while (batch.len() as u64) < plan.batch_max
            && let Some(event) = self.inbox.pop(plan.inbox_order, rng)
        {
            batch.push(event);
        }
        batch
    }

    /// Reads the clock for a batch, and adds a tick to it if one is due by then. After the inbox
    /// was drained, never before (contract T1).
    pub(crate) fn read_clock(&self, now: Time, batch: &mut Vec<Event>) -> Time {
        let at = self.clock.local(now);
        if self.raft.deadline().is_some_and(|deadline| deadline <= at) {
            batch.push(Event::Tick);
        }
        at
    }

    /// When the core wants to be woken, on the world's clock.
    pub(crate) fn wake_at(&self) -> Option<Time> {
        self.raft.deadline().map(|deadline| self.clock.world(deadline))
    }

    /// Queues entries for the state machine; `true` if it was idle.
    pub(crate) fn hand_over(&mut self, hand_over: HandOver) -> bool {
        self.applier.push_back(hand_over);
        self.applier.len() == 1
    }

    /// Whether there is more for the state machine to do.
    pub(crate) fn is_applying(&self) -> bool {
        !self.applier.is_empty()
    }

    /// The snapshot that the state machine is to become next, if that is what comes next.
    pub(crate) fn installs(&self) -> Option<WriteSeq> {
        match self.applier.front()? {
            HandOver::Install { seq, .. } => Some(*seq),
            HandOver::Entries { .. } | HandOver::Take { .. } => None,
        }
    }

    /// The oldest hand-over is done, by `machine` as far as it is concerned.
    pub(crate) fn apply(&mut self, machine: &mut Registers) -> Option<HandOver> {
        let hand_over = self.applier.pop_front()?;
        let entries = match &hand_over {
            HandOver::Entries { entries, .. } => entries,
            HandOver::Install { snapshot, .. } => {
                *machine = restored(snapshot);
                return Some(hand_over);
            }
            HandOver::Take { .. } => return Some(hand_over),
        };
        for entry in entries.iter() {
            match &entry.payload {
                Payload::Blank | Payload::Configuration(_) => machine.skip(entry.position()),
                Payload::Command(command) => {
                    machine.apply(entry.position(), command);
                }
            }
        }
        Some(hand_over)
    }
}

/// What the checks want to know of a batch.
pub(crate) fn summary(batch: &[Event], disks: &[Disk]) -> Inbox {
    let mut inbox = Inbox::default();
    for event in batch {
        if let Event::Received { from, rpc } = event {
            inbox.heard |= 1 << slot(from.node);
            inbox.newest_term = inbox.newest_term.max(rpc.term());
        }
        match event {
            Event::Received { from, rpc } => match rpc {
                Rpc::Append(_)
                | Rpc::Heartbeat { .. }
                | Rpc::CommitNotice { .. }
                | Rpc::InstallSnapshot(_)
                | Rpc::Regressed { .. } => {
                    inbox.appends |= matches!(rpc, Rpc::Append(_));
                    // A voice from an earlier life may have been ignored (contract V9).
                    if from.boot == disks[slot(from.node)].boot() {
                        inbox.leader = inbox.leader.max(Some(rpc.term()));
                    }
                }
                Rpc::Vote { ordered_in: Some(in_term), .. } => inbox.by_order = Some((from.node, *in_term)),
                Rpc::ReadIndex { id, mode: ReadMode::Lease, .. } => {
                    inbox.lease_questions.push((from.node, *id));
                }
                Rpc::PreVote { .. }
                | Rpc::PreVoteReply { .. }
                | Rpc::Vote { .. }
                | Rpc::VoteReply { .. }
                | Rpc::AppendReply { .. }
                | Rpc::AppendRejected(_)
                | Rpc::HeartbeatReply { .. }
                | Rpc::SnapshotStatus { .. }
                | Rpc::ReadIndex { .. }
                | Rpc::ReadIndexReply { .. }
                | Rpc::TermOver { .. } => {}
                Rpc::TimeoutNow { term } => inbox.ordered = Some((from.node, *term)),
                Rpc::Resigned { term } => inbox.resigned = Some((from.node, *term)),
            },
            Event::Read { request, mode: ReadMode::Lease } => {
                inbox.lease_read.get_or_insert(*request);
            }
            Event::PeerUnreachable { .. } => inbox.unreachable = true,
            Event::Tick
            | Event::Propose { .. }
            | Event::Read { .. }
            | Event::Persisted { .. }
            | Event::Applied { .. }
            | Event::ChangeMembership { .. }
            | Event::TransferLeadership { .. }
            | Event::RequestSnapshot { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotProgress { .. }
            | Event::SnapshotReceived { .. }
            | Event::StorageFull
            | Event::LogRead { .. } => {}
            Event::StorageReady => inbox.storage_ready = true,
            Event::StorageFailed => inbox.storage_failed = true,
        }
    }
    inbox
}
