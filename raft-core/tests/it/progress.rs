//! What a leader believes of a peer, and what it sends: contract R2, R6; traps T42–T57.

use std::collections::VecDeque;
use std::time::Duration;

use raft_core::Verdict::Granted;
use raft_core::{Effect, Entries, Event, Rpc};

use crate::rig::{
    Start, append, append_reply, at, blank, entries, heartbeat, heartbeat_reply, index, node, proposal, rejected, send,
    vote_reply,
};

const NONE: Entries = Entries::EMPTY;

#[test]
fn a_probe_that_is_acknowledged_opens_the_window() {
    let mut server = Start::first_of_three().leader();
    assert_eq!(server.progress(2), (0, 1, true, 1));
    assert_eq!(server.propose(7).len(), 1, "only the write: one probe at a time");
    server.receive(2, append_reply(1, 1, 1));
    assert_eq!(server.progress(2), (1, 3, false, 1), "and what waited has left");
    server.propose(8);
    server.propose(9);
    assert_eq!(server.progress(2), (1, 5, false, 3));
    assert_eq!(server.progress(3), (0, 1, true, 1));
}

#[test]
fn the_window_is_bounded_by_count_and_by_bytes() {
    let mut server = Start::first_of_three().limits(|limits| limits.inflight_messages_max = 2).settled_leader();
    for number in 10..15 {
        server.propose(number);
    }
    assert_eq!(server.progress(2), (1, 4, false, 2));
    let effects = server.receive(2, append_reply(1, 2, 2));
    let rest = entries([proposal(4, 1, 12), proposal(5, 1, 13), proposal(6, 1, 14)]);
    assert_eq!(effects, [send(2, append(1, 4, at(3, 1), 1, rest))], "one append for all that waited");

    let mut server = Start::first_of_three().limits(|limits| limits.inflight_bytes_max = 60).settled_leader();
    for number in 10..15 {
        server.propose(number);
    }
    assert_eq!(server.progress(2), (1, 4, false, 2), "42 bytes each: the limit lets the one pass that reaches it");
}

#[test]
fn rule_r2_the_leader_continues_after_its_last_run_that_the_follower_may_share() {
    let mut server = Start::first_of_three().log(&[1, 1, 1, 4, 4, 5]).leader();
    // The follower ends in a long run of term 2: nothing above 3@1 can be shared.
    let effects = server.receive(2, rejected(6, 1, 6, at(6, 2), 0));
    assert!(
        matches!(effects.as_slice(), [Effect::Send { rpc: Rpc::Append(append), .. }] if append.prev == at(3, 1)),
        "{effects:?}"
    );
    // What the follower has committed is shared, whatever the hint says.
    let mut server = Start::first_of_three().log(&[1, 1, 1, 4, 4, 5]).leader();
    let effects = server.receive(2, rejected(6, 1, 6, at(1, 1), 2));
    assert!(
        matches!(effects.as_slice(), [Effect::Send { rpc: Rpc::Append(append), .. }] if append.prev == at(2, 1)),
        "{effects:?}"
    );
}

/// Lets a leader with one log bring a follower with another into line; how often it is refused.
fn refusals(leader_terms: &[u64], follower_terms: &[u64]) -> usize {
    let mut leader = Start::first_of_three().log(leader_terms).candidate();
    let mut follower = Start::new(2, &[1, 2, 3]).log(follower_terms).server();
    let to = |id: u64, effects: Vec<Effect>| -> Vec<Rpc> {
        let rpcs = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send { to, rpc } if to == node(id) => Some(rpc),
            _ => None,
        });
        rpcs.collect()
    };
    let in_term = leader.role().0;
    // Several appends may be under way; they arrive in the order in which they were sent.
    let mut questions: VecDeque<Rpc> = to(2, leader.receive(3, vote_reply(in_term, Granted))).into();
    let mut refused = 0;
    while let Some(question) = questions.pop_front() {
        let mut effects = follower.receive(1, question);
        let written = follower.status().load.written;
        effects.extend(follower.step(Event::Persisted { seq: written }));
        for answer in to(1, effects) {
            refused += usize::from(matches!(answer, Rpc::AppendRejected(_)));
            assert!(refused <= 1_000, "no end in sight");
            questions.extend(to(2, leader.receive(2, answer)));
        }
    }
    assert_eq!(follower.status().log.last, leader.status().log.last);
    refused
}

#[test]
fn rule_r2_divergent_logs_meet_after_one_refusal_for_each_pair_of_runs() {
    // Figure 7, the leader of term 8 on top, and the six followers.
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    assert_eq!(refusals(&leader, &[1, 1, 1, 4, 4, 5, 5, 6, 6]), 1, "(a) short by one");
    assert_eq!(refusals(&leader, &[1, 1, 1, 4]), 1, "(b) short by six");
    assert_eq!(refusals(&leader, &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]), 0, "(c) one too many");
    assert_eq!(refusals(&leader, &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6, 6]), 0, "(d) two too many");
    assert_eq!(refusals(&leader, &[1, 1, 1, 4, 4, 4, 4]), 1, "(e)");
    assert_eq!(refusals(&leader, &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]), 1, "(f)");
}

#[test]
fn rule_r2_one_refusal_is_enough_where_the_follower_lacks_or_adds_only_whole_runs() {
    assert_eq!(refusals(&[1; 1_000], &[]), 1);
    assert_eq!(refusals(&[[1; 500].as_slice(), &[3; 500]].concat(), &[[1; 500].as_slice(), &[2; 400]].concat()), 1);
    assert_eq!(refusals(&[[1; 500].as_slice(), &[3; 500]].concat(), &[1; 300]), 1);
}

#[test]
fn regress_t053_a_hundred_thousand_divergent_entries_take_as_many_refusals_as_terms() {
    // Both logs share 1,000 entries; then the leader has the odd terms and the follower the even ones.
    let terms = |first: u64| -> Vec<u64> {
        let runs = (0..50).flat_map(|run| std::iter::repeat_n(first + 2 * run, 2_000));
        std::iter::repeat_n(1, 1_000).chain(runs).collect()
    };
    let refused = refusals(&terms(3), &terms(2));
    assert!(refused <= 51, "{refused} refusals for 50 runs each");
}

#[test]
fn regress_t044_a_late_refusal_does_not_pull_a_peer_below_its_match() {
    let mut server = Start::first_of_three().log(&[1, 1]).leader();
    server.receive(2, append_reply(2, 1, 3));
    server.step(Event::PeerUnreachable { node: node(2) });
    let before = server.progress(2);
    assert_eq!(before, (3, 4, true, 0));
    assert_eq!(server.receive(2, rejected(2, 1, 2, at(0, 0), 0)), []);
    assert_eq!(server.receive(2, rejected(2, 1, 3, at(0, 0), 0)), []);
    assert_eq!(server.progress(2), before);
    assert_eq!(server.status().load.drops.stale, 2);
}

#[test]
fn regress_t044_a_refusal_of_an_earlier_probe_is_not_news() {
    let mut server = Start::first_of_three().log(&[1, 2, 3, 4, 5]).leader();
    server.receive(2, rejected(6, 1, 5, at(3, 3), 0));
    let before = server.progress(2);
    assert_eq!(before, (0, 4, true, 1));
    assert_eq!(server.receive(2, rejected(6, 1, 5, at(3, 3), 0)), [], "the same again");
    assert_eq!(server.progress(2), before);
}

#[test]
fn regress_t042_a_full_window_that_was_lost_is_sent_again() {
    let mut server = Start::first_of_three().limits(|limits| limits.inflight_messages_max = 2).settled_leader();
    for number in 10..14 {
        server.propose(number);
    }
    assert_eq!(server.progress(2), (1, 4, false, 2));
    // Both appends are lost; heartbeats come back and say so.
    server.wait(149);
    server.step(Event::Tick);
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 1, 1)), [], "they may still be under way");
    server.wait(1);
    let effects = server.receive(2, heartbeat_reply(1, 2, 1, 1));
    let all = [proposal(2, 1, 10), proposal(3, 1, 11), proposal(4, 1, 12), proposal(5, 1, 13)];
    assert!(
        matches!(effects.as_slice(), [Effect::Send { rpc: Rpc::Append(append), .. }]
            if append.prev == at(1, 1) && append.entries == entries(all)),
        "{effects:?}"
    );
}

/// 8 MiB take longer than the patience on a slow link. As long as more and more of it arrives,
/// nothing is lost, and sending it again would only make it take longer.
#[test]
fn regress_what_a_slow_link_still_carries_is_not_sent_again() {
    let mut server = Start::first_of_three().settled_leader();
    for number in 10..14 {
        server.propose(number);
    }
    // The disk there is as slow as the link. A heartbeat is answered at once.
    let mut answer = |millis, arrived| {
        server.wait(millis);
        let beats = server.step(Event::Tick);
        let Some(Effect::Send { rpc: Rpc::Heartbeat { round, .. }, .. }) = beats.first() else { panic!("{beats:?}") };
        server.receive(2, heartbeat_reply(1, round.as_u64(), arrived, arrived))
    };
    for arrived in 2..5 {
        assert_eq!(answer(140, arrived), [], "{arrived} has arrived");
    }
    // Nothing more comes for a while: now it is lost.
    let effects = answer(150, 4);
    assert!(
        matches!(effects.as_slice(), [Effect::Send { rpc: Rpc::Append(append), .. }] if append.prev.index == index(4)),
        "{effects:?}"
    );
}

#[test]
fn regress_t048_a_heartbeat_that_comes_back_resumes_a_probe_that_was_lost() {
    let mut server = Start::first_of_three().leader();
    // The first probe is lost.
    server.tick();
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 0, 0)), [], "it may still be under way");
    server.wait(100);
    server.step(Event::Tick);
    let effects = server.receive(2, heartbeat_reply(1, 3, 0, 0));
    assert_eq!(effects, [send(2, append(1, 4, at(0, 0), 0, entries([blank(1, 1)])))]);
}

#[test]
fn regress_t049_an_unreachable_peer_is_probed_again_once_it_answers() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.propose(8);
    assert_eq!(server.progress(2), (1, 4, false, 2));
    assert_eq!(server.step(Event::PeerUnreachable { node: node(2) }), [], "an append would only be lost again");
    assert_eq!(server.progress(2), (1, 2, true, 0));
    assert_eq!(server.propose(9).len(), 2, "a write, and an append for 3 only");
    server.tick();
    let effects = server.receive(2, heartbeat_reply(1, 5, 1, 1));
    let all = entries([proposal(2, 1, 7), proposal(3, 1, 8), proposal(4, 1, 9)]);
    assert_eq!(effects, [send(2, append(1, 6, at(1, 1), 1, all))]);
    server.receive(2, append_reply(1, 6, 4));
    assert_eq!(server.progress(2), (4, 5, false, 0), "T50: and all is as if nothing had been");
}

#[test]
fn regress_t055_late_and_repeated_acknowledgements_change_nothing() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.propose(8);
    server.receive(2, append_reply(1, 3, 3));
    let before = server.progress(2);
    assert_eq!(before, (3, 4, false, 0));
    assert_eq!(server.receive(2, append_reply(1, 2, 2)), []);
    assert_eq!(server.receive(2, append_reply(1, 3, 3)), []);
    assert_eq!(server.progress(2), before);
}

#[test]
fn regress_t057_a_peer_that_missed_the_commit_index_learns_it_without_a_new_write() {
    let mut server = Start::first_of_three().settled_leader();
    // The notice was lost; the next heartbeat tells it again.
    assert_eq!(server.tick(), [send(2, heartbeat(1, 2, 1)), send(3, heartbeat(1, 2, 1))]);
}

#[test]
fn regress_t057_a_restarted_peer_is_reminded_of_what_it_holds() {
    let mut server = Start::first_of_three().settled_leader();
    server.tick();
    // It has everything on disk, and has verified nothing in this life: it will not believe any commit index.
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 0, 0)), [send(2, append(1, 3, at(1, 1), 1, NONE))]);
    server.receive(2, append_reply(1, 3, 1));
    assert_eq!(server.progress(2), (1, 2, false, 0));
    assert_eq!(server.tick(), [send(2, heartbeat(1, 4, 1)), send(3, heartbeat(1, 4, 1))]);
}

#[test]
fn regress_t052_a_peer_that_never_answers_costs_one_append() {
    let mut server = Start::first_of_three().leader();
    let mut to_silent = 0;
    server.persisted(2);
    for number in 10..110 {
        let mut effects = server.propose(number);
        effects.extend(server.persisted(number - 7));
        effects.extend(server.receive(2, append_reply(1, 1, number - 9)));
        to_silent += effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Send { to, rpc: Rpc::Append(_) } if *to == node(3)))
            .count();
    }
    assert_eq!(to_silent, 0, "the probe of the first moment is still under way");
    assert!(server.status().log.commit >= index(100), "the others go on");
}

#[test]
fn a_heartbeat_interval_passes_between_heartbeats() {
    let mut server = Start::first_of_three().settled_leader();
    assert_eq!(server.patience(), Duration::from_millis(50));
    server.tick();
    assert_eq!(server.patience(), Duration::from_millis(50));
}
