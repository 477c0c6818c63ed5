//! Changes of several voters at once: contract M2–M5, §6; Thesis 4.3.

use raft_core::Verdict::Granted;
use raft_core::{Effect, Event, Membership, RoleKind, Rpc};

use crate::members::{add_voter, change, changed, demote, done, promote, remove, setting, timeout_now, transfer};
use crate::rig::{
    Lone, Start, append, append_reply, apply, at, commit_notice, configured, entries, entries_of, heartbeat_reply,
    index, membership, persist, persist_vote, proposal, read_ready, rejected, reply, send, vote_reply,
};

const FIVE: [u64; 5] = [1, 2, 3, 4, 5];

/// {1 2 3 | 1 2 3 4 5}
fn joint() -> Membership {
    changed(&membership(&FIVE), &[remove(4), remove(5)])
}

/// {1 2 3}, after five have been members.
fn left() -> Membership {
    joint().left()
}

/// A leader of five that lets 4 and 5 go: 2@1 is appended, durable here, and known to nobody else.
fn shrinking() -> Lone {
    let mut server = Start::new(1, &FIVE).settled_leader();
    server.step(change(7, 0, &[remove(4), remove(5)]));
    server.persisted(3);
    server
}

#[test]
fn several_voters_change_by_way_of_a_joint_configuration() {
    let mut server = Start::new(1, &FIVE).settled_leader();
    let both = entries([setting(2, 1, &joint())]);
    let sent = append(1, 2, at(1, 1), 1, both.clone());
    let to_all = (2..=5).map(|id| send(id, sent.clone()));
    let expected: Vec<Effect> = [configured(2, joint()), persist(3, both.clone())].into_iter().chain(to_all).collect();
    assert_eq!(server.step(change(7, 0, &[remove(4), remove(5)])), expected);
    server.persisted(3);
    assert_eq!(server.receive(2, append_reply(1, 2, 2)), [], "two of three, and two of five");
    let new = entries([setting(3, 1, &left())]);
    assert_eq!(
        server.receive(4, append_reply(1, 2, 2)),
        [
            configured(3, left()),
            persist(4, new.clone()),
            send(2, append(1, 3, at(2, 1), 2, new.clone())),
            send(3, append(1, 3, at(2, 1), 2, new.clone())),
            send(4, commit_notice(1, 2)),
            apply(both, &[]),
        ],
        "both halves have it, so it is left; those who go hear of that when it is committed"
    );
    server.persisted(4);
    let effects = server.receive(2, append_reply(1, 3, 3));
    assert_eq!(
        effects,
        [
            done(7, 3, None),
            send(2, commit_notice(1, 3)),
            send(4, append(1, 4, at(2, 1), 3, new.clone())),
            send(5, append(1, 4, at(2, 1), 3, new.clone())),
            apply(new, &[]),
        ],
        "those who went are told"
    );
}

#[test]
fn rule_m2_while_joint_both_majorities_commit() {
    let mut server = shrinking();
    server.receive(4, append_reply(1, 2, 2));
    server.receive(5, append_reply(1, 2, 2));
    assert_eq!(server.status().log.commit, index(1), "three of five, and one of three");
    server.receive(3, append_reply(1, 2, 2));
    assert_eq!(server.status().log.commit, index(2));
}

#[test]
fn rule_m2_while_joint_both_majorities_elect() {
    let start = Start::new(1, &FIVE).log(&[1]).change(1, joint());
    let mut server = start.clone().candidate();
    server.receive(4, vote_reply(2, Granted));
    server.receive(5, vote_reply(2, Granted));
    assert_eq!(server.role(), (2, RoleKind::Candidate), "three of five, and one of three");
    server.receive(2, vote_reply(2, Granted));
    assert_eq!(server.role(), (2, RoleKind::Leader));

    let mut server = start.candidate();
    server.receive(2, vote_reply(2, Granted));
    assert_eq!(server.role(), (2, RoleKind::Candidate), "two of three, and two of five");
    server.receive(3, vote_reply(2, Granted));
    assert_eq!(server.role(), (2, RoleKind::Leader));
}

#[test]
fn rule_m2_while_joint_both_majorities_confirm_reads() {
    let mut server = shrinking();
    server.read(8);
    server.receive(4, heartbeat_reply(1, 3, 1, 1));
    assert_eq!(server.receive(5, heartbeat_reply(1, 3, 1, 1)), [], "three of five, and one of three");
    assert_eq!(server.receive(2, heartbeat_reply(1, 3, 1, 1)), [reply(8, read_ready(1))]);
    server.read(9);
    assert_eq!(server.receive(2, heartbeat_reply(1, 4, 1, 1)), [], "two of three, and two of five");
    assert_eq!(server.receive(5, heartbeat_reply(1, 4, 1, 1)), [reply(9, read_ready(1))]);
}

#[test]
fn rule_v1_while_joint_a_leader_that_only_one_half_answers_steps_down() {
    let mut server = shrinking();
    for _ in 0..20 {
        if server.role().1 == RoleKind::Leader {
            let effects = server.tick();
            for effect in &effects {
                if let Effect::Send { to, rpc: Rpc::Heartbeat { round, .. } } = effect
                    && to.as_u64() >= 4
                {
                    server.receive(to.as_u64(), heartbeat_reply(1, round.as_u64(), 1, 1));
                }
            }
        }
    }
    assert_eq!(server.role(), (1, RoleKind::Follower));
}

#[test]
fn regress_t065_what_waits_for_the_outgoing_half_is_committed_when_that_is_left() {
    let mut server = shrinking();
    server.propose(8);
    server.persisted(4);
    server.receive(2, append_reply(1, 3, 3));
    let effects = server.receive(4, append_reply(1, 2, 2));
    assert_eq!(server.status().configuration.index, index(4));
    let both = entries([setting(2, 1, &joint()), proposal(3, 1, 8)]);
    assert_eq!(effects.last(), Some(&apply(both, &[(3, 8)])), "3@1 is on two of three, in the same step");
}

#[test]
fn rule_m3_a_new_leader_that_knows_the_joint_configuration_to_be_committed_commits_in_its_term_first() {
    // Its durable machine has applied 1@1.
    let start = Start { applied: 1, ..Start::new(1, &FIVE).log(&[1]).change(1, joint()) };
    let mut server = start.leader();
    assert_eq!((server.status().log.commit, server.status().configuration.index), (index(1), index(1)));
    server.persisted(2);
    server.receive(2, append_reply(2, 1, 2));
    assert_eq!(server.status().configuration.index, index(1));
    server.receive(4, append_reply(2, 1, 2));
    assert_eq!(server.status().configuration.index, index(3));
}

/// How many entries of the log set a configuration, as far as they were ever written.
fn settings(effects: &[Effect]) -> usize {
    let entries = effects.iter().flat_map(|effect| match effect {
        Effect::Persist { entries, .. } => entries.iter().cloned().collect(),
        _ => Vec::new(),
    });
    entries.filter(|entry| matches!(entry.payload, raft_core::Payload::Configuration(_))).count()
}

#[test]
fn regress_t071_the_joint_configuration_is_left_once() {
    let mut server = shrinking();
    let mut effects = Vec::new();
    for _ in 0..3 {
        for id in [2, 3, 4, 5] {
            effects.extend(server.receive(id, append_reply(1, 2, 2)));
            effects.extend(server.receive(id, heartbeat_reply(1, 2, 2, 2)));
        }
        effects.extend(server.step(Event::Tick));
    }
    assert_eq!(settings(&effects), 1, "{effects:?}");
}

#[test]
fn regress_t071_the_next_leader_leaves_it_once_and_not_before_a_commit_of_its_own() {
    let mut server = Start::new(1, &FIVE).log(&[1]).change(1, joint()).leader();
    let mut effects = server.persisted(2);
    effects.extend(server.receive(2, append_reply(2, 1, 1)));
    effects.extend(server.receive(3, append_reply(2, 1, 1)));
    assert_eq!(settings(&effects), 0, "1@1 is on three of five: that does not commit it (§5.4.2)");
    effects = server.receive(2, append_reply(2, 1, 2));
    effects.extend(server.receive(3, append_reply(2, 1, 2)));
    assert_eq!(effects.iter().find(|effect| matches!(effect, Effect::Configured { .. })), Some(&configured(3, left())));
    effects.extend(server.receive(4, append_reply(2, 1, 2)));
    effects.extend(server.step(Event::Tick));
    assert_eq!(settings(&effects), 1);
}

#[test]
fn regress_t071_it_is_not_left_during_a_transfer_and_is_after_one_that_failed() {
    let mut server = shrinking();
    server.step(transfer(8, 3));
    let mut effects = server.receive(2, append_reply(1, 2, 2));
    effects.extend(server.receive(4, append_reply(1, 2, 2)));
    assert_eq!(server.status().log.commit, index(2));
    assert_eq!(settings(&effects), 0, "3 would lack it again");
    for _ in 0..20 {
        let told = server.tick();
        for effect in &told {
            if let Effect::Send { to, rpc: Rpc::Heartbeat { round, .. } } = effect
                && to.as_u64() != 3
            {
                effects.extend(server.receive(to.as_u64(), heartbeat_reply(1, round.as_u64(), 2, 2)));
            }
        }
        effects.extend(told);
    }
    assert_eq!(server.role(), (1, RoleKind::Leader));
    assert_eq!(settings(&effects), 1);
}

#[test]
fn rule_d8_a_leader_with_a_full_disk_leaves_it_when_there_is_space() {
    let mut server = shrinking();
    server.step(Event::StorageFull);
    server.receive(2, append_reply(1, 2, 2));
    server.receive(4, append_reply(1, 2, 2));
    while server.status().transfer.is_some() {
        let told = server.tick();
        for effect in &told {
            if let Effect::Send { to, rpc: Rpc::Heartbeat { round, .. } } = effect {
                server.receive(to.as_u64(), heartbeat_reply(1, round.as_u64(), 2, 2));
            }
        }
    }
    assert_eq!((server.role(), server.status().log.last), ((1, RoleKind::Leader), at(2, 1)));
    let effects = server.step(Event::StorageReady);
    assert_eq!(effects.first(), Some(&configured(3, left())));
}

#[test]
fn regress_t064_a_leader_of_the_outgoing_half_only_finishes_what_it_does_not_belong_to() {
    let mut server = Start::first_of_three().settled_leader();
    server.step(change(7, 0, &[remove(1), demote(2)]));
    server.persisted(3);
    assert_eq!(server.receive(2, append_reply(1, 2, 2)), [], "{{3}} has not got it");
    server.receive(3, append_reply(1, 2, 2));
    assert_eq!(server.status().configuration.index, index(3));
    server.persisted(4);
    server.receive(2, append_reply(1, 3, 3));
    assert_eq!(server.status().log.commit, index(2), "neither 1 nor 2 counts any more");
    let effects = server.receive(3, append_reply(1, 3, 3));
    assert_eq!(effects.first(), Some(&done(7, 3, None)));
    assert!(effects.contains(&send(3, timeout_now(1))), "{effects:?}");
    assert_eq!(server.role(), (1, RoleKind::Follower));
}

#[test]
fn regress_t069_a_joint_configuration_that_is_truncated_is_rolled_back_as_a_whole() {
    let start = Start::new(1, &FIVE).log(&[1, 1, 1]).change(2, joint()).change(3, left());
    let mut server = start.follower_of(2);
    let other = entries_of(2, &[2]);
    assert_eq!(
        server.receive(2, append(2, 1, at(1, 1), 0, other.clone())),
        [configured(0, membership(&FIVE)), persist_vote(1, 2, None, other)]
    );
}

#[test]
fn rule_v4_an_outgoing_voter_runs_as_long_as_the_joint_configuration_lasts() {
    let start = Start::new(4, &FIVE).log(&[1, 1]).change(2, joint());
    let mut server = start.server();
    server.tick();
    assert_eq!(server.role(), (1, RoleKind::PreCandidate));
    let mut server = Start::new(4, &FIVE).log(&[1, 1, 1]).change(2, joint()).change(3, left()).server();
    server.tick();
    assert_eq!(server.role(), (1, RoleKind::PreCandidate), "while {{1 2 3}} is not known to be committed");
}

#[test]
fn rule_m3_two_voters_are_replaced_in_one_change_by_learners_that_have_caught_up() {
    let base = changed(&membership(&[1, 2, 3]), &[add_voter(4)]);
    let base = changed(&base, &[crate::members::add(5)]);
    let mut server = Start::first_of_three().members(base).settled_leader();
    for id in [4, 5] {
        server.receive(id, rejected(1, 1, 0, at(0, 0), 0));
        server.receive(id, append_reply(1, 1, 1));
        server.receive(id, heartbeat_reply(1, 1, 1, 1));
    }
    // 4 has become a voter by itself.
    assert_eq!(server.status().configuration.index, index(2));
    server.persisted(3);
    for id in [2, 3, 4, 5] {
        server.receive(id, append_reply(1, 2, 2));
        server.receive(id, heartbeat_reply(1, 2, 2, 2));
    }
    server.step(change(7, 2, &[promote(5), remove(2), remove(3)]));
    let latest = server.status().configuration;
    assert_eq!(latest.membership.to_string(), "{n1 n4 n5 | n1 n2 n3 n4}");
}
