//! Leaders whose disk stalls: contract D9.

use raft_core::Verdict::Granted;
use raft_core::{Effect, Entries, Event, Observation, RoleKind, Rpc};

use crate::cluster::Cluster;
use crate::members::{resigned, timeout_now, with_learners};
use crate::rig::{
    Lone, Start, append_reply, apply, at, entries, heartbeat_reply, index, persist_vote, pre_vote, proposal, received,
    reply, send, unknown,
};

const NONE: Entries = Entries::EMPTY;

/// Lets time pass in steps of 50 ms, while everybody answers every heartbeat; what the last step did.
fn go_on(server: &mut Lone, millis: u64) -> Vec<Effect> {
    let mut last = Vec::new();
    for _ in 0..millis / 50 {
        server.wait(50);
        last = server.observe([Event::Tick]);
        let answers: Vec<(u64, u64)> = last
            .iter()
            .filter_map(|effect| match effect {
                Effect::Send { to, rpc: Rpc::Heartbeat { round, .. } } => Some((to.as_u64(), round.as_u64())),
                _ => None,
            })
            .collect();
        let matched = |server: &Lone, id| server.progress(id).0;
        for (id, round) in answers {
            let matched = matched(server, id);
            server.receive(id, heartbeat_reply(1, round, matched, matched));
        }
    }
    last
}

/// A leader that has handed 2@1 to its disk, which does not finish it; the others have it.
fn lagging() -> Lone {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    server.receive(2, append_reply(1, 2, 2));
    server.receive(3, append_reply(1, 2, 2));
    assert_eq!((server.status().log.commit, server.status().log.durable), (index(2), index(1)));
    // What lags is noted when the server next looks.
    server.step(Event::Tick);
    server
}

#[test]
fn rule_d9_a_leader_whose_disk_lags_behind_commit_hands_over_and_steps_down() {
    let mut server = lagging();
    go_on(&mut server, 950);
    assert_eq!(server.role(), (1, RoleKind::Leader), "not before the stall limit");
    let effects = go_on(&mut server, 50);
    assert_eq!(
        effects,
        [
            Effect::Observe(Observation::Stalled { index: index(2) }),
            send(2, timeout_now(1)),
            send(3, resigned(1)),
            reply(7, unknown(None)),
            Effect::Observe(Observation::Role { term: crate::rig::term(1), role: RoleKind::Follower }),
            Effect::Observe(Observation::Leader { term: crate::rig::term(1), leader: None }),
            persist_vote(4, 1, 1, NONE),
        ],
        "the best takes over, the other need not wait, and a write is issued to see when the disk is back"
    );
}

#[test]
fn rule_d9_it_does_not_campaign_before_a_write_issued_after_the_step_down_is_done() {
    let mut server = lagging();
    go_on(&mut server, 1_000);
    server.wait(10_000);
    assert_eq!(server.step(Event::Tick), []);
    assert_eq!(server.role(), (1, RoleKind::Follower));
    assert_eq!(server.raft.deadline(), None, "no timer: the disk has to come back first");
    let finished = apply(entries([proposal(2, 1, 7)]), &[]);
    assert_eq!(server.persisted(3), [finished], "a write from before says nothing of the disk as it is now");
    assert_eq!(server.role(), (1, RoleKind::Follower));
    let campaign = [send(2, pre_vote(2, 2, at(2, 1))), send(3, pre_vote(2, 2, at(2, 1)))];
    assert_eq!(server.persisted(4), campaign);
}

#[test]
fn rule_d9_nor_by_order_of_another_leader() {
    let mut server = lagging();
    go_on(&mut server, 1_000);
    server.receive(2, crate::rig::heartbeat(2, 1, 0));
    assert_eq!(server.receive(2, timeout_now(2)), []);
    assert_eq!(server.role(), (2, RoleKind::Follower));
}

#[test]
fn rule_d9_a_disk_that_is_only_slower_than_others_leads_on() {
    // Every write takes 900 ms, and there is always one that the others have done already.
    let mut server = lagging();
    for write in 3..10_u64 {
        let last = write - 1;
        go_on(&mut server, 500);
        server.propose(write + 10);
        for peer in [2, 3] {
            server.receive(peer, append_reply(1, 1, last + 1));
        }
        go_on(&mut server, 400);
        assert_eq!(server.role(), (1, RoleKind::Leader));
        assert!(server.status().log.durable < server.status().log.commit, "it never catches up");
        server.persisted(write);
    }
    go_on(&mut server, 1_050);
    assert_eq!(server.role(), (1, RoleKind::Follower), "and when it does stall, it is found out");
}

#[test]
fn rule_d9_a_stall_is_found_out_while_the_others_go_on_committing() {
    let mut server = lagging();
    for last in 3..12_u64 {
        go_on(&mut server, 100);
        server.propose(last + 10);
        for peer in [2, 3] {
            server.receive(peer, append_reply(1, 1, last));
        }
        assert_eq!((server.role(), server.status().log.commit), ((1, RoleKind::Leader), index(last)));
    }
    go_on(&mut server, 100);
    assert_eq!(server.role(), (1, RoleKind::Follower), "2@1 has waited for a second, whatever came after it");
}

#[test]
fn rule_d9_a_hung_write_with_nothing_committed_is_given_ten_times_as_long() {
    let mut server = Start::first_of_three().settled_leader();
    server.propose(7);
    go_on(&mut server, 9_950);
    assert_eq!(server.role(), (1, RoleKind::Leader));
    let effects = go_on(&mut server, 50);
    assert_eq!(effects.first(), Some(&Effect::Observe(Observation::Stalled { index: index(1) })));
    assert!(effects.contains(&send(2, timeout_now(1))), "{effects:?}");
    assert_eq!(server.role(), (1, RoleKind::Follower));
}

#[test]
fn rule_d9_no_write_in_flight_is_no_stall() {
    let mut server = Start::first_of_three().settled_leader();
    go_on(&mut server, 60_000);
    assert_eq!(server.role(), (1, RoleKind::Leader));
}

#[test]
fn rule_d9_a_sole_voter_has_nobody_to_hand_over_to() {
    let start = Start::new(1, &[1]).members(with_learners(&[1], &[2]));
    let mut server = start.sole_leader();
    server.propose(7);
    server.wait(100_000);
    server.step(Event::Tick);
    assert_eq!(server.role(), (1, RoleKind::Leader));
    let mut alone = Start::new(1, &[1]).sole_leader();
    alone.propose(7);
    assert_eq!(alone.raft.deadline(), None);
    alone.wait(100_000);
    alone.step(Event::Tick);
    assert_eq!(alone.role(), (1, RoleKind::Leader));
}

#[test]
fn rule_d9_the_deadline_is_the_moment_of_the_stall() {
    let mut server = lagging();
    let since = server.now;
    while server.role().1 == RoleKind::Leader {
        server.tick();
        for peer in [2, 3] {
            let newest = 2 + server.now.since(since).as_millis() as u64 / 50;
            server.batch((2..=newest).map(|round| received(peer, heartbeat_reply(1, round, 2, 2))));
        }
    }
    assert_eq!(server.now.since(since).as_millis(), 1_000);
}

#[test]
fn regress_t102_a_cluster_with_a_hung_leader_disk_gets_another_leader_and_keeps_it() {
    let mut cluster = Cluster::of(3);
    let first = cluster.elect();
    cluster.propose(first, 1);
    cluster.stall_disk(first);
    cluster.propose(first, 2);
    cluster.run(1_200);
    let second = cluster.leader().expect("another leader");
    assert_ne!(second, first);
    cluster.propose(second, 3);
    assert_eq!(cluster.answer(3), Some(None));
    let term = cluster.term(second);
    cluster.run(5_000);
    cluster.resume_disk(first);
    cluster.run(5_000);
    assert_eq!((cluster.leader(), cluster.term(second)), (Some(second), term), "no flapping");
    cluster.assert_converged();
}

#[test]
fn rule_d9_when_all_disks_hiccup_together_leadership_does_not_go_round_in_circles() {
    let mut cluster = Cluster::of(3);
    let first = cluster.elect();
    let term = cluster.term(first);
    (1..=3).for_each(|id| cluster.stall_disk(id));
    cluster.propose(first, 1);
    cluster.run(60_000);
    assert!(cluster.term(first) <= term + 1, "from term {term} to {}", cluster.term(first));
    (1..=3).for_each(|id| cluster.resume_disk(id));
    let leader = cluster.elect();
    cluster.propose(leader, 2);
    assert_eq!(cluster.answer(2), Some(None));
}

#[test]
fn a_stalled_leader_still_helps_another_one() {
    let mut server = lagging();
    go_on(&mut server, 1_000);
    server.wait(300);
    assert_eq!(
        server.receive(3, pre_vote(2, 9, at(2, 1))),
        [send(3, crate::rig::pre_vote_reply(2, 9, Granted))],
        "a question binds nobody"
    );
    assert_eq!(
        server.receive(3, crate::rig::vote(2, at(2, 1))),
        [persist_vote(5, 2, 3, NONE)],
        "held until it is done"
    );
    assert_eq!(server.persisted(5).first(), Some(&send(3, crate::rig::vote_reply(2, Granted))));
}
