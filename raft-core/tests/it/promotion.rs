//! Learners that become voters: contract M3; Thesis 4.2.1.

use raft_core::{Effect, Event, RoleKind, Rpc};

use crate::members::{add_voter, adding, change, changed, done, promote};
use crate::rig::{Lone, Start, append_reply, configured, heartbeat_reply, index, membership, node, propose, received};

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
fn regress_t080_a_learner_that_had_caught_up_and_fell_silent_is_not_promoted() {
    // Two short rounds while 2@1 is not committed, then nothing more.
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[add_voter(4)]));
    server.receive(4, append_reply(1, 2, 2));
    server.receive(4, heartbeat_reply(1, 2, 2, 2));
    server.wait(100);
    server.step(Event::Tick);
    server.receive(2, heartbeat_reply(1, 3, 1, 1));
    server.wait(60);
    server.persisted(3);
    server.receive(2, append_reply(1, 3, 2));
    assert_eq!(server.status().log.commit, index(2));
    assert!(!is_voter(&server, 4), "160 ms of silence");
    server.receive(4, heartbeat_reply(1, 3, 2, 2));
    assert!(!is_voter(&server, 4), "that round was long");
    (0..2).for_each(|_| drop(server.receive(4, heartbeat_reply(1, 3, 2, 2))));
    assert!(is_voter(&server, 4));
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
