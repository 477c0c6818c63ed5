//! Writes through the machine: once, however often they arrive, and the same on every replica.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
use raft_tokio::core::Term;

use super::*;
use crate::envelope::DecodeError;
use crate::key::{Key, Revision};
use crate::session::{Nonce, Sequence, SessionId};

fn at(index: u64) -> Position {
    Position::new(Index::new(index), Term::new(1))
}

fn apply(machine: &mut Machine, index: u64, command: &Command) -> Answer {
    Answer::decode(&machine.apply(at(index), &command.encode())).expect("because the machine encodes its answers")
}

fn put(session: u64, sequence: u64, acknowledged: u64, key: &str, value: &str) -> Command {
    Command::Write {
        session: SessionId::new(session),
        sequence: Sequence::new(sequence),
        acknowledged: Sequence::new(acknowledged),
        operation: Operation::Put {
            key: Key::new(key.to_owned()).expect("because the tests name keys that are some"),
            value: value.to_owned().into(),
            if_revision: None,
        },
    }
}

#[test]
fn a_write_that_arrives_twice_is_applied_once_and_answered_alike() {
    let mut machine = Machine::new();
    let session = SessionId::new(1);
    assert_eq!(apply(&mut machine, 1, &Command::Register { nonce: Nonce::new(5) }), Answer::Registered { session });
    let first = apply(&mut machine, 2, &put(1, 1, 1, "k", "v"));
    assert_eq!(first, Answer::Put { revision: Revision::new(2), previous: None });
    assert_eq!(apply(&mut machine, 3, &put(1, 1, 1, "k", "v")), first);
    assert_eq!(machine.store().get(b"k").map(|kv| kv.version), Some(1));
}

#[test]
fn a_failed_condition_is_an_answer_that_is_remembered_as_well() {
    let mut machine = Machine::new();
    apply(&mut machine, 1, &Command::Register { nonce: Nonce::new(5) });
    let conditional = Command::Write {
        session: SessionId::new(1),
        sequence: Sequence::new(1),
        acknowledged: Sequence::new(1),
        operation: Operation::Delete {
            key: Key::new("k").expect("because it has a byte"),
            if_revision: Some(Revision::new(3)),
        },
    };
    let failed = Answer::CompareFailed { revision: Revision::new(1), current: None };
    assert_eq!(apply(&mut machine, 2, &conditional), failed);
    apply(&mut machine, 3, &put(1, 2, 1, "k", "1"));
    apply(&mut machine, 4, &put(1, 3, 1, "k", "2"));
    // By now the condition would hold.
    assert_eq!(apply(&mut machine, 5, &conditional), failed);
    assert!(machine.store().get(b"k").is_some());
}

#[test]
fn a_write_without_a_session_has_no_effect() {
    let mut machine = Machine::new();
    let before = machine.hash();
    assert_eq!(apply(&mut machine, 1, &put(1, 1, 1, "k", "v")), Answer::SessionUnknown);
    assert_eq!(machine.hash(), before);
}

#[test]
fn what_is_no_command_is_answered_and_changes_nothing() {
    let mut machine = Machine::new();
    let before = machine.hash();
    for (bytes, error) in [
        (&b""[..], DecodeError::Foreign),
        (b"\xc0", DecodeError::Foreign),
        (b"\xc0\x09\x00\x01", DecodeError::UnsupportedVersion { found: 9, newest: 1 }),
        (b"\xc0\x01\xff", DecodeError::Malformed),
    ] {
        let answer = machine.apply(at(1), &Bytes::from_static(bytes));
        assert_eq!(Answer::decode(&answer), Ok(Answer::Malformed(error)));
    }
    assert_eq!(machine.hash(), before);
}

/// Replicas compare hashes across versions of this program.
#[test]
fn the_hash_of_a_state_never_changes() {
    let mut machine = Machine::new();
    assert_eq!(machine.hash().to_string(), "4f3b620bbeb3494e0c96668e87072e32");
    apply(&mut machine, 1, &Command::Register { nonce: Nonce::new(5) });
    apply(&mut machine, 2, &put(1, 1, 1, "hello", "world"));
    assert_eq!(machine.hash().to_string(), "5bc0a20361f363c863877a4abd0a9647");
}

/// What arrives at the log: writes of two clients, each possibly several times, in any order
/// that a client with a window can cause.
fn arrivals() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    // A client takes its numbers in order; the floor that it sends along is the lowest number
    // that it still waits for. Here it waits for each until its second arrival.
    proptest::collection::vec((1_u64..=2, 0_usize..3, 1_u32..4), 0..40).prop_map(|draws| {
        let mut arrivals = Vec::new();
        let mut clients: BTreeMap<u64, (u64, BTreeSet<u64>)> = BTreeMap::new();
        for (client, pick, copies) in draws {
            let (next, waiting) = clients.entry(client).or_insert((1, BTreeSet::new()));
            let retried = waiting.iter().nth(pick).copied();
            let sequence = retried.unwrap_or(*next);
            if retried.is_none() {
                *next += 1;
                waiting.insert(sequence);
            }
            let floor = waiting.first().copied().unwrap_or(sequence);
            arrivals.extend((0..copies).map(|_| (client, sequence, floor)));
            if retried.is_some() {
                waiting.remove(&sequence);
            }
        }
        arrivals
    })
}

proptest! {
    #[test]
    fn every_write_has_one_effect_and_one_answer_in_every_interleaving(arrivals in arrivals()) {
        let mut machine = Machine::new();
        for client in 1..=2_u64 {
            apply(&mut machine, client, &Command::Register { nonce: Nonce::new(client.into()) });
        }
        let mut answers: BTreeMap<(u64, u64), Answer> = BTreeMap::new();
        for (index, (client, sequence, floor)) in (3_u64..).zip(arrivals) {
            // A key of its own for each write: its version counts the effects.
            let command = put(client, sequence, floor, &format!("{client}/{sequence}"), "v");
            let answer = apply(&mut machine, index, &command);
            prop_assert_eq!(*answers.entry((client, sequence)).or_insert(answer), answer);
        }
        prop_assert_eq!(machine.store().len(), answers.len());
        prop_assert_eq!(machine.store().revision().as_u64(), answers.len() as u64 + 1);
        for (client, sequence) in answers.keys() {
            let found = machine.store().get(format!("{client}/{sequence}").as_bytes());
            prop_assert_eq!(found.map(|kv| kv.version), Some(1));
        }
    }

    #[test]
    fn replicas_that_apply_the_same_log_are_equal_after_every_entry(arrivals in arrivals()) {
        let (mut one, mut other) = (Machine::new(), Machine::new());
        let opened = [Command::Register { nonce: Nonce::new(1) }, Command::Register { nonce: Nonce::new(2) }];
        let writes = arrivals.iter().map(|(client, sequence, floor)| put(*client, *sequence, *floor, "k", "v"));
        let mut hashes = BTreeSet::new();
        for (index, command) in (1_u64..).zip(opened.into_iter().chain(writes)) {
            prop_assert_eq!(apply(&mut one, index, &command), apply(&mut other, index, &command));
            prop_assert_eq!(one.hash(), other.hash());
            prop_assert!(hashes.insert(one.hash()), "entry {} left no trace in the hash", index);
        }
    }
}

/// A machine that has seen some commands: retries, conditions and deletions among them.
fn busy(commands: &[(u8, u8, u8)]) -> Machine {
    let mut machine = Machine::with_limits(SessionLimits { sessions_max: 3, window: 4, answers_max: 6 });
    for ((kind, session, sequence), index) in commands.iter().zip(1..) {
        let (session, sequence) = (u64::from(*session), u64::from(*sequence));
        let command = match kind % 4 {
            0 => Command::Register { nonce: Nonce::new(session.into()) },
            kind => put(session, sequence, u64::from(kind / 3), &format!("k{}", sequence % 3), &format!("v{index}")),
        };
        apply(&mut machine, index, &command);
    }
    machine
}

proptest! {
    #[test]
    fn a_machine_that_was_restored_goes_on_like_the_one_that_was_written_down(
        before in proptest::collection::vec((0..8_u8, 1..6_u8, 1..8_u8), 0..40),
        after in proptest::collection::vec((0..8_u8, 1..6_u8, 1..8_u8), 0..20),
    ) {
        let mut original = busy(&before);
        let snapshot = original.snapshot();
        let mut restored = busy(&after);
        prop_assert_eq!(restored.restore(&snapshot), Ok(()));
        prop_assert_eq!(restored.snapshot(), snapshot, "the same machine, the same bytes");
        prop_assert_eq!((restored.hash(), restored.applied()), (original.hash(), original.applied()));
        for ((_, session, sequence), index) in after.iter().zip(100..) {
            let command = put((*session).into(), (*sequence).into(), 1, "k", "v");
            prop_assert_eq!(apply(&mut restored, index, &command), apply(&mut original, index, &command));
        }
        prop_assert_eq!(restored.hash(), original.hash());
    }

    #[test]
    fn a_snapshot_that_was_altered_is_refused_or_means_the_same(
        commands in proptest::collection::vec((0..8_u8, 1..6_u8, 1..8_u8), 1..20),
        (place, bit) in (0..4_096_usize, 0..8_u8),
    ) {
        let original = busy(&commands);
        let mut bytes = original.snapshot().to_vec();
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        let mut machine = busy(&[]);
        let before = machine.snapshot();
        match machine.restore(&bytes.into()) {
            // The position of the last command is not part of the hash; the file's checksum covers it.
            Ok(()) => prop_assert_eq!(machine.hash(), original.hash()),
            Err(_) => prop_assert_eq!(machine.snapshot(), before, "a machine that was not restored is as it was"),
        }
    }
}

#[test]
fn a_snapshot_of_another_version_is_refused_by_name() {
    let mut machine = Machine::new();
    let refused = machine.restore(&Bytes::from_static(&[9, 0, 0])).map_err(|error| error.reason);
    assert_eq!(refused, Err("it is of version 9, and this program knows version 1 only".to_owned()));
}
