//! The nemesis: which fault strikes whom, and for how long.

use std::collections::BTreeMap;

use raft_core::{Event, NodeId, Time};

use crate::checks::Verdict;
use crate::network::Link;
use crate::plan::{FaultKind, SnapshotPlan};
use crate::rng::{CERTAIN, Rng};
use crate::world::{Happening, World};
use crate::{node_at, slot};

/// A generator for each kind of fault, so that none disturbs the draws of another.
#[derive(Debug)]
pub(crate) struct Nemesis {
    rngs: BTreeMap<FaultKind, Rng>,
    /// When the time of faults was over.
    calm: Option<Time>,
}

impl Nemesis {
    pub(crate) fn new(root: &Rng) -> Self {
        let rngs = FaultKind::ALL.into_iter().map(|kind| (kind, root.fork(&format!("nemesis/{kind:?}"))));
        Self { rngs: rngs.collect(), calm: None }
    }

    fn rng(&mut self, kind: FaultKind) -> &mut Rng {
        self.rngs.entry(kind).or_insert_with(|| Rng::from_seed(0))
    }
}

impl World {
    /// Plans the first episode of each kind in the mix, and the two faults that every run has.
    pub(crate) fn unleash(&mut self) {
        let mean = self.plan.episode_mean;
        for kind in FaultKind::EPISODES {
            if self.plan.has(kind) {
                let first = self.nemesis.rng(kind).exponential(mean);
                self.schedule.plan(Time::ZERO.after(first), Happening::Episode { kind });
            }
        }
        for kind in [FaultKind::LeaderCrash, FaultKind::Partition] {
            let rng = self.nemesis.rng(kind);
            let at = rng.duration(self.plan.timing.election_timeout_max * 4, self.plan.fault_time);
            self.schedule.plan(Time::ZERO.after(at), Happening::Required { kind });
        }
    }

    pub(crate) fn on_episode(&mut self, kind: FaultKind) -> Verdict {
        if self.is_calm() {
            return Ok(());
        }
        // What operators do they do more often than disaster strikes.
        let mean = match kind {
            FaultKind::Membership | FaultKind::Transfer | FaultKind::SnapshotRequest => self.plan.episode_mean / 3,
            _ => self.plan.episode_mean,
        };
        let rest = self.nemesis.rng(kind).exponential(mean);
        self.schedule.plan(self.now().after(rest), Happening::Episode { kind });
        self.strike(kind)
    }

    /// A fault that every run has strikes; a leader crash waits for a leader.
    pub(crate) fn on_required(&mut self, kind: FaultKind) -> Verdict {
        if self.is_calm() {
            return Ok(());
        }
        if kind == FaultKind::LeaderCrash && self.leader().is_none() {
            let retry_at = self.now().after(self.plan.timing.heartbeat_interval);
            self.schedule.plan(retry_at, Happening::Required { kind });
            return Ok(());
        }
        self.strike(kind)
    }

    /// Whether the time of faults is over.
    pub(crate) fn is_calm(&self) -> bool {
        self.nemesis.calm.is_some()
    }

    /// Whether a message from the time of faults comes so late that it would disturb the peace: an
    /// order to take over, for instance, counts as long as its term lasts.
    pub(crate) fn is_out_of_time(&self, sent: Time) -> bool {
        self.nemesis.calm.is_some_and(|healed| sent < healed) && self.now() > self.peace()
    }

    /// From then on nothing arrives that was sent in the time of faults.
    pub(crate) fn peace(&self) -> Time {
        let grace = self.plan.timing.election_timeout_max * 2;
        self.nemesis.calm.map_or(Time::ZERO, |healed| healed.after(grace))
    }

    /// A fault follows on something, unless all is healed by now.
    pub(crate) fn on_chained(&mut self, kind: FaultKind) -> Verdict {
        if self.is_calm() { Ok(()) } else { self.strike(kind) }
    }

    fn strike(&mut self, kind: FaultKind) -> Verdict {
        let now = self.now();
        self.trace.record(now, &[50, kind as u64], || format!("nemesis: {kind:?}"));
        match kind {
            FaultKind::Partition
            | FaultKind::LeaderIsolation
            | FaultKind::OneWayCut
            | FaultKind::PartialCut
            | FaultKind::Flapping => {
                self.strike_links(kind);
                Ok(())
            }
            FaultKind::Crash => {
                let node = self.any_node(kind);
                self.crash(node)
            }
            FaultKind::LeaderCrash => match self.leader() {
                Some((_, leader)) => self.crash(leader),
                None => Ok(()),
            },
            FaultKind::PowerLoss => {
                self.counts.other_faults += 1;
                (0..self.plan.nodes_max).map(node_at).try_for_each(|node| self.crash(node))
            }
            FaultKind::Pause => {
                self.pause();
                Ok(())
            }
            FaultKind::SlowDisk => {
                self.slow_disk();
                Ok(())
            }
            FaultKind::DiskFailure => {
                self.fail_disk();
                Ok(())
            }
            FaultKind::DiskStall => {
                self.stall_disk();
                Ok(())
            }
            FaultKind::DiskFull => {
                self.fill_disk();
                Ok(())
            }
            FaultKind::Membership => {
                self.change_membership();
                Ok(())
            }
            FaultKind::Transfer => {
                self.transfer_leadership();
                Ok(())
            }
            FaultKind::SnapshotRequest => {
                self.request_snapshot();
                Ok(())
            }
            FaultKind::DrainStall
            | FaultKind::Loss
            | FaultKind::DelaySpikes
            | FaultKind::Duplication
            | FaultKind::Reordering
            | FaultKind::EffectCrash
            | FaultKind::LateTimers
            | FaultKind::LogReadFailure
            | FaultKind::SnapshotLoss
            | FaultKind::SnapshotFailure => Ok(()),
        }
    }

    /// A cut that was planned begins, unless all is healed by now.
    pub(crate) fn on_cut(&mut self, links: &[Link]) {
        if !self.is_calm() {
            self.network.cut(links);
        }
    }

    /// Everybody who is there, running or not.
    fn existing(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|node| node.exists && !node.retired).map(|node| node.id).collect()
    }

    fn any_node(&mut self, kind: FaultKind) -> NodeId {
        let nodes = self.existing();
        *self.nemesis.rng(kind).pick(&nodes)
    }

    /// The leader, every second time and if there is one; otherwise any node.
    fn leader_or_any(&mut self, kind: FaultKind) -> NodeId {
        let any = self.any_node(kind);
        let wants_leader = self.nemesis.rng(kind).chance(CERTAIN / 2);
        self.leader().filter(|_| wants_leader).map_or(any, |(_, leader)| leader)
    }

    /// Cuts links of a shape, for at least an election timeout.
    fn strike_links(&mut self, kind: FaultKind) {
        let leader = self.leader().map(|(_, leader)| leader);
        let (all, timeout) = (self.existing(), self.plan.timing.election_timeout_max);
        let rng = self.nemesis.rng(kind);
        let any = *rng.pick(&all);
        let links = match kind {
            FaultKind::LeaderIsolation => between_sides(&all, |node| node == leader.unwrap_or(any)),
            FaultKind::OneWayCut => {
                let hears = rng.chance(CERTAIN / 2);
                let some = if rng.chance(CERTAIN / 2) { CERTAIN } else { CERTAIN / 2 };
                pairs(&all).filter(|(from, to)| any == if hears { *from } else { *to } && rng.chance(some)).collect()
            }
            FaultKind::PartialCut => {
                let undirected: Vec<Link> = pairs(&all).filter(|(from, to)| from < to).collect();
                let broken: Vec<Link> = undirected.into_iter().filter(|_| rng.chance(CERTAIN / 3)).collect();
                broken.into_iter().flat_map(|(from, to)| [(from, to), (to, from)]).collect()
            }
            FaultKind::Flapping => {
                let others: Vec<NodeId> = all.iter().copied().filter(|other| *other != any).collect();
                if others.is_empty() {
                    return;
                }
                let other = *rng.pick(&others);
                vec![(any, other), (other, any)]
            }
            _ => {
                // A proper part of the nodes: neither nobody nor everybody.
                let side = rng.between(1, (1 << all.len().max(2)) - 2);
                let place = |node| all.iter().position(|other| *other == node).unwrap_or_default();
                between_sides(&all, |node| side >> place(node) & 1 == 1)
            }
        };
        let lasting = timeout + rng.exponential(timeout * 4);
        let mut times = vec![(self.schedule.now(), lasting)];
        if kind == FaultKind::Flapping {
            let rng = self.nemesis.rng(kind);
            let period = rng.duration(timeout / 10, timeout * 3);
            let flaps = rng.between(3, 12) as u32;
            times = (0..flaps).map(|nth| (self.schedule.now().after(period * nth), period / 2)).collect();
        }
        self.counts.partitions += 1;
        for (at, lasting) in times {
            self.schedule.plan(at, Happening::Cut { links: links.clone() });
            self.schedule.plan(at.after(lasting), Happening::Lift { links: links.clone() });
        }
    }

    fn pause(&mut self) {
        let node = self.leader_or_any(FaultKind::Pause);
        let (min, max) = (self.plan.timing.election_timeout_min, self.plan.timing.election_timeout_max);
        let rng = self.nemesis.rng(FaultKind::Pause);
        // Every second pause is about as long as an election: the old leader wakes up before it
        // has to give up, and when another one may already have committed something.
        let lasting = if rng.chance(CERTAIN / 2) { rng.duration(min, max + min / 4) } else { rng.exponential(max * 2) };
        let until = self.now().after(lasting);
        self.counts.pauses += 1;
        let node = &mut self.nodes[slot(node)];
        node.paused_until = node.paused_until.max(until);
    }

    fn slow_disk(&mut self) {
        let id = self.leader_or_any(FaultKind::SlowDisk);
        let timeout = self.plan.timing.election_timeout_max;
        let rng = self.nemesis.rng(FaultKind::SlowDisk);
        let factor = rng.between(10, 300) as u32;
        let recovered_at = self.schedule.now().after(timeout + rng.exponential(timeout * 8));
        self.counts.other_faults += 1;
        self.nodes[slot(id)].disk_factor = factor;
        self.schedule.plan(recovered_at, Happening::DiskRecovered { node: id });
    }

    /// No sync ends for a while, whose length has to do with how long a leader puts up with it.
    fn stall_disk(&mut self) {
        let id = self.leader_or_any(FaultKind::DiskStall);
        let (limit, timeout) = (self.plan.timing.stall_limit, self.plan.timing.election_timeout_max);
        let rng = self.nemesis.rng(FaultKind::DiskStall);
        let longest = limit.min(timeout * 8);
        let until = self.schedule.now().after(longest / 2 + rng.exponential(longest));
        self.counts.disk_stalls += 1;
        let node = &mut self.nodes[slot(id)];
        node.disk_stalled_until = node.disk_stalled_until.max(until);
    }

    /// One disk is full; or they all are, since they have the same size and hold the same.
    fn fill_disk(&mut self) {
        let one = self.leader_or_any(FaultKind::DiskFull);
        let (everybody, timeout) = (self.existing(), self.plan.timing.election_timeout_max);
        let rng = self.nemesis.rng(FaultKind::DiskFull);
        let full = if rng.chance(CERTAIN / 5) { everybody } else { vec![one] };
        for id in full {
            let lasting = self.nemesis.rng(FaultKind::DiskFull).exponential(timeout * 6);
            let at = self.schedule.now().after(lasting);
            self.counts.disks_full += 1;
            self.nodes[slot(id)].disk_full = true;
            self.give(id, Event::StorageFull);
            self.schedule.plan(at, Happening::SpaceAgain { node: id });
        }
    }

    fn fail_disk(&mut self) {
        let id = self.leader_or_any(FaultKind::DiskFailure);
        if self.nodes[slot(id)].process.is_none() {
            return;
        }
        self.counts.other_faults += 1;
        self.disks[slot(id)].fail();
        self.give(id, Event::StorageFailed);
        let timeout = self.plan.timing.election_timeout_max;
        let replaced_at = self.now().after(self.nemesis.rng(FaultKind::DiskFailure).exponential(timeout * 4));
        self.schedule.plan(replaced_at, Happening::Replace { node: id, life: self.nodes[slot(id)].life });
    }

    /// Ends all faults: links work, disks are fast, whoever paused goes on, whoever is down starts.
    pub(crate) fn heal(&mut self) -> Verdict {
        let now = self.now();
        self.trace.record(now, &[51], || "nemesis: everything is healed");
        self.nemesis.calm = Some(now);
        self.network.heal();
        self.clients.heal();
        self.plan.process.effect_crashes = 0;
        self.plan.process.stalls = 0;
        self.plan.process.timer_lag_mean = std::time::Duration::ZERO;
        // A state machine slower than its clients are eager never catches up, whoever leads.
        let quick = self.plan.timing.heartbeat_interval / 50;
        self.plan.process.apply_mean = self.plan.process.apply_mean.min(quick);
        self.plan.disk.spikes = 0;
        self.plan.disk.read_failures = 0;
        self.plan.snapshots = SnapshotPlan { losses: 0, failures: 0, offers: 0, ..self.plan.snapshots };
        for place in 0..self.plan.nodes_max {
            let id = node_at(place);
            if self.disks[place].has_failed() {
                self.crash(id)?;
            }
            self.nodes[place].disk_factor = 1;
            self.nodes[place].disk_stalled_until = now;
            self.schedule.plan(now, Happening::SpaceAgain { node: id });
            self.wake(id);
            self.start(id)?;
        }
        Ok(())
    }
}

/// All links.
fn pairs(nodes: &[NodeId]) -> impl Iterator<Item = Link> {
    nodes.iter().flat_map(move |from| nodes.iter().map(move |to| (*from, *to))).filter(|(from, to)| from != to)
}

/// The links between those inside and those outside, both ways.
fn between_sides(nodes: &[NodeId], inside: impl Fn(NodeId) -> bool) -> Vec<Link> {
    pairs(nodes).filter(|(from, to)| inside(*from) != inside(*to)).collect()
}
