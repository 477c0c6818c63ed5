//! Where a demo's cluster lives, and what may be done to it there.
//!
//! Invariant: nothing is ever removed from a folder that the user named.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use raft_kv::config::ClusterConfig;
use tempfile::TempDir;

use super::ports;
use super::workload::Draws;
use crate::cli::init;

/// Where the nodes listen.
const HOST: &str = "127.0.0.1";

/// A folder with a cluster in it that nobody runs.
pub(crate) struct Made {
    pub(crate) folder: Folder,
    pub(crate) config: ClusterConfig,
}

/// Makes a cluster in `keep` or in a temporary folder.
///
/// # Errors
/// If there is no place for it, or something is there already. Nothing is left behind then.
pub(crate) fn make(nodes: u16, draws: &mut Draws, keep: Option<&Path>) -> anyhow::Result<Made> {
    let folder = Folder::new(keep)?;
    let config = init::create(folder.path(), nodes, HOST, free_ports(nodes, draws)?)?;
    Ok(Made { folder, config })
}

fn free_ports(nodes: u16, draws: &mut Draws) -> anyhow::Result<u16> {
    ports::free_base(nodes, draws.next()).context("cannot find free UDP ports on 127.0.0.1")
}

/// Gives the nodes of a cluster, none of which runs, other ports.
pub(crate) fn move_to_free_ports(config: &ClusterConfig, draws: &mut Draws) -> anyhow::Result<ClusterConfig> {
    let nodes = u16::try_from(config.nodes().len()).context("a demo has few nodes")?;
    move_to(config, free_ports(nodes, draws)?)
}

/// Writes other ports into the configuration. Nothing else is touched: neither a certificate nor
/// a data directory knows an address.
fn move_to(config: &ClusterConfig, base_port: u16) -> anyhow::Result<ClusterConfig> {
    let path = config.path();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut changed = String::with_capacity(text.len());
    for line in text.lines() {
        // Each line at most once: a new port may be another node's old one.
        let owner = config.nodes().zip(1..).find(|(node, _)| line == address_line(&node.address));
        match owner {
            Some((_, nth)) => changed.push_str(&address_line(&format!("{HOST}:{}", base_port + nth))),
            None => changed.push_str(line),
        }
        changed.push('\n');
    }
    // At once: whoever kills the demo now finds the one file or the other.
    let staged = path.with_extension("toml.new");
    fs::write(&staged, changed)
        .and_then(|()| fs::rename(&staged, path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(ClusterConfig::load(path)?)
}

/// As `init` writes it.
fn address_line(address: &str) -> String {
    format!("address = \"{address}\"")
}

/// Where a cluster lives.
pub(crate) enum Folder {
    /// Removed when the demo ends.
    Temporary(TempDir),
    /// Named by the user, and kept.
    Kept(PathBuf),
}

impl Folder {
    fn new(keep: Option<&Path>) -> anyhow::Result<Self> {
        match keep {
            Some(path) => Ok(Self::Kept(path.to_owned())),
            None => {
                let made = tempfile::Builder::new().prefix("raft-kv-demo-").tempdir();
                let advice = "cannot make a temporary folder (set TMPDIR to a folder that exists and can be written)";
                Ok(Self::Temporary(made.context(advice)?))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }

    /// Makes it outlive the demo.
    pub(crate) fn keep(self) -> PathBuf {
        match self {
            Self::Temporary(folder) => folder.keep(),
            Self::Kept(path) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![root.to_owned()];
        while let Some(path) = open.pop() {
            for entry in fs::read_dir(&path).expect("because the folder exists") {
                let path = entry.expect("because nobody else changes the folder").path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    files.insert(path.clone(), fs::read(&path).expect("because it is a file"));
                }
            }
        }
        files
    }

    #[test]
    fn regress_other_ports_cost_the_user_nothing_in_the_folder() {
        let parent = tempfile::tempdir().expect("because a test machine has room for a folder");
        let kept = parent.path().join("kept");
        let mut draws = Draws::new(1);
        let Made { folder, config } = make(5, &mut draws, Some(&kept)).expect("because there is nothing yet");
        fs::write(kept.join("diary.txt"), "mine").expect("because the folder is writable");
        let before = files(&kept);

        // By one port: what is new for one node is another one's old port.
        let ports = |config: &ClusterConfig| -> Vec<u16> {
            let port = |address: &str| address.rsplit(':').next().and_then(|port| port.parse().ok());
            config.nodes().filter_map(|node| port(&node.address)).collect()
        };
        let old = ports(&config);
        let moved = move_to(&config, old[0]).expect("because the folder is writable");
        assert_eq!(ports(&moved), old.iter().map(|port| port + 1).collect::<Vec<_>>());

        let after = files(folder.path());
        let changed = before.iter().filter(|(path, content)| after.get(*path) != Some(content)).map(|(path, _)| path);
        assert_eq!(changed.collect::<Vec<_>>(), [config.path()]);
        assert_eq!(before.len(), after.len());
    }
}
