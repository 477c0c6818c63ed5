//! Elections: I1 election safety, I9 one vote a term, I18 legal votes, and who may speak as leader.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{
    CampaignId, Effect, NodeId, Observation, Position, RoleKind, Rpc, Term, Time, Timing, Verdict as Vote,
};

use super::{Step, Verdict, ensure};
use crate::slot;

/// Who led, who asked, who voted for whom: over the whole run, across all crashes.
#[derive(Debug)]
pub struct Elections {
    quorum: usize,
    timing: Timing,
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(Term, NodeId), NodeId>,
    candidacies: BTreeMap<(Term, NodeId), Position>,
    inquiries: BTreeMap<(NodeId, CampaignId), Inquiry>,
    /// The newest inquiry of each node.
    newest: Vec<Option<CampaignId>>,
    /// When each node last heard from a leader that it could not refuse.
    contact: Vec<Option<Time>>,
    /// When each leader last heard from each node; its election counts as hearing from all.
    answered: Vec<Vec<Time>>,
}

/// A pre-vote: where the log of whoever asks ends, and who has said yes.
#[derive(Debug)]
struct Inquiry {
    last: Position,
    granted: BTreeSet<NodeId>,
}

impl Elections {
    /// Before the first election of `nodes` voters.
    pub fn new(nodes: usize, timing: Timing) -> Self {
        Self {
            quorum: nodes / 2 + 1,
            timing,
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            candidacies: BTreeMap::new(),
            inquiries: BTreeMap::new(),
            newest: vec![None; nodes],
            contact: vec![None; nodes],
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
        let answered = &mut self.answered[slot(step.node)];
        for (place, at) in answered.iter_mut().enumerate() {
            if elected || place == slot(step.node) || step.inbox.heard >> place & 1 == 1 {
                *at = step.now;
            }
        }
        if step.after.role != RoleKind::Leader {
            return Ok(());
        }
        let mut newest_first = answered.clone();
        newest_first.sort_unstable_by(|a, b| b.cmp(a));
        let silent_for = newest_first.get(self.quorum - 1).map(|at| step.now.since(*at)).unwrap_or_default();
        ensure!(
            silent_for <= self.timing.election_timeout_max,
            CheckQuorum,
            "{} is still leader of term {} after no majority has answered it for {silent_for:?}",
            step.node,
            step.after.hard_state.term
        );
        Ok(())
    }

    /// A leader's majority consists of votes that were really sent, and of its own.
    fn majority_voted(&self, term: Term, step: &Step<'_>) -> Verdict {
        let node = step.node;
        let votes = self.votes.range((term, FIRST)..).take_while(|((in_term, _), _)| *in_term == term);
        let voters: Vec<NodeId> =
            votes.filter(|(_, candidate)| **candidate == node).map(|((_, voter), _)| *voter).collect();
        ensure!(
            voters.len() >= self.quorum,
            ElectionSafety,
            "{node} became leader of term {term} with {} of the {} votes that it takes: {voters:?}",
            voters.len(),
            self.quorum
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
        let contact = self.contact[slot(step.node)];
        if step.after.role == RoleKind::Candidate && step.before.role != RoleKind::Candidate {
            self.on_campaign(step)?;
        }
        for effect in step.effects {
            match effect {
                Effect::Persist { hard_state: Some(new), .. } => {
                    if let Some(candidate) = new.voted_for.filter(|candidate| *candidate != step.node) {
                        self.on_decision(step, new.term, candidate, contact)?;
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
            self.contact[slot(step.node)] = Some(step.now);
        }
        if step.inbox.unreachable {
            self.contact[slot(step.node)] = None;
        }
        Ok(())
    }

    /// Thesis 9.6 – nobody raises the term before a majority has said, in answer to the newest
    /// question, that it would follow.
    fn on_campaign(&self, step: &Step<'_>) -> Verdict {
        let node = step.node;
        let inquiry = self.newest[slot(node)].and_then(|campaign| self.inquiries.get(&(node, campaign)));
        let granted = inquiry.map_or(0, |inquiry| inquiry.granted.len());
        ensure!(
            granted + 1 >= self.quorum,
            VoteLegality,
            "{node} campaigns in term {}; {granted} others said that they would vote for it, of a majority of {}",
            step.after.hard_state.term,
            self.quorum
        );
        Ok(())
    }

    /// A voter has made up its mind: the vote is on its way to the disk.
    fn on_decision(&self, step: &Step<'_>, term: Term, candidate: NodeId, contact: Option<Time>) -> Verdict {
        let voter = step.node;
        let Some(last) = self.candidacies.get(&(term, candidate)) else {
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
        let quiet_for = contact.map(|at| step.now.since(at));
        ensure!(
            step.inbox.unreachable
                || step.before.role == RoleKind::Leader
                || quiet_for.is_none_or(|quiet_for| quiet_for >= self.timing.election_timeout_min),
            VoteLegality,
            "{voter} votes in term {term} for {candidate} only {quiet_for:?} after it heard from a leader"
        );
        Ok(())
    }

    fn on_send(&mut self, step: &Step<'_>, to: NodeId, rpc: &Rpc) -> Verdict {
        let node = step.node;
        match rpc {
            Rpc::Vote { term, last } => {
                let known = *self.candidacies.entry((*term, node)).or_insert(*last);
                ensure!(
                    known == *last,
                    VoteLegality,
                    "{node} claims in term {term} a log end of {last}, after {known}"
                );
                self.cast(*term, node, node)
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
            Rpc::Append(_) | Rpc::Heartbeat { .. } | Rpc::CommitNotice { .. } => {
                let term = rpc.term();
                ensure!(
                    self.leader(term) == Some(node),
                    Provenance,
                    "{node} speaks as leader of term {term}, whose leader is {:?}",
                    self.leader(term)
                );
                Ok(())
            }
            Rpc::PreVoteReply { .. }
            | Rpc::VoteReply { .. }
            | Rpc::AppendReply { .. }
            | Rpc::AppendRejected(_)
            | Rpc::HeartbeatReply { .. }
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

/// The lowest id there is.
const FIRST: NodeId = match NodeId::new(1) {
    Some(node) => node,
    None => panic!("1 is not 0"),
};
