//! The real connections: QUIC, both sides authenticated.

use std::sync::Arc;

use bytes::Bytes;
use raft_tokio::certs::Credentials;
use raft_tokio::core::{ClusterId, NodeId};
use raft_tokio::transport::{CallError, ClientConnection, ClientEndpoint, Limits, TransportError};

use super::dial::{BoxFuture, CallFailure, Dial, DialFailure, Line};
use super::error::ClientError;
use super::trust::Distrust;

/// One UDP port for the connections to all nodes.
pub(super) struct QuicDial {
    endpoint: ClientEndpoint,
}

impl QuicDial {
    pub(super) fn new(cluster: ClusterId, credentials: &Credentials) -> Result<Self, ClientError> {
        let certified = credentials.identity().cluster;
        if certified != cluster {
            return Err(ClientError::ForeignCertificate { cluster, certified });
        }
        let endpoint = ClientEndpoint::new(credentials, Limits::DEFAULT)
            .map_err(|error| ClientError::Setup { reason: error.to_string() })?;
        Ok(Self { endpoint })
    }
}

impl Dial for QuicDial {
    fn dial<'a>(&'a self, node: NodeId, address: &'a str) -> BoxFuture<'a, Result<Arc<dyn Line>, DialFailure>> {
        Box::pin(async move {
            match self.endpoint.connect(address, Some(node)).await {
                Ok(connection) => {
                    let line: Arc<dyn Line> = Arc::new(connection);
                    Ok(line)
                }
                // Node and address are known to whoever reads it.
                Err(TransportError::Dial { cause, .. }) => Err(match Distrust::from_dial(cause) {
                    Ok(distrust) => DialFailure::Distrusted(distrust),
                    Err(passing) => DialFailure::Unreachable(passing.to_string()),
                }),
                Err(TransportError::Resolve { reason, .. }) => Err(DialFailure::Unreachable(format!(
                    "the name cannot be resolved ({reason}); correct the address in the configuration, or see to the name service"
                ))),
                Err(other) => Err(DialFailure::Unreachable(other.to_string())),
            }
        })
    }
}

impl Line for ClientConnection {
    fn call(&self, request: Bytes) -> BoxFuture<'_, Result<Bytes, CallFailure>> {
        Box::pin(async move {
            Self::call(self, request).await.map_err(|error| match error {
                CallError::NotSent { reason } => CallFailure::NotSent(reason),
                CallError::TooLarge { bytes, max } => CallFailure::TooLarge { size: bytes as u64, limit: max as u64 },
                CallError::Unknown { reason } => CallFailure::Lost(reason),
                // Whatever else there may be: it is not certain that the server has not seen it.
                other => CallFailure::Lost(other.to_string()),
            })
        })
    }
}
