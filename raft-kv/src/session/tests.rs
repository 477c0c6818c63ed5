//! The session table against a naive model, and at its limits.

use std::collections::BTreeMap;

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::key::Revision;

const SMALL: SessionLimits = SessionLimits { sessions_max: 3, window: 4, answers_max: 6 };

/// An answer that can be told from every other.
fn answer(number: u64) -> Answer {
    Answer::Put { revision: Revision::new(number), previous: None }
}

fn index(value: u64) -> Index {
    Index::new(value)
}

fn admit(table: &mut Sessions, at: u64, id: u64, sequence: u64, acknowledged: u64) -> Admission {
    table.admit(index(at), SessionId(id), Sequence(sequence), Sequence(acknowledged))
}

/// Admits and, if that is what it comes to, remembers `answer(at)`.
fn write(table: &mut Sessions, at: u64, id: u64, sequence: u64, acknowledged: u64) -> Admission {
    let admission = admit(table, at, id, sequence, acknowledged);
    if admission == Admission::Execute {
        table.remember(SessionId(id), Sequence(sequence), answer(at));
    }
    admission
}

#[test]
fn a_session_is_named_by_the_index_that_opened_it_and_found_again_by_its_nonce() {
    let mut table = Sessions::new(SMALL);
    assert_eq!(table.register(index(7), Nonce(1)), SessionId(7));
    assert_eq!(table.register(index(8), Nonce(2)), SessionId(8));
    assert_eq!(table.register(index(9), Nonce(1)), SessionId(7));
    assert_eq!(table.len(), 2);
}

#[test]
fn a_retried_write_gets_the_first_answer_until_it_is_acknowledged() {
    let mut table = Sessions::new(SMALL);
    table.register(index(1), Nonce(1));
    assert_eq!(write(&mut table, 2, 1, 1, 1), Admission::Execute);
    assert_eq!(write(&mut table, 3, 1, 1, 1), Admission::Answered(answer(2)));
    assert_eq!(write(&mut table, 4, 1, 2, 2), Admission::Execute);
    let stale = Admission::Answered(Answer::SequenceStale { floor: Sequence(2) });
    assert_eq!(write(&mut table, 5, 1, 1, 1), stale);
}

#[test]
fn writes_may_arrive_in_any_order_within_the_window() {
    let mut table = Sessions::new(SMALL);
    table.register(index(1), Nonce(1));
    for (at, sequence) in [(2, 4), (3, 2), (4, 3), (5, 1)] {
        assert_eq!(write(&mut table, at, 1, sequence, 1), Admission::Execute);
    }
    let ahead = Admission::Answered(Answer::SequenceAhead { ceiling: Sequence(5) });
    assert_eq!(write(&mut table, 6, 1, 5, 1), ahead);
    assert_eq!(write(&mut table, 7, 1, 5, 2), Admission::Execute);
}

#[test]
fn nobody_can_acknowledge_a_write_that_is_still_on_its_way() {
    let mut table = Sessions::new(SMALL);
    table.register(index(1), Nonce(1));
    assert_eq!(write(&mut table, 2, 1, 1, u64::MAX), Admission::Execute);
    assert_eq!(write(&mut table, 3, 1, 1, 1), Admission::Answered(answer(2)));
}

#[test]
fn the_session_that_was_used_the_longest_ago_is_forgotten_first() {
    let mut table = Sessions::new(SMALL);
    for at in 1..=3 {
        table.register(index(at), Nonce(at.into()));
    }
    assert_eq!(write(&mut table, 4, 1, 1, 1), Admission::Execute);
    // Also an answered retry and a retried registration are uses.
    assert_eq!(table.register(index(5), Nonce(2)), SessionId(2));
    table.register(index(6), Nonce(6));
    assert_eq!(table.len(), 3);
    assert_eq!(admit(&mut table, 7, 3, 1, 1), Admission::Answered(Answer::SessionUnknown));
    assert_eq!(admit(&mut table, 8, 1, 1, 1), Admission::Answered(answer(4)));
    assert_eq!(admit(&mut table, 9, 2, 1, 1), Admission::Execute);
}

#[test]
fn too_many_answers_make_the_oldest_session_go_and_never_the_one_in_use() {
    let mut table = Sessions::new(SMALL);
    table.register(index(1), Nonce(1));
    table.register(index(2), Nonce(2));
    for sequence in 1..=4 {
        write(&mut table, 2 + sequence, 1, sequence, 1);
    }
    for sequence in 1..=2 {
        write(&mut table, 6 + sequence, 2, sequence, 1);
    }
    assert_eq!((table.len(), table.answers), (2, 6));
    assert_eq!(write(&mut table, 9, 2, 3, 1), Admission::Execute);
    assert_eq!((table.len(), table.answers), (1, 3));
    assert_eq!(write(&mut table, 10, 2, 3, 1), Admission::Answered(answer(9)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Register {
        nonce: u8,
    },
    /// By the nth session that was ever opened.
    Write {
        session: usize,
        sequence: u64,
        acknowledged: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0_u8..6).prop_map(|nonce| Step::Register { nonce }),
        6 => (any::<usize>(), 1_u64..9, 1_u64..9)
            .prop_map(|(session, sequence, acknowledged)| Step::Write { session, sequence, acknowledged }),
    ];
    proptest::collection::vec(step, 0..120)
}

/// The same rules without any bookkeeping: all that happened to a session is kept, and what is
/// remembered is worked out from it.
#[derive(Default)]
struct Naive {
    sessions: BTreeMap<u64, NaiveSession>,
}

#[derive(Default)]
struct NaiveSession {
    nonce: u8,
    used: u64,
    acknowledged: Vec<u64>,
    executed: BTreeMap<u64, u64>,
}

impl NaiveSession {
    fn floor(&self) -> u64 {
        self.acknowledged.iter().copied().max().unwrap_or(1)
    }

    fn remembered(&self) -> usize {
        self.executed.range(self.floor()..).count()
    }
}

impl Naive {
    fn forget_oldest(&mut self) {
        let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
        self.sessions.remove(&oldest.expect("because there is a session to forget"));
    }

    fn register(&mut self, at: u64, nonce: u8) -> u64 {
        if let Some((id, session)) = self.sessions.iter_mut().find(|(_, session)| session.nonce == nonce) {
            session.used = at;
            return *id;
        }
        if self.sessions.len() == SMALL.sessions_max {
            self.forget_oldest();
        }
        self.sessions.insert(at, NaiveSession { nonce, used: at, ..NaiveSession::default() });
        at
    }

    fn write(&mut self, at: u64, id: u64, sequence: u64, acknowledged: u64) -> Admission {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Admission::Answered(Answer::SessionUnknown);
        };
        session.used = at;
        session.acknowledged.push(acknowledged.min(sequence));
        let floor = session.floor();
        if sequence < floor {
            return Admission::Answered(Answer::SequenceStale { floor: Sequence(floor) });
        }
        if sequence >= floor + SMALL.window {
            return Admission::Answered(Answer::SequenceAhead { ceiling: Sequence(floor + SMALL.window) });
        }
        if let Some(first) = session.executed.get(&sequence) {
            return Admission::Answered(answer(*first));
        }
        session.executed.insert(sequence, at);
        while self.sessions.values().map(NaiveSession::remembered).sum::<usize>() > SMALL.answers_max {
            self.forget_oldest();
        }
        Admission::Execute
    }
}

/// The digest of a table's content, computed from nothing.
fn recomputed(table: &Sessions) -> Digest {
    let mut digest = Digest::default();
    for (id, session) in &table.sessions {
        digest.add(session.hash(*id));
        for (sequence, remembered) in &session.answers {
            digest.add(hash_answer(*id, *sequence, &remembered.answer));
        }
    }
    digest
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_model_that_keeps_everything(steps in steps()) {
        let (mut table, mut naive) = (Sessions::new(SMALL), Naive::default());
        let mut opened = vec![0];
        for (at, step) in (1_u64..).zip(&steps) {
            match *step {
                Step::Register { nonce } => {
                    let id = table.register(index(at), Nonce(nonce.into())).as_u64();
                    prop_assert_eq!(id, naive.register(at, nonce));
                    opened.push(id);
                }
                Step::Write { session, sequence, acknowledged } => {
                    let id = opened[session % opened.len()];
                    let admission = write(&mut table, at, id, sequence, acknowledged);
                    prop_assert_eq!(admission, naive.write(at, id, sequence, acknowledged));
                }
            }
            prop_assert_eq!(table.digest(), recomputed(&table));
            prop_assert_eq!(table.answers, table.sessions.values().map(|session| session.answers.len()).sum::<usize>());
            prop_assert!(table.len() <= SMALL.sessions_max && table.answers <= SMALL.answers_max);
            prop_assert_eq!((table.by_nonce.len(), table.by_use.len()), (table.len(), table.len()));
        }
    }
}
