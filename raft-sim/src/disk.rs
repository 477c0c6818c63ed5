//! A model disk: what is written, what is synced, and what a crash leaves of the difference.

use std::collections::VecDeque;

use raft_core::{
    Boot, ClusterId, Durable, Entries, Entry, HardState, Identity, Index, Membership, NodeId, Position, StoreId,
    TermRun, WriteSeq,
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

/// One write on its way to the platter.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its name.
    pub seq: WriteSeq,
    /// The new term and vote, if any.
    pub hard_state: Option<HardState>,
    /// The new entries; they replace the log from the first one on.
    pub entries: Entries,
}

/// One node's disk.
///
/// Invariants: `log` and `hard_state` are what a reader would find after a power loss at this
/// moment in the worst case; the first `syncing` of `queue` are under one sync.
#[derive(Debug)]
pub struct Disk {
    node: NodeId,
    store: StoreId,
    boot: Boot,
    hard_state: HardState,
    log: Vec<Record>,
    queue: VecDeque<Write>,
    syncing: usize,
    failed: bool,
}

impl Disk {
    /// A disk formatted for a member.
    pub fn format(node: NodeId, store: StoreId) -> Self {
        Self {
            node,
            store,
            boot: Boot::ZERO,
            hard_state: HardState::default(),
            log: Vec::new(),
            queue: VecDeque::new(),
            syncing: 0,
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

    /// The log, as synced.
    pub fn log(&self) -> &[Record] {
        &self.log
    }

    /// The digest of the synced log up to `index`; `None` beyond its end, 0 at index 0.
    pub fn digest_at(&self, index: Index) -> Option<u64> {
        match index.as_u64() {
            0 => Some(0),
            nth => self.log.get(nth as usize - 1).map(|record| record.digest),
        }
    }

    /// Whether it has failed for good.
    pub fn has_failed(&self) -> bool {
        self.failed
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

    /// The sync has ended: returns the newest write that is safe now; none if the disk has failed.
    pub fn finish_sync(&mut self) -> Option<WriteSeq> {
        let mut newest = None;
        let syncing = if self.failed { 0 } else { std::mem::take(&mut self.syncing) };
        for _ in 0..syncing {
            if let Some(write) = self.queue.pop_front() {
                newest = Some(write.seq);
                self.keep(&write, u64::MAX);
            }
        }
        newest
    }

    /// Writes term and vote and the first `entries` entries.
    fn keep(&mut self, write: &Write, entries: u64) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        let Some(first) = write.entries.first().filter(|_| entries > 0) else { return };
        self.log.truncate(first.index.prev().as_u64() as usize);
        for entry in write.entries.slice(first.index, first.index.plus(entries - 1)).iter() {
            let digest = chain(self.log.last().map_or(0, |record| record.digest), entry);
            self.log.push(Record { entry: entry.clone(), digest });
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
        let atoms: u64 = under_way.iter().map(|write| 1 + write.entries.len() as u64).sum();
        let mut kept = if rng.chance(plan.keep_all) {
            atoms
        } else if rng.chance(plan.lose_all) {
            0
        } else {
            rng.between(0, atoms)
        };
        for write in &under_way {
            // Term and vote stand at the head of a write, before its entries.
            let Some(room) = kept.checked_sub(1) else { break };
            let entries = room.min(write.entries.len() as u64);
            kept = room - entries;
            self.keep(write, entries);
        }
    }

    /// A new process opens the store, a replaced disk included, and caches at most `cache_bytes`.
    pub fn open(&mut self, cluster: ClusterId, membership: Membership, applied: Index, cache_bytes: u64) -> Durable {
        self.failed = false;
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
            base: Position::ZERO,
            snapshot: None,
            membership: membership.into(),
            configurations: Vec::new(),
            applied,
            last: Index::new(self.log.len() as u64),
            runs,
            bytes: self.log.iter().map(|record| record.entry.cost()).sum(),
            tail: Entries::new(tail).expect("because the log holds successive entries"),
        }
    }

    /// Reads synced entries of at most `max_bytes`, but at least one; `None` if there is none at `from`.
    pub fn read(&self, from: Index, through: Index, max_bytes: u64) -> Option<Entries> {
        let start = from.as_u64().checked_sub(1)? as usize;
        let end = self.log.len().min(through.as_u64() as usize);
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
