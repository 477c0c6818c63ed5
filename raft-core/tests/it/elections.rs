//! Who leads: contract E5, T1, T2, V1–V9.

use std::collections::VecDeque;
use std::time::Duration;

use raft_core::Verdict::{Granted, LeaderAlive, Refused};
use raft_core::{
    Boot, CampaignId, Configuration, Effect, Entries, Event, Index, Message, Observation, Peer, RoleKind, Rpc, Time,
    Timing,
};

use crate::rig::{
    Start, append, at, blank, configured, entries, heartbeat, heartbeat_reply, membership, node, peer, persist,
    persist_vote, pre_vote, pre_vote_reply, received, send, store, term, term_over, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

#[test]
fn an_election_takes_two_questions_and_one_write() {
    let mut server = Start::first_of_three().server();
    assert_eq!(server.tick(), [send(2, pre_vote(1, 1, at(0, 0))), send(3, pre_vote(1, 1, at(0, 0)))]);
    assert_eq!(server.role(), (0, RoleKind::PreCandidate));

    assert_eq!(server.receive(2, pre_vote_reply(1, 1, Granted)), [persist_vote(1, 1, 1, NONE)]);
    assert_eq!(server.role(), (1, RoleKind::Candidate));

    assert_eq!(server.persisted(1), [send(2, vote(1, at(0, 0))), send(3, vote(1, at(0, 0)))]);
    assert_eq!(
        server.receive(3, vote_reply(1, Granted)),
        [
            persist(2, entries([blank(1, 1)])),
            send(2, heartbeat(1, 1, 0)),
            send(3, heartbeat(1, 1, 0)),
            send(2, append(1, 1, at(0, 0), 0, entries([blank(1, 1)]))),
            send(3, append(1, 1, at(0, 0), 0, entries([blank(1, 1)]))),
        ]
    );
    assert_eq!(server.role(), (1, RoleKind::Leader));
}

#[test]
fn a_sole_voter_elects_itself_as_soon_as_its_vote_is_durable() {
    let mut server = Start::new(1, &[1]).server();
    assert_eq!(server.role(), (1, RoleKind::Candidate));
    assert_eq!(server.persisted(1), [persist(2, entries([blank(1, 1)]))]);
    assert_eq!(server.role(), (1, RoleKind::Leader));
    assert_eq!(server.raft.deadline(), None, "nobody to send a heartbeat to, nobody to lose");
}

#[test]
fn a_refused_candidate_steps_back_and_asks_first_again() {
    let mut server = Start::first_of_three().candidate();
    assert_eq!(server.receive(2, vote_reply(1, Refused)), []);
    assert_eq!(server.receive(3, vote_reply(1, Refused)), []);
    assert_eq!(server.role(), (1, RoleKind::Candidate), "it waits: an election that follows at once splits again");
    assert_eq!(server.tick(), [send(2, pre_vote(2, 2, at(0, 0))), send(3, pre_vote(2, 2, at(0, 0)))]);
    assert_eq!(server.role(), (1, RoleKind::PreCandidate));
}

#[test]
fn a_vote_counts_once_however_often_it_is_heard() {
    let mut server = Start::new(1, &[1, 2, 3, 4, 5]).candidate();
    assert_eq!(server.receive(2, vote_reply(1, Granted)), []);
    assert_eq!(server.receive(2, vote_reply(1, Granted)), []);
    assert_eq!(server.role(), (1, RoleKind::Candidate), "two of five have voted, one of them twice");
    server.receive(3, vote_reply(1, Granted));
    assert_eq!(server.role(), (1, RoleKind::Leader));
}

#[test]
fn a_server_votes_once_a_term_also_after_a_restart() {
    let mut server = Start::first_of_three().term(4).vote(2).server();
    assert_eq!(server.receive(3, vote(4, at(9, 3))), [send(3, vote_reply(4, Refused))]);
    // The one it voted for may have missed the answer.
    assert_eq!(server.receive(2, vote(4, at(0, 0))), [send(2, vote_reply(4, Granted))]);
}

#[test]
fn a_follower_gives_no_vote_in_the_term_of_its_leader() {
    let mut server = Start::first_of_three().term(4).follower_of(2);
    assert_eq!(server.receive(3, vote(4, at(9, 3))), [send(3, vote_reply(4, Refused))]);
}

#[test]
fn a_candidate_that_hears_from_the_leader_of_its_term_follows() {
    let mut server = Start::first_of_three().candidate();
    assert_eq!(server.receive(3, heartbeat(1, 5, 0)), [send(3, heartbeat_reply(1, 5, 0, 0))]);
    assert_eq!(server.role(), (1, RoleKind::Follower));
    assert_eq!(server.status().leader, Some(node(3)));
}

#[test]
fn a_second_leader_in_one_term_is_not_believed() {
    let mut follower = Start::first_of_three().term(4).follower_of(2);
    assert_eq!(follower.receive(3, heartbeat(4, 9, 0)), []);
    assert_eq!(follower.status().leader, Some(node(2)));
    let mut leader = Start::first_of_three().leader();
    assert_eq!(leader.receive(3, heartbeat(1, 9, 0)), []);
    assert_eq!(leader.role(), (1, RoleKind::Leader));
    assert_eq!((follower.status().load.drops.malformed, leader.status().load.drops.malformed), (1, 1));
}

// ---- events and time -----------------------------------------------------------------------

#[test]
fn rule_e5_the_first_step_says_what_is_due_and_new_says_nothing() {
    let mut raft = Start::first_of_three().raft();
    assert_eq!(raft.deadline(), Some(Time::ZERO), "the first step is due at once");
    let effects = raft.step(Message { at: Time::from_nanos(5), event: Event::Tick });
    let configuration = Configuration { index: Index::ZERO, membership: membership(&[1, 2, 3]).into() };
    let observed = Effect::Observe(Observation::Configured(configuration));
    assert_eq!(effects, [observed, configured(0, membership(&[1, 2, 3]))]);
    let effects = raft.step(Message { at: Time::from_nanos(6), event: Event::Tick });
    assert_eq!(effects, [], "and only once");
}

#[test]
fn rule_e5_the_first_step_of_a_sole_voter_starts_its_campaign() {
    let mut raft = Start::new(1, &[1]).raft();
    let effects = raft.step(Message { at: Time::from_nanos(5), event: Event::Tick });
    let silent: Vec<_> = effects.into_iter().filter(|effect| !matches!(effect, Effect::Observe(_))).collect();
    assert_eq!(silent, [configured(0, membership(&[1])), persist_vote(1, 1, 1, NONE)]);
}

#[test]
fn rule_t1_a_clock_that_runs_backwards_stands_still() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    let (now, deadline) = (server.now, server.raft.deadline());
    server.now = Time::from_nanos(now.as_nanos() / 2);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.receive(2, heartbeat(1, 2, 0)), [send(2, heartbeat_reply(1, 2, 0, 0))]);
    assert_eq!(server.raft.deadline(), deadline, "measured from the newest moment known, not from the past");
}

#[test]
fn rule_t1_the_newest_moment_of_a_batch_counts() {
    let mut server = Start::first_of_three().server();
    let deadline = server.raft.deadline().expect("a follower waits for its leader");
    let (late, early) = (Message { at: deadline, event: Event::Tick }, server.now);
    server.raft.step_batch([late, Message { at: early, event: Event::Tick }]);
    assert_eq!(server.role(), (0, RoleKind::PreCandidate));
}

#[test]
fn rule_t2_a_heartbeat_in_the_queue_beats_the_timer() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.wait(10_000);
    let effects = server.batch([Event::Tick, received(2, heartbeat(1, 2, 0))]);
    assert_eq!(effects, [send(2, heartbeat_reply(1, 2, 0, 0))], "no campaign after a pause");
    assert_eq!(server.role(), (1, RoleKind::Follower));
}

#[test]
fn rule_t2_an_acknowledgement_in_the_queue_keeps_the_leader() {
    let mut server = Start::first_of_three().settled_leader();
    server.tick();
    server.wait(10_000);
    server.batch([Event::Tick, received(2, heartbeat_reply(1, 2, 1, 1))]);
    assert_eq!(
        server.role().1,
        RoleKind::Follower,
        "an answer to what was sent ten seconds ago says nothing about now"
    );
}

#[test]
fn rule_t2_the_deadline_lies_ahead_after_every_wake_up() {
    // `Lone::observe` asserts it; here every role gets a chance.
    for mut server in [
        Start::first_of_three().server(),
        Start::first_of_three().candidate(),
        Start::first_of_three().leader(),
        Start::new(1, &[1]).server(),
    ] {
        for _ in 0..50 {
            if server.raft.deadline().is_some() {
                server.tick();
            }
        }
    }
}

// ---- pre-vote, check-quorum, stickiness ----------------------------------------------------

#[test]
fn rule_v1_who_has_heard_from_a_leader_lately_helps_nobody_else() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.wait(149);
    assert_eq!(server.receive(3, pre_vote(2, 7, at(9, 1))), [send(3, pre_vote_reply(1, 7, LeaderAlive))]);
    assert_eq!(server.receive(3, vote(2, at(9, 1))), [], "not even by its term");
    assert_eq!(server.role(), (1, RoleKind::Follower));
}

#[test]
fn rule_v1_stickiness_is_time_since_contact_not_a_known_leader() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.wait(150);
    assert_eq!(server.status().leader, Some(node(2)), "it still knows the leader, and has not timed out itself");
    assert_eq!(server.receive(3, pre_vote(2, 7, at(9, 1))), [send(3, pre_vote_reply(2, 7, Granted))]);
}

#[test]
fn rule_v1_a_term_adopted_by_other_means_does_not_end_stickiness() {
    // A refusal that told the new term has overtaken the request for a vote in it.
    let mut server = Start::first_of_three().term(1).follower_of(2);
    assert_eq!(server.receive(3, term_over(2)), [persist_vote(1, 2, None, NONE)]);
    assert_eq!(server.receive(3, vote(2, at(9, 1))), [send(3, vote_reply(2, Refused))]);
    server.wait(150);
    server.persisted(1);
    assert_eq!(server.receive(3, vote(2, at(9, 1))), [persist_vote(2, 2, 3, NONE)]);
    assert_eq!(server.persisted(2), [send(3, vote_reply(2, Granted))]);
}

#[test]
fn rule_v1_a_leader_is_sticky_as_long_as_a_majority_answers() {
    let mut server = Start::first_of_three().settled_leader();
    server.tick();
    server.tick();
    server.wait(49);
    assert_eq!(server.receive(3, vote(2, at(9, 1))), [], "149 ms after the last question that was answered");
    assert_eq!(server.role(), (1, RoleKind::Leader));
    server.wait(1);
    assert_eq!(
        server.receive(3, vote(2, at(9, 1))),
        [persist_vote(3, 2, 3, NONE)],
        "nobody has answered for an election timeout: it votes"
    );
    assert_eq!(server.role(), (2, RoleKind::Follower));
}

#[test]
fn rule_v1_granting_a_pre_vote_resets_nothing() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.wait(150);
    let before = (server.status(), server.raft.deadline());
    assert_eq!(server.receive(3, pre_vote(2, 7, at(9, 1))), [send(3, pre_vote_reply(2, 7, Granted))]);
    assert_eq!((server.status(), server.raft.deadline()), before);
}

#[test]
fn rule_v1_a_leader_without_a_majority_steps_down() {
    let mut server = Start::first_of_three().settled_leader();
    let sent = server.now;
    for _ in 0..5 {
        server.tick();
        assert_eq!(server.role(), (1, RoleKind::Leader));
    }
    while server.role().1 == RoleKind::Leader {
        server.tick();
    }
    assert_eq!(server.now.since(sent), Duration::from_millis(300), "the longest election timeout");
    assert_eq!(server.role(), (1, RoleKind::Follower));
    assert_eq!(server.status().leader, None);
}

#[test]
fn rule_v1_an_answer_counts_from_when_the_question_was_sent() {
    let mut server = Start::first_of_three().settled_leader();
    server.tick();
    let asked = server.now;
    server.wait(200);
    // The answer to the heartbeat of round 2 was under way for 200 ms.
    server.receive(2, heartbeat_reply(1, 2, 1, 1));
    while server.role().1 == RoleKind::Leader {
        server.tick();
    }
    assert_eq!(server.now.since(asked), Duration::from_millis(300));
}

#[test]
fn regress_t020_a_pre_candidate_does_not_cling_to_the_leader_it_lost() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.tick();
    assert_eq!(server.role(), (1, RoleKind::PreCandidate));
    assert_eq!(server.receive(3, pre_vote(2, 7, at(0, 0))), [send(3, pre_vote_reply(2, 7, Granted))]);
}

/// Send times have to be remembered for as long as the answers take: 500 ms there and back are
/// nothing unusual between continents.
#[test]
fn regress_a_leader_whose_answers_take_long_stays_leader() {
    let timing = Timing {
        heartbeat_interval: Duration::from_millis(50),
        election_timeout_min: Duration::from_secs(2),
        election_timeout_max: Duration::from_secs(4),
        stall_limit: Duration::from_secs(4),
    };
    let mut server = Start::first_of_three().timing(timing).settled_leader();
    let mut under_way = VecDeque::new();
    for number in 0..1_500 {
        server.wait(10);
        let effects = server.propose(100 + number);
        // The disk and both peers keep up, half a second late.
        let rounds = effects.iter().filter_map(|effect| match effect {
            Effect::Send { rpc: Rpc::Heartbeat { round, .. }, .. } => Some(*round),
            _ => None,
        });
        under_way.extend(rounds.map(|round| (server.now.after(Duration::from_millis(500)), round)));
        while let Some((_, round)) = under_way.front().copied().filter(|(due, _)| *due <= server.now) {
            under_way.pop_front();
            for peer in [2, 3] {
                server.receive(peer, heartbeat_reply(1, round.as_u64(), 1, 1));
            }
        }
        assert_eq!(server.status().role, RoleKind::Leader, "after {} s", number / 100);
    }
}

#[test]
fn regress_t025_a_leader_that_lost_its_majority_may_ask_for_votes_like_any_other() {
    let mut former = Start::first_of_three().settled_leader();
    while former.role().1 == RoleKind::Leader {
        former.tick();
    }
    let question = pre_vote(2, 2, at(1, 1));
    assert_eq!(former.tick(), [send(2, question.clone()), send(3, question.clone())]);
    let mut other = Start::new(2, &[1, 2, 3]).log(&[1]).follower_of(1);
    other.wait(150);
    assert_eq!(other.receive(1, question), [send(1, pre_vote_reply(2, 2, Granted))]);
}

#[test]
fn regress_t026_timeouts_of_servers_that_start_together_differ() {
    let patience: Vec<_> = (1..=5).map(|me| Start::new(me, &[1, 2, 3, 4, 5]).server().patience()).collect();
    for (nth, own) in patience.iter().enumerate() {
        assert!((Duration::from_millis(150)..=Duration::from_millis(300)).contains(own));
        assert!(!patience[..nth].contains(own), "{patience:?}");
    }
}

// ---- votes and logs -------------------------------------------------------------------------

#[test]
fn regress_t023_late_pre_votes_start_nothing_and_are_no_votes() {
    let mut candidate = Start::new(1, &[1, 2, 3, 4, 5]).candidate();
    for late in [2, 3, 4, 5] {
        assert_eq!(candidate.receive(late, pre_vote_reply(1, 1, Granted)), []);
    }
    assert_eq!(candidate.role(), (1, RoleKind::Candidate), "pre-votes are not counted as votes");

    let mut leader = Start::first_of_three().settled_leader();
    assert_eq!(leader.receive(3, pre_vote_reply(1, 1, Granted)), []);
    assert_eq!(leader.role(), (1, RoleKind::Leader));

    let mut follower = Start::first_of_three().term(1).follower_of(2);
    assert_eq!(follower.receive(3, pre_vote_reply(2, 1, Granted)), []);
    assert_eq!(follower.role(), (1, RoleKind::Follower));
}

#[test]
fn regress_t023_an_answer_to_the_campaign_before_does_not_count() {
    let mut server = Start::first_of_three().server();
    server.tick();
    server.tick();
    assert_eq!(server.receive(2, pre_vote_reply(1, 1, Granted)), [], "campaign 2 is the one under way");
    assert_eq!(server.role(), (0, RoleKind::PreCandidate));
    assert_eq!(server.receive(2, pre_vote_reply(1, 2, Granted)), [persist_vote(1, 1, 1, NONE)]);
}

#[test]
fn regress_t027_a_sole_voter_that_leads_is_not_elected_again() {
    let mut server = Start::new(1, &[1]).server();
    server.persisted(1);
    for _ in 0..10 {
        server.wait(1_000);
        assert_eq!(server.step(Event::Tick), []);
    }
    assert_eq!(server.role(), (1, RoleKind::Leader));
}

#[test]
fn regress_t027_votes_that_come_after_the_majority_change_nothing() {
    let mut server = Start::first_of_three().leader();
    assert_eq!(server.receive(3, vote_reply(1, Granted)), []);
    assert_eq!(server.role(), (1, RoleKind::Leader));
}

#[test]
fn regress_t032_logs_are_compared_by_term_before_index() {
    let last_terms = [1, 1, 3];
    for (candidate, granted) in
        [(at(9, 2), false), (at(2, 3), false), (at(3, 3), true), (at(4, 3), true), (at(1, 4), true)]
    {
        let mut server = Start::first_of_three().log(&last_terms).term(4).server();
        let verdict = if granted { Granted } else { Refused };
        let term = if granted { 5 } else { 4 };
        let effects = server.receive(2, pre_vote(5, 1, candidate));
        assert_eq!(effects, [send(2, pre_vote_reply(term, 1, verdict))], "{candidate}");

        let effects = server.receive(2, vote(5, candidate));
        let expected = if granted {
            vec![persist_vote(1, 5, 2, NONE)]
        } else {
            vec![send(2, vote_reply(5, Refused)), persist_vote(1, 5, None, NONE)]
        };
        assert_eq!(effects, expected, "{candidate}");
    }
}

#[test]
fn regress_t033_a_restarted_server_waits_a_whole_timeout() {
    let mut server = Start::first_of_three().log(&[1, 1, 2]).term(3).vote(1).server();
    assert!(server.patience() >= Duration::from_millis(150), "{:?}", server.patience());
    server.wait(149);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.role(), (3, RoleKind::Follower));
}

// ---- who may vote, and for whom ------------------------------------------------------------

#[test]
fn rule_v3_the_gate_refuses_nobody_for_being_unknown() {
    let stranger = Peer { node: node(9), store: store(9), boot: Boot::new(1) };
    let mut server = Start::first_of_three().server();
    let effects = server.step(Event::Received { from: stranger, rpc: vote(3, at(0, 0)) });
    assert_eq!(effects, [persist_vote(1, 3, 9, NONE)], "a vote for a member of a configuration yet to be heard of");
    let effects = server.step(Event::Received { from: stranger, rpc: heartbeat(4, 1, 0) });
    assert_eq!(effects, [send(9, heartbeat_reply(4, 1, 0, 0)), persist_vote(2, 4, None, NONE)]);
}

#[test]
fn rule_v3_a_server_that_belongs_to_nothing_votes_and_never_campaigns() {
    let mut server = Start::new(1, &[]).server();
    assert_eq!(server.raft.deadline(), None, "it waits for nothing");
    assert_eq!(server.receive(2, vote(3, at(0, 0))), [persist_vote(1, 3, 2, NONE)]);
    assert_eq!(server.persisted(1), [send(2, vote_reply(3, Granted))]);
    server.wait(10_000);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.role(), (3, RoleKind::Follower));
}

#[test]
fn rule_v4_a_server_that_is_no_voter_never_campaigns() {
    let mut server = Start::new(4, &[1, 2, 3]).server();
    server.wait(10_000);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.role(), (0, RoleKind::Follower));
}

#[test]
fn rule_v6_a_pre_vote_refused_for_stickiness_is_asked_again_after_a_heartbeat() {
    let mut server = Start::first_of_three().term(1).follower_of(3);
    server.tick();
    assert!(server.patience() >= Duration::from_millis(150));
    assert_eq!(server.receive(2, pre_vote_reply(1, 1, LeaderAlive)), []);
    let patience = server.patience();
    assert!((Duration::from_millis(50)..=Duration::from_millis(75)).contains(&patience), "{patience:?}");
    assert_eq!(server.tick(), [send(2, pre_vote(2, 2, at(0, 0))), send(3, pre_vote(2, 2, at(0, 0)))]);
}

#[test]
fn rule_v6_a_pre_vote_refused_for_the_log_waits_a_whole_timeout() {
    let mut server = Start::first_of_three().server();
    server.tick();
    let before = server.raft.deadline();
    assert_eq!(server.receive(2, pre_vote_reply(0, 1, Refused)), []);
    assert_eq!(server.raft.deadline(), before);
}

#[test]
fn rule_v8_an_answer_to_an_earlier_life_does_not_count() {
    let mut server = Start { boot: 2, ..Start::first_of_three() }.server();
    server.tick();
    let late = CampaignId { boot: Boot::new(1), number: 1 };
    assert_eq!(server.receive(2, Rpc::PreVoteReply { term: term(1), campaign: late, verdict: Granted }), []);
    assert_eq!(server.role(), (0, RoleKind::PreCandidate));
    let own = CampaignId { boot: Boot::new(2), number: 1 };
    let effects = server.receive(2, Rpc::PreVoteReply { term: term(1), campaign: own, verdict: Granted });
    assert_eq!(effects, [persist_vote(1, 1, 1, NONE)]);
}

#[test]
fn rule_v8_each_life_draws_its_own_timeouts() {
    let patience = |boot| Start { boot, ..Start::first_of_three() }.server().patience();
    assert_eq!(patience(1), patience(1), "the same inputs give the same effects");
    assert_ne!(patience(1), patience(2));
}

#[test]
fn rule_v9_a_vote_from_another_store_does_not_count() {
    let mut server = Start::first_of_three().candidate();
    let wiped = Peer { store: store(9), ..peer(2) };
    assert_eq!(server.step(Event::Received { from: wiped, rpc: vote_reply(1, Granted) }), []);
    assert_eq!(server.role(), (1, RoleKind::Candidate));
    let stranger = Peer { node: node(9), ..peer(2) };
    assert_eq!(server.step(Event::Received { from: stranger, rpc: vote_reply(1, Granted) }), []);
    assert_eq!(server.role(), (1, RoleKind::Candidate));
}

#[test]
fn rule_v9_an_earlier_life_is_refused_once_a_later_one_is_known() {
    let mut server = Start::first_of_three().candidate();
    let second = Peer { boot: Boot::new(2), ..peer(2) };
    server.step(Event::Received { from: second, rpc: vote_reply(1, Refused) });
    let mut server = Start::first_of_three().server();
    server.step(Event::Received { from: second, rpc: pre_vote(1, 1, at(0, 0)) });
    assert_eq!(server.receive(2, vote(1, at(0, 0))), [], "the first life is over");
    assert_eq!(server.status().load.drops.foreign, 1);
    assert_eq!(
        server.step(Event::Received { from: second, rpc: vote(1, at(0, 0)) }),
        [persist_vote(1, 1, 2, NONE)],
        "the second is not"
    );
}

#[test]
fn an_unreachable_leader_need_not_be_waited_for() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    let deadline = server.raft.deadline();
    assert_eq!(server.step(Event::PeerUnreachable { node: node(3) }), []);
    assert_eq!(server.receive(3, pre_vote(2, 7, at(9, 1))), [send(3, pre_vote_reply(1, 7, LeaderAlive))]);
    assert_eq!(server.step(Event::PeerUnreachable { node: node(2) }), []);
    assert_eq!(server.receive(3, pre_vote(2, 8, at(9, 1))), [send(3, pre_vote_reply(2, 8, Granted))]);
    assert_eq!(server.raft.deadline(), deadline, "T6: only the help for others is free, the own timer goes on");
}
