//! The durable log, on a real file system and on a disk that forgets.

mod crash;
mod damage;
mod directory;
mod log;
mod memory_disk;
mod model;
mod reference;
mod snapshot_crash;
mod snapshot_damage;
mod snapshot_model;
mod snapshot_writer;
mod snapshots;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use raft_core::{
    ClusterId, Entries, Entry, HardState, Index, Member, Membership, NodeId, Payload, StoreId, Term, WriteSeq,
};
use raft_tokio::storage::{self, Birth, Disk, Expected, Opened, Options, StorageError, Write};

use memory_disk::MemoryDisk;

const CLUSTER: ClusterId = ClusterId::new(0xc1);
const STORE: StoreId = StoreId::new(0x51);

/// Small segments, so that a few writes fill them, and no threads.
const SMALL: Options = Options { tail_bytes: 1 << 20, segment_bytes: 4 << 10, prepare_ahead: false };

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("test ids are not zero")
}

fn birth() -> Birth {
    let membership =
        Membership::new([Member { node: node(1), store: STORE }, Member { node: node(2), store: StoreId::new(0x52) }]);
    Birth { cluster: CLUSTER, node: node(1), store: STORE, membership: membership.expect("two different members") }
}

fn expected() -> Expected {
    Expected { cluster: CLUSTER, node: node(1) }
}

fn entry(index: u64, term: u64, command: impl Into<Vec<u8>>) -> Entry {
    Entry { term: Term::new(term), index: Index::new(index), payload: Payload::Command(Bytes::from(command.into())) }
}

fn entries(batch: Vec<Entry>) -> Entries {
    Entries::new(batch).expect("the test's entries are in order")
}

fn append(seq: u64, batch: Vec<Entry>) -> Write {
    Write { seq: WriteSeq::new(seq), hard_state: None, entries: entries(batch) }
}

fn vote(seq: u64, term: u64, voted_for: u64) -> Write {
    let hard_state = HardState { term: Term::new(term), voted_for: NodeId::new(voted_for), floor: None };
    Write { seq: WriteSeq::new(seq), hard_state: Some(hard_state), entries: Entries::EMPTY }
}

fn formatted() -> MemoryDisk {
    let disk = MemoryDisk::new();
    storage::format_on(&disk, &birth()).expect("an empty disk can be formatted");
    disk
}

fn reopen(disk: &MemoryDisk, options: &Options) -> Result<Opened, StorageError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    storage::open_on(disk, &expected(), options)
}

/// Everything that the log holds, read back from the disk.
fn all(opened: &Opened) -> Result<Entries, StorageError> {
    opened.log.read(opened.durable.base.index.next(), opened.durable.last, u64::MAX)
}
