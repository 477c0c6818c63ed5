//! What a follower takes, and what a leader commits: contract R2, R3, R6; §5.3, §5.4.2.

use raft_core::{Effect, Entries, Event, Peer, Rpc};

use crate::rig::{
    Start, append, append_reply, apply, at, blank, commit_notice, entries, entries_of, entry, heartbeat,
    heartbeat_reply, index, node, peer, persist, persist_vote, proposal, rejected, send, store,
};

const NONE: Entries = Entries::EMPTY;

#[test]
fn a_follower_takes_what_follows_its_log_and_refuses_a_gap() {
    let mut server = Start::first_of_three().log(&[1, 1]).follower_of(2);
    let new = entries_of(3, &[1]);
    assert_eq!(server.receive(2, append(1, 2, at(2, 1), 0, new.clone())), [persist(1, new)]);
    assert_eq!(
        server.receive(2, append(1, 3, at(5, 1), 0, entries_of(6, &[1]))),
        [send(2, rejected(1, 3, 5, at(3, 1), 0))]
    );
}

#[test]
fn a_follower_replaces_what_conflicts_and_everything_after_it() {
    let mut server = Start::first_of_three().log(&[1, 2, 2, 2]).follower_of(2);
    let new = entries_of(2, &[2, 3]);
    assert_eq!(
        server.receive(3, append(3, 1, at(1, 1), 0, new)),
        [persist_vote(1, 3, None, entries_of(3, &[3]))],
        "2@2 is the same in both logs and is not written again"
    );
    assert_eq!(server.status().log.last, at(3, 3));
}

#[test]
fn an_append_with_a_hole_or_of_a_later_term_is_dropped_and_counted() {
    let mut server = Start::first_of_three().log(&[1]).follower_of(2);
    for (prev, entries) in [
        (at(1, 1), entries_of(3, &[1])),
        (at(1, 1), entries_of(2, &[2])),
        (at(0, 0), entries_of(2, &[1])),
        (at(1, 2), NONE),
    ] {
        assert_eq!(server.receive(2, append(1, 2, prev, 0, entries)), []);
    }
    assert_eq!(server.status().load.drops.malformed, 4);
    assert_eq!(server.status().log.last, at(1, 1));
}

#[test]
fn an_append_that_denies_what_is_committed_is_dropped_and_counted() {
    let mut server = Start::first_of_three().log(&[1, 1]).follower_of(2);
    server.receive(2, append(1, 2, at(2, 1), 2, NONE));
    assert_eq!(server.status().log.commit, index(2));
    server.receive(3, heartbeat(2, 1, 0));
    assert_eq!(server.receive(3, append(2, 2, at(0, 0), 2, entries_of(1, &[1, 2]))), []);
    assert_eq!(server.receive(3, append(2, 2, at(2, 2), 2, NONE)), []);
    assert_eq!(server.status().load.drops.malformed, 2);
    assert_eq!(server.status().log.last, at(2, 1));
}

#[test]
fn regress_t054_an_old_short_append_removes_nothing() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1, 1, 1])));
    server.persisted(1);
    assert_eq!(
        server.receive(2, append(1, 1, at(0, 0), 0, entries_of(1, &[1]))),
        [send(2, append_reply(1, 2, 3))],
        "late, and it brings nothing new: no write, and what was acknowledged stays acknowledged"
    );
    assert_eq!(server.status().log.last, at(3, 1));
}

#[test]
fn regress_t055_appends_in_any_order_and_twice_end_in_the_same_log() {
    let parts = [
        append(1, 2, at(0, 0), 0, entries_of(1, &[1])),
        append(1, 3, at(1, 1), 1, entries_of(2, &[1, 1])),
        append(1, 4, at(3, 1), 2, entries_of(4, &[1])),
    ];
    for order in [[0, 1, 2, 2, 1, 0], [0, 0, 1, 1, 2, 2], [2, 0, 2, 1, 1, 2], [1, 0, 0, 1, 2, 2]] {
        let mut server = Start::first_of_three().term(1).follower_of(2);
        for nth in order {
            server.receive(2, parts[nth].clone());
        }
        let written = server.status().load.written;
        server.step(Event::Persisted { seq: written });
        assert_eq!(server.status().log.last, at(4, 1), "{order:?}");
        assert_eq!((server.status().log.durable, server.status().log.commit), (index(4), index(2)), "{order:?}");
    }
}

#[test]
fn rule_r2_a_rejection_says_where_the_logs_may_part() {
    let mut server = Start::first_of_three().log(&[1, 1, 4, 4, 4]).follower_of(2);
    server.receive(2, append(4, 2, at(2, 1), 2, NONE));
    assert_eq!(server.status().log.commit, index(2));
    for (prev, hint) in [
        (at(9, 4), at(5, 4)), // its log is short
        (at(4, 3), at(2, 1)), // its run of term 4 is not the leader's; the one before may be
        (at(4, 5), at(4, 4)), // its term at 4 is older than the leader's
    ] {
        let rpc = append(5, 1, prev, 0, NONE);
        assert_eq!(
            server.receive(3, rpc).first(),
            Some(&send(3, rejected(5, 1, prev.index.as_u64(), hint, 2))),
            "{prev}"
        );
    }
}

#[test]
fn rule_r3_a_follower_commits_only_what_this_leader_has_verified() {
    let mut server = Start::first_of_three().log(&[1, 1, 1]).follower_of(2);
    server.receive(2, heartbeat(1, 2, 3));
    server.receive(2, commit_notice(1, 3));
    assert_eq!(server.status().log.commit, index(0), "three entries, and nobody has compared them");
    server.receive(2, append(1, 3, at(1, 1), 3, entries_of(2, &[1])));
    assert_eq!(server.status().log.commit, index(2), "as far as the append goes");
    server.receive(3, heartbeat(2, 1, 3));
    assert_eq!(server.status().log.commit, index(2), "another leader begins anew");
    server.receive(3, append(2, 2, at(3, 1), 3, NONE));
    assert_eq!(server.status().log.commit, index(3));
}

// ---- at the leader -------------------------------------------------------------------------

#[test]
fn regress_t061_entries_of_earlier_terms_are_not_committed_by_counting() {
    // Figure 8: S1 of five leads term 4; 2@2 gets onto a majority, and S5 could still win with 2@3.
    let mut server = Start::new(1, &[1, 2, 3, 4, 5]).log(&[1, 2]).term(3).leader();
    server.persisted(2);
    for voter in [2, 3, 4, 5] {
        server.receive(voter, append_reply(4, 1, 2));
    }
    assert_eq!(server.status().log.commit, index(0), "2@2 is on five of five, and not committed");
    server.receive(2, append_reply(4, 1, 3));
    assert_eq!(server.status().log.commit, index(0));
    server.receive(5, append_reply(4, 1, 3));
    assert_eq!(server.status().log.commit, index(3), "3@4 is on three of five, and takes the others with it");
}

#[test]
fn a_majority_of_an_even_number_is_more_than_half() {
    let mut server = Start::new(1, &[1, 2, 3, 4]).leader();
    server.persisted(2);
    server.receive(2, append_reply(1, 1, 1));
    assert_eq!(server.status().log.commit, index(0));
    server.receive(3, append_reply(1, 1, 1));
    assert_eq!(server.status().log.commit, index(1));
}

#[test]
fn rule_v9_acknowledgements_from_another_store_do_not_count() {
    let mut server = Start::first_of_three().leader();
    server.persisted(2);
    let wiped = Peer { store: store(9), ..peer(2) };
    server.step(Event::Received { from: wiped, rpc: append_reply(1, 1, 1) });
    server.step(Event::Received { from: wiped, rpc: heartbeat_reply(1, 1, 1, 1) });
    assert_eq!(server.status().log.commit, index(0));
    assert_eq!(server.status().load.drops.foreign, 2);
    assert_eq!(server.progress(2), (0, 1, true, 1));
}

#[test]
fn an_acknowledgement_of_what_does_not_exist_is_dropped_and_counted() {
    let mut server = Start::first_of_three().settled_leader();
    assert_eq!(server.receive(2, append_reply(1, 1, 9)), []);
    assert_eq!(server.receive(2, heartbeat_reply(1, 1, 1, 9)), []);
    assert_eq!(server.receive(2, append_reply(1, 99, 1)), []);
    assert_eq!(server.status().load.drops.malformed, 3);
    assert_eq!(server.progress(2), (1, 2, false, 0));
}

#[test]
fn regress_t047_a_heartbeat_tells_no_more_than_the_peer_is_known_to_hold() {
    let mut server = Start::first_of_three().log(&[1, 1]).leader();
    server.persisted(2);
    server.receive(2, append_reply(2, 1, 3));
    assert_eq!(server.status().log.commit, index(3));
    assert_eq!(server.tick(), [send(2, heartbeat(2, 2, 3)), send(3, heartbeat(2, 2, 0))]);
}

#[test]
fn rule_r3_appends_carry_the_whole_commit_index_because_they_clamp_themselves() {
    let mut server = Start::first_of_three().log(&[1, 1]).leader();
    server.persisted(2);
    server.receive(2, append_reply(2, 1, 3));
    assert_eq!(
        server.receive(3, rejected(2, 1, 2, at(0, 0), 0)),
        [send(3, append(2, 2, at(0, 0), 3, entries([entry(1, 1), entry(2, 1), blank(3, 2)])))]
    );
}

#[test]
fn rule_r6_the_commit_index_rides_on_the_next_append() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.propose(8);
    server.persisted(4);
    let effects = server.receive(2, append_reply(1, 2, 2));
    assert_eq!(
        effects,
        [apply(entries([proposal(2, 1, 7)]), &[(2, 7)])],
        "an append to 2 is still under way: no notice now"
    );
    let effects = server.propose(9);
    assert_eq!(effects[1], send(2, append(1, 4, at(3, 1), 2, entries([proposal(4, 1, 9)]))));
    server.persisted(5);
    let effects = server.receive(2, append_reply(1, 4, 4));
    assert_eq!(effects.first(), Some(&send(2, commit_notice(1, 4))), "the pipe to 2 is idle, the one to 3 is not");
    assert_eq!(effects.len(), 2, "{effects:?}");
}

#[test]
fn rule_r6_one_step_fills_the_window_with_as_few_messages_as_there_can_be() {
    // An entry costs 42 bytes: two fit into a message, and three messages into the window.
    let start = Start::first_of_three().limits(|limits| {
        limits.message_bytes_max = 84;
        limits.inflight_messages_max = 3;
    });
    let mut server = start.settled_leader();
    let effects = server.batch((10..20).map(crate::rig::propose));
    let sent = |to: u64| -> Vec<_> {
        let appends = effects.iter().filter_map(|effect| match effect {
            Effect::Send { to: receiver, rpc: Rpc::Append(append) } if *receiver == crate::rig::node(to) => {
                Some(append)
            }
            _ => None,
        });
        appends.collect()
    };
    let bounds: Vec<_> = sent(2).iter().map(|append| (append.prev, append.entries.len())).collect();
    assert_eq!(bounds, [(at(1, 1), 2), (at(3, 1), 2), (at(5, 1), 2)]);
    assert!(sent(2).iter().zip(sent(3)).all(|(to_second, to_third)| std::sync::Arc::ptr_eq(to_second, to_third)));
    assert_eq!(sent(3).len(), 3);
    server.receive(2, append_reply(1, 2, 5));
    assert_eq!(server.progress(2), (5, 12, false, 3), "two have arrived, and two more have left");
}

#[test]
fn rule_r6_a_message_holds_no_more_than_its_limit_but_at_least_one_entry() {
    let start = Start::first_of_three().log(&[1; 10]).limits(|limits| limits.message_bytes_max = 80);
    let mut server = start.leader();
    let mut round = 1;
    let mut next = 11;
    let mut effects = server.receive(2, rejected(2, round, 10, at(0, 0), 0));
    let mut got = Vec::new();
    while next > 0 {
        next = 0;
        for effect in std::mem::take(&mut effects) {
            let Effect::Send { rpc: Rpc::Append(append), to } = effect else { continue };
            assert_eq!(to, node(2));
            assert!(append.entries.cost() <= 80, "{append:?}");
            got.extend(append.entries.iter().map(|entry| entry.index.as_u64()));
            (round, next) = (append.round.as_u64(), append.entries.last().map_or(0, |entry| entry.index.as_u64()));
        }
        if next > 0 {
            effects = server.receive(2, append_reply(2, round, next));
        }
    }
    assert_eq!(got, (1..=11).collect::<Vec<_>>());

    let mut server = Start::first_of_three().limits(|limits| limits.message_bytes_max = 1).settled_leader();
    assert_eq!(server.propose(7)[1], send(2, append(1, 2, at(1, 1), 1, entries([proposal(2, 1, 7)]))));
}
