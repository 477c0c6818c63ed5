//! Layer 1: the arithmetic of majorities. Pure functions over values; who votes is decided elsewhere.

use crate::membership::Membership;

/// How a vote stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tally {
    /// A majority has said yes.
    Won,
    /// A majority can no longer say yes.
    Lost,
    /// Neither.
    Open,
}

/// Both halves of a joint configuration must agree, so the lower value counts (§6). A half without
/// voters has no say: with it, an ordinary configuration needs no case of its own.
pub(crate) fn both<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The same for votes: both halves must be won, and either can lose.
pub(crate) fn both_tallies(voters: Tally, outgoing: Option<Tally>) -> Tally {
    match (voters, outgoing) {
        (one, None) => one,
        (Tally::Lost, _) | (_, Some(Tally::Lost)) => Tally::Lost,
        (Tally::Won, Some(Tally::Won)) => Tally::Won,
        (Tally::Won | Tally::Open, Some(_)) => Tally::Open,
    }
}

/// The largest value that a majority has reached, each voter standing at its own value.
///
/// `None` for no voters: nobody has decided anything.
pub(crate) fn reached_by_majority<T: Ord + Copy>(values: impl Iterator<Item = T>) -> Option<T> {
    // Highest first; kept sorted while filling, so that nothing is allocated.
    let mut sorted: [Option<T>; Membership::VOTERS_MAX] = [None; Membership::VOTERS_MAX];
    let mut count = 0_usize;
    for value in values {
        let mut carried = Some(value);
        for slot in &mut sorted {
            // `None` sorts below every value.
            if carried > *slot {
                core::mem::swap(slot, &mut carried);
            }
        }
        count = count.saturating_add(1);
    }
    // The middle one, or with an even count the lower of the two: a majority stands at it or above.
    sorted.get(count / 2).copied().flatten()
}

/// Counts the votes of `voters` servers.
pub(crate) fn tally(voters: usize, granted: usize, refused: usize) -> Tally {
    let majority = voters / 2 + 1;
    if voters > 0 && granted >= majority {
        Tally::Won
    } else if refused > voters.saturating_sub(majority) {
        Tally::Lost
    } else {
        Tally::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// The definition, word for word: the largest value that more than half of the voters reach.
    fn reached_by_definition(values: &[u64]) -> Option<u64> {
        let reaches = |&candidate: &u64| values.iter().filter(|&&value| value >= candidate).count() * 2 > values.len();
        values.iter().copied().filter(reaches).max()
    }

    proptest! {
        #[test]
        fn a_majority_stands_at_the_value_that_the_definition_names(
            values in proptest::collection::vec(0_u64..6, 0..=Membership::VOTERS_MAX),
        ) {
            prop_assert_eq!(reached_by_majority(values.iter().copied()), reached_by_definition(&values));
        }

        #[test]
        fn a_vote_is_won_by_more_than_half_and_lost_when_that_is_out_of_reach(
            votes in proptest::collection::vec(proptest::option::of(any::<bool>()), 0..=Membership::VOTERS_MAX),
        ) {
            let granted = votes.iter().filter(|&&vote| vote == Some(true)).count();
            let refused = votes.iter().filter(|&&vote| vote == Some(false)).count();
            let open: Vec<_> = votes.iter().filter(|vote| vote.is_none()).collect();
            let expected = if granted * 2 > votes.len() {
                Tally::Won
            } else if votes.is_empty() || (granted + open.len()) * 2 > votes.len() {
                Tally::Open
            } else {
                Tally::Lost
            };
            prop_assert_eq!(tally(votes.len(), granted, refused), expected);
        }

        #[test]
        fn a_joint_majority_stands_at_what_both_halves_reach(
            new in proptest::collection::vec(0_u64..6, 1..=Membership::VOTERS_MAX),
            old in proptest::collection::vec(0_u64..6, 0..=Membership::VOTERS_MAX),
        ) {
            let reaches = |values: &[u64], at: u64| {
                values.is_empty() || values.iter().filter(|&&value| value >= at).count() * 2 > values.len()
            };
            let expected = (0..6).rev().find(|&at| reaches(&new, at) && reaches(&old, at));
            let half = |values: &[u64]| reached_by_majority(values.iter().copied());
            prop_assert_eq!(both(half(&new), half(&old)), expected);
            prop_assert_eq!(both(half(&old), half(&new)), expected);
        }

        #[test]
        fn a_joint_vote_is_won_by_both_and_lost_when_that_is_out_of_reach(
            votes in proptest::array::uniform7(proptest::option::of(any::<bool>())), new in 1..128_u8, old in 0..128_u8,
        ) {
            // Whether these voters would win, if everybody who has not said anything said `rest`.
            let wins = |half: u8, rest: bool| {
                let ballots: Vec<bool> =
                    (0..7).filter(|nth| half & 1 << nth != 0).map(|nth| votes[nth].unwrap_or(rest)).collect();
                ballots.is_empty() || ballots.iter().filter(|&&yes| yes).count() * 2 > ballots.len()
            };
            let all_win = |rest| wins(new, rest) && wins(old, rest);
            let expected = if all_win(false) { Tally::Won } else if all_win(true) { Tally::Open } else { Tally::Lost };
            let half = |half: u8| {
                let said = |what| (0..7).filter(|nth| half & 1 << nth != 0 && votes[*nth] == Some(what)).count();
                tally(half.count_ones() as usize, said(true), said(false))
            };
            prop_assert_eq!(both_tallies(half(new), (old != 0).then(|| half(old))), expected);
        }
    }

    /// Whether this set of servers decides in a configuration: one bit a server.
    fn decides(servers: u8, new: u8, old: u8) -> bool {
        let half = |half: u8| tally(half.count_ones() as usize, (servers & half).count_ones() as usize, 0);
        both_tallies(half(new), (old != 0).then(|| half(old))) == Tally::Won
    }

    #[test]
    fn whoever_decides_while_joint_overlaps_with_whoever_decides_before_and_after() {
        for (new, old) in (1..32_u8).flat_map(|new| (1..32_u8).map(move |old| (new, old))) {
            for servers in (0..32_u8).filter(|servers| decides(*servers, new, old)) {
                for half in [new, old] {
                    let disjoint = (0..32_u8).find(|other| decides(*other, half, 0) && other & servers == 0);
                    assert_eq!(disjoint, None, "{servers:b} decides in {new:b} with {old:b}");
                }
            }
        }
    }
}
