//! The operator: who changes the membership, hands leadership over and asks for snapshots; and
//! what happens to nodes that join or are removed.

use raft_core::{Change, Configuration, Event, Index, Membership, NodeId, Outcome, RequestId, RoleKind, StoreId, Time};

use crate::checks::Verdict;
use crate::checks::history::Errand;
use crate::disk::Disk;
use crate::plan::FaultKind;
use crate::rng::{CERTAIN, Rng};
use crate::slot;
use crate::world::{Happening, World};

/// What the operator remembers.
#[derive(Debug)]
pub(crate) struct Operator {
    rng: Rng,
    /// Stores that were handed out.
    stores: u128,
    /// The stores that it wanted to add and may want to add again.
    wanted: Vec<StoreId>,
    /// Committed configurations that it has acted upon.
    seen: usize,
}

impl Operator {
    pub(crate) fn new(rng: &Rng, founders: usize) -> Self {
        Self { rng: rng.fork("operator"), stores: founders as u128, wanted: Vec::new(), seen: 1 }
    }
}

impl World {
    /// The store with this number; no two share one.
    pub(crate) fn store(seed: u64, nth: u128) -> StoreId {
        StoreId::new((u128::from(seed) << 64) | (nth + 1))
    }

    /// The operator looks at the configuration of the leader, and wants another one.
    pub(crate) fn change_membership(&mut self) {
        let Some((_, leader)) = self.leader() else { return };
        let Some(status) = self.nodes[slot(leader)].status() else { return };
        let Configuration { index, membership } = status.configuration.clone();
        let changes = self.draw_changes(&membership);
        if changes.is_empty() {
            return;
        }
        let rng = &mut self.operator.rng;
        // Now and then the operator has looked long ago, or asks whoever it knows.
        let expected = if rng.chance(CERTAIN / 10) { index.prev() } else { index };
        let somebody = crate::node_at(rng.below(self.plan.nodes as u64) as usize);
        let asks_anybody = rng.chance(CERTAIN / 10);
        let asks_both = rng.chance(CERTAIN / 10);
        let (first, second) = if asks_anybody { (somebody, leader) } else { (leader, somebody) };
        self.ask_for_change(first, expected, &changes);
        if asks_both {
            self.ask_for_change(second, expected, &changes);
        }
        // Chained: something befalls the leader just when it has the new configuration.
        let rng = &mut self.operator.rng;
        if rng.chance(CERTAIN / 3) {
            let kinds = [FaultKind::LeaderCrash, FaultKind::LeaderIsolation, FaultKind::Partition, FaultKind::Transfer];
            let kind = *rng.pick(&kinds);
            let at = self.schedule.now().after(rng.exponential(self.plan.timing.heartbeat_interval / 2));
            self.schedule.plan(at, Happening::Chained { kind });
        }
    }

    fn ask_for_change(&mut self, to: NodeId, expected: Index, changes: &[Change]) {
        let store = match changes {
            [Change::AddLearner { store, .. }] => Some(*store),
            _ => None,
        };
        let changes = changes.to_vec();
        self.ask(to, Errand::Change { store }, |request| Event::ChangeMembership { request, expected, changes });
    }

    /// A few changes that could be made; some of them cannot, which has to be noticed.
    fn draw_changes(&mut self, membership: &Membership) -> Vec<Change> {
        let (seed, nodes_max) = (self.plan.seed, self.plan.nodes_max as u64);
        let (nodes, disks) = (&self.nodes, &self.disks);
        let was_member = |store| nodes.iter().zip(disks).any(|(node, disk)| node.exists && disk.store() == store);
        let Operator { rng, stores, wanted, .. } = &mut self.operator;
        let mut left: Vec<NodeId> = membership.voters().iter().map(|voter| voter.node).collect();
        let mut learners: Vec<NodeId> = membership.learners().iter().map(|learner| learner.member.node).collect();
        let mut next_id = membership.next_id();
        let mut changes = Vec::new();
        // More than one makes it joint, if they concern voters.
        let count = *rng.pick(&[1, 1, 1, 2, 2, 3, 4]);
        for _ in 0..count {
            // Fewer than three voters are allowed, but seldom: they wait for each other all the time.
            let may_shrink = left.len() > 3 || (left.len() > 1 && rng.chance(CERTAIN / 5));
            match rng.below(6) {
                0 | 1 if next_id <= nodes_max => {
                    let again = wanted.pop().filter(|_| rng.chance(CERTAIN / 2));
                    if let Some(store) = again.filter(|store| membership.member_by_store(*store).is_some()) {
                        // The answer to the first attempt may have been lost.
                        return vec![Change::AddLearner { store, promote: true }];
                    }
                    // Once removed, a store never comes back.
                    let again = again.filter(|store| !was_member(*store));
                    let store = again.unwrap_or_else(|| {
                        *stores += 1;
                        Self::store(seed, *stores)
                    });
                    if rng.chance(CERTAIN / 2) {
                        wanted.push(store);
                    }
                    next_id += 1;
                    changes.push(Change::AddLearner { store, promote: rng.chance(CERTAIN * 4 / 5) });
                }
                2 if !learners.is_empty() => {
                    let node = learners.swap_remove(rng.below(learners.len() as u64) as usize);
                    changes.push(Change::Promote { node });
                    left.push(node);
                }
                3 if may_shrink => {
                    let node = left.swap_remove(rng.below(left.len() as u64) as usize);
                    changes.push(Change::Demote { node });
                }
                4 if may_shrink => {
                    let node = left.swap_remove(rng.below(left.len() as u64) as usize);
                    changes.push(Change::Remove { node });
                }
                5 if !learners.is_empty() && rng.chance(CERTAIN / 3) => {
                    let node = learners.swap_remove(rng.below(learners.len() as u64) as usize);
                    changes.push(Change::Remove { node });
                }
                _ => {}
            }
        }
        changes
    }

    /// Leadership is to pass to somebody, or to whoever is best.
    pub(crate) fn transfer_leadership(&mut self) {
        let Some((_, leader)) = self.leader() else { return };
        let Some(status) = self.nodes[slot(leader)].status() else { return };
        let members: Vec<NodeId> = status.configuration.membership.members().map(|member| member.node).collect();
        let rng = &mut self.operator.rng;
        let to = if members.is_empty() || rng.chance(CERTAIN / 3) { None } else { Some(*rng.pick(&members)) };
        self.ask(leader, Errand::Transfer, |request| Event::TransferLeadership { request, to });
    }

    /// Some node is to take a snapshot.
    pub(crate) fn request_snapshot(&mut self) {
        let node = crate::node_at(self.operator.rng.below(self.plan.nodes_max as u64) as usize);
        let applied = self.nodes[slot(node)].status().map_or(Index::ZERO, |status| status.log.applied);
        self.ask(node, Errand::Snapshot { applied }, |request| Event::RequestSnapshot { request });
    }

    fn ask(&mut self, to: NodeId, errand: Errand, event: impl FnOnce(RequestId) -> Event) {
        if self.nodes[slot(to)].process.is_some() {
            let request = self.checks.history.begin_errand(to, errand);
            self.give(to, event(request));
        }
    }

    /// The operator hears how an errand ended.
    pub(crate) fn on_errand_ended(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Transferred { .. } => self.counts.transfers += 1,
            Outcome::NotChanged(_) => self.counts.changes_refused += 1,
            Outcome::ReadReady { .. }
            | Outcome::NotLeader { .. }
            | Outcome::Busy(_)
            | Outcome::Unknown { .. }
            | Outcome::StorageFailed
            | Outcome::Changed { .. }
            | Outcome::NotTransferred(_)
            | Outcome::SnapshotTaken { .. }
            | Outcome::SnapshotFailed => {}
        }
    }

    /// Whoever is in a committed configuration and has no store gets one, and is started; whoever
    /// is no longer in it may be stopped for good.
    pub(crate) fn on_configurations(&mut self) {
        while self.operator.seen < self.checks.commits.configurations().len() {
            let Configuration { membership, .. } = self.checks.commits.configurations()[self.operator.seen].clone();
            self.operator.seen += 1;
            self.counts.changes += 1;
            for member in membership.members() {
                let node = &mut self.nodes[slot(member.node)];
                if !node.exists {
                    node.exists = true;
                    self.clients.meet(slot(member.node) + 1);
                    self.disks[slot(member.node)] =
                        Disk::format(member.node, member.store, Membership::default().into());
                    let wait = self.operator.rng.exponential(self.plan.process.downtime_mean / 2);
                    let at = if self.is_calm() { self.now() } else { self.now().after(wait) };
                    self.schedule.plan(at, Happening::Restart { node: member.node });
                }
            }
            let gone: Vec<NodeId> = self
                .nodes
                .iter()
                .filter(|node| node.exists && !node.retired && membership.member(node.id).is_none())
                .map(|node| node.id)
                .collect();
            for node in gone {
                // The others linger, and do not always know that they are out.
                if self.operator.rng.chance(CERTAIN / 4) {
                    let wait = self.operator.rng.exponential(self.plan.timing.election_timeout_max);
                    let at: Time = self.now().after(wait);
                    self.schedule.plan(at, Happening::Retire { node });
                }
            }
        }
    }

    /// A removed node is stopped for good.
    pub(crate) fn retire(&mut self, id: NodeId) -> Verdict {
        self.nodes[slot(id)].retired = true;
        self.crash(id)
    }

    /// Who has to be well in the end: the members by the newest committed configuration.
    pub(crate) fn members(&self) -> impl Iterator<Item = NodeId> {
        self.checks.commits.configuration().membership.members().map(|member| member.node)
    }

    /// Whether no change of the membership is under way or due.
    pub(crate) fn is_settled(&self) -> bool {
        let configuration = self.checks.commits.configuration();
        // Where all votes are taken, a learner waits.
        let is_full = configuration.membership.voters().len() >= Membership::VOTERS_MAX;
        let is_due = !is_full && configuration.membership.learners().iter().any(|learner| learner.promote);
        !is_due
            && !configuration.membership.is_joint()
            && self.members().all(|node| {
                self.nodes[slot(node)].status().is_some_and(|status| {
                    status.configuration.membership == configuration.membership
                        && (status.role != RoleKind::Leader || status.transfer.is_none())
                })
            })
    }
}
