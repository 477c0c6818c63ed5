//! What a log or a metric is told: losable, but not wrong.

use raft_core::{Effect, Event, Observation, RoleKind, Verdict};

use crate::rig::{
    Lone, Start, append, append_reply, at, entries_of, heartbeat, node, pre_vote_reply, propose, received, request,
    term, term_over, vote_reply,
};

/// What was observed, in the notation of logs as well.
fn observed(effects: Vec<Effect>) -> (Vec<Observation>, Vec<String>) {
    let observations: Vec<Observation> = effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Observe(observation) => Some(observation),
            _ => None,
        })
        .collect();
    let lines = observations.iter().map(|observation| format!("n1{observation}")).collect();
    (observations, lines)
}

fn wake(server: &mut Lone) -> Vec<Effect> {
    server.now = server.raft.deadline().expect("a follower waits");
    server.observe([Event::Tick])
}

fn role(in_term: u64, role: RoleKind) -> Observation {
    Observation::Role { term: term(in_term), role }
}

fn leader(in_term: u64, leader: impl Into<Option<u64>>) -> Observation {
    Observation::Leader { term: term(in_term), leader: leader.into().map(node) }
}

#[test]
fn an_election_is_observed_step_by_step() {
    let mut server = Start::first_of_three().server();
    let (seen, lines) = observed(wake(&mut server));
    assert_eq!((seen, lines), (vec![role(0, RoleKind::PreCandidate)], vec!["n1@0 pre-candidate".into()]));
    let (seen, lines) = observed(server.observe([received(2, pre_vote_reply(1, 1, Verdict::Granted))]));
    assert_eq!((seen, lines), (vec![role(1, RoleKind::Candidate)], vec!["n1@1 candidate".into()]));
    server.persisted(1);
    let (seen, lines) = observed(server.observe([received(2, vote_reply(1, Verdict::Granted))]));
    assert_eq!(seen, [role(1, RoleKind::Leader), leader(1, 1)]);
    assert_eq!(lines, ["n1@1 leader", "n1@1 follows n1"]);
    let (seen, lines) = observed(server.observe([received(3, term_over(4))]));
    assert_eq!(seen, [role(4, RoleKind::Follower), leader(4, None)]);
    assert_eq!(lines, ["n1@4 follower", "n1@4 knows no leader"]);
}

#[test]
fn a_follower_observes_its_leader_once_and_its_loss() {
    let mut server = Start::first_of_three().term(1).server();
    let (seen, lines) = observed(server.observe([received(2, heartbeat(1, 1, 0))]));
    assert_eq!((seen, lines), (vec![leader(1, 2)], vec!["n1@1 follows n2".into()]));
    assert_eq!(observed(server.observe([received(2, heartbeat(1, 2, 0))])).0, [], "nothing new");
    let (seen, lines) = observed(wake(&mut server));
    assert_eq!(seen, [role(1, RoleKind::PreCandidate), leader(1, None)]);
    assert_eq!(lines, ["n1@1 pre-candidate", "n1@1 knows no leader"]);
}

#[test]
fn a_leader_observes_where_a_proposal_stands_and_when_it_is_committed() {
    let mut server = Start::first_of_three().settled_leader();
    let (seen, lines) = observed(server.observe([propose(7), propose(8)]));
    let accepted = |number, position| Observation::Accepted { request: request(number), position };
    assert_eq!(seen, [accepted(7, at(2, 1)), accepted(8, at(3, 1))]);
    assert_eq!(lines, ["n1@1 accepted request 7 as 2@1", "n1@1 accepted request 8 as 3@1"]);
    server.persisted(3);
    let (seen, lines) = observed(server.observe([received(2, append_reply(1, 2, 3))]));
    assert_eq!(seen, [Observation::Committed { position: at(3, 1) }]);
    assert_eq!(lines, ["n1@1 committed 3@1"]);
}

#[test]
fn a_follower_observes_what_is_committed_of_what_it_holds() {
    let mut server = Start::first_of_three().term(1).follower_of(2);
    let (seen, _) = observed(server.observe([received(2, append(1, 2, at(0, 0), 9, entries_of(1, &[1, 1])))]));
    assert_eq!(seen, [Observation::Committed { position: at(2, 1) }]);
}
