//! Durability: I11 durable before sent, I8 durable terms rise, and what a failed disk forbids.

use raft_core::{Effect, HardState, Index, NodeId, RoleKind, Rpc, Term, Verdict as Vote};

use super::elections::Elections;
use super::logs::Logs;
use super::{Step, Verdict, ensure};
use crate::disk::Disk;
use crate::slot;

/// Compares what nodes promise with what their disks hold at that moment.
#[derive(Debug)]
pub struct Durability {
    /// Term and vote as last seen on each disk.
    seen: Vec<HardState>,
    /// Term and vote as last asked to be written by each process.
    asked: Vec<HardState>,
    /// Whether the process was told that its disk has failed.
    failed: Vec<bool>,
    /// Who led which term when its acknowledgements were judged: (node, term) of each node now.
    leading: Vec<Option<Term>>,
}

impl Durability {
    /// Nothing is on the disks.
    pub fn new(nodes: usize) -> Self {
        Self {
            seen: vec![HardState::default(); nodes],
            asked: vec![HardState::default(); nodes],
            failed: vec![false; nodes],
            leading: vec![None; nodes],
        }
    }

    /// Judges the writes and the messages of a step.
    pub(super) fn on_step(&mut self, step: &Step<'_>, logs: &Logs, elections: &Elections) -> Verdict {
        let node = step.node;
        let disk = &step.disks[slot(node)];
        self.leading[slot(node)] = (step.after.role == RoleKind::Leader).then_some(step.after.hard_state.term);
        for effect in step.effects {
            match effect {
                Effect::Persist { hard_state, entries, .. } => {
                    if let Some(new) = hard_state {
                        successor(node, self.asked[slot(node)], **new, "writes")?;
                        self.asked[slot(node)] = **new;
                    }
                    let term = self.asked[slot(node)].term;
                    ensure!(
                        entries.last().is_none_or(|last| last.term <= term),
                        TermMonotonic,
                        "{node} writes {entries} before the term of the last one; its disk will only know term {term}"
                    );
                }
                Effect::Send { to, rpc } => {
                    if let Rpc::AppendReply { term, .. } = rpc {
                        ensure!(
                            *term == step.after.hard_state.term,
                            Provenance,
                            "{node} acknowledges entries in term {term}, which is over: it is in term {} (contract D4)",
                            step.after.hard_state.term
                        );
                    }
                    self.on_send(step, *to, rpc, logs, elections)?;
                }
                Effect::ReadLog { from, through, .. } => {
                    let end = disk.last().index;
                    ensure!(
                        from <= through && *from <= end,
                        DurableBeforeSend,
                        "{node} wants to read entries {from} to {through} back, but its disk ends at {end}"
                    );
                }
                Effect::Apply { .. }
                | Effect::Reply { .. }
                | Effect::TakeSnapshot { .. }
                | Effect::SendSnapshot { .. }
                | Effect::InstallSnapshot { .. }
                | Effect::Compact { .. }
                | Effect::Configured { .. }
                | Effect::Observe(_) => {}
            }
        }
        // What was answered before the bad news in the same batch may still leave.
        self.failed[slot(node)] |= step.inbox.storage_failed;
        let durable = step.after.log.durable;
        let is_installing =
            disk.is_installing() || step.effects.iter().any(|effect| matches!(effect, Effect::InstallSnapshot { .. }));
        if is_installing {
            // The new log is not there before the snapshot is, and the old one counts no more.
            ensure!(
                durable == step.after.log.base.index,
                DurableBeforeSend,
                "{node} believes its log to be durable up to {durable}, but a snapshot is about to replace it"
            );
            return Ok(());
        }
        ensure!(
            logs.digest_at(node, durable).is_some_and(|digest| disk.holds(durable, digest)),
            DurableBeforeSend,
            "{node} believes its log to be durable up to {durable}; its disk ends at {}",
            disk.last()
        );
        Ok(())
    }

    fn on_send(&self, step: &Step<'_>, to: NodeId, rpc: &Rpc, logs: &Logs, elections: &Elections) -> Verdict {
        let (node, now, disk) = (step.node, step.after.hard_state.term, &step.disks[slot(step.node)]);
        ensure!(
            !self.failed[slot(node)] || !is_about_elections(rpc),
            DurableBeforeSend,
            "{node} takes part in elections after its disk has failed: {rpc}"
        );
        match rpc {
            Rpc::Vote { term, .. } => promised(node, *term, node, disk, "asks for votes"),
            Rpc::VoteReply { term, verdict: Vote::Granted } => promised(node, *term, to, disk, "sends its vote"),
            Rpc::AppendReply { term, matched, .. } => {
                acknowledged(node, (*term, now), *matched, disk, logs)?;
                self.agrees(node, to, (*term, now), *matched, logs, elections)
            }
            Rpc::HeartbeatReply { term, matched, verified, .. } => {
                acknowledged(node, (*term, now), *matched, disk, logs)?;
                self.agrees(node, to, (*term, now), *verified.max(matched), logs, elections)
            }
            Rpc::Append(_)
            | Rpc::Heartbeat { .. }
            | Rpc::CommitNotice { .. }
            | Rpc::PreVote { .. }
            | Rpc::PreVoteReply { .. }
            | Rpc::VoteReply { .. }
            | Rpc::AppendRejected(_)
            | Rpc::TimeoutNow { .. }
            | Rpc::Resigned { .. }
            | Rpc::InstallSnapshot(_)
            | Rpc::SnapshotStatus { .. }
            | Rpc::Regressed { .. }
            | Rpc::ReadIndex { .. }
            | Rpc::ReadIndexReply { .. }
            | Rpc::TermOver { .. } => Ok(()),
        }
    }

    /// I3 at its root: a follower never claims a match that its leader's log does not have. Once
    /// the leader is deposed its log may have changed, and nobody counts the claim.
    fn agrees(
        &self,
        node: NodeId,
        to: NodeId,
        (term, now): (Term, Term),
        matched: Index,
        logs: &Logs,
        elections: &Elections,
    ) -> Verdict {
        if term < now || elections.leader(term) != Some(to) || self.leading[slot(to)] != Some(term) {
            return Ok(());
        }
        ensure!(
            logs.digest_at(node, matched).is_some() && logs.digest_at(node, matched) == logs.digest_at(to, matched),
            LogMatching,
            "{node} claims to match {to}, leader of term {term}, up to {matched}; their logs end at {} and {}",
            logs.last(node),
            logs.last(to)
        );
        Ok(())
    }

    /// Term and vote on a disk have changed, or were read at a start.
    pub(super) fn on_disk(&mut self, node: NodeId, disk: &Disk) -> Verdict {
        successor(node, self.seen[slot(node)], disk.hard_state(), "has on its disk")?;
        self.seen[slot(node)] = disk.hard_state();
        Ok(())
    }

    /// A process starts: what the one before asked for and lost is not there.
    pub(super) fn on_start(&mut self, node: NodeId, disk: &Disk) -> Verdict {
        self.asked[slot(node)] = disk.hard_state();
        self.failed[slot(node)] = false;
        self.leading[slot(node)] = None;
        self.on_disk(node, disk)
    }
}

/// Whether a message helps somebody to be elected.
fn is_about_elections(rpc: &Rpc) -> bool {
    matches!(
        rpc,
        Rpc::Vote { .. }
            | Rpc::PreVote { .. }
            | Rpc::VoteReply { verdict: Vote::Granted, .. }
            | Rpc::PreVoteReply { verdict: Vote::Granted, .. }
    )
}

/// Terms rise; within a term a vote is given once.
fn successor(node: NodeId, old: HardState, new: HardState, what: &str) -> Verdict {
    ensure!(new.term >= old.term, TermMonotonic, "{node} {what} term {} after term {}", new.term, old.term);
    ensure!(
        new.term > old.term || old.voted_for.is_none() || new.voted_for == old.voted_for,
        OneVotePerTerm,
        "{node} {what} in term {} a vote for {:?} after one for {:?}",
        new.term,
        new.voted_for,
        old.voted_for
    );
    Ok(())
}

/// A vote may leave once it is on the disk, or once its term can never come back.
fn promised(node: NodeId, term: Term, candidate: NodeId, disk: &Disk, what: &str) -> Verdict {
    let durable = disk.hard_state();
    ensure!(
        durable.term > term || durable.term == term && durable.voted_for == Some(candidate),
        DurableBeforeSend,
        "{node} {what} for {candidate} in term {term}, but its disk has {durable:?}"
    );
    Ok(())
}

/// The node `now` in a term acknowledges entries in this or an earlier one of the same batch. What
/// it held then may have been overwritten since, in memory; the disk has it still.
fn acknowledged(node: NodeId, (term, now): (Term, Term), matched: Index, disk: &Disk, logs: &Logs) -> Verdict {
    if matched == Index::ZERO {
        return Ok(());
    }
    let was_overwritten = term < now && matched <= disk.last().index;
    ensure!(
        was_overwritten || logs.digest_at(node, matched).is_some_and(|digest| disk.holds(matched, digest)),
        DurableBeforeSend,
        "{node} acknowledges entries up to {matched}; its disk ends at {}",
        disk.last()
    );
    ensure!(
        disk.hard_state().term >= term,
        DurableBeforeSend,
        "{node} acknowledges entries in term {term}, but its disk has term {}",
        disk.hard_state().term
    );
    Ok(())
}
