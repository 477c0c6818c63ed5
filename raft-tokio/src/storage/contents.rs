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
/// Invariants: `runs` and `points` rise strictly; both begin with entry 1 unless the log is
/// empty; a stretch between two points lies in one segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    last: Index,
    runs: Vec<TermRun>,
    points: Vec<Point>,
}

impl Contents {
    /// The position of the last entry; `0@0` if there is none.
    pub(super) fn last(&self) -> Position {
        self.runs.last().map_or(Position::ZERO, |run| Position::new(self.last, run.term))
    }

    /// The terms of all entries.
    pub(super) fn runs(&self) -> &[TermRun] {
        &self.runs
    }

    /// The term of an entry that the log holds; term 0 before the first.
    pub(super) fn term(&self, index: Index) -> Option<Term> {
        if index > self.last {
            return None;
        }
        let runs = self.runs.partition_point(|run| run.first <= index);
        Some(runs.checked_sub(1).and_then(|nth| self.runs.get(nth)).map_or(Term::ZERO, |run| run.term))
    }

    /// Whether a write may start with this entry: it follows on the log's end, or replaces what is
    /// there from its index on.
    pub(super) fn admits(&self, first: Position) -> bool {
        first.index > Index::ZERO && self.term(first.index.prev()).is_some_and(|before| before <= first.term)
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
        let mut contents = Contents::default();
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
        let mut contents = Contents::default();
        group(&mut contents, place(1, 1), &[at(1, 1), at(2, 2)]);
        group(&mut contents, place(1, 2), &[at(1, 3)]);
        assert_eq!(contents.runs(), [TermRun { first: Index::new(1), term: Term::new(3) }]);
        assert_eq!(contents.points.len(), 1);
    }

    #[test]
    fn points_are_sparse_and_start_anew_with_each_segment() {
        let mut contents = Contents::default();
        for index in 1..=1_000 {
            group(&mut contents, place(1, index), &[at(index, 1)]);
        }
        assert_eq!(contents.points.len(), 1_000_usize.div_ceil(STRIDE as usize));
        group(&mut contents, place(2, 1), &[at(1_001, 1)]);
        assert_eq!(contents.locate(Index::new(1_001)), Some((place(2, 1), Index::new(1_001))));
    }

    #[test]
    fn gaps_and_falling_terms_are_not_admitted() {
        let mut contents = Contents::default();
        group(&mut contents, place(1, 1), &[at(1, 4), at(2, 4)]);
        assert!(!contents.admits(at(4, 4)), "a gap");
        assert!(!contents.admits(at(3, 3)), "a term below the one before");
        assert!(!contents.admits(at(0, 4)), "before the beginning");
        assert!(contents.admits(at(3, 4)) && contents.admits(at(1, 1)));
    }
}
