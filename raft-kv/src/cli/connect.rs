//! From flags to a client.

use raft_kv::client::Client;
use raft_kv::config::ClusterConfig;

use super::arguments::ClientFlags;

/// A client of the cluster that the flags name. Connects to nothing yet.
pub(crate) fn client(flags: &ClientFlags) -> anyhow::Result<Client> {
    let config = ClusterConfig::load(&flags.cluster.config)?;
    Ok(Client::connect(config.client(flags.timeout)?)?)
}
