//! What the paper says of logs, played out: §5.3, §5.4.2, Figure 7.
//!
//! The other half of the scenarios of etcd/raft's `raft_paper_test.go`; see
//! `raft_paper_elections.rs`.

use std::collections::VecDeque;

use raft_core::Verdict::Granted;
use raft_core::{Effect, Entries, Entry, Event, Position, Rpc};

use crate::rig::{
    Lone, Start, append, append_reply, apply, at, blank, commit_notice, entries, entries_of, index, node, persist,
    proposal, rejected, send, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

// ---- §5.3: the leader ------------------------------------------------------------------------

/// §5.3 – the leader appends a command to its log, writes it, and sends it to all others at the
/// same time, naming the entry just before it. It is not committed by that.
#[test]
fn leader_start_replication() {
    let mut server = Start::first_of_three().settled_leader();
    let new = entries([proposal(2, 1, 7)]);
    let sent = append(1, 2, at(1, 1), 1, new.clone());
    assert_eq!(server.propose(7), [persist(3, new), send(2, sent.clone()), send(3, sent)]);
    assert_eq!((server.status().log.last, server.status().log.commit), (at(2, 1), index(1)));
}

/// §5.3 – once a majority has the entry, the leader applies it and answers the client. It keeps
/// the highest committed index, and tells it with what it sends next.
#[test]
fn leader_commit_entry() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    assert_eq!(server.persisted(3), []);
    assert_eq!(
        server.receive(2, append_reply(1, 2, 2)),
        [send(2, commit_notice(1, 2)), apply(entries([proposal(2, 1, 7)]), &[(2, 7)])]
    );
    assert_eq!(server.status().log.commit, index(2));
    let new = entries([proposal(3, 1, 8)]);
    let sent = append(1, 3, at(2, 1), 2, new.clone());
    assert_eq!(server.propose(8), [persist(4, new), send(2, sent.clone()), send(3, sent)]);
}

/// §5.3 – an entry is committed when a majority holds it: each on its disk, the leader not
/// excepted and not needed either.
#[test]
fn leader_acknowledge_commit() {
    let cases: [(u64, bool, &[u64], bool); 12] = [
        (3, true, &[], false),
        (3, true, &[2], true),
        (3, true, &[2, 3], true),
        (5, true, &[], false),
        (5, true, &[2], false),
        (5, true, &[2, 3], true),
        (5, true, &[2, 3, 4], true),
        (5, true, &[2, 3, 4, 5], true),
        (3, false, &[2], false),
        (3, false, &[2, 3], true),
        (5, false, &[2, 3], false),
        (5, false, &[2, 3, 4], true),
    ];
    for (size, own_disk, acceptors, committed) in cases {
        let voters: Vec<u64> = (1..=size).collect();
        let mut server = Start::new(1, &voters).settled_leader();
        server.propose(7);
        if own_disk {
            server.persisted(3);
        }
        acceptors.iter().for_each(|voter| drop(server.receive(*voter, append_reply(1, 2, 2))));
        let expected = if committed { 2 } else { 1 };
        assert_eq!(server.status().log.commit, index(expected), "{acceptors:?} of {size}, own disk: {own_disk}");
    }
    let mut alone = Start::new(1, &[1]).server();
    alone.persisted(1);
    assert_eq!(alone.propose(7), [persist(3, entries([proposal(2, 1, 7)]))]);
    assert_eq!(alone.persisted(3), [apply(entries([blank(1, 1), proposal(2, 1, 7)]), &[(2, 7)])]);
}

/// §5.3 – committing an entry commits everything before it, entries of earlier leaders included;
/// and all of that is applied, in order.
#[test]
fn leader_commit_preceding_entries() {
    for terms in [[].as_slice(), &[2], &[1, 2], &[1]] {
        let before = terms.len() as u64;
        let mut server = Start::first_of_three().log(terms).term(2).leader();
        server.propose(7);
        server.persisted(3);
        let mut all: Vec<Entry> = entries_of(1, terms).iter().cloned().collect();
        all.push(blank(before + 1, 3));
        let new = entries([proposal(before + 2, 3, 7)]);
        assert_eq!(
            server.receive(2, append_reply(3, 1, before + 1)),
            [send(2, append(3, 2, at(before + 1, 3), before + 1, new.clone())), apply(entries(all), &[])],
            "after {terms:?}"
        );
        assert_eq!(
            server.receive(2, append_reply(3, 2, before + 2)),
            [send(2, commit_notice(3, before + 2)), apply(new, &[(before + 2, 7)])]
        );
    }
}

// ---- §5.3: a follower ------------------------------------------------------------------------

/// §5.3 – a follower that learns that an entry is committed applies it, in log order: as far as it
/// holds the leader's log, and only once its own disk has it (contract D5).
#[test]
fn follower_commit_entry() {
    let swapped = entries([proposal(1, 1, 8), proposal(2, 1, 7)]);
    let cases = [
        (entries_of(1, &[1]), 1, 1),
        (entries_of(1, &[1, 1]), 2, 2),
        (swapped, 2, 2),
        (entries_of(1, &[1, 1]), 1, 1),
        (entries_of(1, &[1, 1]), 9, 2),
    ];
    for (new, told, committed) in cases {
        let mut server = Start::first_of_three().term(1).follower_of(2);
        assert_eq!(server.receive(2, append(1, 2, at(0, 0), told, new.clone())), [persist(1, new.clone())]);
        assert_eq!(server.status().log.commit, index(committed));
        let acknowledged = send(2, append_reply(1, 2, new.len() as u64));
        assert_eq!(server.persisted(1), [acknowledged, apply(new.slice(index(1), index(committed)), &[])]);
    }
}

/// §5.3 – the consistency check: an append is taken only where index and term of the entry before
/// it are found; otherwise it is refused, with a hint where to look.
#[test]
fn follower_check_msg_app() {
    // 1@1 is committed, 2@2 is not.
    let follower = || {
        let mut server = Start::first_of_three().log(&[1, 2]).follower_of(2);
        assert_eq!(
            server.receive(2, append(2, 2, at(1, 1), 1, NONE)),
            [send(2, append_reply(2, 2, 1)), apply(entries_of(1, &[1]), &[]),]
        );
        server
    };
    for (prev, matched) in [(at(0, 0), 1), (at(1, 1), 1), (at(2, 2), 2)] {
        let effects = follower().receive(2, append(2, 3, prev, 1, NONE));
        assert_eq!(effects, [send(2, append_reply(2, 3, matched))], "{prev} is found");
    }
    for (prev, hint) in [(at(2, 1), at(1, 1)), (at(3, 2), at(2, 2))] {
        let mut server = follower();
        let number = prev.index.as_u64();
        let effects = server.receive(2, append(2, 3, prev, 1, entries_of(number + 1, &[2])));
        assert_eq!(effects, [send(2, rejected(2, 3, number, hint, 1))], "{prev} is not");
        assert_eq!(server.status().log.last, at(2, 2), "nothing of it is taken");
    }
}

/// §5.3 – a follower removes an entry that conflicts with the leader's, and all that follow it;
/// and it appends, and writes, what it does not hold yet.
#[test]
fn follower_append_entries() {
    type Case<'a> = (Position, &'a [u64], &'a [u64], Option<Entries>);
    let cases: [Case<'_>; 5] = [
        (at(2, 2), &[3], &[1, 2, 3], Some(entries_of(3, &[3]))),
        (at(1, 1), &[3, 4], &[1, 3, 4], Some(entries_of(2, &[3, 4]))),
        (at(0, 0), &[1], &[1, 2], None),
        (at(0, 0), &[3], &[3], Some(entries_of(1, &[3]))),
        (at(0, 0), &[1, 3], &[1, 3], Some(entries_of(2, &[3]))),
    ];
    for (prev, sent, log, written) in cases {
        let mut server = Start::first_of_three().log(&[1, 2]).term(4).follower_of(2);
        let new = entries_of(prev.index.as_u64() + 1, sent);
        let reached = prev.index.as_u64() + sent.len() as u64;
        let mut effects = server.receive(2, append(4, 2, prev, 0, new));
        if let Some(written) = written {
            assert_eq!(effects, [persist(1, written)], "{sent:?} after {prev}");
            effects = server.persisted(1);
        }
        assert_eq!(effects, [send(2, append_reply(4, 2, reached))]);

        // What the log holds now is what is applied once all of it is committed.
        let end = at(log.len() as u64, log[log.len() - 1]);
        assert_eq!(server.status().log.last, end, "{sent:?} after {prev}");
        assert_eq!(
            server.receive(2, append(4, 3, end, end.index.as_u64(), NONE)),
            [send(2, append_reply(4, 3, end.index.as_u64())), apply(entries_of(1, log), &[])]
        );
    }
}

// ---- Figure 7 --------------------------------------------------------------------------------

/// A server, and what its disk holds.
struct Written {
    server: Lone,
    disk: Vec<Entry>,
}

impl Written {
    fn new(server: Lone, terms: &[u64]) -> Self {
        Self { server, disk: entries_of(1, terms).iter().cloned().collect() }
    }

    /// Takes an event, lets the disk finish, and returns what there is to tell the other one.
    fn take(&mut self, event: Event, other: u64) -> Vec<Rpc> {
        let mut effects = VecDeque::from(self.server.step(event));
        let mut told = Vec::new();
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Persist { seq, entries, .. } => {
                    if let Some(first) = entries.first() {
                        self.disk.retain(|entry| entry.index < first.index);
                    }
                    self.disk.extend(entries.iter().cloned());
                    effects.extend(self.server.step(Event::Persisted { seq }));
                }
                Effect::Send { to, rpc } if to == node(other) => told.push(rpc),
                Effect::Send { .. } | Effect::Apply { .. } => {}
                unexpected => panic!("{unexpected:?}"),
            }
        }
        told
    }
}

/// §5.3, Figure 7 – a leader brings every follower's log into line with its own: entries that
/// the follower lacks, and entries that it has too many.
#[test]
fn leader_sync_follower_log() {
    let leader_terms = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [(char, &[u64]); 6] = [
        ('a', &[1, 1, 1, 4, 4, 5, 5, 6, 6]),
        ('b', &[1, 1, 1, 4]),
        ('c', &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]),
        ('d', &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]),
        ('e', &[1, 1, 1, 4, 4, 4, 4]),
        ('f', &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]),
    ];
    for (name, terms) in followers {
        // The follower's log may be the better one: it is server 3 that votes.
        let candidate = Start::first_of_three().log(&leader_terms).term(7).candidate();
        let mut leader = Written::new(candidate, &leader_terms);
        let mut follower = Written::new(Start::new(2, &[1, 2, 3]).log(terms).term(7).server(), terms);
        let mut questions = VecDeque::from(leader.take(crate::rig::received(3, vote_reply(8, Granted)), 2));
        questions.extend(leader.take(crate::rig::propose(7), 2));
        for _ in 0..100 {
            let Some(question) = questions.pop_front() else { break };
            for answer in follower.take(crate::rig::received(1, question), 1) {
                questions.extend(leader.take(crate::rig::received(2, answer), 2));
            }
        }
        assert!(questions.is_empty(), "({name}) no end in sight");
        let mut expected: Vec<Entry> = entries_of(1, &leader_terms).iter().cloned().collect();
        expected.extend([blank(11, 8), proposal(12, 8, 7)]);
        assert_eq!(leader.disk, expected, "({name}) a leader only appends");
        assert_eq!(follower.disk, expected, "({name})");
        let commits = [&leader, &follower].map(|written| written.server.status().log.commit);
        assert_eq!(commits, [index(12); 2], "({name}) both know that it is committed");
    }
}

// ---- §5.4.2 ----------------------------------------------------------------------------------

/// §5.4.2 – only entries of the leader's own term are committed by counting; earlier ones are
/// committed with them.
#[test]
fn leader_only_commits_log_from_current_term() {
    for (matched, commit) in [(1, 0), (2, 0), (3, 3)] {
        let mut server = Start::new(1, &[1, 2]).log(&[1, 2]).leader();
        assert_eq!(server.role().0, 3);
        assert_eq!(server.persisted(2), []);
        let effects = server.receive(2, append_reply(3, 1, matched));
        assert_eq!(server.status().log.commit, index(commit), "both hold everything up to {matched}");
        let applied = effects.iter().any(|effect| matches!(effect, Effect::Apply { .. }));
        assert_eq!(applied, commit > 0, "{effects:?}");
    }
}
