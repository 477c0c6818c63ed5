//! What happens in a demo, in which order.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use raft_kv::key::Key;
use tokio::sync::watch;

use super::cluster::Cluster;
use super::expectation::Expectation;
use super::folder;
use super::report::{Measurements, millis};
use super::verification;
use super::workload::{self, Draws};
use crate::cli::arguments::Demo;
use crate::cli::exit::Exit;
use crate::cli::load::read_pairs;
use crate::cli::output::{counted, grouped};
use crate::cli::progress::{Progress, Stream};
use crate::cli::writers::Writers;

/// How many writes are generated if there is no file.
const GENERATED_WRITES: usize = 20_000;
/// How many writes are under way at once.
const INFLIGHT: usize = 128;

/// How often the nodes are asked whether they are well while writes go on.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs a demo from start to end. Errors say what did not hold.
pub(crate) async fn tell(arguments: &Demo) -> anyhow::Result<()> {
    let progress = Progress::new(Stream::Stdout);
    let seed = arguments.seed.unwrap_or_else(random_seed);
    let mut draws = Draws::new(seed);
    let writes = match &arguments.load {
        Some(file) => pairs_of(file)?,
        None => workload::generated(&mut draws, GENERATED_WRITES).into(),
    };
    let nodes = counted(u64::from(arguments.nodes), "node");
    // Whatever the user has to mend is found before the story begins.
    let made = folder::make(arguments.nodes, &mut draws, arguments.keep.as_deref())?;
    progress.line(&format!("starting {nodes} with TLS; seed {seed}"))?;
    let (mut cluster, leader) = Cluster::start(made, &mut draws).await?;
    progress.line(&format!("{nodes} up, TLS on, leader {leader}; data in {}", cluster.path().display()))?;

    let plan = Plan::new(writes.len(), &mut draws);
    let mut scene =
        Scene { progress: RefCell::new(progress), measurements: RefCell::new(Measurements::begin()), plan, writes };
    match scene.play(&mut cluster).await {
        Ok(()) => {
            if arguments.keep.is_some() {
                scene.progress.borrow().raw(&how_to_go_on(&cluster))?;
            }
            Ok(())
        }
        // Nobody reads this any more: no reason to keep anything.
        Err(error) if Exit::is_closed_output(&error) => Err(error),
        Err(error) => Err(cluster.explain(&error)),
    }
}

/// The lines of a file that has some.
fn pairs_of(file: &Path) -> anyhow::Result<Arc<[(Key, Bytes)]>> {
    let pairs = read_pairs(file)?;
    ensure!(!pairs.is_empty(), "{} has no lines; a line is a key, a tab and a value", file.display());
    Ok(pairs)
}

/// When things happen, in writes.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// After so many acknowledged writes, the leader is killed.
    kill_at: usize,
    /// After so many, it is started again.
    restart_at: usize,
    /// So many writes may begin before the kill, so that some are left for after it, however fast
    /// they are.
    hold_at: usize,
    /// All of them.
    writes: usize,
}

impl Plan {
    fn new(writes: usize, draws: &mut Draws) -> Self {
        // A leader that nobody has written to would have nothing to lose.
        let kill_at = (writes * (30 + draws.below(20) as usize) / 100).max(1);
        let hold_at = (kill_at + (writes / 5).max(1)).min(writes.saturating_sub(1)).max(kill_at);
        Self { kill_at, restart_at: writes * 3 / 4, hold_at, writes }
    }

    /// Whether something is left to write after the kill.
    fn is_in_mid_load(self) -> bool {
        self.hold_at < self.writes
    }

    /// When the leader was killed, in words.
    fn moment(self, acknowledged: usize) -> String {
        let all = grouped(self.writes as u64);
        if self.is_in_mid_load() {
            format!("in mid-load, after {} of {all} writes", grouped(acknowledged as u64))
        } else {
            // One line, that is.
            "after the only write; a load with a middle to be killed in has 2 writes or more".to_owned()
        }
    }
}

struct Scene {
    progress: RefCell<Progress>,
    measurements: RefCell<Measurements>,
    plan: Plan,
    writes: Arc<[(Key, Bytes)]>,
}

impl Scene {
    async fn play(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let expectation = self.write_and_kill(cluster).await?;
        self.say(&format!(
            "{} acknowledged to {}; waiting until every node has them",
            counted(expectation.writes(), "write"),
            counted(expectation.keys(), "key")
        ))?;
        let hash = verification::convergence(cluster).await?;
        let members = cluster.members();
        self.say(&format!("{} converged on state hash {hash}", counted(members.len() as u64, "node")))?;
        let keys = verification::contents(cluster.client(), &members, &expectation).await?;
        self.say(&format!(
            "{} read back: every acknowledged write is there, applied once; all nodes hold the same keys, values, \
             revisions and versions",
            counted(keys, "key")
        ))?;
        cluster.stop().await?;
        let origin = self.progress.borrow().started();
        let table = self.measurements.borrow().table(origin, cluster.leaders());
        self.progress.borrow().raw(&format!("\n{table}\n\n"))?;
        self.say("everything held")
    }

    /// Writes everything, while the leader is killed and restarted.
    async fn write_and_kill(&self, cluster: &mut Cluster) -> anyhow::Result<Expectation> {
        let mut writers = Writers::begin(cluster.client(), &self.writes, INFLIGHT, self.plan.hold_at);
        let allow_all = writers.gate();
        self.progress.borrow_mut().begin(self.writes.len() as u64);
        let (count, counted) = watch::channel(0);
        let (expectation, ()) =
            tokio::try_join!(self.collect(&mut writers, count), self.kill_and_restart(cluster, &allow_all, counted))?;
        self.progress.borrow_mut().end();
        Ok(expectation)
    }

    /// Takes note of every acknowledgement.
    async fn collect(&self, writers: &mut Writers, count: watch::Sender<usize>) -> anyhow::Result<Expectation> {
        let mut expectation = Expectation::default();
        while let Some(outcome) = writers.next().await {
            let acknowledged = outcome.context("every write should be acknowledged in the end")?;
            let (key, value) = &self.writes[acknowledged.nth];
            expectation.acknowledged(key, value, acknowledged.revision);
            if self.measurements.borrow_mut().acknowledged(&acknowledged) {
                let failover = self.measurements.borrow().failover().unwrap_or_default();
                self.say(&format!("writes are acknowledged again, {} after the kill", millis(failover)))?;
            }
            self.progress.borrow_mut().reach(expectation.writes())?;
            count.send_modify(|count| *count += 1);
        }
        Ok(expectation)
    }

    /// What the writers do not know of.
    async fn kill_and_restart(
        &self,
        cluster: &mut Cluster,
        gate: &watch::Sender<usize>,
        mut acknowledged: watch::Receiver<usize>,
    ) -> anyhow::Result<()> {
        let Plan { kill_at, restart_at, .. } = self.plan;
        until(cluster, &mut acknowledged, kill_at).await?;
        let leader = cluster.leader().await?;
        let signalled = Instant::now();
        let process = cluster.kill_node(leader)?;
        self.measurements.borrow_mut().killed(signalled, Instant::now());
        gate.send_replace(usize::MAX);
        let moment = self.plan.moment(*acknowledged.borrow());
        self.say(&format!("killed the leader {leader} (SIGKILL, process {process}) {moment}"))?;

        let members = cluster.members().len();
        let survivors = members - 1;
        if survivors > members / 2 {
            let new = cluster.leader().await?;
            self.say(&format!("new leader {new}"))?;
            until(cluster, &mut acknowledged, restart_at).await?;
        } else {
            let left = counted(survivors as u64, "node");
            let wait = if self.plan.is_in_mid_load() { ": writes wait" } else { "" };
            self.say(&format!("{left} of {members} left, which is no majority{wait}; a cluster of 3 would go on"))?;
        }
        cluster.start_node(leader)?;
        self.say(&format!("{leader} restarted from its disk"))?;
        let new = cluster.leader().await?;
        self.say(&format!("{leader} is back; leader {new}"))
    }

    fn say(&self, text: &str) -> anyhow::Result<()> {
        Ok(self.progress.borrow().line(text)?)
    }
}

/// Waits until so many writes are acknowledged, or all of them are over. Fails if a node does, for
/// then they may never be.
async fn until(cluster: &mut Cluster, acknowledged: &mut watch::Receiver<usize>, writes: usize) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            // When writing is over, the other end is dropped.
            _ = acknowledged.wait_for(|count| *count >= writes) => return Ok(()),
            () = tokio::time::sleep(CHECK_INTERVAL) => cluster.check().await?,
        }
    }
}

fn how_to_go_on(cluster: &Cluster) -> String {
    let path = cluster.path();
    let config = path.join(raft_kv::config::ClusterConfig::FILE_NAME);
    let config = config.display();
    let mut text = format!("\nkept in {}; to go on, each in a terminal of its own:\n", path.display());
    for node in cluster.members() {
        text.push_str(&format!("  raft-kv serve --config {config} --node {}\n", node.as_u64()));
    }
    text.push_str(&format!("and then:\n  raft-kv status --config {config}\n"));
    text
}

/// A seed that differs from run to run. The standard library draws its hash keys at random;
/// nothing else is hashed.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regress_the_leader_is_killed_after_a_write_and_before_another_however_few_there_are() {
        for writes in 2..=200 {
            for seed in 0..20 {
                let plan = Plan::new(writes, &mut Draws::new(seed));
                let Plan { kill_at, hold_at, .. } = plan;
                assert!(0 < kill_at && kill_at <= hold_at && hold_at < writes, "{plan:?}");
                assert!(plan.is_in_mid_load());
            }
        }
    }

    #[test]
    fn regress_a_single_write_is_said_to_be_too_few() {
        let plan = Plan::new(1, &mut Draws::new(7));
        assert_eq!((plan.kill_at, plan.hold_at, plan.is_in_mid_load()), (1, 1, false));
        assert!(plan.moment(1).starts_with("after the only write"), "{}", plan.moment(1));
    }
}
