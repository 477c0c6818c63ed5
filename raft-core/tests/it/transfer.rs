//! Leadership handed over: contract M5, T4, V5, E2; Thesis 3.10.

use std::time::Duration;

use raft_core::Verdict::{Granted, Refused};
use raft_core::{Busy, ChangeError, Effect, Entries, Event, Observation, RoleKind, TransferError};

use crate::members::{
    add, busy, change, not_changed, not_transferred, ordered_vote, resigned, timeout_now, transfer, transferred,
    with_learners,
};
use crate::rig::{
    Start, append, append_reply, apply, at, entries, heartbeat, heartbeat_reply, node, persist_vote, proposal, propose,
    received, reply, send, term_over, unknown, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

/// How long a successor is given.
const WITHIN: Duration = Duration::from_millis(300);

#[test]
fn a_successor_that_has_everything_is_told_at_once() {
    let mut server = Start::first_of_three().settled_leader();
    assert_eq!(
        server.observe([transfer(7, 3)]),
        [Effect::Observe(Observation::Transferring { to: node(3) }), send(3, timeout_now(1))]
    );
    assert_eq!(server.status().transfer, Some(node(3)));
    assert_eq!(
        server.receive(3, ordered_vote(2, at(1, 1), 1)),
        [transferred(7, None), persist_vote(3, 2, 3, NONE)],
        "the leader votes for its successor, and that ends the request"
    );
    assert_eq!(server.persisted(3), [send(3, vote_reply(2, Granted))]);
    assert_eq!(server.status().transfer, None);
}

#[test]
fn regress_t098_a_successor_that_lacks_entries_gets_them_first() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    assert_eq!(server.step(transfer(8, 2)), [], "2@1 is not durable there");
    assert_eq!(server.receive(2, append_reply(1, 2, 2)), [send(2, timeout_now(1))], "now it is, and nobody was asked");
    assert_eq!(
        server.persisted(3),
        [send(2, crate::rig::commit_notice(1, 2)), apply(entries([proposal(2, 1, 7)]), &[(2, 7)])],
        "what was proposed before goes on"
    );
}

#[test]
fn a_successor_is_told_once() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(transfer(7, 2));
    assert_eq!(server.receive(2, heartbeat_reply(1, 1, 1, 1)), []);
    assert_eq!(server.receive(2, append_reply(1, 1, 1)), []);
}

#[test]
fn the_nearest_of_those_that_have_most_is_chosen() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.receive(3, append_reply(1, 2, 2));
    assert_eq!(server.step(transfer(8, None)), [send(3, timeout_now(1))]);
    let mut server = Start::first_of_three().settled_leader();
    assert_eq!(server.step(transfer(8, None)), [send(2, timeout_now(1))], "alike: the one with the lower id");
}

#[test]
fn nobody_is_chosen_who_has_been_silent_for_an_election_timeout() {
    let mut server = Start::new(1, &[1, 2, 3, 4, 5]).settled_leader();
    server.propose(7);
    server.receive(5, append_reply(1, 2, 2));
    server.wait(250);
    server.step(Event::Tick);
    server.receive(3, heartbeat_reply(1, 3, 1, 1));
    server.receive(4, heartbeat_reply(1, 3, 1, 1));
    server.wait(100);
    let effects = server.step(transfer(8, None));
    assert_eq!(server.status().transfer, Some(node(3)), "5 has more, and was last heard of 350 ms ago: {effects:?}");
}

#[test]
fn every_reason_not_to_hand_over_is_named() {
    let mut server = Start::first_of_three().settled_leader();
    let own = TransferError::AlreadyLeader { node: node(1) };
    assert_eq!(server.step(transfer(7, 1)), [not_transferred(7, own)]);
    let stranger = TransferError::NotVoter { node: node(9) };
    assert_eq!(server.step(transfer(8, 9)), [not_transferred(8, stranger)]);
    server.step(transfer(9, 2));
    let under_way = TransferError::InProgress { to: node(2) };
    assert_eq!(server.step(transfer(10, 3)), [not_transferred(10, under_way)]);
    assert_eq!(server.step(transfer(11, None)), [not_transferred(11, under_way)]);

    let mut alone = Start::new(1, &[1]).sole_leader();
    assert_eq!(alone.step(transfer(7, None)), [not_transferred(7, TransferError::NobodyReady)]);

    let start = Start::new(1, &[1, 2]).members(with_learners(&[1, 2], &[3]));
    let mut server = start.settled_leader();
    let learner = TransferError::NotVoter { node: node(3) };
    assert_eq!(server.step(transfer(7, 3)), [not_transferred(7, learner)], "a learner cannot lead");
}

#[test]
fn whoever_does_not_lead_says_who_does() {
    let mut follower = Start::first_of_three().term(1).follower_of(2);
    assert_eq!(follower.step(transfer(7, 3)), [reply(7, crate::rig::not_leader(2))]);
    assert_eq!(follower.step(change(8, 0, &[add(4)])), [reply(8, crate::rig::not_leader(2))]);
    let mut candidate = Start::first_of_three().candidate();
    assert_eq!(candidate.step(transfer(7, 3)), [reply(7, crate::rig::not_leader(None))]);
    follower.step(Event::StorageFailed);
    assert_eq!(follower.step(transfer(9, 3)), [reply(9, raft_core::Outcome::StorageFailed)]);
    assert_eq!(follower.step(change(10, 0, &[add(4)])), [reply(10, raft_core::Outcome::StorageFailed)]);
}

#[test]
fn regress_t097_a_successor_that_never_takes_over_is_given_up() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(transfer(7, 2));
    assert_eq!(server.propose(8), [busy(8, Busy::Transferring)]);
    assert_eq!(server.step(change(9, 0, &[add(4)])), [not_changed(9, ChangeError::Transferring)]);
    let began = server.now;
    let mut effects = Vec::new();
    while server.status().transfer.is_some() {
        let round = server.now.since(began).as_millis() as u64;
        effects = server.tick();
        let newest = effects.iter().rev().find_map(|effect| match effect {
            Effect::Send { rpc: raft_core::Rpc::Heartbeat { round, .. }, .. } => Some(round.as_u64()),
            _ => None,
        });
        // The others still follow; only the order was lost.
        if let Some(newest) = newest {
            server.receive(3, heartbeat_reply(1, newest, 1, 1));
        }
        assert!(round <= 300, "it is never given up");
    }
    assert_eq!(server.now.since(began), WITHIN);
    let error = TransferError::TimedOut { to: node(2), within: WITHIN };
    assert!(effects.contains(&not_transferred(7, error)), "{effects:?}");
    let accepted = server.propose(10);
    assert!(accepted.contains(&crate::rig::persist(3, entries([proposal(2, 1, 10)]))), "writes go on: {accepted:?}");
}

#[test]
fn regress_t096_a_leader_that_is_elected_again_takes_writes() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(transfer(7, 2));
    assert_eq!(server.receive(3, term_over(2)), [transferred(7, None), persist_vote(3, 2, None, NONE)]);
    server.persisted(3);
    server.tick();
    server.receive(2, crate::rig::pre_vote_reply(3, 2, Granted));
    server.persisted(4);
    server.receive(2, vote_reply(3, Granted));
    assert_eq!(server.role(), (3, RoleKind::Leader));
    let effects = server.propose(8);
    assert!(!effects.contains(&busy(8, Busy::Transferring)), "{effects:?}");
    assert_eq!(server.status().load.proposals, 1);
}

#[test]
fn rule_m5_what_is_committed_counts_before_a_transfer_is_judged() {
    let step_by_step = |at_once: bool| {
        let mut server = Start::first_of_three().settled_leader();
        server.propose(7);
        server.persisted(3);
        let events = [received(3, append_reply(1, 2, 2)), transfer(8, None)];
        if at_once { server.batch(events) } else { events.into_iter().flat_map(|event| server.step(event)).collect() }
    };
    let chosen = |effects: &[Effect]| effects.contains(&send(3, timeout_now(1)));
    assert!(chosen(&step_by_step(false)) && chosen(&step_by_step(true)));
}

#[test]
fn rule_e2_a_step_down_ends_everything_that_waits_for_the_leader_once() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.step(change(8, 0, &[add(4)]));
    server.read(9);
    server.step(transfer(10, 2));
    assert_eq!(
        server.receive(2, heartbeat(2, 1, 0)),
        [
            reply(7, unknown(2)),
            reply(9, crate::rig::not_leader(2)),
            // Nobody was told to take over: that 2 leads has another reason.
            reply(10, crate::rig::not_leader(2)),
            reply(8, unknown(2)),
            send(2, heartbeat_reply(2, 1, 0, 0)),
            persist_vote(5, 2, None, NONE),
        ]
    );
}

// ---- at the successor ----------------------------------------------------------------------

#[test]
fn rule_v5_an_order_of_the_leader_starts_an_election_at_once() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    assert_eq!(server.receive(2, timeout_now(1)), [persist_vote(1, 2, 1, NONE)], "no pre-vote, no waiting");
    assert_eq!(server.persisted(1), [send(2, ordered_vote(2, at(0, 0), 1)), send(3, ordered_vote(2, at(0, 0), 1))]);
}

#[test]
fn rule_v5_nobody_elses_order_counts() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    assert_eq!(server.receive(3, timeout_now(1)), [], "not the leader");
    assert_eq!(server.role(), (1, RoleKind::Follower));
    let mut server = Start::first_of_three().term(2).follower_of(2);
    assert_eq!(server.receive(2, timeout_now(1)), [], "an order of an earlier term");
    assert_eq!(server.receive(2, timeout_now(3)), [persist_vote(1, 3, None, NONE)], "of a leader not heard of yet");
    assert_eq!(server.role(), (3, RoleKind::Follower));
    assert_eq!(server.status().load.drops.stale, 2);
}

#[test]
fn rule_v5_who_is_no_voter_obeys_no_order() {
    let start = Start::new(4, &[1, 2, 3]).members(with_learners(&[1, 2, 3], &[4])).term(1);
    let mut learner = start.follower_of(1);
    assert_eq!(learner.receive(1, timeout_now(1)), []);
    assert_eq!(learner.role(), (1, RoleKind::Follower));
}

#[test]
fn rule_v5_an_ordered_vote_passes_a_voter_that_hears_from_that_leader() {
    let mut server = Start::first_of_three().term(4).follower_of(2);
    assert_eq!(server.receive(3, ordered_vote(5, at(0, 0), 4)), [persist_vote(1, 5, 3, NONE)]);
    assert_eq!(server.persisted(1), [send(3, vote_reply(5, Granted))]);
}

#[test]
fn rule_v5_the_order_of_another_term_opens_no_gate() {
    for ordered_in in [3, 5] {
        let mut server = Start::first_of_three().term(4).follower_of(2);
        assert_eq!(server.receive(3, ordered_vote(6, at(0, 0), ordered_in)), [], "ordered in {ordered_in}");
        assert_eq!(server.role(), (4, RoleKind::Follower));
    }
}

#[test]
fn rule_v5_an_order_excuses_no_short_log() {
    let mut server = Start::first_of_three().log(&[1, 4]).follower_of(2);
    assert_eq!(
        server.receive(3, ordered_vote(5, at(1, 1), 4)),
        [send(3, vote_reply(5, Refused)), persist_vote(1, 5, None, NONE)]
    );
}

#[test]
fn regress_t101_a_batch_that_begins_with_a_transfer_takes_no_write_after_it() {
    let mut server = Start::first_of_three().settled_leader();
    let effects = server.batch([propose(7), transfer(8, 2), propose(9)]);
    let new = entries([proposal(2, 1, 7)]);
    assert_eq!(
        effects,
        [
            busy(9, Busy::Transferring),
            crate::rig::persist(3, new.clone()),
            send(2, append(1, 2, at(1, 1), 1, new.clone())),
            send(3, append(1, 2, at(1, 1), 1, new)),
        ],
        "the successor is told when it has 2@1"
    );
    assert_eq!(server.receive(2, append_reply(1, 2, 2)), [send(2, timeout_now(1))]);
}

#[test]
fn a_leader_that_gives_up_during_a_transfer_ends_it() {
    // No majority answers any more.
    let mut server = Start::first_of_three().settled_leader();
    server.propose(6);
    server.wait(299);
    server.step(Event::Tick);
    assert_eq!(server.step(transfer(7, 2)), []);
    server.wait(1);
    assert_eq!(
        server.step(Event::Tick),
        [send(2, resigned(1)), send(3, resigned(1)), reply(6, unknown(None)), reply(7, crate::rig::not_leader(None))]
    );
    assert_eq!(server.receive(2, vote(2, at(2, 1))), [persist_vote(4, 2, 2, NONE)]);
}
