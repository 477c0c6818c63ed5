//! Bugs that other systems had when servers hear only some of the others: traps T30–T40. Those of
//! the classical five, T34, T35 and T39, begin in `stories.rs`.

use raft_core::Outcome;

use crate::cluster::Cluster;
use crate::rig::Start;

/// Lets servers talk along a chain only: each with the one before and the one after.
fn chain(cluster: &mut Cluster, order: &[u64]) {
    for (nth, a) in order.iter().enumerate() {
        for b in order.iter().skip(nth + 2) {
            cluster.cut(*a, *b);
        }
    }
}

#[test]
fn regress_t030_a_removed_server_that_goes_on_campaigning_disturbs_nobody() {
    // Server 4 has missed that it was removed: the others are a cluster of three. Its term and its
    // log are ahead of theirs.
    let members = [1, 2, 3];
    let mut starts = members.map(|me| Start::new(me, &members)).to_vec();
    starts.push(Start::new(4, &[1, 2, 3, 4]).log(&[50; 20]));
    let mut cluster = Cluster::new(starts);
    cluster.isolate(4);
    let leader = cluster.elect();
    let term = cluster.term(leader);
    cluster.heal();
    cluster.run(10_000);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term));
    let asked = cluster.delivered.iter().filter(|mail| mail.from.node.as_u64() == 4).count();
    assert!(asked > 60, "it has asked three servers again and again: {asked}");
    cluster.propose(leader, 1);
    assert_eq!(cluster.answer(1), Some(None));
}

#[test]
fn regress_t037_the_only_server_that_hears_a_majority_has_an_old_log_and_nobody_leads() {
    // A limit of Raft, and ours: nobody that may win hears a majority. What must not happen is that
    // terms rise, that something committed is lost, or that one more link does not help.
    let mut cluster = Cluster::of(5);
    let first = cluster.elect();
    let [hub, a, b, c] = [1, 2, 3, 4].map(|step| (first + step - 1) % 5 + 1);
    cluster.isolate(hub);
    (1..=5).for_each(|number| cluster.propose(first, number));
    cluster.heal();
    cluster.isolate(first);
    for (one, other) in [(a, b), (a, c), (b, c)] {
        cluster.cut(one, other);
    }
    cluster.run(1_000);
    let term = cluster.term(hub);
    cluster.run(10_000);
    assert_eq!((cluster.leader(), cluster.term(hub)), (None, term));

    cluster.heal();
    cluster.isolate(first);
    for (one, other) in [(a, c), (b, c)] {
        cluster.cut(one, other);
    }
    let leader = cluster.elect();
    assert!([a, b].contains(&leader), "one more link, and each end of it hears a majority: {leader}");
    cluster.propose(leader, 6);
    assert_eq!(cluster.answer(6), Some(None));
    cluster.heal();
    cluster.run(1_000);
    cluster.assert_converged();
}

#[test]
fn regress_t038_along_a_chain_of_three_the_leader_stays() {
    let mut cluster = Cluster::of(3);
    let end = cluster.elect();
    let order = [end, end % 3 + 1, (end + 1) % 3 + 1];
    chain(&mut cluster, &order);
    let term = cluster.term(end);
    cluster.run(30_000);
    assert_eq!((cluster.leader(), cluster.term(end)), (Some(end), term), "the far end asks, and is not helped");
    cluster.propose(end, 1);
    assert_eq!(cluster.answer(1), Some(None));
}

#[test]
fn regress_t038_along_a_chain_of_five_the_leader_changes_once() {
    let mut cluster = Cluster::of(5);
    let end = cluster.elect();
    let order = [0, 1, 2, 3, 4].map(|step| (end + step - 1) % 5 + 1);
    chain(&mut cluster, &order);
    cluster.run(3_000);
    let leader = cluster.leader().expect("whoever hears two neighbours can lead");
    assert!(order[1..4].contains(&leader), "{leader} of {order:?}");
    let term = cluster.term(leader);
    cluster.run(30_000);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term), "and from then on none");
    cluster.propose(leader, 1);
    assert_eq!(cluster.answer(1), Some(None));
}

#[test]
fn regress_t039_a_leader_that_can_hear_and_not_send_is_replaced() {
    let mut cluster = Cluster::of(3);
    let mute = cluster.elect();
    for other in (1..=3).filter(|other| *other != mute) {
        cluster.cut_one_way(mute, other);
    }
    let leader = cluster.elect();
    assert_ne!(leader, mute);
    cluster.propose(leader, 1);
    assert_eq!(cluster.answer(1), Some(None));
    cluster.heal();
    cluster.run(500);
    cluster.assert_converged();
}

#[test]
fn regress_t039_a_follower_that_can_hear_and_not_send_disturbs_nobody() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let mute = leader % 3 + 1;
    let term = cluster.term(leader);
    for other in (1..=3).filter(|other| *other != mute) {
        cluster.cut_one_way(mute, other);
    }
    for number in 1..=5 {
        cluster.propose(leader, number);
        cluster.run(2_000);
        assert_eq!(cluster.answer(number), Some(None), "the other two are a majority");
    }
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term));
    cluster.heal();
    cluster.run(500);
    cluster.assert_converged();
}

#[test]
fn regress_t040_a_server_stranded_at_a_later_term_says_so_and_is_taken_back() {
    let voters = [1, 2, 3];
    let mut cluster =
        Cluster::new(vec![Start::new(1, &voters), Start::new(2, &voters), Start::new(3, &voters).term(9)]);
    cluster.isolate(3);
    let leader = cluster.elect();
    cluster.propose(leader, 1);
    // The client that reaches only server 3 is not kept waiting.
    cluster.propose(3, 2);
    cluster.read(3, 3);
    let nobody = Some(Some(Outcome::NotLeader { leader: None }));
    assert_eq!((cluster.answer(2), cluster.answer(3)), (nobody.clone(), nobody));

    cluster.heal();
    let leader = cluster.elect();
    assert_eq!([1, 2, 3].map(|id| cluster.term(id)), [10; 3], "one election later all are together");
    cluster.propose(leader, 4);
    cluster.run(500);
    assert_eq!(cluster.answer(4), Some(None));
    cluster.assert_converged();
}
