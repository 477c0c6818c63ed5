//! What becomes of a proposal: contract E1, E2, E4; limits.

use bytes::Bytes;
use raft_core::Verdict::Granted;
use raft_core::{Busy, Effect, Entries, Event, Message, Outcome, Payload, RoleKind, Rpc, Time};

use crate::rig::{
    Start, append, append_reply, apply, at, commit_notice, entries, entries_of, heartbeat, heartbeat_reply, index,
    not_leader, panic_of, persist_vote, pre_vote_reply, proposal, propose, received, reply, request, send, seq,
    term_over, unknown, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

/// Where the bytes of the commands are.
fn addresses(entries: &Entries) -> Vec<*const u8> {
    let commands = entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Command(command) => Some(command.as_ptr()),
        Payload::Blank | Payload::Configuration(_) => None,
    });
    commands.collect()
}

#[test]
fn rule_e1_payloads_are_shared_and_never_copied() {
    let mut server = Start::first_of_three().settled_leader();
    let commands = [Bytes::from(vec![1; 100]), Bytes::from(vec![2; 100])];
    let origin: Vec<_> = commands.iter().map(|command| command.as_ptr()).collect();
    let [first, second] = commands.map(|command| Event::Propose { request: request(7), command });
    let mut effects = server.batch([first, second]);
    effects.extend(server.persisted(3));
    effects.extend(server.receive(2, append_reply(1, 2, 3)));
    let mut seen = Vec::new();
    for effect in &effects {
        match effect {
            Effect::Persist { entries, .. } => seen.push(("persist", addresses(entries))),
            Effect::Apply { entries, .. } => seen.push(("apply", addresses(entries))),
            Effect::Send { rpc: Rpc::Append(append), .. } => seen.push(("append", addresses(&append.entries))),
            _ => {}
        }
    }
    let same = |what| (what, origin.clone());
    assert_eq!(seen, [same("persist"), same("append"), same("append"), same("apply")]);
}

#[test]
fn rule_e1_a_follower_writes_and_applies_the_bytes_that_it_received() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    let new = entries_of(1, &[1, 1]);
    let origin = addresses(&new);
    let effects = server.receive(2, append(1, 2, at(0, 0), 2, new));
    assert!(matches!(effects.as_slice(), [Effect::Persist { entries, .. }] if addresses(entries) == origin));
    let effects = server.persisted(1);
    assert!(matches!(effects.as_slice(), [_, Effect::Apply { entries, .. }] if addresses(entries) == origin));
}

#[test]
fn rule_e1_an_append_is_one_value_for_all_peers_at_the_same_place() {
    let mut server = Start::first_of_three().settled_leader();
    let effects = server.propose(7);
    let appends: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send { rpc: Rpc::Append(append), .. } => Some(append),
            _ => None,
        })
        .collect();
    assert!(matches!(appends.as_slice(), [a, b] if std::sync::Arc::ptr_eq(a, b)), "encoded once");
}

#[test]
fn rule_e1_an_effect_stays_small() {
    assert!(size_of::<Effect>() <= 64, "{} bytes", size_of::<Effect>());
}

#[test]
fn rule_e2_the_tokens_of_an_apply_are_the_answers() {
    let mut server = Start::first_of_three().settled_leader();
    server.batch([propose(7), propose(8)]);
    server.persisted(3);
    let both = entries([proposal(2, 1, 7), proposal(3, 1, 8)]);
    assert_eq!(
        server.receive(2, append_reply(1, 2, 3)),
        [send(2, commit_notice(1, 3)), apply(both, &[(2, 7), (3, 8)])]
    );
    assert_eq!(server.receive(3, append_reply(1, 2, 3)), [send(3, commit_notice(1, 3))]);
    assert_eq!(server.receive(2, term_over(2)), [persist_vote(4, 2, None, NONE)], "nobody is told twice");
}

#[test]
fn rule_e2_a_step_down_ends_what_is_in_the_log_as_unknown_and_what_is_not_as_not_done() {
    let mut server = Start::first_of_three().settled_leader();
    server.batch([propose(7), propose(8)]);
    let effects = server.batch([propose(9), received(2, heartbeat(5, 1, 0))]);
    assert_eq!(
        effects,
        [
            reply(7, unknown(2)),
            reply(8, unknown(2)),
            reply(9, not_leader(2)),
            send(2, heartbeat_reply(5, 1, 0, 0)),
            persist_vote(4, 5, None, NONE),
        ]
    );
    assert_eq!(server.status().log.last, at(3, 1), "request 9 never got a place in the log");
}

#[test]
fn rule_e2_a_proposal_committed_after_the_step_down_is_applied_without_a_token() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.persisted(3);
    assert_eq!(server.receive(2, heartbeat(5, 1, 0)).first(), Some(&reply(7, unknown(2))));
    server.persisted(4);
    let effects = server.receive(2, append(5, 2, at(2, 1), 2, NONE));
    assert_eq!(effects, [send(2, append_reply(5, 2, 2)), apply(entries([proposal(2, 1, 7)]), &[])]);
}

#[test]
fn rule_e2_who_does_not_lead_says_so_at_once() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    assert_eq!(server.propose(7), [reply(7, not_leader(2))]);
    let mut server = Start::first_of_three().candidate();
    assert_eq!(server.propose(7), [reply(7, not_leader(None))]);
}

#[test]
fn rule_e4_a_write_that_was_never_issued_cannot_be_done() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1])));
    let message = panic_of(|| drop(server.raft.step(message(&server.now, Event::Persisted { seq: seq(2) }))));
    assert_eq!(message, "write 2 reported as durable, but only 1 were issued");
}

#[test]
fn rule_e4_an_index_that_was_never_handed_over_cannot_be_applied() {
    let mut server = Start::first_of_three().settled_leader();
    let message = panic_of(|| drop(server.raft.step(message(&server.now, Event::Applied { index: index(2) }))));
    assert_eq!(message, "index 2 reported as applied, but only 1 was handed over");
}

fn message(now: &Time, event: Event) -> Message {
    Message { at: *now, event }
}

#[test]
fn rule_e4_what_was_reported_before_is_ignored() {
    let mut server = Start::first_of_three().settled_leader();
    assert_eq!(server.persisted(1), []);
    assert_eq!(server.persisted(2), []);
    assert_eq!(server.step(Event::Applied { index: index(0) }), []);
    assert_eq!(server.step(Event::Applied { index: index(1) }), []);
    assert_eq!((server.status().log.durable, server.status().log.applied), (index(1), index(1)));
}

#[test]
fn a_batch_of_proposals_costs_one_write_and_one_append_a_peer() {
    let mut server = Start::first_of_three().settled_leader();
    let effects = server.batch((10..110).map(propose));
    assert!(
        matches!(
            effects.as_slice(),
            [Effect::Persist { entries, .. }, Effect::Send { rpc: Rpc::Append(_), .. }, Effect::Send { rpc: Rpc::Append(_), .. }]
                if entries.len() == 100
        ),
        "{effects:?}"
    );
}

#[test]
fn pending_proposals_are_bounded() {
    let mut server = Start::first_of_three().limits(|limits| limits.pending_proposals_max = 2).settled_leader();
    let effects = server.batch([propose(7), propose(8), propose(9)]);
    assert_eq!(effects.first(), Some(&reply(9, Outcome::Busy(Busy::Proposals))));
    assert_eq!(server.propose(10), [reply(10, Outcome::Busy(Busy::Proposals))]);
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 3));
    assert!(matches!(server.propose(11).first(), Some(Effect::Persist { .. })), "both were handed to the machine");
}

#[test]
fn regress_t059_one_huge_command_passes_when_nothing_is_under_way() {
    let huge = |number| Event::Propose { request: request(number), command: Bytes::from(vec![0; 1_000]) };
    let start = Start::first_of_three().limits(|limits| limits.uncommitted_bytes_max = 100);
    let mut server = start.settled_leader();
    assert!(matches!(server.step(huge(7)).first(), Some(Effect::Persist { .. })));
    assert_eq!(server.propose(8), [reply(8, Outcome::Busy(Busy::Uncommitted))]);
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    assert!(matches!(server.step(huge(9)).first(), Some(Effect::Persist { .. })), "committed: there is room again");

    // A new term of the same server starts from zero, and what the old one left is not counted twice.
    server.receive(2, term_over(2));
    server.step(Event::Persisted { seq: seq(5) });
    server.tick();
    server.receive(2, pre_vote_reply(3, 2, Granted));
    server.step(Event::Persisted { seq: seq(6) });
    server.receive(2, vote_reply(3, Granted));
    assert_eq!(server.role(), (3, RoleKind::Leader));
    server.step(Event::Persisted { seq: seq(7) });
    server.receive(2, append_reply(3, 1, 4));
    assert_eq!(server.status().log.commit, index(4));
    assert!(matches!(server.propose(10).first(), Some(Effect::Persist { .. })));
    assert!(matches!(server.propose(11).first(), Some(Effect::Persist { .. })), "42 of 100 bytes");
    server.propose(12);
    assert_eq!(server.propose(13), [reply(13, Outcome::Busy(Busy::Uncommitted))]);
}
