//! Runs [`raft_core`]: a durable log, QUIC with mutual TLS, and a replica in thirty lines.
//!
//! ```text
//!   application ──▶ node ──▶ driver (owns Raft and the state machine)
//!                              │  drain the inbox, step, dispatch
//!            ┌─────────────────┼──────────────────┐
//!            ▼                 ▼                  ▼
//!        storage::Writer   transport::Endpoint   applier, pending
//!            │                 │
//!            └── events back into the inbox ──▶ driver
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`Node`] | the handle: propose, read, status, shutdown |
//! | [`storage`] | the log on disk, and the thread that writes it |
//! | [`transport`] | links to peers and clients; the only place that knows QUIC and TLS |
//! | [`certs`] | certificates: who may be which node of which cluster |
//! | [`local`] | a whole cluster on this machine, for a first try and for tests |
//!
//! `examples/counter.rs` is a whole replicated state machine.
//!
//! # Omitted
//!
//! Snapshots that do not fit into memory: the machine writes one as a whole, on the node's own
//! task, and it travels as a whole. Repair of a damaged log from other nodes: it stops the node.
//! Going on when a disk is full: the log takes that for a failure.

#![forbid(unsafe_code)]

mod applier;
pub mod certs;
mod codec;
mod dispatch;
mod driver;
mod error;
mod limits;
pub mod local;
mod node;
mod pending;
mod punctuality;
pub mod storage;
mod throttle;
pub mod transport;

pub use error::{AdminError, ProposeError, ReadError, StartError};
pub use node::{Builder, Node};
pub use pending::{Changed, Proposed};
pub use punctuality::RuntimeStatus;
pub use raft_core as core;
