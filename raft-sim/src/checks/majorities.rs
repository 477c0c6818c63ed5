//! Majorities, counted from what the checks have seen themselves; and the configurations in which
//! they decide.

use std::sync::Arc;

use raft_core::{Effect, Member, Membership, NodeId};

use super::Step;

/// Whether a majority of the voters agrees; while joint, a majority of each half. Nobody decides
/// anything where there are no voters.
pub(crate) fn decides(membership: &Membership, agrees: impl Fn(NodeId) -> bool) -> bool {
    let majority = |voters: &[Member]| {
        let yes = voters.iter().filter(|voter| agrees(voter.node)).count();
        yes * 2 > voters.len()
    };
    majority(membership.voters()) && (!membership.is_joint() || majority(membership.outgoing()))
}

/// The configurations that were in force during a step, the oldest first.
pub(crate) fn in_force<'a>(step: &Step<'a>) -> impl DoubleEndedIterator<Item = &'a Arc<Membership>> {
    let newer = step.effects.iter().filter_map(|effect| match effect {
        Effect::Configured { configuration } => Some(&configuration.membership),
        _ => None,
    });
    std::iter::once(&step.before.configuration.membership).chain(newer)
}
