//! Layer 4, rules: who leads. §5.2, §5.4.1; Thesis 4.2.3, 6.2, 9.6; contract V1–V6.

use crate::majority;
use crate::message::{CampaignId, Rpc, Verdict};
use crate::quorum::Tally;
use crate::role::{Candidate, Follower, Leader, Next, PreCandidate, Role};
use crate::state::State;
use crate::succession;
use crate::types::{NodeId, Peer, Position, Term, Time};

/// Whether a leader is, or was a moment ago, heard of: then nobody else is helped to power
/// (Thesis 4.2.3). For a leader itself: whether a majority has answered it lately.
pub(crate) fn is_leader_alive(state: &State, role: &Role) -> bool {
    let contact = match role {
        Role::Leader(leader) => majority::quorum_anchor(state, leader),
        Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => state.clock.leader_contact,
    };
    let stickiness = state.config.timing().election_timeout_min;
    let is_promised = !matches!(role, Role::Leader(_)) && state.now() < state.clock.promised_until;
    is_promised || contact.is_some_and(|contact| state.now().since(contact) < stickiness)
}

/// Another server asks whether it could win `term`. The answer changes nothing here.
///
/// The comparison is with the log in memory, its unsynced tail included: a vote is a promise
/// about what this server has heard, not about what its disk has finished (contract D3).
pub(crate) fn on_pre_vote(
    state: &mut State,
    role: &Role,
    from: NodeId,
    term: Term,
    campaign: CampaignId,
    last: Position,
) {
    let is_behind = term > state.term() && last < state.log.last();
    state.clock.is_needed |= is_behind;
    let verdict = if !state.can_elect() || term <= state.term() || is_behind {
        Verdict::Refused
    } else if is_leader_alive(state, role) {
        Verdict::LeaderAlive
    } else {
        Verdict::Granted
    };
    // A grant speaks for the term asked about, a refusal for our own: only the latter is adopted.
    let term = if verdict == Verdict::Granted { term } else { state.term() };
    state.outbox.send(from, Rpc::PreVoteReply { term, campaign, verdict });
}

/// A candidate of the current term asks for the vote. §5.2: one vote a term, first come first
/// served; §5.4.1: only to a candidate whose log is at least as up-to-date.
pub(crate) fn on_vote(state: &mut State, role: &mut Role, from: NodeId, last: Position) -> Next {
    let free = match role {
        Role::Follower(follower) => follower.leader.is_none(),
        Role::PreCandidate(_) => true,
        // They have voted for themselves.
        Role::Candidate(_) | Role::Leader(_) => false,
    };
    let pledged = state.hard_state.voted_for == Some(from);
    // The gate has asked this of a newer term; but a term can also have been adopted by other
    // means, such as a refusal that overtook the request.
    let unpledged = state.hard_state.voted_for.is_none() && !is_leader_alive(state, role);
    let is_behind = last < state.log.last();
    state.clock.is_needed |= is_behind;
    if !state.can_elect() || !free || !(pledged || unpledged) || is_behind {
        state.outbox.send(from, Rpc::VoteReply { term: state.hard_state.term, verdict: Verdict::Refused });
        return Next::Stay;
    }
    state.vote_for(from);
    state.outbox.hold(from, Rpc::VoteReply { term: state.hard_state.term, verdict: Verdict::Granted });
    // §5.2 – whoever grants a vote gives the candidate a whole timeout to win.
    match role {
        Role::Follower(follower) => {
            follower.election_at = state.now().after(follower.timeout);
            Next::Stay
        }
        Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
            Next::Follow { term: state.term(), leader: None }
        }
    }
}

/// Somebody has answered the pre-vote.
pub(crate) fn on_pre_vote_reply(
    state: &mut State,
    candidate: &mut PreCandidate,
    from: Peer,
    campaign: CampaignId,
    verdict: Verdict,
) {
    if campaign != candidate.campaign {
        state.counters.drops.count(|drops| &mut drops.stale);
        return;
    }
    candidate.ballots.note(state.membership(), from, verdict);
    if verdict == Verdict::LeaderAlive {
        // V6: the voter only waits for its own timeout. Asking again after one heartbeat, and a
        // little more so that two candidates part, saves a whole timeout.
        let interval = state.config.timing().heartbeat_interval;
        let pause = state.clock.rng.between(interval, interval.saturating_mul(3) / 2);
        candidate.retry_at = candidate.retry_at.min(state.now().after(pause));
    }
}

/// Somebody has answered the request for a vote.
pub(crate) fn on_vote_reply(state: &State, candidate: &mut Candidate, from: Peer, verdict: Verdict) {
    candidate.ballots.note(state.membership(), from, verdict);
}

/// The channel to a peer broke. If it led, nobody has to wait out its stickiness: pre-vote keeps
/// a wrong guess harmless (contract T6).
pub(crate) fn on_leader_unreachable(state: &mut State, follower: &Follower, node: NodeId) {
    if follower.leader == Some(node) {
        state.clock.leader_contact = None;
    }
}

/// The leader of this term leads no longer, and says so.
pub(crate) fn on_resigned(state: &mut State, follower: &Follower, from: NodeId) -> Next {
    if follower.leader != Some(from) {
        state.counters.drops.count(|drops| &mut drops.stale);
        return Next::Stay;
    }
    state.forget_leader();
    Next::Follow { term: state.term(), leader: None }
}

/// What the clock says, once a batch, after everything that was queued (contract T2).
pub(crate) fn on_time(state: &mut State, role: &Role) -> Next {
    if deadline(state, role).is_none_or(|deadline| deadline > state.now()) {
        return Next::Stay;
    }
    match role {
        // V7 – one that was told to run, and would rather not, does not try again.
        Role::Candidate(_) if !state.runs_by_itself() => Next::Follow { term: state.term(), leader: None },
        Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => Next::PreCampaign,
        // Check-quorum (Thesis 6.2): a leader that no majority answers is none.
        Role::Leader(leader) => succession::resign(state, leader, None),
    }
}

/// When [`on_time`] next has something to say.
pub(crate) fn deadline(state: &State, role: &Role) -> Option<Time> {
    match role {
        Role::Follower(Follower { election_at, .. }) => Some(*election_at).filter(|_| state.runs_by_itself()),
        Role::PreCandidate(PreCandidate { retry_at, .. }) => Some(*retry_at).filter(|_| state.runs_by_itself()),
        Role::Candidate(Candidate { election_at, .. }) => election_at.filter(|_| state.can_campaign()),
        Role::Leader(leader) => resignation_at(state, leader),
    }
}

/// When a leader that hears nothing more gives up; never, if it is a majority by itself.
fn resignation_at(state: &State, leader: &Leader) -> Option<Time> {
    if leader.peers.is_empty() {
        return None;
    }
    let anchor = majority::quorum_anchor(state, leader)?;
    Some(anchor.after(state.config.timing().election_timeout_max))
}

/// Draws the consequences of the ballots. A candidate's own vote, and its clock, start when its
/// requests leave, which is when they are durable (contract D1, D7).
pub(crate) fn settle(state: &mut State, role: &mut Role) -> Next {
    match role {
        Role::PreCandidate(candidate) => match candidate.ballots.tally(state.membership()) {
            Tally::Won if state.can_campaign() => Next::Campaign { ordered_in: None },
            Tally::Won | Tally::Lost | Tally::Open => Next::Stay,
        },
        Role::Candidate(candidate) => {
            let is_able = state.outbox.is_hard_state_durable() && state.can_elect();
            if candidate.election_at.is_none() && is_able {
                candidate.ballots.note(state.membership(), state.identity.peer(), Verdict::Granted);
                let timeout = state.draw_election_timeout();
                candidate.election_at = Some(state.now().after(timeout));
            }
            match candidate.ballots.tally(state.membership()) {
                Tally::Won if candidate.election_at.is_some() => Next::Lead,
                Tally::Won | Tally::Lost | Tally::Open => Next::Stay,
            }
        }
        Role::Follower(_) | Role::Leader(_) => Next::Stay,
    }
}
