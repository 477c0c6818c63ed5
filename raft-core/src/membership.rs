//! Layer 0: who belongs to the cluster, and how that changes. §6; Thesis 4; contract M1–M3.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::error::{ChangeError, MembershipError};
use crate::types::{Index, NodeId, StoreId};

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

/// A member that is sent the log and has no vote (Thesis 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Learner {
    /// Who.
    pub member: Member,
    /// Whether the leader makes it a voter as soon as it has caught up.
    pub promote: bool,
}

/// A configuration of the cluster (§6): the servers whose majority decides, and those that learn.
///
/// While a change of several voters is under way it is *joint*: a majority of the new voters and
/// one of the outgoing ones must agree to everything.
///
/// Invariants: all three lists are sorted by node id; within `voters` and `learners` together,
/// and within `outgoing`, no id and no store appears twice; an outgoing voter that stays has the
/// same store; every id is below `next_id`. It may be empty: a node that has not joined yet
/// belongs to nothing and never campaigns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Membership {
    voters: Vec<Member>,
    outgoing: Vec<Member>,
    learners: Vec<Learner>,
    next_id: u64,
}

/// One wish for the next configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Change {
    /// Take in the server with this store as a learner, under a new id.
    AddLearner {
        /// Its store; the same store is never added twice.
        store: StoreId,
        /// Whether to make it a voter as soon as it has caught up.
        promote: bool,
    },
    /// Make this learner a voter.
    Promote {
        /// The learner.
        node: NodeId,
    },
    /// Make this voter a learner.
    Demote {
        /// The voter.
        node: NodeId,
    },
    /// Let this member go. Its id is never used again.
    Remove {
        /// The member.
        node: NodeId,
    },
}

/// Nothing, and nobody.
impl Default for Membership {
    fn default() -> Self {
        Self { voters: Vec::new(), outgoing: Vec::new(), learners: Vec::new(), next_id: 1 }
    }
}

impl Membership {
    /// The most voters that a configuration may have; more would make every write wait for the
    /// slowest of too many.
    pub const VOTERS_MAX: usize = 9;

    /// The most learners that a configuration may have.
    pub const LEARNERS_MAX: usize = 32;

    /// A configuration of these voters.
    ///
    /// # Errors
    /// If a node or a store appears twice, or there are more than [`Self::VOTERS_MAX`].
    pub fn new(voters: impl IntoIterator<Item = Member>) -> Result<Self, MembershipError> {
        let mut voters: Vec<Member> = voters.into_iter().take(Self::VOTERS_MAX.saturating_add(1)).collect();
        voters.sort_unstable();
        let next_id = voters.last().map_or(1, |member| member.node.as_u64().saturating_add(1));
        Self { voters, next_id, ..Self::default() }.checked()
    }

    /// Itself, if it is one.
    fn checked(self) -> Result<Self, MembershipError> {
        if self.voters.len().max(self.outgoing.len()) > Self::VOTERS_MAX {
            return Err(MembershipError::TooManyVoters { max: Self::VOTERS_MAX });
        }
        if self.learners.len() > Self::LEARNERS_MAX {
            return Err(MembershipError::TooManyLearners { max: Self::LEARNERS_MAX });
        }
        let learners = self.learners.iter().map(|learner| learner.member);
        let incoming: Vec<Member> = self.voters.iter().copied().chain(learners).collect();
        all_different(&incoming)?;
        all_different(&self.outgoing)?;
        for old in &self.outgoing {
            let clash = incoming.iter().find(|new| (new.node == old.node) != (new.store == old.store));
            if let Some(new) = clash {
                return Err(MembershipError::DuplicateStore { first: old.node, second: new.node });
            }
        }
        let highest = incoming.iter().chain(&self.outgoing).map(|member| member.node.as_u64()).max().unwrap_or(0);
        if self.next_id <= highest {
            return Err(MembershipError::IdReused { next: self.next_id, highest });
        }
        let sorted = self.voters.is_sorted() && self.outgoing.is_sorted() && self.learners.is_sorted();
        if sorted { Ok(self) } else { Err(MembershipError::Unsorted) }
    }

    /// The voters, sorted by id; while joint, the new ones.
    pub fn voters(&self) -> &[Member] {
        &self.voters
    }

    /// While joint, the voters of the configuration before, sorted by id; otherwise none.
    pub fn outgoing(&self) -> &[Member] {
        &self.outgoing
    }

    /// The learners, sorted by id. While joint, one of them may still vote, as an outgoing voter.
    pub fn learners(&self) -> &[Learner] {
        &self.learners
    }

    /// Whether a change of several voters is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The id that the next new member gets. It only grows, so no id is ever used twice.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Everybody who is sent the log, each once: new voters, then outgoing ones, then learners.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        let leaving = self.outgoing.iter().filter(|old| !self.voters.contains(old));
        let learning = self.learners.iter().map(|learner| &learner.member);
        self.voters.iter().chain(leaving).chain(learning.filter(|member| !self.outgoing.contains(member))).copied()
    }

    /// The member with this id.
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.members().find(|member| member.node == node)
    }

    /// The member with this store.
    pub fn member_by_store(&self, store: StoreId) -> Option<Member> {
        self.members().find(|member| member.store == store)
    }

    /// The voter with this id; while joint, of either half.
    pub fn voter(&self, node: NodeId) -> Option<&Member> {
        self.voters.iter().chain(&self.outgoing).find(|member| member.node == node)
    }

    /// Whether `node`, speaking with `store`, is a voter: a member's id with another store under
    /// it is somebody else.
    pub fn is_voter(&self, node: NodeId, store: StoreId) -> bool {
        self.voter(node).is_some_and(|member| member.store == store)
    }

    /// The configuration after these changes: joint if they concern more than one voter, because
    /// then the old and the new majorities need not overlap (§6, Thesis 4.3).
    ///
    /// # Errors
    /// If one of the changes cannot be made, or the result is no configuration.
    pub fn changed(&self, changes: &[Change]) -> Result<Self, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::Unfinished);
        }
        let mut next = self.clone();
        for change in changes {
            next.change(*change)?;
        }
        next.voters.sort_unstable();
        next.learners.sort_unstable();
        if next.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        if next == *self {
            return Err(ChangeError::Nothing);
        }
        let gone = self.voters.iter().filter(|member| !next.voters.contains(member)).count();
        let new = next.voters.iter().filter(|member| !self.voters.contains(member)).count();
        if gone.saturating_add(new) > 1 {
            next.outgoing.clone_from(&self.voters);
        }
        next.checked().map_err(ChangeError::Invalid)
    }

    fn change(&mut self, change: Change) -> Result<(), ChangeError> {
        match change {
            Change::AddLearner { store, promote } => {
                if let Some(member) = self.member_by_store(store) {
                    return Err(ChangeError::AlreadyMember { node: member.node });
                }
                let node = NodeId::new(self.next_id).ok_or(ChangeError::IdsExhausted)?;
                self.next_id = self.next_id.checked_add(1).ok_or(ChangeError::IdsExhausted)?;
                self.learners.push(Learner { member: Member { node, store }, promote });
            }
            Change::Promote { node } => {
                let learner = take(&mut self.learners, |learner| learner.member.node == node);
                self.voters.push(learner.ok_or(ChangeError::NotLearner { node })?.member);
            }
            Change::Demote { node } => {
                let member = take(&mut self.voters, |member| member.node == node);
                let member = member.ok_or(ChangeError::NotVoter { node })?;
                self.learners.push(Learner { member, promote: false });
            }
            Change::Remove { node } => {
                let voter = take(&mut self.voters, |member| member.node == node);
                let learner = take(&mut self.learners, |learner| learner.member.node == node);
                if voter.is_none() && learner.is_none() {
                    return Err(ChangeError::NotMember { node });
                }
            }
        }
        Ok(())
    }

    /// The configuration that a joint one leads to (§6: from C-old,new to C-new).
    #[must_use]
    pub fn left(&self) -> Self {
        Self { outgoing: Vec::new(), ..self.clone() }
    }

    /// Bytes to charge for it in memory and on the wire.
    pub(crate) fn cost(&self) -> u64 {
        let members = self.voters.len().saturating_add(self.outgoing.len()).saturating_add(self.learners.len());
        // An id, a store id, a flag.
        (members as u64).saturating_mul(32)
    }
}

fn take<T>(list: &mut Vec<T>, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
    let place = list.iter().position(is_wanted)?;
    Some(list.remove(place))
}

fn all_different(members: &[Member]) -> Result<(), MembershipError> {
    for (nth, member) in members.iter().enumerate() {
        for later in members.iter().skip(nth.saturating_add(1)) {
            if member.node == later.node {
                return Err(MembershipError::DuplicateNode { node: member.node });
            }
            if member.store == later.store {
                return Err(MembershipError::DuplicateStore { first: member.node, second: later.node });
            }
        }
    }
    Ok(())
}

/// `{n1 n2 n3}`, `{n2 n3 | n1 n2}` while joint, `{n1 +n4}` with a learner.
impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        f.write_str("{")?;
        for member in &self.voters {
            write!(f, "{gap}{}", member.node)?;
            gap = " ";
        }
        for learner in &self.learners {
            write!(f, "{gap}+{}", learner.member.node)?;
            gap = " ";
        }
        if self.is_joint() {
            f.write_str(" |")?;
            self.outgoing.iter().try_for_each(|member| write!(f, " {}", member.node))?;
        }
        f.write_str("}")
    }
}

/// Checks what [`Membership::new`] checks: a configuration that was read is as valid as one that was made.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Membership {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Unchecked {
            voters: Vec<Member>,
            outgoing: Vec<Member>,
            learners: Vec<Learner>,
            next_id: u64,
        }
        let Unchecked { voters, outgoing, learners, next_id } = Unchecked::deserialize(deserializer)?;
        Self { voters, outgoing, learners, next_id }.checked().map_err(serde::de::Error::custom)
    }
}

/// A configuration, and the index of the entry that set it, which is its name: the
/// configuration's id in [`Event::ChangeMembership`](crate::Event::ChangeMembership).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Configuration {
    /// Where in the log it was set; where the log begins, for the one from before.
    pub index: Index,
    /// What it says.
    pub membership: Arc<Membership>,
}

/// The configuration at the log's beginning, and all that the log has set since, committed or
/// not: each is in force from the moment it is appended, and rolled back when it is truncated
/// (contract M2, Thesis 4.1).
///
/// Invariant: never empty; indices rise.
#[derive(Debug)]
pub(crate) struct Configurations {
    list: Vec<Configuration>,
}

impl Configurations {
    pub(crate) fn new(first: Configuration, rest: Vec<Configuration>) -> Self {
        let mut list = rest;
        list.insert(0, first);
        Self { list }
    }

    /// The one in force.
    pub(crate) fn latest(&self) -> &Configuration {
        self.list.last().unwrap_or_else(|| unreachable!("there is always a configuration"))
    }

    /// Whether one of those that are known is like that.
    pub(crate) fn any(&self, is_wanted: impl Fn(&Membership) -> bool) -> bool {
        self.list.iter().any(|configuration| is_wanted(&configuration.membership))
    }

    /// The one before it, if that is known.
    pub(crate) fn before_latest(&self) -> Option<&Configuration> {
        self.list.iter().rev().nth(1)
    }

    /// The one in force at `index`, which is not before the first.
    pub(crate) fn at(&self, index: Index) -> &Configuration {
        self.list.iter().rev().find(|configuration| configuration.index <= index).unwrap_or_else(|| self.latest())
    }

    /// Forgets those that were out of force by `through`.
    pub(crate) fn compact(&mut self, through: Index) {
        let first = self.list.partition_point(|configuration| configuration.index <= through).saturating_sub(1);
        self.list.drain(..first);
    }

    /// Starts anew with one. Returns whether the one in force has changed.
    pub(crate) fn reset(&mut self, first: Configuration) -> bool {
        let changed = *self.latest() != first;
        self.list.clear();
        self.list.push(first);
        changed
    }

    /// A new one takes effect.
    pub(crate) fn push(&mut self, configuration: Configuration) {
        let latest = self.latest().index;
        assert!(configuration.index > latest, "configuration {} set after {latest}", configuration.index);
        self.list.push(configuration);
    }

    /// The log is cut before `from`. Returns whether the one in force has changed.
    pub(crate) fn truncate_from(&mut self, from: Index) -> bool {
        let kept = self.list.partition_point(|configuration| configuration.index < from).max(1);
        let changed = kept < self.list.len();
        self.list.truncate(kept);
        changed
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

    /// A change, by numbers that are often those of members.
    fn wish() -> impl Strategy<Value = Change> {
        let node = || (1..9_u64).prop_map(|node| member(node, 0).node);
        prop_oneof![
            (0..12_u128, any::<bool>())
                .prop_map(|(store, promote)| Change::AddLearner { store: StoreId::new(store), promote }),
            node().prop_map(|node| Change::Promote { node }),
            node().prop_map(|node| Change::Demote { node }),
            node().prop_map(|node| Change::Remove { node }),
        ]
    }

    /// What each member is, by its id: `None` for a voter, otherwise whether it is to be promoted.
    type Model = alloc::collections::BTreeMap<NodeId, (StoreId, Option<bool>)>;

    fn model_of(membership: &Membership) -> Model {
        let voters = membership.voters.iter().map(|voter| (voter.node, (voter.store, None)));
        let learner = |learner: &Learner| (learner.member.node, (learner.member.store, Some(learner.promote)));
        voters.chain(membership.learners.iter().map(learner)).collect()
    }

    /// The same by the words of the changes.
    fn changed_by_definition(model: &mut Model, next_id: &mut u64, wish: Change) -> Result<(), ChangeError> {
        match wish {
            Change::AddLearner { store, promote } => match model.iter().find(|(_, (known, _))| *known == store) {
                Some((node, _)) => return Err(ChangeError::AlreadyMember { node: *node }),
                None => {
                    model.insert(member(*next_id, 0).node, (store, Some(promote)));
                    *next_id += 1;
                }
            },
            Change::Promote { node } => match model.get_mut(&node) {
                Some((_, learns @ Some(_))) => *learns = None,
                Some((_, None)) | None => return Err(ChangeError::NotLearner { node }),
            },
            Change::Demote { node } => match model.get_mut(&node) {
                Some((_, learns @ None)) => *learns = Some(false),
                Some((_, Some(_))) | None => return Err(ChangeError::NotVoter { node }),
            },
            Change::Remove { node } => {
                model.remove(&node).ok_or(ChangeError::NotMember { node })?;
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_change_leads_where_its_words_say(
            founders in 1..5_u64, before in proptest::collection::vec(wish(), 0..8),
            wishes in proptest::collection::vec(wish(), 0..4),
        ) {
            let mut base = Membership::new((1..=founders).map(|id| member(id, u128::from(id)))).expect("each once");
            for wish in before {
                base = base.changed(&[wish]).map_or(base, |next| next.left());
            }
            let (mut model, mut next_id) = (model_of(&base), base.next_id);
            let by_words = wishes.iter().try_for_each(|wish| changed_by_definition(&mut model, &mut next_id, *wish));
            let made = base.changed(&wishes);
            if let Err(error) = by_words {
                prop_assert_eq!(made, Err(error));
                return Ok(());
            }
            let votes = |model: &Model| -> alloc::collections::BTreeSet<(NodeId, StoreId)> {
                model.iter().filter(|(_, (_, learns))| learns.is_none()).map(|(node, (store, _))| (*node, *store)).collect()
            };
            let (old, new) = (votes(&model_of(&base)), votes(&model));
            let is_joint = old.symmetric_difference(&new).count() > 1;
            let renamed = |(node, store): &(NodeId, StoreId)| {
                model.iter().any(|(other, (same, _))| same == store && other != node)
            };
            if new.is_empty() {
                prop_assert_eq!(made, Err(ChangeError::NoVoters));
            } else if model == model_of(&base) && next_id == base.next_id {
                prop_assert_eq!(made, Err(ChangeError::Nothing));
            } else if is_joint && old.iter().any(renamed) {
                // A store that leaves under one name and comes under another would vote in both halves.
                let is_refused = matches!(made, Err(ChangeError::Invalid(MembershipError::DuplicateStore { .. })));
                prop_assert!(is_refused, "{made:?}");
            } else {
                let made = made.expect("nothing speaks against it");
                prop_assert_eq!(model_of(&made), model.clone());
                prop_assert_eq!(made.next_id, next_id);
                prop_assert_eq!(made.is_joint(), is_joint);
                let outgoing: alloc::collections::BTreeSet<_> =
                    made.outgoing.iter().map(|voter| (voter.node, voter.store)).collect();
                prop_assert_eq!(outgoing, if is_joint { old } else { Default::default() });
                let left = made.left();
                prop_assert_eq!((model_of(&left), left.next_id, left.is_joint()), (model, next_id, false));
                // Everybody is sent the log once.
                let everybody: Vec<Member> = made.members().collect();
                prop_assert_eq!(all_different(&everybody), Ok(()));
                for gone in base.voters.iter().chain(&made.voters) {
                    prop_assert_eq!(made.member(gone.node) == Some(*gone), is_joint || made.voters.contains(gone)
                        || made.learners.iter().any(|learner| learner.member == *gone));
                    prop_assert_eq!(made.voter(gone.node).is_some(), is_joint || made.voters.contains(gone));
                }
                prop_assert!(made.clone().checked().is_ok());
                prop_assert!(!is_joint || made.changed(&[]) == Err(ChangeError::Unfinished));
            }
        }
    }

    #[test]
    fn configurations_that_no_change_leads_to_are_refused() {
        let base = Membership::new([member(1, 1), member(2, 2)]).expect("each once");
        let learner = |node, store| Learner { member: member(node, store), promote: false };
        let check = |change: &dyn Fn(&mut Membership)| {
            let mut broken = base.clone();
            change(&mut broken);
            broken.checked().map(|_| ())
        };
        let (first, second) = (member(1, 1).node, member(2, 2).node);
        assert_eq!(check(&|_| ()), Ok(()));
        assert_eq!(check(&|broken| broken.voters.reverse()), Err(MembershipError::Unsorted));
        assert_eq!(check(&|broken| broken.next_id = 2), Err(MembershipError::IdReused { next: 2, highest: 2 }));
        let twice = MembershipError::DuplicateNode { node: second };
        assert_eq!(check(&|broken| broken.learners.push(learner(2, 9))), Err(twice.clone()));
        assert_eq!(check(&|broken| broken.outgoing = alloc::vec![member(2, 2); 2]), Err(twice));
        // An outgoing voter that stays is the same disk; one that leaves takes its disk along.
        let replaced = MembershipError::DuplicateStore { first, second: first };
        assert_eq!(check(&|broken| broken.outgoing.push(member(1, 9))), Err(replaced));
        let renamed = MembershipError::DuplicateStore { first: member(3, 2).node, second };
        assert_eq!(check(&|broken| broken.outgoing.push(member(3, 2))), Err(renamed));
        let many = (10..50).map(|id| learner(id, u128::from(id)));
        let too_many = MembershipError::TooManyLearners { max: 32 };
        assert_eq!(check(&|broken| broken.learners.extend(many.clone())), Err(too_many));
    }

    #[test]
    fn rule_m1_when_every_id_is_given_away_nobody_is_added() {
        let full = Membership { next_id: u64::MAX, ..Membership::new([member(1, 1)]).expect("one") };
        let wish = Change::AddLearner { store: StoreId::new(9), promote: false };
        assert_eq!(full.changed(&[wish]), Err(ChangeError::IdsExhausted));
    }

    #[test]
    fn configurations_are_printed_in_the_shared_notation() {
        use alloc::string::ToString as _;
        let five = Membership::new((1..=3).map(|id| member(id, u128::from(id)))).expect("each once");
        let learner = Change::AddLearner { store: StoreId::new(9), promote: true };
        let next = five.changed(&[learner]).expect("one more");
        assert_eq!([five.to_string(), next.to_string()], ["{n1 n2 n3}", "{n1 n2 n3 +n4}"]);
        let gone = [1, 2].map(|id| Change::Remove { node: member(id, 0).node });
        assert_eq!(next.changed(&gone).expect("two less").to_string(), "{n3 +n4 | n1 n2 n3}");
        assert_eq!(Membership::default().to_string(), "{}");
    }

    #[test]
    fn rule_m2_truncation_brings_back_what_was_in_force_before() {
        let configuration = |index: u64| Configuration { index: Index::new(index), membership: Arc::default() };
        for (from, latest, changed) in [(8, 7, false), (7, 4, true), (5, 4, true), (4, 0, true), (1, 0, true)] {
            let mut all = Configurations::new(configuration(0), [4, 7].map(configuration).into());
            assert_eq!(all.truncate_from(Index::new(from)), changed, "from {from}");
            assert_eq!(all.latest().index, Index::new(latest), "from {from}");
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
