//! Who belongs to the cluster: contract M1–M5, E3; Thesis 4.

use raft_core::{Change, ChangeError, Effect, Entries, Event, Membership, MembershipError, RoleKind, Rpc, StoreId};

use crate::members::{
    add, add_voter, change, changed, demote, done, not_changed, promote, remove, resigned, setting, timeout_now,
    with_learners,
};
use crate::rig::{
    Lone, Start, append, append_reply, apply, at, blank, commit_notice, configured, entries, entries_of, heartbeat,
    heartbeat_reply, index, membership, node, persist, persist_vote, pre_vote, pre_vote_reply, proposal, propose,
    received, rejected, reply, send, store, unknown, vote_reply,
};
use raft_core::Verdict::{Granted, LeaderAlive};

const NONE: Entries = Entries::EMPTY;

/// A leader of {1 2 3} that has appended {1 2 3 +4} as 2@1, which is not committed.
fn adding() -> Lone {
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[add(4)]));
    server
}

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

fn removed(membership: &Membership, id: u64) -> Membership {
    changed(membership, &[remove(id)])
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

// ---- removal -------------------------------------------------------------------------------

#[test]
fn rule_m4_a_removed_member_gets_the_entry_after_it_is_committed() {
    let mut server = Start::first_of_three().settled_leader();
    let next = removed(&membership(&[1, 2, 3]), 3);
    let new = entries([setting(2, 1, &next)]);
    assert_eq!(
        server.step(change(7, 0, &[remove(3)])),
        [configured(2, next), persist(3, new.clone()), send(2, append(1, 2, at(1, 1), 1, new.clone()))],
        "3 might campaign on the strength of it, or by its own vote keep others from winning"
    );
    server.persisted(3);
    assert_eq!(
        server.receive(2, append_reply(1, 2, 2)),
        [
            done(7, 2, None),
            send(2, commit_notice(1, 2)),
            send(3, append(1, 3, at(1, 1), 2, new.clone())),
            apply(new, &[])
        ]
    );
    assert!(server.status().peers.iter().any(|peer| peer.node == node(3) && !peer.is_member));
    assert_eq!(server.receive(3, append_reply(1, 3, 2)), []);
    assert!(server.status().peers.iter().all(|peer| peer.node != node(3)), "it knows; that is all");
}

#[test]
fn rule_m4_a_removed_member_that_does_not_answer_is_given_up() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[remove(3)]));
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    let began = server.now;
    let is_known = |server: &Lone| server.status().peers.iter().any(|peer| peer.node == node(3));
    let mut newest = 3;
    while is_known(&server) && server.now.since(began).as_secs() < 10 {
        let effects = server.tick();
        for effect in &effects {
            if let Effect::Send { rpc: Rpc::Heartbeat { round, .. }, .. } = effect {
                newest = round.as_u64();
            }
        }
        server.receive(2, heartbeat_reply(1, newest, 2, 2));
    }
    assert_eq!(server.now.since(began).as_millis(), 3_000, "ten election timeouts");
    assert_eq!(server.role(), (1, RoleKind::Leader));
    server.propose(8);
    assert!(server.status().peers.iter().all(|peer| peer.node == node(2)));
}

#[test]
fn rule_m4_a_removed_member_gets_nothing_that_comes_after() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[remove(3)]));
    server.propose(8);
    server.persisted(4);
    let effects = server.receive(2, append_reply(1, 3, 3));
    let farewell = append(1, 4, at(1, 1), 3, entries([setting(2, 1, &removed(&membership(&[1, 2, 3]), 3))]));
    assert!(effects.contains(&send(3, farewell)), "{effects:?}");
}

#[test]
fn regress_t064_a_removed_leader_does_not_count_itself() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[remove(1)]));
    server.persisted(3);
    assert_eq!(server.receive(2, append_reply(1, 2, 2)), [], "one of {{2 3}}, and the leader, which is none");
    assert_eq!(server.status().log.commit, index(1));
}

#[test]
fn regress_t074_a_removed_leader_finishes_the_change_hands_over_and_steps_down() {
    let mut server = Start::first_of_three().settled_leader();
    let next = removed(&membership(&[1, 2, 3]), 1);
    server.step(change(7, 0, &[remove(1)]));
    server.propose(8);
    server.persisted(4);
    server.receive(2, append_reply(1, 3, 3));
    assert_eq!(
        server.receive(3, append_reply(1, 3, 3)),
        [
            done(7, 2, None),
            send(2, commit_notice(1, 3)),
            send(3, commit_notice(1, 3)),
            apply(entries([setting(2, 1, &next), proposal(3, 1, 8)]), &[(3, 8)]),
            send(2, timeout_now(1)),
            send(3, resigned(1)),
        ],
        "what is committed is told, and answered, before it leaves; after that it is silent"
    );
    assert_eq!(server.role(), (1, RoleKind::Follower));
    assert_eq!(server.raft.deadline(), None, "it never runs again, and sends no heartbeat");
}

#[test]
fn rule_m4_a_demoted_leader_hands_over_too() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[demote(1)]));
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    let effects = server.receive(3, append_reply(1, 2, 2));
    assert!(effects.contains(&send(2, timeout_now(1))), "{effects:?}");
    assert_eq!(server.role(), (1, RoleKind::Follower));
    assert_eq!(server.receive(2, heartbeat(2, 1, 0)).first(), Some(&send(2, heartbeat_reply(2, 1, 0, 0))));
}

#[test]
fn regress_t065_a_smaller_quorum_commits_what_waits_at_once() {
    let mut server = Start::new(1, &[1, 2, 3, 4]).settled_leader();
    server.propose(6);
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    assert_eq!(server.status().log.commit, index(1), "two of four");
    let effects = server.step(change(7, 0, &[remove(4)]));
    assert!(effects.contains(&apply(entries([proposal(2, 1, 6)]), &[(2, 6)])), "two of three: {effects:?}");
}

#[test]
fn regress_t076_the_dead_one_of_two_can_be_removed_only_by_one_that_it_does_not_need() {
    // {1 2}, and 2 is dead: {1} is in force on append, so 1 alone commits it.
    let mut server = Start::new(1, &[1, 2]).settled_leader();
    let next = removed(&membership(&[1, 2]), 2);
    let new = entries([setting(2, 1, &next)]);
    assert_eq!(server.step(change(7, 0, &[remove(2)])), [configured(2, next), persist(3, new.clone())]);
    let effects = server.persisted(3);
    assert_eq!(effects.first(), Some(&done(7, 2, None)));
    assert_eq!(effects.last(), Some(&apply(new, &[])));
}

// ---- who may run ---------------------------------------------------------------------------

/// {1 2} whose leader 1 has appended {2}, told nobody, and restarted.
fn last_of_two() -> Start {
    let next = removed(&membership(&[1, 2]), 1);
    Start { boot: 2, ..Start::new(1, &[1, 2]).log(&[1, 1]) }.change(2, next)
}

#[test]
fn rule_v4_a_server_runs_in_the_configuration_before_while_the_latest_is_not_known_committed() {
    let mut server = last_of_two().server();
    let boot = raft_core::CampaignId { boot: raft_core::Boot::new(2), number: 1 };
    let question = Rpc::PreVote { term: crate::rig::term(2), campaign: boot, last: at(2, 1) };
    assert_eq!(server.tick(), [send(2, question)]);
    assert_eq!(server.role(), (1, RoleKind::PreCandidate), "its own yes does not count in {{2}}");
    let yes = Rpc::PreVoteReply { term: crate::rig::term(2), campaign: boot, verdict: Granted };
    assert_eq!(server.receive(2, yes), [persist_vote(1, 2, 1, NONE)]);
    server.persisted(1);
    assert_eq!(server.role(), (2, RoleKind::Candidate), "nor does its own vote");
    server.receive(2, vote_reply(2, Granted));
    assert_eq!(server.role(), (2, RoleKind::Leader));
    server.persisted(2);
    assert_eq!(server.status().log.commit, index(0));
    let effects = server.receive(2, append_reply(2, 1, 3));
    assert!(effects.contains(&send(2, timeout_now(2))), "it finishes what it began, and leaves: {effects:?}");
    assert_eq!(server.role(), (2, RoleKind::Follower));
}

#[test]
fn rule_v4_once_the_latest_is_committed_the_one_before_counts_no_more() {
    let mut server = last_of_two().follower_of(2);
    server.receive(2, append(1, 2, at(2, 1), 2, NONE));
    assert_eq!(server.status().log.commit, index(2));
    assert_eq!(server.raft.deadline(), None);
    server.wait(10_000);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.receive(2, timeout_now(1)), []);
}

#[test]
fn rule_v4_only_the_one_before_counts() {
    let first = changed(&membership(&[1, 2, 3]), &[remove(1)]);
    let second = changed(&first, &[add(4)]);
    let start = Start::first_of_three().log(&[1, 1, 1]).change(2, first).change(3, second);
    let server = start.server();
    assert_eq!(server.raft.deadline(), None, "3@1 could only be appended after 2@1 was committed");
}

#[test]
fn rule_v9_votes_count_from_the_store_in_the_latest_configuration() {
    let mut server = Start::first_of_three().candidate();
    let other = raft_core::Peer { store: store(7), ..crate::rig::peer(3) };
    server.step(Event::Received { from: other, rpc: vote_reply(1, Granted) });
    assert_eq!(server.role(), (1, RoleKind::Candidate));
    server.receive(3, vote_reply(1, Granted));
    assert_eq!(server.role(), (1, RoleKind::Leader), "the member itself has not voted before");
}

#[test]
fn rule_v9_acknowledgements_count_from_the_store_that_was_added() {
    let mut server = adding();
    let other = raft_core::Peer { store: store(7), ..crate::rig::peer(4) };
    server.step(Event::Received { from: other, rpc: append_reply(1, 2, 2) });
    assert_eq!((server.progress(4).0, server.status().load.drops.foreign), (0, 1));
    server.receive(4, append_reply(1, 2, 2));
    assert_eq!(server.progress(4).0, 2);
}

#[test]
fn rule_v9_a_learners_vote_and_confirmation_count_for_nothing() {
    let mut server = Start::first_of_three().members(with_learners(&[1, 2, 3], &[4])).candidate();
    server.receive(4, vote_reply(1, Granted));
    assert_eq!(server.role(), (1, RoleKind::Candidate));
    server.receive(2, vote_reply(1, Granted));
    server.persisted(2);
    server.receive(4, append_reply(1, 1, 1));
    assert_eq!(server.status().log.commit, index(0));
    server.receive(2, append_reply(1, 1, 1));
    server.step(Event::Applied { index: index(1) });
    server.read(7);
    assert_eq!(server.receive(4, heartbeat_reply(1, 2, 1, 1)), []);
}

#[test]
fn regress_t030_a_removed_member_that_campaigns_disturbs_nobody() {
    let next = removed(&membership(&[1, 2, 3]), 3);
    let mut follower = Start::first_of_three().log(&[1, 1]).change(2, next).follower_of(2);
    for number in 1..20 {
        follower.receive(2, heartbeat(1, number, 0));
        follower.wait(50);
        let question = pre_vote(30 + number, number, at(9, 30));
        assert_eq!(follower.receive(3, question), [send(3, pre_vote_reply(1, number, LeaderAlive))]);
        assert_eq!(follower.receive(3, crate::rig::vote(30 + number, at(9, 30))), []);
    }
    assert_eq!(follower.role(), (1, RoleKind::Follower));
}

// ---- promotion -----------------------------------------------------------------------------

/// A leader of {1 2 3} that takes in 4, to be a voter when it has caught up. 2@1 is committed.
fn growing() -> Lone {
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[add_voter(4)]));
    server.persisted(3);
    assert!(server.receive(2, append_reply(1, 2, 2)).contains(&done(7, 2, 4)));
    server
}

fn is_voter(server: &Lone, id: u64) -> bool {
    server.status().configuration.membership.voters().iter().any(|voter| voter.node == node(id))
}

/// 4 answers the newest heartbeat; so do the others, so that the leader stays.
fn answer(server: &mut Lone, matched: u64) -> Vec<Effect> {
    let effects = server.tick();
    let newest = effects.iter().rev().find_map(|effect| match effect {
        Effect::Send { rpc: Rpc::Heartbeat { round, .. }, .. } => Some(round.as_u64()),
        _ => None,
    });
    let Some(round) = newest else { return effects };
    server.receive(2, heartbeat_reply(1, round, 2, 2));
    server.receive(3, heartbeat_reply(1, round, 1, 1));
    server.receive(4, heartbeat_reply(1, round, matched, matched))
}

#[test]
fn rule_m3_a_learner_is_promoted_after_two_short_rounds() {
    let mut server = growing();
    server.receive(4, append_reply(1, 2, 2));
    assert!(!is_voter(&server, 4), "one round");
    let effects = answer(&mut server, 2);
    let next = changed(&changed(&membership(&[1, 2, 3]), &[add_voter(4)]), &[promote(4)]);
    assert_eq!(effects.first(), Some(&configured(3, next)), "two");
    assert!(is_voter(&server, 4));
}

#[test]
fn regress_t080_a_learner_whose_round_is_long_starts_again() {
    let mut server = growing();
    for _ in 0..4 {
        answer(&mut server, 0);
    }
    answer(&mut server, 2);
    assert!(!is_voter(&server, 4), "200 ms for the first round: it does not count");
    answer(&mut server, 2);
    assert!(!is_voter(&server, 4));
    answer(&mut server, 2);
    assert!(is_voter(&server, 4));
}

#[test]
fn regress_t080_a_learner_that_is_silent_is_not_promoted() {
    let mut server = growing();
    for _ in 0..40 {
        let effects = server.tick();
        for effect in &effects {
            if let Effect::Send { to, rpc: Rpc::Heartbeat { round, .. } } = effect
                && *to == node(2)
            {
                server.receive(2, heartbeat_reply(1, round.as_u64(), 2, 2));
            }
        }
    }
    assert!(!is_voter(&server, 4));
}

#[test]
fn regress_t080_a_learner_that_lags_is_not_promoted() {
    // It answers at once, and is never nearer than 2,000 entries: a round lasts as long as it takes.
    let mut server = growing();
    server.receive(4, append_reply(1, 2, 2));
    server.batch((100..2_200).map(propose));
    server.persisted(4);
    server.receive(2, append_reply(1, 3, 2_102));
    for _ in 0..10 {
        answer(&mut server, 2);
        assert!(!is_voter(&server, 4));
    }
}

#[test]
fn regress_t080_a_learner_without_the_wish_is_not_promoted() {
    let mut server = adding();
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    for _ in 0..10 {
        answer(&mut server, 2);
    }
    assert!(!is_voter(&server, 4));
    let effects = server.step(change(8, 2, &[promote(4)]));
    assert!(is_voter(&server, 4), "but an operator may: {effects:?}");
}

#[test]
fn regress_t080_a_new_leader_looks_for_itself() {
    let next = changed(&membership(&[1, 2, 3]), &[add_voter(4)]);
    let mut server = Start::first_of_three().log(&[1]).change(1, next).settled_leader();
    assert!(!is_voter(&server, 4), "whatever the leader before knew");
    server.receive(4, append_reply(2, 1, 2));
    assert!(!is_voter(&server, 4));
    server.tick();
    server.receive(4, heartbeat_reply(2, 2, 2, 2));
    assert!(is_voter(&server, 4));
}

#[test]
fn rule_m3_no_promotion_before_a_commit_in_the_own_term_or_while_another_change_waits() {
    let next = changed(&membership(&[1, 2, 3]), &[add_voter(4)]);
    let mut server = Start::first_of_three().log(&[1]).change(1, next).leader();
    server.persisted(2);
    for round in [1, 1, 1] {
        server.receive(4, heartbeat_reply(2, round, 2, 2));
    }
    assert!(!is_voter(&server, 4), "it may not know what is committed");
    server.receive(2, append_reply(2, 1, 2));
    assert!(is_voter(&server, 4));
}

#[test]
fn rule_d8_a_leader_with_a_full_disk_promotes_nobody() {
    let mut server = growing();
    server.receive(4, append_reply(1, 2, 2));
    server.step(Event::StorageFull);
    while server.status().transfer.is_some() {
        answer(&mut server, 2);
    }
    answer(&mut server, 2);
    assert_eq!(server.role(), (1, RoleKind::Leader));
    assert!(!is_voter(&server, 4), "that would be an entry");
    server.step(Event::StorageReady);
    answer(&mut server, 2);
    assert!(is_voter(&server, 4));
}

#[test]
fn promotions_come_one_at_a_time() {
    let next = changed(&membership(&[1, 2, 3]), &[add_voter(4), add_voter(5)]);
    let mut server = Start::first_of_three().log(&[1]).change(1, next).settled_leader();
    for id in [4, 5] {
        server.receive(id, append_reply(2, 1, 2));
    }
    server.tick();
    server.batch([4, 5].map(|id| received(id, heartbeat_reply(2, 2, 2, 2))));
    assert!(is_voter(&server, 4) && !is_voter(&server, 5));
    assert!(!server.status().configuration.membership.is_joint());
}
