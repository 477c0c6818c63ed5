//! Bugs that other systems had, as one server would show them: traps T15–T113. Those about links
//! are in `trap_links.rs`, those about promises and crashes in `promises.rs`.

use raft_core::Verdict::{Granted, Refused};
use raft_core::{Effect, Entries, Event, LogReadOutcome, Outcome, Purpose, RoleKind, Rpc};

use crate::rig::{
    Start, append, append_reply, apply, at, blank, entries, entries_of, entry, heartbeat, heartbeat_reply, index, node,
    not_leader, persist, persist_vote, proposal, propose, read, read_ready, received, reply, send, term_over, unknown,
    vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

#[test]
fn regress_t015_a_late_answer_does_not_make_a_leader_sticky_for_longer() {
    let mut server = Start::first_of_three().settled_leader();
    server.tick();
    server.wait(140);
    // The heartbeat of round 2 was answered 140 ms after it had left: that is what is known of then.
    server.receive(2, heartbeat_reply(1, 2, 1, 1));
    server.wait(9);
    assert_eq!(server.receive(3, vote(2, at(9, 1))), [], "149 ms after the question");
    server.wait(1);
    assert_eq!(server.receive(3, vote(2, at(9, 1))), [persist_vote(3, 2, 3, NONE)], "and not after the answer");
}

#[test]
fn regress_t018_a_read_of_a_leader_that_restarted_waits_for_its_machine() {
    let start = Start { warm: false, boot: 2, ..Start::new(1, &[1]).log(&[1, 1, 1]).vote(1) };
    let mut server = start.server();
    server.persisted(1);
    let effects = server.persisted(2);
    let [Effect::ReadLog { id, purpose: Purpose::Apply, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(server.read(7), [], "4@2 is committed, and the machine has seen nothing");
    let old = entries_of(1, &[1, 1, 1]);
    assert_eq!(
        server.step(Event::LogRead { id: *id, outcome: LogReadOutcome::Entries(old.clone()) }),
        [apply(old, &[]), apply(entries([blank(4, 2)]), &[])]
    );
    assert_eq!(server.step(Event::Applied { index: index(3) }), []);
    assert_eq!(server.step(Event::Applied { index: index(4) }), [reply(7, read_ready(4))]);
}

#[test]
fn regress_t019_a_leader_that_lost_its_majority_completes_no_read() {
    let mut server = Start::new(1, &[1, 2, 3, 4, 5]).settled_leader();
    let mut effects = server.read(7);
    let mut ended = Vec::new();
    // The sixth time that it wants to be woken, the longest election timeout has passed.
    for _ in 0..6 {
        assert_eq!(server.role().1, RoleKind::Leader);
        for effect in std::mem::take(&mut effects) {
            match effect {
                // Only one of the four still hears us, and answers everything.
                Effect::Send { to, rpc: Rpc::Heartbeat { round, .. } } if to == node(2) => {
                    ended.extend(server.receive(2, heartbeat_reply(1, round.as_u64(), 1, 1)));
                }
                Effect::Send { .. } => {}
                ending => ended.push(ending),
            }
        }
        effects = server.tick();
    }
    // It tells everybody that it leads no longer.
    ended.extend(effects.into_iter().filter(|effect| !matches!(effect, Effect::Send { .. })));
    assert_eq!(server.role().1, RoleKind::Follower);
    assert_eq!(ended, [reply(7, not_leader(None))]);
}

#[test]
fn regress_t030_ever_higher_terms_of_a_stranger_move_nobody_who_hears_a_leader() {
    // A removed server, of a version that knows no pre-vote.
    let mut follower = Start::first_of_three().term(1).follower_of(2);
    let mut leader = Start::first_of_three().settled_leader();
    for number in 2..200 {
        let question = vote(number * 10, at(99, 1));
        follower.wait(20);
        assert_eq!(follower.receive(9, question.clone()), [], "no answer, and no new term");
        follower.receive(2, heartbeat(1, number, 0));
        leader.wait(20);
        for effect in leader.receive(9, question) {
            let Effect::Send { to, rpc: Rpc::Heartbeat { round, .. } } = effect else { panic!("{effect:?}") };
            leader.receive(to.as_u64(), heartbeat_reply(1, round.as_u64(), 1, 1));
        }
    }
    assert_eq!((follower.role(), leader.role()), ((1, RoleKind::Follower), (1, RoleKind::Leader)));
}

#[test]
fn regress_t050_a_peer_that_is_back_is_sent_to_without_pauses() {
    let mut server = Start::first_of_three().settled_leader();
    for _ in 0..10 {
        server.step(Event::PeerUnreachable { node: node(2) });
    }
    server.tick();
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 1, 1)), [], "it is back, and has everything");
    for number in 7..10 {
        let place = number - 5;
        let new = append(1, number - 4, at(place - 1, 1), 1, entries([proposal(place, 1, number)]));
        assert!(server.propose(number).contains(&send(2, new)), "at once, as if nothing had been");
    }
    assert_eq!(server.progress(2), (1, 5, false, 3));
}

#[test]
fn regress_t105_term_and_entries_of_one_message_are_one_write() {
    let mut server = Start::first_of_three().log(&[1]).server();
    let new = entries_of(2, &[3]);
    assert_eq!(server.receive(2, append(3, 1, at(1, 1), 0, new.clone())), [persist_vote(1, 3, None, new)]);
    // Of two writes, the completion of the first lets go only of what the first promises.
    let mut server = Start::first_of_three().log(&[1]).server();
    server.receive(2, vote(3, at(1, 1)));
    let new = entries_of(2, &[3]);
    assert_eq!(server.receive(2, append(3, 1, at(1, 1), 0, new.clone())), [persist(2, new)]);
    assert_eq!(server.persisted(1), [send(2, vote_reply(3, Granted))]);
    assert_eq!(server.persisted(2), [send(2, append_reply(3, 1, 2))]);
}

#[test]
fn regress_t107_a_durable_machine_is_given_nothing_twice() {
    let start = Start { applied: 2, boot: 2, ..Start::first_of_three().log(&[1, 1, 1]) };
    let mut server = start.follower_of(2);
    assert_eq!((server.status().log.commit, server.status().log.applied), (index(2), index(2)));
    assert_eq!(
        server.receive(2, append(1, 2, at(3, 1), 3, NONE)),
        [send(2, append_reply(1, 2, 3)), apply(entries([entry(3, 1)]), &[])]
    );
}

/// How the requests of a leader end when it hears of `exit` after `millis`. One proposal and one
/// read are under way, one of each comes in the same batch.
fn ends(millis: u64, exit: Event) -> (Vec<(u64, Outcome)>, RoleKind) {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.read(17);
    server.wait(millis);
    let effects = server.batch([propose(8), read(18), exit]);
    let ended = effects.into_iter().filter_map(|effect| match effect {
        Effect::Reply { request, outcome } => Some((request.as_u64(), outcome)),
        _ => None,
    });
    (ended.collect(), server.role().1)
}

#[test]
fn regress_t113_however_leadership_ends_every_request_ends_once_and_says_what_is_known() {
    let exits = [
        (0, received(2, term_over(5)), None),
        (0, received(2, heartbeat(5, 1, 0)), Some(2)),
        (0, received(3, append(5, 1, at(1, 1), 0, NONE)), Some(3)),
        (0, received(3, vote_reply(5, Refused)), None),
        (0, Event::StorageFailed, None),
        // Nobody has answered for a while: it votes for another, or resigns by itself.
        (200, received(3, vote(2, at(9, 1))), None),
        (10_000, Event::Tick, None),
    ];
    for (millis, exit, leader) in exits {
        let (ended, role) = ends(millis, exit.clone());
        let unread = [(17, not_leader(leader)), (18, not_leader(leader))];
        assert_eq!(ended, [[(7, unknown(leader)), (8, not_leader(leader))], unread].concat(), "{exit:?}");
        assert_eq!(role, RoleKind::Follower);
    }
}
