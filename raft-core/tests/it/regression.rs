//! A member that has lost entries which it had acknowledged: contract R1, and the floor of D11.

use raft_core::Verdict::{Granted, Refused};
use raft_core::{Effect, Entries, Event, HardState, Observation, RoleKind, Rpc};

use crate::cluster::Cluster;
use crate::rig::{
    Lone, Start, append, append_reply, at, entries, entries_of, hard_state, heartbeat, heartbeat_reply, index, node,
    persist, pre_vote, pre_vote_reply, proposal, received, rejected, send, term, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

fn regressed(in_term: u64, acknowledged: raft_core::Position) -> Rpc {
    Rpc::Regressed { term: term(in_term), acknowledged }
}

fn with_floor(in_term: u64, vote: impl Into<Option<u64>>, floor: raft_core::Position) -> HardState {
    HardState { floor: Some(floor), ..hard_state(in_term, vote) }
}

/// A leader of term 1 whose peers have acknowledged 1@1 and 2@1; round 3 is the newest.
fn leader() -> Lone {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.persisted(3);
    server.receive(2, append_reply(1, 2, 2));
    server.receive(3, append_reply(1, 2, 2));
    server.tick();
    server
}

// ---- at the leader -------------------------------------------------------------------------

#[test]
fn rule_r1_a_denial_of_what_was_acknowledged_is_proof_and_the_peer_is_told() {
    let mut server = leader();
    // n2 comes back with an empty log; it is reminded of what it has, and denies it.
    let reminded = server.receive(2, heartbeat_reply(1, 3, 0, 0));
    assert_eq!(reminded, [send(2, append(1, 4, at(2, 1), 2, NONE))]);
    let effects = server.observe([received(2, rejected(1, 4, 2, at(0, 0), 0))]);
    let all = entries([crate::rig::blank(1, 1), proposal(2, 1, 7)]);
    assert_eq!(
        effects,
        [
            Effect::Observe(Observation::Regressed { node: node(2), from: index(2), to: index(0) }),
            send(2, regressed(1, at(2, 1))),
            send(2, append(1, 5, at(0, 0), 2, all)),
        ]
    );
    assert_eq!(server.progress(2), (0, 1, true, 1), "what it has to be sent is known again");
    server.receive(2, append_reply(1, 5, 2));
    assert_eq!(server.progress(2), (2, 3, false, 0));
}

#[test]
fn rule_r1_an_answer_from_before_the_acknowledgement_proves_nothing() {
    let mut server = leader();
    for round in [1, 2] {
        assert_eq!(server.receive(2, rejected(1, round, 2, at(0, 0), 0)), [], "round {round}");
    }
    assert_eq!(server.progress(2), (2, 3, false, 0));
}

/// The schedule that the letter of R1 does not bear, found by a simulation that reorders appends.
#[test]
fn regress_r1_an_append_that_overtook_another_is_denied_and_proves_nothing() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.propose(8);
    // Round 3, with 3@1, arrives first: n2 lacks 2@1 and denies it. Then round 2 arrives.
    server.receive(2, append_reply(1, 2, 2));
    server.receive(2, rejected(1, 3, 2, at(1, 1), 1));
    assert_eq!(server.progress(2).0, 2, "it holds 2@1 by now");
}

#[test]
fn rule_r1_what_one_peer_lost_no_longer_counts_for_it() {
    let mut server = leader();
    server.propose(8);
    server.persisted(4);
    server.receive(2, heartbeat_reply(1, 3, 0, 0));
    server.receive(2, rejected(1, 4, 2, at(0, 0), 0));
    assert_eq!(server.progress(2).0, 0);
    assert_eq!(server.status().log.commit, index(2), "what was committed stays so");
}

// ---- at the peer ---------------------------------------------------------------------------

/// Follower 1 of leader 2 in term 4, told that it had acknowledged 3@2, which its log has not.
fn told() -> Lone {
    let mut server = Start::first_of_three().log(&[1, 2]).term(4).follower_of(2);
    let written = server.receive(2, regressed(4, at(3, 2)));
    let floor = Effect::Persist {
        seq: crate::rig::seq(1),
        hard_state: Some(with_floor(4, None, at(3, 2)).into()),
        entries: NONE,
    };
    assert_eq!(written, [floor], "it must not be forgotten");
    server.persisted(1);
    server
}

#[test]
fn rule_d11_whoever_lacks_what_it_vouched_for_helps_nobody_to_power() {
    let mut server = told();
    server.wait(1_000);
    assert_eq!(server.raft.deadline(), None, "it does not run");
    let answer = |in_term, campaign| send(3, pre_vote_reply(in_term, campaign, Refused));
    assert_eq!(server.receive(3, pre_vote(5, 9, at(9, 4))), [answer(4, 9)]);
    let effects = server.receive(3, vote(5, at(9, 4)));
    assert!(effects.contains(&send(3, vote_reply(5, Refused))), "{effects:?}");
}

#[test]
fn rule_d11_it_acknowledges_what_it_holds_and_votes_again_when_that_is_enough() {
    let mut server = told();
    server.receive(2, append(4, 2, at(2, 2), 0, entries_of(3, &[2])));
    assert_eq!(server.status().hard_state.floor, Some(at(3, 2)), "it has arrived, and is not durable");
    let effects = server.persisted(2);
    let free = Effect::Persist { seq: crate::rig::seq(3), hard_state: Some(hard_state(4, None).into()), entries: NONE };
    assert_eq!(effects, [free], "the acknowledgement waits for the same disk");
    assert_eq!(server.persisted(3), [send(2, append_reply(4, 2, 3))]);
    server.wait(1_000);
    let effects = server.receive(3, pre_vote(5, 9, at(3, 2)));
    assert_eq!(effects.first(), Some(&send(3, pre_vote_reply(5, 9, Granted))));
    assert_eq!(server.role().1, RoleKind::PreCandidate, "and it runs again itself");
}

#[test]
fn rule_d11_a_later_term_is_enough_as_well() {
    let mut server = told();
    // 3@2 was never committed: the leader of term 4 has another entry there, and vouches for it.
    server.receive(2, append(4, 2, at(2, 2), 0, entries_of(3, &[4])));
    server.persisted(2);
    assert_eq!(server.status().hard_state.floor, None);
}

#[test]
fn rule_d11_the_floor_survives_terms_and_restarts() {
    let mut server = told();
    server.receive(3, heartbeat(6, 1, 0));
    assert_eq!(server.status().hard_state, with_floor(6, None, at(3, 2)));
    let mut durable = Start::first_of_three().log(&[1, 2]).term(6).durable();
    durable.hard_state.floor = Some(at(3, 2));
    let mut raft = Start::first_of_three().raft_with(durable);
    raft.step(raft_core::Message { at: raft_core::Time::from_nanos(1), event: Event::Tick });
    assert_eq!(raft.deadline(), None);
}

#[test]
fn rule_d11_what_is_there_needs_no_floor() {
    let mut server = Start::first_of_three().log(&[1, 2]).term(4).follower_of(2);
    assert_eq!(server.receive(2, regressed(4, at(2, 2))), [], "it holds 2@2");
    assert_eq!(server.receive(2, regressed(4, at(1, 1))), []);
    assert_eq!(server.receive(2, append(4, 3, at(2, 2), 0, entries_of(3, &[4]))), [persist(1, entries_of(3, &[4]))]);
}

// ---- together ------------------------------------------------------------------------------

/// T1, and T2 because nothing is written meanwhile: a disk that has lost what it had
/// acknowledged, behind the same store and the next boot.
#[test]
fn regress_t001_and_t002_a_store_that_was_rolled_back_heals_also_in_an_idle_cluster() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    for number in 1..=5 {
        cluster.propose(leader, number);
    }
    cluster.run(300);
    let victim = if leader == 3 { 2 } else { 3 };
    cluster.roll_back(victim, 2);
    cluster.run(1_000);
    cluster.assert_converged();
    assert_eq!(cluster.status(victim).log.durable, cluster.status(leader).log.durable);
    assert_eq!(cluster.status(victim).hard_state.floor, None);
    assert_eq!(cluster.leader(), Some(leader), "nobody had to be elected");
}
