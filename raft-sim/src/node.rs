//! A node: what stays when its process dies, and the process around a core, which comes and goes.

use std::collections::VecDeque;

use raft_core::{
    ClusterId, Config, ConfigError, Entries, Event, Index, Membership, NodeId, Payload, Raft, RequestId, Rpc,
    StateMachine as _, Status, Time, Verdict,
};

use crate::checks::Inbox;
use crate::disk::Disk;
use crate::machine::Registers;

/// One member of the cluster, but for its disk: the checks look at the disks of all.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// It outlives the process only if the plan says that it is durable.
    pub(crate) machine: Registers,
    pub(crate) process: Option<Process>,
    /// Which process this is; what was planned for an earlier one is void.
    pub(crate) life: u64,
    /// Nothing is handled before.
    pub(crate) paused_until: Time,
    /// How many times slower than usual its disk is.
    pub(crate) disk_factor: u32,
}

/// The life of a node between two crashes.
pub(crate) struct Process {
    pub(crate) raft: Raft,
    /// What the core said of itself after its last step.
    pub(crate) status: Status,
    clock: Clock,
    inbox: VecDeque<Event>,
    pub(crate) drain_planned: bool,
    pub(crate) timer: Option<Time>,
    applier: VecDeque<HandOver>,
}

/// Entries on their way to the state machine, and who waits for their results.
#[derive(Debug)]
pub(crate) struct HandOver {
    pub(crate) entries: Entries,
    pub(crate) tokens: Vec<(Index, RequestId)>,
}

/// A process's clock counts from an origin of its own; nothing may depend on which.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Time,
    origin: Time,
}

impl Clock {
    fn local(self, now: Time) -> Time {
        self.origin.after(now.since(self.started))
    }

    fn world(self, local: Time) -> Time {
        self.started.after(local.since(self.origin))
    }
}

impl Node {
    pub(crate) fn new(id: NodeId) -> Self {
        Self { id, machine: Registers::default(), process: None, life: 0, paused_until: Time::ZERO, disk_factor: 1 }
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
        let Start { config, cluster, membership, cache_bytes, origin } = start;
        let durable = disk.open(cluster, membership, self.machine.applied(), cache_bytes);
        let raft = Raft::new(config, durable)?;
        self.life += 1;
        self.process = Some(Process {
            status: raft.status(),
            raft,
            clock: Clock { started: now, origin },
            inbox: VecDeque::new(),
            drain_planned: false,
            timer: None,
            applier: VecDeque::new(),
        });
        Ok(())
    }
}

/// What a process is started with.
pub(crate) struct Start {
    pub(crate) config: Config,
    pub(crate) cluster: ClusterId,
    pub(crate) membership: Membership,
    /// How much of its log it may keep in memory.
    pub(crate) cache_bytes: u64,
    /// What its clock shows.
    pub(crate) origin: Time,
}

impl Process {
    pub(crate) fn push(&mut self, event: Event) {
        self.inbox.push_back(event);
    }

    pub(crate) fn has_mail(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Takes up to `max` events out of the inbox, and a tick if one is due; and reads the clock
    /// afterwards (contract T1).
    pub(crate) fn drain(&mut self, now: Time, max: u64) -> (Time, Vec<Event>) {
        let count = self.inbox.len().min(max as usize);
        let mut batch: Vec<Event> = self.inbox.drain(..count).collect();
        let at = self.clock.local(now);
        if self.raft.deadline().is_some_and(|deadline| deadline <= at) {
            batch.push(Event::Tick);
        }
        (at, batch)
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

    /// The oldest hand-over has been applied to `machine`.
    pub(crate) fn apply(&mut self, machine: &mut Registers) -> Option<HandOver> {
        let hand_over = self.applier.pop_front()?;
        for entry in hand_over.entries.iter() {
            match &entry.payload {
                Payload::Blank => machine.skip(entry.position()),
                Payload::Command(command) => {
                    machine.apply(entry.position(), command);
                }
            }
        }
        Some(hand_over)
    }
}

/// What the checks want to know of a batch.
pub(crate) fn summary(batch: &[Event]) -> Inbox {
    let mut inbox = Inbox::default();
    for event in batch {
        match event {
            Event::Received { rpc, .. } => {
                let term = Some(rpc.term());
                match rpc {
                    Rpc::Append(_) => {
                        inbox.appends = true;
                        inbox.leader = inbox.leader.max(term);
                        inbox.adopted = inbox.adopted.max(term);
                    }
                    Rpc::Heartbeat { .. } | Rpc::CommitNotice { .. } => {
                        inbox.leader = inbox.leader.max(term);
                        inbox.adopted = inbox.adopted.max(term);
                    }
                    Rpc::VoteReply { .. }
                    | Rpc::PreVoteReply { verdict: Verdict::Refused | Verdict::LeaderAlive, .. }
                    | Rpc::AppendReply { .. }
                    | Rpc::AppendRejected(_)
                    | Rpc::HeartbeatReply { .. }
                    | Rpc::TermOver { .. } => inbox.adopted = inbox.adopted.max(term),
                    Rpc::PreVote { .. } | Rpc::PreVoteReply { verdict: Verdict::Granted, .. } | Rpc::Vote { .. } => {}
                }
            }
            Event::PeerUnreachable { .. } => inbox.unreachable = true,
            Event::Tick
            | Event::Propose { .. }
            | Event::Read { .. }
            | Event::Persisted { .. }
            | Event::Applied { .. }
            | Event::LogRead { .. } => {}
            Event::StorageFailed => inbox.storage_failed = true,
        }
    }
    inbox
}
