//! Layer 2: what comes in: events, and the messages of other servers.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::durable::SnapshotMeta;
use crate::entry::Entries;
use crate::membership::Change;
use crate::types::{Boot, Index, NodeId, Peer, Position, ReadId, RequestId, Round, Term, Time, WriteSeq};

/// What happened, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Read from the caller's monotonic clock no earlier than the event was taken out of its
    /// queue (contract T1). Time that runs backwards is clamped.
    pub at: Time,
    /// What happened.
    pub event: Event,
}

/// What can happen to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The moment that [`Raft::deadline`](crate::Raft::deadline) asked for has come.
    Tick,
    /// Another server sent something; `from` is whom the channel has authenticated.
    Received {
        /// The sender.
        from: Peer,
        /// What it sent.
        rpc: Rpc,
    },
    /// A client wants `command` replicated. Answered by [`Effect::Apply`](crate::Effect::Apply)
    /// carrying `request`, or by [`Effect::Reply`](crate::Effect::Reply).
    Propose {
        /// Comes back in the answer.
        request: RequestId,
        /// Opaque to Raft.
        command: Bytes,
    },
    /// A client wants to read the state machine as of now: linearizable, without the log (§8). A
    /// follower asks its leader up to where it has to wait.
    Read {
        /// Comes back in the answer.
        request: RequestId,
        /// How the leader makes sure that it still leads.
        mode: ReadMode,
    },
    /// An operator wants other members. Answered by [`Effect::Reply`](crate::Effect::Reply) when
    /// the change is complete: committed, and no longer joint.
    ChangeMembership {
        /// Comes back in the answer.
        request: RequestId,
        /// The configuration that the change was made for, by the index of its entry: if another
        /// one is in force by now, nothing is changed.
        expected: Index,
        /// What to change, all at once.
        changes: Vec<Change>,
    },
    /// An operator, or a node that is shut down, wants another leader.
    TransferLeadership {
        /// Comes back in the answer.
        request: RequestId,
        /// Who is to lead; the leader chooses if `None`.
        to: Option<NodeId>,
    },
    /// Every [`Effect::Persist`](crate::Effect::Persist) up to this one is on stable storage.
    Persisted {
        /// The newest finished write.
        seq: WriteSeq,
    },
    /// The state machine has applied everything up to this index.
    Applied {
        /// The newest applied index.
        index: Index,
    },
    /// The answer to [`Effect::ReadLog`](crate::Effect::ReadLog).
    LogRead {
        /// Which question it answers.
        id: ReadId,
        /// What was found.
        outcome: LogReadOutcome,
    },
    /// The channel to this peer broke; what was in it is lost.
    PeerUnreachable {
        /// The peer.
        node: NodeId,
    },
    /// An operator wants a snapshot now.
    RequestSnapshot {
        /// Comes back in the answer.
        request: RequestId,
    },
    /// The answer to [`Effect::TakeSnapshot`](crate::Effect::TakeSnapshot); or, unasked, the
    /// application has made a snapshot by itself, of anything that it has applied.
    SnapshotTaken {
        /// The last index that it covers.
        index: Index,
        /// Its size, once it is on stable storage; `None` if it could not be made.
        bytes: Option<u64>,
    },
    /// Some of a snapshot has arrived from another server.
    SnapshotProgress {
        /// Where the snapshot ends.
        last: Position,
        /// Bytes so far.
        received: u64,
    },
    /// A snapshot from another server is complete, checked, and on stable storage; or it will
    /// never be.
    SnapshotReceived {
        /// Where the snapshot ends.
        last: Position,
        /// Whether it is complete.
        complete: bool,
    },
    /// The disk is nearly full. The log writer reports it ahead: it keeps enough space in reserve
    /// for everything handed to it, and for terms and votes (contract D8).
    StorageFull,
    /// There is space again.
    StorageReady,
    /// A write or a sync failed for good. Nothing that waits for the disk will ever be released.
    StorageFailed,
}

/// How a leader makes sure, for a read, that it still leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ReadMode {
    /// It asks a majority: one round for all reads that wait (Thesis 6.4).
    #[default]
    Quorum,
    /// It relies on the promises that a majority has given lately, if there are
    /// [`Leases`](crate::Leases); otherwise it asks (Thesis 6.4.1).
    Lease,
}

/// What the log reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogReadOutcome {
    /// Entries from the index asked for on, at least one.
    Entries(Entries),
    /// They could not be read; the core asks again after a while.
    Damaged,
}

/// Names one (pre-)election of one life of one server, so that a late answer to another one is
/// recognised (contract V8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CampaignId {
    /// The life.
    pub boot: Boot,
    /// Counts campaigns within it.
    pub number: u64,
}

/// Names one question of a follower to its leader, in one life (contract V8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ForwardId {
    /// The life.
    pub boot: Boot,
    /// Counts questions within it.
    pub number: u64,
}

/// What servers say to each other. Each names the term it speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Rpc {
    /// "Would you vote for me in `term`?" Changes nothing at either end (Thesis 9.6).
    PreVote {
        /// The term that the sender would campaign in: one above its own.
        term: Term,
        /// Echoed in the answer.
        campaign: CampaignId,
        /// The end of the sender's log.
        last: Position,
    },
    /// The answer to [`Rpc::PreVote`].
    PreVoteReply {
        /// With a grant the term asked for, with a refusal the own one.
        term: Term,
        /// From the question.
        campaign: CampaignId,
        /// The answer.
        verdict: Verdict,
    },
    /// `RequestVote` of Figure 2.
    Vote {
        /// The candidate's term.
        term: Term,
        /// The end of its log.
        last: Position,
        /// The term of the leader that has told it to take over. A voter in that very term does
        /// not wait for the leader to fall silent (Thesis 4.2.3; contract V5).
        ordered_in: Option<Term>,
    },
    /// The answer to [`Rpc::Vote`].
    VoteReply {
        /// The voter's term.
        term: Term,
        /// The answer.
        verdict: Verdict,
    },
    /// `AppendEntries` of Figure 2. Shared, because it is often the same for several peers:
    /// a transport can encode it once.
    Append(Arc<Append>),
    /// The answer to an append: accepted and durable up to `matched`.
    AppendReply {
        /// The follower's term.
        term: Term,
        /// The round of the newest append that this answers.
        round: Round,
        /// The follower holds, durably, the leader's log up to here.
        matched: Index,
    },
    /// The answer to an append whose `prev` the follower does not hold.
    AppendRejected(Box<Rejection>),
    /// "I am still leader." Small, never behind bulk, answered at once.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// Echoed in the answer.
        round: Round,
        /// The leader's commit index, but no further than the peer is known to match.
        commit: Index,
        /// For so long from its arrival the leader would like the peer to elect nobody else; zero
        /// without leases (contract T3).
        promise: Duration,
    },
    /// The answer to [`Rpc::Heartbeat`].
    HeartbeatReply {
        /// The follower's term.
        term: Term,
        /// From the question.
        round: Round,
        /// Matches this leader, and durable.
        matched: Index,
        /// Matches this leader, durable or not: what has arrived.
        verified: Index,
        /// The follower promises so much of what was asked for.
        granted: Duration,
    },
    /// The commit index alone, for a peer whose pipe is idle. Not answered.
    CommitNotice {
        /// The leader's term.
        term: Term,
        /// As in [`Rpc::Heartbeat`].
        commit: Index,
    },
    /// "Your term is over": the answer to an append or heartbeat of an earlier term.
    TermOver {
        /// The own term.
        term: Term,
    },
    /// "Campaign at once": the leader hands over (Thesis 3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// "I lead no longer": nobody has to wait out the silence (contract T6).
    Resigned {
        /// The former leader's term.
        term: Term,
    },
    /// "Take this snapshot instead of the log up to its end": the leader's word. The bytes come
    /// separately, and count for nothing without it (contract S3).
    InstallSnapshot(Arc<SnapshotOffer>),
    /// How a peer fares with a snapshot.
    SnapshotStatus {
        /// The follower's term.
        term: Term,
        /// Where the snapshot ends.
        last: Position,
        /// How far it has got.
        fate: SnapshotFate,
    },
    /// "You had acknowledged more": the peer has lost entries, and has to know it (contract R1).
    Regressed {
        /// The leader's term.
        term: Term,
        /// What it had acknowledged.
        acknowledged: Position,
    },
    /// A follower asks up to where its state machine must be for a read to be current.
    ReadIndex {
        /// The follower's term.
        term: Term,
        /// Echoed in the answer.
        id: ForwardId,
        /// How the leader is to make sure that it still leads.
        mode: ReadMode,
    },
    /// The answer to [`Rpc::ReadIndex`].
    ReadIndexReply {
        /// The leader's term.
        term: Term,
        /// From the question.
        id: ForwardId,
        /// Up to here; `None` if the leader cannot say: it has too much to do.
        index: Option<Index>,
    },
}

/// The answer to a vote or pre-vote request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verdict {
    /// Yes.
    Granted,
    /// No: the candidate's log is behind, the vote is taken, or its term is over.
    Refused,
    /// No, only because the voter has heard from a leader lately. Worth asking again soon.
    LeaderAlive,
}

/// `AppendEntries` of Figure 2.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Append {
    /// The leader's term.
    pub term: Term,
    /// Echoed in the answer.
    pub round: Round,
    /// The position just before the entries.
    pub prev: Position,
    /// The leader's commit index, whatever the peer holds: it clamps.
    pub commit: Index,
    /// The entries; none in a probe.
    pub entries: Entries,
}

/// The leader's word for a snapshot (§7, `InstallSnapshot`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SnapshotOffer {
    /// The leader's term.
    pub term: Term,
    /// Echoed in the acknowledgement.
    pub round: Round,
    /// What it stands for.
    pub meta: Arc<SnapshotMeta>,
    /// Who sends the bytes.
    pub source: NodeId,
}

/// How a snapshot fares on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum SnapshotFate {
    /// So many bytes have arrived.
    Received(u64),
    /// It is lost.
    Failed,
}

/// Why an append was not taken: where the logs may part (§5.3, contract R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rejection {
    /// The follower's term.
    pub term: Term,
    /// The round of the append.
    pub round: Round,
    /// The `prev.index` of the append.
    pub prev: Index,
    /// The follower's last position at or before `prev` that the leader may share: the end of
    /// its newest run whose term is not above `prev`'s.
    pub hint: Position,
    /// The follower's commit index: up to here the logs agree for certain.
    pub commit: Index,
}

/// Which queue a message belongs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Small and late at once: votes, heartbeats, acknowledgements.
    Urgent,
    /// Carries entries.
    Bulk,
}

impl Rpc {
    /// The term it speaks for.
    pub fn term(&self) -> Term {
        self.label().0
    }

    /// Which queue it belongs into.
    pub fn class(&self) -> Class {
        self.label().1
    }

    fn label(&self) -> (Term, Class) {
        match self {
            Self::Append(append) => (append.term, Class::Bulk),
            Self::AppendRejected(rejection) => (rejection.term, Class::Urgent),
            Self::InstallSnapshot(offer) => (offer.term, Class::Urgent),
            Self::PreVote { term, .. }
            | Self::PreVoteReply { term, .. }
            | Self::Vote { term, .. }
            | Self::VoteReply { term, .. }
            | Self::AppendReply { term, .. }
            | Self::Heartbeat { term, .. }
            | Self::HeartbeatReply { term, .. }
            | Self::CommitNotice { term, .. }
            | Self::TermOver { term }
            | Self::TimeoutNow { term }
            | Self::Resigned { term }
            | Self::SnapshotStatus { term, .. }
            | Self::Regressed { term, .. }
            | Self::ReadIndex { term, .. }
            | Self::ReadIndexReply { term, .. } => (*term, Class::Urgent),
        }
    }
}

/// `Append @3 base=7@3 [8@3] commit=7`: the shared notation of logs, traces and scripts.
impl fmt::Display for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreVote { term, last, .. } => write!(f, "PreVote @{term} last={last}"),
            Self::PreVoteReply { term, verdict, .. } => write!(f, "PreVoteReply @{term} {verdict}"),
            Self::Vote { term, last, ordered_in: None } => write!(f, "Vote @{term} last={last}"),
            Self::Vote { term, last, ordered_in: Some(ordered) } => {
                write!(f, "Vote @{term} last={last} ordered=@{ordered}")
            }
            Self::VoteReply { term, verdict } => write!(f, "VoteReply @{term} {verdict}"),
            Self::Append(append) => {
                let Append { term, round, prev, commit, entries } = &**append;
                write!(f, "Append @{term} base={prev} {entries} commit={commit} round={round}")
            }
            Self::AppendReply { term, round, matched } => {
                write!(f, "AppendReply @{term} match={matched} round={round}")
            }
            Self::AppendRejected(rejection) => {
                let Rejection { term, round, prev, hint, commit } = &**rejection;
                write!(f, "AppendRejected @{term} prev={prev} hint={hint} commit={commit} round={round}")
            }
            Self::Heartbeat { term, round, commit, promise } => {
                write!(f, "Heartbeat @{term} commit={commit} round={round}")?;
                if promise.is_zero() { Ok(()) } else { write!(f, " promise={promise:?}") }
            }
            Self::HeartbeatReply { term, round, matched, verified, granted } => {
                write!(f, "HeartbeatReply @{term} match={matched} verified={verified} round={round}")?;
                if granted.is_zero() { Ok(()) } else { write!(f, " granted={granted:?}") }
            }
            Self::CommitNotice { term, commit } => write!(f, "CommitNotice @{term} commit={commit}"),
            Self::TermOver { term } => write!(f, "TermOver @{term}"),
            Self::TimeoutNow { term } => write!(f, "TimeoutNow @{term}"),
            Self::Resigned { term } => write!(f, "Resigned @{term}"),
            Self::Regressed { term, acknowledged } => write!(f, "Regressed @{term} acknowledged={acknowledged}"),
            Self::InstallSnapshot(offer) => {
                let SnapshotOffer { term, round, meta, source } = &**offer;
                write!(f, "InstallSnapshot @{term} last={} from={source} round={round}", meta.last)
            }
            Self::SnapshotStatus { term, last, fate: SnapshotFate::Received(bytes) } => {
                write!(f, "SnapshotStatus @{term} last={last} received={bytes}")
            }
            Self::SnapshotStatus { term, last, fate: SnapshotFate::Failed } => {
                write!(f, "SnapshotStatus @{term} last={last} failed")
            }
            Self::ReadIndex { term, id, mode: ReadMode::Quorum } => write!(f, "ReadIndex @{term} id={id}"),
            Self::ReadIndex { term, id, mode: ReadMode::Lease } => write!(f, "ReadIndex @{term} id={id} by-lease"),
            Self::ReadIndexReply { term, id, index: Some(index) } => {
                write!(f, "ReadIndexReply @{term} id={id} index={index}")
            }
            Self::ReadIndexReply { term, id, index: None } => write!(f, "ReadIndexReply @{term} id={id} busy"),
        }
    }
}

/// `3.17`: the seventeenth question of the third life.
impl fmt::Display for ForwardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.boot, self.number)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::LeaderAlive => "leader-alive",
        })
    }
}
