//! The nodes of a demo, and the folder that they live in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use raft_kv::client::Client;
use raft_kv::config::ClusterConfig;
use raft_tokio::core::NodeId;
use tokio::time::Instant;

use super::folder::{self, Folder, Made};
use super::leaders::Leaders;
use super::process::NodeProcess;
use super::workload::Draws;
use crate::cli::exit::Exit;
use crate::cli::health::{Finding, Health};
use crate::cli::status;

/// How long one write or read may take. A failover takes a fraction of a second; a machine that
/// is busy with other things takes its time.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long nodes may take to start and to elect a leader.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a node may take to shut down after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the nodes are asked how they are while something is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long one of these questions may take.
const POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// Other programs may take a port between its choice and its use. More often than this, it is
/// something else.
const START_ATTEMPTS: u32 = 5;
/// How many lines of each log are shown when something went wrong.
const LOG_TAIL_LINES: usize = 12;

/// A running cluster. Dropping it kills its processes and then, unless it is to be kept, removes
/// its folder: fields are dropped in this order.
pub(crate) struct Cluster {
    processes: BTreeMap<NodeId, NodeProcess>,
    client: Client,
    config: ClusterConfig,
    leaders: Leaders,
    folder: Folder,
}

/// Why nodes did not start.
enum StartFailure {
    /// Somebody else was faster with a port.
    PortTaken,
    Other(anyhow::Error),
}

impl StartFailure {
    /// Of a node that had its port before.
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Other(error) => error,
            Self::PortTaken => {
                anyhow::anyhow!("another program took the port of a node while it was down; try again")
            }
        }
    }
}

impl Cluster {
    /// Starts the nodes of a cluster, and waits until they follow one leader.
    pub(crate) async fn start(made: Made, draws: &mut Draws) -> anyhow::Result<(Self, NodeId)> {
        let Made { folder, config } = made;
        let (client, leaders) = (connect(&config)?, Leaders::default());
        let mut cluster = Self { processes: BTreeMap::new(), client, config, leaders, folder };
        for _ in 0..START_ATTEMPTS {
            match cluster.start_all().await {
                Ok(leader) => return Ok((cluster, leader)),
                Err(StartFailure::PortTaken) => {
                    if let Err(error) = cluster.move_elsewhere(draws) {
                        return Err(cluster.explain(&error));
                    }
                }
                Err(StartFailure::Other(error)) => return Err(cluster.explain(&error)),
            }
        }
        let error = anyhow::anyhow!(
            "other programs took the ports that were free a moment before, {START_ATTEMPTS} times in a row; try again"
        );
        Err(cluster.explain(&error))
    }

    /// Ends the nodes that did start, and gives all of them other ports.
    fn move_elsewhere(&mut self, draws: &mut Draws) -> anyhow::Result<()> {
        self.processes.clear();
        self.config = folder::move_to_free_ports(&self.config, draws)?;
        self.client = connect(&self.config)?;
        Ok(())
    }

    async fn start_all(&mut self) -> Result<NodeId, StartFailure> {
        for node in self.members() {
            self.start_node(node).map_err(StartFailure::Other)?;
        }
        self.settle().await
    }

    /// Starts a node, for the first time or again.
    pub(crate) fn start_node(&mut self, node: NodeId) -> anyhow::Result<()> {
        let process = NodeProcess::start(self.config.path(), node, &self.log_path(node))
            .with_context(|| format!("cannot start the process of {node}"))?;
        self.processes.insert(node, process);
        Ok(())
    }

    /// Ends a node with SIGKILL; returns the number of the process that was.
    pub(crate) fn kill_node(&mut self, node: NodeId) -> anyhow::Result<u32> {
        let mut process = self.processes.remove(&node).with_context(|| format!("{node} is not running"))?;
        process.kill().with_context(|| format!("cannot kill the process of {node}"))?;
        Ok(process.id())
    }

    /// Waits until all running nodes answer and follow one leader, and says which.
    async fn settle(&mut self) -> Result<NodeId, StartFailure> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let health = self.health().await?;
            match health.leader {
                Some(leader) if health.working == self.processes.len() => return Ok(leader),
                Some(_) | None if Instant::now() >= deadline => {
                    let limit = SETTLE_TIMEOUT.as_secs();
                    return Err(StartFailure::Other(anyhow::anyhow!(
                        "the nodes did not settle within {limit} s: {health}"
                    )));
                }
                Some(_) | None => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Waits until all running nodes follow one leader, and says which.
    pub(crate) async fn leader(&mut self) -> anyhow::Result<NodeId> {
        self.settle().await.map_err(StartFailure::into_error)
    }

    /// Whether a process that should run has ended.
    fn notice_deaths(&mut self) -> Result<(), StartFailure> {
        for process in self.processes.values_mut() {
            let ended = process.ended().map_err(|error| StartFailure::Other(error.into()))?;
            let Some(status) = ended else { continue };
            if status.code() == Some(i32::from(Exit::AddressTaken as u8)) {
                return Err(StartFailure::PortTaken);
            }
            let node = process.node();
            return Err(StartFailure::Other(anyhow::anyhow!("the process of {node} ended by itself: {status}")));
        }
        Ok(())
    }

    /// Fails if a node will not serve any more, so that nobody waits for it in vain.
    pub(crate) async fn check(&mut self) -> anyhow::Result<()> {
        self.health().await.map(drop).map_err(StartFailure::into_error)
    }

    /// How the running nodes are; fails if one of them cannot become well again.
    async fn health(&mut self) -> Result<Health, StartFailure> {
        self.notice_deaths()?;
        let findings = self.ask().await;
        for Finding { node, answer, .. } in &findings {
            if answer.as_ref().is_ok_and(|status| status.storage_failed) {
                return Err(StartFailure::Other(anyhow::anyhow!("the storage of {node} has failed")));
            }
        }
        Ok(Health::judge(&findings))
    }

    /// Asks the running nodes how they are.
    pub(crate) async fn ask(&mut self) -> Vec<Finding> {
        let findings = status::ask(&self.client, &self.processes.keys().copied().collect(), POLL_TIMEOUT).await;
        self.leaders.note(&findings);
        findings
    }

    /// The leaders that were seen so far.
    pub(crate) fn leaders(&self) -> &Leaders {
        &self.leaders
    }

    /// The client that everything is written and read with.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// All nodes, running or not.
    pub(crate) fn members(&self) -> BTreeSet<NodeId> {
        self.config.nodes().map(|node| node.id).collect()
    }

    /// Where the cluster lives.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn log_path(&self, node: NodeId) -> PathBuf {
        self.folder.path().join(format!("{node}.log"))
    }

    fn read_log(&self, node: NodeId) -> String {
        fs::read_to_string(self.log_path(node)).unwrap_or_default()
    }

    /// Shuts all nodes down in order.
    ///
    /// # Errors
    /// If one of them does not, or had ended before.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        for process in self.processes.values_mut() {
            process.ask_to_stop();
        }
        for (node, process) in &mut self.processes {
            match process.wait(STOP_TIMEOUT).await? {
                Some(status) if status.success() => {}
                Some(status) => bail!("{node} was asked to shut down, and ended with {status}"),
                None => bail!("{node} did not shut down within {} s", STOP_TIMEOUT.as_secs()),
            }
        }
        Ok(())
    }

    /// After a failure: ends everything but keeps the folder, if something is in it, and adds to the error where it is
    /// and what the nodes said last.
    pub(crate) fn explain(mut self, error: &anyhow::Error) -> anyhow::Error {
        let mut text = format!("{}\n", Exit::explain(error));
        for process in self.processes.values_mut() {
            if let Ok(Some(status)) = process.ended() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "  {} had ended by itself: {status}", process.node());
            }
        }
        self.processes.clear();
        let logs: Vec<(NodeId, String)> = self
            .members()
            .into_iter()
            .map(|node| (node, self.read_log(node)))
            .filter(|(_, log)| !log.is_empty())
            .collect();
        // The cause may be far above the last lines.
        for (node, log) in &logs {
            if let Some((_, complaint)) = log.lines().rev().find_map(|line| line.split_once(" ERROR ")) {
                let _ = writeln!(text, "  {node} says: {complaint}");
            }
        }
        for (node, log) in &logs {
            let lines: Vec<&str> = log.lines().collect();
            let _ = writeln!(text, "  the last lines of {node}.log:");
            for line in &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..] {
                let _ = writeln!(text, "    {line}");
            }
        }
        match self.folder {
            // No node got as far as to say a word: there is nothing to see.
            Folder::Temporary(_) if logs.is_empty() => text.truncate(text.trim_end().len()),
            folder @ (Folder::Temporary(_) | Folder::Kept(_)) => {
                let kept = folder.keep();
                let _ = write!(
                    text,
                    "  configuration, data and logs are kept in {}; remove it when you have seen enough",
                    kept.display()
                );
            }
        }
        anyhow::anyhow!(text).context("the demo failed")
    }
}

fn connect(config: &ClusterConfig) -> anyhow::Result<Client> {
    Ok(Client::connect(config.client(OPERATION_TIMEOUT)?)?)
}
