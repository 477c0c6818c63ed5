//! A replicated key/value store with etcd's data model, on top of [`raft_tokio`].
//!
//! | layer | modules | what for |
//! |---|---|---|
//! | 0 | [`key`], `envelope`, `digest`, `random` | valid keys, versioned bytes, running hashes |
//! | 1 | [`store`], [`command`], [`protocol`], [`load`] | the data, what is replicated, what is said |
//! | 2 | [`session`], [`config`] | retried writes happen once; the file that describes a cluster |
//! | 3 | [`machine`], `image`, [`server`], [`client`], [`init`], [`join`] | the state machine; it, written down; its server; its client; a new cluster; a new member |
//!
//! A write's way through this crate: [`client::Client::put`] gives it a session and a sequence
//! number → [`protocol::Request`] → [`server`] → [`command::Command`] in the log →
//! [`machine::Machine`] → [`session::Sessions`] (seen before?) → [`store::Store`] →
//! [`command::Answer`] → [`protocol::Reply`].
//!
//! ```
//! use raft_kv::key::{Key, Revision};
//! use raft_kv::store::Store;
//!
//! # fn main() -> Result<(), raft_kv::key::KeyError> {
//! let mut store = Store::new();
//! assert_eq!(store.revision(), Revision::new(1));
//! let change = store.put(Key::new("greeting")?, "hello".into(), None);
//! assert_eq!(change.map(|change| change.revision), Ok(Revision::new(2)));
//! // Only if nobody else was faster:
//! let change = store.put(Key::new("greeting")?, "hello again".into(), Some(Revision::new(1)));
//! assert!(change.is_err());
//! # Ok(())
//! # }
//! ```
//!
//! Omitted: history and reads of old revisions, transactions, keys that expire, watches.
#![forbid(unsafe_code)]

pub mod client;
pub mod command;
pub mod config;
mod digest;
mod envelope;
mod image;
pub mod init;
pub mod join;
pub mod key;
pub mod load;
pub mod machine;
pub mod protocol;
mod random;
pub mod server;
pub mod session;
pub mod store;

pub use digest::StateHash;
pub use envelope::DecodeError;
pub use random::RandomError;
