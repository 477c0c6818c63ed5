//! A deterministic world for `raft-core`: virtual time, a network that loses, delays, doubles and
//! reorders messages, links that are cut, disks that forget what was not synced, processes that
//! die and pause, clients that are never satisfied. One seed decides all of it.
//!
//! ```
//! // Two seeds, each with its own cluster, its own faults and at least a hundred operations.
//! let totals = raft_sim::check(0..2, 1, |_| {}).map_err(|failures| failures[0].to_string())?;
//! assert_eq!(totals.seeds, 2);
//! # Ok::<(), String>(())
//! ```
//!
//! The world drives the same [`raft_core::Raft`] as servers do, through the same door: events go
//! in, effects come out and are executed or, where a process dies, are not. After each step the
//! [`checks`] compare what the node did with what every node did before; [`Invariant`] lists
//! what they know. After a time of faults everything is healed, and the cluster must elect,
//! serve, converge and then keep still.
//!
//! A failing seed prints the invariant, the end of its trace and the command that shows it again.
//! Nothing in a run depends on the machine: no clock, no thread, no hash order, no floats.
//!
//! # Layers
//!
//! | file | what it holds |
//! |---|---|
//! | `rng`, `digest`, `schedule`, `plan` | chance with named forks, fingerprints, virtual time, what a seed draws |
//! | `machine`, `disk`, `network`, `node`, `client` | the things in the world, each ignorant of the others |
//! | `world`, `effects`, `bulk` | what happens next; what becomes of what a core asks for; snapshots on their way |
//! | `nemesis`, `operator`, `run` | which fault strikes whom; who changes the members; a time of faults, healing, rest |
//! | `checks/` | the invariants, one family a file |
//! | `trace`, `report` | one run in words, many runs in numbers |
//!
//! # Omitted
//!
//! * Corruption of any kind: bit flips, misdirected writes, wiped or rolled-back stores, snapshots
//!   whose bytes are wrong. A crash keeps a prefix of what was not synced, never another subset:
//!   there is one log file with one writer.
//! * Clocks that drift beyond the bound that lease reads are told, or jump.
//! * Snapshots that another node than the leader sends, or that go on where they broke off.
//! * Sessions. A client never repeats a write whose end it does not know.
//! * A search for linearizations. The log index that each answer came from is the witness; a
//!   search is needed where there is no such witness, in a test of real processes.
//! * Healing a part only, shrinking a failing run, drawing it, and other state machines than the
//!   registers in [`machine`].
#![forbid(unsafe_code)]

mod bulk;
pub mod checks;
mod client;
pub mod digest;
pub mod disk;
mod effects;
pub mod machine;
mod nemesis;
mod network;
mod node;
mod operator;
pub mod plan;
mod report;
pub mod rng;
mod run;
pub mod schedule;
mod trace;
mod world;

use raft_core::NodeId;

pub use checks::{Invariant, Violation};
pub use network::Traffic;
pub use report::{Totals, check, check_seed};
pub use run::{Failure, OPERATIONS_MIN, Summary, run, run_traced};
pub use trace::{Sink, Trace};
pub use world::Counts;

/// The place of a node in everything that is kept per node: ids count from 1.
pub(crate) fn slot(node: NodeId) -> usize {
    node.as_u64() as usize - 1
}

/// The node at a place.
pub(crate) fn node_at(slot: usize) -> NodeId {
    NodeId::new(slot as u64 + 1).expect("because a place plus one is not 0")
}
