//! The checks of what clients are told notice what they are there for.

use raft_core::{Busy, Effect, Outcome, Position, RequestId, StateMachine as _};
use raft_sim::Invariant;
use raft_sim::machine::{Command, Registers};

use crate::rig::{Rig, apply, at, blank, entries, fired, index, node, put};

/// n1 leads, and has got hold of a write of a client; its entry stands at 2@1, uncommitted.
fn with_write() -> (Rig, RequestId) {
    let mut rig = Rig::new().with_leader();
    let write = rig.checks.history.begin_write(1, |attempt| Command::Put { key: 1, attempt });
    rig.checks.history.on_handed_over(node(1), write);
    let persist = rig.persist(vec![put(2, 1, write)]);
    assert_eq!(rig.step(1, |_| {}, vec![persist]), Ok(()));
    (rig, write)
}

/// The entry is on two disks, so it can be committed.
fn replicate(rig: &mut Rig, write: RequestId) {
    rig.sync(1);
    rig.take(2, 1, vec![put(2, 1, write)]);
    rig.sync(2);
}

fn reply(request: RequestId, outcome: Outcome) -> Effect {
    Effect::Reply { request, outcome }
}

#[test]
fn a_write_and_a_read_after_it_pass() {
    let (mut rig, write) = with_write();
    replicate(&mut rig, write);
    assert_eq!(rig.commit(1, 2), Ok(()));
    let batch = entries(vec![blank(1, 1), put(2, 1, write)]);
    let applying = Effect::Apply { entries: batch, tokens: vec![(index(2), write)] };
    assert_eq!(rig.step(1, |_| {}, vec![applying]), Ok(()));
    let mut machine = Registers::default();
    machine.skip(at(1, 1));
    machine.execute(at(2, 1), Command::Put { key: 1, attempt: write });
    assert_eq!(rig.checks.on_applied(node(1), &machine), Ok(()));
    assert_eq!(rig.checks.history.on_acknowledged(node(1), write, index(2)), Ok(()));
    let read = rig.checks.history.begin_read(1);
    rig.checks.history.on_handed_over(node(1), read);
    let ready = reply(read, Outcome::ReadReady { index: index(2) });
    assert_eq!(rig.step(1, |status| status.log.applied = index(2), vec![ready]), Ok(()));
    assert_eq!(rig.checks.history.on_read(node(1), read, index(2), &machine), Ok(()));
    assert_eq!((rig.checks.history.writes(), rig.checks.history.reads()), (1, 1));
    assert!(rig.checks.history.is_idle(node(1)));
}

#[test]
fn a_read_from_before_what_was_committed_when_it_was_asked_is_noticed() {
    let (mut rig, write) = with_write();
    replicate(&mut rig, write);
    assert_eq!(rig.commit(1, 2), Ok(()));
    let read = rig.checks.history.begin_read(1);
    rig.checks.history.on_handed_over(node(1), read);
    let stale = reply(read, Outcome::ReadReady { index: index(1) });
    let verdict = rig.step(1, |status| status.log.applied = index(1), vec![stale]);
    assert_eq!(fired(verdict), Some(Invariant::Linearizability));
}

#[test]
fn a_read_that_is_ready_before_its_index_is_applied_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let read = rig.checks.history.begin_read(1);
    rig.checks.history.on_handed_over(node(1), read);
    let early = reply(read, Outcome::ReadReady { index: index(1) });
    assert_eq!(fired(rig.step(1, |_| {}, vec![early])), Some(Invariant::Linearizability));
}

#[test]
fn a_value_that_a_replay_does_not_give_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let read = rig.checks.history.begin_read(1);
    let mut machine = Registers::default();
    machine.execute(at(1, 1), Command::Put { key: 1, attempt: RequestId::new(77) });
    let verdict = rig.checks.history.on_read(node(1), read, index(1), &machine);
    assert_eq!(fired(verdict), Some(Invariant::Linearizability));
}

#[test]
fn a_state_machine_that_is_behind_the_read_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let read = rig.checks.history.begin_read(1);
    let verdict = rig.checks.history.on_read(node(1), read, index(1), &Registers::default());
    assert_eq!(fired(verdict), Some(Invariant::Linearizability));
}

#[test]
fn a_committed_write_that_nobody_asked_for_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let made_up = RequestId::new(99);
    let persist = rig.persist(vec![put(2, 1, made_up)]);
    assert_eq!(rig.step(1, |_| {}, vec![persist]), Ok(()));
    replicate(&mut rig, made_up);
    assert_eq!(fired(rig.commit(1, 2)), Some(Invariant::Linearizability));
}

#[test]
fn a_write_that_takes_effect_before_it_was_asked_for_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let write = rig.checks.history.begin_write(1, |attempt| Command::Put { key: 1, attempt });
    let persist = rig.persist(vec![put(2, 1, write)]);
    assert_eq!(rig.step(1, |_| {}, vec![persist]), Ok(()));
    replicate(&mut rig, write);
    // No node was ever given the request.
    assert_eq!(fired(rig.commit(1, 2)), Some(Invariant::Linearizability));
}

#[test]
fn a_write_that_is_committed_twice_is_noticed() {
    let (mut rig, write) = with_write();
    replicate(&mut rig, write);
    assert_eq!(rig.commit(1, 2), Ok(()));
    let again = rig.persist(vec![put(3, 1, write)]);
    assert_eq!(rig.step(1, |_| {}, vec![again]), Ok(()));
    rig.sync(1);
    rig.take(2, 1, vec![put(3, 1, write)]);
    rig.sync(2);
    assert_eq!(fired(rig.commit(1, 3)), Some(Invariant::RequestsEndOnce));
}

#[test]
fn a_write_that_was_refused_and_happens_all_the_same_is_noticed() {
    let (mut rig, write) = with_write();
    let refusal = reply(write, Outcome::Busy(Busy::Proposals));
    assert_eq!(rig.step(1, |_| {}, vec![refusal]), Ok(()));
    replicate(&mut rig, write);
    assert_eq!(fired(rig.commit(1, 2)), Some(Invariant::RequestsEndOnce));
}

#[test]
fn a_refusal_of_what_has_happened_is_noticed() {
    let (mut rig, write) = with_write();
    replicate(&mut rig, write);
    assert_eq!(rig.commit(1, 2), Ok(()));
    let refusal = reply(write, Outcome::NotLeader { leader: None });
    assert_eq!(fired(rig.step(1, |_| {}, vec![refusal])), Some(Invariant::RequestsEndOnce));
}

#[test]
fn a_second_answer_is_noticed() {
    let (mut rig, write) = with_write();
    let unknown = || vec![reply(write, Outcome::Unknown { leader: None })];
    assert_eq!(rig.step(1, |_| {}, unknown()), Ok(()));
    assert_eq!(fired(rig.step(1, |_| {}, unknown())), Some(Invariant::RequestsEndOnce));
}

#[test]
fn an_answer_to_another_request_than_the_entrys_is_noticed() {
    let (mut rig, write) = with_write();
    replicate(&mut rig, write);
    assert_eq!(rig.commit(1, 2), Ok(()));
    let batch = entries(vec![blank(1, 1), put(2, 1, write)]);
    let applying = Effect::Apply { entries: batch, tokens: vec![(index(1), write)] };
    assert_eq!(fired(rig.step(1, |_| {}, vec![applying])), Some(Invariant::RequestsEndOnce));
}

#[test]
fn an_acknowledgement_of_what_is_not_committed_is_noticed() {
    let (mut rig, write) = with_write();
    let verdict = rig.checks.history.on_acknowledged(node(1), write, index(2));
    assert_eq!(fired(verdict), Some(Invariant::AcknowledgedWrites));
}

#[test]
fn a_request_without_an_answer_is_noticed_at_the_end() {
    let (mut rig, write) = with_write();
    replicate(&mut rig, write);
    rig.take(3, 1, vec![blank(1, 1), put(2, 1, write)]);
    rig.sync(3);
    assert_eq!(rig.commit(1, 2), Ok(()));
    assert_eq!(rig.step(1, |_| {}, vec![apply(vec![blank(1, 1), put(2, 1, write)])]), Ok(()));
    let mut machine = Registers::default();
    machine.skip(Position::new(index(1), blank(1, 1).term));
    assert_eq!(machine.apply(at(2, 1), &Command::Put { key: 1, attempt: write }.encode(3)).len(), 8);
    let verdict = rig.checks.at_end(&rig.statuses.clone(), &[&machine, &machine, &machine]);
    assert_eq!(fired(verdict), Some(Invariant::RequestsEndOnce));
}
