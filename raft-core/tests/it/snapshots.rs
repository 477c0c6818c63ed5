//! Snapshots, and the log that they make superfluous: contract S1–S3.

use std::sync::Arc;

use raft_core::{
    Change, Effect, Entries, Event, Limits, Membership, Outcome, Position, ProgressMode, Rpc, SnapshotFate,
    SnapshotMeta, SnapshotOffer,
};

use crate::rig::{
    Lone, Start, append, append_reply, apply, at, blank, configuration, configured, entries, entries_of, heartbeat,
    heartbeat_reply, index, membership, node, propose, reply, request, round, send, seq, store, term,
};

const NONE: Entries = Entries::EMPTY;

fn meta(last: Position, bytes: u64) -> Arc<SnapshotMeta> {
    SnapshotMeta { last, configuration: configuration(0, &membership(&[1, 2, 3])), bytes }.into()
}

fn offer(in_term: u64, number: u64, from: u64, meta: Arc<SnapshotMeta>) -> Rpc {
    Rpc::InstallSnapshot(SnapshotOffer { term: term(in_term), round: round(number), meta, source: node(from) }.into())
}

fn wanted(number: u64) -> Event {
    Event::RequestSnapshot { request: request(number) }
}

fn taken(at: u64) -> Event {
    Event::SnapshotTaken { index: index(at), bytes: Some(10) }
}

fn arrived(last: Position) -> Event {
    Event::SnapshotReceived { last, complete: true }
}

fn take(last: Position) -> Effect {
    Effect::TakeSnapshot { meta: meta(last, 0) }
}

fn install(number: u64, meta: Arc<SnapshotMeta>) -> Effect {
    Effect::InstallSnapshot { seq: seq(number), meta }
}

fn keep_nothing(limits: &mut Limits) {
    limits.retain_bytes = 0;
}

// ---- taking one ----------------------------------------------------------------------------

#[test]
fn rule_s1_a_snapshot_carries_the_configuration_in_force_at_its_end_and_not_a_later_one() {
    let mut server = Start::first_of_three().settled_leader();
    let changes = vec![Change::AddLearner { store: store(4), promote: false }];
    server.step(Event::ChangeMembership { request: request(6), expected: index(0), changes });
    assert_eq!(server.status().configuration.index, index(2), "in force, and not committed");
    assert_eq!(server.step(wanted(7)), [take(at(1, 1))]);
}

#[test]
fn rule_s1_one_is_taken_when_the_log_has_grown_enough() {
    let limits = |limits: &mut Limits| (limits.snapshot_entries, limits.retain_bytes) = (3, 0);
    let mut server = Start::new(1, &[1]).limits(limits).sole_leader();
    server.propose(7);
    assert_eq!(server.persisted(3).len(), 1, "two entries are not enough");
    server.propose(8);
    assert_eq!(server.persisted(4).last(), Some(&Effect::TakeSnapshot { meta: sole(at(3, 1)) }));
    assert_eq!(server.step(Event::Tick), [], "and asked for once");
}

fn sole(last: Position) -> Arc<SnapshotMeta> {
    SnapshotMeta { last, configuration: configuration(0, &membership(&[1])), bytes: 0 }.into()
}

#[test]
fn a_snapshot_that_is_there_answers_and_cuts_the_log_and_memory_is_given_back() {
    let mut server = Start::first_of_three().limits(keep_nothing).settled_leader();
    server.step(wanted(7));
    assert!(server.status().log.cached_bytes > 0);
    let last = at(1, 1);
    let answer = reply(7, Outcome::SnapshotTaken { last });
    assert_eq!(server.step(taken(1)), [answer.clone(), Effect::Compact { through: index(1) }]);
    let log = server.status().log;
    assert_eq!((log.base, log.snapshot, log.snapshot_bytes, log.cached_bytes, log.bytes), (last, last, 10, 0, 0));
    assert_eq!(server.step(wanted(7)), [answer], "there is nothing to add");
}

#[test]
fn regress_t092_a_wish_during_a_snapshot_is_not_lost() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(wanted(7));
    server.step(propose(8));
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    assert_eq!(server.step(wanted(9)), [], "one at a time");
    let effects = server.step(taken(1));
    assert_eq!(effects.first(), Some(&reply(7, Outcome::SnapshotTaken { last: at(1, 1) })));
    assert_eq!(effects.last(), Some(&take(at(2, 1))), "the second covers what came meanwhile");
}

#[test]
fn a_snapshot_that_failed_is_said_to_have_and_not_tried_in_a_busy_loop() {
    let limits = |limits: &mut Limits| limits.snapshot_entries = 1;
    let mut server = Start::first_of_three().limits(limits).leader();
    server.persisted(2);
    assert_eq!(server.receive(2, append_reply(1, 1, 1)).last(), Some(&take(at(1, 1))));
    server.step(wanted(7));
    let failed = Event::SnapshotTaken { index: index(1), bytes: None };
    assert_eq!(server.step(failed), [reply(7, Outcome::SnapshotFailed)]);
    server.wait(2_999);
    server.receive(2, heartbeat_reply(1, 1, 1, 1));
    server.wait(1);
    assert_eq!(server.step(wanted(8)), [take(at(1, 1))], "whoever wants one does not wait for that");
}

#[test]
fn rule_s1_what_the_application_made_by_itself_counts_as_well() {
    let mut server = Start::first_of_three().log(&[1, 1, 1]).limits(keep_nothing).follower_of(2);
    server.receive(2, append(1, 2, at(3, 1), 3, NONE));
    server.step(Event::Applied { index: index(3) });
    assert_eq!(server.step(taken(2)), [Effect::Compact { through: index(2) }]);
    assert_eq!(server.status().log.snapshot, at(2, 1));
    assert_eq!(server.step(taken(1)), [], "an older one is of no use");
}

#[test]
fn rule_s3_the_log_is_kept_for_a_peer_that_needs_it_as_far_as_the_limit_goes() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(propose(7));
    server.persisted(3);
    server.receive(3, append_reply(1, 2, 2));
    server.step(Event::Applied { index: index(2) });
    server.step(wanted(8));
    // n2 has 1@1 only: what comes after is kept, although the snapshot covers it.
    assert_eq!(server.step(taken(2)).last(), Some(&Effect::Compact { through: index(1) }));
    assert_eq!(server.receive(2, append_reply(1, 2, 2)).last(), Some(&Effect::Compact { through: index(2) }));
}

// ---- at the leader -------------------------------------------------------------------------

/// A leader of term 1 that has nothing but its snapshot of 2@1, while n2 has nothing at all.
fn compacted() -> Lone {
    let mut server = Start::first_of_three().limits(keep_nothing).leader();
    server.persisted(2);
    server.receive(3, append_reply(1, 1, 1));
    server.step(propose(7));
    server.persisted(3);
    server.receive(3, append_reply(1, 2, 2));
    server.step(Event::Applied { index: index(2) });
    server.step(wanted(8));
    server.step(taken(2));
    assert_eq!(server.status().log.base, at(2, 1));
    server.step(Event::PeerUnreachable { node: node(2) });
    server.tick();
    server
}

fn mode_of(server: &Lone) -> ProgressMode {
    server.status().peers.iter().find(|peer| peer.node == node(2)).expect("n2 is a peer").mode
}

/// n2 answers a heartbeat, and is offered the snapshot.
fn offered(server: &mut Lone, number: u64) -> [Effect; 2] {
    let snapshot = meta(at(2, 1), 10);
    let expected =
        [send(2, offer(1, number, 1, snapshot.clone())), Effect::SendSnapshot { to: node(2), meta: snapshot }];
    assert_eq!(mode_of(server), ProgressMode::Probe);
    expected
}

#[test]
fn rule_s3_a_peer_that_needs_what_is_gone_is_offered_the_snapshot_and_then_follows() {
    let mut server = compacted();
    let expected = offered(&mut server, 4);
    assert_eq!(server.receive(2, heartbeat_reply(1, 3, 0, 0)), expected);
    assert_eq!(mode_of(&server), ProgressMode::Snapshot);
    assert_eq!(server.step(propose(9)).len(), 2, "a write, and an append to n3 only");
    // T82: it has exactly what the snapshot has.
    let effects = server.receive(2, append_reply(1, 4, 2));
    let rest = entries([crate::rig::proposal(3, 1, 9)]);
    assert!(
        matches!(effects.as_slice(), [Effect::Send { rpc: Rpc::Append(append), .. }]
            if append.prev == at(2, 1) && append.entries == rest),
        "{effects:?}"
    );
    assert_eq!(server.progress(2), (2, 4, false, 1));
}

#[test]
fn regress_t081_a_snapshot_that_is_lost_is_offered_again_when_the_peer_answers() {
    let status = |fate| Rpc::SnapshotStatus { term: term(1), last: at(2, 1), fate };
    let mut server = compacted();
    server.receive(2, heartbeat_reply(1, 3, 0, 0));
    assert_eq!(server.receive(2, status(SnapshotFate::Failed)), [], "not at once: it may fail at once again");
    let expected = offered(&mut server, 5);
    assert_eq!(server.receive(2, heartbeat_reply(1, 4, 0, 0)), expected);
}

#[test]
fn regress_t086_a_snapshot_may_take_as_long_as_it_makes_progress() {
    let status =
        |received| Rpc::SnapshotStatus { term: term(1), last: at(2, 1), fate: SnapshotFate::Received(received) };
    let mut server = compacted();
    server.receive(2, heartbeat_reply(1, 3, 0, 0));
    let mut pass = |received, millis: u64| {
        for _ in 0..millis / 50 {
            server.wait(50);
            let beats = server.step(Event::Tick);
            let newest = beats.iter().find_map(|effect| match effect {
                Effect::Send { rpc: Rpc::Heartbeat { round, .. }, .. } => Some(round.as_u64()),
                _ => None,
            });
            if let Some(newest) = newest {
                server.receive(3, heartbeat_reply(1, newest, 2, 2));
            }
        }
        server.receive(2, status(received));
        mode_of(&server)
    };
    for received in 1..5 {
        assert_eq!(pass(received, 2_900), ProgressMode::Snapshot, "{received} bytes");
    }
    assert_eq!(pass(4, 3_000), ProgressMode::Probe, "nothing new for ten election timeouts");
}

// ---- at a follower -------------------------------------------------------------------------

#[test]
fn rule_s2_a_log_that_holds_the_end_of_the_snapshot_is_kept() {
    let mut server = Start::first_of_three().log(&[1, 1, 1]).follower_of(2);
    let effects = server.receive(2, offer(1, 2, 2, meta(at(2, 1), 10)));
    assert_eq!(effects, [send(2, append_reply(1, 2, 2)), apply(entries_of(1, &[1, 1]), &[])]);
    assert_eq!(server.status().log.last, at(3, 1));
}

/// Follower 1 of leader 2 in term 3, whose log parts from the leader's.
fn astray() -> Lone {
    Start::first_of_three().log(&[1, 1]).term(3).follower_of(2)
}

#[test]
fn rule_s2_any_other_log_is_reset_and_the_acknowledgement_waits_for_the_disk() {
    let mut server = astray();
    assert_eq!(server.receive(2, offer(3, 2, 2, meta(at(9, 2), 10))), [], "the bytes are not here");
    assert_eq!(server.step(arrived(at(9, 2))), [install(1, meta(at(9, 2), 10))]);
    let log = server.status().log;
    assert_eq!((log.base, log.last, log.commit, log.applied), (at(9, 2), at(9, 2), index(9), index(0)));
    // A heartbeat claims nothing meanwhile (D2).
    assert_eq!(server.receive(2, heartbeat(3, 3, 9)), [send(2, heartbeat_reply(3, 3, 0, 9))]);
    assert_eq!(server.step(Event::Applied { index: index(9) }), []);
    assert_eq!(server.persisted(1), [send(2, append_reply(3, 2, 9))]);
    // And the log goes on from there.
    let next = entries_of(10, &[3]);
    assert_eq!(server.receive(2, append(3, 4, at(9, 2), 9, next.clone())), [crate::rig::persist(2, next)]);
}

#[test]
fn rule_s3_bytes_without_the_leaders_word_count_for_nothing() {
    let mut server = astray();
    assert_eq!(server.step(arrived(at(9, 2))), []);
    assert_eq!(server.status().log.last, at(2, 1));
    assert_eq!(server.receive(2, offer(3, 2, 2, meta(at(9, 2), 10))), [install(1, meta(at(9, 2), 10))]);
}

#[test]
fn rule_s3_the_word_for_one_snapshot_is_none_for_another() {
    let mut server = astray();
    server.receive(2, offer(3, 2, 2, meta(at(9, 2), 10)));
    assert_eq!(server.step(arrived(at(8, 2))), []);
    assert_eq!(server.status().log.last, at(2, 1));
}

#[test]
fn rule_s3_the_word_of_a_former_leader_counts_no_more() {
    let mut server = astray();
    server.receive(2, offer(3, 2, 2, meta(at(9, 2), 10)));
    server.receive(3, heartbeat(4, 1, 0));
    assert_eq!(server.step(arrived(at(9, 2))), []);
    assert_eq!(server.status().log.last, at(2, 1));
}

#[test]
fn rule_s3_the_receiver_says_how_it_fares() {
    let mut server = astray();
    let says = |fate| send(2, Rpc::SnapshotStatus { term: term(3), last: at(9, 2), fate });
    let progress = Event::SnapshotProgress { last: at(9, 2), received: 5 };
    assert_eq!(server.step(progress), [says(SnapshotFate::Received(5))]);
    let lost = Event::SnapshotReceived { last: at(9, 2), complete: false };
    assert_eq!(server.step(lost), [says(SnapshotFate::Failed)]);
}

#[test]
fn regress_t090_a_configuration_that_the_snapshot_replaces_is_rolled_back() {
    let changed = membership(&[1, 2, 3]).changed(&[Change::Remove { node: node(3) }]).expect("one voter leaves");
    let mut server = Start::first_of_three().log(&[1, 1]).change(2, changed).term(3).server();
    server.receive(2, heartbeat(3, 1, 0));
    server.receive(2, offer(3, 2, 2, meta(at(9, 2), 10)));
    let effects = server.step(arrived(at(9, 2)));
    assert_eq!(effects, [configured(0, membership(&[1, 2, 3])), install(1, meta(at(9, 2), 10))]);
}

#[test]
fn rule_s2_term_and_vote_are_written_before_the_log_that_needs_them() {
    let mut server = Start::first_of_three().log(&[1, 1]).follower_of(2);
    server.step(arrived(at(9, 2)));
    let effects = server.receive(2, offer(3, 2, 2, meta(at(9, 2), 10)));
    assert_eq!(effects, [crate::rig::persist_vote(1, 3, None, NONE), install(2, meta(at(9, 2), 10))]);
}

#[test]
fn a_word_that_makes_no_sense_is_dropped() {
    let nobody =
        SnapshotMeta { configuration: configuration(0, &Membership::default()), ..(*meta(at(9, 2), 1)).clone() };
    let ahead = SnapshotMeta { configuration: configuration(10, &membership(&[1])), ..(*meta(at(9, 2), 1)).clone() };
    for senseless in [meta(at(9, 4), 1), nobody.into(), ahead.into()] {
        let mut server = astray();
        assert_eq!(server.receive(2, offer(3, 2, 2, senseless)), []);
        assert_eq!(server.status().load.drops.malformed, 1);
        assert_eq!(server.step(arrived(at(9, 2))), []);
    }
}

#[test]
fn what_is_applied_from_the_log_follows_on_the_snapshot() {
    let mut server = astray();
    server.step(arrived(at(9, 2)));
    server.receive(2, offer(3, 2, 2, meta(at(9, 2), 10)));
    server.persisted(1);
    let next = entries([blank(10, 3)]);
    server.receive(2, append(3, 3, at(9, 2), 10, next.clone()));
    assert_eq!(server.persisted(2), [send(2, append_reply(3, 3, 10)), apply(next, &[])]);
}
