//! From `host:port` to socket addresses.

use std::net::SocketAddr;

use super::TransportError;

/// Looks the address up; at least one result, those that `local` can reach first.
pub(super) async fn resolve(address: &str, local: SocketAddr) -> Result<Vec<SocketAddr>, TransportError> {
    let failed = |reason: String| TransportError::Resolve { address: address.to_owned(), reason };
    // A literal address needs no resolver, nor the thread that one runs on.
    if let Ok(literal) = address.parse() {
        return Ok(vec![literal]);
    }
    let found = tokio::net::lookup_host(address).await.map_err(|error| failed(error.to_string()))?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_by_key(|candidate| candidate.is_ipv4() != local.is_ipv4());
    if found.is_empty() {
        return Err(failed("the name has no address".to_owned()));
    }
    Ok(found)
}
