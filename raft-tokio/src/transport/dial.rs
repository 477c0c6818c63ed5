//! From `host:port` to a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::contain::{Held, failure};
use super::{DialError, TransportError};

/// Resolves the address and connects to it; with a name that has several addresses, to the first that answers.
pub(super) async fn dial(
    quinn: &Arc<Held<quinn::Endpoint>>,
    address: &str,
    name: &str,
    within: Duration,
) -> Result<Held<quinn::Connection>, TransportError> {
    let failed = |cause| TransportError::Dial { address: address.to_owned(), cause };
    let candidates = resolve(address).await?;
    if let [only] = candidates.as_slice() {
        return connect(quinn, *only, name, within).await.map_err(failed);
    }
    // `localhost` may mean two addresses and its server listen at one: nobody answers at the other,
    // which takes long to be sure of.
    let mut attempts = JoinSet::new();
    for (candidate, nth) in candidates.into_iter().zip(0..) {
        let (quinn, name) = (quinn.clone(), name.to_owned());
        attempts.spawn(async move {
            tokio::time::sleep(STAGGER * nth).await;
            connect(&quinn, candidate, &name, within).await
        });
    }
    let mut last = DialError::NoAnswer { within };
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(connection)) => return Ok(connection),
            // Somebody is there, and says no.
            Ok(Err(
                cause @ (DialError::Distrusted { .. } | DialError::NotTrusted { .. } | DialError::Refused { .. }),
            )) => {
                return Err(failed(cause));
            }
            Ok(Err(cause @ (DialError::NoAnswer { .. } | DialError::Broken { .. }))) => last = cause,
            Err(error) => last = DialError::Broken { reason: failure(error) },
        }
    }
    Err(failed(last))
}

/// Looks the address up; at least one result.
async fn resolve(address: &str) -> Result<Vec<SocketAddr>, TransportError> {
    let failed = |reason: String| TransportError::Resolve { address: address.to_owned(), reason };
    // A literal address needs no resolver, nor the thread that one runs on.
    if let Ok(literal) = address.parse() {
        return Ok(vec![literal]);
    }
    let found = tokio::net::lookup_host(address).await.map_err(|error| failed(error.to_string()))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err(failed("the name has no address".to_owned())) } else { Ok(found) }
}

/// One handshake with one address.
async fn connect(
    quinn: &Held<quinn::Endpoint>,
    address: SocketAddr,
    name: &str,
    within: Duration,
) -> Result<Held<quinn::Connection>, DialError> {
    let connecting = quinn.connect(address, name).map_err(|error| DialError::Broken { reason: error.to_string() })?;
    match connecting.await {
        Ok(connection) => Ok(Held::new(connection)),
        Err(error) => Err(DialError::from_connection(&error, within)),
    }
}

/// The head start of each address before the next.
const STAGGER: Duration = Duration::from_millis(50);
