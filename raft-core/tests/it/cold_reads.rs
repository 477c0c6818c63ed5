//! Entries that have left memory: contract R4, and how fast a machine is fed.

use std::collections::VecDeque;
use std::time::Duration;

use raft_core::{Effect, Entries, Event, Limits, LogReadOutcome, Purpose, ReadId, Time};

use crate::rig::{
    Lone, Start, append, append_reply, apply, at, blank, commit_notice, entries, entries_of, index, node, proposal,
    propose, rejected, send, term_over,
};

const NONE: Entries = Entries::EMPTY;

/// A leader of term 2 whose three old entries are on disk only, and a peer that asks for them.
fn cold_leader() -> (Lone, ReadId) {
    let start = Start { warm: false, ..Start::first_of_three().log(&[1, 1, 1]) };
    let mut server = start.leader();
    let effects = server.receive(2, rejected(2, 1, 3, at(0, 0), 0));
    let [Effect::ReadLog { id, purpose, from, through, max_bytes }] = effects.as_slice() else {
        panic!("one read, and no append: {effects:?}")
    };
    assert_eq!((*purpose, *from, *through), (Purpose::Peer(node(2)), index(1), index(3)));
    assert_eq!(*max_bytes, Limits::DEFAULT.message_bytes_max);
    (server, *id)
}

fn log_read(id: ReadId, entries: Entries) -> Event {
    Event::LogRead { id, outcome: LogReadOutcome::Entries(entries) }
}

#[test]
fn rule_r4_entries_that_left_memory_are_read_back_and_sent() {
    let (mut server, id) = cold_leader();
    let old = entries_of(1, &[1, 1, 1]);
    assert_eq!(server.step(log_read(id, old.clone())), [send(2, append(2, 2, at(0, 0), 0, old))]);
    assert_eq!(
        server.receive(2, append_reply(2, 2, 3)),
        [send(2, append(2, 3, at(3, 1), 0, entries([blank(4, 2)])))],
        "and the rest comes from memory"
    );
}

#[test]
fn rule_r4_one_read_a_peer_is_outstanding_and_asked_again_when_overdue() {
    let (mut server, id) = cold_leader();
    assert_eq!(server.step(Event::Tick), []);
    server.wait(40);
    assert_eq!(server.propose(7).len(), 1, "only the write");
    server.wait(110);
    let effects = server.step(Event::Tick);
    let asked: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::ReadLog { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    assert!(matches!(asked.as_slice(), [again] if *again > id), "{effects:?}");
    assert_eq!(server.step(log_read(id, entries_of(1, &[1, 1, 1]))), [], "the first answer comes too late");
    assert_eq!(server.status().load.drops.stale, 1);
    assert_eq!(server.step(log_read(asked[0], entries_of(1, &[1, 1, 1]))).len(), 1);
}

#[test]
fn rule_r4_a_read_that_disagrees_with_the_log_is_not_used() {
    for wrong in [entries_of(1, &[1, 1, 2]), entries_of(4, &[2, 2]), NONE] {
        let (mut server, id) = cold_leader();
        assert_eq!(server.step(log_read(id, wrong)), [], "neither sent, nor asked again in a busy loop");
        server.wait(150);
        let effects = server.step(Event::Tick);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::ReadLog { .. })), "{effects:?}");
    }
}

#[test]
fn rule_r4_a_read_that_failed_is_asked_again_when_overdue() {
    let (mut server, id) = cold_leader();
    assert_eq!(server.step(Event::LogRead { id, outcome: LogReadOutcome::Damaged }), []);
    server.wait(150);
    let effects = server.step(Event::Tick);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::ReadLog { .. })), "{effects:?}");
}

#[test]
fn rule_r4_a_read_of_another_life_of_the_role_is_ignored() {
    let (mut server, id) = cold_leader();
    server.receive(3, term_over(5));
    assert_eq!(server.step(log_read(id, entries_of(1, &[1, 1, 1]))), []);
    assert_eq!(server.status().load.drops.stale, 1);
}

#[test]
fn rule_r4_a_read_for_a_peer_that_has_moved_on_is_not_sent() {
    let (mut server, id) = cold_leader();
    // Meanwhile it turns out that the peer holds everything.
    server.receive(2, append_reply(2, 1, 4));
    assert_eq!(server.progress(2), (4, 5, false, 0));
    assert_eq!(server.step(log_read(id, entries_of(1, &[1, 1, 1]))), []);
}

#[test]
fn rule_r4_a_machine_that_starts_from_nothing_is_fed_from_the_disk() {
    // An entry costs 35 bytes: two fit.
    let limits = |limits: &mut Limits| limits.unapplied_bytes_max = 70;
    let start = Start { warm: false, ..Start::new(1, &[1]).log(&[1; 5]).limits(limits) };
    let mut server = start.server();
    server.persisted(1);
    let mut effects = VecDeque::from(server.persisted(2));
    let mut applied = Vec::new();
    let disk = entries_of(1, &[1; 5]);
    while let Some(effect) = effects.pop_front() {
        match effect {
            Effect::ReadLog { id, from, through, max_bytes, purpose: Purpose::Apply } => {
                assert_eq!(max_bytes, 70);
                effects.extend(server.step(log_read(id, disk.slice(from, through.min(from.next())))));
            }
            Effect::Apply { entries, tokens } => {
                assert!(tokens.is_empty() && entries.len() <= 2, "{entries}");
                applied.extend(entries.iter().map(|entry| entry.index.as_u64()));
                let last = entries.last().expect("never empty").index;
                effects.extend(server.step(Event::Applied { index: last }));
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(applied, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn rule_r4_a_machine_is_not_fed_with_what_disagrees_with_the_log() {
    let start = Start { warm: false, ..Start::new(1, &[1]).log(&[1, 2]) };
    let mut server = start.server();
    server.persisted(1);
    let effects = server.persisted(2);
    let [Effect::ReadLog { id, from, through, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((*from, *through), (index(1), index(2)));
    for wrong in [entries_of(1, &[1, 1]), entries_of(2, &[2]), NONE] {
        assert_eq!(server.step(log_read(*id, wrong)), [], "neither applied, nor asked again in a busy loop");
    }
    let effects = server.tick();
    assert!(matches!(effects.as_slice(), [Effect::ReadLog { id: again, .. }] if again > id), "{effects:?}");
}

#[test]
fn a_slow_machine_is_not_flooded() {
    let mut server = Start::first_of_three().limits(|limits| limits.unapplied_bytes_max = 60).settled_leader();
    server.batch((10..20).map(propose));
    server.persisted(3);
    assert_eq!(
        server.receive(2, append_reply(1, 2, 11)),
        [
            send(2, commit_notice(1, 11)),
            apply(entries([proposal(2, 1, 10)]), &[(2, 10)]),
            apply(entries([proposal(3, 1, 11)]), &[(3, 11)]),
        ],
        "42 bytes each: the one that reaches the limit of 60 still passes"
    );
    assert_eq!(server.step(Event::Applied { index: index(2) }), [apply(entries([proposal(4, 1, 12)]), &[(4, 12)])]);
}

#[test]
fn regress_a_disk_slower_than_our_patience_is_waited_for_longer_each_time() {
    let start = Start { warm: false, ..Start::new(1, &[1]).log(&[1, 1]) };
    let mut server = start.server();
    server.persisted(1);
    let disk = Duration::from_secs(1);
    let mut answers: VecDeque<(Time, ReadId)> = VecDeque::new();
    let mut effects = server.persisted(2);
    for _ in 0..20 {
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::ReadLog { id, .. } => answers.push_back((server.now.after(disk), id)),
                Effect::Apply { entries, .. } => {
                    assert_eq!(entries, entries_of(1, &[1, 1]));
                    assert_eq!(answers.len(), 0, "while nothing more is asked for");
                    assert_eq!(server.status().load.drops.stale, 3, "answers that came too late");
                    return;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        effects = match answers.front().copied() {
            Some((due, id)) if due <= server.now.after(server.patience()) => {
                answers.pop_front();
                server.now = due;
                server.step(log_read(id, entries_of(1, &[1, 1])))
            }
            Some(_) | None => server.tick(),
        };
    }
    panic!("the answers are thrown away for ever, each because the question was asked again before");
}
