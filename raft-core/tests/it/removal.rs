//! Members that go, and who may run meanwhile: contract M4, V4, V9, E3; Thesis 4.2.2, 4.2.3.

use raft_core::{Effect, Entries, Event, RoleKind, Rpc};

use crate::members::{
    add, adding, change, changed, demote, done, remove, removed, resigned, setting, timeout_now, with_learners,
};
use crate::rig::{
    Lone, Start, append, append_reply, apply, at, commit_notice, configured, entries, heartbeat, heartbeat_reply,
    index, membership, node, persist, persist_vote, pre_vote, pre_vote_reply, proposal, send, store, vote_reply,
};
use raft_core::Verdict::{Granted, LeaderAlive};

const NONE: Entries = Entries::EMPTY;

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
