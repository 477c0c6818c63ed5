//! Where the log can begin: at a segment, if all that counts from before it is known.

use std::collections::VecDeque;

use raft_core::{Index, Position};

use super::format::Link;

/// The beginning of a segment, and what came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) segment: u64,
    /// What its first group says that it follows on.
    pub(super) link: Link,
    /// The entry before its first one.
    pub(super) before: Position,
}

impl Start {
    /// Of a store that was just formatted.
    pub(super) const FRESH: Self = Self { segment: 1, link: Link::START, before: Position::ZERO };
}

/// The segments that the log could begin with, once what they follow on is needed no more.
///
/// Invariants: segments rise; each of `later` has a first group, which is durable and begins with
/// term and vote; no entry at or before `before` was replaced after the segment had begun, or
/// whoever reads from there on would find entries that follow on nothing.
#[derive(Debug)]
pub(super) struct Starts {
    first: Start,
    later: VecDeque<Start>,
}

impl Starts {
    pub(super) fn new(first: Start) -> Self {
        Self { first, later: VecDeque::new() }
    }

    /// Where it begins now.
    pub(super) fn first(&self) -> Start {
        self.first
    }

    /// A segment has got its first group.
    pub(super) fn begin(&mut self, start: Start) {
        if start.segment > self.first.segment {
            self.later.push_back(start);
        }
    }

    /// Entries from `from` on are replaced.
    pub(super) fn truncate(&mut self, from: Index) {
        self.later.retain(|start| start.before.index < from);
    }

    /// Everything up to `through` is needed no more: begins as late as that allows. Returns the new
    /// beginning if it has changed.
    pub(super) fn compact(&mut self, through: Index) -> Option<Start> {
        let newest = self.later.iter().rposition(|start| start.before.index <= through)?;
        self.first = self.later.drain(..=newest).next_back()?;
        Some(self.first)
    }
}

#[cfg(test)]
mod tests {
    use raft_core::Term;

    use super::*;

    fn start(segment: u64, before: u64) -> Start {
        let before = Position::new(Index::new(before), Term::new(1));
        Start { segment, link: Link { group: segment, chain: 0 }, before }
    }

    #[test]
    fn the_log_begins_as_late_as_it_may() {
        let mut starts = Starts::new(start(1, 0));
        starts.begin(start(1, 0));
        [start(2, 10), start(3, 20), start(5, 20), start(6, 30)].into_iter().for_each(|start| starts.begin(start));
        assert_eq!(starts.compact(Index::new(9)), None);
        assert_eq!(starts.compact(Index::new(19)), Some(start(2, 10)));
        assert_eq!(starts.compact(Index::new(20)), Some(start(5, 20)));
        assert_eq!(starts.compact(Index::new(29)), None);
        assert_eq!(starts.first(), start(5, 20));
    }

    #[test]
    fn it_does_not_begin_where_later_entries_would_follow_on_nothing() {
        let mut starts = Starts::new(start(1, 0));
        starts.begin(start(2, 10));
        starts.begin(start(3, 20));
        starts.truncate(Index::new(15));
        starts.begin(start(4, 14));
        assert_eq!(starts.compact(Index::new(13)), Some(start(2, 10)));
        assert_eq!(starts.compact(Index::new(100)), Some(start(4, 14)));
    }
}
