//! The checks of what may leave before the disk has it notice what they are there for.

use raft_core::{
    Effect, HardState, Outcome, PeerStatus, Position, ProgressMode, Purpose, ReadId, RoleKind, Round, Rpc, Storage,
};
use raft_sim::Invariant;
use raft_sim::checks::Inbox;
use std::time::Duration;

use crate::rig::{Rig, apply, ask_vote, at, blank, fired, founders, grant, index, node, odd, send, term};

#[test]
fn a_request_for_votes_before_the_own_vote_is_durable_is_noticed() {
    let mut rig = Rig::new();
    rig.campaign(1, 1);
    let verdict = rig.step(1, |_| {}, vec![ask_vote(2, 1, Position::ZERO)]);
    assert_eq!(fired(verdict), Some(Invariant::DurableBeforeSend));
}

#[test]
fn a_vote_that_leaves_before_it_is_durable_is_noticed() {
    let mut rig = Rig::new();
    rig.campaign(1, 1);
    rig.sync(1);
    assert_eq!(rig.step(1, |_| {}, vec![ask_vote(2, 1, Position::ZERO)]), Ok(()));
    let vote = rig.vote(1, Some(1));
    assert_eq!(fired(rig.step(2, |_| {}, vec![vote, grant(1, 1)])), Some(Invariant::DurableBeforeSend));
}

#[test]
fn a_vote_of_a_term_that_is_durably_over_may_leave() {
    let mut rig = Rig::new();
    rig.campaign(1, 1);
    rig.sync(1);
    assert_eq!(rig.step(1, |_| {}, vec![ask_vote(2, 1, Position::ZERO)]), Ok(()));
    let newer = rig.vote(2, None);
    assert_eq!(rig.step(2, |_| {}, vec![newer]), Ok(()));
    rig.sync(2);
    assert_eq!(rig.step(2, |_| {}, vec![grant(1, 1)]), Ok(()));
}

#[test]
fn a_leader_whose_own_vote_is_not_durable_is_noticed() {
    let mut rig = Rig::new();
    rig.campaign(1, 1);
    rig.sync(1);
    assert_eq!(rig.step(1, |_| {}, vec![ask_vote(2, 1, Position::ZERO)]), Ok(()));
    for voter in [2, 3] {
        let vote = rig.vote(1, Some(1));
        assert_eq!(rig.step(voter, |_| {}, vec![vote]), Ok(()));
        rig.sync(voter);
        assert_eq!(rig.step(voter, |_| {}, vec![grant(1, 1)]), Ok(()));
    }
    rig.disks[0] = raft_sim::disk::Disk::format(node(1), rig.disks[0].store(), founders());
    let verdict = rig.step(1, |status| status.role = RoleKind::Leader, Vec::new());
    assert_eq!(fired(verdict), Some(Invariant::DurableBeforeSend));
}

#[test]
fn an_acknowledgement_of_entries_that_are_not_durable_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(1, 2, 1);
    rig.take(2, 1, vec![blank(1, 1)]);
    let reply = Rpc::AppendReply { term: term(1), round: Round::new(1), matched: index(1) };
    assert_eq!(fired(rig.step(2, |_| {}, vec![send(1, reply.clone())])), Some(Invariant::DurableBeforeSend));
    let beat = Rpc::HeartbeatReply {
        term: term(1),
        round: Round::new(1),
        matched: index(1),
        verified: index(1),
        granted: Duration::ZERO,
    };
    assert_eq!(fired(rig.step(2, |_| {}, vec![send(1, beat)])), Some(Invariant::DurableBeforeSend));
    rig.sync(2);
    assert_eq!(rig.step(2, |_| {}, vec![send(1, reply)]), Ok(()));
}

#[test]
fn an_acknowledgement_in_a_term_that_is_not_durable_is_noticed() {
    let mut rig = Rig::new().with_leader();
    rig.elect(1, 3, 2);
    let newer = rig.vote(2, None);
    let reply = Rpc::AppendReply { term: term(2), round: Round::new(1), matched: index(1) };
    assert_eq!(fired(rig.step(2, |_| {}, vec![newer, send(1, reply)])), Some(Invariant::DurableBeforeSend));
}

#[test]
fn an_acknowledgement_in_a_term_that_is_over_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let newer = rig.vote(2, None);
    assert_eq!(rig.step(2, |_| {}, vec![newer]), Ok(()));
    let reply = Rpc::AppendReply { term: term(1), round: Round::new(1), matched: index(1) };
    assert_eq!(fired(rig.step(2, |_| {}, vec![send(1, reply)])), Some(Invariant::Provenance));
}

#[test]
fn a_node_that_believes_too_much_durable_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(1, 2, 1);
    let verdict = rig.step(1, |status| status.log.durable = index(1), Vec::new());
    assert_eq!(fired(verdict), Some(Invariant::DurableBeforeSend));
}

#[test]
fn an_entry_applied_before_it_is_durable_here_is_noticed() {
    let mut rig = Rig::new().with_leader();
    rig.take(3, 1, vec![blank(1, 1)]);
    assert_eq!(rig.commit(3, 1), Ok(()));
    assert_eq!(fired(rig.step(3, |_| {}, vec![apply(vec![blank(1, 1)])])), Some(Invariant::DurableBeforeSend));
}

#[test]
fn a_read_of_entries_that_the_disk_does_not_have_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let read = Effect::ReadLog {
        id: ReadId::new(1),
        purpose: Purpose::Apply,
        from: index(2),
        through: index(2),
        max_bytes: 1,
    };
    assert_eq!(fired(rig.step(1, |_| {}, vec![read])), Some(Invariant::DurableBeforeSend));
}

#[test]
fn a_node_that_votes_after_its_disk_has_failed_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let told = Inbox { storage_failed: true, ..Inbox::default() };
    assert_eq!(rig.step_with(2, told, |_| {}, Vec::new()), Ok(()));
    assert_eq!(fired(rig.step(2, |_| {}, vec![grant(1, 1)])), Some(Invariant::DurableBeforeSend));
}

#[test]
fn a_term_that_falls_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(1, 2, 2);
    let older = rig.vote(1, None);
    assert_eq!(fired(rig.step(2, |_| {}, vec![older])), Some(Invariant::TermMonotonic));
}

#[test]
fn a_term_that_falls_on_a_disk_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(1, 2, 2);
    let rolled_back = raft_sim::disk::Disk::format(node(2), rig.disks[1].store(), founders());
    assert_eq!(rolled_back.hard_state(), HardState::default());
    assert_eq!(fired(rig.checks.on_start(node(2), &rolled_back, index(0))), Some(Invariant::TermMonotonic));
}

#[test]
fn an_entry_of_a_term_that_the_disk_would_not_know_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(1, 2, 1);
    let write = rig.persist(vec![blank(1, 1)]);
    assert_eq!(fired(rig.step(3, |_| {}, vec![write])), Some(Invariant::TermMonotonic));
}

#[test]
fn a_full_disk_that_takes_entries_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let full = |status: &mut raft_core::Status| status.load.storage = Storage::Full;
    assert_eq!(rig.step(2, full, Vec::new()), Ok(()));
    assert_eq!(rig.step(1, full, Vec::new()), Ok(()));
    let more = rig.persist(vec![odd(2, 1)]);
    assert_eq!(fired(rig.step(1, |_| {}, vec![more])), Some(Invariant::Bounds));
    let more = rig.persist(vec![blank(1, 1), blank(2, 1)]);
    let inbox = Inbox { appends: true, ..Inbox::default() };
    assert!(fired(rig.step_with(2, inbox, |_| {}, vec![more])).is_some());
}

#[test]
fn a_leader_that_goes_on_while_its_disk_stands_still_is_noticed() {
    let mut rig = Rig::new();
    rig.elect(1, 2, 1);
    for id in [2, 3] {
        rig.take(id, 1, vec![blank(1, 1)]);
        rig.sync(id);
    }
    assert_eq!(rig.commit(1, 1), Ok(()), "two of three have it, and n1 is not one of them");
    assert_eq!(rig.step(1, |_| {}, Vec::new()), Ok(()));
    rig.wait(Duration::from_millis(900));
    assert_eq!(rig.step(1, |_| {}, Vec::new()), Ok(()));
    rig.wait(Duration::from_millis(101));
    assert_eq!(fired(rig.step(1, |_| {}, Vec::new())), Some(Invariant::StalledLeader));
    rig.sync(1);
    assert_eq!(rig.step(1, |_| {}, Vec::new()), Ok(()));
}

/// n2 promises n1 to elect nobody else for a second, and n3 asks for its vote after so long.
fn vote_after(wait: Duration, inbox: Inbox) -> Option<Invariant> {
    let mut rig = Rig::new().with_leader();
    rig.take(3, 1, vec![blank(1, 1)]);
    rig.sync(3);
    rig.wait(Duration::from_secs(2));
    rig.campaign(3, 2);
    rig.sync(3);
    assert_eq!(rig.step(3, |_| {}, vec![ask_vote(2, 2, at(1, 1))]), Ok(()));
    let granted = Duration::from_secs(1);
    let promise =
        Rpc::HeartbeatReply { term: term(1), round: Round::new(1), matched: index(1), verified: index(1), granted };
    assert_eq!(rig.step(2, |_| {}, vec![send(1, promise)]), Ok(()));
    // A restart is no excuse.
    assert_eq!(rig.checks.on_start(node(2), &rig.disks[1], index(0)), Ok(()));
    rig.wait(wait);
    let configured = rig.configured();
    let vote = rig.vote(2, Some(3));
    fired(rig.step_with(2, inbox, |_| {}, vec![configured, vote]))
}

#[test]
fn a_vote_against_a_promise_is_noticed() {
    let (early, late) = (Duration::from_millis(999), Duration::from_secs(1));
    assert_eq!(vote_after(early, Inbox::default()), Some(Invariant::Leases));
    assert_eq!(vote_after(early, Inbox { unreachable: true, ..Inbox::default() }), Some(Invariant::Leases));
    assert_eq!(vote_after(late, Inbox::default()), None);
    let resigned = Some((node(1), term(1)));
    assert_eq!(vote_after(early, Inbox { resigned, ..Inbox::default() }), None);
}

/// n1 answers a read by lease, so long after n2 promised to elect nobody else for a second.
fn read_after(wait: Duration, orders: Option<u64>) -> Option<Invariant> {
    let mut rig = Rig::new().with_leader();
    let granted = Duration::from_secs(1);
    let (round, matched) = (Round::new(1), index(1));
    let promise = Rpc::HeartbeatReply { term: term(1), round, matched, verified: matched, granted };
    assert_eq!(rig.step(2, |_| {}, vec![send(1, promise)]), Ok(()));
    if let Some(to) = orders {
        assert_eq!(rig.step(1, |_| {}, vec![send(to, Rpc::TimeoutNow { term: term(1) })]), Ok(()));
    }
    rig.wait(wait);
    let read = rig.checks.history.begin_read(1);
    rig.checks.history.on_handed_over(node(1), read);
    let ready = Effect::Reply { request: read, outcome: Outcome::ReadReady { index: index(1) } };
    let inbox = Inbox { heard: u32::MAX, lease_read: Some(read), ..Inbox::default() };
    fired(rig.step_with(1, inbox, |status| status.log.applied = index(1), vec![ready]))
}

#[test]
fn a_read_by_a_lease_that_has_run_out_or_is_void_is_noticed() {
    assert_eq!(read_after(Duration::from_millis(999), None), None);
    assert_eq!(read_after(Duration::from_secs(1), None), Some(Invariant::Leases));
    assert_eq!(read_after(Duration::ZERO, Some(3)), Some(Invariant::Leases));
}

#[test]
fn too_many_appends_in_flight_are_noticed() {
    let mut rig = Rig::new().with_leader();
    let peer = PeerStatus { inflight: 129, ..peer_at_1() };
    let verdict = rig.step(1, |status| status.peers = vec![peer], Vec::new());
    assert_eq!(fired(verdict), Some(Invariant::Bounds));
}

#[test]
fn a_match_that_is_taken_back_is_noticed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(rig.step(1, |status| status.peers = vec![peer_at_1()], Vec::new()), Ok(()));
    let back = PeerStatus { matched: index(0), next: index(1), ..peer_at_1() };
    assert_eq!(fired(rig.step(1, |status| status.peers = vec![back], Vec::new())), Some(Invariant::Ordering));
}

/// n2, as n1 knows it when all is well.
fn peer_at_1() -> PeerStatus {
    PeerStatus {
        node: node(2),
        matched: index(1),
        next: index(2),
        mode: ProgressMode::Replicate,
        is_member: true,
        inflight: 0,
        silent_for: Duration::ZERO,
    }
}
