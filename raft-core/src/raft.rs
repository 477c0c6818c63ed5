//! Hub: the door.

use alloc::vec::Vec;

use crate::config::Config;
use crate::durable::Durable;
use crate::effect::Effect;
use crate::error::ConfigError;
use crate::message::Message;
use crate::role::{Leader, Role};
use crate::state::State;
use crate::status::{LoadStatus, LogStatus, PeerStatus, Status};
use crate::types::Time;
use crate::{commit, election, invariants, majority, read, step, transfer};

/// One server of a cluster: Figure 2 as a value.
///
/// Give it what happens, as [`Message`]s; do what it says, as [`Effect`]s; wake it at
/// [`Raft::deadline`]. It has no clock, does no I/O, starts no thread, and the same messages
/// always give the same effects.
#[derive(Debug)]
pub struct Raft {
    state: State,
    role: Role,
}

impl Raft {
    /// A server with what storage found when it was opened. Nothing happens before the first step.
    ///
    /// # Errors
    /// If `durable` cannot be the state of a correct server.
    pub fn new(config: Config, durable: Durable) -> Result<Self, ConfigError> {
        durable.validate()?;
        Ok(Self { state: State::new(config, durable), role: Role::initial() })
    }

    /// Takes one message and returns what it makes necessary.
    pub fn step(&mut self, message: Message) -> Vec<Effect> {
        self.step_batch([message])
    }

    /// Takes everything that waits in an inbox at once. A batch costs one append to each peer and
    /// one write, however long it is.
    pub fn step_batch(&mut self, messages: impl IntoIterator<Item = Message>) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.step_into(messages, &mut effects);
        effects
    }

    /// The primitive that both wrap: appends to `effects`, whose memory is reused.
    ///
    /// # Panics
    /// If the caller reports a write or an index that was never handed to it.
    pub fn step_into(&mut self, messages: impl IntoIterator<Item = Message>, effects: &mut Vec<Effect>) {
        let Self { state, role } = self;
        let before = invariants::Before::of(state, role);
        state.outbox.open(core::mem::take(effects));
        for message in messages {
            step::on_message(state, role, message);
        }
        if state.clock.started {
            step::settle(state, role);
        }
        *effects = state.outbox.close();
        invariants::check(&before, state, role);
    }

    /// When the next [`Event::Tick`](crate::Event::Tick) is due if nothing else happens before;
    /// `None` if only an event can change anything. Before the first step it is due at once.
    pub fn deadline(&self) -> Option<Time> {
        if !self.state.clock.started {
            return Some(Time::ZERO);
        }
        let heartbeat = match &self.role {
            // Alone, there is nobody to send one to.
            Role::Leader(leader) if !leader.peers.is_empty() => Some(leader.heartbeat_at),
            Role::Leader(_) | Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        let handing_over = match &self.role {
            Role::Leader(leader) => transfer::deadline(&self.state, leader),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        let role = election::deadline(&self.state, &self.role);
        [role, commit::deadline(&self.state), read::deadline(&self.role), heartbeat, handing_over]
            .into_iter()
            .flatten()
            .min()
    }

    /// What an operator may want to know.
    pub fn status(&self) -> Status {
        let Self { state, role } = self;
        let (committed_in_term, peers, proposals, reads, transfer) = match role {
            Role::Leader(leader) => (
                majority::has_committed_in_term(state, leader),
                peer_statuses(state, leader),
                leader.proposals.appended.len(),
                leader.reads.len(),
                leader.transfer.as_ref().map(|transfer| transfer.to),
            ),
            Role::Follower(follower) => (false, Vec::new(), 0, follower.reads.len(), None),
            Role::PreCandidate(_) | Role::Candidate(_) => (false, Vec::new(), 0, 0, None),
        };
        let (written, persisted) = state.outbox.writes();
        Status {
            identity: state.identity,
            role: role.kind(),
            hard_state: state.hard_state,
            leader: role.leader(state),
            configuration: state.configurations.latest().clone(),
            transfer,
            log: LogStatus {
                base: state.log.base(),
                last: state.log.last(),
                durable: state.log.durable(),
                commit: state.commit,
                applied: state.applying.applied,
                committed_in_term,
                bytes: state.log.bytes_after(state.log.base().index),
                cached_bytes: state.log.cached_bytes(),
                snapshot: state.snapshots.last(),
                snapshot_bytes: state.snapshots.newest.as_ref().map_or(0, |meta| meta.bytes),
            },
            peers,
            load: LoadStatus {
                proposals,
                reads,
                held: state.outbox.held(),
                written,
                persisted,
                drops: state.counters.drops,
                storage: state.storage,
            },
        }
    }
}

fn peer_statuses(state: &State, leader: &Leader) -> Vec<PeerStatus> {
    let status_of = |(node, progress): (&crate::types::NodeId, &crate::progress::Progress)| PeerStatus {
        node: *node,
        matched: progress.matched(),
        next: progress.next(),
        mode: progress.mode(),
        is_member: progress.is_member(),
        inflight: progress.inflight(),
        silent_for: state.now().since(progress.anchor()),
    };
    leader.peers.iter().map(status_of).collect()
}
