//! Raft as a pure state machine.
//!
//! One value, [`Raft`], is one server of a cluster. Give it what happens, as [`Message`]s that say
//! when; do what it says, as [`Effect`]s. It has no clock, does no I/O, starts no thread, and needs
//! no standard library: `no_std` and `alloc`, no unsafe code. The same messages always give the
//! same effects, so a whole cluster runs in one thread, in a simulator, or in a test.
//!
//! `§` cites [the extended Raft paper](https://raft.github.io/raft.pdf), `Thesis` Diego Ongaro's
//! dissertation.
//!
//! # A leader in a dozen lines
//!
//! ```
//! use raft_core::{
//!     Boot, ClusterId, Config, Durable, Effect, Event, Identity, Limits, Member, Membership, Message, NodeId, Raft,
//!     RoleKind, Rpc, StoreId, Timing, Verdict,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let members = [1, 2, 3].map(|id| (NodeId::new(id).expect("not 0"), StoreId::new(u128::from(id))));
//! let identity = |nth: usize| {
//!     let (node, store) = members[nth];
//!     Identity { cluster: ClusterId::new(7), node, store, boot: Boot::new(1) }
//! };
//! // What storage finds in a directory that was formatted just now.
//! let membership = Membership::new(members.map(|(node, store)| Member { node, store }))?;
//! let durable = Durable::first_boot(identity(0), membership);
//! let mut raft = Raft::new(Config::new(Timing::LAN, Limits::DEFAULT, 42)?, durable)?;
//!
//! // Time passes, and no leader is heard of …
//! while raft.status().role != RoleKind::Leader {
//!     let at = raft.deadline().expect("a voter waits for something");
//!     let mut effects = raft.step(Message { at, event: Event::Tick });
//!     while let Some(effect) = effects.pop() {
//!         let event = match effect {
//!             // … the disk of this example is fast, …
//!             Effect::Persist { seq, .. } => Event::Persisted { seq },
//!             // … and server 2 says yes to everything.
//!             Effect::Send { to, rpc } if to == members[1].0 => match rpc {
//!                 Rpc::PreVote { term, campaign, .. } => {
//!                     let rpc = Rpc::PreVoteReply { term, campaign, verdict: Verdict::Granted };
//!                     Event::Received { from: identity(1).peer(), rpc }
//!                 }
//!                 Rpc::Vote { term, .. } => {
//!                     let rpc = Rpc::VoteReply { term, verdict: Verdict::Granted };
//!                     Event::Received { from: identity(1).peer(), rpc }
//!                 }
//!                 _ => continue,
//!             },
//!             _ => continue,
//!         };
//!         effects.extend(raft.step(Message { at, event }));
//!     }
//! }
//! assert_eq!(raft.status().leader, Some(members[0].0));
//! # Ok(())
//! # }
//! ```
//!
//! The example `three_nodes` is a whole cluster: it replicates, loses its leader, and goes on.
//!
//! # The contract
//!
//! | [`Effect`] | who carries it out | answered by [`Event`] | may be lost |
//! |---|---|---|---|
//! | [`Send`](Effect::Send) | the transport; [`Rpc::class`] says which queue | – (the peer's own messages: [`Received`](Event::Received)) | yes |
//! | [`Persist`](Effect::Persist) | the log writer, in order; entries replace the suffix from their first index | [`Persisted`](Event::Persisted), for all up to one | no |
//! | [`Apply`](Effect::Apply) | the applier, in order; it answers the proposals among the entries | [`Applied`](Event::Applied) | no |
//! | [`Reply`](Effect::Reply) | whoever knows the clients: reads, members, transfers, snapshots, and bad news for proposals | – | no |
//! | [`ReadLog`](Effect::ReadLog) | a reader of the log; memory holds the newest entries only | [`LogRead`](Event::LogRead) | yes |
//! | [`TakeSnapshot`](Effect::TakeSnapshot) | the applier, in order | [`SnapshotTaken`](Event::SnapshotTaken) | asked again if it fails |
//! | [`SendSnapshot`](Effect::SendSnapshot) | the transport, behind everything else | – (the receiver's [`SnapshotProgress`](Event::SnapshotProgress) and [`SnapshotReceived`](Event::SnapshotReceived)) | yes |
//! | [`InstallSnapshot`](Effect::InstallSnapshot) | the log writer and the applier, each in order | [`Persisted`](Event::Persisted) and [`Applied`](Event::Applied) | no |
//! | [`Compact`](Effect::Compact) | the log writer | – | yes |
//! | [`Configured`](Effect::Configured) | the transport: its peers | – | no |
//! | [`Observe`](Effect::Observe) | logs, metrics, traces | – | yes |
//!
//! Besides the answers there are [`Tick`](Event::Tick), due at [`Raft::deadline`];
//! [`Propose`](Event::Propose) and [`Read`](Event::Read) from clients;
//! [`ChangeMembership`](Event::ChangeMembership), [`TransferLeadership`](Event::TransferLeadership)
//! and [`RequestSnapshot`](Event::RequestSnapshot) from operators;
//! [`PeerUnreachable`](Event::PeerUnreachable); [`StorageFull`](Event::StorageFull),
//! [`StorageReady`](Event::StorageReady) and [`StorageFailed`](Event::StorageFailed).
//!
//! 1. Every effect may be started the moment it is returned. What promises something – a vote, an
//!    acknowledgement – is held back *inside* until [`Persisted`](Event::Persisted) covers it, so no
//!    driver can get the order wrong. A leader's appends leave before its own disk is done (Thesis 10.2.1).
//! 2. Every [`RequestId`] ends in exactly one answer: among the tokens of an
//!    [`Apply`](Effect::Apply), or as an [`Outcome`], of which [`Unknown`](Outcome::Unknown) alone
//!    leaves it open whether a command will be applied.
//! 3. Entries are applied once they are committed *and durable here*.
//! 4. Nothing that a peer, a client or a disk says makes the core panic, loop, or allocate without
//!    bound; it is dropped and counted in [`Drops`]. Memory is bounded by [`Limits`]. A driver that
//!    reports what it was never asked to do is a bug, and panics.
//! 5. The core calls nobody: no trait to implement for storage or transport, no callback, no type
//!    parameter. Payloads are [`bytes::Bytes`], never copied.
//!
//! # The map
//!
//! A step has three beats: *gate* (terms and leader stickiness), *route* (one match on role and
//! event, each arm one call into a rule), *settle* (the consequences: role, commit, reads, the
//! write, the messages, what can be applied). Rules change facts; settle derives the rest. In
//! layers, each built on those above it:
//!
//! | layer | modules |
//! |---|---|
//! | 0 words | `types` numbers and identities · `membership` who belongs · `entry` entries and how they are shared · `error` · `rng` |
//! | 1 values | `config` timing and limits · `machine` what is replicated · `ledger` what bytes cost · `quorum` majorities |
//! | 2 in, out, and what is believed | `durable` what storage found · `message` what comes in · `effect` what goes out · `log` terms, cache, durability · `progress` one peer, as its leader sees it |
//! | 3 the server | `outbox` what leaves and what is held · `state` what every server has · `role` what only a role has, and the one place where roles change · `majority` what a majority has · `succession` who comes after a leader |
//! | 4 rules | `election` · `replication` · `commit` · `read` · `reconfig` members · `snapshot` · `transfer` of leadership |
//! | hub | `step` gate, route, settle · `raft` the door · `status` the view from outside · `invariants` what must be true after every step |
//!
//! Features: `serde` derives serialization for everything that crosses a wire or reaches a disk;
//! `invariants` checks every invariant after each step in release builds too.
//!
//! # Omitted
//!
//! Not here yet; nothing stands in for it:
//!
//! * repair of a damaged log from peers: [`StorageFailed`](Event::StorageFailed) is final;
//! * a member that comes back with an older copy of its own store, in the same life, is not
//!   recognised; with another store, or in an earlier life, it is;
//! * snapshots sent by a follower on the leader's word: the leader sends them itself.
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
mod ledger;
mod log;
mod machine;
mod majority;
mod membership;
mod message;
mod outbox;
mod progress;
mod quorum;
mod raft;
mod read;
mod reconfig;
mod replication;
mod rng;
mod role;
mod snapshot;
mod state;
mod status;
mod step;
mod succession;
mod transfer;
mod types;

pub use config::{Config, Leases, Limits, Priority, Timing};
pub use durable::{Durable, Identity, SnapshotMeta, TermRun};
pub use effect::{Busy, Effect, Observation, Outcome, ProgressMode, Purpose, RoleKind};
pub use entry::{Entries, Entry, Payload};
pub use error::{ChangeError, ConfigError, DurableError, MembershipError, TransferError};
pub use machine::{RestoreError, StateMachine};
pub use membership::{Change, Configuration, Learner, Member, Membership};
pub use message::{
    Append, CampaignId, Class, Event, ForwardId, LogReadOutcome, Message, ReadMode, Rejection, Rpc, SnapshotFate,
    SnapshotOffer, Verdict,
};
pub use raft::Raft;
pub use state::{Drops, Storage};
pub use status::{LoadStatus, LogStatus, PeerStatus, Status};
pub use types::{
    Boot, ClusterId, HardState, Index, NodeId, Peer, Position, ReadId, RequestId, Round, StoreId, Term, Time, WriteSeq,
};
