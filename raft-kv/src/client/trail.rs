//! What an operation tried, and how far each attempt got: the story behind an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use raft_tokio::core::NodeId;
use tokio::time::Instant;

use super::trust::{Distrust, Presented};
use crate::envelope::DecodeError;
use crate::protocol::Refusal;

/// What an operation tried, endpoint by endpoint.
#[derive(Clone, Debug)]
pub struct Trail {
    /// What it needed.
    pub need: Need,
    /// How long it was allowed to take.
    pub timeout: Duration,
    /// Every endpoint, tried or not.
    pub endpoints: BTreeMap<NodeId, EndpointTrail>,
    /// The leader that the client saw last, and when.
    pub leader_seen: Option<(NodeId, Instant)>,
    presented: Arc<Presented>,
    held_up: Option<HeldUp>,
    may_be_applied: bool,
}

/// What a write has waited for instead of being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeldUp {
    /// All writes of a client go through one session.
    #[error("it waited for its turn: another write of this client was trying to open their session")]
    Session,
    /// So many answers a session can have outstanding.
    #[error("it waited for its turn: too many other writes of this client have no answer yet")]
    Window,
}

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A leader with a majority, to write.
    Write,
    /// A leader with a majority, to read what is current.
    Read,
    /// A leader with a majority, to change who belongs to the cluster or who leads it.
    Decision,
    /// Any one node.
    AnyNode,
    /// This node.
    Node(NodeId),
}

/// What was tried at one endpoint.
#[derive(Clone, Debug)]
pub struct EndpointTrail {
    /// Where it is.
    pub address: String,
    /// How often it was tried.
    pub attempts: u64,
    /// How far the last attempt got; `None` if there was none.
    pub last: Option<AttemptOutcome>,
}

/// How far an attempt got.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttemptOutcome {
    /// No connection yet.
    #[error("did not answer the handshake within {waited:?}")]
    Connecting {
        /// How long this attempt waited for it.
        waited: Duration,
    },
    /// No connection.
    #[error("cannot be connected to: {reason}")]
    Unreachable {
        /// What the transport says.
        reason: String,
    },
    /// No connection, and there will be none.
    #[error("{0}")]
    Distrusted(Distrust),
    /// The connection ended before the request was sent.
    #[error("closed the connection before the request was sent: {reason}")]
    NotSent {
        /// What the transport says.
        reason: String,
    },
    /// The connection ended before the answer came.
    #[error("closed the connection before it answered: {reason}")]
    Lost {
        /// What the transport says.
        reason: String,
    },
    /// Connected and sent, but not answered: it is stuck, gone, or finds no majority.
    #[error("took the request, but did not answer within {waited:?}")]
    NoAnswer {
        /// How long this attempt waited.
        waited: Duration,
    },
    /// Answered, but not with a result.
    #[error("{0}")]
    Refused(Refusal),
    /// Answered with something that this program does not understand.
    #[error("answered, but {0}")]
    Garbled(DecodeError),
    /// Answered.
    #[error("answered")]
    Answered,
}

impl AttemptOutcome {
    /// Whether there was a connection, and it broke.
    pub(super) fn broke_connection(&self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::Lost { .. })
    }

    /// What to tell of the last attempt, if this one came before: whichever says more. The end of
    /// the operation's time cuts the last one short.
    fn after(self, before: &Self) -> Self {
        match (self, before) {
            (Self::Connecting { waited }, Self::Connecting { waited: earlier }) => {
                Self::Connecting { waited: waited.max(*earlier) }
            }
            (Self::NoAnswer { waited }, Self::NoAnswer { waited: earlier }) => {
                Self::NoAnswer { waited: waited.max(*earlier) }
            }
            // That nothing has come of another attempt yet says less than why one failed.
            (Self::Connecting { .. }, Self::Unreachable { reason }) => Self::Unreachable { reason: reason.clone() },
            (outcome, _) => outcome,
        }
    }

    /// Whether a write may have got into a log by this attempt.
    fn may_be_applied(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::NoAnswer { .. } | Self::Garbled(_) => true,
            Self::Refused(refusal) => match refusal {
                Refusal::Unknown { .. } => true,
                Refusal::NotLeader { .. }
                | Refusal::Busy { .. }
                | Refusal::StorageFailed
                | Refusal::Stopping
                | Refusal::TooLarge { .. }
                | Refusal::EmptyKey
                | Refusal::CompareFailed { .. }
                | Refusal::SessionUnknown
                | Refusal::SequenceStale { .. }
                | Refusal::SequenceAhead { .. }
                | Refusal::Declined { .. }
                | Refusal::Misunderstood(_) => false,
            },
            Self::Connecting { .. }
            | Self::Unreachable { .. }
            | Self::Distrusted(_)
            | Self::NotSent { .. }
            | Self::Answered => false,
        }
    }
}

impl Trail {
    pub(super) fn new<'a>(
        need: Need,
        timeout: Duration,
        presented: Arc<Presented>,
        endpoints: impl Iterator<Item = (NodeId, &'a str)>,
    ) -> Self {
        let endpoints = endpoints
            .map(|(node, address)| (node, EndpointTrail { address: address.to_owned(), attempts: 0, last: None }))
            .collect();
        Self { need, timeout, endpoints, leader_seen: None, presented, held_up: None, may_be_applied: false }
    }

    /// What came of it, if nothing was done.
    pub(super) fn verdict(&self) -> String {
        let timeout = self.timeout;
        match self.need {
            Need::Write => format!("no leader could take the write within {timeout:?}; nothing was changed"),
            Need::Read => format!("no leader could answer within {timeout:?}"),
            Need::Decision => format!("no leader could do that within {timeout:?}; nothing was changed"),
            Need::AnyNode => format!("no node answered within {timeout:?}"),
            Need::Node(node) => format!("{node} did not answer within {timeout:?}"),
        }
    }

    /// The same, if nobody accepts this client or is accepted by it.
    pub(super) fn verdict_of_distrust(&self) -> String {
        match self.need {
            Need::Write | Need::Decision => {
                "the nodes and this client do not accept each other; nothing was changed".to_owned()
            }
            Need::Read | Need::AnyNode => "the nodes and this client do not accept each other".to_owned(),
            Need::Node(node) => format!("{node} and this client do not accept each other"),
        }
    }

    /// What is not known, if an attempt was not answered.
    pub(super) fn doubt(&self) -> &'static str {
        match self.need {
            Need::Decision => "the change may or may not have been made",
            Need::Write | Need::Read | Need::AnyNode | Need::Node(_) => "the write may or may not have been applied",
        }
    }

    /// How to get to know it.
    pub(super) fn way_to_find_out(&self) -> &'static str {
        match self.need {
            Need::Decision => "`raft-kv member list` shows whether it was made, and who leads",
            Need::Write | Need::Read | Need::AnyNode | Need::Node(_) => {
                "read the key to find out whether the write was applied"
            }
        }
    }

    /// The endpoints that can be of help, in the order of their nodes.
    fn candidates(&self) -> impl Iterator<Item = (NodeId, &EndpointTrail)> {
        let only = match self.need {
            Need::Node(only) => Some(only),
            Need::Write | Need::Read | Need::Decision | Need::AnyNode => None,
        };
        let candidates = self.endpoints.iter().map(|(node, endpoint)| (*node, endpoint));
        candidates.filter(move |(node, _)| only.is_none_or(|only| only == *node))
    }

    fn distrusts(&self) -> impl Iterator<Item = &Distrust> {
        self.candidates().filter_map(|(_, endpoint)| match &endpoint.last {
            Some(AttemptOutcome::Distrusted(distrust)) => Some(distrust),
            Some(_) | None => None,
        })
    }

    /// Whether the last attempt at this endpoint ended with distrust.
    pub(super) fn is_distrusted_by(&self, node: NodeId) -> bool {
        self.endpoints.get(&node).is_some_and(|endpoint| matches!(endpoint.last, Some(AttemptOutcome::Distrusted(_))))
    }

    /// Whether no endpoint is left that may accept this client. One that cannot be reached may.
    pub(super) fn is_distrusted(&self) -> bool {
        self.distrusts().count() == self.candidates().count()
    }

    /// Who this client is and what to do about the nodes that it does not get on with, in lines;
    /// `None` if there are none.
    pub fn remedy(&self) -> Option<String> {
        let remedies: BTreeSet<&str> = self.distrusts().map(Distrust::remedy).collect();
        let lines = remedies.into_iter().map(|remedy| format!("\n  {remedy}"));
        let lines: String = lines.collect();
        (!lines.is_empty()).then(|| format!("{}{lines}", self.presented))
    }

    /// Whether a write may be in a log, by one of the attempts.
    pub fn may_be_applied(&self) -> bool {
        self.may_be_applied
    }

    /// The attempts so far were not the write itself.
    pub(super) fn nothing_applied(&mut self) {
        self.may_be_applied = false;
    }

    /// How many attempts there were in all.
    pub fn attempts(&self) -> u64 {
        self.endpoints.values().map(|endpoint| endpoint.attempts).sum()
    }

    /// The time went by before the first attempt.
    pub(super) fn on_held_up(&mut self, by: HeldUp) {
        self.held_up = Some(by);
    }

    /// How far the last attempt at this endpoint got.
    pub(super) fn outcome(&self, node: NodeId) -> Option<&AttemptOutcome> {
        self.endpoints.get(&node)?.last.as_ref()
    }

    pub(super) fn on_attempt(&mut self, node: NodeId, outcome: AttemptOutcome) {
        self.may_be_applied |= outcome.may_be_applied();
        if let Some(endpoint) = self.endpoints.get_mut(&node) {
            endpoint.attempts += 1;
            endpoint.last = Some(match endpoint.last.take() {
                Some(before) => outcome.after(&before),
                None => outcome,
            });
        }
    }
}

/// Several indented lines: each endpoint and how far it got, the last leader, what to do.
impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, (node, EndpointTrail { address, attempts, last })) in self.candidates().enumerate() {
            let label = if nth == 0 { "tried" } else { "" };
            write!(f, "  {label:<5} {node} at {address}")?;
            match last {
                None => writeln!(f, ": not tried")?,
                Some(last) if *attempts == 1 => writeln!(f, ", once: {last}")?,
                Some(last) => writeln!(f, ", {attempts} times, last: {last}")?,
            }
        }
        if let Some(held_up) = self.held_up {
            writeln!(f, "  {held_up}")?;
        }
        if let Some(remedy) = self.remedy() {
            write!(f, "  {remedy}")?;
            if self.is_distrusted() {
                return Ok(());
            }
            writeln!(f)?;
        }
        match self.need {
            Need::Write | Need::Read | Need::Decision => {}
            Need::AnyNode => return f.write_str("  start one of them; one is enough for this"),
            Need::Node(node) => return write!(f, "  `raft-kv serve --node {}` starts it", node.as_u64()),
        }
        match self.leader_seen {
            Some((leader, at)) => writeln!(f, "  last leader seen: {leader}, {:.1} s ago", at.elapsed().as_secs_f64())?,
            None => writeln!(f, "  no leader was seen")?,
        }
        let nodes = self.endpoints.len();
        let majority = nodes / 2 + 1;
        write!(
            f,
            "  `raft-kv status` shows which nodes are up; of {nodes}, {majority} must be, and must reach each other"
        )
    }
}

#[cfg(test)]
mod tests {
    use raft_tokio::transport::CertificateFault;

    use super::super::error::ClientError;
    use super::*;

    fn node(id: u64) -> NodeId {
        NodeId::new(id).expect("because the tests count from 1")
    }

    fn trail() -> Trail {
        let addresses = [(node(1), "10.0.0.1:7401"), (node(2), "10.0.0.2:7401"), (node(3), "10.0.0.3:7401")];
        let presented = Arc::new(super::super::tests::presented());
        let mut trail = Trail::new(Need::Write, Duration::from_secs(2), presented, addresses.into_iter());
        trail.on_attempt(node(1), AttemptOutcome::Refused(Refusal::NotLeader { leader: Some(node(2)) }));
        trail.on_attempt(node(2), AttemptOutcome::Connecting { waited: Duration::from_millis(250) });
        trail.on_attempt(node(2), AttemptOutcome::Unreachable { reason: "timed out".to_owned() });
        trail
    }

    #[test]
    fn an_error_tells_what_was_tried_how_far_it_got_and_what_to_do() {
        let error = ClientError::Unavailable(Box::new(trail()));
        assert_eq!(
            error.to_string(),
            "no leader could take the write within 2s; nothing was changed\n  \
             tried n1 at 10.0.0.1:7401, once: is not the leader; says that n2 is\n        \
             n2 at 10.0.0.2:7401, 2 times, last: cannot be connected to: timed out\n        \
             n3 at 10.0.0.3:7401: not tried\n  \
             no leader was seen\n  \
             `raft-kv status` shows which nodes are up; of 3, 2 must be, and must reach each other"
        );
    }

    #[test]
    fn nodes_and_clients_that_do_not_accept_each_other_are_told_what_to_do() {
        let theirs =
            |fault| AttemptOutcome::Distrusted(Distrust::Theirs { fault, detail: "in other words".to_owned() });
        let mut trail = trail();
        trail.on_attempt(node(1), theirs(CertificateFault::NotValidNow));
        trail.on_attempt(
            node(2),
            AttemptOutcome::Distrusted(Distrust::Ours { fault: CertificateFault::OtherAuthority }),
        );
        assert!(!trail.is_distrusted(), "n3 may be another case");
        let text = ClientError::Unavailable(Box::new(trail.clone())).to_string();
        assert!(text.contains("this client shows c/client.pem (client tester of cluster"), "{text}");
        assert!(text.contains("set this machine's clock\n  use the configuration"), "{text}");
        assert!(text.ends_with("of 3, 2 must be, and must reach each other"), "{text}");
        trail.on_attempt(node(3), theirs(CertificateFault::OtherName));
        assert!(trail.is_distrusted());
        assert_eq!(
            ClientError::Distrusted(Box::new(trail)).to_string(),
            "the nodes and this client do not accept each other; nothing was changed\n  \
             tried n1 at 10.0.0.1:7401, 2 times, last: its certificate is not accepted here: it has expired or is not \
             valid yet, by the clock of whoever checks it (in other words)\n        \
             n2 at 10.0.0.2:7401, 3 times, last: does not accept this client's certificate: it was issued by another \
             authority; are the certificates of two clusters?\n        \
             n3 at 10.0.0.3:7401, once: its certificate is not accepted here: it names another node than the one dialled \
             (in other words)\n  \
             this client shows c/client.pem (client tester of cluster 00000000000000000000000000000007), \
             and accepts what c/ca.pem has issued\n  \
             another node is at this address: correct the addresses in the configuration\n  \
             give the node a new certificate of the cluster's authority, or set this machine's clock\n  \
             use the configuration and the certificates of the cluster that runs at these addresses"
        );
    }

    #[test]
    fn of_two_attempts_the_one_that_says_more_is_told() {
        let mut trail = trail();
        for waited in [250, 5] {
            trail.on_attempt(node(3), AttemptOutcome::Connecting { waited: Duration::from_millis(waited) });
        }
        let waited = Duration::from_millis(250);
        assert_eq!(trail.outcome(node(3)), Some(&AttemptOutcome::Connecting { waited }));
        trail.on_attempt(node(2), AttemptOutcome::Connecting { waited });
        let reason = "timed out".to_owned();
        assert_eq!(trail.outcome(node(2)), Some(&AttemptOutcome::Unreachable { reason }));
        trail.on_attempt(node(3), AttemptOutcome::NoAnswer { waited: Duration::from_millis(5) });
        let waited = Duration::from_millis(5);
        assert_eq!(trail.outcome(node(3)), Some(&AttemptOutcome::NoAnswer { waited }));
    }

    #[test]
    fn an_operation_that_needs_one_node_says_so() {
        let needing = |need| ClientError::Unavailable(Box::new(Trail { need, ..trail() })).to_string();
        assert_eq!(
            needing(Need::Node(node(3))),
            "n3 did not answer within 2s\n  tried n3 at 10.0.0.3:7401: not tried\n  `raft-kv serve --node 3` starts it"
        );
        assert!(needing(Need::AnyNode).ends_with("\n  start one of them; one is enough for this"));
    }

    #[test]
    fn a_write_may_be_applied_once_a_server_may_have_taken_it() {
        let harmless = trail();
        assert!(!harmless.may_be_applied());
        for outcome in [
            AttemptOutcome::NoAnswer { waited: Duration::from_secs(1) },
            AttemptOutcome::Lost { reason: "reset".to_owned() },
            AttemptOutcome::Refused(Refusal::Unknown { leader: None }),
        ] {
            let mut trail = harmless.clone();
            trail.on_attempt(node(1), outcome.clone());
            // A later, certain failure of another attempt takes nothing back.
            trail.on_attempt(node(1), AttemptOutcome::Refused(Refusal::Busy { reason: "busy".to_owned() }));
            assert!(trail.may_be_applied(), "{outcome:?}");
        }
    }
}
