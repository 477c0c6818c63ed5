//! What the paper says of terms, elections and votes, played out: §5.1, §5.2, §5.4.1.
//!
//! The scenarios are those of etcd/raft's `raft_paper_test.go`, under the same names; the rest of
//! them is in `raft_paper_log.rs`. What must come out is ours: a pre-vote comes before each
//! campaign, promises leave after the disk has them, and there is time instead of ticks.

use std::time::Duration;

use raft_core::Verdict::{Granted, Refused};
use raft_core::{Effect, Entries, Event, Message, RoleKind, Rpc, Time};

use crate::rig::{
    Lone, Start, append, append_reply, at, configured, entries_of, hard_state, heartbeat, membership, node, persist,
    persist_vote, pre_vote, pre_vote_reply, received, send, term_over, vote, vote_reply,
};

const NONE: Entries = Entries::EMPTY;

// ---- §5.1: terms -----------------------------------------------------------------------------

/// §5.1 – a server whose term is smaller takes the larger one; a candidate or leader whose term
/// is over follows at once. `written` writes have been issued in term 1.
fn update_term_from_message(mut server: Lone, written: u64) {
    let write = written + 1;
    assert_eq!(server.role().0, 1);
    assert_eq!(server.receive(3, append(2, 1, at(0, 0), 0, NONE)), [persist_vote(write, 2, None, NONE)]);
    assert_eq!((server.role(), server.status().leader), ((2, RoleKind::Follower), Some(node(3))));
    assert_eq!(server.persisted(write), [send(3, append_reply(2, 1, 0))]);
}

#[test]
fn follower_update_term_from_message() {
    update_term_from_message(Start::first_of_three().term(1).follower_of(2), 0);
}

#[test]
fn candidate_update_term_from_message() {
    update_term_from_message(Start::first_of_three().candidate(), 1);
}

#[test]
fn leader_update_term_from_message() {
    update_term_from_message(Start::first_of_three().leader(), 2);
}

/// §5.1 – a request of an earlier term is refused: nothing of it is taken, and it is no sign of a
/// leader. The answer names the term that ended the sender's.
#[test]
fn reject_stale_term_message() {
    let refused = [
        (append(1, 1, at(0, 0), 0, entries_of(1, &[1])), term_over(2)),
        (heartbeat(1, 1, 0), term_over(2)),
        (vote(1, at(9, 1)), vote_reply(2, Refused)),
        (pre_vote(2, 1, at(9, 1)), pre_vote_reply(2, 1, Refused)),
    ];
    for (stale, answer) in refused {
        let mut server = Start::first_of_three().term(2).server();
        let before = (server.status(), server.raft.deadline());
        server.wait(100);
        assert_eq!(server.receive(3, stale.clone()), [send(3, answer)], "{stale}");
        assert_eq!((server.status(), server.raft.deadline()), before, "{stale}");
    }
}

// ---- §5.2: from follower to candidate --------------------------------------------------------

/// §5.2 – servers begin as followers, whatever they were before.
#[test]
fn start_as_follower() {
    let led_before = Start::first_of_three().log(&[1, 3]).term(3).vote(1);
    for start in [Start::first_of_three(), led_before] {
        let mut raft = start.raft();
        assert_eq!((raft.status().role, raft.status().leader), (RoleKind::Follower, None));
        let effects = raft.step(Message { at: Time::from_nanos(1), event: Event::Tick });
        let silent: Vec<_> = effects.into_iter().filter(|effect| !matches!(effect, Effect::Observe(_))).collect();
        assert_eq!(silent, [configured(0, membership(&[1, 2, 3]))]);
        assert_eq!((raft.status().role, raft.status().leader), (RoleKind::Follower, None));
    }
}

/// §5.2 – a leader sends heartbeats, which carry no entries, to all followers, again and again:
/// also while appends are under way.
#[test]
fn leader_bcast_beat() {
    let mut server = Start::first_of_three().settled_leader();
    (10..20).for_each(|number| drop(server.propose(number)));
    for round in [12, 13, 14] {
        assert_eq!(server.patience(), Duration::from_millis(50));
        assert_eq!(server.tick(), [send(2, heartbeat(1, round, 1)), send(3, heartbeat(1, round, 1))]);
    }
}

/// §5.2 – whoever hears nothing over an election timeout begins an election: it raises its term,
/// becomes a candidate, votes for itself, and asks all others at the same time. Thesis 9.6 – but
/// first it asks whether they would. `written` writes have been issued before.
fn start_election(mut server: Lone, campaign: u64, written: u64) {
    let (asked_before, write) = (server.role().0, written + 1);
    let next = asked_before + 1;
    assert!((150..=300).contains(&server.patience().as_millis()), "{:?}", server.patience());
    let question = pre_vote(next, campaign, at(0, 0));
    assert_eq!(server.tick(), [send(2, question.clone()), send(3, question)]);
    assert_eq!(server.role(), (asked_before, RoleKind::PreCandidate), "the term has not changed yet");

    assert_eq!(server.receive(3, pre_vote_reply(next, campaign, Granted)), [persist_vote(write, next, 1, NONE)]);
    assert_eq!(server.persisted(write), [send(2, vote(next, at(0, 0))), send(3, vote(next, at(0, 0)))]);
    assert_eq!(server.role(), (next, RoleKind::Candidate));
    assert_eq!(server.status().hard_state, hard_state(next, 1));
}

#[test]
fn follower_start_election() {
    start_election(Start::first_of_three().term(1).follower_of(2), 1, 0);
}

/// §5.2 – a candidate that gets no majority times out and starts anew.
#[test]
fn candidate_start_new_election() {
    start_election(Start::first_of_three().candidate(), 2, 1);
}

// ---- §5.2: how an election ends --------------------------------------------------------------

/// §5.2 – it wins, it loses, or nobody does. A candidate that has lost waits for its timeout like
/// one that knows nothing: an election that followed at once would split again.
#[test]
fn leader_election_in_one_round_rpc() {
    use RoleKind::{Candidate, Leader};
    let cases: [(u64, &[u64], &[u64], RoleKind); 12] = [
        (3, &[2, 3], &[], Leader),
        (3, &[2], &[], Leader),
        (5, &[2, 3, 4, 5], &[], Leader),
        (5, &[2, 3, 4], &[], Leader),
        (5, &[2, 3], &[], Leader),
        (3, &[], &[2, 3], Candidate),
        (5, &[], &[2, 3, 4, 5], Candidate),
        (5, &[2], &[3, 4, 5], Candidate),
        (3, &[], &[], Candidate),
        (5, &[2], &[], Candidate),
        (5, &[], &[2, 3], Candidate),
        (5, &[], &[], Candidate),
    ];
    for (size, granted, refused, expected) in cases {
        let voters: Vec<u64> = (1..=size).collect();
        let mut server = Start::new(1, &voters).candidate();
        granted.iter().for_each(|voter| drop(server.receive(*voter, vote_reply(1, Granted))));
        refused.iter().for_each(|voter| drop(server.receive(*voter, vote_reply(1, Refused))));
        assert_eq!(server.role(), (1, expected), "{granted:?} of {size} for, {refused:?} against");
        if expected == Candidate {
            server.tick();
            assert_eq!(server.role(), (1, RoleKind::PreCandidate), "it asks again, in no new term yet");
        }
    }
    let mut alone = Start::new(1, &[1]).server();
    alone.persisted(1);
    assert_eq!(alone.role(), (1, Leader), "one vote of one");
}

/// §5.2 – a server votes for at most one candidate in a term: for the one that asks first.
#[test]
fn follower_vote() {
    let first_of_term = |vote: Option<u64>| {
        let start = Start::first_of_three().term(1);
        vote.map_or(start.clone(), |vote| start.vote(vote)).server()
    };
    for candidate in [2, 3] {
        let mut server = first_of_term(None);
        assert_eq!(server.receive(candidate, vote(1, at(0, 0))), [persist_vote(1, 1, candidate, NONE)]);
        assert_eq!(server.persisted(1), [send(candidate, vote_reply(1, Granted))]);
    }
    for (given, candidate, verdict) in [(2, 2, Granted), (3, 3, Granted), (2, 3, Refused), (3, 2, Refused)] {
        let effects = first_of_term(Some(given)).receive(candidate, vote(1, at(0, 0)));
        assert_eq!(effects, [send(candidate, vote_reply(1, verdict))], "{candidate} asks who voted for {given}");
    }
    let mut server = first_of_term(None);
    let both = server.batch([received(3, vote(1, at(0, 0))), received(2, vote(1, at(0, 0)))]);
    assert_eq!(both, [send(2, vote_reply(1, Refused)), persist_vote(1, 1, 3, NONE)], "first come, first served");
}

/// §5.2 – a candidate that hears from a leader whose term is at least its own follows it.
#[test]
fn candidate_fallback() {
    let mut server = Start::first_of_three().candidate();
    assert_eq!(server.receive(2, append(1, 5, at(0, 0), 0, NONE)), [send(2, append_reply(1, 5, 0))]);
    assert_eq!((server.role(), server.status().leader), ((1, RoleKind::Follower), Some(node(2))));

    let mut server = Start::first_of_three().candidate();
    let new = entries_of(1, &[2]);
    assert_eq!(server.receive(2, append(2, 5, at(0, 0), 0, new.clone())), [persist_vote(2, 2, None, new)]);
    assert_eq!((server.role(), server.status().leader), ((2, RoleKind::Follower), Some(node(2))));
    assert_eq!(server.persisted(2), [send(2, append_reply(2, 5, 1))]);
}

// ---- §5.2: timeouts are drawn ----------------------------------------------------------------

/// Makes a follower begin anew, with the leader of another term; how long it will wait.
fn redraw_as_follower(server: &mut Lone) -> Duration {
    let next = server.role().0 + 1;
    let me = server.status().identity.node.as_u64();
    server.receive(me % 3 + 1, heartbeat(next, 1, 0));
    let written = server.status().load.written;
    server.step(Event::Persisted { seq: written });
    assert_eq!(server.role(), (next, RoleKind::Follower));
    server.patience()
}

/// Makes a server campaign in the next term, in vain; how long it will wait for votes.
fn redraw_as_candidate(server: &mut Lone) -> Duration {
    let me = server.status().identity.node;
    let mut questions = Vec::new();
    while questions.is_empty() {
        // The old campaign has to time out first.
        questions.extend(server.tick().into_iter().filter_map(|effect| match effect {
            Effect::Send { to, rpc: Rpc::PreVote { term, campaign, .. } } => Some((to, term, campaign)),
            _ => None,
        }));
    }
    for (to, term, campaign) in questions {
        assert_ne!(to, me);
        server.receive(to.as_u64(), Rpc::PreVoteReply { term, campaign, verdict: Granted });
    }
    let written = server.status().load.written;
    server.step(Event::Persisted { seq: written });
    assert_eq!(server.role().1, RoleKind::Candidate);
    server.patience()
}

/// §5.2 – election timeouts are drawn from a fixed range, and from all of it.
fn timeouts_fill_the_range(mut server: Lone, redraw: impl Fn(&mut Lone) -> Duration) {
    let mut tenths = [0; 10];
    for _ in 0..500 {
        let patience = redraw(&mut server);
        let above = patience.checked_sub(Duration::from_millis(150)).expect("no timeout is below the range");
        assert!(above <= Duration::from_millis(150), "{patience:?} is above the range");
        tenths[usize::try_from(above.as_millis() / 15).expect("it is small").min(9)] += 1;
    }
    assert!(tenths.iter().all(|drawn| *drawn >= 25), "of 500, about 50 in each tenth of the range: {tenths:?}");
}

#[test]
fn follower_election_timeout_randomized() {
    timeouts_fill_the_range(Start::first_of_three().server(), redraw_as_follower);
}

#[test]
fn candidate_election_timeout_randomized() {
    timeouts_fill_the_range(Start::first_of_three().server(), redraw_as_candidate);
}

/// §5.2 – in most cases a single server times out first, and has won before anybody else does:
/// within a millisecond, say, which is more than a round trip in one data centre. Of five servers
/// whose timeouts spread evenly over 150 ms, two are that close in one case of thirty.
fn first_timeouts_rarely_collide(redraw: impl Fn(&mut Lone) -> Duration) {
    let voters = [1, 2, 3, 4, 5];
    let mut servers = voters.map(|me| Start::new(me, &voters).server());
    let mut collisions = 0;
    for _ in 0..1_000 {
        let mut patience = servers.each_mut().map(&redraw);
        patience.sort_unstable();
        collisions += usize::from(patience[1] - patience[0] < Duration::from_millis(1));
    }
    assert!((1..=60).contains(&collisions), "{collisions} of 1,000");
}

#[test]
fn followers_election_timeout_nonconflict() {
    first_timeouts_rarely_collide(redraw_as_follower);
}

#[test]
fn candidates_election_timeout_nonconflict() {
    first_timeouts_rarely_collide(redraw_as_candidate);
}

// ---- §5.4.1: who may be voted for ------------------------------------------------------------

/// §5.4.1 – the request for a vote, like the one before it, shows the end of the candidate's log,
/// and goes to all others.
#[test]
fn vote_request() {
    for terms in [[1].as_slice(), &[1, 2]] {
        let (last, in_term) = (at(terms.len() as u64, terms.len() as u64), terms.len() as u64);
        let mut server = Start::first_of_three().term(in_term).follower_of(2);
        let new = entries_of(1, terms);
        assert_eq!(server.receive(2, append(in_term, 2, at(0, 0), 0, new.clone())), [persist(1, new)]);
        server.persisted(1);
        let (next, question) = (in_term + 1, pre_vote(in_term + 1, 1, last));
        assert_eq!(server.tick(), [send(2, question.clone()), send(3, question)]);
        server.receive(3, pre_vote_reply(next, 1, Granted));
        assert_eq!(server.persisted(2), [send(2, vote(next, last)), send(3, vote(next, last))]);
    }
}

/// §5.4.1 – a voter refuses a candidate whose log is less up-to-date than its own: an earlier
/// last term, or the same one and fewer entries.
#[test]
fn voter() {
    let cases = [
        // The same last term: the longer log is more up-to-date.
        ([1].as_slice(), at(1, 1), Granted),
        (&[1], at(2, 1), Granted),
        (&[1, 1], at(1, 1), Refused),
        // The candidate's last term is later, however short its log is.
        (&[1], at(1, 2), Granted),
        (&[1], at(2, 2), Granted),
        (&[1, 1], at(1, 2), Granted),
        // The voter's is.
        (&[2], at(1, 1), Refused),
        (&[2], at(2, 1), Refused),
        (&[2, 2], at(1, 1), Refused),
        (&[1, 2], at(9, 1), Refused),
    ];
    for (log, last, verdict) in cases {
        let mut server = Start::first_of_three().log(log).term(2).server();
        let told = if verdict == Granted { 3 } else { 2 };
        let answer = pre_vote_reply(told, 7, verdict);
        assert_eq!(server.receive(2, pre_vote(3, 7, last)), [send(2, answer)], "{last} asks {log:?}");

        let effects = server.receive(2, vote(3, last));
        let answer = send(2, vote_reply(3, verdict));
        if verdict == Granted {
            assert_eq!(effects, [persist_vote(1, 3, 2, NONE)], "{last} asks {log:?}");
            assert_eq!(server.persisted(1), [answer]);
        } else {
            assert_eq!(effects, [answer, persist_vote(1, 3, None, NONE)], "{last} asks {log:?}");
        }
    }
}
