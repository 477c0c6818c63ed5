//! Hub: what must be true of one server, one function for each named property.
//!
//! State checks look at one moment, delta checks at a step from one moment to the next. They run
//! in every debug build, and in release builds with the feature `invariants` (the simulator).
//! Properties of several servers, such as election safety, are the simulator's.

use crate::role::Role;
use crate::state::State;
use crate::types::{HardState, Index, Position, Term};

/// What a delta check remembers of the moment before a step.
pub(crate) struct Before {
    hard_state: HardState,
    commit: Index,
    applied: Index,
    /// Which stay in a role it is.
    stay: u64,
    /// The term and the end of the log, if this server led.
    led: Option<(Term, Position)>,
}

const ON: bool = cfg!(any(debug_assertions, feature = "invariants"));

impl Before {
    pub(crate) fn of(state: &State, role: &Role) -> Self {
        let leads = matches!(role, Role::Leader(_));
        Self {
            hard_state: state.hard_state,
            commit: state.commit,
            applied: state.applying.applied,
            stay: state.counters.roles,
            led: leads.then(|| (state.term(), state.log.last())),
        }
    }
}

/// Checks everything, if checks are on.
pub(crate) fn check(before: &Before, state: &State, role: &Role) {
    if !ON || !state.clock.started {
        return;
    }
    indices_are_ordered(state);
    log_is_within_its_term(state);
    runs_are_rising(state);
    cache_holds_what_is_not_durable(state);
    leader_was_voter_and_voted_for_itself(state, role);
    snapshot_and_log_meet(state);
    peers_match_within_the_log(state, role);
    follower_commits_what_it_verified(state, role, before);
    term_never_falls(before, state);
    vote_never_changes_within_a_term(before, state);
    commit_and_applied_never_fall(before, state);
    leader_appends_only(before, state, role);
}

/// I10 – applied ≤ handed ≤ commit ≤ last, base ≤ handed, and base ≤ durable ≤ last. The state
/// machine may lag behind the base: a snapshot that was installed is still to be read in.
fn indices_are_ordered(state: &State) {
    let (base, last, durable) = (state.log.base().index, state.log.last().index, state.log.durable());
    let (applied, handed) = (state.applying.applied, state.applying.handed);
    assert!(base <= handed, "handed over {handed}, which is before the log's base {base}");
    assert!(applied <= handed, "applied {applied}, but only {handed} was handed over");
    assert!(handed <= state.commit, "handed over {handed}, but only {} is committed", state.commit);
    assert!(state.commit <= last, "committed {}, but the log ends at {last}", state.commit);
    assert!(base <= durable, "durable {durable} is before the log's base {base}");
    assert!(durable <= last, "durable {durable} is beyond the log's end {last}");
}

/// No entry is of a later term than the server.
fn log_is_within_its_term(state: &State) {
    let last = state.log.last();
    assert!(last.term <= state.term(), "the log ends at {last}, but the term is {}", state.term());
}

/// Runs begin after the base, and rise in index and term.
fn runs_are_rising(state: &State) {
    let first = state.log.runs().first().map(|run| run.first);
    let expected = (state.log.last().index > state.log.base().index).then(|| state.log.base().index.next());
    assert_eq!(first, expected, "the terms of the log do not begin after its base {}", state.log.base());
    let rising = state.log.runs().is_sorted_by(|a, b| a.first < b.first && a.term < b.term);
    assert!(rising, "term runs out of order: {:?}", state.log.runs());
}

/// D6 – what is not durable has no other copy here than the one in memory.
fn cache_holds_what_is_not_durable(state: &State) {
    let (from, durable) = (state.log.cached_from(), state.log.durable());
    assert!(from <= durable.next(), "memory begins at {from}, but only {durable} is durable");
}

/// §5.2 – whoever leads was a candidate of that term, and voted for itself.
fn leader_was_voter_and_voted_for_itself(state: &State, role: &Role) {
    if let Role::Leader(_) | Role::Candidate(_) = role {
        assert_eq!(state.hard_state.voted_for, Some(state.me()), "a candidate or leader that voted for another");
        assert!(may_have_run(state), "a candidate or leader that was a voter in no configuration of its log");
    }
}

/// V4 – a leader goes on until the configuration without it is committed, and a node runs in the
/// configuration before the latest.
fn may_have_run(state: &State) -> bool {
    state.configurations.any(|membership| membership.is_voter(state.identity.node, state.identity.store))
}

/// S1 – the log holds the end of the newest snapshot, or begins there; and whatever it lacks, the
/// snapshot has.
fn snapshot_and_log_meet(state: &State) {
    let (snapshot, base) = (state.snapshots.last(), state.log.base());
    assert!(base.index <= snapshot.index, "the log begins after {base}, the newest snapshot ends at {snapshot}");
    assert!(state.log.holds(snapshot), "the log does not hold the end of the newest snapshot, {snapshot}");
}

/// A leader believes of no peer that it has more than the leader itself.
fn peers_match_within_the_log(state: &State, role: &Role) {
    let Role::Leader(leader) = role else { return };
    let last = state.log.last().index;
    for (node, progress) in &leader.peers {
        let (matched, next) = (progress.matched(), progress.next());
        assert!(matched <= last, "{node} matches up to {matched}, but the log ends at {last}");
        assert!(matched < next, "{node} matches up to {matched}, but is sent {next} next");
        assert!(next <= last.next(), "{node} is sent {next} next, but the log ends at {last}");
    }
}

/// R3 – a follower's commit index rises only to what it has matched with its leader.
fn follower_commits_what_it_verified(state: &State, role: &Role, before: &Before) {
    let Role::Follower(follower) = role else { return };
    // A new stay in the role forgets what was verified in the one before, even in the same term:
    // the leader may have resigned.
    if state.commit > before.commit && before.stay == state.counters.roles {
        let (commit, verified) = (state.commit, follower.verified);
        assert!(commit <= verified, "committed {commit}, but only {verified} is known to match the leader");
    }
}

/// I8, in memory.
fn term_never_falls(before: &Before, state: &State) {
    let (was, is) = (before.hard_state.term, state.term());
    assert!(was <= is, "the term fell from {was} to {is}");
}

/// I9, in memory – one vote a term.
fn vote_never_changes_within_a_term(before: &Before, state: &State) {
    if before.hard_state.term == state.term() && before.hard_state.voted_for.is_some() {
        assert_eq!(before.hard_state.voted_for, state.hard_state.voted_for, "a vote changed within a term");
    }
}

/// I10 – what is committed or applied stays so.
fn commit_and_applied_never_fall(before: &Before, state: &State) {
    let (commit, applied) = (state.commit, state.applying.applied);
    assert!(before.commit <= commit, "the commit index fell from {} to {commit}", before.commit);
    assert!(before.applied <= applied, "the applied index fell from {} to {applied}", before.applied);
}

/// I2 – a leader never removes or replaces an entry in its own term.
fn leader_appends_only(before: &Before, state: &State, role: &Role) {
    if let (Some((term, last)), Role::Leader(_)) = (before.led, role)
        && term == state.term()
    {
        assert!(state.log.holds(last), "the leader of term {term} no longer holds {last}");
    }
}
