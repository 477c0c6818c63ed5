//! Layer 2: what storage found when it was opened.

use alloc::vec::Vec;

use crate::entry::Entries;
use crate::error::DurableError;
use crate::membership::Membership;
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
    /// The configuration as of `base`; a new cluster is formatted with its first one.
    pub membership: Membership,
    /// What a durable state machine has applied already; 0 for one that lives in memory.
    pub applied: Index,
    /// The last index of the log; that of `base` when the log is empty.
    pub last: Index,
    /// The terms of all entries after `base`, in order.
    pub runs: Vec<TermRun>,
    /// The newest entries, as many as fit into the log cache; empty is allowed.
    pub tail: Entries,
}

impl Durable {
    /// The position of the last entry.
    pub fn last_position(&self) -> Position {
        self.runs.last().map_or(self.base, |run| Position::new(self.last, run.term))
    }

    /// Whether this can be the state of a correct node.
    pub(crate) fn validate(&self) -> Result<(), DurableError> {
        let Identity { node, store, .. } = self.identity;
        if let Some(member) = self.membership.voter(node).filter(|member| member.store != store) {
            return Err(DurableError::ForeignStore { node, expected: member.store, found: store });
        }
        if self.base != Position::ZERO {
            return Err(DurableError::Compacted { base: self.base });
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
        if self.applied > self.last {
            return Err(DurableError::AppliedBeyondLog { applied: self.applied, last: self.last });
        }
        Ok(())
    }
}
