//! Full disks: contract D8.

use raft_core::{Busy, Entries, Event, RoleKind};

use crate::members::{add, busy, change, not_transferred, timeout_now, transfer};
use crate::rig::{
    Start, append, append_reply, at, entries, entries_of, heartbeat, heartbeat_reply, node, persist, persist_vote,
    proposal, send, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

#[test]
fn rule_d8_a_leader_with_a_full_disk_hands_over_and_takes_no_entries() {
    let mut server = Start::first_of_three().settled_leader();
    assert_eq!(server.step(Event::StorageFull), [send(2, timeout_now(1))]);
    assert_eq!(server.propose(7), [busy(7, Busy::StorageFull)]);
    assert_eq!(server.step(change(8, 0, &[add(4)])), [busy(8, Busy::StorageFull)]);
    let error = raft_core::TransferError::InProgress { to: node(2) };
    assert_eq!(server.step(transfer(9, 3)), [not_transferred(9, error)]);
    assert_eq!(server.status().load.storage, raft_core::Storage::Full);
}

#[test]
fn rule_d8_it_tries_once_because_all_disks_may_be_full() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(Event::StorageFull);
    while server.status().transfer.is_some() {
        server.tick();
        if server.role().1 == RoleKind::Leader {
            let newest = 20;
            let answers = (1..newest).map(|round| crate::rig::received(3, heartbeat_reply(1, round, 1, 1)));
            server.batch(answers);
        }
    }
    assert_eq!(server.role(), (1, RoleKind::Leader), "the order was lost; it goes on");
    assert_eq!(server.step(Event::StorageFull), [], "it knows that already");
    assert_eq!(server.status().transfer, None);
    assert_eq!(server.propose(7), [busy(7, Busy::StorageFull)]);
}

#[test]
fn rule_d8_space_again_means_writes_again() {
    let mut server = Start::new(1, &[1]).sole_leader();
    assert_eq!(server.step(Event::StorageFull), [], "nobody to hand over to");
    assert_eq!(server.propose(7), [busy(7, Busy::StorageFull)]);
    assert_eq!(server.step(Event::StorageReady), []);
    assert_eq!(server.propose(8), [persist(3, entries([proposal(2, 1, 8)]))]);
}

#[test]
fn rule_d8_what_was_taken_before_is_finished() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    assert_eq!(server.step(Event::StorageFull), [], "2 has to have 2@1 first");
    server.persisted(3);
    let effects = server.receive(2, append_reply(1, 2, 2));
    assert_eq!(
        effects,
        [
            send(2, timeout_now(1)),
            send(2, crate::rig::commit_notice(1, 2)),
            crate::rig::apply(entries([proposal(2, 1, 7)]), &[(2, 7)])
        ]
    );
}

#[test]
fn rule_d8_a_follower_with_a_full_disk_takes_no_entries_and_votes() {
    let mut server = Start::first_of_three().log(&[1]).follower_of(2);
    server.step(Event::StorageFull);
    assert_eq!(server.receive(2, append(1, 2, at(1, 1), 0, entries_of(2, &[1]))), [], "no answer: it is sent again");
    assert_eq!(server.status().load.drops.overload, 1);
    assert_eq!(server.receive(2, append(1, 3, at(0, 0), 0, entries_of(1, &[1]))), [send(2, append_reply(1, 3, 1))]);
    assert_eq!(server.receive(2, heartbeat(1, 4, 1)).first(), Some(&send(2, heartbeat_reply(1, 4, 1, 1))));
    server.wait(150);
    assert_eq!(server.receive(3, vote(2, at(1, 1))), [persist_vote(1, 2, 3, NONE)]);
    assert_eq!(server.persisted(1), [send(3, vote_reply(2, raft_core::Verdict::Granted))]);
    server.step(Event::StorageReady);
    let new = entries_of(2, &[2]);
    assert_eq!(server.receive(3, append(2, 1, at(1, 1), 0, new.clone())), [persist(2, new)]);
}

#[test]
fn rule_d8_a_full_follower_lets_others_run_first() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.step(Event::StorageFull);
    // The patience of this stay was drawn before; the next one counts.
    server.receive(2, crate::members::resigned(1));
    assert!(server.patience().as_millis() >= 450, "{:?}", server.patience());
}

#[test]
fn storage_that_failed_does_not_become_ready_again() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(Event::StorageFailed);
    for event in [Event::StorageReady, Event::StorageFull, Event::StorageReady] {
        assert_eq!(server.step(event), []);
    }
    assert_eq!(server.status().load.storage, raft_core::Storage::Failed);
    assert_eq!(server.raft.deadline(), None);
}

#[test]
fn a_leader_whose_storage_fails_hands_over_and_ends_everything() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.read(8);
    server.step(transfer(9, 3));
    assert_eq!(
        server.step(Event::StorageFailed),
        [
            send(2, timeout_now(1)),
            send(3, crate::members::resigned(1)),
            crate::rig::reply(7, crate::rig::unknown(None)),
            crate::rig::reply(8, crate::rig::not_leader(None)),
            crate::members::transferred(9, None),
        ]
    );
    assert_eq!(server.propose(10), [crate::rig::reply(10, raft_core::Outcome::StorageFailed)]);
}
