//! Who led the cluster, as far as anybody saw.

use std::collections::BTreeMap;

use raft_tokio::core::{NodeId, Term};

use crate::cli::health::Finding;

/// The leaders that nodes spoke of when they were asked, by their terms.
///
/// Terms alone would not tell: an election that nobody wins takes one as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaders {
    seen: BTreeMap<Term, NodeId>,
    last: Option<Term>,
}

impl Leaders {
    /// Takes note of what the nodes said.
    pub(crate) fn note(&mut self, findings: &[Finding]) {
        for status in findings.iter().filter_map(|finding| finding.answer.as_ref().ok()) {
            self.last = self.last.max(Some(status.term));
            if let Some(leader) = status.leader {
                self.seen.insert(status.term, leader);
            }
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.seen.len() as u64
    }

    /// `n1 in term 1, n3 in term 4; 2 terms without a leader`.
    pub(crate) fn described(&self) -> String {
        let seen: Vec<String> = self.seen.iter().map(|(term, leader)| format!("{leader} in term {term}")).collect();
        let mut text = seen.join(", ");
        // Terms count from 1.
        let terms = self.last.map_or(0, Term::as_u64);
        match terms.saturating_sub(self.count()) {
            0 => {}
            1 => text.push_str("; 1 term without a leader"),
            without => text.push_str(&format!("; {without} terms without a leader")),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use raft_tokio::core::RoleKind::{Candidate, Follower, Leader};

    use super::*;
    use crate::cli::health::tests::answer;

    #[test]
    fn regress_a_term_that_nobody_won_is_no_leader_elected() {
        let mut leaders = Leaders::default();
        leaders.note(&[answer(1, Leader, 1, Some(1)), answer(2, Follower, 1, Some(1)), answer(3, Follower, 1, None)]);
        leaders.note(&[answer(2, Candidate, 3, None), answer(3, Follower, 3, None)]);
        assert_eq!((leaders.count(), leaders.described()), (1, "n1 in term 1; 2 terms without a leader".to_owned()));
        leaders.note(&[answer(2, Follower, 4, None), answer(3, Leader, 4, Some(3))]);
        leaders.note(&[answer(1, Follower, 4, Some(3)), answer(2, Follower, 4, Some(3))]);
        let described = "n1 in term 1, n3 in term 4; 2 terms without a leader";
        assert_eq!((leaders.count(), leaders.described()), (2, described.to_owned()));
    }
}
