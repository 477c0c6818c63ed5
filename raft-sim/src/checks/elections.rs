//! Elections: I1 election safety, I9 one vote a term, I18 legal votes, I19 promises to leaders,
//! and who may speak as leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft_core::{
    CampaignId, Effect, ForwardId, NodeId, Observation, Outcome, Position, RoleKind, Rpc, Term, Time, Timing,
    Verdict as Vote,
};

use super::majorities::{decides, in_force};
use super::{Step, Verdict, ensure};
use crate::slot;

/// Who led, who asked, who voted for whom: over the whole run, across all crashes.
#[derive(Debug)]
pub struct Elections {
    timing: Timing,
    /// How many millionths each clock may be off.
    drift_ppm: u32,
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(Term, NodeId), NodeId>,
    candidacies: BTreeMap<(Term, NodeId), Candidacy>,
    /// Whom the leader of a term has told to take over.
    orders: BTreeSet<(Term, NodeId)>,
    inquiries: BTreeMap<(NodeId, CampaignId), Inquiry>,
    /// The newest inquiry of each node.
    newest: Vec<Option<CampaignId>>,
    /// When each node last heard from a leader that it could not refuse.
    contact: Vec<Option<Time>>,
    /// What each node has promised the leader of a term: to elect nobody else for so long from
    /// then on. Restarts do not void it.
    promises: Vec<Option<Promise>>,
    /// Until when each node is bound, at least, by what it promised the leader of a term.
    bound: BTreeMap<(Term, NodeId), Time>,
    /// Questions that each node has got hold of before: a second copy is answered with the first.
    questions: BTreeSet<(NodeId, NodeId, ForwardId)>,
    /// When each leader last heard from each node; its election counts as hearing from all.
    answered: Vec<Vec<Time>>,
}

/// A request for votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidacy {
    /// Where the log of the candidate ends.
    last: Position,
    /// The leader of this term has told it to take over.
    ordered_in: Option<Term>,
}

/// A pre-vote: where the log of whoever asks ends, and who has said yes.
#[derive(Debug)]
struct Inquiry {
    last: Position,
    granted: BTreeSet<NodeId>,
}

/// A promise to elect nobody else for a while.
#[derive(Clone, Copy, Debug)]
struct Promise {
    given: Time,
    lasts: Duration,
}

impl Elections {
    /// Before the first election, for nodes with ids up to `nodes`, whose clocks are off by at
    /// most `drift_ppm` millionths.
    pub fn new(nodes: usize, timing: Timing, drift_ppm: u32) -> Self {
        Self {
            timing,
            drift_ppm,
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            candidacies: BTreeMap::new(),
            orders: BTreeSet::new(),
            inquiries: BTreeMap::new(),
            newest: vec![None; nodes],
            contact: vec![None; nodes],
            promises: vec![None; nodes],
            bound: BTreeMap::new(),
            questions: BTreeSet::new(),
            answered: vec![vec![Time::ZERO; nodes]; nodes],
        }
    }

    /// Who was elected in `term`.
    pub fn leader(&self, term: Term) -> Option<NodeId> {
        self.leaders.get(&term).copied()
    }

    /// In how many terms somebody was elected.
    pub fn count(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// What `duration` on the fastest clock comes to at least.
    fn at_least(&self, duration: Duration) -> Duration {
        on_world_clock(duration, 1_000_000 + u64::from(self.drift_ppm))
    }

    /// What `duration` on the slowest clock comes to at most.
    fn at_most(&self, duration: Duration) -> Duration {
        on_world_clock(duration, 1_000_000 - u64::from(self.drift_ppm))
    }

    /// Takes note of new leaders; returns the terms that this node has just won.
    pub(super) fn on_roles(&mut self, step: &Step<'_>) -> Result<Vec<Term>, super::Violation> {
        let mut won = Vec::new();
        let observed = step.effects.iter().filter_map(|effect| match effect {
            Effect::Observe(Observation::Role { term, role: RoleKind::Leader }) => Some(*term),
            _ => None,
        });
        let now = (step.after.role == RoleKind::Leader).then_some(step.after.hard_state.term);
        for term in observed.chain(now) {
            match self.leaders.insert(term, step.node) {
                None => {
                    self.majority_voted(term, step)?;
                    won.push(term);
                }
                Some(other) => {
                    ensure!(
                        other == step.node,
                        ElectionSafety,
                        "{} became leader of term {term}, which already had {other} as leader",
                        step.node
                    );
                }
            }
        }
        self.has_majority(step, !won.is_empty())?;
        Ok(won)
    }

    /// Thesis 6.2 – a leader goes on without the answers of a majority for the longest election
    /// timeout at most. The core counts from where it asked; here it is from where answers came,
    /// which is later, so nobody is blamed wrongly.
    fn has_majority(&mut self, step: &Step<'_>, elected: bool) -> Verdict {
        let known = &step.before.configuration.membership;
        let answered = &mut self.answered[slot(step.node)];
        for (place, at) in answered.iter_mut().enumerate() {
            // A new member is given the time that a new leader gives everybody.
            let is_new = || known.member(crate::node_at(place)).is_none();
            if elected || place == slot(step.node) || step.inbox.heard >> place & 1 == 1 || is_new() {
                *at = step.now;
            }
        }
        if step.after.role != RoleKind::Leader {
            return Ok(());
        }
        let limit = self.at_most(self.timing.election_timeout_max);
        let answered = &self.answered[slot(step.node)];
        ensure!(
            decides(&step.after.configuration.membership, |node| { step.clock.since(answered[slot(node)]) <= limit }),
            CheckQuorum,
            "{} is still leader of term {} after no majority of {} has answered it for {limit:?}",
            step.node,
            step.after.hard_state.term,
            step.after.configuration.membership
        );
        Ok(())
    }

    /// A leader's majority consists of votes that were really sent, and of its own; each counts
    /// only where it is a vote.
    fn majority_voted(&self, term: Term, step: &Step<'_>) -> Verdict {
        let node = step.node;
        // Its own vote is on its disk, which is checked below.
        let voted = |voter: NodeId| voter == node || self.votes.get(&(term, voter)) == Some(&node);
        ensure!(
            in_force(step).any(|membership| decides(membership, voted)),
            ElectionSafety,
            "{node} became leader of term {term} in {} with the votes of {:?}",
            step.before.configuration.membership,
            self.answered
                .iter()
                .enumerate()
                .map(|(place, _)| crate::node_at(place))
                .filter(|node| voted(*node))
                .collect::<Vec<_>>()
        );
        let durable = step.disks[slot(node)].hard_state();
        let own_is_durable = durable.term > term || (durable.term == term && durable.voted_for == Some(node));
        ensure!(
            own_is_durable,
            DurableBeforeSend,
            "{node} became leader of term {term} before its own vote was durable ({durable:?})"
        );
        Ok(())
    }

    /// Judges what a step says about votes.
    pub(super) fn on_votes(&mut self, step: &Step<'_>) -> Verdict {
        // As before the step: in a batch, what a node heard last need not be what it did last.
        let heard = (self.contact[slot(step.node)], self.promises[slot(step.node)]);
        if step.after.role == RoleKind::Candidate && step.before.role != RoleKind::Candidate {
            self.on_campaign(step)?;
        }
        for effect in step.effects {
            match effect {
                Effect::Persist { hard_state: Some(new), .. } => {
                    if let Some(candidate) = new.voted_for.filter(|candidate| *candidate != step.node) {
                        self.on_decision(step, new.term, candidate, heard)?;
                    }
                }
                Effect::Send { to, rpc } => self.on_send(step, *to, rpc)?,
                _ => {}
            }
        }
        let follows = step.after.leader;
        ensure!(
            follows.is_none() || follows == self.leader(step.after.hard_state.term),
            Provenance,
            "{} follows {follows:?} in term {}, whose leader is {:?}",
            step.node,
            step.after.hard_state.term,
            self.leader(step.after.hard_state.term)
        );
        if step.inbox.leader.is_some_and(|term| term == step.after.hard_state.term) {
            self.contact[slot(step.node)] = Some(step.clock);
        }
        if step.inbox.unreachable || self.is_released(step) {
            self.contact[slot(step.node)] = None;
        }
        if self.is_released(step) {
            self.promises[slot(step.node)] = None;
        }
        Ok(())
    }

    /// Whether the leader that this node follows has said in this step that it leads no longer, or
    /// has somebody else say that it hands over.
    fn is_released(&self, step: &Step<'_>) -> bool {
        let by_order = step.inbox.by_order.is_some_and(|(candidate, in_term)| {
            self.orders.contains(&(in_term, candidate)) && may_be_in(step, in_term)
        });
        by_order || self.is_let_go(step)
    }

    fn is_let_go(&self, step: &Step<'_>) -> bool {
        step.inbox.resigned.is_some_and(|(from, term)| self.leader(term) == Some(from))
            || step.inbox.ordered.is_some_and(|(from, term)| self.leader(term) == Some(from))
    }

    /// I19, T3, T4 – what is answered in the step in which it was asked was asked of nobody else:
    /// only as long as a majority is bound to elect nobody else, and nobody was told to take over.
    pub(super) fn on_leases(&mut self, step: &Step<'_>) -> Verdict {
        let (node, term) = (step.node, step.after.hard_state.term);
        let mut questions = step.inbox.lease_questions.clone();
        questions.retain(|(from, id)| self.questions.insert((node, *from, *id)));
        let is_by_lease = step.after.role == RoleKind::Leader
            && step.effects.iter().any(|effect| match effect {
                Effect::Reply { request, outcome: Outcome::ReadReady { .. } } => {
                    step.inbox.lease_read == Some(*request)
                }
                Effect::Send { to, rpc: Rpc::ReadIndexReply { id, index: Some(_), .. } } => {
                    questions.contains(&(*to, *id))
                }
                _ => false,
            });
        if !is_by_lease {
            return Ok(());
        }
        let is_bound = |voter| voter == node || self.bound.get(&(term, voter)).is_some_and(|until| *until > step.clock);
        ensure!(
            in_force(step).any(|membership| decides(membership, is_bound)),
            Leases,
            "{node} answers a read by lease at {} in term {term}; bound to it are only {:?} of {}",
            step.clock,
            step.after
                .configuration
                .membership
                .members()
                .map(|member| member.node)
                .filter(|voter| is_bound(*voter))
                .collect::<Vec<_>>(),
            step.after.configuration.membership
        );
        let ordered = self.orders.range((term, crate::node_at(0))..).next().filter(|(in_term, _)| *in_term == term);
        let is_alone = in_force(step).any(|membership| decides(membership, |voter| voter == node));
        ensure!(
            ordered.is_none() || is_alone,
            Leases,
            "{node} answers a read by lease in term {term}, having told {ordered:?} to take over"
        );
        Ok(())
    }

    /// Thesis 9.6 – nobody raises the term before a majority has said, in answer to the newest
    /// question, that it would follow; unless the leader has ordered it (Thesis 3.10).
    fn on_campaign(&self, step: &Step<'_>) -> Verdict {
        let (node, term) = (step.node, step.after.hard_state.term);
        let is_ordered = step.inbox.ordered.is_some_and(|(from, ordered_in)| {
            self.leader(ordered_in) == Some(from)
                && self.orders.contains(&(ordered_in, node))
                && ordered_in.next() == term
        });
        let inquiry = self.newest[slot(node)].and_then(|campaign| self.inquiries.get(&(node, campaign)));
        let agrees = |voter| voter == node || inquiry.is_some_and(|inquiry| inquiry.granted.contains(&voter));
        ensure!(
            is_ordered || in_force(step).any(|membership| decides(membership, agrees)),
            VoteLegality,
            "{node} campaigns in term {term}; nobody ordered it, and of {} only {:?} said that they would vote for it",
            step.after.configuration.membership,
            inquiry.map(|inquiry| &inquiry.granted)
        );
        Ok(())
    }

    /// A voter has made up its mind: the vote is on its way to the disk.
    fn on_decision(
        &self,
        step: &Step<'_>,
        term: Term,
        candidate: NodeId,
        heard: (Option<Time>, Option<Promise>),
    ) -> Verdict {
        let (voter, (contact, promise)) = (step.node, heard);
        let Some(Candidacy { last, ordered_in }) = self.candidacies.get(&(term, candidate)) else {
            ensure!(false, VoteLegality, "{voter} votes for {candidate} in term {term}, who never asked");
            return Ok(());
        };
        let own = step.before.log.last;
        // Without entries in the batch the log at the decision was no shorter than before it.
        ensure!(
            step.inbox.appends || *last >= own,
            VoteLegality,
            "{voter} votes in term {term} for {candidate}, whose log ends at {last}; its own ends at {own}"
        );
        // The order of a leader counts in its own term only; the batch may have brought that term.
        let is_ordered = ordered_in.is_some_and(|in_term| may_be_in(step, in_term));
        let quiet_for = contact.map(|at| step.clock.since(at));
        let stickiness = self.at_least(self.timing.election_timeout_min);
        let is_free = is_ordered || self.is_released(step) || step.before.role == RoleKind::Leader;
        ensure!(
            is_free || step.inbox.unreachable || quiet_for.is_none_or(|quiet_for| quiet_for >= stickiness),
            VoteLegality,
            "{voter} votes in term {term} for {candidate} only {quiet_for:?} after it heard from a leader"
        );
        if let Some(Promise { given, lasts }) = promise {
            ensure!(
                is_free || step.clock.since(given) >= self.at_least(lasts),
                Leases,
                "{voter} votes in term {term} for {candidate} at {}, having promised at {given} to elect nobody else for {lasts:?}",
                step.clock
            );
        }
        Ok(())
    }

    fn on_send(&mut self, step: &Step<'_>, to: NodeId, rpc: &Rpc) -> Verdict {
        let node = step.node;
        match rpc {
            Rpc::Vote { term, last, ordered_in } => {
                let candidacy = Candidacy { last: *last, ordered_in: *ordered_in };
                let known = *self.candidacies.entry((*term, node)).or_insert(candidacy);
                ensure!(
                    known == candidacy,
                    VoteLegality,
                    "{node} claims in term {term} {candidacy:?}, after {known:?}"
                );
                ensure!(
                    ordered_in.is_none_or(|in_term| self.orders.contains(&(in_term, node)) && in_term.next() == *term),
                    VoteLegality,
                    "{node} asks for votes in term {term} by order of the leader of {ordered_in:?}, who gave none"
                );
                self.cast(*term, node, node)
            }
            Rpc::HeartbeatReply { term, granted, .. } => {
                let until = step.clock.after(self.at_least(*granted));
                let bound = self.bound.entry((*term, node)).or_default();
                *bound = (*bound).max(until);
                let known = self.promises[slot(node)];
                let ends = |promise: &Promise| promise.given.after(promise.lasts);
                let new = Promise { given: step.clock, lasts: *granted };
                if !granted.is_zero() && known.as_ref().map(ends) < Some(ends(&new)) {
                    self.promises[slot(node)] = Some(new);
                }
                Ok(())
            }
            Rpc::VoteReply { term, verdict: Vote::Granted } => self.cast(*term, node, to),
            Rpc::PreVote { campaign, last, .. } => {
                self.inquiries.insert((node, *campaign), Inquiry { last: *last, granted: BTreeSet::new() });
                self.newest[slot(node)] = Some(*campaign);
                Ok(())
            }
            Rpc::PreVoteReply { campaign, verdict: Vote::Granted, term } => {
                let asked = self.inquiries.get_mut(&(to, *campaign));
                let Some(inquiry) = asked else {
                    ensure!(false, VoteLegality, "{node} would vote in term {term} for {to}, who never asked");
                    return Ok(());
                };
                let (last, own) = (inquiry.last, step.before.log.last);
                ensure!(
                    step.inbox.appends || last >= own,
                    VoteLegality,
                    "{node} would vote in term {term} for {to}, whose log ends at {last}; its own ends at {own}"
                );
                inquiry.granted.insert(node);
                Ok(())
            }
            Rpc::Append(_)
            | Rpc::Heartbeat { .. }
            | Rpc::CommitNotice { .. }
            | Rpc::Resigned { .. }
            | Rpc::InstallSnapshot(_)
            | Rpc::ReadIndexReply { .. } => {
                let term = rpc.term();
                ensure!(
                    self.leader(term) == Some(node),
                    Provenance,
                    "{node} speaks as leader of term {term}, whose leader is {:?}",
                    self.leader(term)
                );
                Ok(())
            }
            Rpc::TimeoutNow { term } => {
                ensure!(
                    self.leader(*term) == Some(node),
                    Provenance,
                    "{node} hands over as leader of term {term}, whose leader is {:?}",
                    self.leader(*term)
                );
                self.orders.insert((*term, to));
                Ok(())
            }
            Rpc::PreVoteReply { .. }
            | Rpc::VoteReply { .. }
            | Rpc::AppendReply { .. }
            | Rpc::AppendRejected(_)
            | Rpc::SnapshotStatus { .. }
            | Rpc::Regressed { .. }
            | Rpc::ReadIndex { .. }
            | Rpc::TermOver { .. } => Ok(()),
        }
    }

    fn cast(&mut self, term: Term, voter: NodeId, candidate: NodeId) -> Verdict {
        let known = *self.votes.entry((term, voter)).or_insert(candidate);
        ensure!(
            known == candidate,
            OneVotePerTerm,
            "{voter} gave its vote of term {term} to {candidate}, having given it to {known}"
        );
        Ok(())
    }

    /// A new process has not heard from anybody.
    pub(super) fn on_start(&mut self, node: NodeId) {
        self.contact[slot(node)] = None;
        self.newest[slot(node)] = None;
    }
}

/// Whether a node may have been in this term at some point of a step.
fn may_be_in(step: &Step<'_>, term: Term) -> bool {
    let (oldest, newest) = (step.before.hard_state.term, step.inbox.newest_term);
    term == oldest || (oldest < term && term <= newest)
}

/// How long `duration` lasts that is measured with a clock on which a million nanoseconds of the
/// world are `rate`.
fn on_world_clock(duration: Duration, rate: u64) -> Duration {
    let nanos = duration.as_nanos() * 1_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
