//! What the log holds and where: the terms of its entries, and a sparse index into its segments.

use raft_core::{Index, Position, Term, TermRun};

use super::format::SECTOR;

/// A new point is made after this many bytes: 16 bytes of memory for 64 KiB of log.
const STRIDE: u64 = (64 << 10) / SECTOR as u64;

/// Where a group starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) sector: u64,
}

/// From entry `first` on, and up to the next point, entries lie one after the other from `place`
/// on, with nothing in between but terms and votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    first: Index,
    place: Place,
}

/// What the log holds.
///
/// Invariants: `runs` and `points` rise strictly; unless the log is empty, `runs` begin with the
/// entry after `base`, and `points` with that or an earlier one; a stretch between two points lies
/// in one segment.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    base: Position,
    last: Index,
    runs: Vec<TermRun>,
    points: Vec<Point>,
}

impl Contents {
    /// An empty log that begins after `base`.
    pub(super) fn after(base: Position) -> Self {
        Self { base, last: base.index, runs: Vec::new(), points: Vec::new() }
    }

    /// The position before the first entry.
    pub(super) fn base(&self) -> Position {
        self.base
    }

    /// The position of the last entry; the base if there is none.
    pub(super) fn last(&self) -> Position {
        self.runs.last().map_or(self.base, |run| Position::new(self.last, run.term))
    }

    /// The terms of all entries.
    pub(super) fn runs(&self) -> &[TermRun] {
        &self.runs
    }

    /// The term of an entry that the log holds, or of its base.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        let runs = self.runs.partition_point(|run| run.first <= index);
        self.runs.get(runs.checked_sub(1)?).map(|run| run.term)
    }

    /// Whether a write may start with this entry: it follows on the log's end, or replaces what is
    /// there from its index on.
    pub(super) fn admits(&self, first: Position) -> bool {
        first.index > self.base.index && self.term(first.index.prev()).is_some_and(|before| before <= first.term)
    }

    /// Forgets the entries up to `through`, if it holds that one. Their memory is given back.
    pub(super) fn compact(&mut self, through: Index) {
        let Some(term) = self.term(through) else { return };
        self.base = Position::new(through, term);
        let first = through.next();
        if self.last == through {
            *self = Self::after(self.base);
            return;
        }
        // Those that the first entry still lies in stay.
        let gone = self.runs.partition_point(|run| run.first <= first).saturating_sub(1);
        self.runs.drain(..gone);
        if let Some(run) = self.runs.first_mut() {
            run.first = first;
        }
        let gone = self.points.partition_point(|point| point.first <= first).saturating_sub(1);
        self.points.drain(..gone);
        self.runs.shrink_to(self.runs.len().saturating_mul(2));
        self.points.shrink_to(self.points.len().saturating_mul(2));
    }

    /// A group at `place` holds entries from `first` on, which [`Self::admits`] has let through.
    pub(super) fn begin(&mut self, place: Place, first: Index) {
        let overwrites = first <= self.last;
        if overwrites {
            self.last = first.prev();
            self.runs.truncate(self.runs.partition_point(|run| run.first < first));
            self.points.truncate(self.points.partition_point(|point| point.first < first));
        }
        // Behind an overwritten entry the old ones still lie in the file, so a stretch ends there.
        let near = self.points.last().is_some_and(|Point { place: before, .. }| {
            before.segment == place.segment && place.sector - before.sector < STRIDE
        });
        if overwrites || !near {
            self.points.push(Point { first, place });
        }
    }

    /// The next entry of that group; whether it follows on the one before.
    #[must_use]
    pub(super) fn push(&mut self, position: Position) -> bool {
        let last = self.last();
        if position.index != last.index.next() || position.term < last.term {
            return false;
        }
        if position.term > last.term || self.runs.is_empty() {
            self.runs.push(TermRun { first: position.index, term: position.term });
        }
        self.last = position.index;
        true
    }

    /// From where to read to find an entry that the log holds, and the last entry of that stretch.
    pub(super) fn locate(&self, index: Index) -> Option<(Place, Index)> {
        if index <= self.base.index {
            return None;
        }
        let after = self.points.partition_point(|point| point.first <= index);
        let point = self.points.get(after.checked_sub(1)?)?;
        let through = self.points.get(after).map_or(self.last, |next| next.first.prev());
        (index <= through).then_some((point.place, through))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> Position {
        Position::new(Index::new(index), Term::new(term))
    }

    fn group(contents: &mut Contents, place: Place, positions: &[Position]) {
        if let Some(first) = positions.first() {
            assert!(contents.admits(*first));
            contents.begin(place, first.index);
        }
        for position in positions {
            assert!(contents.push(*position));
        }
    }

    const fn place(segment: u64, sector: u64) -> Place {
        Place { segment, sector }
    }

    #[test]
    fn an_overwrite_ends_the_stretch_before_it() {
        let mut contents = Contents::after(Position::ZERO);
        group(&mut contents, place(1, 1), &[at(1, 1), at(2, 1), at(3, 1), at(4, 1)]);
        group(&mut contents, place(1, 2), &[at(3, 2)]);
        assert_eq!(contents.locate(Index::new(2)), Some((place(1, 1), Index::new(2))));
        assert_eq!(contents.locate(Index::new(3)), Some((place(1, 2), Index::new(3))));
        assert_eq!(contents.locate(Index::new(4)), None);
        assert_eq!(contents.last(), at(3, 2));
        assert_eq!(contents.term(Index::new(2)), Some(Term::new(1)));
    }

    #[test]
    fn an_overwrite_of_everything_forgets_everything() {
        let mut contents = Contents::after(Position::ZERO);
        group(&mut contents, place(1, 1), &[at(1, 1), at(2, 2)]);
        group(&mut contents, place(1, 2), &[at(1, 3)]);
        assert_eq!(contents.runs(), [TermRun { first: Index::new(1), term: Term::new(3) }]);
        assert_eq!(contents.points.len(), 1);
    }

    #[test]
    fn points_are_sparse_and_start_anew_with_each_segment() {
        let mut contents = Contents::after(Position::ZERO);
        for index in 1..=1_000 {
            group(&mut contents, place(1, index), &[at(index, 1)]);
        }
        assert_eq!(contents.points.len(), 1_000_usize.div_ceil(STRIDE as usize));
        group(&mut contents, place(2, 1), &[at(1_001, 1)]);
        assert_eq!(contents.locate(Index::new(1_001)), Some((place(2, 1), Index::new(1_001))));
    }

    #[test]
    fn gaps_and_falling_terms_are_not_admitted() {
        let mut contents = Contents::after(Position::ZERO);
        group(&mut contents, place(1, 1), &[at(1, 4), at(2, 4)]);
        assert!(!contents.admits(at(4, 4)), "a gap");
        assert!(!contents.admits(at(3, 3)), "a term below the one before");
        assert!(!contents.admits(at(0, 4)), "before the beginning");
        assert!(contents.admits(at(3, 4)) && contents.admits(at(1, 1)));
    }

    #[test]
    fn what_is_compacted_is_forgotten_and_the_rest_is_where_it_was() {
        let mut whole = Contents::after(at(10, 2));
        for index in 11..=400 {
            group(&mut whole, place(1 + index / 100, index), &[at(index, 2 + index / 50)]);
        }
        for through in 10..=400 {
            let mut contents = whole.clone();
            contents.compact(Index::new(through));
            assert_eq!(
                contents.base(),
                Position::new(Index::new(through), whole.term(Index::new(through)).unwrap_or_default())
            );
            assert_eq!(contents.last(), whole.last());
            for index in 0..=402 {
                let index = Index::new(index);
                let (term, located) = (contents.term(index), contents.locate(index));
                assert_eq!(term, whole.term(index).filter(|_| index.as_u64() >= through), "{index} after {through}");
                assert_eq!(
                    located,
                    whole.locate(index).filter(|_| index.as_u64() > through),
                    "{index} after {through}"
                );
            }
            assert!(contents.runs().first().is_none_or(|run| run.first == Index::new(through + 1)));
            assert!(
                contents.points.len()
                    <= 1 + whole.points.iter().filter(|point| point.first > contents.base().index).count()
            );
            assert!(!contents.admits(at(through, 99)) && (contents.admits(at(through + 1, 99))));
            contents.compact(Index::new(through.saturating_sub(1)));
            assert_eq!(contents.base().index, Index::new(through), "what is gone stays gone");
        }
    }

    #[test]
    fn memory_of_what_was_compacted_is_given_back() {
        let mut contents = Contents::after(Position::ZERO);
        for index in 1..=10_000 {
            group(&mut contents, place(index, 1), &[at(index, index)]);
        }
        contents.compact(Index::new(9_990));
        assert!(contents.runs.capacity() <= 20 && contents.points.capacity() <= 22);
    }
}
