//! The checks of configurations notice what they are there for.

use std::sync::Arc;

use raft_core::{Change, Configuration, Effect, Entry, Membership, Outcome, Payload, RoleKind, StoreId};
use raft_sim::Invariant;
use raft_sim::checks::Verdict;
use raft_sim::checks::history::Errand;

use crate::rig::{Rig, at, blank, configuration_of, fired, founders, index, node, term};

fn entry(at: u64, in_term: u64, membership: &Membership) -> Entry {
    Entry { payload: Payload::Configuration(Arc::new(membership.clone())), ..blank(at, in_term) }
}

fn changed(changes: &[Change]) -> Membership {
    founders().changed(changes).expect("because tests change what can be changed")
}

fn remove(id: u64) -> Change {
    Change::Remove { node: node(id) }
}

const ADD: Change = Change::AddLearner { store: StoreId::new(77), promote: false };

/// n1 appends a configuration, in force at once.
fn append(rig: &mut Rig, entry: Entry) -> Verdict {
    let configuration = configuration_of(&entry).expect("because tests append configurations here");
    let persist = rig.persist(vec![entry]);
    rig.step(1, |_| {}, vec![Effect::Configured { configuration }, persist])
}

#[test]
fn one_more_learner_passes_and_an_operator_is_told_its_id() {
    let mut rig = Rig::new().with_leader();
    let request = rig.checks.history.begin_errand(node(1), Errand::Change { store: Some(StoreId::new(77)) });
    let entry = entry(2, 1, &changed(&[ADD]));
    assert_eq!(append(&mut rig, entry.clone()), Ok(()));
    rig.sync(1);
    rig.take(2, 1, vec![entry]);
    rig.sync(2);
    assert_eq!(rig.commit(1, 2), Ok(()));
    assert_eq!(rig.checks.commits.configuration().index, index(2));
    let told =
        |id| Effect::Reply { request, outcome: Outcome::Changed { configuration: index(2), node: Some(node(id)) } };
    assert_eq!(rig.step(1, |_| {}, vec![told(4)]), Ok(()));
}

#[test]
fn a_wrong_answer_to_an_operator_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let request = rig.checks.history.begin_errand(node(1), Errand::Change { store: Some(StoreId::new(77)) });
    let outcome = Outcome::Changed { configuration: index(1), node: Some(node(4)) };
    let verdict = rig.step(1, |_| {}, vec![Effect::Reply { request, outcome }]);
    assert_eq!(fired(verdict), Some(Invariant::RequestsEndOnce));
}

#[test]
fn a_node_that_stays_in_the_old_configuration_until_the_new_is_committed_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let persist = rig.persist(vec![entry(2, 1, &changed(&[ADD]))]);
    let configuration = Configuration { index: index(0), membership: founders() };
    let verdict = rig.step(1, |status| status.configuration = configuration, vec![persist]);
    assert_eq!(fired(verdict), Some(Invariant::Configurations));
}

#[test]
fn a_node_that_keeps_a_configuration_that_was_truncated_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let added = changed(&[ADD]);
    assert_eq!(append(&mut rig, entry(2, 1, &added)), Ok(()));
    rig.sync(1);
    rig.take(3, 1, vec![blank(1, 1)]);
    rig.sync(3);
    rig.elect(3, 2, 2);
    let newer = rig.vote(2, None);
    let overwrite = rig.persist(vec![blank(2, 2)]);
    let stale = Configuration { index: index(2), membership: Arc::new(added) };
    let verdict = rig.step_with(
        1,
        raft_sim::checks::Inbox { appends: true, ..Default::default() },
        |status| {
            status.role = RoleKind::Follower;
            status.configuration = stale;
        },
        vec![newer, overwrite],
    );
    assert_eq!(fired(verdict), Some(Invariant::Configurations));
}

#[test]
fn a_second_change_before_the_first_is_committed_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let first = changed(&[ADD]);
    assert_eq!(append(&mut rig, entry(2, 1, &first)), Ok(()));
    let second = first.changed(&[remove(3)]).expect("because n3 is a member");
    assert_eq!(fired(append(&mut rig, entry(3, 1, &second))), Some(Invariant::Configurations));
}

#[test]
fn a_change_of_two_voters_that_is_not_joint_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let shrunk = changed(&[remove(3)]);
    let twice = shrunk.changed(&[remove(2)]).expect("because n2 is a member");
    assert_eq!(fired(append(&mut rig, entry(2, 1, &twice))), Some(Invariant::Configurations));
}

#[test]
fn a_joint_configuration_that_leads_elsewhere_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let joint = changed(&[remove(2), remove(3)]);
    assert!(joint.is_joint());
    assert_eq!(append(&mut rig, entry(2, 1, &joint)), Ok(()));
    rig.sync(1);
    rig.take(2, 1, vec![entry(2, 1, &joint)]);
    rig.sync(2);
    assert_eq!(rig.commit(1, 2), Ok(()));
    assert_eq!(fired(append(&mut rig, entry(3, 1, &founders()))), Some(Invariant::Configurations));
}

#[test]
fn a_joint_configuration_that_only_its_new_half_has_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let joint = changed(&[remove(2), remove(3)]);
    assert_eq!(append(&mut rig, entry(2, 1, &joint)), Ok(()));
    rig.sync(1);
    // n1 alone is the new half; of the old one it takes another.
    assert_eq!(fired(rig.commit(1, 2)), Some(Invariant::CommitOnQuorum));
    // Nor may it be left because of that.
    let configuration = Configuration { index: index(3), membership: joint.left().into() };
    let persist = rig.persist(vec![entry(3, 1, &joint.left())]);
    let verdict =
        rig.step(1, |status| status.log.commit = index(2), vec![Effect::Configured { configuration }, persist]);
    assert_eq!(fired(verdict), Some(Invariant::Configurations));
}

#[test]
fn a_learner_that_is_counted_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let demoted = changed(&[Change::Demote { node: node(2) }]);
    assert_eq!(append(&mut rig, entry(2, 1, &demoted)), Ok(()));
    rig.sync(1);
    rig.take(2, 1, vec![entry(2, 1, &demoted)]);
    rig.sync(2);
    assert_eq!(fired(rig.commit(1, 2)), Some(Invariant::CommitOnQuorum));
    rig.take(3, 1, vec![blank(1, 1), entry(2, 1, &demoted)]);
    rig.sync(3);
    assert_eq!(rig.commit(1, 2), Ok(()));
}

#[test]
fn an_id_that_is_used_again_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let other = Membership::new(founders().voters().iter().map(|member| raft_core::Member {
        store: if member.node == node(3) { StoreId::new(99) } else { member.store },
        ..*member
    }));
    let other = other.expect("because the three differ");
    assert_eq!(fired(append(&mut rig, entry(2, 1, &other))), Some(Invariant::Configurations));
}

#[test]
fn a_leader_that_goes_on_after_its_removal_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let without = changed(&[remove(1)]);
    assert_eq!(append(&mut rig, entry(2, 1, &without)), Ok(()));
    for id in [2, 3] {
        rig.take(id, 1, if id == 2 { vec![entry(2, 1, &without)] } else { vec![blank(1, 1), entry(2, 1, &without)] });
        rig.sync(id);
    }
    assert_eq!(fired(rig.commit(1, 2)), Some(Invariant::Configurations));
    assert_eq!(rig.checks.logs.term_at(node(1), index(2)), Some(term(1)));
    assert_eq!(rig.checks.logs.last(node(1)), at(2, 1));
}
