//! The checks of snapshots notice what they are there for.

use std::sync::Arc;

use raft_core::{Configuration, Effect, Membership, Position, RequestId, SnapshotMeta, WriteSeq};
use raft_sim::Invariant;
use raft_sim::machine::{Command, Registers};

use crate::rig::{Rig, apply, at, blank, fired, founders, index, node, snapshot_of};

fn meta(last: Position) -> Arc<SnapshotMeta> {
    let configuration = Configuration { index: index(0), membership: founders() };
    Arc::new(SnapshotMeta { last, configuration, bytes: 0 })
}

fn install(last: Position) -> Effect {
    Effect::InstallSnapshot { seq: WriteSeq::new(99), meta: meta(last) }
}

/// A machine that has done what the leader of [`Rig::with_leader`] has committed.
fn machine_at_1() -> Registers {
    let mut machine = Registers::default();
    machine.skip(at(1, 1));
    machine
}

#[test]
fn a_faithful_snapshot_passes_and_can_be_installed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(rig.step(1, |_| {}, vec![apply(vec![blank(1, 1)])]), Ok(()));
    assert_eq!(rig.step(1, |_| {}, vec![Effect::TakeSnapshot { meta: meta(at(1, 1)) }]), Ok(()));
    assert_eq!(rig.checks.on_snapshot(node(1), &snapshot_of(&machine_at_1(), at(1, 1), 0)), Ok(()));
    assert_eq!(rig.step(1, |_| {}, vec![Effect::SendSnapshot { to: node(3), meta: meta(at(1, 1)) }]), Ok(()));
    let verdict = rig.step(
        3,
        |status| {
            status.log.base = at(1, 1);
            status.log.last = at(1, 1);
            status.log.durable = index(1);
            status.log.commit = index(1);
            status.hard_state.term = at(1, 1).term;
        },
        vec![install(at(1, 1))],
    );
    assert_eq!(verdict, Ok(()));
}

#[test]
fn a_snapshot_of_what_is_not_committed_is_noticed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(fired(rig.step(3, |_| {}, vec![install(at(2, 1))])), Some(Invariant::SnapshotFidelity));
    assert_eq!(fired(rig.step(3, |_| {}, vec![install(at(1, 2))])), Some(Invariant::SnapshotFidelity));
}

#[test]
fn a_snapshot_with_another_configuration_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let configuration = Configuration { index: index(0), membership: Membership::default().into() };
    let meta = Arc::new(SnapshotMeta { configuration, ..(*meta(at(1, 1))).clone() });
    let verdict = rig.step(3, |_| {}, vec![Effect::InstallSnapshot { seq: WriteSeq::new(99), meta }]);
    assert_eq!(fired(verdict), Some(Invariant::SnapshotFidelity));
}

#[test]
fn a_snapshot_that_replaces_what_the_log_holds_is_noticed() {
    let mut rig = Rig::new().with_leader();
    // n2 holds 1@1 and does not know yet that it is committed.
    assert_eq!(fired(rig.step(2, |_| {}, vec![install(at(1, 1))])), Some(Invariant::SnapshotFidelity));
}

#[test]
fn a_snapshot_of_what_is_committed_here_already_is_noticed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(fired(rig.step(1, |_| {}, vec![install(at(1, 1))])), Some(Invariant::SnapshotFidelity));
}

#[test]
fn a_snapshot_that_is_taken_before_or_after_its_index_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let take = Effect::TakeSnapshot { meta: meta(at(1, 1)) };
    assert_eq!(fired(rig.step(1, |_| {}, vec![take])), Some(Invariant::SnapshotFidelity));
}

#[test]
fn a_snapshot_that_is_unlike_a_replay_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let mut other = Registers::default();
    other.execute(at(1, 1), Command::Put { key: 1, attempt: RequestId::new(5) });
    let verdict = rig.checks.on_snapshot(node(1), &snapshot_of(&other, at(1, 1), 0));
    assert_eq!(fired(verdict), Some(Invariant::StateMachineSafety));
}

#[test]
fn a_snapshot_that_nobody_has_taken_and_somebody_sends_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let verdict = rig.step(1, |_| {}, vec![Effect::SendSnapshot { to: node(3), meta: meta(at(1, 1)) }]);
    assert_eq!(fired(verdict), Some(Invariant::SnapshotFidelity));
}

#[test]
fn a_log_that_is_cut_without_a_snapshot_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let applied = |status: &mut raft_core::Status| status.log.applied = index(1);
    assert_eq!(rig.step(1, applied, vec![apply(vec![blank(1, 1)])]), Ok(()));
    let compact = || vec![Effect::Compact { through: index(1) }];
    assert_eq!(fired(rig.step(1, |_| {}, compact())), Some(Invariant::SnapshotFidelity));
    rig.disks[0].keep_snapshot(snapshot_of(&machine_at_1(), at(1, 1), 0));
    assert_eq!(rig.step(1, |_| {}, compact()), Ok(()));
}

#[test]
fn a_log_that_is_believed_durable_before_the_snapshot_is_installed_is_noticed() {
    let mut rig = Rig::new().with_leader();
    rig.disks[1].write(raft_sim::disk::Write::Install {
        seq: WriteSeq::new(9),
        snapshot: snapshot_of(&machine_at_1(), at(1, 1), 0),
    });
    let verdict = rig.step(2, |status| status.log.durable = index(1), Vec::new());
    assert_eq!(fired(verdict), Some(Invariant::DurableBeforeSend));
}
