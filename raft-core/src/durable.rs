//! Layer 2: what storage found when it was opened.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::entry::Entries;
use crate::error::DurableError;
use crate::membership::{Configuration, Membership};
use crate::types::{Boot, ClusterId, HardState, Index, NodeId, Peer, Position, StoreId, Term};

/// Who a store says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Identity {
    /// The cluster that it was formatted for.
    pub cluster: ClusterId,
    /// The member that it was formatted for.
    pub node: NodeId,
    /// Its own name.
    pub store: StoreId,
    /// Which life this is; already raised durably when the store was opened.
    pub boot: Boot,
}

impl Identity {
    /// The part that other servers see.
    pub fn peer(&self) -> Peer {
        Peer { node: self.node, store: self.store, boot: self.boot }
    }
}

/// Successive entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TermRun {
    /// The index of its first entry.
    pub first: Index,
    /// Its term.
    pub term: Term,
}

/// What a snapshot of the state machine stands for. Two snapshots that end at the same position
/// are of the same state, whoever made them (§5.3), so the position is their name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SnapshotMeta {
    /// The last entry that it covers.
    pub last: Position,
    /// The configuration in force there.
    pub configuration: Configuration,
    /// How large it is; 0 while that is not known yet.
    pub bytes: u64,
}

/// No cluster counts to here; whatever says it did is damaged. It leaves room to count on.
const NUMBER_MAX: u64 = 1 << 62;

/// Everything that a node must not have forgotten: what storage found when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Who this is.
    pub identity: Identity,
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the log begins: the position before its first entry, `0@0` in a new cluster.
    pub base: Position,
    /// The newest snapshot, if there is one. The log holds its last entry, or begins there.
    pub snapshot: Option<SnapshotMeta>,
    /// The configuration as of `base`; a new cluster is formatted with its first one, and a
    /// server that is to join one with none.
    pub configuration: Configuration,
    /// The configurations that entries after `base` have set, in order.
    pub configurations: Vec<Configuration>,
    /// What a durable state machine has applied already; 0 for one that lives in memory.
    pub applied: Index,
    /// The last index of the log; that of `base` when the log is empty.
    pub last: Index,
    /// The terms of all entries after `base`, in order.
    pub runs: Vec<TermRun>,
    /// What the entries after `base` cost in all ([`Entry::cost`](crate::Entry::cost)); a rough
    /// figure is enough.
    pub bytes: u64,
    /// The newest entries, as many as fit into the log cache; empty is allowed.
    pub tail: Entries,
}

impl Durable {
    /// What a store holds that was formatted for its node and has never run: nothing but who it
    /// is and who belongs to the cluster.
    pub fn first_boot(identity: Identity, membership: Membership) -> Self {
        Self {
            identity,
            hard_state: HardState::default(),
            base: Position::ZERO,
            snapshot: None,
            configuration: Configuration { index: Index::ZERO, membership: Arc::new(membership) },
            configurations: Vec::new(),
            applied: Index::ZERO,
            last: Index::ZERO,
            runs: Vec::new(),
            bytes: 0,
            tail: Entries::EMPTY,
        }
    }

    /// The position of the last entry.
    pub fn last_position(&self) -> Position {
        self.runs.last().map_or(self.base, |run| Position::new(self.last, run.term))
    }

    /// The term of the entry at `index`, once the runs are known to be in order.
    fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let run = self.runs.iter().rev().find(|run| run.first <= index);
        run.filter(|_| index > self.base.index && index <= self.last).map(|run| run.term)
    }

    /// Whether this can be the state of a correct node.
    pub(crate) fn validate(&self) -> Result<(), DurableError> {
        let Identity { node, store, .. } = self.identity;
        let known = self.configurations.iter().chain([&self.configuration]);
        let listed = known.map(|known| &known.membership).find_map(|membership| membership.member(node));
        if let Some(member) = listed.filter(|member| member.store != store) {
            return Err(DurableError::ForeignStore { node, expected: member.store, found: store });
        }
        if self.configuration.index > self.base.index {
            return Err(DurableError::ConfigurationsOutOfOrder { at: self.configuration.index });
        }
        let mut before = self.base.index;
        for Configuration { index, .. } in &self.configurations {
            if *index <= before || *index > self.last {
                return Err(DurableError::ConfigurationsOutOfOrder { at: *index });
            }
            before = *index;
        }
        let snapshot = self.snapshot.as_ref().map_or(Position::ZERO, |meta| meta.last);
        if snapshot.index < self.base.index {
            return Err(DurableError::Compacted { base: self.base, snapshot });
        }
        if self.hard_state.term.as_u64() > NUMBER_MAX || self.last.as_u64() > NUMBER_MAX {
            return Err(DurableError::Absurd { term: self.hard_state.term, last: self.last });
        }
        let mut expected_first = Some(self.base.index.next());
        let mut previous = self.base.term;
        for run in &self.runs {
            let first_fits = expected_first.take().is_none_or(|first| run.first == first);
            if !first_fits || run.first > self.last || run.term < previous {
                return Err(DurableError::RunsOutOfOrder { at: run.first });
            }
            previous = run.term;
        }
        let rising = self.runs.windows(2).all(|pair| matches!(pair, [a, b] if a.first < b.first && a.term < b.term));
        if !rising || (self.runs.is_empty() && self.last != self.base.index) {
            return Err(DurableError::RunsOutOfOrder { at: self.last });
        }
        let last = self.last_position();
        if last.term > self.hard_state.term {
            return Err(DurableError::TermBehindLog { last, term: self.hard_state.term });
        }
        let agrees = self.tail.iter().all(|entry| {
            let run = self.runs.iter().rev().find(|run| run.first <= entry.index);
            run.is_some_and(|run| run.term == entry.term)
        });
        if !agrees || self.tail.last().is_some_and(|entry| entry.position() != last) {
            return Err(DurableError::TailMismatch { last });
        }
        if self.term_at(snapshot.index) != Some(snapshot.term) {
            return Err(DurableError::SnapshotNotInLog { snapshot });
        }
        if self.applied < self.base.index {
            return Err(DurableError::AppliedBeforeLog { applied: self.applied, base: self.base });
        }
        if self.applied > self.last {
            return Err(DurableError::AppliedBeyondLog { applied: self.applied, last: self.last });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, Payload};
    use crate::membership::Member;
    use alloc::vec;
    use proptest::prelude::*;

    fn node(id: u64) -> NodeId {
        NodeId::new(id).expect("tests name nodes from 1 on")
    }

    fn run(first: u64, term: u64) -> TermRun {
        TermRun { first: Index::new(first), term: Term::new(term) }
    }

    fn entries(from: u64, terms: &[u64]) -> Entries {
        let entry = |(index, term): (u64, &u64)| Entry {
            term: Term::new(*term),
            index: Index::new(index),
            payload: Payload::Blank,
        };
        Entries::new((from..).zip(terms).map(entry).collect()).expect("tests write entries in order")
    }

    /// A log of 1@1 2@1 3@4 4@4 5@4, the last two in memory.
    fn sound() -> Durable {
        let store = StoreId::new(1);
        Durable {
            identity: Identity { cluster: ClusterId::new(7), node: node(1), store, boot: Boot::new(3) },
            hard_state: HardState { term: Term::new(5), voted_for: None, floor: None },
            base: Position::ZERO,
            snapshot: None,
            configuration: Configuration {
                index: Index::ZERO,
                membership: Membership::new([Member { node: node(1), store }]).expect("one member").into(),
            },
            configurations: Vec::new(),
            applied: Index::new(2),
            last: Index::new(5),
            runs: vec![run(1, 1), run(3, 4)],
            bytes: 160,
            tail: entries(4, &[4, 4]),
        }
    }

    fn error(change: impl FnOnce(&mut Durable)) -> Option<DurableError> {
        let mut durable = sound();
        change(&mut durable);
        durable.validate().err()
    }

    #[test]
    fn what_a_correct_server_leaves_behind_is_taken() {
        assert_eq!(sound().validate(), Ok(()));
        assert_eq!(sound().last_position(), Position::new(Index::new(5), Term::new(4)));
        assert_eq!(error(|durable| durable.tail = Entries::EMPTY), None, "nothing has to be in memory");
        assert_eq!(error(|durable| durable.tail = entries(1, &[1, 1, 4, 4, 4])), None);
        assert_eq!(
            error(|durable| durable.configuration.membership = Membership::default().into()),
            None,
            "not joined yet"
        );
        assert_eq!(error(|durable| durable.applied = Index::new(5)), None);
        let first_boot = |durable: &mut Durable| {
            (durable.runs, durable.last, durable.applied) = (Vec::new(), Index::ZERO, Index::ZERO);
            (durable.tail, durable.hard_state) = (Entries::EMPTY, HardState::default());
        };
        assert_eq!(error(first_boot), None);
    }

    #[test]
    fn rule_d10_what_no_correct_server_leaves_behind_is_refused_by_name() {
        let last = Position::new(Index::new(5), Term::new(4));
        let (expected, found) = (StoreId::new(1), StoreId::new(2));
        assert_eq!(
            error(|durable| durable.identity.store = found),
            Some(DurableError::ForeignStore { node: node(1), expected, found })
        );
        assert_eq!(
            error(|durable| durable.hard_state.term = Term::new(3)),
            Some(DurableError::TermBehindLog { last, term: Term::new(3) })
        );
        let (applied, end) = (Index::new(6), Index::new(5));
        assert_eq!(
            error(|durable| durable.applied = applied),
            Some(DurableError::AppliedBeyondLog { applied, last: end })
        );
        for tail in [entries(4, &[4]), entries(3, &[3, 4, 4]), entries(5, &[4, 4]), entries(0, &[0, 1, 1, 4, 4, 4])] {
            assert_eq!(error(|durable| durable.tail = tail), Some(DurableError::TailMismatch { last }));
        }
    }

    #[test]
    fn rule_d10_term_runs_with_a_gap_or_out_of_order_are_refused() {
        let out_of_order: [(Vec<TermRun>, u64); 7] = [
            (vec![], 5),
            (vec![run(2, 1), run(3, 4)], 2),
            (vec![run(1, 4), run(3, 1)], 3),
            (vec![run(1, 1), run(1, 4)], 5),
            (vec![run(1, 4), run(3, 4)], 5),
            (vec![run(1, 1), run(3, 2), run(2, 4)], 5),
            (vec![run(1, 1), run(6, 4)], 6),
        ];
        for (runs, at) in out_of_order {
            let found = error(|durable| durable.runs = runs.clone());
            assert_eq!(found, Some(DurableError::RunsOutOfOrder { at: Index::new(at) }), "{runs:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_makes_a_log_that_can_be_used(
            runs in proptest::collection::vec((0..8_u64, 0..5_u64), 0..4),
            (last, applied, term) in (0..8_u64, 0..8_u64, 0..6_u64),
            (from, terms) in (0..8_u64, proptest::collection::vec(0..5_u64, 0..4)),
        ) {
            let mut terms = terms;
            terms.sort_unstable();
            let mut durable = sound();
            durable.runs = runs.iter().map(|(first, term)| run(*first, *term)).collect();
            (durable.last, durable.applied) = (Index::new(last), Index::new(applied));
            (durable.hard_state.term, durable.tail) = (Term::new(term), entries(from, &terms));
            if durable.validate().is_ok() {
                let log = crate::log::Log::new(&durable);
                prop_assert_eq!(log.last(), durable.last_position());
                prop_assert!((1..=last).all(|index| log.term_at(Index::new(index)).is_some()));
                prop_assert!(log.agrees_with(&durable.tail));
                let first = durable.tail.first().map_or(durable.last.next(), |entry| entry.index);
                prop_assert_eq!(log.cached_from(), first);
            }
        }
    }
}
