//! What takes more than one server to say: elections, deaths, cut links, slow disks.

use raft_core::{Outcome, Rpc};

use crate::cluster::Cluster;
use crate::rig::{Start, node};

#[test]
fn three_servers_elect_replicate_and_survive_a_death() {
    let mut cluster = Cluster::of(3);
    let first = cluster.elect();
    (1..=5).for_each(|number| cluster.propose(first, number));
    assert!((1..=5).all(|number| cluster.answer(number) == Some(None)));
    cluster.isolate(first);
    let second = cluster.elect();
    assert_ne!(first, second);
    cluster.propose(second, 6);
    assert_eq!(cluster.answer(6), Some(None));
    cluster.heal();
    cluster.run(500);
    cluster.assert_converged();
    assert_eq!(cluster.leader(), Some(second), "who comes back disturbs nobody");
}

#[test]
fn a_stable_cluster_keeps_its_leader_and_its_term() {
    let mut cluster = Cluster::of(5);
    let leader = cluster.elect();
    let term = cluster.term(leader);
    cluster.run(60_000);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term));
}

#[test]
fn an_isolated_server_does_not_raise_its_term() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let lonely = leader % 3 + 1;
    let term = cluster.term(leader);
    cluster.isolate(lonely);
    cluster.run(10_000);
    assert_eq!(cluster.term(lonely), term, "pre-vote: it asks before it raises");
    cluster.heal();
    cluster.run(500);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term));
}

#[test]
fn a_whole_cluster_restarts_from_its_disks() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    (1..=5).for_each(|number| cluster.propose(leader, number));
    (1..=3).for_each(|id| cluster.restart(id));
    let leader = cluster.elect();
    cluster.propose(leader, 6);
    cluster.run(500);
    cluster.assert_converged();
    assert_eq!(cluster.status(leader).log.applied, cluster.status(leader).log.last.index);
}

#[test]
fn a_deposed_leader_gives_up_what_only_it_holds() {
    let mut cluster = Cluster::of(3);
    let first = cluster.elect();
    cluster.propose(first, 1);
    cluster.isolate(first);
    (2..=4).for_each(|number| cluster.propose(first, number));
    let second = cluster.elect();
    cluster.propose(second, 5);
    cluster.heal();
    cluster.run(500);
    cluster.assert_converged();
    let lost = Some(Some(Outcome::Unknown { leader: None }));
    assert_eq!(
        [2, 3, 4].map(|number| cluster.answer(number)),
        [(); 3].map(|()| lost.clone()),
        "it resigned before anybody else led"
    );
    assert_eq!((cluster.answer(1), cluster.answer(5)), (Some(None), Some(None)));
}

#[test]
fn regress_t027_a_cluster_of_two_elects() {
    let mut cluster = Cluster::of(2);
    let leader = cluster.elect();
    cluster.propose(leader, 1);
    cluster.run(100);
    cluster.assert_converged();
}

#[test]
fn regress_t034_five_servers_with_two_behind_one_link_each_keep_their_leader() {
    // 1, 2, 3 all see each other; 4 sees only 2, and 5 sees only 3.
    let mut cluster = Cluster::of(5);
    for (a, b) in [(1, 4), (3, 4), (5, 4), (1, 5), (2, 5)] {
        cluster.cut(a, b);
    }
    let leader = cluster.elect();
    let term = cluster.term(leader);
    cluster.run(30_000);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term), "no change in half a minute");
    cluster.propose(leader, 1);
    assert_eq!(cluster.answer(1), Some(None));
}

#[test]
fn regress_t035_a_leader_that_sees_only_one_server_resigns_for_one_that_sees_all() {
    let mut cluster = Cluster::of(5);
    let first = cluster.elect();
    let hub = first % 5 + 1;
    for a in 1..=5 {
        for b in 1..=5 {
            if a != b && a != hub && b != hub {
                cluster.cut(a, b);
            }
        }
    }
    cluster.run(3_000);
    assert_eq!(cluster.leader(), Some(hub));
    cluster.propose(hub, 1);
    assert_eq!(cluster.answer(1), Some(None));
}

#[test]
fn regress_t039_a_leader_that_can_send_and_not_hear_is_replaced() {
    let mut cluster = Cluster::of(3);
    let deaf = cluster.elect();
    for other in (1..=3).filter(|other| *other != deaf) {
        cluster.cut_one_way(other, deaf);
    }
    let leader = cluster.elect();
    assert_ne!(leader, deaf);
    cluster.propose(leader, 1);
    assert_eq!(cluster.answer(1), Some(None));
}

#[test]
fn regress_t039_a_follower_that_can_send_and_not_hear_disturbs_nobody() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let deaf = leader % 3 + 1;
    let term = cluster.term(leader);
    for other in (1..=3).filter(|other| *other != deaf) {
        cluster.cut_one_way(other, deaf);
    }
    cluster.run(10_000);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term));
    cluster.heal();
    cluster.run(500);
    cluster.propose(leader, 1);
    cluster.run(100);
    cluster.assert_converged();
}

#[test]
fn regress_t060_a_pipeline_survives_the_stall_of_a_followers_disk() {
    let voters = [1, 2, 3];
    let tight = |me| {
        Start::new(me, &voters).limits(|limits| {
            limits.unsynced_bytes_max = 100;
            limits.inflight_messages_max = 8;
        })
    };
    let mut cluster = Cluster::new(voters.map(tight).to_vec());
    let leader = cluster.elect();
    let slow = leader % 3 + 1;
    cluster.stall_disk(slow);
    for number in 1..=50 {
        cluster.propose(leader, number);
        cluster.run(10);
        assert_eq!(cluster.answer(number), Some(None), "the other two go on");
    }
    assert!(cluster.status(slow).load.drops.overload > 0, "its memory is bounded");
    cluster.resume_disk(slow);
    cluster.run(1_000);
    cluster.assert_converged();
}

#[test]
fn regress_t052_a_dead_follower_is_not_flooded() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let dead = leader % 3 + 1;
    cluster.isolate(dead);
    for number in 1..=500 {
        cluster.propose(leader, number);
    }
    let status = cluster.status(leader);
    let peer = status.peers.iter().find(|peer| peer.node == node(dead)).expect("it is a member");
    assert!(peer.inflight <= 128, "{peer:?}");
    cluster.heal();
    cluster.run(500);
    cluster.assert_converged();
}

#[test]
fn rule_d1_a_vote_survives_the_crash_that_follows_it() {
    // The schedule of D1: a vote that left before it was durable, a crash, and a second vote in the same term.
    let mut cluster = Cluster::of(3);
    cluster.stall_disk(1);
    cluster.cut(2, 3);
    cluster.run(2_000);
    let voted_early = cluster.delivered.iter().filter(|mail| mail.from.node == node(1));
    let promised = voted_early.filter(|mail| matches!(mail.rpc, Rpc::Vote { .. } | Rpc::VoteReply { .. })).count();
    assert_eq!(promised, 0, "with its disk stalled, server 1 has promised nothing to anybody");
    cluster.restart(1);
    cluster.heal();
    cluster.run(2_000);
}

#[test]
fn rule_q1_a_leader_that_was_replaced_answers_no_read() {
    let mut cluster = Cluster::of(3);
    let former = cluster.elect();
    cluster.propose(former, 1);
    cluster.isolate(former);
    cluster.run(200);
    cluster.read(former, 2);
    let leader = cluster.elect();
    assert_ne!(leader, former);
    cluster.propose(leader, 3);
    cluster.heal();
    cluster.run(500);
    assert_eq!(cluster.answer(2), Some(Some(Outcome::NotLeader { leader: None })));
    cluster.read(leader, 4);
    let ready = cluster.status(leader).log.commit;
    assert_eq!(cluster.answer(4), Some(Some(Outcome::ReadReady { index: ready })));
}

#[test]
fn regress_t057_a_follower_that_restarts_in_an_idle_cluster_catches_up_in_its_machine() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    (1..=5).for_each(|number| cluster.propose(leader, number));
    cluster.run(100);
    let restarted = leader % 3 + 1;
    cluster.restart(restarted);
    cluster.run(140);
    assert_eq!(cluster.leader(), Some(leader));
    cluster.assert_converged();
}

#[test]
fn a_follower_that_was_away_is_fed_from_the_disk_of_a_leader_with_a_tiny_cache() {
    let voters = [1, 2, 3];
    let tiny = |me| {
        Start::new(me, &voters).limits(|limits| {
            limits.log_cache_bytes = 0;
            limits.message_bytes_max = 200;
        })
    };
    let mut cluster = Cluster::new(voters.map(tiny).to_vec());
    let leader = cluster.elect();
    let away = leader % 3 + 1;
    cluster.isolate(away);
    for number in 1..=200 {
        cluster.propose(leader, number);
        cluster.run(1);
    }
    assert_eq!(cluster.status(leader).log.cached_bytes, 0);
    cluster.heal();
    cluster.run(5_000);
    cluster.assert_converged();
}
