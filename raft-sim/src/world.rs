//! The world: virtual time, in which nodes, disks, a network and clients happen to each other.

use std::sync::Arc;
use std::time::Duration;

use raft_core::{
    ClusterId, Config, Effect, Event, Index, Leases, LogReadOutcome, Member, Membership, NodeId, Peer, Position,
    ReadId, ReadMode, RequestId, RoleKind, Rpc, Term, Time,
};

use crate::bulk::Transfer;
use crate::checks::{Checks, Invariant, Verdict, Violation};
use crate::client::{Answer, Clients};
use crate::disk::{Disk, Snapshot};
use crate::nemesis::Nemesis;
use crate::network::{Link, Network};
use crate::node::{Held, Node, Start};
use crate::operator::Operator;
use crate::plan::{FaultKind, Plan};
use crate::rng::{CERTAIN, Rng};
use crate::schedule::Schedule;
use crate::trace::Trace;
use crate::{node_at, slot};

/// What can happen next.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A message reaches a node.
    Arrive { from: Peer, to: NodeId, rpc: Rpc, sent: Time },
    /// A node hears that a channel broke.
    Notice { node: NodeId, life: u64, peer: NodeId },
    /// A process looks into its inbox.
    Drain { node: NodeId, life: u64 },
    /// A timer of a process fires.
    Timer { node: NodeId, life: u64 },
    /// A sync ends.
    Synced { node: NodeId, life: u64 },
    /// A state machine is done with one hand-over.
    Applied { node: NodeId, life: u64 },
    /// The log reader is done.
    LogRead { node: NodeId, life: u64, id: ReadId, from: Index, through: Index, max_bytes: u64 },
    /// A snapshot of the own state machine is written.
    SnapshotTaken { node: NodeId, life: u64, snapshot: Arc<Snapshot> },
    /// A piece of a snapshot travels.
    Piece { transfer: Box<Transfer> },
    /// A snapshot from another node has arrived, and is written.
    SnapshotStored { node: NodeId, life: u64, snapshot: Arc<Snapshot> },
    /// A node hears that the rest of a snapshot will not come.
    SnapshotLost { node: NodeId, life: u64, last: Position },
    /// A client's request reaches a node.
    Request { to: NodeId, request: RequestId, padding: usize, mode: ReadMode },
    /// An answer reaches a client.
    Answer { request: RequestId, answer: Answer },
    /// A client has waited long enough.
    GiveUp { request: RequestId },
    /// A client may begin something.
    ClientReady { client: usize },
    /// A fault of this kind strikes, and again some time later.
    Episode { kind: FaultKind },
    /// A fault of this kind strikes as soon as it can: every run has it.
    Required { kind: FaultKind },
    /// A fault of this kind follows on something.
    Chained { kind: FaultKind },
    /// A removed node is stopped for good.
    Retire { node: NodeId },
    /// Links are cut …
    Cut { links: Vec<Link> },
    /// … and work again.
    Lift { links: Vec<Link> },
    /// A disk is as fast as usual again.
    DiskRecovered { node: NodeId },
    /// A full disk has space again.
    SpaceAgain { node: NodeId },
    /// A process with a failed disk is given up.
    Replace { node: NodeId, life: u64 },
    /// A crashed process starts again.
    Restart { node: NodeId },
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes that died.
    pub crashes: u64,
    /// Leaders among them.
    pub leader_crashes: u64,
    /// Cuts, of whatever shape.
    pub partitions: u64,
    /// Other faults.
    pub other_faults: u64,
    /// Log reads: entries that were no longer in memory.
    pub log_reads: u64,
    /// Processes that stopped for a while.
    pub pauses: u64,
    /// Processes that were held up between their inbox and their next step.
    pub stalls: u64,
    /// Disks that stood still for a while.
    pub disk_stalls: u64,
    /// Disks that had no space for a while.
    pub disks_full: u64,
    /// Configurations that were committed.
    pub changes: u64,
    /// Changes of the membership that a leader refused.
    pub changes_refused: u64,
    /// Times that leadership was handed over on demand.
    pub transfers: u64,
    /// Snapshots that state machines were written to.
    pub snapshots_taken: u64,
    /// Snapshots that nodes began to send to others.
    pub snapshots_sent: u64,
    /// Snapshots that replaced a log.
    pub snapshots_installed: u64,
    /// Steps of cores.
    pub steps: u64,
}

/// One cluster, and everything that befalls it.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) schedule: Schedule<Happening>,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) clients: Clients,
    pub(crate) checks: Checks,
    pub(crate) nemesis: Nemesis,
    pub(crate) operator: Operator,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    pub(crate) chance: Chance,
    /// Reused from step to step.
    pub(crate) effects: Vec<Effect>,
    cluster: ClusterId,
}

/// The generators of what is no message and no planned fault.
pub(crate) struct Chance {
    pub(crate) disk: Rng,
    pub(crate) crash: Rng,
    pub(crate) effect_crash: Rng,
    pub(crate) log_read: Rng,
    pub(crate) process: Rng,
    pub(crate) timer: Rng,
    pub(crate) inbox: Rng,
    pub(crate) start: Rng,
    pub(crate) answer: Rng,
    pub(crate) snapshot: Rng,
    pub(crate) stall: Rng,
}

impl World {
    pub(crate) fn new(plan: Plan, trace: Trace) -> Self {
        let root = Rng::from_seed(plan.seed);
        let store = |nth: usize| Self::store(plan.seed, nth as u128);
        let members = (0..plan.nodes).map(|nth| Member { node: node_at(nth), store: store(nth) });
        let membership = Membership::new(members).expect("because no plan has more nodes than a cluster may have");
        let membership = Arc::new(membership);
        let disks = (0..plan.nodes_max).map(|nth| Disk::format(node_at(nth), store(nth), membership.clone())).collect();
        Self {
            schedule: Schedule::new(),
            network: Network::new(plan.nodes_max, plan.network, &root),
            nodes: (0..plan.nodes_max).map(|nth| Node::new(node_at(nth), nth < plan.nodes)).collect(),
            disks,
            clients: Clients::new(plan.clients, plan.nodes, &root),
            checks: Checks::new(membership, plan.nodes_max, plan.limits, plan.timing, plan.drift_ppm()),
            nemesis: Nemesis::new(&root),
            operator: Operator::new(&root, plan.nodes_max),
            trace,
            counts: Counts::default(),
            chance: Chance {
                disk: root.fork("disk"),
                crash: root.fork("crash"),
                effect_crash: root.fork("crash/effect"),
                log_read: root.fork("disk/read"),
                process: root.fork("process"),
                timer: root.fork("process/timer"),
                inbox: root.fork("process/inbox"),
                start: root.fork("process/start"),
                answer: root.fork("client/answer"),
                snapshot: root.fork("snapshot"),
                stall: root.fork("process/stall"),
            },
            effects: Vec::new(),
            cluster: ClusterId::new(u128::from(plan.seed) + 1),
            plan,
        }
    }

    /// Lets everything up to `until` happen, or less if `done` is.
    pub(crate) fn run_until(&mut self, until: Time, mut done: impl FnMut(&Self) -> bool) -> Result<bool, Violation> {
        loop {
            if done(self) {
                return Ok(true);
            }
            let Some(happening) = self.schedule.pop(until) else { return Ok(false) };
            self.on_happening(happening)?;
        }
    }

    pub(crate) fn now(&self) -> Time {
        self.schedule.now()
    }

    fn on_happening(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::Arrive { from, to, rpc, sent } => {
                if self.network.is_cut((from.node, to)) || self.is_out_of_time(sent) {
                    self.network.lose(self.schedule.now());
                } else {
                    self.give(to, Event::Received { from, rpc });
                }
            }
            Happening::Notice { node, life, peer } => {
                if self.nodes[slot(node)].life == life {
                    self.give(node, Event::PeerUnreachable { node: peer });
                }
            }
            Happening::Drain { node, life } => return self.on_drain(node, life),
            Happening::Timer { node, life } => return self.on_timer(node, life),
            Happening::Synced { node, life } => return self.on_synced(node, life),
            Happening::Applied { node, life } => return self.on_applied(node, life),
            Happening::LogRead { node, life, id, from, through, max_bytes } => {
                if self.nodes[slot(node)].alive(life).is_some() {
                    let broken = self.chance.log_read.chance(self.plan.disk.read_failures);
                    let found = self.disks[slot(node)].read(from, through, max_bytes).filter(|_| !broken);
                    let outcome = found.map_or(LogReadOutcome::Damaged, LogReadOutcome::Entries);
                    self.give(node, Event::LogRead { id, outcome });
                }
            }
            Happening::SnapshotTaken { node, life, snapshot } => return self.on_snapshot_taken(node, life, &snapshot),
            Happening::Piece { transfer } => self.on_piece(transfer),
            Happening::SnapshotStored { node, life, snapshot } => self.on_snapshot_stored(node, life, snapshot),
            Happening::SnapshotLost { node, life, last } => {
                if self.nodes[slot(node)].alive(life).is_some() {
                    self.give(node, Event::SnapshotReceived { last, complete: false });
                }
            }
            Happening::Request { to, request, padding, mode } => self.on_request(to, request, padding, mode),
            Happening::Answer { request, answer } => {
                self.clients.on_answer(request, answer, &mut self.schedule, &mut self.checks.history);
            }
            Happening::GiveUp { request } => {
                let answer = Answer::Unknown;
                self.clients.on_answer(request, answer, &mut self.schedule, &mut self.checks.history);
            }
            Happening::ClientReady { client } => {
                self.clients.on_ready(client, &mut self.schedule, &mut self.checks.history);
            }
            Happening::Episode { kind } => return self.on_episode(kind),
            Happening::Required { kind } => return self.on_required(kind),
            Happening::Chained { kind } => return self.on_chained(kind),
            Happening::Retire { node } => return self.retire(node),
            Happening::Cut { links } => self.on_cut(&links),
            Happening::Lift { links } => self.network.lift(&links),
            Happening::SpaceAgain { node } => {
                if std::mem::take(&mut self.nodes[slot(node)].disk_full) {
                    self.give(node, Event::StorageReady);
                }
            }
            Happening::DiskRecovered { node } => self.nodes[slot(node)].disk_factor = 1,
            Happening::Replace { node, life } => {
                if self.nodes[slot(node)].alive(life).is_some() {
                    return self.crash(node);
                }
            }
            Happening::Restart { node } => return self.start(node),
        }
        Ok(())
    }

    /// Puts an event into a node's inbox; without a process it is gone.
    pub(crate) fn give(&mut self, to: NodeId, event: Event) {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(to)];
        let (life, paused_until) = (node.life, node.paused_until);
        let Some(process) = &mut node.process else { return };
        process.push(event);
        if !process.drain_planned {
            process.drain_planned = true;
            let mean = self.plan.process.drain_mean;
            let wait = if mean.is_zero() { mean } else { self.chance.process.exponential(mean) };
            self.schedule.plan(now.after(wait).max(paused_until), Happening::Drain { node: to, life });
        }
    }

    fn on_drain(&mut self, id: NodeId, life: u64) -> Verdict {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(id)];
        let paused_until = node.paused_until;
        let Some(process) = node.alive(life) else { return Ok(()) };
        if paused_until > now {
            self.schedule.plan(paused_until, Happening::Drain { node: id, life });
            return Ok(());
        }
        process.drain_planned = false;
        let held = process.held.take();
        let was_held = held.is_some();
        let Held { mut batch, read_at } = held.unwrap_or_else(|| {
            let batch = process.drain(&self.plan.process, &mut self.chance.inbox);
            Held { batch, read_at: None }
        });
        if !was_held && !batch.is_empty() && self.chance.stall.chance(self.plan.process.stalls) {
            self.stall(id, batch);
            return Ok(());
        }
        if process.has_mail() {
            process.drain_planned = true;
            self.schedule.plan(now, Happening::Drain { node: id, life });
        }
        let clock = read_at.unwrap_or(now);
        let at = process.read_clock(clock, &mut batch);
        self.step(id, (at, clock), batch)
    }

    /// Something holds a process up when it has taken its inbox: before it reads the clock, or
    /// just after.
    fn stall(&mut self, id: NodeId, batch: Vec<Event>) {
        let now = self.schedule.now();
        let timeout = self.plan.timing.election_timeout_max;
        let has_read = self.chance.stall.chance(CERTAIN / 2);
        let until = now.after(self.chance.stall.exponential(timeout));
        let node = &mut self.nodes[slot(id)];
        node.paused_until = node.paused_until.max(until);
        let life = node.life;
        let Some(process) = &mut node.process else { return };
        process.held = Some(Held { batch, read_at: has_read.then_some(now) });
        process.drain_planned = true;
        self.counts.stalls += 1;
        self.trace.record(now, &[42, id.as_u64(), u64::from(has_read)], || {
            format!("{id} stalls until {until}, {} reading its clock", if has_read { "after" } else { "before" })
        });
        self.schedule.plan(until, Happening::Drain { node: id, life });
    }

    fn on_timer(&mut self, id: NodeId, life: u64) -> Verdict {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(id)];
        let paused_until = node.paused_until;
        let Some(process) = node.alive(life).filter(|process| process.timer == Some(now)) else { return Ok(()) };
        if paused_until > now {
            process.timer = Some(paused_until);
            self.schedule.plan(paused_until, Happening::Timer { node: id, life });
            return Ok(());
        }
        process.timer = None;
        if process.held.is_some() || process.wake_at().is_some_and(|wake_at| wake_at <= now) {
            // Mail that waits is handled before the tick, in the same batch (contract T2).
            return self.on_drain(id, life);
        }
        self.arm(id);
        Ok(())
    }

    /// Ends a pause: what was put off happens now.
    pub(crate) fn wake(&mut self, id: NodeId) {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(id)];
        node.paused_until = now;
        let life = node.life;
        let Some(process) = &mut node.process else { return };
        process.timer = None;
        // A sync that began on a slow disk ends with the slowness; its own end comes to nothing,
        // or ends a later one early.
        self.schedule.plan(now, Happening::Synced { node: id, life });
        if process.drain_planned {
            self.schedule.plan(now, Happening::Drain { node: id, life });
        }
        self.arm(id);
    }

    /// Plans the wake-up that the core asks for, unless an earlier one is planned already.
    pub(crate) fn arm(&mut self, id: NodeId) {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(id)];
        let life = node.life;
        let Some(process) = &mut node.process else { return };
        let Some(wake_at) = process.wake_at() else { return };
        let lag = self.plan.process.timer_lag_mean;
        let lag = if lag.is_zero() { lag } else { self.chance.timer.exponential(lag) };
        let at = wake_at.max(now).after(lag);
        if process.timer.is_none_or(|planned| planned > at) {
            process.timer = Some(at);
            self.schedule.plan(at, Happening::Timer { node: id, life });
        }
    }

    /// Starts a process on a node that has none.
    pub(crate) fn start(&mut self, id: NodeId) -> Verdict {
        let now = self.schedule.now();
        let place = slot(id);
        let node = &self.nodes[place];
        if node.process.is_some() || node.retired || !node.exists {
            return Ok(());
        }
        let no_plan = |error| Violation::new(Invariant::RunShape, format!("the plan is no configuration: {error}"));
        let mut config = Config::new(self.plan.timing, self.plan.limits, self.plan.seed)
            .map_err(no_plan)?
            .with_priority(self.plan.priorities[place]);
        if let Some(drift_ppm) = self.plan.leases {
            config = config.with_leases(Leases::new(drift_ppm).map_err(no_plan)?);
        }
        let rng = &mut self.chance.start;
        let cache_bytes = rng.between(0, self.plan.limits.log_cache_bytes.min(65_536));
        let origin = Time::from_nanos(rng.below(1 << 40));
        // The extremes are what hurts.
        let drift = u64::from(self.plan.drift_ppm());
        let rate = CERTAIN - drift + *rng.pick(&[0, drift, 2 * drift]);
        let (cluster, durable_machine) = (self.cluster, self.plan.process.durable_machine);
        let node = &mut self.nodes[place];
        let start = Start { config, cluster, durable_machine, cache_bytes, origin, rate };
        node.start(&mut self.disks[place], now, start).map_err(|error| {
            Violation::new(Invariant::Ordering, format!("{id} cannot start from what its disk holds: {error}"))
        })?;
        let life = node.life;
        self.trace.record(now, &[40, id.as_u64(), life], || format!("{id} starts, life {life}"));
        self.checks.on_start(id, &self.disks[place], self.nodes[place].machine.applied())?;
        if self.nodes[place].disk_full {
            self.give(id, Event::StorageFull);
        }
        self.arm(id);
        Ok(())
    }

    /// Kills the process of a node, if it has one, and plans its restart.
    pub(crate) fn crash(&mut self, id: NodeId) -> Verdict {
        let now = self.schedule.now();
        let node = &mut self.nodes[slot(id)];
        let Some(process) = node.process.take() else { return Ok(()) };
        let was_leader = process.status.role == RoleKind::Leader;
        self.counts.crashes += 1;
        self.counts.leader_crashes += u64::from(was_leader);
        if !self.plan.process.durable_machine {
            node.machine = crate::machine::Registers::default();
        }
        let disk = &mut self.disks[slot(id)];
        disk.crash(&self.plan.disk, &mut self.chance.crash);
        let left = disk.last();
        let role = process.status.role;
        self.trace.record(now, &[41, id.as_u64(), left.index.as_u64()], || {
            format!("{id} crashes as {role}; its disk ends at {left}")
        });
        self.checks.on_crash(id, &self.disks)?;
        if self.nodes[slot(id)].retired {
            return Ok(());
        }
        // Now and then it is back at once, and must keep what it promised a moment ago.
        let at_once = self.chance.crash.chance(CERTAIN / 4);
        let mean = if at_once { self.plan.timing.heartbeat_interval / 2 } else { self.plan.process.downtime_mean };
        let downtime = self.chance.crash.exponential(mean);
        self.schedule.plan(now.after(downtime), Happening::Restart { node: id });
        for peer in (0..self.plan.nodes_max).map(node_at).filter(|peer| *peer != id) {
            let life = self.nodes[slot(peer)].life;
            if let Some(at) = self.network.notice(now) {
                self.schedule.plan(at, Happening::Notice { node: peer, life, peer: id });
            }
        }
        Ok(())
    }

    /// The leader of the highest term, if anybody thinks that it is one.
    pub(crate) fn leader(&self) -> Option<(Term, NodeId)> {
        let leaders = self.nodes.iter().filter_map(Node::status).filter(|status| status.role == RoleKind::Leader);
        leaders.map(|status| (status.hard_state.term, status.identity.node)).max()
    }

    /// The time that a cluster like this one may take for anything that takes one election timeout.
    pub(crate) fn election_timeout_max(&self) -> Duration {
        self.plan.timing.election_timeout_max
    }
}
