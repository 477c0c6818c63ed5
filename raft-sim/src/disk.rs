//! A model disk: what is written, what is synced, and what a crash leaves of the difference.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{
    Boot, ClusterId, Configuration, Durable, Entries, Entry, HardState, Identity, Index, Membership, NodeId, Payload,
    Position, SnapshotMeta, StoreId, TermRun, WriteSeq,
};

use crate::digest::chain;
use crate::plan::DiskPlan;
use crate::rng::Rng;

/// An entry, and the digest of the log that ends with it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The entry.
    pub entry: Entry,
    /// [`chain`] over everything up to it.
    pub digest: u64,
}

/// A state machine, written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// The digest of the log that it stands for.
    pub digest: u64,
    /// The machine.
    pub machine: Bytes,
}

/// One write on its way to the platter.
#[derive(Clone, Debug)]
pub enum Write {
    /// Term and vote, or entries, or both.
    Log {
        /// Its name.
        seq: WriteSeq,
        /// The new term and vote, if any.
        hard_state: Option<HardState>,
        /// The new entries; they replace the log from the first one on.
        entries: Entries,
    },
    /// The log is replaced by a snapshot: both change together, or none does.
    Install {
        /// Its name.
        seq: WriteSeq,
        /// The snapshot.
        snapshot: Arc<Snapshot>,
    },
    /// The log begins later.
    Compact {
        /// After this index.
        through: Index,
    },
}

impl Write {
    fn seq(&self) -> Option<WriteSeq> {
        match self {
            Self::Log { seq, .. } | Self::Install { seq, .. } => Some(*seq),
            Self::Compact { .. } => None,
        }
    }

    /// Into how many parts a crash can tear it.
    fn atoms(&self) -> u64 {
        match self {
            // Term and vote stand at the head of a write, before its entries.
            Self::Log { entries, .. } => 1 + entries.len() as u64,
            Self::Install { .. } | Self::Compact { .. } => 1,
        }
    }
}

/// One node's disk.
///
/// Invariants: everything but the queue is what a reader would find after a power loss at this
/// moment in the worst case; the first `syncing` of `queue` are under one sync; the log holds the
/// end of the newest snapshot, or begins there.
#[derive(Debug)]
pub struct Disk {
    node: NodeId,
    store: StoreId,
    boot: Boot,
    hard_state: HardState,
    /// The position before the first entry, and the digest of the log up to there.
    base: (Position, u64),
    /// The configuration there.
    configuration: Configuration,
    log: Vec<Record>,
    /// The newest snapshots of the own machine, the oldest first.
    snapshots: Vec<Arc<Snapshot>>,
    /// Complete ones from other nodes, which no log stands on so far. They go with the process.
    received: Vec<Arc<Snapshot>>,
    queue: VecDeque<Write>,
    syncing: usize,
    synced: WriteSeq,
    failed: bool,
}

impl Disk {
    /// How many snapshots are kept, so that one that is being sent is not replaced under the
    /// sender's hands.
    const SNAPSHOTS_MAX: usize = 2;

    /// A disk formatted for a node: with the first configuration of a cluster, or with none for a
    /// node that is to join one.
    pub fn format(node: NodeId, store: StoreId, membership: Arc<Membership>) -> Self {
        Self {
            node,
            store,
            boot: Boot::ZERO,
            hard_state: HardState::default(),
            base: (Position::ZERO, 0),
            configuration: Configuration { index: Index::ZERO, membership },
            log: Vec::new(),
            snapshots: Vec::new(),
            received: Vec::new(),
            queue: VecDeque::new(),
            syncing: 0,
            synced: WriteSeq::ZERO,
            failed: false,
        }
    }

    /// The identity of the store.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// How often the store was opened.
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Term and vote, as synced.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The position before the first entry of the log.
    pub fn base(&self) -> Position {
        self.base.0
    }

    /// The log after its base, as synced.
    pub fn log(&self) -> &[Record] {
        &self.log
    }

    /// Where the log ends.
    pub fn last(&self) -> Position {
        self.log.last().map_or(self.base.0, |record| record.entry.position())
    }

    /// The position of the entry at `index`, if the log holds it or begins after it.
    pub fn position_at(&self, index: Index) -> Option<Position> {
        let base = self.base.0;
        if index == base.index {
            return Some(base);
        }
        let place = index.as_u64().checked_sub(base.index.as_u64() + 1)?;
        self.log.get(place as usize).map(|record| record.entry.position())
    }

    /// The digest of the synced log up to `index`; `None` beyond its end and before its base.
    pub fn digest_at(&self, index: Index) -> Option<u64> {
        let base = self.base.0.index;
        if index == base {
            return Some(self.base.1);
        }
        let place = index.as_u64().checked_sub(base.as_u64() + 1)?;
        self.log.get(place as usize).map(|record| record.digest)
    }

    /// Whether the log up to `index`, whose digest is `digest`, is here, or a snapshot that
    /// stands for it.
    pub fn holds(&self, index: Index, digest: u64) -> bool {
        index < self.base.0.index || self.digest_at(index) == Some(digest)
    }

    /// The newest snapshot of the own machine.
    pub fn newest_snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshots.last()
    }

    /// The own snapshot that ends there.
    pub fn snapshot(&self, last: Position) -> Option<&Arc<Snapshot>> {
        self.snapshots.iter().find(|snapshot| snapshot.meta.last == last)
    }

    /// A snapshot of the own machine is complete, and synced.
    pub fn keep_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        if self.newest_snapshot().is_none_or(|newest| newest.meta.last < snapshot.meta.last) {
            self.snapshots.push(snapshot);
            if self.snapshots.len() > Self::SNAPSHOTS_MAX {
                self.snapshots.remove(0);
            }
        }
    }

    /// A snapshot of another node's machine is complete, and synced.
    pub fn receive(&mut self, snapshot: Arc<Snapshot>) {
        self.received.retain(|known| known.meta.last != snapshot.meta.last);
        self.received.push(snapshot);
    }

    /// The received snapshot that ends there.
    pub fn received(&self, last: Position) -> Option<&Arc<Snapshot>> {
        self.received.iter().find(|snapshot| snapshot.meta.last == last)
    }

    /// The configuration in force at `index`, by the synced log.
    pub fn configuration_at(&self, index: Index) -> Configuration {
        let set = self.configurations_in_log().filter(|configuration| configuration.index <= index).last();
        set.unwrap_or_else(|| self.configuration.clone())
    }

    /// All configurations that the synced log knows: the one at its base, and those set after it.
    pub fn configurations(&self) -> Vec<Configuration> {
        std::iter::once(self.configuration.clone()).chain(self.configurations_in_log()).collect()
    }

    fn configurations_in_log(&self) -> impl Iterator<Item = Configuration> {
        self.log.iter().filter_map(|record| match &record.entry.payload {
            Payload::Configuration(membership) => {
                Some(Configuration { index: record.entry.index, membership: membership.clone() })
            }
            Payload::Blank | Payload::Command(_) => None,
        })
    }

    /// Whether it has failed for good.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether a snapshot that replaces the log is under way.
    pub fn is_installing(&self) -> bool {
        self.queue.iter().any(|write| matches!(write, Write::Install { .. }))
    }

    /// The newest write of this process that is safe.
    pub fn synced(&self) -> WriteSeq {
        self.synced
    }

    /// Takes a write, in order.
    pub fn write(&mut self, write: Write) {
        self.queue.push_back(write);
    }

    /// Starts one sync of everything written so far; `false` if there is nothing to do, or one is
    /// under way.
    pub fn start_sync(&mut self) -> bool {
        if self.syncing > 0 || self.queue.is_empty() || self.failed {
            return false;
        }
        self.syncing = self.queue.len();
        true
    }

    /// The sync has ended: returns the newest write that is safe by it; none if the disk has failed.
    pub fn finish_sync(&mut self) -> Option<WriteSeq> {
        let mut newest = None;
        let syncing = if self.failed { 0 } else { std::mem::take(&mut self.syncing) };
        for _ in 0..syncing {
            if let Some(write) = self.queue.pop_front() {
                newest = write.seq().or(newest);
                self.keep(&write, u64::MAX);
            }
        }
        self.synced = newest.unwrap_or(self.synced);
        newest
    }

    /// Carries a write out, of a log write only the first `entries` entries.
    fn keep(&mut self, write: &Write, entries: u64) {
        match write {
            Write::Log { hard_state, entries: new, .. } => {
                self.hard_state = hard_state.unwrap_or(self.hard_state);
                let Some(first) = new.first().filter(|_| entries > 0) else { return };
                self.log.truncate(first.index.prev().since(self.base.0.index) as usize);
                for entry in new.slice(first.index, first.index.plus(entries - 1)).iter() {
                    let digest = chain(self.log.last().map_or(self.base.1, |record| record.digest), entry);
                    self.log.push(Record { entry: entry.clone(), digest });
                }
            }
            Write::Install { snapshot, .. } => {
                let SnapshotMeta { last, configuration, .. } = &snapshot.meta;
                self.log.clear();
                self.base = (*last, snapshot.digest);
                self.configuration = configuration.clone();
                self.received.retain(|received| received.meta.last.index > last.index);
                self.keep_snapshot(snapshot.clone());
            }
            Write::Compact { through } => {
                let Some(digest) = self.digest_at(*through).filter(|_| *through > self.base.0.index) else { return };
                self.configuration = self.configuration_at(*through);
                let gone = through.since(self.base.0.index) as usize;
                let last = self.log[gone - 1].entry.position();
                self.log.drain(..gone);
                self.base = (last, digest);
            }
        }
    }

    /// The first sync that fails: nothing is written from now on.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// The process dies. Of what was not synced some prefix may have reached the platter all the
    /// same: the log writer keeps the order of writes, and the last one may be torn in the middle.
    pub fn crash(&mut self, plan: &DiskPlan, rng: &mut Rng) {
        let under_way = std::mem::take(&mut self.queue);
        self.syncing = 0;
        let atoms: u64 = under_way.iter().map(Write::atoms).sum();
        let mut kept = if rng.chance(plan.keep_all) {
            atoms
        } else if rng.chance(plan.lose_all) {
            0
        } else {
            rng.between(0, atoms)
        };
        for write in &under_way {
            let Some(room) = kept.checked_sub(1) else { break };
            let entries = room.min(write.atoms() - 1);
            kept = room - entries;
            self.keep(write, entries);
        }
        self.received.clear();
    }

    /// A new process opens the store, a replaced disk included, and caches at most `cache_bytes`.
    pub fn open(&mut self, cluster: ClusterId, applied: Index, cache_bytes: u64) -> Durable {
        self.failed = false;
        self.synced = WriteSeq::ZERO;
        self.boot = self.boot.next();
        let mut runs: Vec<TermRun> = Vec::new();
        for record in &self.log {
            let Position { term, index } = record.entry.position();
            if runs.last().is_none_or(|run| run.term != term) {
                runs.push(TermRun { first: index, term });
            }
        }
        let mut budget = cache_bytes;
        let mut tail: Vec<Entry> = Vec::new();
        for record in self.log.iter().rev() {
            let Some(rest) = budget.checked_sub(record.entry.cost()) else { break };
            budget = rest;
            tail.push(record.entry.clone());
        }
        tail.reverse();
        Durable {
            identity: Identity { cluster, node: self.node, store: self.store, boot: self.boot },
            hard_state: self.hard_state,
            base: self.base.0,
            snapshot: self.newest_snapshot().map(|snapshot| snapshot.meta.clone()),
            configuration: self.configuration.clone(),
            configurations: self.configurations_in_log().collect(),
            applied,
            last: self.last().index,
            runs,
            bytes: self.log.iter().map(|record| record.entry.cost()).sum(),
            tail: Entries::new(tail).expect("because the log holds successive entries"),
        }
    }

    /// Reads synced entries of at most `max_bytes`, but at least one; `None` if there is none at `from`.
    pub fn read(&self, from: Index, through: Index, max_bytes: u64) -> Option<Entries> {
        let base = self.base.0.index;
        let start = from.as_u64().checked_sub(base.as_u64() + 1)? as usize;
        let end = self.log.len().min(through.since(base) as usize);
        let wanted = self.log.get(start..end)?;
        let mut spent = 0;
        let fitting = wanted.iter().take_while(|record| {
            let first = spent == 0;
            spent += record.entry.cost();
            first || spent <= max_bytes
        });
        let batch: Vec<Entry> = fitting.map(|record| record.entry.clone()).collect();
        if batch.is_empty() { None } else { Entries::new(batch) }
    }
}
