//! Who belongs to the cluster: contract M1, M2, M5, E2, E3; Thesis 4.

use raft_core::{Change, ChangeError, Event, MembershipError, RoleKind, StoreId};

use crate::members::{
    add, add_voter, adding, change, changed, demote, done, not_changed, promote, remove, removed, setting,
    with_learners,
};
use crate::rig::{
    Start, append, append_reply, apply, at, blank, commit_notice, configured, entries, entries_of, heartbeat, index,
    membership, node, persist, persist_vote, propose, received, rejected, reply, send, store, unknown,
};

#[test]
fn rule_m2_a_change_is_in_force_from_the_moment_it_is_appended() {
    let mut server = Start::first_of_three().settled_leader();
    let next = with_learners(&[1, 2, 3], &[4]);
    let new = entries([setting(2, 1, &next)]);
    let sent = append(1, 2, at(1, 1), 1, new.clone());
    assert_eq!(
        server.step(change(7, 0, &[add(4)])),
        [configured(2, next), persist(3, new.clone()), send(2, sent.clone()), send(3, sent.clone()), send(4, sent)]
    );
    assert_eq!(server.persisted(3), []);
    assert_eq!(
        server.receive(3, append_reply(1, 2, 2)),
        [done(7, 2, 4), send(3, commit_notice(1, 2)), apply(new, &[])],
        "the answer comes when it is committed, and names the new member"
    );
}

#[test]
fn rule_m2_a_new_learner_is_supplied_from_where_it_stands() {
    let mut server = adding();
    assert_eq!(server.progress(4), (0, 2, true, 1));
    let all = entries([blank(1, 1), setting(2, 1, &with_learners(&[1, 2, 3], &[4]))]);
    assert_eq!(server.receive(4, rejected(1, 2, 1, at(0, 0), 0)), [send(4, append(1, 3, at(0, 0), 1, all))]);
    server.receive(4, append_reply(1, 3, 2));
    assert_eq!(server.progress(4), (2, 3, false, 0));
    assert_eq!(server.status().log.commit, index(1), "a learner's acknowledgement commits nothing");
}

#[test]
fn rule_m1_a_store_is_added_once_however_often_it_is_asked_for() {
    let mut server = adding();
    assert_eq!(server.step(change(8, 0, &[add(4)])), [not_changed(8, ChangeError::Unfinished)]);
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    assert_eq!(
        server.step(change(9, 0, &[add(4)])),
        [done(9, 2, 4)],
        "its first answer was lost, and so is `expected`"
    );
    assert_eq!(server.step(change(10, 0, &[add_voter(2)])), [done(10, 2, 2)], "a founder is a member too");
}

#[test]
fn rule_m1_ids_are_never_used_twice() {
    let mut server = adding();
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    server.step(change(8, 2, &[remove(4)]));
    server.persisted(4);
    assert!(server.receive(2, append_reply(1, 3, 3)).contains(&done(8, 3, None)));
    server.step(change(9, 3, &[Change::AddLearner { store: store(4), promote: false }]));
    let members = server.status().configuration.membership;
    assert_eq!(members.member_by_store(store(4)).map(|member| member.node), Some(node(5)), "the same disk, a new name");
    assert_eq!(members.next_id(), 6);
}

#[test]
fn rule_m1_a_joiner_belongs_to_nothing_takes_the_log_and_learns_who_it_is() {
    let mut joiner = Start::new(4, &[]).server();
    assert_eq!(joiner.raft.deadline(), None);
    let next = with_learners(&[1, 2, 3], &[4]);
    let log = entries([blank(1, 1), setting(2, 1, &next)]);
    assert_eq!(
        joiner.receive(1, append(1, 2, at(0, 0), 2, log.clone())),
        [configured(2, next), persist_vote(1, 1, None, log.clone())]
    );
    assert_eq!(joiner.persisted(1), [send(1, append_reply(1, 2, 2)), apply(log, &[])]);
    joiner.wait(10_000);
    assert_eq!(joiner.step(Event::Tick), [], "a learner never campaigns");
}

#[test]
fn regress_t067_no_change_before_a_commit_in_the_leaders_own_term() {
    let mut server = Start::first_of_three().log(&[1]).leader();
    assert_eq!(server.step(change(7, 0, &[add(4)])), [not_changed(7, ChangeError::TooEarly)]);
    server.persisted(2);
    assert_eq!(server.step(change(8, 0, &[add(4)])), [not_changed(8, ChangeError::TooEarly)]);
    server.receive(2, append_reply(2, 1, 2));
    let effects = server.step(change(9, 0, &[add(4)]));
    assert_eq!(effects.first(), Some(&configured(3, with_learners(&[1, 2, 3], &[4]))));
}

#[test]
fn rule_m2_no_change_while_the_configuration_of_an_earlier_leader_is_not_committed() {
    let start = Start::first_of_three().log(&[1, 1]).change(2, with_learners(&[1, 2, 3], &[4]));
    let mut server = start.leader();
    server.persisted(2);
    assert_eq!(server.step(change(7, 2, &[remove(4)])), [not_changed(7, ChangeError::TooEarly)]);
    server.receive(2, append_reply(2, 1, 3));
    let effects = server.step(change(8, 2, &[remove(4)]));
    assert_eq!(effects.first(), Some(&configured(4, removed(&with_learners(&[1, 2, 3], &[4]), 4))));
}

#[test]
fn regress_t073_every_reason_not_to_change_is_named_and_appends_nothing() {
    let start = Start::first_of_three().members(with_learners(&[1, 2, 3], &[4]));
    let mut server = start.settled_leader();
    let learner_and_voter = ChangeError::AlreadyMember { node: node(2) };
    let too_many: Vec<Change> =
        (0..32).map(|nth| Change::AddLearner { store: StoreId::new(9_000 + nth), promote: false }).collect();
    let invalid = ChangeError::Invalid(MembershipError::TooManyLearners { max: 32 });
    let cases: Vec<(u64, Vec<Change>, ChangeError)> = vec![
        (9, vec![add(5)], ChangeError::Outdated { expected: index(9), latest: index(0) }),
        (0, vec![], ChangeError::Nothing),
        (0, vec![demote(3), promote(3)], ChangeError::Nothing),
        (0, vec![add(2), remove(3)], learner_and_voter),
        (0, vec![promote(2)], ChangeError::NotLearner { node: node(2) }),
        (0, vec![promote(9)], ChangeError::NotLearner { node: node(9) }),
        (0, vec![demote(4)], ChangeError::NotVoter { node: node(4) }),
        (0, vec![remove(9)], ChangeError::NotMember { node: node(9) }),
        (0, vec![promote(4)], ChangeError::NotCaughtUp { node: node(4) }),
        (0, vec![remove(1), remove(2), remove(3)], ChangeError::NoVoters),
        (0, too_many, invalid),
    ];
    for (expected, changes, error) in cases {
        assert_eq!(server.step(change(7, expected, &changes)), [not_changed(7, error)], "{changes:?}");
    }
    assert_eq!(server.status().log.last, at(1, 1));
}

#[test]
fn rule_m2_only_one_change_at_a_time() {
    let mut server = adding();
    assert_eq!(server.step(change(8, 2, &[add(5)])), [not_changed(8, ChangeError::Unfinished)]);
    assert_eq!(server.step(change(9, 0, &[add(5)])), [not_changed(9, ChangeError::Unfinished)]);
}

#[test]
fn regress_t072_a_member_that_is_added_in_the_same_breath_is_no_voter_before_it_has_caught_up() {
    let mut server = Start::first_of_three().settled_leader();
    let error = ChangeError::NotCaughtUp { node: node(4) };
    assert_eq!(server.step(change(7, 0, &[add(4), promote(4)])), [not_changed(7, error)]);
}

// ---- roll-back -----------------------------------------------------------------------------

#[test]
fn rule_m2_a_truncated_configuration_is_rolled_back() {
    let next = with_learners(&[1, 2, 3], &[4]);
    let mut server = Start::first_of_three().log(&[1]).follower_of(2);
    let new = entries([setting(2, 1, &next)]);
    assert_eq!(server.receive(2, append(1, 2, at(1, 1), 0, new.clone())), [configured(2, next), persist(1, new)]);
    let other = entries_of(2, &[2]);
    assert_eq!(
        server.receive(3, append(2, 1, at(1, 1), 0, other.clone())),
        [configured(0, membership(&[1, 2, 3])), persist_vote(2, 2, None, other)],
        "E3: whoever connects to peers must hear of it"
    );
    assert_eq!(server.status().configuration.index, index(0));
}

#[test]
fn rule_e3_a_configuration_that_replaces_another_is_told_after_the_roll_back() {
    let first = with_learners(&[1, 2, 3], &[4]);
    let second = removed(&membership(&[1, 2, 3]), 3);
    let mut server = Start::first_of_three().log(&[1, 1]).change(2, first).follower_of(2);
    let other = entries([setting(2, 2, &second)]);
    assert_eq!(
        server.receive(2, append(2, 1, at(1, 1), 0, other.clone())),
        [configured(0, membership(&[1, 2, 3])), configured(2, second), persist_vote(1, 2, None, other)]
    );
}

#[test]
fn regress_t069_a_restart_finds_the_uncommitted_configuration_and_rolls_it_back_when_it_is_truncated() {
    let next = with_learners(&[1, 2, 3], &[4]);
    // `server` asserts that the first step says that 2@1 is in force.
    let mut server = Start::first_of_three().log(&[1, 1]).change(2, next).term(2).follower_of(3);
    let other = entries_of(2, &[2]);
    assert_eq!(
        server.receive(3, append(2, 1, at(1, 1), 0, other.clone())),
        [configured(0, membership(&[1, 2, 3])), persist(1, other)]
    );
}

#[test]
fn regress_t069_several_configurations_are_rolled_back_at_once() {
    let first = with_learners(&[1, 2, 3], &[4]);
    let second = changed(&first, &[remove(3)]);
    let start = Start::first_of_three().log(&[1, 1, 1, 1]).change(2, first.clone()).change(3, second);
    let mut server = start.clone().follower_of(2);
    let other = entries_of(4, &[2]);
    server.receive(2, append(2, 1, at(3, 1), 0, other));
    assert_eq!(server.status().configuration.index, index(3), "what stays in the log stays in force");
    let mut server = start.clone().follower_of(2);
    server.receive(2, append(2, 1, at(2, 1), 0, entries_of(3, &[2])));
    assert_eq!(server.status().configuration, crate::rig::configuration(2, &first));
    let mut server = start.follower_of(2);
    server.receive(2, append(2, 1, at(1, 1), 0, entries_of(2, &[2])));
    assert_eq!(server.status().configuration, crate::rig::configuration(0, &membership(&[1, 2, 3])));
}

#[test]
fn rule_e2_a_change_whose_leader_is_deposed_ends_as_unknown() {
    let mut server = adding();
    let effects = server.receive(2, heartbeat(2, 1, 0));
    assert_eq!(effects.first(), Some(&reply(7, unknown(2))));
    assert_eq!(server.status().configuration.index, index(2), "the entry is still here, and in force");
}

// ---- batches -------------------------------------------------------------------------------

#[test]
fn rule_m5_what_is_committed_counts_before_a_change_is_judged() {
    let mut server = Start::first_of_three().leader();
    server.persisted(2);
    let effects = server.batch([received(2, append_reply(1, 1, 1)), change(7, 0, &[add(4)])]);
    assert_eq!(effects.first(), Some(&configured(2, with_learners(&[1, 2, 3], &[4]))), "{effects:?}");
}

#[test]
fn regress_e2_a_change_that_is_complete_is_answered_before_the_next_one_begins() {
    let mut server = adding();
    server.persisted(3);
    let effects = server.batch([received(2, append_reply(1, 2, 2)), change(8, 2, &[remove(4)])]);
    assert!(effects.contains(&done(7, 2, 4)), "the first one is forgotten: {effects:?}");
    assert!(effects.contains(&configured(3, removed(&with_learners(&[1, 2, 3], &[4]), 4))));
    server.persisted(4);
    assert!(server.receive(2, append_reply(1, 3, 3)).contains(&done(8, 3, None)));
}

#[test]
fn regress_b2_a_change_takes_its_place_after_the_proposals_before_it() {
    let one_by_one = |at_once: bool| {
        let mut server = Start::first_of_three().settled_leader();
        let events = [propose(6), change(7, 0, &[add(4)])];
        if at_once {
            server.batch(events);
        } else {
            events.into_iter().for_each(|event| drop(server.step(event)));
        }
        server.status().configuration.index
    };
    assert_eq!((one_by_one(false), one_by_one(true)), (index(3), index(3)));
}

#[test]
fn regress_m5_a_leader_that_is_no_member_any_more_begins_no_further_change() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[remove(1)]));
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    let effects = server.batch([received(3, append_reply(1, 2, 2)), change(8, 2, &[add(4)])]);
    assert!(effects.contains(&done(7, 2, None)), "{effects:?}");
    assert!(effects.contains(&reply(8, crate::rig::not_leader(None))), "{effects:?}");
    assert_eq!(server.role(), (1, RoleKind::Follower));
}
