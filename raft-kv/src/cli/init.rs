//! `init`: makes a cluster that is not running yet.

use std::net::Ipv6Addr;
use std::path::Path;

use raft_kv::config::ClusterConfig;
use raft_kv::init::{InitError, init as make, successive_addresses};

use super::arguments::Init;
use super::exit::{Exit, Failure};
use super::output;

/// Makes a cluster and says what to type next.
pub(crate) fn init(arguments: &Init) -> anyhow::Result<Exit> {
    let config = create(&arguments.directory, arguments.nodes, &arguments.host, arguments.base_port)
        .map_err(|error| Failure::new(exit_of(&error), error.to_string()))?;
    output::write(next_steps(&arguments.directory, &config).as_bytes())?;
    Ok(Exit::Done)
}

/// Whether it failed, or what was asked for can be no cluster.
fn exit_of(error: &InitError) -> Exit {
    match error {
        InitError::NoNode | InitError::OutOfPorts { .. } | InitError::Address { .. } | InitError::Membership(_) => {
            Exit::Usage
        }
        InitError::NotEmpty { .. }
        | InitError::CannotWrite { .. }
        | InitError::Random(_)
        | InitError::Certificate(_)
        | InitError::Storage(_)
        | InitError::Config(_) => Exit::Failed,
    }
}

/// Makes a cluster of which node `n` listens at port `base_port + n`.
pub(crate) fn create(directory: &Path, nodes: u16, host: &str, base_port: u16) -> Result<ClusterConfig, InitError> {
    // An address needs brackets around a host that has colons itself.
    let host = host.parse::<Ipv6Addr>().map_or_else(|_| host.to_owned(), |host| format!("[{host}]"));
    let first_port = base_port.checked_add(1).ok_or(InitError::OutOfPorts { first_port: base_port, nodes })?;
    make(directory, &successive_addresses(&host, first_port, nodes)?)
}

fn next_steps(directory: &Path, config: &ClusterConfig) -> String {
    let file = config.path().display();
    let mut text = format!("cluster {} in {}\n", config.cluster(), directory.display());
    text.push_str(&format!("  {}  the configuration, for nodes and clients\n", ClusterConfig::FILE_NAME));
    text.push_str("  certs/        certificates and keys; keep certs/ca.key to yourself\n");
    for node in config.nodes() {
        text.push_str(&format!(
            "  {:<12}  data of {}, which listens at {}\n",
            format!("{}/", node.id),
            node.id,
            node.address
        ));
    }
    text.push_str("\nStart the nodes, each in a terminal of its own:\n");
    for node in config.nodes() {
        text.push_str(&format!("  raft-kv serve --config {file} --node {}\n", node.id.as_u64()));
    }
    text.push_str("\nThen use the cluster:\n");
    text.push_str(&format!("  export RAFT_KV_CONFIG={file}\n"));
    text.push_str("  raft-kv status\n  raft-kv put hello world\n  raft-kv get hello\n");
    text
}
