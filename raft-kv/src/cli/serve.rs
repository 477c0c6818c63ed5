//! `serve`: runs one member.

use std::io::{self, Read as _};
use std::thread;

use anyhow::bail;
use raft_kv::config::ClusterConfig;
use raft_kv::machine::Machine;
use raft_kv::server::{self, ServeError};
use raft_tokio::core::NodeId;
use raft_tokio::transport::TransportError;
use raft_tokio::{Node, StartError};
use tokio::sync::oneshot;

use super::arguments::Serve;
use super::exit::{Exit, Failure};
use super::signals::StopSignals;

/// Runs a member until it is asked to stop.
pub(crate) async fn serve(arguments: &Serve) -> anyhow::Result<Exit> {
    // First of all, so that a signal during the start ends in order as well.
    let mut stop = StopSignals::listen()?;
    let config = ClusterConfig::load(&arguments.cluster.config)?;
    let member = config.node(arguments.node)?;
    let node = start(&config, member.id)?;
    tracing::info!(
        "{} serves cluster {} at udp {}, data in {}",
        member.id,
        config.cluster(),
        node.local_addr(),
        member.data.display()
    );
    tokio::select! {
        signal = stop.next() => tracing::info!("{} shuts down: {}", member.id, signal.name()),
        () = owner_gone(arguments.until_stdin_closes) => {
            tracing::info!("{} shuts down: standard input was closed", member.id);
        }
        () = node.ended() => bail!("{} ended by itself; the log says why", member.id),
    }
    node.shutdown().await;
    tracing::info!("{} has shut down", member.id);
    Ok(Exit::Done)
}

fn start(config: &ClusterConfig, id: NodeId) -> anyhow::Result<Node<Machine>> {
    server::start(config, id).map_err(|error| {
        let exit = match &error {
            ServeError::Config(_)
            | ServeError::Identity(_)
            | ServeError::Unresolved { .. }
            | ServeError::ForeignAddress { .. } => Exit::Usage,
            ServeError::Start(StartError::Transport(TransportError::AddressInUse { .. })) => Exit::AddressTaken,
            ServeError::Incomplete { .. } | ServeError::Start(_) => Exit::Failed,
        };
        Failure::new(exit, format!("{id} cannot start: {error}")).into()
    })
}

/// Ends when standard input does, if that matters; what is written to it does not.
async fn owner_gone(matters: bool) {
    if !matters {
        return std::future::pending().await;
    }
    let (gone, noticed) = oneshot::channel::<()>();
    // A thread of its own: the runtime would wait at its end for a read that it had begun.
    thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut stdin = io::stdin().lock();
        while !matches!(stdin.read(&mut buffer), Ok(0) | Err(_)) {}
        drop(gone);
    });
    // It is never sent, only dropped.
    let _ = noticed.await;
}
