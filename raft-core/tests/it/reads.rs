//! Reads without the log: contract Q1–Q3.

use raft_core::{Busy, Effect, Event, Outcome, Purpose, RoleKind};

use crate::rig::{
    Start, append_reply, apply, blank, entries, heartbeat, heartbeat_reply, index, not_leader, persist_vote, proposal,
    propose, read, read_ready, received, reply, send, term_over,
};

#[test]
fn a_read_costs_one_round_of_heartbeats_and_no_write() {
    let mut server = Start::first_of_three().settled_leader();
    assert_eq!(server.read(7), [send(2, heartbeat(1, 2, 1)), send(3, heartbeat(1, 2, 1))]);
    assert_eq!(server.receive(3, heartbeat_reply(1, 2, 1, 1)), [reply(7, read_ready(1))]);
}

#[test]
fn a_read_of_a_server_that_knows_no_leader_is_told_so() {
    let mut server = Start::first_of_three().candidate();
    assert_eq!(server.read(8), [reply(8, not_leader(None))]);
}

#[test]
fn rule_q1_a_read_takes_a_round_that_has_not_been_sent_yet() {
    let mut server = Start::first_of_three().settled_leader();
    server.tick();
    assert_eq!(server.read(7), [send(2, heartbeat(1, 3, 1)), send(3, heartbeat(1, 3, 1))]);
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 1, 1)), [], "round 2 was sent before the read came");
    assert_eq!(server.receive(3, heartbeat_reply(1, 3, 1, 1)), [reply(7, read_ready(1))]);
}

#[test]
fn rule_q1_answers_in_the_batch_of_the_read_do_not_confirm_it() {
    let mut server = Start::first_of_three().settled_leader();
    server.tick();
    let effects =
        server.batch([read(7), received(2, heartbeat_reply(1, 2, 1, 1)), received(3, heartbeat_reply(1, 2, 1, 1))]);
    assert_eq!(effects, [send(2, heartbeat(1, 3, 1)), send(3, heartbeat(1, 3, 1))]);
}

#[test]
fn rule_q1_one_round_confirms_all_reads_that_wait() {
    let mut server = Start::first_of_three().settled_leader();
    let effects = server.batch((10..15).map(read));
    assert_eq!(effects, [send(2, heartbeat(1, 2, 1)), send(3, heartbeat(1, 2, 1))]);
    let answers: Vec<_> = (10..15).map(|number| reply(number, read_ready(1))).collect();
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 1, 1)), answers);
}

#[test]
fn rule_q1_a_later_round_confirms_earlier_reads() {
    let mut server = Start::first_of_three().settled_leader();
    server.read(7);
    server.tick();
    assert_eq!(server.receive(2, heartbeat_reply(1, 3, 1, 1)), [reply(7, read_ready(1))], "round 2 was lost");
}

#[test]
fn rule_q1_an_acknowledgement_of_a_later_append_confirms_too() {
    let mut server = Start::first_of_three().settled_leader();
    server.read(7);
    server.propose(8);
    let effects = server.receive(2, append_reply(1, 3, 2));
    assert_eq!(effects.first(), Some(&reply(7, read_ready(1))));
}

#[test]
fn rule_q1_the_same_peer_twice_is_no_majority() {
    let mut server = Start::new(1, &[1, 2, 3, 4, 5]).settled_leader();
    server.read(7);
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 1, 1)), []);
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 1, 1)), []);
    assert_eq!(server.receive(4, heartbeat_reply(1, 2, 1, 1)), [reply(7, read_ready(1))]);
}

#[test]
fn regress_t008_a_new_leader_answers_no_read_before_it_has_committed_in_its_term() {
    let mut server = Start::first_of_three().log(&[1, 1]).leader();
    assert_eq!(server.read(7), [], "held; not even asked about");
    server.persisted(2);
    let effects = server.receive(2, append_reply(2, 1, 3));
    let all = entries([crate::rig::entry(1, 1), crate::rig::entry(2, 1), blank(3, 2)]);
    assert_eq!(
        effects,
        [send(2, heartbeat(2, 2, 3)), send(3, heartbeat(2, 2, 0)), apply(all, &[])],
        "the commit index of the heartbeats is clamped to what each is known to hold"
    );
    assert_eq!(server.receive(2, heartbeat_reply(2, 2, 3, 3)), [], "confirmed, and not applied");
    assert_eq!(server.step(Event::Applied { index: index(3) }), [reply(7, read_ready(3))]);
}

#[test]
fn regress_t008_a_sole_voter_answers_no_read_before_it_has_committed_in_its_term() {
    let mut server = Start::new(1, &[1]).log(&[1]).server();
    server.persisted(1);
    assert_eq!(server.role(), (2, RoleKind::Leader));
    assert_eq!(server.read(7), []);
    assert_eq!(server.persisted(2), [apply(entries([crate::rig::entry(1, 1), blank(2, 2)]), &[])]);
    assert_eq!(server.step(Event::Applied { index: index(2) }), [reply(7, read_ready(2))]);
    assert_eq!(server.read(8), [reply(8, read_ready(2))], "from now on it confirms itself");
}

#[test]
fn rule_q2_a_read_is_ready_when_the_machine_has_applied_what_it_must_see() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.persisted(3);
    assert_eq!(server.receive(2, append_reply(1, 2, 2)).last(), Some(&apply(entries([proposal(2, 1, 7)]), &[(2, 7)])));
    server.read(8);
    assert_eq!(server.receive(2, heartbeat_reply(1, 3, 2, 2)), [], "committed at 2, applied at 1");
    assert_eq!(server.step(Event::Applied { index: index(2) }), [reply(8, read_ready(2))]);
}

#[test]
fn rule_q2_reads_of_a_restarted_leader_wait_until_it_has_caught_up() {
    // T18: a log of three, a machine that starts from nothing and has to be fed from the disk.
    let start = Start { warm: false, ..Start::new(1, &[1]).log(&[1, 1, 1]) };
    let mut server = start.server();
    server.persisted(1);
    let effects = server.persisted(2);
    assert!(
        matches!(effects.as_slice(), [Effect::ReadLog { purpose: Purpose::Apply, from, .. }] if *from == index(1)),
        "{effects:?}"
    );
    assert_eq!(server.read(7), []);
    assert_eq!(server.status().load.reads, 1);
}

#[test]
fn rule_q3_reads_keep_their_order() {
    let mut server = Start::first_of_three().settled_leader();
    server.read(1);
    server.propose(2);
    server.read(3);
    server.read(4);
    server.persisted(3);
    server.receive(3, append_reply(1, 3, 2));
    server.step(Event::Applied { index: index(2) });
    let effects = server.receive(2, heartbeat_reply(1, 5, 2, 2));
    let answered: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Reply { .. })).cloned().collect();
    assert_eq!(answered, [reply(3, read_ready(1)), reply(4, read_ready(1))]);
}

#[test]
fn rule_q3_reads_are_bounded() {
    let mut server = Start::first_of_three().limits(|limits| limits.pending_reads_max = 2).settled_leader();
    let effects = server.batch([read(1), read(2), read(3)]);
    assert_eq!(
        effects,
        [reply(3, Outcome::Busy(Busy::Reads)), send(2, heartbeat(1, 2, 1)), send(3, heartbeat(1, 2, 1))]
    );
    assert_eq!(server.status().load.reads, 2);
    server.receive(2, heartbeat_reply(1, 2, 1, 1));
    assert_eq!(server.read(4), [send(2, heartbeat(1, 3, 1)), send(3, heartbeat(1, 3, 1))], "there is room again");
}

#[test]
fn regress_t013_reads_of_a_leader_that_is_cut_off_stay_bounded_and_end() {
    let mut server = Start::first_of_three().limits(|limits| limits.pending_reads_max = 8).settled_leader();
    let mut ended = 0;
    for number in 0..1_000 {
        let effects = if number % 10 == 0 { server.tick() } else { server.read(number) };
        ended += effects.iter().filter(|effect| matches!(effect, Effect::Reply { .. })).count();
        assert!(server.status().load.reads <= 8);
    }
    assert_eq!(server.role().1, RoleKind::PreCandidate);
    assert_eq!(ended, 900, "every read has ended, exactly once");
}

#[test]
fn regress_t012_reads_end_with_a_reason_when_the_leader_steps_down() {
    let mut server = Start::first_of_three().settled_leader();
    // One is confirmed and waits for the machine, one waits for its round, one came just now.
    server.propose(1);
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    server.read(2);
    server.receive(2, heartbeat_reply(1, 3, 2, 2));
    server.read(3);
    let effects = server.batch([read(4), received(2, term_over(5))]);
    assert_eq!(
        effects,
        [
            reply(2, not_leader(None)),
            reply(3, not_leader(None)),
            reply(4, not_leader(None)),
            persist_vote(4, 5, None, raft_core::Entries::EMPTY),
        ]
    );
    assert_eq!(server.receive(2, heartbeat_reply(1, 4, 2, 2)), [], "a late confirmation finds nothing to answer");
}

#[test]
fn regress_t007_a_delayed_answer_to_the_first_read_does_not_confirm_the_second() {
    let mut server = Start::first_of_three().settled_leader();
    server.read(7);
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 1, 1)), [reply(7, read_ready(1))]);
    server.propose(8);
    server.read(7);
    assert_eq!(server.receive(3, heartbeat_reply(1, 2, 1, 1)), [], "the other answer to the first read's round");
    assert_eq!(server.receive(3, heartbeat_reply(1, 4, 1, 1)), [reply(7, read_ready(1))]);
}

#[test]
fn a_read_sees_every_write_acknowledged_before_it() {
    let mut server = Start::first_of_three().settled_leader();
    server.batch([propose(7)]);
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    server.step(Event::Applied { index: index(2) });
    server.read(8);
    assert_eq!(server.receive(3, heartbeat_reply(1, 3, 1, 1)), [reply(8, read_ready(2))]);
}
