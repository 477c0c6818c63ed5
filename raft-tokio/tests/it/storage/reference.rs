//! The simplest store that could be right: what a log with snapshots should hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{
    Config, Configuration, Entry, HardState, Index, Limits, Member, Membership, Payload, Position, Raft, SnapshotMeta,
    StoreId, Term, Timing,
};
use raft_tokio::storage::{Opened, StorageError, Write};

use super::{STORE, all, birth, node};

/// The state of a machine: what it is depends on the position alone.
pub(super) fn state(last: Position) -> Bytes {
    let length = 40 + last.index.as_u64() as usize * 37 % 1_500;
    let mut data = last.to_string().into_bytes();
    data.resize(length, last.index.as_u64() as u8);
    data.into()
}

/// A configuration in which node 1 is always a voter; `version` tells it from others.
pub(super) fn membership(version: u64) -> Arc<Membership> {
    let voter = |id: u64, store| Member { node: node(id), store };
    let list = [voter(1, STORE), voter(10 + version, StoreId::new(u128::from(version)))];
    Membership::new(list).expect("two different members").into()
}

pub(super) fn configuration_entry(index: u64, term: u64, version: u64) -> Entry {
    let payload = Payload::Configuration(membership(version));
    Entry { term: Term::new(term), index: Index::new(index), payload }
}

pub(super) fn at(index: u64, term: u64) -> Position {
    Position::new(Index::new(index), Term::new(term))
}

/// One step that the store is asked for.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Write(Vec<Write>),
    /// A snapshot of the own machine.
    Save(u64),
    /// One that another node has sent, with a configuration of this version.
    Receive(Position, u64),
    /// Installs what was received.
    Install,
    Compact(u64),
    Sweep,
}

/// What the store should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) hard_state: HardState,
    /// After which entry the log was reset.
    pub(super) base: Position,
    pub(super) base_configuration: Configuration,
    pub(super) log: BTreeMap<u64, Entry>,
    pub(super) newest: Option<SnapshotMeta>,
    pub(super) received: Option<SnapshotMeta>,
}

impl Reference {
    pub(super) fn new() -> Self {
        let base_configuration = Configuration { index: Index::ZERO, membership: birth().membership.into() };
        Self {
            hard_state: HardState::default(),
            base: Position::ZERO,
            base_configuration,
            log: BTreeMap::new(),
            newest: None,
            received: None,
        }
    }

    pub(super) fn last(&self) -> Position {
        self.log.values().next_back().map_or(self.base, Entry::position)
    }

    /// The first index that a correct core might still replace: a snapshot covers what is committed.
    pub(super) fn first_open(&self) -> u64 {
        self.newest.as_ref().map_or(self.base.index, |meta| meta.last.index).as_u64() + 1
    }

    fn configuration_at(&self, index: u64) -> Configuration {
        let set = self.log.range(..=index).rev().find_map(|(_, entry)| match &entry.payload {
            Payload::Configuration(membership) => {
                Some(Configuration { index: entry.index, membership: membership.clone() })
            }
            Payload::Blank | Payload::Command(_) => None,
        });
        set.unwrap_or_else(|| self.base_configuration.clone())
    }

    /// What a snapshot of `index` says about itself.
    pub(super) fn meta(&self, index: u64) -> SnapshotMeta {
        let last = self.log.get(&index).map_or(self.base, Entry::position);
        SnapshotMeta { last, configuration: self.configuration_at(index), bytes: state(last).len() as u64 }
    }

    fn on_write(&mut self, write: &Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = write.entries.first() {
            self.log.retain(|index, _| *index < first.index.as_u64());
        }
        self.log.extend(write.entries.iter().map(|entry| (entry.index.as_u64(), entry.clone())));
    }

    pub(super) fn on_step(&mut self, step: &Step) {
        match step {
            Step::Write(group) => group.iter().for_each(|write| self.on_write(write)),
            Step::Save(index) => self.newest = Some(self.meta(*index)),
            Step::Receive(last, version) => {
                let configuration = Configuration { index: last.index, membership: membership(*version) };
                self.received = Some(SnapshotMeta { last: *last, configuration, bytes: state(*last).len() as u64 });
            }
            Step::Install => {
                let Some(meta) = self.received.take() else { return };
                self.log.clear();
                (self.base, self.base_configuration) = (meta.last, meta.configuration.clone());
                if self.hard_state.term < meta.last.term {
                    self.hard_state = HardState { term: meta.last.term, voted_for: None, floor: None };
                }
                self.newest = Some(meta);
            }
            Step::Compact(_) | Step::Sweep => {}
        }
    }

    /// Why what was opened is not this, if it is not.
    pub(super) fn differs(&self, opened: &Opened) -> Option<String> {
        let durable = &opened.durable;
        let different =
            |what: &str, found: &dyn std::fmt::Debug| Some(format!("{what}: {found:?}, not that of {self:?}"));
        if durable.hard_state != self.hard_state {
            return different("term and vote", &durable.hard_state);
        }
        if durable.snapshot != self.newest {
            return different("snapshot", &durable.snapshot);
        }
        if opened.snapshot != self.newest.as_ref().map(|meta| state(meta.last)) {
            return different("state", &opened.snapshot);
        }
        let base = durable.base;
        if base != self.base && Some(base) != self.newest.as_ref().map(|meta| meta.last) {
            return different("base", &base);
        }
        if durable.configuration != self.configuration_at(base.index.as_u64()) {
            return different("configuration at the base", &durable.configuration);
        }
        let wanted: Vec<&Entry> = self.log.range(base.index.as_u64() + 1..).map(|(_, entry)| entry).collect();
        let found = all(opened).expect("what was accepted can be read");
        if found.iter().collect::<Vec<_>>() != wanted || durable.last_position() != self.last() {
            return different("entries", &found);
        }
        let configurations: Vec<Configuration> = wanted
            .iter()
            .filter(|entry| matches!(entry.payload, Payload::Configuration(_)))
            .map(|entry| self.configuration_at(entry.index.as_u64()))
            .collect();
        if durable.configurations != configurations {
            return different("configurations", &durable.configurations);
        }
        let exact: u64 = wanted.iter().map(|entry| entry.cost()).sum();
        // To within a grain, and the entry that crossed it.
        if durable.bytes.abs_diff(exact) > 160 << 10 {
            return different("bytes", &durable.bytes);
        }
        let tail: Vec<&Entry> = durable.tail.iter().collect();
        if !wanted.ends_with(&tail) {
            return different("tail", &durable.tail);
        }
        core_takes(opened)
    }
}

/// Why a core would not start on this, if it would not.
fn core_takes(opened: &Opened) -> Option<String> {
    let mut durable = opened.durable.clone();
    durable.applied = durable.snapshot.as_ref().map_or(durable.base.index, |meta| meta.last.index);
    let config = Config::new(Timing::LAN, Limits::DEFAULT, 1).expect("the defaults are valid");
    Raft::new(config, durable).err().map(|error| error.to_string())
}

/// Has the store do a step; `before` is what it holds.
pub(super) fn execute(opened: &mut Opened, step: &Step, before: &Reference) -> Result<(), StorageError> {
    let log = &mut opened.log;
    match step {
        Step::Write(group) => log.write(group),
        Step::Save(index) => {
            let meta = before.meta(*index);
            log.snapshots().save(&SnapshotMeta { bytes: 0, ..meta.clone() }, &state(meta.last)).map(drop)
        }
        Step::Receive(last, _) => {
            let mut after = before.clone();
            after.on_step(step);
            after.received.map_or(Ok(()), |meta| log.snapshots().save_received(&meta, &state(*last)))
        }
        Step::Install => before.received.as_ref().map_or(Ok(()), |meta| log.install(meta)),
        Step::Compact(through) => log.compact(Index::new(*through)),
        Step::Sweep => {
            log.snapshots().sweep();
            Ok(())
        }
    }
}
