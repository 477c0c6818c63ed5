//! Nodes that would rather not lead: contract V7.

use std::time::Duration;

use raft_core::Verdict::{Granted, Refused};
use raft_core::{Busy, Entries, Event, Priority, RoleKind};

use crate::members::{busy, timeout_now};
use crate::rig::{
    Lone, Start, append_reply, at, heartbeat, heartbeat_reply, membership, persist_vote, pre_vote, pre_vote_reply,
    received, send, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

#[test]
fn rule_v7_priority_delays_by_at_most_two_timeouts() {
    let patience = |priority| Start::first_of_three().priority(priority).server().patience();
    let high = patience(Priority::High);
    assert!((Duration::from_millis(150)..=Duration::from_millis(300)).contains(&high));
    assert_eq!(patience(Priority::Middle), high * 2);
    assert_eq!(patience(Priority::Low), high * 3);
}

#[test]
fn rule_v7_whoever_has_waited_long_enough_runs_like_any_other() {
    let mut server = Start::first_of_three().priority(Priority::Low).server();
    assert_eq!(server.tick(), [send(2, pre_vote(1, 1, at(0, 0))), send(3, pre_vote(1, 1, at(0, 0)))]);
    assert!(server.patience() <= Duration::from_millis(300), "from here on it is needed");
}

fn unwilling() -> Start {
    Start::first_of_three().log(&[1, 1]).priority(Priority::Never)
}

#[test]
fn rule_v7_priority_never_does_not_run_by_itself_and_votes() {
    let mut server = unwilling().server();
    assert_eq!(server.raft.deadline(), None);
    server.wait(100_000);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.receive(2, pre_vote(2, 1, at(2, 1))), [send(2, pre_vote_reply(2, 1, Granted))]);
    assert_eq!(server.role(), (1, RoleKind::Follower), "a candidate that lacks nothing needs no help");
    assert_eq!(server.receive(2, vote(2, at(2, 1))), [persist_vote(1, 2, 2, NONE)]);
}

#[test]
fn rule_v7_it_runs_after_refusing_a_candidate_that_lacks_entries() {
    let mut server = unwilling().server();
    server.wait(1_000);
    assert_eq!(
        server.receive(2, pre_vote(2, 1, at(1, 1))),
        [send(2, pre_vote_reply(1, 1, Refused)), send(2, pre_vote(2, 1, at(2, 1))), send(3, pre_vote(2, 1, at(2, 1)))]
    );
}

#[test]
fn rule_v7_a_refused_vote_counts_like_a_refused_pre_vote() {
    let mut server = unwilling().server();
    server.wait(1_000);
    assert_eq!(server.receive(2, vote(2, at(1, 1))).first(), Some(&send(2, vote_reply(2, Refused))),);
    server.persisted(1);
    server.tick();
    assert_eq!(server.role(), (2, RoleKind::PreCandidate));
}

#[test]
fn rule_v7_a_leader_that_appears_meanwhile_makes_it_needless() {
    let mut server = unwilling().server();
    server.receive(2, pre_vote(2, 1, at(1, 1)));
    assert!(server.raft.deadline().is_some());
    server.receive(3, heartbeat(2, 1, 0));
    server.persisted(1);
    assert_eq!(server.raft.deadline(), None);
}

/// An unwilling leader of term 2, elected because it alone had 2@1.
fn drafted() -> Lone {
    let mut server = unwilling().server();
    server.wait(1_000);
    server.receive(2, pre_vote(2, 1, at(1, 1)));
    server.receive(3, pre_vote_reply(2, 1, Granted));
    server.persisted(1);
    server.receive(3, vote_reply(2, Granted));
    assert_eq!(server.role(), (2, RoleKind::Leader));
    server.persisted(2);
    server
}

#[test]
fn rule_v7_it_hands_over_as_soon_as_the_others_have_what_it_has() {
    let mut server = drafted();
    assert_eq!(server.status().transfer, None, "nothing of its term is committed yet");
    let effects = server.receive(3, append_reply(2, 1, 3));
    assert!(effects.contains(&send(3, timeout_now(2))), "{effects:?}");
    assert_eq!(server.propose(7), [busy(7, Busy::Transferring)]);
}

#[test]
fn regress_v7_a_reluctant_leader_that_nobody_relieves_takes_writes() {
    // 3 holds everything and never takes over: its own storage has failed, say, or every order is lost.
    let mut server = drafted();
    server.receive(2, append_reply(2, 1, 3));
    server.receive(3, append_reply(2, 1, 3));
    let (mut taken, mut refused) = (0, 0);
    for number in 0..100 {
        server.wait(50);
        let effects = server.step(Event::Tick);
        let newest = effects.iter().rev().find_map(|effect| match effect {
            raft_core::Effect::Send { rpc: raft_core::Rpc::Heartbeat { round, .. }, .. } => Some(round.as_u64()),
            _ => None,
        });
        if let Some(round) = newest {
            server.batch([2, 3].map(|id| received(id, heartbeat_reply(2, round, 3, 3))));
        }
        if server.propose(number).contains(&busy(number, Busy::Transferring)) {
            refused += 1;
        } else {
            taken += 1;
        }
        assert_eq!(server.role().1, RoleKind::Leader);
    }
    assert!(taken > refused, "of 100 writes in 5 s it took {taken}");
    assert!(refused > 0, "it tries now and then");
}

#[test]
fn rule_v7_it_obeys_an_order_and_does_not_try_twice() {
    let mut server = unwilling().follower_of(2);
    assert_eq!(server.receive(2, timeout_now(1)), [persist_vote(1, 2, 1, NONE)]);
    server.persisted(1);
    assert_eq!(server.role(), (2, RoleKind::Candidate));
    assert_eq!(server.tick(), []);
    assert_eq!(server.role(), (2, RoleKind::Follower));
    assert_eq!(server.raft.deadline(), None);
}

#[test]
fn rule_v7_a_sole_voter_has_to() {
    let server = Start::new(1, &[1]).priority(Priority::Never).sole_leader();
    assert_eq!(server.role(), (1, RoleKind::Leader));
    assert_eq!(server.status().configuration.membership.voters().len(), membership(&[1]).voters().len());
}
