//! The checks of logs and commits notice what they are there for.

use raft_core::{Index, Payload, RoleKind, Round, Rpc};
use raft_sim::Invariant;
use raft_sim::checks::Inbox;
use raft_sim::disk::Disk;
use raft_sim::machine::Registers;
use std::time::Duration;

use crate::rig::{Rig, apply, at, blank, fired, founders, index, node, odd, send, term};

#[test]
fn a_leader_that_overwrites_its_own_entry_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let overwrite = rig.persist(vec![odd(1, 1)]);
    assert_eq!(fired(rig.step(1, |_| {}, vec![overwrite])), Some(Invariant::LeaderAppendOnly));
}

#[test]
fn another_content_under_the_same_index_and_term_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let (seen, write) = (rig.vote(1, None), rig.persist(vec![odd(1, 1)]));
    assert_eq!(fired(rig.step(3, |_| {}, vec![seen, write])), Some(Invariant::LogMatching));
}

#[test]
fn an_entry_that_a_follower_made_up_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let write = rig.persist(vec![blank(2, 1)]);
    assert_eq!(fired(rig.step(2, |_| {}, vec![write])), Some(Invariant::Provenance));
}

#[test]
fn a_gap_in_a_log_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let write = rig.persist(vec![blank(3, 1)]);
    assert_eq!(fired(rig.step(1, |_| {}, vec![write])), Some(Invariant::Ordering));
}

#[test]
fn a_status_that_disagrees_with_what_was_written_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let verdict = rig.step(1, |status| status.log.last = at(5, 1), Vec::new());
    assert_eq!(fired(verdict), Some(Invariant::Ordering));
}

#[test]
fn a_claim_to_match_more_than_was_sent_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(3, 2, 1);
    rig.sync(3);
    rig.elect(1, 2, 2);
    let newer = rig.vote(2, None);
    assert_eq!(rig.step(3, |status| status.role = RoleKind::Follower, vec![newer]), Ok(()));
    rig.sync(3);
    let claim = Rpc::AppendReply { term: term(2), round: Round::new(1), matched: index(1) };
    assert_eq!(fired(rig.step(3, |_| {}, vec![send(1, claim)])), Some(Invariant::LogMatching));
    let claim = Rpc::HeartbeatReply {
        term: term(2),
        round: Round::new(1),
        matched: index(0),
        verified: index(1),
        granted: Duration::ZERO,
    };
    assert_eq!(fired(rig.step(3, |_| {}, vec![send(1, claim)])), Some(Invariant::LogMatching));
}

#[test]
fn a_commit_on_too_few_disks_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(1, 2, 1);
    rig.sync(1);
    // n2 has the entry in memory, but its disk does not.
    rig.take(2, 1, vec![blank(1, 1)]);
    assert_eq!(fired(rig.commit(1, 1)), Some(Invariant::CommitOnQuorum));
}

#[test]
fn a_commit_of_an_older_term_by_counting_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(1, 2, 1);
    rig.sync(1);
    rig.take(2, 1, vec![blank(1, 1)]);
    rig.sync(2);
    // n1 is elected again, with 1@1 on two disks and 2@2 on none.
    rig.elect(1, 2, 2);
    assert_eq!(fired(rig.commit(1, 1)), Some(Invariant::CommitOnQuorum));
}

#[test]
fn a_commit_that_no_leader_made_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(1, 2, 1);
    rig.sync(1);
    rig.take(2, 1, vec![blank(1, 1)]);
    rig.sync(2);
    assert_eq!(fired(rig.commit(2, 1)), Some(Invariant::CommitOnQuorum));
}

#[test]
fn a_commit_of_another_log_is_noticed() {
    let mut rig = Rig::new();
    // n3 leads term 1 alone with its opening entry; n1 leads term 2 and commits another 1.
    rig.elect(3, 2, 1);
    rig.sync(3);
    rig.elect(1, 2, 2);
    rig.sync(1);
    rig.take(2, 2, vec![blank(1, 2)]);
    rig.sync(2);
    assert_eq!(rig.commit(1, 1), Ok(()));
    let newer = rig.vote(2, None);
    let verdict = rig.step(
        3,
        |status| {
            status.role = RoleKind::Follower;
            status.log.commit = index(1);
        },
        vec![newer],
    );
    assert_eq!(fired(verdict), Some(Invariant::StateMachineSafety));
}

#[test]
fn an_overwritten_committed_entry_is_noticed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(rig.commit(2, 1), Ok(()));
    rig.take(3, 1, vec![blank(1, 1)]);
    rig.sync(3);
    rig.elect(3, 1, 2);
    let newer = rig.vote(2, None);
    let overwrite = rig.persist(vec![blank(1, 1), blank(2, 2)]);
    let inbox = Inbox { appends: true, ..Inbox::default() };
    let verdict = rig.step_with(2, inbox, |_| {}, vec![newer, overwrite]);
    assert_eq!(fired(verdict), Some(Invariant::CommittedForGood));
}

#[test]
fn a_crash_that_takes_a_committed_entry_from_the_majority_is_noticed() {
    let mut rig = Rig::new().with_leader();
    rig.disks[1] = Disk::format(node(2), rig.disks[1].store(), founders());
    assert_eq!(fired(rig.checks.on_crash(node(2), &rig.disks)), Some(Invariant::CommittedForGood));
}

#[test]
fn a_commit_index_that_goes_back_is_noticed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(fired(rig.commit(1, 0)), Some(Invariant::Ordering));
}

#[test]
fn applied_beyond_committed_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let verdict = rig.step(1, |status| status.log.applied = index(2), Vec::new());
    assert_eq!(fired(verdict), Some(Invariant::Ordering));
}

#[test]
fn an_entry_applied_before_it_is_committed_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let write = rig.persist(vec![blank(2, 1)]);
    assert_eq!(rig.step(1, |_| {}, vec![write]), Ok(()));
    rig.sync(1);
    let verdict = rig.step(1, |_| {}, vec![apply(vec![blank(1, 1), blank(2, 1)])]);
    assert_eq!(fired(verdict), Some(Invariant::StateMachineSafety));
}

#[test]
fn an_entry_applied_without_knowing_it_committed_is_noticed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(fired(rig.step(2, |_| {}, vec![apply(vec![blank(1, 1)])])), Some(Invariant::StateMachineSafety));
}

#[test]
fn another_entry_applied_than_the_committed_one_is_noticed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(fired(rig.step(1, |_| {}, vec![apply(vec![odd(1, 1)])])), Some(Invariant::StateMachineSafety));
}

#[test]
fn an_entry_applied_twice_is_noticed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(rig.step(1, |_| {}, vec![apply(vec![blank(1, 1)])]), Ok(()));
    assert_eq!(fired(rig.step(1, |_| {}, vec![apply(vec![blank(1, 1)])])), Some(Invariant::ApplyOnce));
}

#[test]
fn a_state_machine_that_went_its_own_way_is_noticed() {
    let rig = Rig::new().with_leader();
    let mut machine = Registers::default();
    machine.skip(at(1, 1));
    assert_eq!(rig.checks.on_applied(node(1), &machine), Ok(()));
    machine.skip(at(1, 1));
    assert_eq!(fired(rig.checks.on_applied(node(1), &machine)), Some(Invariant::StateMachineSafety));
}

#[test]
fn members_that_do_not_converge_are_noticed() {
    let rig = Rig::new().with_leader();
    let (machine, statuses) = (Registers::default(), rig.statuses.clone());
    let verdict = rig.checks.at_end(&statuses, &[&machine, &machine, &machine]);
    assert_eq!(fired(verdict), Some(Invariant::Liveness));
}

#[test]
fn a_log_is_mirrored_with_its_commands() {
    let rig = Rig::new().with_leader();
    let [opening] = rig.checks.logs.of(node(1)) else { panic!("one entry was written") };
    assert_eq!((opening.term, opening.command), (term(1), None));
    assert_eq!(rig.checks.logs.digest_at(node(1), Index::ZERO), Some(0));
    assert_eq!(rig.checks.logs.digest_at(node(1), index(1)), rig.disks[0].digest_at(index(1)));
    assert!(matches!(rig.disks[0].log()[0].entry.payload, Payload::Blank));
}
