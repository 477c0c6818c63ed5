//! Logs: I2 leader append-only, I3 log matching; and the mirror of every node's log in memory.

use raft_core::{Configuration, Effect, Entries, Index, NodeId, Payload, Position, RoleKind, Rpc, Term};

use super::commits::Commits;
use super::elections::Elections;
use super::{Step, Verdict, Violation, configurations, ensure};
use crate::digest::chain;
use crate::disk::Disk;
use crate::machine::Command;
use crate::slot;

/// One entry of a mirrored log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// Its term.
    pub term: Term,
    /// The digest of the log that ends with it.
    pub digest: u64,
    /// What it asks for; none in a blank one.
    pub command: Option<Command>,
}

/// The log that each node has in memory, put together from the writes that it asked for.
#[derive(Debug)]
pub struct Logs {
    nodes: Vec<Vec<Mirrored>>,
    /// The configurations that each node knows, the oldest first.
    configurations: Vec<Vec<Configuration>>,
    /// For each index, the entries that were ever created there. More than two are rare.
    created: Vec<Vec<(Term, u64)>>,
}

impl Logs {
    /// Empty logs.
    pub fn new(nodes: usize) -> Self {
        Self { nodes: vec![Vec::new(); nodes], configurations: vec![Vec::new(); nodes], created: Vec::new() }
    }

    /// A node's log; index `i` is at place `i - 1`.
    pub fn of(&self, node: NodeId) -> &[Mirrored] {
        &self.nodes[slot(node)]
    }

    /// Where a node's log ends.
    pub fn last(&self, node: NodeId) -> Position {
        let log = self.of(node);
        log.last().map_or(Position::ZERO, |last| Position::new(Index::new(log.len() as u64), last.term))
    }

    /// The digest of a node's log up to `index`: 0 at index 0, `None` beyond its end.
    pub fn digest_at(&self, node: NodeId, index: Index) -> Option<u64> {
        match index.as_u64() {
            0 => Some(0),
            nth => self.of(node).get(nth as usize - 1).map(|entry| entry.digest),
        }
    }

    /// The configurations that a node knows, the oldest first.
    pub fn configurations(&self, node: NodeId) -> &[Configuration] {
        &self.configurations[slot(node)]
    }

    /// The term of a node's entry at `index`.
    pub fn term_at(&self, node: NodeId, index: Index) -> Option<Term> {
        let place = index.as_u64().checked_sub(1)?;
        self.of(node).get(place as usize).map(|entry| entry.term)
    }

    /// Whether a node's log holds this entry.
    pub fn holds(&self, node: NodeId, position: Position) -> bool {
        self.term_at(node, position.index) == Some(position.term)
    }

    /// Mirrors the writes of a step, and compares what it sends with what it has.
    pub(super) fn on_persists(&mut self, step: &Step<'_>, elections: &Elections, commits: &Commits) -> Verdict {
        let node = step.node;
        for effect in step.effects {
            if let Effect::Persist { entries, .. } = effect {
                self.on_entries(step, entries, elections)?;
            }
            // The snapshot stands for the committed log: that this is so has been checked.
            if let Effect::InstallSnapshot { meta, .. } = effect {
                self.nodes[slot(node)].clear();
                self.nodes[slot(node)].extend_from_slice(commits.log_through(meta.last.index));
                self.configurations[slot(node)] = vec![meta.configuration.clone()];
            }
        }
        for effect in step.effects {
            if let Effect::Send { to, rpc: Rpc::Append(append) } = effect
                && step.after.role == RoleKind::Leader
            {
                self.sent_as_held(node, append.prev, None)?;
                if let Some(last) = append.entries.last() {
                    self.sent_as_held(node, last.position(), Some(*to))?;
                }
            }
        }
        ensure!(
            step.after.log.last == self.last(node),
            Ordering,
            "{node} says that its log ends at {}, but what it wrote ends at {}",
            step.after.log.last,
            self.last(node)
        );
        Ok(())
    }

    fn sent_as_held(&self, node: NodeId, sent: Position, to: Option<NodeId>) -> Verdict {
        let held = match sent.index.as_u64() {
            0 => Some(Term::ZERO),
            nth => self.of(node).get(nth as usize - 1).map(|entry| entry.term),
        };
        ensure!(held == Some(sent.term), Provenance, "{node} sent {sent} to {to:?}, but holds term {held:?} there");
        Ok(())
    }

    fn on_entries(&mut self, step: &Step<'_>, entries: &Entries, elections: &Elections) -> Verdict {
        let node = step.node;
        let Some(first) = entries.first() else { return Ok(()) };
        let kept = first.index.prev().as_u64() as usize;
        let end = self.nodes[slot(node)].len();
        ensure!(kept <= end, Ordering, "{node} writes entry {} after the end of its log at {end}", first.position());
        let leads_on = step.before.role == RoleKind::Leader
            && step.after.role == RoleKind::Leader
            && step.before.hard_state.term == step.after.hard_state.term;
        ensure!(
            !leads_on || kept == end,
            LeaderAppendOnly,
            "{node}, leader of term {}, overwrote its log from {} on; it ended at {end}",
            step.after.hard_state.term,
            first.position()
        );
        self.nodes[slot(node)].truncate(kept);
        let known = &mut self.configurations[slot(node)];
        while known.len() > 1 && known.last().is_some_and(|last| last.index >= first.index) {
            known.pop();
        }
        for entry in entries.iter() {
            let log = &mut self.nodes[slot(node)];
            let digest = chain(log.last().map_or(0, |last| last.digest), entry);
            let command = match &entry.payload {
                Payload::Blank | Payload::Configuration(_) => None,
                Payload::Command(bytes) => Command::decode(bytes),
            };
            log.push(Mirrored { term: entry.term, digest, command });
            let is_new = self.on_created(node, entry.position(), digest, elections)?;
            if let Payload::Configuration(membership) = &entry.payload {
                let new = Configuration { index: entry.index, membership: membership.clone() };
                if let Some(old) = self.configurations(node).last().filter(|_| is_new) {
                    configurations::on_created(step, entry.term, old, &new, self)?;
                }
                self.configurations[slot(node)].push(new);
            }
        }
        Ok(())
    }

    /// Compares an entry with the one that was first created at this index in this term.
    /// Returns whether this is the first.
    fn on_created(
        &mut self,
        node: NodeId,
        position: Position,
        digest: u64,
        elections: &Elections,
    ) -> Result<bool, Violation> {
        let place = position.index.prev().as_u64() as usize;
        if self.created.len() <= place {
            self.created.resize_with(place + 1, Vec::new);
        }
        let rivals = &mut self.created[place];
        if let Some((_, known)) = rivals.iter().find(|(term, _)| *term == position.term) {
            ensure!(
                *known == digest,
                LogMatching,
                "{node} holds {position} with another content or another past than whoever created it"
            );
            return Ok(false);
        }
        rivals.push((position.term, digest));
        ensure!(
            elections.leader(position.term) == Some(node),
            Provenance,
            "{node} created {position}, but the leader of that term is {:?}",
            elections.leader(position.term)
        );
        Ok(true)
    }

    /// A process starts with what is on its disk.
    pub(super) fn on_start(&mut self, node: NodeId, disk: &Disk, commits: &Commits) {
        let log = &mut self.nodes[slot(node)];
        log.clear();
        log.extend_from_slice(commits.log_through(disk.base().index));
        self.configurations[slot(node)] = disk.configurations();
        log.extend(disk.log().iter().map(|record| Mirrored {
            term: record.entry.term,
            digest: record.digest,
            command: match &record.entry.payload {
                Payload::Blank | Payload::Configuration(_) => None,
                Payload::Command(bytes) => Command::decode(bytes),
            },
        }));
    }
}
