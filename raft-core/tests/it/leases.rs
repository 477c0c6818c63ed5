//! Promises and leases: contract T3–T6.

use std::time::Duration;

use raft_core::Verdict::{Granted, LeaderAlive};
use raft_core::{Entries, Event};

use crate::members::{
    asking, change, granting, ordered_vote, read_by_lease, remove, resigned, timeout_now, transfer, with_learners,
};
use crate::rig::{
    Lone, Start, append_reply, at, heartbeat, heartbeat_reply, membership, node, persist_vote, pre_vote,
    pre_vote_reply, read_ready, received, reply, send, term_over, vote,
};

const NONE: Entries = Entries::EMPTY;

/// What is left of a promise of 150 ms when both clocks drift by a thousand parts in a million:
/// 150 ms · 999 000 / 1 001 000, rounded down.
const RELIABLE: Duration = Duration::from_nanos(149_700_299);

/// A leader of three that has sent round 2 just now, asking for promises.
fn asked() -> Lone {
    let mut server = Start::first_of_three().leases().settled_leader();
    assert_eq!(server.tick(), [send(2, asking(1, 2, 1, 150)), send(3, asking(1, 2, 1, 150))]);
    server
}

fn is_read_by_lease(server: &mut Lone, number: u64) -> bool {
    server.step(read_by_lease(number)).contains(&reply(number, read_ready(1)))
}

// ---- at the leader -------------------------------------------------------------------------

#[test]
fn rule_t3_leases_are_opt_in() {
    let mut server = Start::first_of_three().settled_leader();
    assert_eq!(server.tick(), [send(2, heartbeat(1, 2, 1)), send(3, heartbeat(1, 2, 1))], "asks for no promise");
    server.receive(2, granting(1, 2, 1, 150));
    assert!(!is_read_by_lease(&mut server, 7), "and believes in none");
    assert_eq!(server.receive(2, heartbeat_reply(1, 3, 1, 1)), [reply(7, read_ready(1))], "it asks instead");
}

#[test]
fn rule_t3_a_majority_of_promises_is_a_lease() {
    let mut server = asked();
    assert!(!is_read_by_lease(&mut server, 7), "nobody has promised anything yet");
    assert_eq!(server.receive(2, granting(1, 2, 1, 150)), [], "the read takes the round it asked for");
    assert!(is_read_by_lease(&mut server, 8));
    assert_eq!(server.read(9).len(), 2, "a read that does not trust clocks asks all the same");
}

#[test]
fn rule_t3_a_lease_ends_when_the_promise_can_have_ended_by_the_other_clock() {
    let mut server = asked();
    let sent = server.now;
    server.receive(2, granting(1, 2, 1, 150));
    server.now = sent.after(RELIABLE - Duration::from_nanos(1));
    assert!(is_read_by_lease(&mut server, 7));
    server.now = sent.after(RELIABLE);
    assert!(!is_read_by_lease(&mut server, 8));
}

#[test]
fn regress_t015_a_lease_is_anchored_where_the_question_left() {
    let mut server = asked();
    let sent = server.now;
    server.now = sent.after(Duration::from_millis(120));
    server.receive(2, granting(1, 2, 1, 150));
    assert!(is_read_by_lease(&mut server, 7));
    server.now = sent.after(RELIABLE);
    assert!(!is_read_by_lease(&mut server, 8), "however late the answer came");
}

#[test]
fn rule_t3_an_answer_that_comes_after_the_lease_has_ended_opens_none() {
    let mut server = asked();
    server.now = server.now.after(RELIABLE);
    server.receive(2, granting(1, 2, 1, 150));
    assert!(!is_read_by_lease(&mut server, 7));
}

#[test]
fn rule_t3_the_least_grant_of_the_majority_counts() {
    let start = Start::new(1, &[1, 2, 3, 4, 5]).leases();
    let mut server = start.settled_leader();
    server.tick();
    let sent = server.now;
    server.receive(2, granting(1, 2, 1, 150));
    assert!(!is_read_by_lease(&mut server, 6), "two of five are no majority");
    server.receive(3, granting(1, 2, 1, 60));
    server.now = sent.after(Duration::from_millis(59));
    assert!(is_read_by_lease(&mut server, 7));
    server.now = sent.after(Duration::from_millis(60));
    assert!(!is_read_by_lease(&mut server, 8), "the shorter of the two promises is over");
    server.receive(4, granting(1, 2, 1, 150));
    assert!(is_read_by_lease(&mut server, 9), "a third one makes it needless");
}

#[test]
fn rule_t3_a_learner_promises_nothing_that_counts() {
    let start = Start::first_of_three().members(with_learners(&[1, 2, 3], &[4])).leases();
    let mut server = start.settled_leader();
    server.tick();
    server.receive(4, granting(1, 2, 0, 150));
    assert!(!is_read_by_lease(&mut server, 7));
}

#[test]
fn rule_t3_while_joint_both_majorities_must_have_promised() {
    let mut server = Start::new(1, &[1, 2, 3, 4, 5]).leases().settled_leader();
    server.step(change(6, 0, &[remove(2), remove(3)]));
    assert!(server.status().configuration.membership.is_joint());
    server.tick();
    server.receive(2, granting(1, 3, 1, 150));
    server.receive(3, granting(1, 3, 1, 150));
    assert!(!is_read_by_lease(&mut server, 7), "nobody of {{1 4 5}} but the leader");
    server.receive(4, granting(1, 3, 1, 150));
    assert!(is_read_by_lease(&mut server, 8));
}

#[test]
fn regress_t008_a_lease_does_not_help_before_the_first_commit_of_the_term() {
    let mut server = Start::first_of_three().leases().leader();
    server.receive(2, granting(1, 1, 0, 150));
    server.receive(3, granting(1, 1, 0, 150));
    assert_eq!(server.step(read_by_lease(7)), []);
}

#[test]
fn rule_q2_a_read_by_lease_waits_for_the_machine() {
    let mut server = asked();
    server.receive(3, granting(1, 2, 1, 150));
    server.propose(7);
    server.persisted(3);
    server.receive(2, append_reply(1, 3, 2));
    assert_eq!(server.step(read_by_lease(8)), [], "committed at 2, applied at 1");
    let effects = server.step(Event::Applied { index: crate::rig::index(2) });
    assert_eq!(effects, [reply(8, read_ready(2))]);
}

#[test]
fn rule_t4_whoever_was_told_to_take_over_ends_the_lease_for_the_term() {
    let mut server = asked();
    server.receive(2, granting(1, 2, 1, 150));
    server.receive(3, granting(1, 2, 1, 150));
    let effects = server.batch([transfer(7, 3), read_by_lease(8)]);
    assert!(effects.contains(&send(3, timeout_now(1))), "{effects:?}");
    assert!(!effects.contains(&reply(8, read_ready(1))), "the voters may elect it at once: {effects:?}");
    // T14: the transfer times out; the order may still be under way.
    while server.status().transfer.is_some() {
        server.tick();
        for round in 1..10 {
            server.receive(2, granting(1, round, 1, 150));
        }
    }
    assert_eq!(server.status().role, raft_core::RoleKind::Leader);
    assert!(!is_read_by_lease(&mut server, 9));
}

#[test]
fn rule_t4_a_transfer_that_has_ordered_nothing_leaves_the_lease_alone() {
    let mut server = asked();
    server.receive(2, granting(1, 2, 1, 150));
    server.propose(7);
    server.step(transfer(8, 3));
    assert!(is_read_by_lease(&mut server, 9), "3 lacks an entry, and has not been told");
}

#[test]
fn rule_t3_a_lease_is_void_while_the_own_disk_stalls() {
    let mut server = asked();
    server.propose(7);
    server.receive(2, append_reply(1, 3, 2));
    server.receive(3, append_reply(1, 3, 2));
    server.step(Event::Tick);
    let mut newest = 3;
    let by_lease = |server: &mut Lone, newest: &mut u64, number| {
        server.wait(50);
        server.step(Event::Tick);
        *newest += 1;
        server.receive(2, granting(1, *newest, 2, 150));
        let before = server.status().load.reads;
        let effects = server.step(read_by_lease(number));
        assert_eq!(server.status().load.reads, before + 1, "nothing is applied without a disk");
        // One that asks sends a round.
        let asks = !effects.is_empty();
        *newest += u64::from(asks);
        !asks
    };
    assert!(by_lease(&mut server, &mut newest, 8), "50 ms behind");
    assert!(by_lease(&mut server, &mut newest, 9), "100 ms behind");
    assert!(!by_lease(&mut server, &mut newest, 10), "150 ms behind, as long as a promise lasts");
    server.persisted(3);
    server.step(Event::Applied { index: crate::rig::index(2) });
    server.wait(1);
    assert_eq!(server.step(read_by_lease(11)), [reply(11, read_ready(2))], "it is back");
}

#[test]
fn a_sole_voter_needs_nobodys_promise() {
    let mut server = Start::new(1, &[1]).leases().sole_leader();
    server.wait(10_000);
    assert!(is_read_by_lease(&mut server, 7));
}

// ---- at a voter ----------------------------------------------------------------------------

#[test]
fn rule_t3_a_voter_promises_what_is_asked_but_no_more_than_its_own_minimum() {
    for (asked, granted) in [(0, 0), (60, 60), (150, 150), (400, 150)] {
        let mut server = Start::first_of_three().term(1).leases().follower_of(2);
        assert_eq!(server.receive(2, asking(1, 2, 0, asked)), [send(2, granting(1, 2, 0, granted))]);
    }
    let mut without = Start::first_of_three().term(1).follower_of(2);
    assert_eq!(without.receive(2, asking(1, 2, 0, 150)), [send(2, granting(1, 2, 0, 0))], "it would forget (T5)");
}

/// A follower of server 2 in term 1 that has just promised it 150 ms.
fn promised() -> Lone {
    let mut server = Start::first_of_three().term(1).leases().follower_of(2);
    // What it heard at its first step does not matter any more.
    server.wait(140);
    server.receive(2, asking(1, 2, 0, 150));
    server
}

/// Whether it would help server 3 to power.
fn helps(server: &mut Lone, number: u64) -> bool {
    match server.receive(3, pre_vote(9, number, at(9, 1))).as_slice() {
        [effect] if *effect == send(3, pre_vote_reply(9, number, Granted)) => true,
        [effect] if *effect == send(3, pre_vote_reply(server.role().0, number, LeaderAlive)) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_t6_a_broken_channel_does_not_shorten_a_promise() {
    let mut server = promised();
    server.wait(10);
    server.step(Event::PeerUnreachable { node: node(2) });
    assert!(!helps(&mut server, 1));
    assert_eq!(server.receive(3, vote(2, at(9, 1))), []);
    server.wait(139);
    assert!(!helps(&mut server, 2));
    server.wait(1);
    assert!(helps(&mut server, 3), "it is over");
}

#[test]
fn rule_t6_without_a_promise_a_broken_channel_frees_the_voter() {
    let mut server = Start::first_of_three().term(1).leases().follower_of(2);
    server.wait(140);
    server.receive(2, asking(1, 2, 0, 0));
    server.wait(10);
    assert!(!helps(&mut server, 1));
    server.step(Event::PeerUnreachable { node: node(2) });
    assert!(helps(&mut server, 2));
}

#[test]
fn rule_t6_a_leader_that_resigns_clears_its_promise() {
    let mut server = promised();
    server.wait(10);
    assert_eq!(server.receive(2, resigned(1)), []);
    assert_eq!(server.status().leader, None);
    assert!(helps(&mut server, 1));
    assert_eq!(server.receive(3, vote(2, at(9, 1))), [persist_vote(1, 2, 3, NONE)]);
}

#[test]
fn rule_t6_nobody_else_can_resign_for_it() {
    let mut server = promised();
    server.wait(10);
    assert_eq!(server.receive(3, resigned(1)), []);
    assert!(!helps(&mut server, 1));
    assert_eq!(server.status().leader, Some(node(2)));
}

#[test]
fn rule_t6_a_leader_without_a_majority_says_so() {
    let mut leader = Start::first_of_three().leases().settled_leader();
    let mut last = Vec::new();
    while leader.role().1 == raft_core::RoleKind::Leader {
        last = leader.tick();
    }
    assert_eq!(last, [send(2, resigned(1)), send(3, resigned(1))]);
}

#[test]
fn rule_t3_a_promise_outlives_the_term_in_which_it_was_given() {
    let mut server = promised();
    server.wait(10);
    assert_eq!(server.receive(3, term_over(5)), [persist_vote(1, 5, None, NONE)]);
    server.persisted(1);
    assert!(!helps(&mut server, 1));
    assert_eq!(server.receive(3, vote(6, at(9, 1))), []);
    server.wait(140);
    assert!(helps(&mut server, 2));
}

#[test]
fn rule_v5_the_order_of_the_leader_frees_the_voter_from_its_promise() {
    let mut server = promised();
    assert_eq!(server.receive(3, ordered_vote(2, at(9, 1), 1)), [persist_vote(1, 2, 3, NONE)]);
}

#[test]
fn rule_t3_a_voter_does_not_run_itself_before_its_promise_is_over() {
    let mut server = promised();
    server.step(Event::PeerUnreachable { node: node(2) });
    assert!(server.patience() >= Duration::from_millis(150));
}

// ---- restarts ------------------------------------------------------------------------------

fn restarted() -> Start {
    Start { boot: 2, ..Start::first_of_three().log(&[1]).leases() }
}

#[test]
fn rule_t5_a_restart_keeps_the_promise() {
    let mut server = restarted().server();
    assert!(!helps(&mut server, 1));
    assert_eq!(server.receive(3, vote(2, at(9, 1))), []);
    server.wait(149);
    assert!(!helps(&mut server, 2));
    server.wait(1);
    assert!(helps(&mut server, 3));
    assert_eq!(server.receive(3, vote(2, at(9, 1))), [persist_vote(1, 2, 3, NONE)]);
}

#[test]
fn rule_t5_a_broken_channel_after_a_restart_does_not_shorten_it() {
    let mut server = restarted().server();
    server.step(Event::PeerUnreachable { node: node(2) });
    assert!(!helps(&mut server, 1));
}

#[test]
fn rule_t5_a_restarted_server_does_not_run_itself_before_that() {
    assert!(restarted().server().patience() >= Duration::from_millis(150));
}

#[test]
fn rule_t5_any_sign_of_an_earlier_life_counts() {
    for start in [
        Start { boot: 2, ..Start::first_of_three().leases() },
        Start::first_of_three().term(1).leases(),
        Start::first_of_three().log(&[1]).leases(),
    ] {
        let mut server = start.server();
        assert!(!helps(&mut server, 1));
    }
}

#[test]
fn rule_t5_a_store_that_never_started_has_promised_nothing() {
    assert!(helps(&mut Start::first_of_three().leases().server(), 1));
}

#[test]
fn rule_t5_without_leases_nothing_was_promised() {
    let start = Start { boot: 2, ..Start::first_of_three().log(&[1]) };
    assert!(helps(&mut start.server(), 1));
}

#[test]
fn rule_t5_a_sole_voter_campaigns_at_once() {
    let start = Start { boot: 2, ..Start::new(1, &[1]).log(&[1]).leases() };
    assert_eq!(start.server().role(), (2, raft_core::RoleKind::Candidate));
}

#[test]
fn regress_t5_a_sole_voter_in_a_configuration_that_another_leader_may_be_finishing_waits() {
    // {1 2}, led by 2, which removes itself: 2@1 is in force at both, and committed as soon as 2
    // hears from 1. Until then 2 reads by the promise of 1 alone. If 1 restarts and runs at once,
    // it commits writes that those reads do not see.
    let start = Start { boot: 2, ..Start::new(1, &[1, 2]).log(&[1, 1]).leases() };
    let mut server = start.change(2, membership_of_one()).server();
    assert_eq!(server.role(), (1, raft_core::RoleKind::Follower));
    assert!(server.patience() >= Duration::from_millis(150), "{:?}", server.patience());
    assert!(!helps(&mut server, 1), "and helps nobody else");
}

fn membership_of_one() -> raft_core::Membership {
    membership(&[1, 2]).changed(&[remove(2)]).expect("one voter leaves")
}

#[test]
fn rule_t3_no_more_is_believed_than_was_asked_for() {
    let mut server = asked();
    server.receive(2, granting(1, 2, 1, 100_000));
    server.wait(150);
    assert!(!is_read_by_lease(&mut server, 7), "150 ms were asked for");
}

#[test]
fn rule_t6_the_promise_is_not_lost_in_a_batch() {
    let mut server = promised();
    let effects = server.batch([
        received(2, asking(1, 3, 0, 150)),
        Event::PeerUnreachable { node: node(2) },
        received(3, vote(2, at(9, 1))),
    ]);
    assert_eq!(effects, [send(2, granting(1, 3, 0, 150))]);
}
