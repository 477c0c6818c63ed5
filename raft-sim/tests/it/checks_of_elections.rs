//! The checks of votes and leaders notice what they are there for.

use std::sync::Arc;
use std::time::Duration;

use raft_core::{
    Append, Boot, CampaignId, Effect, Entries, Observation, Position, RoleKind, Round, Rpc, Verdict as Vote,
};
use raft_sim::Invariant;
use raft_sim::checks::Inbox;

use crate::rig::{Rig, STICKINESS, ask_vote, at, blank, fired, grant, index, node, put, send, term};

#[test]
fn a_proper_election_passes() {
    let mut rig = Rig::new().with_leader();
    rig.elect(2, 3, 2);
}

#[test]
fn a_second_leader_of_a_term_is_noticed() {
    let mut rig = Rig::new().with_leader();
    rig.campaign(3, 1);
    let verdict = rig.step(3, |status| status.role = RoleKind::Leader, Vec::new());
    assert_eq!(fired(verdict), Some(Invariant::ElectionSafety));
}

#[test]
fn a_leader_that_resigned_within_its_step_is_noticed_all_the_same() {
    let mut rig = Rig::new().with_leader();
    let observed = Effect::Observe(Observation::Role { term: term(1), role: RoleKind::Leader });
    assert_eq!(fired(rig.step(2, |_| {}, vec![observed])), Some(Invariant::ElectionSafety));
}

#[test]
fn a_leader_without_a_majority_of_sent_votes_is_noticed() {
    let mut rig = Rig::new();
    rig.campaign(1, 1);
    rig.sync(1);
    assert_eq!(rig.step(1, |_| {}, vec![ask_vote(2, 1, Position::ZERO)]), Ok(()));
    let verdict = rig.step(1, |status| status.role = RoleKind::Leader, Vec::new());
    assert_eq!(fired(verdict), Some(Invariant::ElectionSafety));
}

#[test]
fn a_second_vote_of_a_term_is_noticed_when_it_is_written() {
    let mut rig = Rig::new().with_leader();
    let (ask, vote) = (ask_vote(2, 1, at(9, 1)), rig.vote(1, Some(3)));
    let own = rig.vote(1, Some(3));
    assert_eq!(rig.step(3, |_| {}, vec![own]), Ok(()));
    rig.sync(3);
    assert_eq!(rig.step(3, |_| {}, vec![ask]), Ok(()));
    rig.wait(STICKINESS);
    assert_eq!(fired(rig.step(2, |_| {}, vec![vote])), Some(Invariant::OneVotePerTerm));
}

#[test]
fn a_second_vote_of_a_term_is_noticed_when_it_is_sent() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(fired(rig.step(2, |_| {}, vec![grant(3, 1)])), Some(Invariant::OneVotePerTerm));
}

#[test]
fn a_vote_for_a_candidate_with_an_older_log_is_noticed() {
    let mut rig = Rig::new().with_leader();
    rig.campaign(3, 2);
    rig.sync(3);
    assert_eq!(rig.step(3, |_| {}, vec![ask_vote(2, 2, Position::ZERO)]), Ok(()));
    rig.wait(STICKINESS);
    let vote = rig.vote(2, Some(3));
    assert_eq!(fired(rig.step(2, |_| {}, vec![vote])), Some(Invariant::VoteLegality));
}

#[test]
fn a_vote_that_nobody_asked_for_is_noticed() {
    let mut rig = Rig::new();
    let vote = rig.vote(1, Some(3));
    assert_eq!(fired(rig.step(2, |_| {}, vec![vote])), Some(Invariant::VoteLegality));
}

#[test]
fn a_promise_to_vote_for_an_older_log_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let campaign = CampaignId { boot: Boot::new(1), number: 1 };
    let question = Rpc::PreVote { term: term(2), campaign, last: Position::ZERO };
    assert_eq!(rig.step(3, |_| {}, vec![send(2, question)]), Ok(()));
    let promise = Rpc::PreVoteReply { term: term(2), campaign, verdict: Vote::Granted };
    assert_eq!(fired(rig.step(2, |_| {}, vec![send(3, promise)])), Some(Invariant::VoteLegality));
}

/// n3 asks n2 for its vote in term 2 when n2 has heard from a leader a moment ago.
fn ask_while_the_leader_lives(inbox: Inbox) -> Option<Invariant> {
    let mut rig = Rig::new().with_leader();
    rig.take(3, 1, vec![blank(1, 1)]);
    rig.sync(3);
    rig.wait(STICKINESS * 2);
    let heard = Inbox { leader: Some(term(1)), ..Inbox::default() };
    assert_eq!(rig.step_with(2, heard, |_| {}, Vec::new()), Ok(()));
    rig.campaign(3, 2);
    rig.sync(3);
    assert_eq!(rig.step(3, |_| {}, vec![ask_vote(2, 2, at(1, 1))]), Ok(()));
    rig.wait(STICKINESS / 2);
    let vote = rig.vote(2, Some(3));
    fired(rig.step_with(2, inbox, |_| {}, vec![vote]))
}

#[test]
fn a_vote_against_a_living_leader_is_noticed() {
    assert_eq!(ask_while_the_leader_lives(Inbox::default()), Some(Invariant::VoteLegality));
}

#[test]
fn a_broken_channel_excuses_a_vote_against_a_living_leader() {
    assert_eq!(ask_while_the_leader_lives(Inbox { unreachable: true, ..Inbox::default() }), None);
}

#[test]
fn a_leader_that_lacks_a_committed_entry_is_noticed() {
    let mut rig = Rig::new().with_leader();
    // n2 gives n3 its vote although n3 has nothing: the batch held entries, so the vote itself
    // could not be judged. What comes of it can.
    rig.campaign(3, 2);
    rig.sync(3);
    assert_eq!(rig.step(3, |_| {}, vec![ask_vote(2, 2, Position::ZERO)]), Ok(()));
    rig.wait(STICKINESS);
    let vote = rig.vote(2, Some(3));
    let inbox = Inbox { appends: true, ..Inbox::default() };
    assert_eq!(rig.step_with(2, inbox, |_| {}, vec![vote]), Ok(()));
    rig.sync(2);
    assert_eq!(rig.step(2, |_| {}, vec![grant(3, 2)]), Ok(()));
    let verdict = rig.step(3, |status| status.role = RoleKind::Leader, Vec::new());
    assert_eq!(fired(verdict), Some(Invariant::LeaderCompleteness));
}

#[test]
fn a_commit_that_a_later_leader_lacks_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let attempt = rig.checks.history.begin_write(1, |attempt| raft_sim::machine::Command::Put { key: 1, attempt });
    rig.checks.history.on_handed_over(node(1), attempt);
    let write = rig.persist(vec![put(2, 1, attempt)]);
    assert_eq!(rig.step(1, |_| {}, vec![write]), Ok(()));
    rig.sync(1);
    // n3 holds what is committed so far, and is elected by n2 without the entry 2@1.
    rig.take(3, 1, vec![blank(1, 1)]);
    rig.sync(3);
    rig.elect(3, 2, 2);
    // Now n1, still leader of term 1, claims to have committed it, with a disk that lies.
    let disk_of_1 = rig.disks[0].log()[1].entry.clone();
    let lie = rig.persist(vec![disk_of_1]);
    let Effect::Persist { seq, hard_state, entries } = lie else { return };
    rig.disks[1].write(raft_sim::disk::Write::Log { seq, hard_state: hard_state.map(|state| *state), entries });
    rig.disks[1].start_sync();
    rig.disks[1].finish_sync();
    assert_eq!(fired(rig.commit(1, 2)), Some(Invariant::LeaderCompleteness));
}

#[test]
fn a_message_of_a_leader_that_was_never_elected_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let heartbeat = Rpc::Heartbeat { term: term(1), round: Round::new(1), commit: index(0), promise: Duration::ZERO };
    assert_eq!(fired(rig.step(3, |_| {}, vec![send(2, heartbeat)])), Some(Invariant::Provenance));
}

#[test]
fn an_append_that_says_other_than_the_leaders_log_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let append =
        Append { term: term(1), round: Round::new(1), prev: at(1, 7), commit: index(0), entries: Entries::EMPTY };
    let verdict = rig.step(1, |_| {}, vec![send(2, Rpc::Append(Arc::new(append)))]);
    assert_eq!(fired(verdict), Some(Invariant::Provenance));
}

#[test]
fn a_node_that_follows_whom_nobody_elected_is_noticed() {
    let mut rig = Rig::new().with_leader();
    assert_eq!(rig.step(2, |status| status.leader = Some(node(1)), Vec::new()), Ok(()));
    assert_eq!(fired(rig.step(2, |status| status.leader = Some(node(3)), Vec::new())), Some(Invariant::Provenance));
}

#[test]
fn a_campaign_that_nobody_was_asked_about_is_noticed() {
    let mut rig = Rig::new();
    let own = rig.vote(1, Some(1));
    let verdict = rig.step(1, |status| status.role = RoleKind::Candidate, vec![own]);
    assert_eq!(fired(verdict), Some(Invariant::VoteLegality));
}

#[test]
fn a_campaign_on_the_answers_to_an_older_question_is_noticed() {
    let mut rig = Rig::new();
    rig.campaign(1, 1);
    let campaign = CampaignId { boot: Boot::new(1), number: 7 };
    let question = Rpc::PreVote { term: term(2), campaign, last: Position::ZERO };
    assert_eq!(rig.step(1, |status| status.role = RoleKind::PreCandidate, vec![send(2, question)]), Ok(()));
    let own = rig.vote(2, Some(1));
    let verdict = rig.step(1, |status| status.role = RoleKind::Candidate, vec![own]);
    assert_eq!(fired(verdict), Some(Invariant::VoteLegality));
}

#[test]
fn a_leader_that_no_majority_answers_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let alone = Inbox::default();
    rig.wait(STICKINESS * 2);
    assert_eq!(rig.step_with(1, alone.clone(), |_| {}, Vec::new()), Ok(()));
    rig.wait(STICKINESS);
    assert_eq!(fired(rig.step_with(1, alone.clone(), |_| {}, Vec::new())), Some(Invariant::CheckQuorum));
    let answered = Inbox { heard: 0b010, ..alone };
    assert_eq!(rig.step_with(1, answered, |_| {}, Vec::new()), Ok(()));
}

/// n3 campaigns in term 2 on the strength of an order, and asks n2 for its vote.
fn campaign_by_order(rig: &mut Rig, inbox: Inbox) -> Option<Invariant> {
    let own = rig.vote(2, Some(3));
    fired(rig.step_with(3, inbox, |status| status.role = RoleKind::Candidate, vec![own]))
}

#[test]
fn a_campaign_by_order_of_the_leader_passes_and_without_one_is_noticed() {
    let mut rig = Rig::new().with_leader();
    rig.take(3, 1, vec![blank(1, 1)]);
    rig.sync(3);
    let ordered = Inbox { ordered: Some((node(1), term(1))), ..Inbox::default() };
    assert_eq!(campaign_by_order(&mut rig, ordered.clone()), Some(Invariant::VoteLegality), "n1 has sent no order");
    let mut rig = Rig::new().with_leader();
    rig.take(3, 1, vec![blank(1, 1)]);
    rig.sync(3);
    assert_eq!(rig.step(1, |_| {}, vec![send(3, Rpc::TimeoutNow { term: term(1) })]), Ok(()));
    assert_eq!(campaign_by_order(&mut rig, ordered), None);
    rig.sync(3);
    let ask = Rpc::Vote { term: term(2), last: at(1, 1), ordered_in: Some(term(1)) };
    assert_eq!(rig.step(3, |_| {}, vec![send(2, ask)]), Ok(()));
    // n2 has heard from n1 just now; the order is as good as silence.
    let inbox = Inbox { leader: Some(term(1)), ..Inbox::default() };
    assert_eq!(rig.step_with(2, inbox, |_| {}, Vec::new()), Ok(()));
    let vote = rig.vote(2, Some(3));
    assert_eq!(rig.step(2, |_| {}, vec![vote]), Ok(()));
}

#[test]
fn an_order_that_the_leader_did_not_give_is_noticed() {
    let mut rig = Rig::new().with_leader();
    rig.campaign(3, 2);
    rig.sync(3);
    let ask = Rpc::Vote { term: term(2), last: Position::ZERO, ordered_in: Some(term(1)) };
    assert_eq!(fired(rig.step(3, |_| {}, vec![send(2, ask)])), Some(Invariant::VoteLegality));
}

#[test]
fn a_hand_over_by_somebody_else_than_the_leader_is_noticed() {
    let mut rig = Rig::new().with_leader();
    let order = Rpc::TimeoutNow { term: term(1) };
    assert_eq!(fired(rig.step(2, |_| {}, vec![send(3, order)])), Some(Invariant::Provenance));
}
