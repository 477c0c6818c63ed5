//! Layer 1: who belongs to the cluster.

use alloc::vec::Vec;

use crate::error::MembershipError;
use crate::types::{NodeId, StoreId};

/// One member of a configuration: its id, and the store that it joined with. Votes and
/// acknowledgements count only from that store (contract V9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Member {
    /// The member's id.
    pub node: NodeId,
    /// The store that it joined with.
    pub store: StoreId,
}

/// A configuration of the cluster (§6): the servers whose majority decides.
///
/// Invariants: sorted by node id, no id and no store twice. It may be empty: a node that has
/// not joined yet belongs to nothing and never campaigns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Membership {
    voters: Vec<Member>,
}

impl Membership {
    /// The most voters that a configuration may have; more would make every write wait for the
    /// slowest of too many.
    pub const VOTERS_MAX: usize = 9;

    /// A configuration of these voters.
    ///
    /// # Errors
    /// If a node or a store appears twice, or there are more than [`Self::VOTERS_MAX`].
    pub fn new(voters: impl IntoIterator<Item = Member>) -> Result<Self, MembershipError> {
        let mut voters: Vec<Member> = voters.into_iter().take(Self::VOTERS_MAX + 1).collect();
        if voters.len() > Self::VOTERS_MAX {
            return Err(MembershipError::TooManyVoters { max: Self::VOTERS_MAX });
        }
        voters.sort_unstable();
        for (nth, member) in voters.iter().enumerate() {
            for later in voters.iter().skip(nth + 1) {
                if member.node == later.node {
                    return Err(MembershipError::DuplicateNode { node: member.node });
                }
                if member.store == later.store {
                    return Err(MembershipError::DuplicateStore { first: member.node, second: later.node });
                }
            }
        }
        Ok(Self { voters })
    }

    /// The voters, sorted by id.
    pub fn voters(&self) -> &[Member] {
        &self.voters
    }

    /// The voter with this id.
    pub fn voter(&self, node: NodeId) -> Option<&Member> {
        self.voters.iter().find(|member| member.node == node)
    }

    /// Whether `node`, speaking with `store`, is a voter: a member's id with another store under
    /// it is somebody else.
    pub fn is_voter(&self, node: NodeId, store: StoreId) -> bool {
        self.voter(node).is_some_and(|member| member.store == store)
    }
}

/// Checks what [`Membership::new`] checks: a configuration that was read is as valid as one that was made.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Membership {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Unchecked {
            voters: Vec<Member>,
        }
        let Unchecked { voters } = Unchecked::deserialize(deserializer)?;
        Self::new(voters).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(node: u64, store: u128) -> Member {
        Member { node: NodeId::new(node).expect("tests name nodes from 1 on"), store: StoreId::new(store) }
    }

    proptest! {
        #[test]
        fn a_configuration_has_each_node_and_each_store_once(
            list in proptest::collection::vec((1..12_u64, 0..40_u128), 0..12),
        ) {
            let members: Vec<Member> = list.iter().map(|(node, store)| member(*node, *store)).collect();
            let distinct = |count: usize| count == members.len();
            let nodes: alloc::collections::BTreeSet<_> = members.iter().map(|member| member.node).collect();
            let stores: alloc::collections::BTreeSet<_> = members.iter().map(|member| member.store).collect();
            let valid = distinct(nodes.len()) && distinct(stores.len()) && members.len() <= Membership::VOTERS_MAX;
            let made = Membership::new(members.iter().copied());
            prop_assert_eq!(made.is_ok(), valid);
            if let Ok(membership) = made {
                prop_assert!(membership.voters().is_sorted());
                for member in &members {
                    prop_assert_eq!(membership.voter(member.node), Some(member));
                    prop_assert!(membership.is_voter(member.node, member.store));
                    prop_assert!(!membership.is_voter(member.node, StoreId::new(99)), "another disk is somebody else");
                }
                prop_assert_eq!(membership.voters().len(), members.len());
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_configuration_is_named() {
        let new = |members: &[Member]| Membership::new(members.iter().copied()).map(|_| ());
        let (first, second) = (member(1, 1).node, member(2, 2).node);
        assert_eq!(new(&[]), Ok(()), "a node that has not joined belongs to nothing");
        assert_eq!(new(&[member(1, 1), member(1, 2)]), Err(MembershipError::DuplicateNode { node: first }));
        assert_eq!(new(&[member(2, 1), member(1, 1)]), Err(MembershipError::DuplicateStore { first, second }));
        let ten: Vec<Member> = (1..=10).map(|id| member(id, u128::from(id))).collect();
        assert_eq!(new(&ten), Err(MembershipError::TooManyVoters { max: 9 }));
        assert_eq!(new(&ten[1..]), Ok(()));
    }
}
