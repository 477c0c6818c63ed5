//! Connections to servers, as far as the client cares how they are made.
//!
//! A trait, so that tests can put a network between client and server that loses whatever they
//! like it to lose; the real one is QUIC.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use raft_tokio::core::NodeId;

use super::trust::Distrust;

pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes connections.
pub(super) trait Dial: Send + Sync + 'static {
    /// Connects to a node and makes sure that it is that one.
    fn dial<'a>(&'a self, node: NodeId, address: &'a str) -> BoxFuture<'a, Result<Arc<dyn Line>, DialFailure>>;
}

/// No connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DialFailure {
    /// Another attempt may succeed; the text says what is wrong.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody is there, and one side does not accept the other.
    #[error("{0}")]
    Distrusted(Distrust),
}

/// A connection.
pub(super) trait Line: Send + Sync + 'static {
    /// Sends a request and waits for its response.
    fn call(&self, request: Bytes) -> BoxFuture<'_, Result<Bytes, CallFailure>>;
}

/// A call without an answer; the text says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallFailure {
    /// The server has not seen the request.
    NotSent(String),
    /// The server may have seen it.
    Lost(String),
    /// The server takes smaller requests only, and has not seen this one.
    TooLarge {
        /// How many bytes the request has.
        size: u64,
        /// How many it may have.
        limit: u64,
    },
}
