//! What must be true, checked after every event that can change it.
//!
//! The checks never ask a core what it thinks of itself where they can see for themselves: each
//! node's log is mirrored from the writes that it asked for, what is durable is read off the
//! model disks, who voted for whom off the messages. A core that lies to itself is found out.

pub mod commits;
mod configurations;
pub mod durability;
pub mod elections;
pub mod history;
pub mod logs;
mod majorities;
pub mod order;
pub mod snapshots;
pub mod storage;

use std::fmt;
use std::sync::Arc;

use raft_core::{Effect, ForwardId, Index, Limits, Membership, NodeId, RequestId, Status, Term, Time, Timing};

use crate::disk::{Disk, Snapshot};
use crate::machine::Registers;
use commits::Commits;
use durability::Durability;
use elections::Elections;
use history::History;
use logs::Logs;
use order::Order;
use snapshots::Snapshots;
use storage::Storage;

/// What is checked, with its number in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// At most one leader a term, ever, and elected by a majority that voted for it.
    ElectionSafety,
    /// A leader never changes or removes an entry of its log.
    LeaderAppendOnly,
    /// The same index and term mean the same log up to there.
    LogMatching,
    /// A leader's log holds every entry that was committed in an earlier term.
    LeaderCompleteness,
    /// Every node applies the same entry at an index, with the same result.
    StateMachineSafety,
    /// The commit index rises only to an entry of the leader's own term that a majority has on disk.
    CommitOnQuorum,
    /// What is committed stays, in every log that held it and on a majority of disks.
    CommittedForGood,
    /// The term on a disk never falls.
    TermMonotonic,
    /// One vote a term, restarts included.
    OneVotePerTerm,
    /// Applied ≤ committed ≤ last, and none of them falls in one life of a process.
    Ordering,
    /// No promise leaves before what it promises is on the disk.
    DurableBeforeSend,
    /// Each entry is applied once, in order.
    ApplyOnce,
    /// Answers to clients agree with one order of all operations that respects real time.
    Linearizability,
    /// Each request ends exactly once, and what was refused does not happen.
    RequestsEndOnce,
    /// No acknowledged write is lost.
    AcknowledgedWrites,
    /// One change at a time, majorities that overlap, no id twice, and no removed leader.
    Configurations,
    /// A snapshot is the state at its index, everywhere the same, and covers what is forgotten.
    SnapshotFidelity,
    /// Votes go to candidates whose log is up to date, and not away from a leader that is alive.
    VoteLegality,
    /// Who has promised a leader to elect nobody else for a while keeps the promise, and a leader
    /// relies on such promises only as long as a majority is bound by them.
    Leases,
    /// A leader that no majority answers gives up.
    CheckQuorum,
    /// A leader whose own disk stands still gives way.
    StalledLeader,
    /// Whoever speaks as a leader was elected, and says what its log says.
    Provenance,
    /// Limits hold.
    Bounds,
    /// Healed, the cluster elects a leader, takes writes and converges in time.
    Liveness,
    /// The same seed gives the same run.
    Determinism,
    /// Nothing panics.
    NoPanic,
    /// Every run has its hundred operations, its leader crash and its partition.
    RunShape,
}

impl Invariant {
    /// The number under which the documents know it.
    pub fn number(self) -> &'static str {
        match self {
            Self::ElectionSafety => "I1",
            Self::LeaderAppendOnly => "I2",
            Self::LogMatching => "I3",
            Self::LeaderCompleteness => "I4",
            Self::StateMachineSafety => "I5",
            Self::CommitOnQuorum => "I6",
            Self::CommittedForGood => "I7",
            Self::TermMonotonic => "I8",
            Self::OneVotePerTerm => "I9",
            Self::Ordering => "I10",
            Self::DurableBeforeSend => "I11",
            Self::ApplyOnce => "I12",
            Self::Linearizability => "I13",
            Self::RequestsEndOnce => "I14",
            Self::AcknowledgedWrites => "I15",
            Self::Configurations => "I16",
            Self::SnapshotFidelity => "I17",
            Self::VoteLegality => "I18",
            Self::Leases => "I19",
            Self::CheckQuorum | Self::StalledLeader => "I22",
            Self::Provenance => "I20",
            Self::Bounds => "I21",
            Self::Liveness => "I22",
            Self::Determinism => "I23",
            Self::NoPanic => "I24",
            Self::RunShape => "the shape of a run",
        }
    }
}

/// `I1 election safety`.
impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::ElectionSafety => "election safety",
            Self::LeaderAppendOnly => "leader append-only",
            Self::LogMatching => "log matching",
            Self::LeaderCompleteness => "leader completeness",
            Self::StateMachineSafety => "state machine safety",
            Self::CommitOnQuorum => "committed on a durable quorum",
            Self::CommittedForGood => "committed for good",
            Self::TermMonotonic => "durable terms rise",
            Self::OneVotePerTerm => "one vote a term",
            Self::Ordering => "applied ≤ committed ≤ last",
            Self::DurableBeforeSend => "durable before sent",
            Self::ApplyOnce => "applied once and in order",
            Self::Linearizability => "linearizability",
            Self::RequestsEndOnce => "requests end once",
            Self::AcknowledgedWrites => "acknowledged writes stay",
            Self::Configurations => "safe configurations",
            Self::SnapshotFidelity => "faithful snapshots",
            Self::VoteLegality => "legal votes",
            Self::Leases => "promises to leaders",
            Self::CheckQuorum => "a leader has a majority",
            Self::StalledLeader => "a leader has a disk",
            Self::Provenance => "provenance of messages",
            Self::Bounds => "bounds",
            Self::Liveness => "liveness after healing",
            Self::Determinism => "determinism",
            Self::NoPanic => "no panic",
            Self::RunShape => "operations, leader crash and partition",
        };
        write!(f, "{} {name}", self.number())
    }
}

/// An invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is violated: {detail}")]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// Who did what, and what should have been.
    pub detail: String,
}

impl Violation {
    /// Reports a violation.
    pub fn new(invariant: Invariant, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

/// Returns a [`Violation`] of `$invariant` unless `$condition` holds.
macro_rules! ensure {
    ($condition:expr, $invariant:ident, $($detail:tt)+) => {
        if !$condition {
            return Err($crate::checks::Violation::new($crate::checks::Invariant::$invariant, format!($($detail)+)));
        }
    };
}
pub(crate) use ensure;

/// The outcome of a check.
pub type Verdict = Result<(), Violation>;

/// One step of one node, as the checks see it: before any of its effects is executed.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    /// Whose step.
    pub node: NodeId,
    /// When.
    pub now: Time,
    /// When the process read its clock, after it took the inbox (contract T1).
    pub clock: Time,
    /// What the node was given.
    pub inbox: Inbox,
    /// What it asks for.
    pub effects: &'a [Effect],
    /// What it said of itself before.
    pub before: &'a Status,
    /// What it says now.
    pub after: &'a Status,
    /// The disks of all nodes, in order of their ids.
    pub disks: &'a [Disk],
}

/// What the checks must know of the messages that a step handled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbox {
    /// There were entries among them: the end of the log may have been anywhere in between.
    pub appends: bool,
    /// Which peers were heard of, a bit for each place.
    pub heard: u32,
    /// The highest term in which somebody spoke as leader.
    pub leader: Option<Term>,
    /// A channel broke, which may excuse a vote against a living leader.
    pub unreachable: bool,
    /// A leader of this term, as it says, leads no longer.
    pub resigned: Option<(NodeId, Term)>,
    /// A leader of this term, as it says, hands over to this node.
    pub ordered: Option<(NodeId, Term)>,
    /// Somebody asks for votes by order of the leader of this term, as it says.
    pub by_order: Option<(NodeId, Term)>,
    /// The first read of a client that may rely on a lease.
    pub lease_read: Option<RequestId>,
    /// The questions of followers for such reads.
    pub lease_questions: Vec<(NodeId, ForwardId)>,
    /// There was space on the disk at some point.
    pub storage_ready: bool,
    /// The newest term that anybody spoke of.
    pub newest_term: Term,
    /// The node was told that its disk has failed.
    pub storage_failed: bool,
}

/// All checks of one run.
#[derive(Debug)]
pub struct Checks {
    /// Who leads, who voted.
    pub elections: Elections,
    /// The logs in memory.
    pub logs: Logs,
    /// What is committed.
    pub commits: Commits,
    /// What is on the disks.
    pub durability: Durability,
    /// What is applied, and in which order.
    pub order: Order,
    /// What was written down.
    pub snapshots: Snapshots,
    /// Disks that are full, or stand still.
    pub storage: Storage,
    /// What clients asked and were told.
    pub history: History,
}

impl Checks {
    /// For a new cluster of these `founders`, whose ids will not exceed `nodes`, and whose clocks
    /// are off by at most `drift_ppm` millionths.
    pub fn new(founders: Arc<Membership>, nodes: usize, limits: Limits, timing: Timing, drift_ppm: u32) -> Self {
        Self {
            elections: Elections::new(nodes, timing, drift_ppm),
            logs: Logs::new(nodes),
            commits: Commits::new(founders),
            durability: Durability::new(nodes),
            order: Order::new(nodes, limits),
            snapshots: Snapshots::default(),
            storage: Storage::new(nodes, timing, drift_ppm),
            history: History::new(nodes),
        }
    }

    /// A node has made a step.
    ///
    /// # Errors
    /// The first invariant that does not hold any more.
    pub fn on_step(&mut self, step: &Step<'_>) -> Verdict {
        // The order matters: who leads decides who may create entries, the mirrored logs decide
        // what is committed, and what is committed decides what may be applied.
        let elected = self.elections.on_roles(step)?;
        let held = self.commits.held_by(step.node, &self.logs);
        self.snapshots.on_installs(step, &self.logs, &self.commits)?;
        self.logs.on_persists(step, &self.elections, &self.commits)?;
        self.commits.on_persists(step, held, &self.logs)?;
        configurations::on_step(step, &self.logs, &elected)?;
        self.elections.on_votes(step)?;
        self.elections.on_leases(step)?;
        for term in elected {
            self.commits.on_elected(step.node, term, &self.logs)?;
        }
        let committed = self.commits.on_step(step, &self.logs)?;
        self.history.on_committed(committed)?;
        self.snapshots.on_step(step, &self.commits)?;
        self.durability.on_step(step, &self.logs, &self.elections)?;
        self.order.on_step(step, &self.commits)?;
        self.storage.on_step(step)?;
        self.history.on_step(step, &self.commits)
    }

    /// A process has died, and its disk holds what it holds.
    ///
    /// # Errors
    /// If something committed is no longer on a majority of disks.
    pub fn on_crash(&mut self, node: NodeId, disks: &[Disk]) -> Verdict {
        self.history.on_crash(node);
        self.commits.on_disks(disks)
    }

    /// A process starts from its disk.
    ///
    /// # Errors
    /// If term or vote have gone back.
    pub fn on_start(&mut self, node: NodeId, disk: &Disk, applied: Index) -> Verdict {
        self.logs.on_start(node, disk, &self.commits);
        self.elections.on_start(node);
        self.order.on_start(node, applied);
        self.durability.on_start(node, disk)
    }

    /// A sync has ended.
    ///
    /// # Errors
    /// If term or vote have gone back.
    pub fn on_synced(&mut self, node: NodeId, disk: &Disk) -> Verdict {
        self.durability.on_disk(node, disk)
    }

    /// A node has written its state machine down.
    ///
    /// # Errors
    /// If that is not what a replay of the committed log gives, or others have.
    pub fn on_snapshot(&mut self, node: NodeId, snapshot: &Snapshot) -> Verdict {
        self.snapshots.on_taken(node, snapshot, &self.commits)?;
        self.history.on_snapshot(node, &snapshot.machine)
    }

    /// A state machine has applied something.
    ///
    /// # Errors
    /// If it is not in the state in which every other one was at this index.
    pub fn on_applied(&self, node: NodeId, machine: &Registers) -> Verdict {
        self.history.on_applied(node, machine)
    }

    /// At the end, when everything has come to rest: the logs of all members end alike, everything
    /// is committed and applied, and every acknowledged write is there.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn at_end(&self, statuses: &[Status], machines: &[&Registers]) -> Verdict {
        for (status, machine) in statuses.iter().zip(machines) {
            let node = status.identity.node;
            self.commits.holds_all(node, &self.logs)?;
            self.history.on_applied(node, machine)?;
            ensure!(
                machine.applied() == self.commits.last(),
                Liveness,
                "{node} has applied {} of {}",
                machine.applied(),
                self.commits.last()
            );
            ensure!(self.history.is_idle(node), RequestsEndOnce, "{node} still owes answers: {:?}", status.load);
        }
        self.history.at_end()
    }
}
