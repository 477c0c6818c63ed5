//! Rules whose test needs more than one of the other files' subjects, and schedules that the
//! contract gives with a rule: contract E3, D1–D4, R1, V8, Q3.

use raft_core::Verdict::{Granted, LeaderAlive, Refused};
use raft_core::{Boot, Busy, CampaignId, Class, Effect, Entries, Event, Observation, Outcome, Peer, RoleKind, Rpc};

use crate::rig::{
    Start, append, append_reply, apply, at, blank, commit_notice, entries, entries_of, entry, heartbeat,
    heartbeat_reply, index, node, not_leader, peer, persist, persist_vote, pre_vote, pre_vote_reply, proposal, propose,
    read, read_ready, received, rejected, reply, request, send, store, term, term_over, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

// ---- E3: what is for whom --------------------------------------------------------------------

#[test]
fn rule_e3_members_are_named_again_only_when_they_change() {
    // A life with everything in it but a change of the configuration: `Start::server` has seen the first.
    let mut server = Start::first_of_three().settled_leader();
    let mut effects = server.batch([propose(7), read(8)]);
    effects.extend(server.receive(2, heartbeat(3, 1, 0)));
    effects.extend(server.step(Event::PeerUnreachable { node: node(2) }));
    for written in [3, 4] {
        effects.extend(server.persisted(written));
    }
    for _ in 0..5 {
        effects.extend(server.tick());
    }
    effects.extend(server.step(Event::StorageFailed));
    let named = effects.iter().filter(|effect| matches!(effect, Effect::Configured { .. })).count();
    assert_eq!(named, 0, "{effects:?}");
}

#[test]
fn rule_e3_only_what_carries_entries_is_bulk() {
    let bulk = append(1, 1, at(0, 0), 0, entries_of(1, &[1]));
    assert_eq!(bulk.class(), Class::Bulk);
    assert_eq!(append(1, 1, at(0, 0), 0, NONE).class(), Class::Bulk, "a probe keeps its place among appends");
    let urgent = [
        pre_vote(1, 1, at(0, 0)),
        pre_vote_reply(1, 1, Granted),
        vote(1, at(0, 0)),
        vote_reply(1, Granted),
        append_reply(1, 1, 1),
        rejected(1, 1, 1, at(0, 0), 0),
        heartbeat(1, 1, 0),
        heartbeat_reply(1, 1, 0, 0),
        commit_notice(1, 0),
        term_over(1),
    ];
    for rpc in urgent {
        assert_eq!(rpc.class(), Class::Urgent, "{rpc}");
    }
}

#[test]
fn rule_e3_observations_say_where_a_proposal_went_and_when_it_was_committed() {
    let mut server = Start::first_of_three().settled_leader();
    let new = entries([proposal(2, 1, 7)]);
    let sent = append(1, 2, at(1, 1), 1, new.clone());
    let accepted = Effect::Observe(Observation::Accepted { request: request(7), position: at(2, 1) });
    assert_eq!(server.observe([propose(7)]), [accepted, persist(3, new.clone()), send(2, sent.clone()), send(3, sent)]);
    server.persisted(3);
    let committed = Effect::Observe(Observation::Committed { position: at(2, 1) });
    assert_eq!(
        server.observe([received(2, append_reply(1, 2, 2))]),
        [committed, send(2, commit_notice(1, 2)), apply(new, &[(2, 7)])]
    );
}

// ---- D: schedules with a crash ---------------------------------------------------------------

#[test]
fn rule_d1_a_candidacy_that_was_not_durable_was_told_nobody() {
    let mut server = Start::first_of_three().server();
    server.tick();
    assert_eq!(server.receive(2, pre_vote_reply(1, 1, Granted)), [persist_vote(1, 1, 1, NONE)]);
    // A crash before write 1 is done: the next life knows nothing of term 1, and may vote in it.
    let mut server = Start { boot: 2, ..Start::first_of_three() }.server();
    assert_eq!(server.receive(3, vote(1, at(0, 0))), [persist_vote(1, 1, 3, NONE)]);
}

#[test]
fn rule_d1_a_vote_that_was_not_durable_was_told_nobody() {
    let mut server = Start::first_of_three().server();
    assert_eq!(server.receive(2, vote(1, at(0, 0))), [persist_vote(1, 1, 2, NONE)]);
    let mut server = Start { boot: 2, ..Start::first_of_three() }.server();
    assert_eq!(server.receive(3, vote(1, at(0, 0))), [persist_vote(1, 1, 3, NONE)]);
    assert_eq!(server.persisted(1), [send(3, vote_reply(1, Granted))], "the only answer that ever leaves in term 1");
}

#[test]
fn rule_d2_the_answer_to_a_heartbeat_heals_a_lost_acknowledgement() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.persisted(3);
    server.tick();
    // The acknowledgement of 2@1 got lost; server 2 has it, and says so in passing.
    let new = entries([proposal(2, 1, 7)]);
    assert_eq!(server.receive(2, heartbeat_reply(1, 3, 2, 2)), [send(2, commit_notice(1, 2)), apply(new, &[(2, 7)])]);
    assert_eq!(server.progress(2), (2, 3, false, 0));
}

#[test]
fn rule_d3_a_vote_that_looked_at_the_disk_only_would_lose_a_committed_entry() {
    // 1@1 is on the disks of 2 and 3, so it is committed; ours has not finished. Whoever lacks it
    // must not get our vote either, or two that lack it could elect each other.
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1])));
    server.receive(2, commit_notice(1, 1));
    assert_eq!((server.status().log.commit, server.status().log.durable), (index(1), index(0)));
    server.wait(150);
    assert_eq!(server.receive(3, pre_vote(2, 1, at(0, 0))), [send(3, pre_vote_reply(1, 1, Refused))]);
}

#[test]
fn rule_d4_an_overwrite_clips_what_is_held() {
    // The leader of term 3 is faulty: it takes back entries of its own term.
    let mut server = Start::first_of_three().log(&[1]).term(3).follower_of(2);
    server.receive(2, append(3, 2, at(1, 1), 0, entries_of(2, &[2, 2, 2])));
    assert_eq!(
        server.receive(2, append(3, 3, at(1, 1), 0, entries_of(2, &[3]))),
        [persist(2, entries_of(2, &[3]))],
        "2@3 replaces 2@2, and 3@2 and 4@2 go with it"
    );
    assert_eq!(server.persisted(1), [], "what was written first is gone");
    assert_eq!(server.persisted(2), [send(2, append_reply(3, 3, 2))]);
    assert_eq!(server.status().load.held, 0, "nothing is owed beyond the end of the log");
}

// ---- T: promises and guesses -----------------------------------------------------------------

#[test]
fn rule_t5_where_no_lease_was_ever_promised_a_restart_binds_nobody() {
    // The whole cluster has restarted: a server that waited first would keep it down for longer.
    let restarted = || Start { boot: 2, ..Start::first_of_three().log(&[1, 1]).term(1).vote(2) }.server();
    assert_eq!(restarted().receive(3, pre_vote(2, 7, at(2, 1))), [send(3, pre_vote_reply(2, 7, Granted))]);
    assert_eq!(restarted().receive(3, vote(2, at(2, 1))), [persist_vote(1, 2, 3, NONE)]);
}

#[test]
fn rule_t5_a_sole_voter_that_restarts_waits_for_nobody() {
    let start = Start { boot: 2, ..Start::new(1, &[1]).log(&[1, 1]).vote(1) };
    assert_eq!(start.server().role(), (2, RoleKind::Candidate));
}

#[test]
fn rule_t6_that_a_leader_cannot_be_reached_ends_the_wait_for_it_and_a_wrong_guess_harms_nobody() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    assert_eq!(server.step(Event::PeerUnreachable { node: node(3) }), [], "it does not lead");
    assert_eq!(server.receive(3, pre_vote(2, 7, at(0, 0))), [send(3, pre_vote_reply(1, 7, LeaderAlive))]);
    server.step(Event::PeerUnreachable { node: node(2) });
    assert_eq!(server.receive(3, pre_vote(2, 8, at(0, 0))), [send(3, pre_vote_reply(2, 8, Granted))]);
    assert_eq!(
        (server.role(), server.status().leader),
        ((1, RoleKind::Follower), Some(node(2))),
        "nothing has changed"
    );
    // A new connection, and the leader was there all the time.
    server.receive(2, heartbeat(1, 2, 0));
    assert_eq!(server.receive(3, pre_vote(2, 9, at(0, 0))), [send(3, pre_vote_reply(1, 9, LeaderAlive))]);
}

// ---- V8: names ---------------------------------------------------------------------------------

#[test]
fn rule_v8_the_rounds_of_an_earlier_life_confirm_nothing() {
    // Round 2 of term 1 was asked for a read; then the leader restarted, and leads again.
    let mut server = Start { boot: 2, ..Start::first_of_three().log(&[1]).vote(1) }.server();
    server.tick();
    let second_life = CampaignId { boot: Boot::new(2), number: 1 };
    server.receive(2, Rpc::PreVoteReply { term: term(2), campaign: second_life, verdict: Granted });
    server.persisted(1);
    server.receive(2, vote_reply(2, Granted));
    server.persisted(2);
    server.receive(3, append_reply(2, 1, 2));
    server.step(Event::Applied { index: index(2) });
    assert_eq!(server.read(7), [send(2, heartbeat(2, 2, 0)), send(3, heartbeat(2, 2, 2))]);
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 1, 1)), [], "late: the same number, of another term");
    assert_eq!(server.status().load.drops.stale, 1);
    assert_eq!(server.receive(3, heartbeat_reply(2, 2, 2, 2)), [reply(7, read_ready(2))]);
}

#[test]
fn rule_v8_a_refusal_of_another_campaign_does_not_count_either() {
    let mut server = Start::first_of_three().server();
    server.tick();
    server.tick();
    let deadline = server.raft.deadline();
    assert_eq!(server.receive(2, pre_vote_reply(0, 1, LeaderAlive)), [], "campaign 1 is over");
    assert_eq!(server.raft.deadline(), deadline, "and its answers do not hurry campaign 2");
    assert_eq!(server.receive(2, pre_vote_reply(1, 2, Granted)), [persist_vote(1, 1, 1, NONE)]);
}

#[test]
fn rule_v8_no_two_campaigns_of_one_server_have_the_same_name() {
    let mut names = Vec::new();
    for boot in 1..4 {
        let mut server = Start { boot, ..Start::first_of_three() }.server();
        for _ in 0..5 {
            let asked = server.tick().into_iter().find_map(|effect| match effect {
                Effect::Send { rpc: Rpc::PreVote { campaign, .. }, .. } => Some(campaign),
                _ => None,
            });
            names.push(asked.expect("each timeout asks again"));
        }
    }
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
}

#[test]
fn rule_v9_the_read_of_a_leader_is_not_confirmed_by_another_store() {
    let mut server = Start::first_of_three().settled_leader();
    server.read(7);
    let wiped = Peer { store: store(9), ..peer(2) };
    assert_eq!(server.step(Event::Received { from: wiped, rpc: heartbeat_reply(1, 2, 1, 1) }), []);
    let second_life = Peer { boot: Boot::new(2), ..peer(2) };
    let confirmed = server.step(Event::Received { from: second_life, rpc: heartbeat_reply(1, 2, 1, 1) });
    assert_eq!(confirmed, [reply(7, read_ready(1))], "a restart keeps the store");
    server.read(8);
    assert_eq!(server.receive(2, heartbeat_reply(1, 3, 1, 1)), [], "from the first life, which is over");
}

// ---- R1: rounds ------------------------------------------------------------------------------

#[test]
fn rule_r1_an_answer_names_the_round_of_its_question() {
    let mut server = Start::first_of_three().log(&[1]).follower_of(2);
    assert_eq!(server.receive(2, append(1, 40, at(1, 1), 0, NONE)), [send(2, append_reply(1, 40, 1))]);
    assert_eq!(server.receive(2, append(1, 41, at(5, 1), 0, NONE)), [send(2, rejected(1, 41, 5, at(1, 1), 0))]);
    assert_eq!(server.receive(2, heartbeat(1, 42, 0)), [send(2, heartbeat_reply(1, 42, 1, 1))]);
}

#[test]
fn rule_r1_a_rejection_that_does_not_fit_what_was_sent_is_ignored() {
    // While probing only `next - 1` fits; while replicating, whatever is under way.
    let mut probing = Start::first_of_three().log(&[1, 1, 1]).leader();
    let mut replicating = Start::first_of_three().settled_leader();
    (10..13).for_each(|number| drop(replicating.propose(number)));
    assert_eq!((probing.progress(2), replicating.progress(2)), ((0, 4, true, 1), (1, 5, false, 3)));
    for (prev, stale) in [(0, 1), (1, 2), (2, 3), (4, 4)] {
        assert_eq!(probing.receive(2, rejected(2, 1, prev, at(0, 0), 0)), [], "{prev}");
        assert_eq!((probing.progress(2), probing.status().load.drops.stale), ((0, 4, true, 1), stale));
    }
    for (round, prev, stale) in [(4, 0, 1), (1, 1, 2), (4, 5, 3), (4, 9, 4)] {
        assert_eq!(replicating.receive(2, rejected(1, round, prev, at(0, 0), 0)), [], "{prev}");
        assert_eq!((replicating.progress(2), replicating.status().load.drops.stale), ((1, 5, false, 3), stale));
    }
    let all = entries([entry(1, 1), entry(2, 1), entry(3, 1), blank(4, 2)]);
    assert_eq!(probing.receive(2, rejected(2, 1, 3, at(0, 0), 0)), [send(2, append(2, 2, at(0, 0), 0, all))]);
}

// ---- Q3: what moves reads on -----------------------------------------------------------------

#[test]
fn rule_q3_a_write_that_becomes_durable_moves_reads_on() {
    let mut server = Start::first_of_three().leader();
    server.receive(2, append_reply(1, 1, 1));
    assert_eq!(server.read(7), [], "nothing is committed in this term: the own disk is not done");
    assert_eq!(
        server.persisted(2),
        [send(2, heartbeat(1, 2, 1)), send(3, heartbeat(1, 2, 0)), apply(entries([blank(1, 1)]), &[]),],
        "now it is, and the read's round leaves in the same step"
    );
    server.step(Event::Applied { index: index(1) });
    assert_eq!(server.receive(2, heartbeat_reply(1, 2, 1, 1)), [reply(7, read_ready(1))]);
}

#[test]
fn rule_q3_a_read_that_is_refused_takes_no_ones_place() {
    let mut server = Start::first_of_three().limits(|limits| limits.pending_reads_max = 1).settled_leader();
    server.read(7);
    assert_eq!(server.read(8), [reply(8, Outcome::Busy(Busy::Reads))]);
    assert_eq!(server.receive(2, term_over(2)), [reply(7, not_leader(None)), persist_vote(3, 2, None, NONE)]);
}
