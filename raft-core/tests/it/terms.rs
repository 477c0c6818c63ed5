//! Whose term counts: contract V2, one test for each of its sentences.

use raft_core::Verdict::{Granted, LeaderAlive, Refused};
use raft_core::{Entries, RoleKind};

use crate::rig::{
    Start, append, append_reply, at, commit_notice, entries_of, heartbeat, heartbeat_reply, persist_vote, pre_vote,
    pre_vote_reply, rejected, send, term_over, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

#[test]
fn rule_v2_any_message_but_a_vote_carries_its_term() {
    for rpc in [
        append(9, 1, at(0, 0), 0, NONE),
        heartbeat(9, 1, 0),
        commit_notice(9, 0),
        append_reply(9, 1, 0),
        heartbeat_reply(9, 1, 0, 0),
        rejected(9, 1, 1, at(0, 0), 0),
        vote_reply(9, Refused),
        term_over(9),
    ] {
        let mut server = Start::first_of_three().settled_leader();
        let effects = server.receive(3, rpc.clone());
        assert_eq!(server.role(), (9, RoleKind::Follower), "{rpc}");
        assert!(effects.contains(&persist_vote(3, 9, None, NONE)), "{rpc}: {effects:?}");
    }
}

#[test]
fn rule_v2_a_vote_request_that_stickiness_does_not_refuse_carries_its_term() {
    let mut server = Start::first_of_three().log(&[1, 2]).server();
    // Its log is behind, so it gets no vote, but its term counts.
    assert_eq!(server.receive(3, vote(9, at(7, 1))), [send(3, vote_reply(9, Refused)), persist_vote(1, 9, None, NONE)]);
    assert_eq!(server.role(), (9, RoleKind::Follower));
}

#[test]
fn rule_v2_the_term_of_a_pre_vote_request_is_never_adopted() {
    let mut server = Start::first_of_three().log(&[1, 2]).server();
    assert_eq!(server.receive(3, pre_vote(9, 7, at(7, 1))), [send(3, pre_vote_reply(2, 7, Refused))]);
    assert_eq!(server.receive(3, pre_vote(9, 8, at(7, 2))), [send(3, pre_vote_reply(9, 8, Granted))]);
    assert_eq!(server.role(), (2, RoleKind::Follower));
}

#[test]
fn rule_v2_the_term_of_a_pre_vote_grant_is_never_adopted() {
    let mut server = Start::first_of_three().log(&[1, 2]).server();
    assert_eq!(server.receive(3, pre_vote_reply(9, 1, Granted)), []);
    assert_eq!(server.role(), (2, RoleKind::Follower));
}

#[test]
fn rule_v2_a_leader_of_an_earlier_term_is_told_the_own_one() {
    let stale = [append(3, 1, at(0, 0), 0, entries_of(1, &[3])), heartbeat(3, 1, 0), commit_notice(3, 0)];
    for rpc in stale {
        let mut server = Start::first_of_three().term(4).server();
        assert_eq!(server.receive(3, rpc), [send(3, term_over(4))]);
    }
}

#[test]
fn rule_v2_that_answer_deposes_the_leader_and_the_stranded_server_can_follow_again() {
    // Server 3 was alone, and got to term 4; nobody would ever adopt that from its pre-votes.
    let mut leader = Start::first_of_three().settled_leader();
    assert_eq!(leader.receive(3, term_over(4)), [persist_vote(3, 4, None, NONE)]);
    assert_eq!(leader.role(), (4, RoleKind::Follower));
    leader.persisted(3);
    assert_eq!(leader.tick(), [send(2, pre_vote(5, 2, at(1, 1))), send(3, pre_vote(5, 2, at(1, 1)))]);
}

#[test]
fn rule_v2_terms_too_far_ahead_are_dropped_and_counted() {
    let mut server = Start::first_of_three().term(1).server();
    let absurd = (1 << 32) + 2;
    for rpc in [
        heartbeat(absurd, 1, 0),
        vote(absurd, at(9, 9)),
        pre_vote(absurd, 1, at(9, 9)),
        vote_reply(absurd, Refused),
        term_over(u64::MAX),
    ] {
        assert_eq!(server.receive(3, rpc), []);
    }
    assert_eq!(server.role(), (1, RoleKind::Follower));
    assert_eq!(server.status().load.drops.absurd_term, 5);
    server.receive(3, term_over(absurd - 1));
    assert_eq!(server.role(), (absurd - 1, RoleKind::Follower), "the last one that is believed");
}

#[test]
fn regress_t022_a_pre_candidate_adopts_the_higher_term_of_a_refusal() {
    let mut server = Start::first_of_three().server();
    server.tick();
    assert_eq!(server.receive(2, pre_vote_reply(5, 1, Refused)), [persist_vote(1, 5, None, NONE)]);
    assert_eq!(server.role(), (5, RoleKind::Follower));
}

#[test]
fn regress_t022_a_refusal_that_only_stickiness_caused_tells_its_term_too() {
    let mut server = Start::first_of_three().server();
    server.tick();
    server.receive(2, pre_vote_reply(5, 1, LeaderAlive));
    assert_eq!(server.role(), (5, RoleKind::Follower));
}
