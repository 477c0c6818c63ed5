//! Layer 1: what bytes cost, and where: under way, and in the log.

use alloc::collections::VecDeque;

use crate::types::Index;

/// What each batch costs until an index has passed it: bytes on their way somewhere.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    batches: VecDeque<(Index, u64)>,
    total: u64,
}

impl Ledger {
    /// A batch that ends at `last` sets out.
    pub(crate) fn charge(&mut self, last: Index, cost: u64) {
        self.total = self.total.saturating_add(cost);
        self.batches.push_back((last, cost));
    }

    /// Everything up to `through` has arrived.
    pub(crate) fn settle(&mut self, through: Index) {
        while let Some((_, cost)) = self.batches.front().copied().filter(|(last, _)| *last <= through) {
            self.total = self.total.saturating_sub(cost);
            self.batches.pop_front();
        }
    }

    /// Bytes on their way.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

/// How long the log is in bytes: exact at its end, and between coarse marks otherwise, so that
/// little is remembered of a long log.
///
/// Invariant: never without a mark; marks rise.
#[derive(Debug)]
pub(crate) struct Extent {
    /// At each index: the sum of all costs up to there.
    marks: VecDeque<(Index, u64)>,
    total: u64,
}

impl Extent {
    /// How far marks are apart.
    const GRAIN: u64 = 64 << 10;

    pub(crate) fn new(base: Index, last: Index, bytes: u64) -> Self {
        Self { marks: VecDeque::from([(base, 0), (last, bytes)]), total: bytes }
    }

    pub(crate) fn append(&mut self, last: Index, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if self.marks.back().is_none_or(|(_, sum)| self.total.saturating_sub(*sum) >= Self::GRAIN) {
            self.marks.push_back((last, self.total));
        }
    }

    /// Everything from `from` on is gone: so many bytes, if that is known. Otherwise what lies after
    /// the last mark before it is taken for gone as well.
    pub(crate) fn truncate_from(&mut self, from: Index, cost: Option<u64>) {
        while self.marks.len() > 1 && self.marks.back().is_some_and(|(index, _)| *index >= from) {
            self.marks.pop_back();
        }
        let marked = self.marks.back().map_or(0, |(_, sum)| *sum);
        self.total = cost.map_or(marked, |cost| self.total.saturating_sub(cost).max(marked));
    }

    pub(crate) fn compact(&mut self, through: Index) {
        while self.marks.get(1).is_some_and(|(index, _)| *index <= through) {
            self.marks.pop_front();
        }
    }

    /// Bytes after `index`, or a little more.
    pub(crate) fn after(&self, index: Index) -> u64 {
        let later = self.marks.partition_point(|(mark, _)| *mark <= index).max(1);
        let before = self.marks.get(later.saturating_sub(1)).map_or(0, |(_, sum)| *sum);
        self.total.saturating_sub(before)
    }

    /// The first mark after which there are at most `bytes`.
    pub(crate) fn first_within(&self, bytes: u64) -> Option<Index> {
        let limit = self.total.saturating_sub(bytes);
        let mark = self.marks.partition_point(|(_, sum)| *sum < limit);
        self.marks.get(mark).map(|(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_extent_is_right_to_within_a_grain_and_the_longest_entry(
            costs in proptest::collection::vec(1..40_000_u64, 1..60),
            (cut, from) in (0..60_u64, 0..60_u64),
        ) {
            let mut extent = Extent::new(Index::ZERO, Index::ZERO, 0);
            for (cost, index) in costs.iter().zip(1..) {
                extent.append(Index::new(index), *cost);
            }
            let bytes = |after: u64| costs.iter().skip(after as usize).sum::<u64>();
            extent.compact(Index::new(cut));
            let from = from.max(cut);
            let (found, exact) = (extent.after(Index::new(from)), bytes(from));
            prop_assert!(found >= exact && found <= exact + Extent::GRAIN + 40_000, "{found} for {exact}");
            if let Some(first) = extent.first_within(found) {
                prop_assert!(bytes(first.as_u64()) <= found);
            }
        }

        #[test]
        fn a_cut_extent_has_forgotten_at_most_a_grain(
            costs in proptest::collection::vec(1..40_000_u64, 1..60),
            kept in 0..60_usize,
        ) {
            let mut extent = Extent::new(Index::ZERO, Index::ZERO, 0);
            for (cost, index) in costs.iter().zip(1..) {
                extent.append(Index::new(index), *cost);
            }
            let gone = costs.iter().skip(kept).sum();
            let mut known = Extent { marks: extent.marks.clone(), total: extent.total };
            known.truncate_from(Index::new(kept as u64 + 1), Some(gone));
            extent.truncate_from(Index::new(kept as u64 + 1), None);
            let exact: u64 = costs.iter().take(kept).sum();
            let found = extent.after(Index::ZERO);
            prop_assert!(found <= exact && found + Extent::GRAIN + 40_000 >= exact, "{found} for {exact}");
            prop_assert_eq!(known.after(Index::ZERO), exact, "what is known is not guessed");
            let more: Vec<u64> = Vec::from([5, 6]);
            more.iter().for_each(|cost| extent.append(Index::new(99), *cost));
            prop_assert_eq!(extent.after(Index::ZERO), found + 11);
        }
    }

    #[test]
    fn a_ledger_holds_what_has_not_arrived() {
        let mut ledger = Ledger::default();
        for (last, cost) in [(3, 10), (5, 20), (9, 40)] {
            ledger.charge(Index::new(last), cost);
        }
        for (through, left) in [(2, 70), (3, 60), (8, 40), (9, 0), (20, 0)] {
            ledger.settle(Index::new(through));
            assert_eq!(ledger.total(), left, "after {through}");
        }
    }
}
