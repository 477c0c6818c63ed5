//! Random writes, reads, closings and crashes, against the simplest log that could be right.

use proptest::prelude::*;
use raft_core::{Entry, HardState, Index, NodeId, Term, WriteSeq};
use raft_tokio::storage::{Options, Write};

use super::memory_disk::Keep;
use super::{all, entries, entry, formatted, reopen};

#[derive(Clone, Debug)]
struct RandomWrite {
    overwritten: u64,
    sizes: Vec<usize>,
    raises_term: bool,
    vote: Option<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Group(Vec<RandomWrite>),
    Read { from: u64, count: u64, max_bytes: u64 },
    Close,
    Crash(u64),
}

fn write() -> impl Strategy<Value = RandomWrite> {
    let size = prop_oneof![8 => 0_usize..60, 3 => 400_usize..1_200, 1 => 4_000_usize..9_000];
    let overwritten = prop_oneof![3 => Just(0_u64), 1 => 0_u64..8, 1 => 0_u64..200];
    let vote = prop_oneof![2 => Just(None), 1 => (0_u64..4).prop_map(Some)];
    (overwritten, prop::collection::vec(size, 0..8), any::<bool>(), vote)
        .prop_map(|(overwritten, sizes, raises_term, vote)| RandomWrite { overwritten, sizes, raises_term, vote })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(write(), 1..4).prop_map(Step::Group),
        2 => (0_u64..200, 0_u64..50, 0_u64..3_000)
            .prop_map(|(from, count, max_bytes)| Step::Read { from, count, max_bytes }),
        1 => Just(Step::Close),
        1 => any::<u64>().prop_map(Step::Crash),
    ]
}

#[derive(Debug, Default)]
struct Model {
    hard_state: HardState,
    log: Vec<Entry>,
    seq: u64,
}

impl Model {
    /// Makes a write that a core could ask for, and does it here.
    fn on_write(&mut self, random: &RandomWrite) -> Write {
        self.seq += 1;
        let mut batch: Vec<Entry> = Vec::new();
        if !random.sizes.is_empty() {
            let keep = self.log.len().saturating_sub(random.overwritten as usize);
            self.log.truncate(keep);
            let before = self.log.last().map_or(1, |entry| entry.term.as_u64());
            let term = if random.raises_term { self.hard_state.term.as_u64().max(before) + 1 } else { before };
            for (nth, size) in (1_u64..).zip(&random.sizes) {
                batch.push(entry(keep as u64 + nth, term, vec![(self.seq + nth) as u8; *size]));
            }
            self.log.extend(batch.iter().cloned());
        }
        let newest = self.log.last().map_or(Term::ZERO, |entry| entry.term).max(self.hard_state.term);
        let hard_state = random.vote.map(|vote| HardState { term: newest, voted_for: NodeId::new(vote), floor: None });
        self.hard_state = hard_state.unwrap_or(self.hard_state);
        Write { seq: WriteSeq::new(self.seq), hard_state, entries: entries(batch) }
    }

    fn read(&self, from: u64, count: u64, max_bytes: u64) -> Vec<Entry> {
        let range = self.log.iter().filter(|entry| (from..from + count).contains(&entry.index.as_u64()));
        let mut spent = 0;
        range
            .take_while(|entry| {
                let first = spent == 0;
                spent += entry.cost();
                first || spent <= max_bytes
            })
            .cloned()
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_does_what_the_simplest_one_does(steps in prop::collection::vec(step(), 1..60)) {
        let options = Options { tail_bytes: 2_000, segment_bytes: 4 << 10, prepare_ahead: false };
        let mut disk = formatted();
        let mut model = Model::default();
        let mut opened = reopen(&disk, &options)?;
        for step in &steps {
            match step {
                Step::Group(writes) => {
                    let group: Vec<Write> = writes.iter().map(|random| model.on_write(random)).collect();
                    opened.log.write(&group)?;
                    prop_assert_eq!(opened.log.last().index.as_u64(), model.log.len() as u64);
                    continue;
                }
                Step::Read { from, count, max_bytes } => {
                    let (from, count) = (*from + 1, *count + 1);
                    let read = opened.log.read(Index::new(from), Index::new(from + count - 1), *max_bytes)?;
                    prop_assert_eq!(read.iter().cloned().collect::<Vec<_>>(), model.read(from, count, *max_bytes));
                    continue;
                }
                Step::Close => opened.log.close()?,
                Step::Crash(seed) => {
                    drop(opened);
                    disk = disk.crash(Keep::Some(*seed));
                }
            }
            opened = reopen(&disk, &options)?;
            prop_assert_eq!(opened.durable.hard_state, model.hard_state);
            let held: Vec<Entry> = all(&opened)?.iter().cloned().collect();
            prop_assert_eq!(&held, &model.log);
            let tail: Vec<Entry> = opened.durable.tail.iter().cloned().collect();
            prop_assert!(model.log.ends_with(&tail) && opened.durable.tail.cost() <= 2_000);
            let terms = model.log.iter().map(|entry| entry.term).collect::<Vec<_>>();
            let runs = opened.durable.runs.iter().flat_map(|run| {
                let next = opened.durable.runs.iter().find(|later| later.first > run.first);
                let end = next.map_or(model.log.len() as u64 + 1, |next| next.first.as_u64());
                std::iter::repeat_n(run.term, (end - run.first.as_u64()) as usize)
            });
            prop_assert_eq!(runs.collect::<Vec<_>>(), terms);
        }
    }
}
