//! What takes more than one server, and time: members that come and go, leaders that hand over.

use std::collections::BTreeSet;

use raft_core::{Change, Outcome};

use crate::cluster::Cluster;
use crate::members::{add, add_voter, promote, read_by_lease, remove};
use crate::rig::{Start, node, request, store};

fn voters(cluster: &Cluster, id: u64) -> Vec<u64> {
    let configuration = cluster.status(id).configuration;
    assert!(!configuration.membership.is_joint(), "{}", configuration.membership);
    configuration.membership.voters().iter().map(|voter| voter.node.as_u64()).collect()
}

fn is_changed(cluster: &Cluster, number: u64) -> bool {
    matches!(cluster.answer(number), Some(Some(Outcome::Changed { .. })))
}

/// Clients that write, one every ten milliseconds, to whoever leads.
struct Load {
    next: u64,
}

impl Load {
    fn run(&mut self, cluster: &mut Cluster, millis: u64) {
        for _ in 0..millis / 10 {
            if let Some(leader) = cluster.leader() {
                cluster.propose(leader, self.next);
                self.next += 1;
            }
            cluster.run(10);
        }
    }

    /// Every write has ended once; how many of them well.
    fn settle(&self, cluster: &Cluster) -> usize {
        let ended = (1_000..self.next).map(|number| cluster.answer(number).expect("every request ends"));
        ended.filter(Option::is_none).count()
    }
}

fn load() -> Load {
    Load { next: 1_000 }
}

#[test]
fn regress_t072_a_cluster_of_one_grows_to_three_by_learners() {
    let mut cluster = Cluster::of(1);
    let mut load = load();
    load.run(&mut cluster, 500);
    for (number, id) in [(1, 2), (2, 3)] {
        cluster.change(1, number, &[add_voter(id)]);
        load.run(&mut cluster, 500);
        assert!(is_changed(&cluster, number), "a learner that has not even started holds nobody up");
        assert!(!voters(&cluster, 1).contains(&id));
        cluster.start(Start::new(id, &[]));
        load.run(&mut cluster, 1_000);
        assert!(voters(&cluster, 1).contains(&id), "promoted when it had caught up");
    }
    assert_eq!(load.settle(&cluster), (load.next - 1_000) as usize, "no write was lost or refused");
    cluster.run(100);
    cluster.assert_converged();
    cluster.isolate(1);
    let leader = cluster.elect();
    assert_ne!(leader, 1, "the newcomers can do without the founder");
    cluster.propose(leader, 5);
    assert_eq!(cluster.answer(5), Some(None));
}

#[test]
fn a_member_is_replaced_under_load() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let mut load = load();
    load.run(&mut cluster, 300);
    let old = leader % 3 + 1;
    cluster.change(leader, 1, &[add_voter(4)]);
    cluster.start(Start::new(4, &[]));
    load.run(&mut cluster, 1_000);
    cluster.change(leader, 2, &[remove(old)]);
    load.run(&mut cluster, 1_000);
    assert!(is_changed(&cluster, 1) && is_changed(&cluster, 2));
    assert_eq!(cluster.leader(), Some(leader));
    let knows = cluster.status(old).configuration;
    assert_eq!(knows, cluster.status(leader).configuration, "M4: the one that went was told");
    cluster.stop(old);
    load.run(&mut cluster, 1_000);
    cluster.run(100);
    assert_eq!(load.settle(&cluster), (load.next - 1_000) as usize);
    cluster.assert_converged();
}

#[test]
fn the_leader_itself_is_replaced_under_load() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let mut load = load();
    cluster.change(leader, 1, &[add_voter(4)]);
    cluster.start(Start::new(4, &[]));
    load.run(&mut cluster, 1_000);
    let began = cluster.now;
    cluster.change(leader, 2, &[remove(leader)]);
    cluster.run(20);
    let next = cluster.leader().expect("it has handed over");
    assert_ne!(next, leader);
    assert!(cluster.now.since(began).as_millis() < 50, "nobody waited for a timeout");
    load.run(&mut cluster, 1_000);
    cluster.stop(leader);
    load.run(&mut cluster, 1_000);
    cluster.run(100);
    assert!(is_changed(&cluster, 2));
    assert!(load.settle(&cluster) as u64 >= load.next - 1_000 - 2, "at most what was under way has an unknown end");
    cluster.assert_converged();
}

#[test]
fn leadership_goes_round_under_load_without_a_timeout() {
    let mut cluster = Cluster::of(3);
    let mut leader = cluster.elect();
    let mut load = load();
    for number in 1..=9 {
        load.run(&mut cluster, 200);
        let next = leader % 3 + 1;
        cluster.transfer(leader, number, next);
        cluster.run(10);
        assert_eq!(cluster.leader(), Some(next));
        assert_eq!(cluster.answer(number), Some(Some(Outcome::Transferred { leader: None })));
        leader = next;
    }
    load.run(&mut cluster, 200);
    assert_eq!(load.settle(&cluster), (load.next - 1_000) as usize);
    cluster.run(100);
    cluster.assert_converged();
}

#[test]
fn a_learner_reads_what_was_written_before() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    cluster.change(leader, 1, &[add(4)]);
    cluster.start(Start::new(4, &[]));
    cluster.run(500);
    for number in 10..20 {
        cluster.propose(leader, number);
        assert_eq!(cluster.answer(number), Some(None));
        cluster.read(4, number + 100);
        let index = cluster.status(leader).log.commit;
        cluster.run(60);
        assert_eq!(cluster.answer(number + 100), Some(Some(Outcome::ReadReady { index })));
    }
    assert_eq!(voters(&cluster, 4), [1, 2, 3]);
    cluster.change(leader, 2, &[promote(4)]);
    cluster.run(100);
    assert!(is_changed(&cluster, 2), "{:?}", cluster.answer(2));
}

#[test]
fn rule_v4_only_the_removed_leader_of_two_has_the_entry_that_removes_it() {
    let mut cluster = Cluster::of(2);
    let leader = cluster.elect();
    let other = 3 - leader;
    cluster.cut_one_way(leader, other);
    cluster.change(leader, 1, &[remove(leader)]);
    assert_eq!(cluster.status(leader).configuration.membership.voters().len(), 1);
    cluster.restart(leader);
    cluster.restart(other);
    cluster.heal();
    cluster.run(3_000);
    assert_eq!(cluster.leader(), Some(other), "the removed one won once more, finished, and left");
    assert_eq!(voters(&cluster, other), [other]);
    cluster.propose(other, 2);
    assert_eq!(cluster.answer(2), Some(None));
}

#[test]
fn regress_t030_a_removed_member_that_was_away_disturbs_nobody() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let gone = leader % 3 + 1;
    cluster.isolate(gone);
    cluster.run(1_000);
    cluster.change(leader, 1, &[remove(gone)]);
    cluster.run(10_000);
    assert!(is_changed(&cluster, 1));
    let term = cluster.term(leader);
    cluster.heal();
    cluster.run(10_000);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term));
    cluster.restart(gone);
    cluster.run(10_000);
    assert_eq!((cluster.leader(), cluster.term(leader)), (Some(leader), term));
}

#[test]
fn regress_t076_two_of_five_that_are_dead_leave_together() {
    let mut cluster = Cluster::of(5);
    let leader = cluster.elect();
    let dead: Vec<u64> = (1..=5).filter(|id| *id != leader).take(2).collect();
    dead.iter().for_each(|id| cluster.stop(*id));
    cluster.run(500);
    cluster.change(leader, 1, &[remove(dead[0]), remove(dead[1])]);
    cluster.run(500);
    assert!(is_changed(&cluster, 1));
    let living = voters(&cluster, leader);
    assert_eq!(living.len(), 3);
    cluster.stop(leader);
    let leader = cluster.elect();
    cluster.propose(leader, 2);
    assert_eq!(cluster.answer(2), Some(None), "two of three go on, and would not have as two of five");
}

#[test]
fn regress_t071_a_change_whose_leader_dies_half_way_is_finished_by_the_next() {
    let mut cluster = Cluster::of(5);
    let first = cluster.elect();
    let others: Vec<u64> = (1..=5).filter(|id| *id != first).collect();
    others.iter().for_each(|id| cluster.cut_one_way(*id, first));
    cluster.change(first, 1, &[remove(others[0]), remove(others[1])]);
    assert!(cluster.status(others[2]).configuration.membership.is_joint(), "appended, and not committed");
    cluster.stop(first);
    cluster.heal();
    cluster.run(3_000);
    let second = cluster.leader().expect("another leader");
    let wished: BTreeSet<u64> = [first, others[2], others[3]].into();
    assert_eq!(voters(&cluster, second).into_iter().collect::<BTreeSet<_>>(), wished);
    cluster.propose(second, 2);
    assert_eq!(cluster.answer(2), Some(None));
}

#[test]
fn rule_m1_a_wiped_member_comes_back_as_somebody_new() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.elect();
    let wiped = leader % 3 + 1;
    cluster.stop(wiped);
    cluster.change(leader, 1, &[remove(wiped)]);
    cluster.run(500);
    // The same machine, with an empty disk and the store id that it got when that was formatted.
    cluster.change(leader, 2, &[Change::AddLearner { store: store(4), promote: true }]);
    cluster.start(Start::new(4, &[]));
    cluster.run(2_000);
    let members = voters(&cluster, leader);
    assert!(members.contains(&4) && !members.contains(&wiped) && members.len() == 3, "{members:?}");
    cluster.assert_converged();
}

// ---- leases --------------------------------------------------------------------------------

fn with_leases(count: u64) -> Cluster {
    let voters: Vec<u64> = (1..=count).collect();
    Cluster::new(voters.iter().map(|me| Start::new(*me, &voters).leases()).collect())
}

#[test]
fn rule_t3_no_read_by_lease_is_answered_once_another_leader_can_have_written() {
    for cut_after in [0, 3, 17, 31, 49] {
        let mut cluster = with_leases(3);
        let former = cluster.elect();
        cluster.propose(former, 1);
        cluster.run(200 + cut_after);
        cluster.isolate(former);
        let (mut number, mut by_lease) = (100, 0);
        for _ in 0..1_000 {
            cluster.run(1);
            number += 1;
            cluster.step(node(former), read_by_lease(number));
            let answered = matches!(cluster.answer(number), Some(Some(Outcome::ReadReady { .. })));
            by_lease += u32::from(answered);
            let successor = cluster.leader().filter(|leader| *leader != former);
            assert!(!(answered && successor.is_some()), "a stale read, with {successor:?} leading");
        }
        assert!(by_lease > 90, "leases last for a while: {by_lease} ms");
    }
}

#[test]
fn regress_t014_no_read_by_lease_is_answered_after_a_transfer_was_ordered() {
    let mut cluster = with_leases(3);
    let former = cluster.elect();
    cluster.run(200);
    let next = former % 3 + 1;
    // The successor hears the order; the former leader hears nothing more.
    cluster.cut_one_way(next, former);
    cluster.cut_one_way(6 - former - next, former);
    cluster.transfer(former, 1, next);
    assert_eq!(cluster.status(next).role, raft_core::RoleKind::Leader);
    cluster.propose(next, 2);
    assert_eq!(cluster.answer(2), Some(None));
    cluster.step(node(former), read_by_lease(3));
    assert_eq!(cluster.answers.get(&request(3)), None, "it may not have heard of write 2");
}

#[test]
fn rule_t5_a_cluster_with_leases_that_restarts_as_a_whole_comes_back() {
    let mut cluster = with_leases(3);
    let leader = cluster.elect();
    cluster.propose(leader, 1);
    (1..=3).for_each(|id| cluster.restart(id));
    let leader = cluster.elect();
    cluster.propose(leader, 2);
    assert_eq!(cluster.answer(2), Some(None));
}
