//! Random writes, snapshots, installations, compactions and crashes, against the simplest store that
//! could be right.

use proptest::prelude::*;
use raft_core::{Entry, HardState, Index, NodeId};
use raft_tokio::storage::Options;

use super::memory_disk::Keep;
use super::reference::{Reference, Step, at, configuration_entry, execute};
use super::{append, entries, entry, formatted, reopen};

#[derive(Clone, Debug)]
enum Wish {
    /// Entries that replace so many of the log's, with these sizes; `None` is a configuration.
    Write {
        replaced: u64,
        sizes: Vec<Option<usize>>,
        raises_term: bool,
        vote: Option<u64>,
    },
    /// A snapshot so many entries before the end.
    Save(u64),
    /// One that ends so many entries after the newest, and whether its term is new.
    Install(u64, bool),
    Compact(u64),
    Sweep,
    Read(u64, u64),
    Reopen,
    Close,
    Crash(u64),
}

fn wish() -> impl Strategy<Value = Wish> {
    let size = prop_oneof![8 => 0_usize..60, 3 => 400_usize..1_200, 1 => 4_000_usize..9_000];
    let size = prop_oneof![12 => size.prop_map(Some), 1 => Just(None)];
    let write = (
        prop_oneof![3 => Just(0_u64), 1 => 0_u64..8, 1 => 0_u64..200],
        prop::collection::vec(size, 0..12),
        any::<bool>(),
        prop_oneof![2 => Just(None), 1 => (0_u64..4).prop_map(Some)],
    );
    prop_oneof![
        12 => write.prop_map(|(replaced, sizes, raises_term, vote)| Wish::Write { replaced, sizes, raises_term, vote }),
        2 => (0_u64..30).prop_map(Wish::Save),
        1 => (1_u64..60, any::<bool>()).prop_map(|(ahead, raises)| Wish::Install(ahead, raises)),
        3 => (0_u64..40).prop_map(Wish::Compact),
        1 => Just(Wish::Sweep),
        1 => (0_u64..200, 0_u64..20).prop_map(|(from, count)| Wish::Read(from, count)),
        1 => Just(Wish::Reopen),
        1 => Just(Wish::Close),
        1 => any::<u64>().prop_map(Wish::Crash),
    ]
}

/// What a correct core could ask for, to that effect.
fn step(reference: &Reference, wish: &Wish, version: u64) -> Vec<Step> {
    let last = reference.last();
    match wish {
        Wish::Write { replaced, sizes, raises_term, vote } => {
            let first = (last.index.as_u64() + 1).saturating_sub(*replaced).max(reference.first_open());
            let known = reference.hard_state.term.max(last.term).as_u64().max(1);
            // Whatever replaces entries is of a newer term.
            let term = if *raises_term || first <= last.index.as_u64() { known + 1 } else { last.term.as_u64().max(1) };
            let make = |(index, size): (u64, &Option<usize>)| match size {
                Some(size) => entry(index, term, vec![(version + index) as u8; *size]),
                None => configuration_entry(index, term, version),
            };
            let batch: Vec<Entry> = (first..).zip(sizes).map(make).collect();
            let vote = vote.map_or(0, |vote| vote);
            let term = if batch.is_empty() { known } else { known.max(term) };
            let hard_state = HardState { term: raft_core::Term::new(term), voted_for: NodeId::new(vote), floor: None };
            let mut write = append(version, Vec::new());
            (write.hard_state, write.entries) = (Some(hard_state), entries(batch));
            vec![Step::Write(vec![write])]
        }
        Wish::Save(back) => {
            let index = last.index.as_u64().saturating_sub(*back);
            if index < reference.first_open() { vec![] } else { vec![Step::Save(index)] }
        }
        Wish::Install(ahead, raises) => {
            let index = reference.first_open() + ahead;
            let term = reference.hard_state.term.max(last.term).as_u64() + u64::from(*raises) + 1;
            vec![Step::Receive(at(index, term), version), Step::Install]
        }
        Wish::Compact(back) => vec![Step::Compact(last.index.as_u64().saturating_sub(*back))],
        Wish::Sweep => vec![Step::Sweep],
        Wish::Read(..) | Wish::Reopen | Wish::Close | Wish::Crash(_) => vec![],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_with_snapshots_does_what_the_simplest_one_does(wishes in prop::collection::vec(wish(), 1..80)) {
        let options = Options { tail_bytes: 2_000, segment_bytes: 4 << 10, prepare_ahead: false };
        let mut disk = formatted();
        let mut reference = Reference::new();
        let mut opened = reopen(&disk, &options)?;
        let mut forgotten = 0;
        for (version, wish) in (1..).zip(&wishes) {
            for step in step(&reference, wish, version) {
                execute(&mut opened, &step, &reference)?;
                reference.on_step(&step);
                prop_assert_eq!(opened.log.last(), reference.last());
                let covered = reference.first_open() - 1;
                match step {
                    // What a snapshot does not cover is not forgotten.
                    Step::Compact(through) => forgotten = through.min(covered).max(forgotten),
                    Step::Install => forgotten = covered,
                    Step::Write(_) | Step::Save(_) | Step::Receive(..) | Step::Sweep => {}
                }
            }
            match wish {
                Wish::Read(back, count) => {
                    let from = reference.last().index.as_u64().saturating_sub(*back);
                    let read = opened.log.read(Index::new(from), Index::new(from + count), u64::MAX)?;
                    let held = reference.log.range(from..=from + count).map(|(_, entry)| entry.clone());
                    let wanted: Vec<Entry> = if from > forgotten { held.collect() } else { Vec::new() };
                    prop_assert_eq!(read.iter().cloned().collect::<Vec<_>>(), wanted);
                    continue;
                }
                Wish::Close => opened.log.close()?,
                Wish::Reopen => drop(opened),
                Wish::Crash(seed) => {
                    drop(opened);
                    disk = disk.crash(Keep::Some(*seed));
                }
                Wish::Write { .. } | Wish::Save(_) | Wish::Install(..) | Wish::Compact(_) | Wish::Sweep => continue,
            }
            opened = reopen(&disk, &options)?;
            prop_assert_eq!(reference.differs(&opened), None);
            prop_assert!(opened.durable.tail.cost() <= 2_000);
            forgotten = opened.durable.base.index.as_u64();
        }
    }
}
