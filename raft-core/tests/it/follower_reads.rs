//! Reads at a follower: contract Q1–Q3, V8.

use raft_core::{Boot, Busy, Effect, Entries, Event, ForwardId, ReadMode, Rpc};

use crate::members::{
    busy, granting, read_by_lease, read_index, read_index_by_lease, read_index_reply, resigned, with_learners,
};
use crate::rig::{
    Lone, Start, append, append_reply, apply, at, entries_of, heartbeat, heartbeat_reply, index, node, not_leader,
    peer, persist, read, read_ready, received, reply, send, store, term, term_over,
};

const NONE: Entries = Entries::EMPTY;

/// A follower of server 2 in term 1 that has applied 1@1.
fn follower() -> Lone {
    let mut server = Start::first_of_three().log(&[1]).follower_of(2);
    server.receive(2, append(1, 2, at(1, 1), 1, NONE));
    server.step(Event::Applied { index: index(1) });
    assert_eq!(server.status().log.applied, index(1));
    server
}

#[test]
fn a_follower_asks_its_leader_and_answers_when_it_is_that_far() {
    let mut server = follower();
    assert_eq!(server.read(7), [send(2, read_index(1, 1))]);
    assert_eq!(server.receive(2, read_index_reply(1, 1, 1)), [reply(7, read_ready(1))]);
}

#[test]
fn rule_q2_a_read_at_a_follower_is_ready_when_its_machine_has_applied_enough() {
    let mut server = follower();
    server.read(7);
    assert_eq!(server.receive(2, read_index_reply(1, 1, 2)), [], "2 is not even here");
    let new = entries_of(2, &[1]);
    assert_eq!(server.receive(2, append(1, 3, at(1, 1), 2, new.clone())), [persist(1, new.clone())]);
    assert_eq!(server.persisted(1), [send(2, append_reply(1, 3, 2)), apply(new, &[])]);
    assert_eq!(server.step(Event::Applied { index: index(2) }), [reply(7, read_ready(2))]);
}

#[test]
fn rule_q3_one_question_at_a_time_for_all_that_wait() {
    let mut server = follower();
    assert_eq!(server.batch([read(7), read(8)]), [send(2, read_index(1, 1))]);
    assert_eq!(server.read(9), [], "an answer to the question under way could be too old for it");
    assert_eq!(
        server.receive(2, read_index_reply(1, 1, 1)),
        [reply(7, read_ready(1)), reply(8, read_ready(1)), send(2, read_index(1, 2))]
    );
    assert_eq!(server.receive(2, read_index_reply(1, 2, 1)), [reply(9, read_ready(1))]);
}

#[test]
fn rule_q3_a_lost_question_is_asked_again_with_what_has_come_since() {
    let mut server = follower();
    server.read(7);
    server.wait(100);
    server.receive(2, heartbeat(1, 3, 1));
    server.read(8);
    server.wait(49);
    assert_eq!(server.step(Event::Tick), []);
    server.wait(1);
    assert_eq!(server.step(Event::Tick), [send(2, read_index(1, 2))]);
    assert_eq!(server.receive(2, read_index_reply(1, 1, 1)), [], "the late answer to the first one");
    assert_eq!(
        server.receive(2, read_index_reply(1, 2, 1)),
        [reply(7, read_ready(1)), reply(8, read_ready(1))],
        "in order of arrival"
    );
}

#[test]
fn rule_v8_an_answer_to_a_question_of_an_earlier_life_counts_for_nothing() {
    let mut server = Start { boot: 2, ..Start::first_of_three().log(&[1]) }.follower_of(2);
    server.receive(2, append(1, 2, at(1, 1), 1, NONE));
    server.step(Event::Applied { index: index(1) });
    let own = ForwardId { boot: Boot::new(2), number: 1 };
    let mode = ReadMode::Quorum;
    assert_eq!(server.read(7), [send(2, Rpc::ReadIndex { term: term(1), id: own, mode })]);
    assert_eq!(server.receive(2, read_index_reply(1, 1, 1)), [], "read 1 of the life before");
    let answer = Rpc::ReadIndexReply { term: term(1), id: own, index: Some(index(1)) };
    assert_eq!(server.receive(2, answer.clone()), [reply(7, read_ready(1))]);
    assert_eq!(server.receive(2, answer), [], "and only once");
}

#[test]
fn rule_q3_a_leader_with_too_much_to_do_says_so() {
    let mut server = follower();
    server.batch([read(7), read(8)]);
    assert_eq!(server.receive(2, read_index_reply(1, 1, None)), [busy(7, Busy::Reads), busy(8, Busy::Reads)]);
}

#[test]
fn rule_q3_reads_at_a_follower_are_bounded() {
    let start = Start::first_of_three().term(1).limits(|limits| limits.pending_reads_max = 2);
    let mut server = start.follower_of(2);
    server.read(7);
    server.read(8);
    assert_eq!(server.read(9), [busy(9, Busy::Reads)]);
    assert_eq!(server.status().load.reads, 2);
}

#[test]
fn regress_t012_reads_at_a_follower_end_when_its_leader_does() {
    let ends: [(Rpc, Option<u64>); 3] = [(resigned(1), None), (term_over(2), None), (heartbeat(2, 1, 0), Some(3))];
    for (rpc, next) in ends {
        let mut server = follower();
        server.read(7);
        server.receive(2, read_index_reply(1, 1, 9));
        server.read(8);
        server.read(9);
        let from = if next.is_some() { 3 } else { 2 };
        let effects = server.receive(from, rpc.clone());
        let answers: Vec<_> = effects.into_iter().filter(|effect| matches!(effect, Effect::Reply { .. })).collect();
        let expected: Vec<_> = [7, 8, 9].map(|number| reply(number, not_leader(next))).into();
        assert_eq!(answers, expected, "{rpc}");
    }
}

#[test]
fn regress_t012_reads_end_when_a_follower_gives_up_on_its_leader() {
    let mut server = follower();
    server.read(7);
    let mut answers = Vec::new();
    while server.role().1 == raft_core::RoleKind::Follower {
        answers = server.tick();
    }
    assert!(answers.contains(&reply(7, not_leader(None))), "{answers:?}");
}

#[test]
fn a_follower_without_a_leader_cannot_read() {
    let mut server = Start::first_of_three().term(1).server();
    assert_eq!(server.read(7), [reply(7, not_leader(None))]);
    let mut server = follower();
    server.step(Event::StorageFailed);
    assert_eq!(server.read(8), [reply(8, raft_core::Outcome::StorageFailed)]);
}

#[test]
fn regress_t113_reads_of_a_learner_whose_leader_is_gone_end() {
    // It never campaigns, so nothing else would tell its clients.
    let start = Start::new(4, &[1, 2, 3]).members(with_learners(&[1, 2, 3], &[4])).term(1);
    let mut server = start.follower_of(1);
    server.read(7);
    let mut answered = Vec::new();
    for _ in 0..20 {
        server.wait(100);
        answered.extend(server.step(Event::Tick));
    }
    let answers: Vec<_> = answered.into_iter().filter(|effect| matches!(effect, Effect::Reply { .. })).collect();
    assert_eq!(answers, [reply(7, not_leader(None))], "two seconds of silence");
    assert_eq!(server.status().load.reads, 0);
}

// ---- at the leader -------------------------------------------------------------------------

#[test]
fn rule_q1_the_question_of_a_follower_takes_a_round_that_has_not_been_sent_yet() {
    let mut server = Start::first_of_three().settled_leader();
    server.tick();
    assert_eq!(server.receive(2, read_index(1, 1)), [send(2, heartbeat(1, 3, 1)), send(3, heartbeat(1, 3, 1))]);
    assert_eq!(server.receive(3, heartbeat_reply(1, 2, 1, 1)), [], "round 2 was sent before it came");
    assert_eq!(server.receive(3, heartbeat_reply(1, 3, 1, 1)), [send(2, read_index_reply(1, 1, 1))]);
}

#[test]
fn rule_q1_a_question_and_an_answer_in_one_batch() {
    let mut server = Start::first_of_three().settled_leader();
    server.tick();
    let effects = server.batch([received(2, read_index(1, 1)), received(3, heartbeat_reply(1, 2, 1, 1))]);
    assert_eq!(effects, [send(2, heartbeat(1, 3, 1)), send(3, heartbeat(1, 3, 1))]);
}

#[test]
fn rule_q1_no_answer_before_the_first_commit_of_the_term() {
    let mut server = Start::first_of_three().log(&[1]).leader();
    assert_eq!(server.receive(2, read_index(2, 1)), []);
    server.persisted(2);
    let effects = server.receive(3, append_reply(2, 1, 2));
    assert!(effects.contains(&send(3, heartbeat(2, 2, 2))), "asked as soon as that is done: {effects:?}");
    assert_eq!(server.receive(3, heartbeat_reply(2, 2, 2, 2)), [send(2, read_index_reply(2, 1, 2))]);
}

#[test]
fn regress_t019_a_leader_that_lost_its_majority_answers_no_question() {
    let mut server = Start::first_of_three().settled_leader();
    server.receive(2, read_index(1, 1));
    let mut said = Vec::new();
    while server.role().1 == raft_core::RoleKind::Leader {
        said.extend(server.tick());
    }
    assert!(!said.contains(&send(2, read_index_reply(1, 1, 1))), "{said:?}");
    assert_eq!(server.receive(3, heartbeat_reply(1, 2, 1, 1)), []);
}

#[test]
fn rule_q1_a_lease_answers_only_those_who_trust_it() {
    let mut server = Start::first_of_three().leases().settled_leader();
    server.tick();
    server.receive(2, granting(1, 2, 1, 150));
    assert_eq!(server.receive(3, read_index_by_lease(1, 1)), [send(3, read_index_reply(1, 1, 1))]);
    assert_eq!(server.receive(3, read_index(1, 2)).len(), 2, "a round");
}

#[test]
fn a_question_goes_by_lease_only_if_every_read_in_it_does() {
    let mut server = follower();
    assert_eq!(server.batch([read_by_lease(7), read_by_lease(8)]), [send(2, read_index_by_lease(1, 1))]);
    server.receive(2, read_index_reply(1, 1, 1));
    assert_eq!(server.batch([read_by_lease(9), read(10)]), [send(2, read_index(1, 2))]);
}

#[test]
fn rule_v9_a_question_from_another_store_is_not_answered() {
    let mut server = Start::first_of_three().settled_leader();
    let wiped = raft_core::Peer { store: store(9), ..peer(2) };
    assert_eq!(server.step(Event::Received { from: wiped, rpc: read_index(1, 1) }), []);
    let stranger = raft_core::Peer { node: node(9), store: store(9), boot: Boot::new(1) };
    assert_eq!(server.step(Event::Received { from: stranger, rpc: read_index(1, 1) }), []);
    assert_eq!(server.status().load.drops.foreign, 2);
}

#[test]
fn rule_q3_questions_of_followers_are_bounded() {
    let start = Start::first_of_three().limits(|limits| limits.pending_reads_max = 1);
    let mut server = start.settled_leader();
    server.read(7);
    assert_eq!(server.receive(2, read_index(1, 1)), [send(2, read_index_reply(1, 1, None))]);
}

#[test]
fn rule_q3_a_follower_that_asks_again_has_given_up_the_question_before() {
    let mut server = Start::first_of_three().log(&[1]).leader();
    for number in 1..=100 {
        server.receive(2, read_index(2, number));
    }
    assert_eq!(server.status().load.reads, 1);
}
