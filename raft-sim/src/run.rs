//! One run: a time of faults, then healing, and what a healed cluster must do in time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use raft_core::{Member, Priority, RoleKind, Time};

use crate::checks::{Invariant, Verdict, Violation, ensure};
use crate::network::Traffic;
use crate::plan::{FaultKind, Plan};
use crate::slot;
use crate::trace::{Sink, Trace};
use crate::world::{Counts, Happening, World};

/// No run is worth less.
pub const OPERATIONS_MIN: u64 = 100;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The digest of everything that happened.
    pub hash: u64,
    /// How much virtual time passed.
    pub simulated: Duration,
    /// Events and effects.
    pub recorded: u64,
    /// Client operations begun.
    pub operations: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Reads answered.
    pub reads: u64,
    /// Elections won.
    pub elections: u64,
    /// What befell the cluster.
    pub counts: Counts,
    /// What went over the network.
    pub traffic: Traffic,
    /// How long after healing there was a leader whom all follow.
    pub leader_after: Duration,
}

/// A run that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed} fails after {at} of virtual time: {violation}")]
pub struct Failure {
    /// The seed, which is all that it takes to see it again.
    pub seed: u64,
    /// When.
    pub at: Time,
    /// What.
    pub violation: Violation,
    /// The end of the trace.
    pub trace: Vec<String>,
}

/// Runs a seed. The same seed gives the same summary, or the same failure, on every machine.
///
/// # Errors
/// The first invariant that does not hold, with the last `tail` lines of the trace if they are
/// asked for; only then are they made, since words cost more than the run.
pub fn run(seed: u64, tail: usize) -> Result<Summary, Box<Failure>> {
    let sink = if tail == 0 { Sink::None } else { Sink::Tail(tail) };
    run_traced(&Plan::draw(seed), sink)
}

/// Runs a plan, and writes the trace to `sink`.
///
/// # Errors
/// As [`run`].
pub fn run_traced(plan: &Plan, sink: Sink) -> Result<Summary, Box<Failure>> {
    let seed = plan.seed;
    let mut trace = Trace::new(sink);
    for line in plan.to_string().lines() {
        trace.write(line.to_owned());
    }
    let mut world = World::new(plan.clone(), trace);
    // The world is abandoned after a panic, so it does not matter in which state it is left.
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()))
        .unwrap_or_else(|panic| Err(Violation::new(Invariant::NoPanic, words_of(panic.as_ref()))));
    outcome.map_err(|violation| {
        let at = world.now();
        Box::new(Failure { seed, at, violation, trace: world.trace.into_tail() })
    })
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
    let formatted = panic.downcast_ref::<String>().cloned();
    format!("panicked: {}", formatted.or(literal).unwrap_or_else(|| "without a word".to_owned()))
}

impl World {
    /// The whole life of a cluster.
    fn run(&mut self) -> Result<Summary, Violation> {
        for node in (0..self.plan.nodes).map(crate::node_at) {
            self.schedule.plan(Time::ZERO, Happening::Restart { node });
        }
        for client in 0..self.clients.count() {
            self.schedule.plan(Time::ZERO, Happening::ClientReady { client });
        }
        self.unleash();
        self.suffer()?;
        self.heal()?;
        let leader_after = self.elect()?;
        self.serve()?;
        self.come_to_rest()?;
        self.stay_quiet()?;
        self.has_its_shape()?;
        Ok(Summary {
            hash: self.trace.hash(),
            simulated: self.now().since(Time::ZERO),
            recorded: self.trace.recorded(),
            operations: self.clients.started(),
            writes: self.checks.history.writes(),
            reads: self.checks.history.reads(),
            elections: self.checks.elections.count(),
            counts: self.counts,
            traffic: self.network.traffic,
            leader_after,
        })
    }

    /// The time of faults; it lasts until a leader has crashed and the cluster was parted.
    fn suffer(&mut self) -> Verdict {
        self.run_until(Time::ZERO.after(self.plan.fault_time), |_| false)?;
        let patience = self.now().after(Duration::from_secs(120));
        self.run_until(patience, |world| world.counts.leader_crashes > 0 && world.counts.partitions > 0)?;
        Ok(())
    }

    /// I22: a leader whom all follow, within four election timeouts and what else has to happen:
    /// the disks catch up, and the messages travel.
    fn elect(&mut self) -> Result<Duration, Violation> {
        let healed_at = self.now();
        // Who would rather not lead, or could not for want of space, waits up to three times as long; and a
        // promise to the leader before must have run out.
        let waits = self.plan.has(FaultKind::DiskFull)
            || self.plan.priorities.iter().any(|priority| *priority != Priority::High);
        let timeouts = if waits { 12 } else { 4 } + u32::from(self.plan.leases.is_some());
        let limit = self.patience(timeouts);
        let limit = limit + limit / 1_000_000 * self.plan.drift_ppm() * 2;
        let elected = self.run_until(healed_at.after(limit), World::all_follow)?;
        ensure!(elected, Liveness, "{limit:?} after healing there is no leader whom all follow: {}", self.picture());
        Ok(self.now().since(healed_at))
    }

    fn patience(&self, timeouts: u32) -> Duration {
        let Plan { network, disk, process, .. } = &self.plan;
        let travel = network.delay_min + network.delay_mean + process.drain_mean;
        self.election_timeout_max() * timeouts + (travel + disk.sync_mean) * 40
    }

    fn all_follow(&self) -> bool {
        let Some((term, leader)) = self.leader() else { return false };
        // Those in the configuration in force: whoever is on its way out is told last, and who is on
        // its way in starts when that is committed.
        let Some(leads) = self.nodes[slot(leader)].status() else { return false };
        let there = |member: &Member| self.nodes[slot(member.node)].exists;
        leads.configuration.membership.members().filter(there).all(|member| {
            self.nodes[slot(member.node)].status().is_some_and(|status| {
                status.hard_state.term == term
                    && status.leader == Some(leader)
                    && (status.role == RoleKind::Follower || status.identity.node == leader)
            })
        })
    }

    /// I22: every client gets a write through, and the run its hundred operations.
    fn serve(&mut self) -> Verdict {
        let limit = Duration::from_secs(60);
        let served = self.run_until(self.now().after(limit), |world| {
            let done = world.checks.history.writes() + world.checks.history.reads();
            world.clients.all_wrote() && done >= OPERATIONS_MIN
        })?;
        ensure!(served, Liveness, "{limit:?} after healing clients are not served: {}", self.picture());
        Ok(())
    }

    /// I22: without new work everything pending ends, and all members have the same.
    fn come_to_rest(&mut self) -> Verdict {
        self.clients.stop();
        self.run_until(self.peace(), |_| false)?;
        let limit = Duration::from_secs(30);
        let rested = self.run_until(self.now().after(limit), |world| world.clients.are_idle() && world.is_at_rest())?;
        ensure!(
            rested,
            Liveness,
            "{limit:?} after the last operation the members have not converged: {}",
            self.picture()
        );
        self.at_end()
    }

    fn is_at_rest(&self) -> bool {
        let last = self.checks.commits.last();
        self.all_follow()
            && self.is_settled()
            && self.members().all(|node| {
                self.nodes[slot(node)].status().is_some_and(|status| {
                    let log = status.log;
                    log.last.index == last && log.commit == last && log.applied == last && log.durable == last
                }) && self.checks.history.is_idle(node)
            })
    }

    fn at_end(&self) -> Verdict {
        let members: Vec<_> = self.members().map(|node| &self.nodes[slot(node)]).collect();
        let statuses: Vec<_> = members.iter().filter_map(|node| node.status().cloned()).collect();
        let machines: Vec<_> = members.iter().map(|node| &node.machine).collect();
        self.checks.at_end(&statuses, &machines)
    }

    /// I22: a healthy cluster that is left alone keeps its leader, and its log.
    fn stay_quiet(&mut self) -> Verdict {
        let (before, last) = (self.leader(), self.checks.commits.last());
        // V7: whoever would rather not lead tries again and again to hand over, and may succeed late.
        let is_unwilling = before.is_some_and(|(_, node)| self.plan.priorities[slot(node)] == Priority::Never);
        let until = self.now().after(self.election_timeout_max() * 20);
        self.run_until(until, |_| false)?;
        ensure!(
            is_unwilling || (self.leader() == before && self.checks.commits.last() == last && self.is_at_rest()),
            Liveness,
            "left alone, the cluster went from leader {before:?} and log end {last} to {}",
            self.picture()
        );
        self.at_end()
    }

    fn has_its_shape(&self) -> Verdict {
        let done = self.checks.history.writes() + self.checks.history.reads();
        ensure!(
            self.plan.nodes >= 3
                && done >= OPERATIONS_MIN
                && self.counts.leader_crashes > 0
                && self.counts.partitions > 0,
            RunShape,
            "{} nodes, {done} operations, {} leader crashes, {} partitions",
            self.plan.nodes,
            self.counts.leader_crashes,
            self.counts.partitions
        );
        Ok(())
    }

    /// The cluster in one line, for a message.
    fn picture(&self) -> String {
        let configuration = self.checks.commits.configuration();
        let committed = format!("committed {} in {}; ", self.checks.commits.last(), configuration.membership);
        let nodes = self.nodes.iter().filter(|node| node.exists && !node.retired).map(|node| match node.status() {
            None => format!("{} down", node.id),
            Some(status) => {
                let log = status.log;
                format!(
                    "{}@{} {} in {} log={} durable={} commit={} applied={} {:?}",
                    node.id,
                    status.hard_state.term,
                    status.role,
                    status.configuration.membership,
                    log.last,
                    log.durable,
                    log.commit,
                    log.applied,
                    status.load
                )
            }
        });
        committed + &nodes.collect::<Vec<_>>().join("; ")
    }
}
