//! The network: what becomes of a message between its sender and its receiver.

use std::time::Duration;

use raft_core::{NodeId, Time};

use crate::plan::NetworkPlan;
use crate::rng::{Ppm, Rng};
use crate::slot;

/// One direction between two nodes.
pub(crate) type Link = (NodeId, NodeId);

/// All links of the cluster.
///
/// Invariant: `cuts` counts the faults that cut a link now, so overlapping cuts are lifted one by
/// one and the link works again after the last.
#[derive(Debug)]
pub(crate) struct Network {
    nodes: usize,
    plan: NetworkPlan,
    cuts: Vec<u32>,
    newest_arrival: Vec<Time>,
    loss: Rng,
    delay: Rng,
    duplication: Rng,
    notice: Rng,
    pub(crate) traffic: Traffic,
}

/// What went over the network, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that a core asked to send.
    pub sent: u64,
    /// Those that never arrived.
    pub lost: u64,
    /// Those that arrived twice.
    pub duplicated: u64,
    /// Those that arrived before one that was sent earlier on the same link.
    pub reordered: u64,
}

/// When a message arrives: never, once or twice; and when its sender hears that it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Transit {
    pub(crate) arrival: Option<Time>,
    pub(crate) duplicate: Option<Time>,
    pub(crate) notice: Option<Time>,
}

impl Network {
    pub(crate) fn new(nodes: usize, plan: NetworkPlan, rng: &Rng) -> Self {
        Self {
            nodes,
            plan,
            cuts: vec![0; nodes * nodes],
            newest_arrival: vec![Time::ZERO; nodes * nodes],
            loss: rng.fork("network/loss"),
            delay: rng.fork("network/delay"),
            duplication: rng.fork("network/duplication"),
            notice: rng.fork("network/notice"),
            traffic: Traffic::default(),
        }
    }

    fn place(&self, (from, to): Link) -> usize {
        slot(from) * self.nodes + slot(to)
    }

    /// Whether nothing gets through.
    pub(crate) fn is_cut(&self, link: Link) -> bool {
        self.cuts[self.place(link)] > 0
    }

    /// Decides the fate of a message that is sent now.
    pub(crate) fn send(&mut self, now: Time, link: Link) -> Transit {
        self.traffic.sent += 1;
        if self.is_cut(link) || self.loss.chance(self.plan.loss) {
            return self.lose(now);
        }
        let mut arrival = now.after(self.delay());
        let place = self.place(link);
        let newest = self.newest_arrival[place];
        if arrival < newest {
            if self.plan.reorder {
                self.traffic.reordered += 1;
            } else {
                arrival = newest;
            }
        }
        self.newest_arrival[place] = newest.max(arrival);
        let duplicate = self.duplication.chance(self.plan.duplication).then(|| {
            self.traffic.duplicated += 1;
            // Some copies are only late, some come back from another age.
            let age = if self.duplication.chance(100_000) { 100 } else { 2 };
            arrival.after(self.duplication.exponential(self.plan.delay_mean * age))
        });
        Transit { arrival: Some(arrival), duplicate, notice: None }
    }

    /// Counts a message as lost, and tells when its sender hears of it, if at all.
    pub(crate) fn lose(&mut self, now: Time) -> Transit {
        self.traffic.lost += 1;
        Transit { notice: self.notice(now), ..Transit::default() }
    }

    /// When somebody hears that a channel broke, if at all.
    pub(crate) fn notice(&mut self, now: Time) -> Option<Time> {
        let mean = self.plan.delay_mean * 3;
        self.notice.chance(self.plan.notice).then(|| now.after(self.notice.exponential(mean)))
    }

    /// How many messages vanish.
    pub(crate) fn loss(&self) -> Ppm {
        self.plan.loss
    }

    /// How long one message takes.
    pub(crate) fn delay(&mut self) -> Duration {
        let mean = if self.delay.chance(self.plan.spikes) { self.plan.spike_mean } else { self.plan.delay_mean };
        self.plan.delay_min + self.delay.exponential(mean)
    }

    /// Cuts links; each cut must be lifted once.
    pub(crate) fn cut(&mut self, links: &[Link]) {
        for link in links {
            let place = self.place(*link);
            self.cuts[place] += 1;
        }
    }

    /// Lifts a cut, unless healing has done so.
    pub(crate) fn lift(&mut self, links: &[Link]) {
        for link in links {
            let place = self.place(*link);
            self.cuts[place] = self.cuts[place].saturating_sub(1);
        }
    }

    /// From now on nothing is lost, doubled, late or cut.
    pub(crate) fn heal(&mut self) {
        self.cuts.fill(0);
        // New messages do not queue behind one that was late before.
        self.newest_arrival.fill(Time::ZERO);
        self.plan = self.plan.healed();
    }
}
