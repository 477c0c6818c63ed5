//! What waits for the disk, and what does not: contract D1–D8.

use raft_core::Verdict::{Granted, LeaderAlive, Refused};
use raft_core::{Busy, Entries, Event, Outcome, RoleKind, Rpc, Storage};

use crate::rig::{
    Start, append, append_reply, apply, at, blank, commit_notice, entries, entries_of, heartbeat, heartbeat_reply,
    index, not_leader, persist, persist_vote, pre_vote, pre_vote_reply, proposal, propose, received, rejected, reply,
    send, term, term_over, unknown, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

// ---- D1: what promises something is held ---------------------------------------------------

#[test]
fn rule_d1_a_vote_request_leaves_when_the_own_vote_is_durable() {
    let mut server = Start::first_of_three().server();
    server.tick();
    assert_eq!(server.receive(2, pre_vote_reply(1, 1, Granted)), [persist_vote(1, 1, 1, NONE)]);
    assert_eq!(server.status().load.held, 2);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.persisted(1), [send(2, vote(1, at(0, 0))), send(3, vote(1, at(0, 0)))]);
    assert_eq!(server.status().load.held, 0);
}

#[test]
fn rule_d1_the_own_vote_counts_only_when_it_is_durable() {
    let mut server = Start::first_of_three().server();
    server.tick();
    server.receive(2, pre_vote_reply(1, 1, Granted));
    assert_eq!(server.receive(2, vote_reply(1, Granted)), [], "two of three, but one of them may still be forgotten");
    assert_eq!(server.role(), (1, RoleKind::Candidate));
    server.persisted(1);
    assert_eq!(server.role(), (1, RoleKind::Leader));
}

#[test]
fn rule_d1_nobody_leads_before_the_own_vote_is_durable_even_with_enough_others() {
    let mut server = Start::first_of_three().server();
    server.tick();
    server.receive(2, pre_vote_reply(1, 1, Granted));
    server.receive(2, vote_reply(1, Granted));
    assert_eq!(server.receive(3, vote_reply(1, Granted)), []);
    assert_eq!(server.role(), (1, RoleKind::Candidate));
}

#[test]
fn rule_d1_a_granted_vote_leaves_when_it_is_durable() {
    let mut server = Start::first_of_three().server();
    assert_eq!(server.receive(2, vote(1, at(0, 0))), [persist_vote(1, 1, 2, NONE)]);
    assert_eq!(server.persisted(1), [send(2, vote_reply(1, Granted))]);
}

#[test]
fn rule_d1_a_repeated_grant_waits_for_the_write_of_the_first() {
    let mut server = Start::first_of_three().server();
    server.receive(2, vote(1, at(0, 0)));
    assert_eq!(server.receive(2, vote(1, at(0, 0))), [], "nothing new to write, and still a promise");
    let answers = server.persisted(1);
    assert!(!answers.is_empty() && answers.iter().all(|answer| *answer == send(2, vote_reply(1, Granted))));
    assert_eq!(server.receive(2, vote(1, at(0, 0))), [send(2, vote_reply(1, Granted))], "nothing is in flight now");
}

#[test]
fn rule_d1_an_acknowledgement_leaves_when_its_entries_are_durable() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    let new = entries_of(1, &[1, 1]);
    assert_eq!(server.receive(2, append(1, 2, at(0, 0), 0, new.clone())), [persist(1, new)]);
    assert_eq!(server.persisted(1), [send(2, append_reply(1, 2, 2))]);
}

#[test]
fn rule_d1_the_acknowledgement_of_an_empty_or_duplicate_append_waits_too() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    let new = entries_of(1, &[1, 1]);
    server.receive(2, append(1, 2, at(0, 0), 0, new.clone()));
    assert_eq!(server.receive(2, append(1, 3, at(0, 0), 0, new)), [], "a duplicate of what is being written");
    assert_eq!(server.receive(2, append(1, 4, at(2, 1), 0, NONE)), [], "a probe at its end");
    assert_eq!(server.persisted(1), [send(2, append_reply(1, 4, 2))]);
}

#[test]
fn rule_d1_the_acknowledgement_of_an_empty_append_waits_for_the_term() {
    let mut server = Start::first_of_three().log(&[1]).server();
    assert_eq!(server.receive(2, append(3, 1, at(1, 1), 0, NONE)), [persist_vote(1, 3, None, NONE)]);
    assert_eq!(server.persisted(1), [send(2, append_reply(3, 1, 1))]);
}

#[test]
fn rule_d1_an_acknowledgement_in_a_batch_waits_for_everything_the_batch_writes() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    let (first, second) = (entries_of(1, &[1]), entries_of(2, &[1]));
    let effects =
        server.batch([received(2, append(1, 2, at(0, 0), 0, first)), received(2, append(1, 3, at(1, 1), 0, second))]);
    assert_eq!(effects, [persist(1, entries_of(1, &[1, 1]))], "one write, and one acknowledgement held");
    assert_eq!(server.persisted(1), [send(2, append_reply(1, 3, 2))]);
}

#[test]
fn rule_d1_an_acknowledgement_goes_as_far_as_the_disk_is() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1])));
    assert_eq!(
        server.receive(2, append(1, 3, at(1, 1), 0, entries_of(2, &[1, 1]))),
        [persist(2, entries_of(2, &[1, 1]))]
    );
    assert_eq!(server.persisted(1), [send(2, append_reply(1, 3, 1))], "the first write covers the first entry only");
    assert_eq!(server.persisted(2), [send(2, append_reply(1, 3, 3))]);
}

#[test]
fn rule_d1_the_leaders_own_match_is_what_its_disk_holds() {
    let mut server = Start::first_of_three().leader();
    assert_eq!(server.receive(2, append_reply(1, 1, 1)), [], "one of three: the own disk is not done");
    assert_eq!(server.status().log.commit, index(0));
    assert_eq!(server.persisted(2), [send(2, commit_notice(1, 1)), apply(entries([blank(1, 1)]), &[]),]);
    assert_eq!(server.status().log.commit, index(1));
}

#[test]
fn regress_t063_a_sole_voter_commits_only_what_is_durable() {
    let mut server = Start::new(1, &[1]).server();
    server.persisted(1);
    assert_eq!(server.propose(7), [persist(3, entries([proposal(2, 1, 7)]))]);
    assert_eq!(server.persisted(2), [apply(entries([blank(1, 1)]), &[])]);
    assert_eq!(server.status().log.commit, index(1));
    assert_eq!(server.persisted(3), [apply(entries([proposal(2, 1, 7)]), &[(2, 7)])]);
}

// ---- D2: what promises nothing is not held -------------------------------------------------

#[test]
fn rule_d2_pre_votes_and_their_answers_do_not_wait_for_the_disk() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1])));
    assert_eq!(server.receive(3, pre_vote(2, 7, at(1, 1))), [send(3, pre_vote_reply(1, 7, LeaderAlive))]);
    server.wait(150);
    assert_eq!(server.receive(3, pre_vote(2, 8, at(1, 1))), [send(3, pre_vote_reply(2, 8, Granted))]);
    let last = at(1, 1);
    assert_eq!(server.tick(), [send(2, pre_vote(2, 1, last)), send(3, pre_vote(2, 1, last))]);
}

#[test]
fn rule_d2_refusals_and_rejections_do_not_wait_for_the_disk() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1])));
    assert_eq!(server.receive(3, vote(1, at(9, 1))), [send(3, vote_reply(1, Refused))]);
    assert_eq!(server.receive(3, heartbeat(0, 1, 0)), [send(3, term_over(1))]);
    assert_eq!(
        server.receive(2, append(1, 3, at(5, 1), 0, entries_of(6, &[1]))),
        [send(2, rejected(1, 3, 5, at(1, 1), 0))]
    );
}

#[test]
fn rule_d2_a_heartbeat_is_answered_at_once_and_claims_only_what_is_durable() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1])));
    server.persisted(1);
    server.receive(2, append(1, 3, at(1, 1), 0, entries_of(2, &[1, 1])));
    assert_eq!(server.receive(2, heartbeat(1, 4, 0)), [send(2, heartbeat_reply(1, 4, 1, 3))]);
}

#[test]
fn rule_d2_a_heartbeat_reply_claims_nothing_in_a_term_that_is_not_durable() {
    let mut server = Start::first_of_three().log(&[1]).server();
    // The log is durable, and matches; the term is still on its way to the disk.
    server.receive(2, append(3, 1, at(1, 1), 0, NONE));
    assert_eq!(server.receive(2, heartbeat(3, 2, 0)), [send(2, heartbeat_reply(3, 2, 0, 1))]);
    server.persisted(1);
    assert_eq!(server.receive(2, heartbeat(3, 3, 0)), [send(2, heartbeat_reply(3, 3, 1, 1))]);
}

#[test]
fn rule_d2_a_heartbeat_reply_claims_only_what_this_leader_has_verified() {
    let mut server = Start::first_of_three().log(&[1, 1]).follower_of(2);
    assert_eq!(server.receive(2, heartbeat(1, 2, 0)), [send(2, heartbeat_reply(1, 2, 0, 0))], "two entries, whose?");
}

#[test]
fn rule_d2_the_leaders_heartbeats_and_appends_do_not_wait_for_its_own_disk() {
    let mut server = Start::first_of_three().settled_leader();
    let new = entries([proposal(2, 1, 7)]);
    assert_eq!(
        server.propose(7),
        [
            persist(3, new.clone()),
            send(2, append(1, 2, at(1, 1), 1, new.clone())),
            send(3, append(1, 2, at(1, 1), 1, new)),
        ]
    );
    assert_eq!(server.tick(), [send(2, heartbeat(1, 3, 1)), send(3, heartbeat(1, 3, 1))]);
}

// ---- D3, D4 --------------------------------------------------------------------------------

#[test]
fn rule_d3_votes_compare_with_the_log_in_memory_and_acknowledgements_with_the_disk() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1, 1])));
    server.wait(150);
    // Nothing is durable, and still the candidate's log is behind ours.
    assert_eq!(server.receive(3, pre_vote(2, 7, at(1, 1))), [send(3, pre_vote_reply(1, 7, Refused))]);
    assert_eq!(server.receive(3, vote(2, at(1, 1))), [send(3, vote_reply(2, Refused)), persist_vote(2, 2, None, NONE)]);
    assert_eq!(server.status().log.durable, index(0));
}

#[test]
fn rule_d3_a_candidate_shows_its_log_in_memory() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1, 1])));
    assert_eq!(server.tick(), [send(2, pre_vote(2, 1, at(2, 1))), send(3, pre_vote(2, 1, at(2, 1)))]);
}

#[test]
fn rule_d4_a_new_term_drops_held_acknowledgements() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1])));
    assert_eq!(server.receive(3, heartbeat(2, 1, 0)).last(), Some(&persist_vote(2, 2, None, NONE)));
    assert_eq!(server.persisted(2), [], "the leader of term 1 has nothing to hear any more");
    assert_eq!(server.status().log.durable, index(1));
}

#[test]
fn rule_d4_a_new_term_drops_own_vote_requests_but_not_votes_given() {
    let mut server = Start::first_of_three().server();
    server.tick();
    server.receive(2, pre_vote_reply(1, 1, Granted));
    assert_eq!(server.receive(3, vote(2, at(0, 0))), [persist_vote(2, 2, 3, NONE)]);
    assert_eq!(server.persisted(2), [send(3, vote_reply(2, Granted))], "no request of term 1");
}

#[test]
fn rule_d4_an_overwrite_lowers_what_is_durable_at_once() {
    let mut server = Start::first_of_three().log(&[1, 2, 2, 2]).follower_of(2);
    assert_eq!(server.status().log.durable, index(4));
    let new = entries_of(2, &[3]);
    assert_eq!(server.receive(3, append(3, 1, at(1, 1), 0, new.clone())), [persist_vote(1, 3, None, new)]);
    assert_eq!((server.status().log.durable, server.status().log.last), (index(1), at(2, 3)));
    assert_eq!(
        server.receive(3, heartbeat(3, 2, 0)),
        [send(3, heartbeat_reply(3, 2, 0, 2))],
        "neither the term nor the new entry is durable"
    );
    assert_eq!(server.persisted(1), [send(3, append_reply(3, 1, 2))]);
}

#[test]
fn rule_d4_held_acknowledgements_coalesce() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    for number in 1..=100 {
        server.receive(2, append(1, number + 1, at(number - 1, u64::from(number > 1)), 0, entries_of(number, &[1])));
        assert_eq!(server.status().load.held, 1);
    }
    assert_eq!(server.persisted(100), [send(2, append_reply(1, 101, 100))]);
}

#[test]
fn regress_t103_the_completion_of_an_overwritten_entry_covers_nothing_at_its_place() {
    let mut server = Start::first_of_three().log(&[1]).server();
    // Index 2 is written three times: in term 2, overwritten in 3, overwritten in 4.
    assert_eq!(server.receive(2, append(2, 1, at(1, 1), 0, entries_of(2, &[2]))).len(), 1);
    assert_eq!(server.receive(3, append(3, 1, at(1, 1), 0, entries_of(2, &[3]))).len(), 1);
    assert_eq!(server.receive(2, append(4, 1, at(1, 1), 0, entries_of(2, &[4, 4]))).len(), 1);
    assert_eq!(server.persisted(1), [], "the write of 2@2");
    assert_eq!(server.status().log.durable, index(1));
    assert_eq!(server.persisted(2), [], "the write of 2@3");
    assert_eq!(server.status().log.durable, index(1));
    assert_eq!(server.persisted(3), [send(2, append_reply(4, 1, 3))]);
    assert_eq!(server.status().log.durable, index(3));
}

#[test]
fn regress_t103_an_entry_that_comes_back_is_durable_only_by_its_last_write() {
    let mut server = Start::first_of_three().log(&[1]).server();
    // 2@2 is written, cut by 2@3, and then a leader of term 4 that holds 2@2 brings it back.
    server.receive(2, append(2, 1, at(1, 1), 0, entries_of(2, &[2])));
    server.receive(3, append(3, 1, at(1, 1), 0, entries_of(2, &[3])));
    server.receive(2, append(4, 1, at(1, 1), 0, entries_of(2, &[2, 4])));
    assert_eq!(server.persisted(1), [], "the same entry at the same index, and still not this write");
    assert_eq!(server.status().log.durable, index(1));
    assert_eq!(server.receive(2, heartbeat(4, 2, 0)), [send(2, heartbeat_reply(4, 2, 0, 3))]);
    assert_eq!(server.persisted(3), [send(2, append_reply(4, 1, 3))]);
}

// ---- D5, D6 --------------------------------------------------------------------------------

#[test]
fn rule_d5_a_follower_applies_what_is_committed_and_durable() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    let all = entries_of(1, &[1, 1, 1]);
    assert_eq!(server.receive(2, append(1, 2, at(0, 0), 2, all.clone())), [persist(1, all.clone())]);
    assert_eq!(server.status().log.commit, index(2), "committed, and not on this disk");
    assert_eq!(
        server.persisted(1),
        [send(2, append_reply(1, 2, 3)), apply(all.slice(index(1), index(2)), &[])],
        "durable, and only two are committed"
    );
}

#[test]
fn rule_d5_a_leader_applies_what_is_committed_by_others_only_when_it_is_durable_here() {
    let mut server = Start::first_of_three().leader();
    server.receive(2, append_reply(1, 1, 1));
    assert_eq!(server.receive(3, append_reply(1, 1, 1)), [send(2, commit_notice(1, 1)), send(3, commit_notice(1, 1))]);
    assert_eq!(server.status().log.commit, index(1), "a majority of disks holds it, the own one not among them");
    assert_eq!(server.persisted(2), [apply(entries([blank(1, 1)]), &[])]);
}

#[test]
fn rule_d6_a_leader_whose_disk_is_behind_is_busy() {
    let mut server = Start::first_of_three().limits(|limits| limits.unsynced_bytes_max = 50).settled_leader();
    assert_eq!(server.propose(7).first(), Some(&persist(3, entries([proposal(2, 1, 7)]))));
    assert_eq!(server.propose(8).first(), Some(&persist(4, entries([proposal(3, 1, 8)]))), "41 of 50 bytes");
    assert_eq!(server.propose(9), [reply(9, Outcome::Busy(Busy::Unsynced))]);
    server.persisted(3);
    assert_eq!(server.propose(10).first(), Some(&persist(5, entries([proposal(4, 1, 10)]))));
}

#[test]
fn rule_d6_the_proposals_of_one_batch_count_against_the_limits() {
    let mut server = Start::first_of_three().limits(|limits| limits.unsynced_bytes_max = 50).settled_leader();
    let effects = server.batch((10..20).map(propose));
    let busy = effects.iter().filter(|effect| matches!(effect, raft_core::Effect::Reply { .. })).count();
    assert_eq!(busy, 8, "two of ten fit, however they came: {effects:?}");
}

#[test]
fn rule_d6_a_follower_whose_disk_is_behind_does_not_answer_and_counts() {
    let mut server = Start::first_of_three().term(1).limits(|limits| limits.unsynced_bytes_max = 50).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1, 1])));
    assert_eq!(server.receive(2, append(1, 3, at(2, 1), 0, entries_of(3, &[1]))), []);
    assert_eq!(server.status().log.last, at(2, 1), "not taken");
    assert_eq!(server.status().load.drops.overload, 1);
    assert_eq!(server.persisted(1), [send(2, append_reply(1, 2, 2))], "only what was taken is acknowledged");
    // The leader sends it again.
    assert_eq!(server.receive(2, append(1, 4, at(2, 1), 0, entries_of(3, &[1]))), [persist(2, entries_of(3, &[1]))]);
}

#[test]
fn rule_d6_what_is_not_durable_stays_in_memory_whatever_the_cache_may_hold() {
    let mut server = Start::first_of_three().term(1).limits(|limits| limits.log_cache_bytes = 0).follower_of(2);
    let new = entries_of(1, &[1, 1]);
    server.receive(2, append(1, 2, at(0, 0), 0, new.clone()));
    assert_eq!(server.status().log.cached_bytes, new.cost());
    server.persisted(1);
    assert_eq!(server.status().log.cached_bytes, 0);
}

// ---- D7, D8 --------------------------------------------------------------------------------

#[test]
fn rule_d7_no_campaign_starts_while_the_own_term_is_being_written() {
    let mut server = Start::first_of_three().server();
    assert_eq!(server.receive(2, vote(1, at(0, 0))), [persist_vote(1, 1, 2, NONE)]);
    assert_eq!(server.raft.deadline(), None, "nothing to do before the disk is done");
    server.wait(10_000);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.role(), (1, RoleKind::Follower));
    assert_eq!(
        server.persisted(1),
        [send(2, pre_vote(2, 1, at(0, 0))), send(3, pre_vote(2, 1, at(0, 0))), send(2, vote_reply(1, Granted)),]
    );
}

#[test]
fn rule_d7_a_won_pre_vote_waits_for_the_own_term_to_be_durable() {
    let mut server = Start::first_of_three().server();
    server.tick();
    // A vote in the same batch: the term changes, and the campaign is over.
    let effects = server.batch([received(3, vote(1, at(0, 0))), received(2, pre_vote_reply(1, 1, Granted))]);
    assert_eq!(effects, [persist_vote(1, 1, 3, NONE)]);
    assert_eq!(server.role(), (1, RoleKind::Follower));
}

#[test]
fn rule_d7_a_candidates_clock_starts_when_its_requests_leave() {
    let mut server = Start::first_of_three().server();
    server.tick();
    server.receive(2, pre_vote_reply(1, 1, Granted));
    assert_eq!(server.raft.deadline(), None);
    server.wait(10_000);
    assert_eq!(server.step(Event::Tick), [], "a disk slower than the timeout does not raise the term");
    server.persisted(1);
    assert_eq!(server.role(), (1, RoleKind::Candidate));
    assert!(server.patience().as_millis() >= 150, "{:?}", server.patience());
}

#[test]
fn rule_d8_nothing_held_leaves_after_storage_has_failed() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    server.receive(2, append(1, 2, at(0, 0), 0, entries_of(1, &[1])));
    assert_eq!(server.step(Event::StorageFailed), []);
    assert_eq!(server.persisted(1), []);
    assert_eq!(server.status().load.held, 0);

    let mut server = Start::first_of_three().server();
    server.receive(2, vote(1, at(0, 0)));
    assert_eq!(server.step(Event::StorageFailed), []);
    assert_eq!(server.persisted(1), []);
}

#[test]
fn rule_d8_a_server_whose_storage_has_failed_neither_campaigns_nor_grants_nor_takes_entries() {
    let mut server = Start::first_of_three().server();
    server.step(Event::StorageFailed);
    assert_eq!(server.status().load.storage, Storage::Failed);
    assert_eq!(server.raft.deadline(), None);
    server.wait(10_000);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.receive(2, pre_vote(1, 1, at(9, 9))), [send(2, pre_vote_reply(0, 1, Refused))]);
    let effects = server.receive(2, vote(1, at(9, 9)));
    assert_eq!(effects.first(), Some(&send(2, vote_reply(1, Refused))));
    let effects = server.receive(2, append(1, 1, at(0, 0), 0, entries_of(1, &[1])));
    assert!(
        !effects.iter().any(|effect| matches!(effect, raft_core::Effect::Send { rpc: Rpc::AppendReply { .. }, .. }))
    );
    assert_eq!(server.status().log.last, at(0, 0));
}

#[test]
fn rule_d8_a_server_whose_storage_has_failed_acknowledges_nothing_any_more() {
    let mut server = Start::first_of_three().log(&[1]).follower_of(2);
    server.step(Event::StorageFailed);
    server.receive(2, heartbeat(1, 2, 0));
    // It holds 1@1, durably, and even so: who cannot write must not look as if it could.
    assert_eq!(server.receive(2, append(1, 3, at(1, 1), 0, NONE)), []);
    assert_eq!(server.receive(2, append(1, 4, at(0, 0), 0, entries_of(1, &[1]))), []);
}

#[test]
fn rule_d8_a_leader_whose_storage_fails_steps_down_and_answers_everybody() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.read(8);
    let effects = server.batch([propose(9), Event::StorageFailed, propose(10)]);
    assert_eq!(
        effects,
        [
            send(2, Rpc::TimeoutNow { term: term(1) }),
            send(3, Rpc::Resigned { term: term(1) }),
            reply(7, unknown(None)),
            reply(9, not_leader(None)),
            reply(8, not_leader(None)),
            reply(10, Outcome::StorageFailed),
        ]
    );
    assert_eq!(server.role(), (1, RoleKind::Follower));
    assert_eq!(server.read(11), [reply(11, Outcome::StorageFailed)]);
}

/// T111: a sync that failed once and then "succeeds" proves nothing.
#[test]
fn regress_t111_a_completion_that_comes_after_the_failure_is_not_believed() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    assert_eq!(server.receive(2, append(1, 2, at(0, 0), 1, entries_of(1, &[1]))), [persist(1, entries_of(1, &[1]))]);
    server.step(Event::StorageFailed);
    assert_eq!(server.persisted(1), [], "nothing is acknowledged, and nothing applied");
    assert_eq!(server.status().log.durable, index(0));
    server.receive(2, heartbeat(1, 3, 1));
    assert_eq!(server.receive(2, heartbeat(1, 4, 1)), [send(2, heartbeat_reply(1, 4, 0, 0))]);
}
