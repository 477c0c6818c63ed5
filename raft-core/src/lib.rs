//! Raft as a pure state machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod commit;
mod config;
mod durable;
mod effect;
mod election;
mod entry;
mod error;
mod invariants;
mod log;
mod machine;
mod membership;
mod message;
mod outbox;
mod progress;
mod quorum;
mod raft;
mod read;
mod replication;
mod rng;
mod role;
mod state;
mod status;
mod step;
mod types;

pub use config::{Config, Limits, Timing};
pub use durable::{Durable, Identity, TermRun};
pub use effect::{Busy, Effect, Observation, Outcome, Purpose, RoleKind};
pub use entry::{Entries, Entry, Payload};
pub use error::{ConfigError, DurableError, MembershipError};
pub use machine::StateMachine;
pub use membership::{Member, Membership};
pub use message::{Append, CampaignId, Class, Event, LogReadOutcome, Message, Rejection, Rpc, Verdict};
pub use raft::Raft;
pub use status::{Drops, LoadStatus, LogStatus, PeerStatus, Status};
pub use types::{
    Boot, ClusterId, HardState, Index, NodeId, Peer, Position, ReadId, RequestId, Round, StoreId, Term, Time, WriteSeq,
};
