//! Commits: I4 leader completeness, I5 and I7 one committed log for good, I6 on a durable quorum.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft_core::{Configuration, Effect, Index, Membership, NodeId, Position, RoleKind, Term};

use super::logs::{Logs, Mirrored};
use super::majorities::{decides, in_force};
use super::{Step, Verdict, Violation, ensure};
use crate::disk::Disk;
use crate::slot;

/// The one committed log, as first seen committed anywhere.
#[derive(Debug)]
pub struct Commits {
    log: Vec<Mirrored>,
    /// The configurations in it, the one of the founders first.
    configurations: Vec<Configuration>,
    /// Who had to agree to the newest commit.
    decided_by: Arc<Membership>,
    /// How far leaders of each term have committed.
    by_term: BTreeMap<Term, Index>,
    /// The digests of each leader's log at its election.
    elected: BTreeMap<Term, Vec<u64>>,
}

impl Commits {
    /// Nothing is committed.
    pub fn new(founders: Arc<Membership>) -> Self {
        Self {
            log: Vec::new(),
            configurations: vec![Configuration { index: Index::ZERO, membership: founders.clone() }],
            decided_by: founders,
            by_term: BTreeMap::new(),
            elected: BTreeMap::new(),
        }
    }

    /// How far anything is committed.
    pub fn last(&self) -> Index {
        Index::new(self.log.len() as u64)
    }

    /// The committed log; index `i` is at place `i - 1`.
    pub fn log(&self) -> &[Mirrored] {
        &self.log
    }

    /// The committed log up to `index`.
    pub fn log_through(&self, index: Index) -> &[Mirrored] {
        &self.log[..self.log.len().min(index.as_u64() as usize)]
    }

    /// Whether this entry is committed.
    pub fn holds(&self, position: Position) -> bool {
        self.position_at(position.index) == Some(position)
    }

    /// The committed entry at `index`; `0@0` at 0.
    pub fn position_at(&self, index: Index) -> Option<Position> {
        (index <= self.last()).then(|| self.position(index))
    }

    /// The configuration in force at a committed `index`.
    pub fn configuration_at(&self, index: Index) -> &Configuration {
        let later = self.configurations.partition_point(|configuration| configuration.index <= index);
        &self.configurations[later.max(1) - 1]
    }

    /// All committed configurations, the oldest first.
    pub fn configurations(&self) -> &[Configuration] {
        &self.configurations
    }

    /// The newest committed configuration.
    pub fn configuration(&self) -> &Configuration {
        self.configuration_at(self.last())
    }

    /// The digest of the committed log up to `index`; 0 at index 0.
    pub fn digest_at(&self, index: Index) -> Option<u64> {
        match index.as_u64() {
            0 => Some(0),
            nth => self.log.get(nth as usize - 1).map(|entry| entry.digest),
        }
    }

    /// How much of the committed log a node holds.
    pub(super) fn held_by(&self, node: NodeId, logs: &Logs) -> Index {
        let log = logs.of(node);
        let mut length = log.len().min(self.log.len());
        // Only an uncommitted end can differ, and it is short.
        while length > 0 && log[length - 1].digest != self.log[length - 1].digest {
            length -= 1;
        }
        Index::new(length as u64)
    }

    /// Nobody overwrites what is committed.
    pub(super) fn on_persists(&self, step: &Step<'_>, held: Index, logs: &Logs) -> Verdict {
        let node = step.node;
        for effect in step.effects {
            let Effect::Persist { entries, .. } = effect else { continue };
            let Some(first) = entries.first() else { continue };
            ensure!(
                first.index > step.before.log.commit,
                CommittedForGood,
                "{node} overwrites its log from {} on, having said that {} is committed",
                first.position(),
                step.before.log.commit
            );
        }
        ensure!(
            logs.digest_at(node, held) == self.digest_at(held),
            CommittedForGood,
            "{node} held the committed log up to {held} and has overwritten a part of it; its log ends at {}",
            logs.last(node)
        );
        Ok(())
    }

    /// I4: a new leader holds everything that was committed in earlier terms.
    pub(super) fn on_elected(&mut self, node: NodeId, term: Term, logs: &Logs) -> Verdict {
        let committed = self.by_term.range(..term).map(|(_, index)| *index).max().unwrap_or(Index::ZERO);
        ensure!(
            logs.digest_at(node, committed) == self.digest_at(committed),
            LeaderCompleteness,
            "{node} became leader of term {term} with a log that ends at {}; the committed entry {} is not in it",
            logs.last(node),
            self.position(committed)
        );
        self.elected.insert(term, logs.of(node).iter().map(|entry| entry.digest).collect());
        Ok(())
    }

    fn position(&self, index: Index) -> Position {
        let term = index.as_u64().checked_sub(1).and_then(|place| self.log.get(place as usize)).map(|entry| entry.term);
        Position::new(index, term.unwrap_or_default())
    }

    /// Judges a commit index that has risen; returns what is newly committed.
    pub(super) fn on_step(&mut self, step: &Step<'_>, logs: &Logs) -> Result<Vec<(Position, Mirrored)>, Violation> {
        let (node, commit) = (step.node, step.after.log.commit);
        if commit <= step.before.log.commit {
            return Ok(Vec::new());
        }
        let Some(digest) = logs.digest_at(node, commit) else {
            ensure!(false, Ordering, "{node} says that {commit} is committed; its log ends at {}", logs.last(node));
            return Ok(Vec::new());
        };
        // A removed leader steps down with the commit that removes it, and any leader may be deposed
        // in the batch in which it commits.
        let (was_leader, is_leader) = (step.before.role == RoleKind::Leader, step.after.role == RoleKind::Leader);
        let same_term = step.after.hard_state.term == step.before.hard_state.term;
        let term = if is_leader { step.after.hard_state.term } else { step.before.hard_state.term };
        let leads = is_leader || was_leader;
        if was_leader && same_term {
            self.on_quorum(step, (commit, digest), term, logs)?;
        }
        if let Some(known) = self.digest_at(commit) {
            ensure!(
                known == digest,
                StateMachineSafety,
                "{node} says that its log is committed up to {commit}, but another log is: {} there",
                self.position(commit)
            );
            return Ok(Vec::new());
        }
        ensure!(
            leads,
            CommitOnQuorum,
            "{node} is {} and says that {commit} is committed; nobody has committed beyond {}",
            step.after.role,
            self.last()
        );
        self.decided_by = self.on_quorum(step, (commit, digest), term, logs)?;
        ensure!(
            logs.digest_at(node, self.last()) == self.digest_at(self.last()),
            CommittedForGood,
            "{node} commits {commit} on top of another log than the committed one, which ends at {}",
            self.position(self.last())
        );
        let first_new = self.log.len();
        self.log.extend_from_slice(&logs.of(node)[first_new..commit.as_u64() as usize]);
        let set = logs.configurations(node).iter();
        let new = set.filter(|set| set.index.as_u64() > first_new as u64 && set.index <= commit).cloned();
        self.configurations.extend(new);
        self.by_term.insert(term, commit);
        self.later_leaders_hold(term, commit, digest)?;
        Ok((first_new..self.log.len())
            .map(|place| (self.position(Index::new(place as u64 + 1)), self.log[place]))
            .collect())
    }

    /// I6: §5.4.2 – a leader commits by counting only entries of its own term, and counts disks.
    /// Which configuration that was: the one in force now, or the one before, if this step has left it.
    fn on_quorum(
        &self,
        step: &Step<'_>,
        (commit, digest): (Index, u64),
        term: Term,
        logs: &Logs,
    ) -> Result<Arc<Membership>, Violation> {
        let node = step.node;
        let at_commit = logs.of(node)[commit.as_u64() as usize - 1];
        ensure!(
            at_commit.term == term,
            CommitOnQuorum,
            "{node}, leader of term {term}, committed {commit}@{} by counting",
            at_commit.term
        );
        let holds = |node| step.disks[slot(node)].holds(commit, digest);
        if let Some(membership) = in_force(step).rev().take(2).find(|membership| decides(membership, holds)) {
            return Ok(membership.clone());
        }
        let membership = &step.after.configuration.membership;
        ensure!(
            false,
            CommitOnQuorum,
            "{node}, leader of term {term}, committed {commit}@{term}, which in {membership} only the disks of {:?} hold",
            membership.members().map(|member| member.node).filter(|node| holds(*node)).collect::<Vec<_>>()
        );
        Ok(membership.clone())
    }

    /// I4 from the other side: a commit that comes late must already be in the logs of the
    /// leaders that were elected meanwhile.
    fn later_leaders_hold(&self, term: Term, commit: Index, digest: u64) -> Verdict {
        for (later, log) in self.elected.range(term.next()..) {
            let held = log.get(commit.as_u64() as usize - 1) == Some(&digest);
            ensure!(
                held,
                LeaderCompleteness,
                "{commit} was committed in term {term} after the leader of term {later} was elected without it"
            );
        }
        Ok(())
    }

    /// I7: whatever a crash leaves, a majority of disks holds everything committed.
    pub(super) fn on_disks(&self, disks: &[Disk]) -> Verdict {
        let last = self.last();
        let digest = self.digest_at(last).unwrap_or_default();
        ensure!(
            decides(&self.decided_by, |node| disks[slot(node)].holds(last, digest)),
            CommittedForGood,
            "after a crash less than a majority of {} has the committed {} on disk",
            self.decided_by,
            self.position(last)
        );
        Ok(())
    }

    /// At the end, a node's log is the committed one.
    pub(super) fn holds_all(&self, node: NodeId, logs: &Logs) -> Verdict {
        ensure!(
            logs.last(node).index == self.last() && logs.digest_at(node, self.last()) == self.digest_at(self.last()),
            Liveness,
            "the log of {node} ends at {}, the committed one at {}",
            logs.last(node),
            self.position(self.last())
        );
        Ok(())
    }
}
