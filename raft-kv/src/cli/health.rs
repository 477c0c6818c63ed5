//! From what the nodes say of themselves to one sentence: can the cluster serve, and how many
//! more failures does it stand?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use raft_kv::protocol::NodeStatus;
use raft_tokio::core::{NodeId, RoleKind};

use super::exit::Exit;

/// What was found when a node was asked how it is.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    /// What it says, or why it said nothing.
    pub(crate) answer: Result<NodeStatus, NoAnswer>,
}

/// A node that did not say how it is; the text follows its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It may be down.
    Silent(String),
    /// It is up, but it and this client do not accept each other.
    Refused {
        reason: String,
        /// What to do about it, in lines.
        remedy: String,
    },
}

impl NoAnswer {
    /// One or two words.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Silent(_) => "no answer",
            Self::Refused { .. } => "refused",
        }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(reason) | Self::Refused { reason, .. } => f.write_str(reason),
        }
    }
}

/// Who belongs to the cluster, as the leader sees it, or whoever is nearest to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// `None` if nobody has said.
    known: Option<Known>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    voters: BTreeSet<NodeId>,
    /// Those of before, while several voters change at once.
    outgoing: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
}

/// What a node is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It decides with the others.
    Voter,
    /// It is sent the log.
    Learner,
    /// It was removed, or has not joined.
    Stranger,
}

impl Members {
    pub(crate) fn of<'a>(answers: impl Iterator<Item = &'a NodeStatus>) -> Self {
        let informed = answers.filter(|status| !status.voters.is_empty());
        let newest = informed.max_by_key(|status| (status.term, status.role == RoleKind::Leader, status.configuration));
        let set = |nodes: &[NodeId]| nodes.iter().copied().collect();
        let known = newest.map(|status| Known {
            voters: set(&status.voters),
            outgoing: set(&status.outgoing),
            learners: set(&status.learners),
        });
        Self { known }
    }

    pub(crate) fn kind(&self, node: NodeId) -> Kind {
        match &self.known {
            // Nobody can tell: whoever is in the configuration file is taken for one.
            None => Kind::Voter,
            Some(known) if known.voters.contains(&node) || known.outgoing.contains(&node) => Kind::Voter,
            Some(known) if known.learners.contains(&node) => Kind::Learner,
            Some(_) => Kind::Stranger,
        }
    }

    /// The sets of nodes of each of which a majority decides; the listed ones if nobody can tell.
    fn deciding(&self, listed: &BTreeSet<NodeId>) -> Vec<BTreeSet<NodeId>> {
        match &self.known {
            None => vec![listed.clone()],
            Some(known) if known.outgoing.is_empty() => vec![known.voters.clone()],
            Some(known) => vec![known.voters.clone(), known.outgoing.clone()],
        }
    }
}

/// The sum of the findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) verdict: Verdict,
    pub(crate) members: usize,
    /// Members that follow the leader, itself included.
    pub(crate) working: usize,
    /// How many more members may fail before the cluster cannot serve.
    pub(crate) tolerates: usize,
    /// Members that answered at all.
    pub(crate) answering: usize,
    /// Members that are up, but do not talk to this client.
    pub(crate) refusing: usize,
    pub(crate) leader: Option<NodeId>,
    /// Members with a complaint, each with what is wrong.
    pub(crate) complaints: Vec<String>,
}

/// How the cluster is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every member works.
    Healthy,
    /// A majority works, but not all.
    Degraded,
    /// Nobody can tell from here: nodes that would make a majority do not talk to this client.
    Refused,
    /// No leader with a majority behind it.
    Down,
    /// Replicas that should be equal are not.
    Diverged,
}

impl Health {
    /// Judges the findings, one for each member.
    pub(crate) fn judge(findings: &[Finding]) -> Self {
        let answers: Vec<&NodeStatus> = findings.iter().filter_map(|finding| finding.answer.as_ref().ok()).collect();
        let membership = Members::of(answers.iter().copied());
        let deciding = membership.deciding(&findings.iter().map(|finding| finding.node).collect());
        let members = deciding.iter().flatten().collect::<BTreeSet<_>>().len();
        // Of two that both think they lead, the one of the older term has been replaced.
        let leader = answers.iter().filter(|status| status.role == RoleKind::Leader).max_by_key(|status| status.term);
        let follows = |status: &NodeStatus| {
            leader.is_some_and(|leader| status.term == leader.term && status.leader == Some(leader.node))
                && !status.storage_failed
        };
        let works = |status: &NodeStatus| follows(status) && !status.storage_full;
        let at_work: BTreeSet<NodeId> =
            answers.iter().filter(|status| works(status)).map(|status| status.node).collect();
        let unwilling: BTreeSet<NodeId> = findings
            .iter()
            .filter(|finding| matches!(finding.answer, Err(NoAnswer::Refused { .. })))
            .map(|finding| finding.node)
            .collect();
        let working = at_work.iter().filter(|node| membership.kind(**node) == Kind::Voter).count();
        let refusing = unwilling.len();
        let tolerates = tolerance(&deciding, &at_work);
        let maybe: BTreeSet<NodeId> = at_work.union(&unwilling).copied().collect();
        let mut complaints = divergences(&answers);
        let verdict = match () {
            () if !complaints.is_empty() => Verdict::Diverged,
            () if tolerates.is_none() && tolerance(&deciding, &maybe).is_some() => Verdict::Refused,
            () if tolerates.is_none() => Verdict::Down,
            () if working < members => Verdict::Degraded,
            () => Verdict::Healthy,
        };
        let concerned = findings.iter().filter(|finding| membership.kind(finding.node) != Kind::Stranger);
        complaints.extend(concerned.filter_map(|finding| match &finding.answer {
            Err(NoAnswer::Silent(_)) => Some(format!("{} does not answer", finding.node)),
            Err(NoAnswer::Refused { .. }) => Some(format!("{} and this client do not accept each other", finding.node)),
            Ok(status) if status.storage_failed => Some(format!("the storage of {} has failed", finding.node)),
            Ok(status) if status.storage_full => Some(format!("the disk of {} is full", finding.node)),
            Ok(status) if leader.is_some() && !follows(status) => Some(format!("{} follows no leader", finding.node)),
            Ok(_) => None,
        }));
        let leader = leader.map(|leader| leader.node);
        let tolerates = tolerates.unwrap_or(0);
        Self { verdict, members, working, tolerates, answering: answers.len(), refusing, leader, complaints }
    }

    /// The exit status for scripts.
    pub(crate) fn exit(&self) -> Exit {
        match self.verdict {
            Verdict::Healthy | Verdict::Degraded => Exit::Done,
            Verdict::Down => Exit::Unavailable,
            Verdict::Refused | Verdict::Diverged => Exit::Failed,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, members, working, answering, refusing, leader, .. } = self;
        let leader = leader.map_or_else(|| "no leader".to_owned(), |leader| format!("leader {leader}"));
        match verdict {
            Verdict::Healthy | Verdict::Degraded => {
                let tolerates = match self.tolerates {
                    0 => "tolerates no further failure".to_owned(),
                    1 => "tolerates 1 more failure".to_owned(),
                    failures => format!("tolerates {failures} more failures"),
                };
                write!(f, "{} – {working} of {members} nodes, {leader}, {tolerates}", verdict.name())?;
            }
            Verdict::Refused => {
                let them = if *refusing == 1 { "it and this client" } else { "they and this client" };
                write!(f, "REFUSED – {refusing} of {members} nodes up, but {them} do not accept each other")?;
                return Ok(());
            }
            Verdict::Down => {
                let needed = majority(*members);
                let verb = if *answering == 1 { "answers" } else { "answer" };
                write!(f, "DOWN – {answering} of {members} nodes {verb}, {leader}, {needed} must follow one")?;
                return Ok(());
            }
            Verdict::Diverged => write!(f, "DIVERGED – {leader}; do not trust reads")?,
        }
        self.complaints.iter().try_for_each(|complaint| write!(f, "; {complaint}"))
    }
}

impl Verdict {
    /// One word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Refused => "REFUSED",
            Self::Down => "DOWN",
            Self::Diverged => "DIVERGED",
        }
    }
}

fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// How many of `able` may fail, whichever they are, so that a majority of each set is left; `None` if
/// there is none now.
fn tolerance(deciding: &[BTreeSet<NodeId>], able: &BTreeSet<NodeId>) -> Option<usize> {
    let spare = deciding.iter().map(|set| set.intersection(able).count().checked_sub(majority(set.len())));
    spare.min().flatten()
}

/// Replicas that have applied the same commands hold the same, or something is badly wrong.
fn divergences(answers: &[&NodeStatus]) -> Vec<String> {
    let mut at_index: BTreeMap<_, &NodeStatus> = BTreeMap::new();
    let mut complaints = Vec::new();
    for status in answers {
        let first = at_index.entry(status.state.index).or_insert(status);
        if first.state.hash != status.state.hash {
            let index = status.state.index;
            complaints.push(format!("{} and {} hold different data at index {index}", first.node, status.node));
        }
    }
    complaints
}

#[cfg(test)]
pub(crate) mod tests {
    use raft_kv::key::Revision;
    use raft_kv::protocol::StateSummary;
    use raft_tokio::core::{ClusterId, Index, Term};

    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).expect("because the tests count from 1")
    }

    /// What a node says of itself.
    pub(crate) fn answer(number: u64, role: RoleKind, term: u64, leader: Option<u64>) -> Finding {
        let state = StateSummary {
            index: Index::new(7),
            revision: Revision::new(5),
            keys: 3,
            sessions: 1,
            hash: serde_json::from_value("abc".into()).expect("because a hash is hexadecimal"),
        };
        let status = NodeStatus {
            node: node(number),
            cluster: ClusterId::new(1),
            version: String::new(),
            role,
            term: Term::new(term),
            leader: leader.map(node),
            last: Index::new(7),
            durable: Index::new(7),
            commit: Index::new(7),
            applied: Index::new(7),
            state,
            peers: Vec::new(),
            configuration: Index::ZERO,
            voters: (1..=3).filter_map(NodeId::new).collect(),
            outgoing: Vec::new(),
            learners: Vec::new(),
            transfer: None,
            base: Index::ZERO,
            log_bytes: 0,
            snapshot: Index::ZERO,
            snapshot_bytes: 0,
            proposals: 0,
            reads: 0,
            held: 0,
            storage_full: false,
            storage_failed: false,
            runtime: raft_kv::protocol::RuntimeSummary::default(),
        };
        Finding { node: node(number), address: String::new(), answer: Ok(status) }
    }

    fn silent(number: u64) -> Finding {
        Finding {
            node: node(number),
            address: String::new(),
            answer: Err(NoAnswer::Silent("no answer in time".to_owned())),
        }
    }

    fn refused(number: u64) -> Finding {
        let answer = Err(NoAnswer::Refused { reason: String::new(), remedy: String::new() });
        Finding { node: node(number), address: String::new(), answer }
    }

    #[test]
    fn three_nodes_that_follow_one_leader_are_healthy() {
        let leader = answer(2, RoleKind::Leader, 4, Some(2));
        let findings = [answer(1, RoleKind::Follower, 4, Some(2)), leader, answer(3, RoleKind::Follower, 4, Some(2))];
        let health = Health::judge(&findings);
        assert_eq!(health.to_string(), "HEALTHY – 3 of 3 nodes, leader n2, tolerates 1 more failure");
        assert_eq!(health.exit(), Exit::Done);
    }

    #[test]
    fn a_silent_node_degrades_the_cluster_and_is_named() {
        let findings = [answer(1, RoleKind::Follower, 4, Some(2)), answer(2, RoleKind::Leader, 4, Some(2)), silent(3)];
        let health = Health::judge(&findings);
        let text = "DEGRADED – 2 of 3 nodes, leader n2, tolerates no further failure; n3 does not answer";
        assert_eq!((health.to_string().as_str(), health.exit()), (text, Exit::Done));
    }

    #[test]
    fn a_leader_without_a_majority_behind_it_cannot_serve() {
        let findings = [answer(1, RoleKind::Leader, 4, Some(1)), silent(2), silent(3)];
        let health = Health::judge(&findings);
        assert_eq!((health.verdict, health.exit()), (Verdict::Down, Exit::Unavailable));
        let findings = [answer(1, RoleKind::PreCandidate, 4, None), silent(2), silent(3)];
        assert_eq!(Health::judge(&findings).to_string(), "DOWN – 1 of 3 nodes answers, no leader, 2 must follow one");
    }

    #[test]
    fn regress_nodes_that_refuse_the_client_are_not_said_to_be_down() {
        let health = Health::judge(&[refused(1), refused(2), refused(3)]);
        assert_eq!((health.verdict, health.exit()), (Verdict::Refused, Exit::Failed));
        assert_eq!(health.to_string(), "REFUSED – 3 of 3 nodes up, but they and this client do not accept each other");
        // Two of three may well serve; one cannot.
        assert_eq!(Health::judge(&[refused(1), refused(2), silent(3)]).verdict, Verdict::Refused);
        assert_eq!(Health::judge(&[refused(1), silent(2), silent(3)]).verdict, Verdict::Down);
        let findings = [answer(1, RoleKind::Follower, 4, Some(2)), answer(2, RoleKind::Leader, 4, Some(2)), refused(3)];
        let text = Health::judge(&findings).to_string();
        assert!(
            text.starts_with("DEGRADED – 2 of 3") && text.ends_with("n3 and this client do not accept each other"),
            "{text}"
        );
    }

    #[test]
    fn of_two_leaders_the_one_of_the_older_term_counts_as_down() {
        let findings = [
            answer(1, RoleKind::Leader, 4, Some(1)),
            answer(2, RoleKind::Leader, 5, Some(2)),
            answer(3, RoleKind::Follower, 5, Some(2)),
        ];
        let health = Health::judge(&findings);
        assert_eq!((health.verdict, health.leader, health.working), (Verdict::Degraded, Some(node(2)), 2));
    }

    #[test]
    fn replicas_that_differ_at_the_same_index_are_the_worst_of_news() {
        let mut other = answer(3, RoleKind::Follower, 4, Some(2));
        if let Ok(status) = &mut other.answer {
            status.state.hash = serde_json::from_value("def".into()).expect("because a hash is hexadecimal");
        }
        let findings = [answer(1, RoleKind::Follower, 4, Some(2)), answer(2, RoleKind::Leader, 4, Some(2)), other];
        let health = Health::judge(&findings);
        assert_eq!((health.verdict, health.exit()), (Verdict::Diverged, Exit::Failed));
        assert!(health.to_string().contains("n1 and n3 hold different data at index 7"), "{health}");
    }

    fn with_members(mut finding: Finding, voters: &[u64], outgoing: &[u64]) -> Finding {
        let nodes = |numbers: &[u64]| numbers.iter().copied().map(node).collect();
        if let Ok(status) = &mut finding.answer {
            (status.voters, status.outgoing) = (nodes(voters), nodes(outgoing));
        }
        finding
    }

    #[test]
    fn while_voters_change_a_majority_of_both_sets_is_needed() {
        let up = |number, role| with_members(answer(number, role, 4, Some(4)), &[3, 4, 5], &[1, 2, 3]);
        let (three, four) = (up(3, RoleKind::Follower), up(4, RoleKind::Leader));
        let health = Health::judge(&[silent(1), silent(2), three.clone(), four.clone(), silent(5)]);
        assert_eq!((health.verdict, health.members, health.working), (Verdict::Down, 5, 2), "{health}");
        let two = up(2, RoleKind::Follower);
        let health = Health::judge(&[silent(1), two, three, four, silent(5)]);
        assert_eq!((health.verdict, health.tolerates), (Verdict::Degraded, 0), "{health}");
    }

    #[test]
    fn who_belongs_is_for_the_leader_to_say_and_not_for_one_it_has_replaced() {
        let old = with_members(answer(1, RoleKind::Leader, 4, Some(1)), &[1, 2, 3, 4], &[]);
        let new = with_members(answer(2, RoleKind::Leader, 5, Some(2)), &[2, 3], &[]);
        let third = with_members(answer(3, RoleKind::Follower, 5, Some(2)), &[2, 3], &[]);
        let mut findings = [old, new, third];
        if let Ok(status) = &mut findings[0].answer {
            status.configuration = Index::new(99);
        }
        let health = Health::judge(&findings);
        assert_eq!((health.verdict, health.members), (Verdict::Healthy, 2), "{health}");
    }

    #[test]
    fn a_full_disk_is_a_failure_that_is_named() {
        let mut full = answer(1, RoleKind::Follower, 4, Some(2));
        if let Ok(status) = &mut full.answer {
            status.storage_full = true;
        }
        let findings = [full, answer(2, RoleKind::Leader, 4, Some(2)), answer(3, RoleKind::Follower, 4, Some(2))];
        let three = findings.map(|finding| with_members(finding, &[1, 2, 3], &[]));
        let text = "DEGRADED – 2 of 3 nodes, leader n2, tolerates no further failure; the disk of n1 is full";
        assert_eq!(Health::judge(&three).to_string(), text);
    }
}
