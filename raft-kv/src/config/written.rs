//! The file as it is written, and what is wrong with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use raft_tokio::core::{
    ClusterId, Config, ConfigError as CoreError, Leases, Limits, Membership, NodeId, Priority, Timing,
};
use serde::Deserialize;
use toml::Spanned;

use super::{ClusterConfig, Identity, NodeConfig, ValueProblem, check_address};

/// The file, as it is written. What has a span can be complained about by line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    cluster: Spanned<String>,
    tls: WrittenTls,
    #[serde(default)]
    snapshots: WrittenSnapshots,
    timing: Option<Spanned<WrittenTiming>>,
    leases: Option<WrittenLeases>,
    #[serde(rename = "node", default)]
    nodes: Vec<Spanned<WrittenNode>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTls {
    authority: Spanned<PathBuf>,
    client_certificate: Spanned<PathBuf>,
    client_key: Spanned<PathBuf>,
}

/// When snapshots are taken; each of these may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSnapshots {
    entries: Option<Spanned<u64>>,
    bytes: Option<Spanned<u64>>,
    retain_bytes: Option<u64>,
}

/// How long nodes wait for what: a preset, and what is to be different.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTiming {
    #[serde(default)]
    preset: Preset,
    heartbeat_ms: Option<Spanned<u32>>,
    election_timeout_ms: Option<Spanned<[u32; 2]>>,
    stall_limit_ms: Option<Spanned<u32>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Preset {
    #[default]
    Lan,
    Wan,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLeases {
    drift_ppm: Spanned<u32>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenPriority {
    #[default]
    High,
    Middle,
    Low,
    Never,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenNode {
    id: Spanned<u64>,
    address: Spanned<String>,
    listen: Option<Spanned<String>>,
    #[serde(default)]
    priority: WrittenPriority,
    data: Spanned<PathBuf>,
    certificate: Spanned<PathBuf>,
    key: Spanned<PathBuf>,
}

/// As many as can be members at once.
const NODES_MAX: usize = Membership::VOTERS_MAX + Membership::LEARNERS_MAX;

/// Where a value is, what it is called, and what is wrong with it.
pub(super) type Complaint = (usize, &'static str, ValueProblem);

impl Written {
    pub(super) fn check(&self, path: &Path) -> Result<ClusterConfig, Complaint> {
        let root = path.parent().unwrap_or(Path::new(""));
        let cluster = parse_cluster(self.cluster.get_ref()).ok_or((
            self.cluster.span().start,
            "cluster",
            ValueProblem::NotAClusterId,
        ))?;
        let mut nodes: BTreeMap<NodeId, NodeConfig> = BTreeMap::new();
        for written in &self.nodes {
            let node = written.get_ref().check(root)?;
            for other in nodes.values() {
                let first = other.id;
                if first == node.id {
                    return Err((written.get_ref().id.span().start, "id", ValueProblem::DuplicateNode { id: first }));
                }
                if other.address == node.address {
                    let at = written.get_ref().address.span().start;
                    return Err((at, "address", ValueProblem::DuplicateAddress { first }));
                }
                if other.data == node.data {
                    return Err((written.get_ref().data.span().start, "data", ValueProblem::DuplicateData { first }));
                }
            }
            nodes.insert(node.id, node);
        }
        match nodes.len() {
            0 => return Err((0, "node", ValueProblem::NoNode)),
            found if found > NODES_MAX => {
                return Err((0, "node", ValueProblem::TooManyNodes { found, max: NODES_MAX }));
            }
            _ => {}
        }
        let leases = self.leases.as_ref().map(|WrittenLeases { drift_ppm }| {
            let unbearable = |_| ValueProblem::TooMuchDrift { max: Leases::DRIFT_PPM_MAX };
            Leases::new(*drift_ppm.get_ref()).map_err(|error| (drift_ppm.span().start, "drift_ppm", unbearable(error)))
        });
        Ok(ClusterConfig {
            path: path.to_owned(),
            cluster,
            authority: file(root, "authority", &self.tls.authority)?,
            client: Identity {
                certificate: file(root, "client_certificate", &self.tls.client_certificate)?,
                key: file(root, "client_key", &self.tls.client_key)?,
            },
            limits: self.snapshots.limits()?,
            timing: self.timing.as_ref().map_or(Ok(Timing::LAN), WrittenTiming::checked)?,
            leases: leases.transpose()?,
            nodes,
        })
    }
}

impl WrittenSnapshots {
    fn limits(&self) -> Result<Limits, Complaint> {
        let Limits { snapshot_entries, snapshot_bytes, retain_bytes, .. } = Limits::DEFAULT;
        let some = |written: &Option<Spanned<u64>>, field, default| match written {
            Some(zero) if *zero.get_ref() == 0 => Err((zero.span().start, field, ValueProblem::Zero)),
            Some(number) => Ok(*number.get_ref()),
            None => Ok(default),
        };
        Ok(Limits {
            snapshot_entries: some(&self.entries, "entries", snapshot_entries)?,
            snapshot_bytes: some(&self.bytes, "bytes", snapshot_bytes)?,
            retain_bytes: self.retain_bytes.unwrap_or(retain_bytes),
            ..Limits::DEFAULT
        })
    }
}

impl WrittenTiming {
    /// The core says whether the numbers go together.
    fn checked(written: &Spanned<Self>) -> Result<Timing, Complaint> {
        let Self { preset, heartbeat_ms, election_timeout_ms, stall_limit_ms } = written.get_ref();
        let preset = match preset {
            Preset::Lan => Timing::LAN,
            Preset::Wan => Timing::WAN,
        };
        let millis = |millis: u32| Duration::from_millis(u64::from(millis));
        let [election_timeout_min, election_timeout_max] = election_timeout_ms
            .as_ref()
            .map_or([preset.election_timeout_min, preset.election_timeout_max], |range| range.get_ref().map(millis));
        let or = |written: &Option<Spanned<u32>>, default| {
            written.as_ref().map_or(default, |written| millis(*written.get_ref()))
        };
        let timing = Timing {
            heartbeat_interval: or(heartbeat_ms, preset.heartbeat_interval),
            election_timeout_min,
            election_timeout_max,
            stall_limit: or(stall_limit_ms, preset.stall_limit),
        };
        if let Some(zero) = heartbeat_ms.as_ref().filter(|written| *written.get_ref() == 0) {
            return Err((zero.span().start, "heartbeat_ms", ValueProblem::Zero));
        }
        let Err(error) = Config::new(timing, Limits::DEFAULT, 0) else { return Ok(timing) };
        let heartbeat = heartbeat_ms.as_ref().map(|written| (written.span().start, "heartbeat_ms"));
        let election = election_timeout_ms.as_ref().map(|written| (written.span().start, "election_timeout_ms"));
        let stall = stall_limit_ms.as_ref().map(|written| (written.span().start, "stall_limit_ms"));
        // Of two that do not go together, one is written in the file.
        let place = match &error {
            CoreError::ElectionTimeoutTooShort { .. } => election.or(heartbeat),
            CoreError::ElectionTimeoutRange { .. } => election,
            CoreError::StallLimitTooShort { .. } => stall.or(election),
            CoreError::DriftTooLarge { .. } | CoreError::ZeroLimit { .. } | CoreError::Durable(_) => None,
        };
        let (at, field) = place.unwrap_or((written.span().start, "timing"));
        Err((at, field, ValueProblem::Timing(error)))
    }
}

impl From<WrittenPriority> for Priority {
    fn from(written: WrittenPriority) -> Self {
        match written {
            WrittenPriority::High => Self::High,
            WrittenPriority::Middle => Self::Middle,
            WrittenPriority::Low => Self::Low,
            WrittenPriority::Never => Self::Never,
        }
    }
}

impl WrittenNode {
    fn check(&self, root: &Path) -> Result<NodeConfig, Complaint> {
        let id = NodeId::new(*self.id.get_ref()).ok_or((self.id.span().start, "id", ValueProblem::ZeroNode))?;
        let address = |field, written: &Spanned<String>| {
            check_address(written.get_ref()).map_err(|problem| (written.span().start, field, problem))
        };
        address("address", &self.address)?;
        self.listen.as_ref().map(|listen| address("listen", listen)).transpose()?;
        Ok(NodeConfig {
            id,
            address: self.address.get_ref().clone(),
            listen: self.listen.as_ref().map(|listen| listen.get_ref().clone()),
            data: file(root, "data", &self.data)?,
            priority: self.priority.into(),
            identity: Identity {
                certificate: file(root, "certificate", &self.certificate)?,
                key: file(root, "key", &self.key)?,
            },
        })
    }
}

fn parse_cluster(text: &str) -> Option<ClusterId> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(ClusterId::new)
}

fn file(root: &Path, field: &'static str, written: &Spanned<PathBuf>) -> Result<PathBuf, Complaint> {
    if written.get_ref().as_os_str().is_empty() {
        return Err((written.span().start, field, ValueProblem::EmptyPath));
    }
    Ok(root.join(written.get_ref()))
}
