//! What nothing else noticed when it was taken out of the code: each of these tests was written
//! because a deliberate defect had survived all others.

use std::time::Duration;

use raft_core::Verdict::{Granted, LeaderAlive, Refused};
use raft_core::{Effect, Entries, Event, LogReadOutcome, RoleKind, Rpc};

use crate::rig::{
    Start, append, append_reply, at, entries, entries_of, heartbeat_reply, index, node, persist_vote, pre_vote,
    pre_vote_reply, proposal, rejected, send, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

/// §5.2 – whoever grants a vote gives the candidate a whole timeout to win.
#[test]
fn a_vote_given_restarts_the_own_timeout() {
    let mut server = Start::first_of_three().term(1).server();
    let timeout = server.patience();
    server.wait(100);
    assert_eq!(server.receive(2, vote(1, at(0, 0))), [persist_vote(1, 1, 2, NONE)]);
    server.persisted(1);
    assert_eq!(server.patience(), timeout);
    // A vote refused gives nobody time: else a candidate that cannot win would keep others from trying.
    server.wait(100);
    assert_eq!(server.receive(3, vote(1, at(0, 0))), [send(3, vote_reply(1, Refused))]);
    assert_eq!(server.patience(), timeout - Duration::from_millis(100));
}

#[test]
fn a_pre_candidate_that_votes_in_its_own_term_gives_up_its_campaign() {
    let mut server = Start::first_of_three().term(4).server();
    server.tick();
    assert_eq!(server.role(), (4, RoleKind::PreCandidate));
    assert_eq!(server.receive(2, vote(4, at(0, 0))), [persist_vote(1, 4, 2, NONE)]);
    assert_eq!(server.role(), (4, RoleKind::Follower));
    assert_eq!(server.persisted(1), [send(2, vote_reply(4, Granted))]);
    assert_eq!(server.receive(3, pre_vote_reply(5, 1, Granted)), [], "the campaign is over");
    assert!(server.patience() >= Duration::from_millis(150), "{:?}", server.patience());
}

#[test]
fn a_follower_gives_no_vote_in_the_term_of_a_leader_however_long_that_is_silent() {
    let mut server = Start::first_of_three().term(4).follower_of(2);
    server.wait(150);
    assert_eq!(server.receive(3, vote(4, at(9, 3))), [send(3, vote_reply(4, Refused))]);
    assert_eq!(server.status().hard_state.voted_for, None);
}

#[test]
fn rule_v6_a_pre_vote_that_is_refused_for_its_log_is_not_invited_to_ask_again_soon() {
    let mut server = Start::first_of_three().log(&[1, 1]).follower_of(2);
    assert_eq!(server.receive(3, pre_vote(2, 7, at(1, 1))), [send(3, pre_vote_reply(1, 7, Refused))]);
    assert_eq!(server.receive(3, pre_vote(2, 8, at(2, 1))), [send(3, pre_vote_reply(1, 8, LeaderAlive))]);
}

#[test]
fn regress_t117_entries_of_an_earlier_term_than_the_one_before_them_are_dropped() {
    // No leader makes such a log, and taking it would break the order of terms for good.
    let mut server = Start::first_of_three().log(&[1, 3]).follower_of(2);
    assert_eq!(server.receive(2, append(3, 2, at(2, 3), 0, entries_of(3, &[2]))), []);
    assert_eq!((server.status().log.last, server.status().load.drops.malformed), (at(2, 3), 1));
}

#[test]
fn rule_r4_a_disk_that_is_slower_than_our_patience_is_given_more_of_it() {
    let start = Start { warm: false, ..Start::first_of_three().log(&[1, 1, 1]) };
    let mut server = start.leader();
    let mut asked = server.receive(2, rejected(2, 1, 3, at(0, 0), 0));
    let mut waited = Vec::new();
    let mut last = server.now;
    while waited.len() < 3 {
        let [Effect::ReadLog { id, .. }] = asked.as_slice() else { panic!("{asked:?}") };
        let id = *id;
        // Server 3 keeps the leader in office; the disk does not answer.
        asked = Vec::new();
        while asked.is_empty() {
            assert!(server.now.since(last) < Duration::from_secs(2), "never asked again");
            server.wait(10);
            let effects = server.step(Event::Tick);
            for effect in effects {
                match effect {
                    Effect::Send { to, rpc: Rpc::Heartbeat { round, .. } } if to == node(3) => {
                        server.receive(3, heartbeat_reply(2, round.as_u64(), 0, 0));
                    }
                    Effect::ReadLog { .. } => asked.push(effect),
                    _ => {}
                }
            }
        }
        waited.push(server.now.since(last).as_millis());
        last = server.now;
        let late = Event::LogRead { id, outcome: LogReadOutcome::Entries(entries_of(1, &[1, 1, 1])) };
        assert_eq!(server.step(late), [], "that was the answer to the question before");
    }
    assert_eq!(waited, [150, 300, 600]);
}

#[test]
fn rule_v6_an_invitation_to_ask_again_never_makes_it_later() {
    let mut server = Start::first_of_three().term(1).follower_of(3);
    server.tick();
    let planned = server.raft.deadline();
    server.wait(u64::try_from(server.patience().as_millis()).expect("it is small") - 10);
    server.receive(2, pre_vote_reply(1, 1, LeaderAlive));
    assert_eq!(server.raft.deadline(), planned, "ten milliseconds from now, not a heartbeat");
}

#[test]
fn rule_r6_a_commit_index_that_rode_on_an_append_is_not_told_again() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    // 2@1 is committed; server 3 hears of it with 3@1, which is not.
    let new = append(1, 3, at(2, 1), 2, entries([proposal(3, 1, 8)]));
    assert!(server.propose(8).contains(&send(3, new)));
    assert_eq!(server.receive(3, append_reply(1, 3, 3)), []);
    assert_eq!((server.status().log.commit, server.progress(3)), (index(2), (3, 4, false, 0)));
}

#[test]
fn rule_r4_a_peer_that_has_to_begin_again_does_not_wait_for_what_was_asked_before() {
    // One entry fits into a message, and none of the old ones is in memory.
    let start = Start { warm: false, ..Start::first_of_three().log(&[1; 10]) };
    let mut server = start.limits(|limits| limits.message_bytes_max = 40).leader();
    let asked = |effects: &[Effect]| {
        let questions = effects.iter().filter_map(|effect| match effect {
            Effect::ReadLog { id, from, .. } => Some((*id, from.as_u64())),
            _ => None,
        });
        questions.collect::<Vec<_>>()
    };
    let found = |id, place| Event::LogRead { id, outcome: LogReadOutcome::Entries(entries_of(place, &[1])) };
    let mut questions = asked(&server.receive(2, rejected(2, 1, 10, at(2, 1), 0)));
    assert!(matches!(questions.as_slice(), [(_, 3)]), "{questions:?}");
    server.step(found(questions[0].0, 3));
    questions = asked(&server.receive(2, append_reply(2, 2, 3)));
    assert!(matches!(questions.as_slice(), [(_, 4)]), "{questions:?}");
    questions = asked(&server.step(found(questions[0].0, 4)));
    assert!(matches!(questions.as_slice(), [(_, 5)]), "4@1 is under way: {questions:?}");
    // It is lost with its connection. Once the peer is back, 4@1 is what is wanted, not 5@1.
    server.step(Event::PeerUnreachable { node: node(2) });
    server.tick();
    questions = asked(&server.receive(2, heartbeat_reply(2, 2, 3, 3)));
    assert!(matches!(questions.as_slice(), [(_, 4)]), "{questions:?}");
}
