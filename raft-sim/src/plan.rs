//! What a seed draws: the cluster, its faults, its clients (swarm testing).
//!
//! Every seed has another mix. Faults that are always on together hide each other's bugs, so each
//! kind is on or off; one seed in twenty has all of them, one in twenty a single one.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use raft_core::{Leases, Limits, Priority, Timing};

use crate::rng::{CERTAIN, Ppm, Rng};

/// A kind of fault. Besides those of its mix, every run has a leader crash and a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Messages vanish (fault N1).
    Loss,
    /// A few messages take far longer than the others (N2).
    DelaySpikes,
    /// Messages arrive twice, some copies much later, after restarts even (N3).
    Duplication,
    /// Messages overtake each other (N4).
    Reordering,
    /// The cluster falls into two parts (N6).
    Partition,
    /// The leader is alone (N6).
    LeaderIsolation,
    /// Some links work in one direction only (N7).
    OneWayCut,
    /// Single links are cut at random (N8).
    PartialCut,
    /// A link comes and goes (N9).
    Flapping,
    /// A node's process dies (P1, D1).
    Crash,
    /// The leader's process dies (P1, D1).
    LeaderCrash,
    /// A process dies half way through the effects of a step (P2).
    EffectCrash,
    /// A process stops and goes on later, its timers late and its inbox full (P3).
    Pause,
    /// All processes die at once (P6).
    PowerLoss,
    /// Timers fire late (C3).
    LateTimers,
    /// A disk becomes slow for a while (D9).
    SlowDisk,
    /// A disk fails for good; the process is replaced after a while (D6).
    DiskFailure,
    /// Answers to log reads are lost, or say that nothing could be read (D5).
    LogReadFailure,
    /// Snapshots are lost on their way; compactions never happen (SN2).
    SnapshotLoss,
    /// Snapshots cannot be written (D6).
    SnapshotFailure,
    /// Nodes are added, promoted, demoted and removed, several at once too (M1, M2, M4).
    Membership,
    /// Leadership is handed over (M5).
    Transfer,
    /// Somebody wants a snapshot (SN1).
    SnapshotRequest,
    /// A process is held up between its inbox and its step, before or after it reads the clock (P4).
    DrainStall,
    /// A disk stands still for a while (D9).
    DiskStall,
    /// A disk has no space left for a while; now and then all of them (D8).
    DiskFull,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 26] = [
        Self::Loss,
        Self::DelaySpikes,
        Self::Duplication,
        Self::Reordering,
        Self::Partition,
        Self::LeaderIsolation,
        Self::OneWayCut,
        Self::PartialCut,
        Self::Flapping,
        Self::Crash,
        Self::LeaderCrash,
        Self::EffectCrash,
        Self::Pause,
        Self::PowerLoss,
        Self::LateTimers,
        Self::SlowDisk,
        Self::DiskFailure,
        Self::LogReadFailure,
        Self::SnapshotLoss,
        Self::SnapshotFailure,
        Self::Membership,
        Self::Transfer,
        Self::SnapshotRequest,
        Self::DrainStall,
        Self::DiskStall,
        Self::DiskFull,
    ];

    /// The kinds that strike at moments; the others are rates that hold all the time.
    pub const EPISODES: [Self; 16] = [
        Self::Partition,
        Self::LeaderIsolation,
        Self::OneWayCut,
        Self::PartialCut,
        Self::Flapping,
        Self::Crash,
        Self::LeaderCrash,
        Self::Pause,
        Self::PowerLoss,
        Self::SlowDisk,
        Self::DiskFailure,
        Self::Membership,
        Self::Transfer,
        Self::SnapshotRequest,
        Self::DiskStall,
        Self::DiskFull,
    ];
}

/// How messages travel.
#[derive(Clone, Copy, Debug)]
pub struct NetworkPlan {
    /// No message takes less.
    pub delay_min: Duration,
    /// What comes on top, on average.
    pub delay_mean: Duration,
    /// How many messages take `spike_mean` instead.
    pub spikes: Ppm,
    /// How long those take.
    pub spike_mean: Duration,
    /// How many messages vanish.
    pub loss: Ppm,
    /// How many arrive twice.
    pub duplication: Ppm,
    /// Whether messages on one link may overtake each other.
    pub reorder: bool,
    /// How many losses the sender hears of.
    pub notice: Ppm,
}

impl NetworkPlan {
    /// The same network without faults.
    pub(crate) fn healed(self) -> Self {
        Self { spikes: 0, loss: 0, duplication: 0, reorder: false, ..self }
    }
}

/// How disks behave.
#[derive(Clone, Copy, Debug)]
pub struct DiskPlan {
    /// How long a sync takes on average.
    pub sync_mean: Duration,
    /// How many syncs take a hundred times as long.
    pub spikes: Ppm,
    /// How many of the crashes keep every write that was under way.
    pub keep_all: Ppm,
    /// How many of the others lose every write that was under way; the rest keep a part.
    pub lose_all: Ppm,
    /// How many log reads fail or are never answered.
    pub read_failures: Ppm,
}

/// In which order a process takes what waits in its inbox. What comes from peers, from clients and
/// from its own disk and state machine arrives on different channels, which keep their order each,
/// and no order among each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboxOrder {
    /// As it arrived.
    Arrival,
    /// First what clients want: a process that wakes from a pause is asked before it hears what
    /// has happened meanwhile.
    ClientsFirst,
    /// One channel or another.
    Random,
}

/// How processes behave.
#[derive(Clone, Copy, Debug)]
pub struct ProcessPlan {
    /// How long messages wait in the inbox on average before they are handled as one batch.
    pub drain_mean: Duration,
    /// The most messages of one batch.
    pub batch_max: u64,
    /// Which of them come first.
    pub inbox_order: InboxOrder,
    /// How long the state machine takes for one hand-over on average.
    pub apply_mean: Duration,
    /// Whether the state machine survives a crash.
    pub durable_machine: bool,
    /// How many steps are held up between the inbox and the step.
    pub stalls: Ppm,
    /// How late timers are on average.
    pub timer_lag_mean: Duration,
    /// How many steps end in a crash amid their effects.
    pub effect_crashes: Ppm,
    /// How long a crashed process stays down on average.
    pub downtime_mean: Duration,
}

/// How snapshots are taken and travel. When they are taken is among the limits.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotPlan {
    /// How long it takes to write one, on average.
    pub write_mean: Duration,
    /// In how many pieces one is sent.
    pub pieces: u64,
    /// How long each takes on average.
    pub piece_mean: Duration,
    /// How many of the pieces are lost, and the rest of the snapshot with them.
    pub losses: Ppm,
    /// How many snapshots cannot be written.
    pub failures: Ppm,
    /// After how many hand-overs the application writes one of its own accord.
    pub offers: Ppm,
}

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct ClientPlan {
    /// How many there are; each has one operation under way at most.
    pub clients: u64,
    /// How many registers they share.
    pub keys: u64,
    /// How long a client rests between operations, on average.
    pub think_mean: Duration,
    /// How long it waits before it tries again what was refused, on average.
    pub backoff_mean: Duration,
    /// How long its messages travel, on average.
    pub travel_mean: Duration,
    /// How long it waits for an answer.
    pub timeout: Duration,
    /// How many operations are reads.
    pub reads: Ppm,
    /// How many of the reads rely on a lease.
    pub lease_reads: Ppm,
    /// How many of the reads go to any node.
    pub reads_anywhere: Ppm,
    /// How many of the writes append.
    pub appends: Ppm,
    /// How many operations go to any node instead of the one that is taken for the leader.
    pub strays: Ppm,
    /// The most bytes of padding in a command.
    pub padding_max: u64,
}

/// Everything that a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How many voters the cluster begins with.
    pub nodes: usize,
    /// How many nodes there will ever be at most.
    pub nodes_max: usize,
    /// The timing of every node.
    pub timing: Timing,
    /// The limits of every node.
    pub limits: Limits,
    /// How far clocks drift, in millionths, if reads may rely on leases; otherwise they do not.
    pub leases: Option<u32>,
    /// How eagerly each node runs for leader.
    pub priorities: Vec<Priority>,
    /// Which faults there are.
    pub faults: BTreeSet<FaultKind>,
    /// The time between two episodes of one kind, on average.
    pub episode_mean: Duration,
    /// How long the faults last.
    pub fault_time: Duration,
    /// How messages travel.
    pub network: NetworkPlan,
    /// How disks behave.
    pub disk: DiskPlan,
    /// How processes behave.
    pub process: ProcessPlan,
    /// How snapshots are taken and travel.
    pub snapshots: SnapshotPlan,
    /// What the clients do.
    pub clients: ClientPlan,
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let root = Rng::from_seed(seed);
        let faults = draw_faults(&mut root.fork("plan/faults"));
        let rng = &mut root.fork("plan/cluster");
        let nodes = *rng.pick(&[3, 3, 3, 4, 5, 5, 5, 6, 7]);
        let timing = draw_timing(rng);
        let joiners = if faults.contains(&FaultKind::Membership) { rng.between(1, 5) as usize } else { 0 };
        Self {
            seed,
            nodes,
            nodes_max: nodes + joiners,
            timing,
            leases: draw_leases(&mut root.fork("plan/leases")),
            priorities: draw_priorities(&mut root.fork("plan/priorities"), nodes + joiners),
            limits: draw_compaction(&mut root.fork("plan/compaction"), draw_limits(&mut root.fork("plan/limits"))),
            episode_mean: rng.duration(timing.election_timeout_max * 8, timing.election_timeout_max * 40),
            fault_time: rng.duration(Duration::from_secs(10), Duration::from_secs(40)),
            network: draw_network(&mut root.fork("plan/network"), timing, &faults),
            disk: draw_disk(&mut root.fork("plan/disk"), timing, &faults),
            process: draw_process(&mut root.fork("plan/process"), timing, &faults),
            snapshots: draw_snapshots(&mut root.fork("plan/snapshots"), timing, &faults),
            clients: draw_clients(&mut root.fork("plan/clients"), timing),
            faults,
        }
    }

    /// How far each clock is off at most, in millionths.
    pub fn drift_ppm(&self) -> u32 {
        self.leases.unwrap_or_default()
    }

    /// Whether this kind of fault is part of the mix.
    pub fn has(&self, kind: FaultKind) -> bool {
        self.faults.contains(&kind)
    }
}

fn draw_faults(rng: &mut Rng) -> BTreeSet<FaultKind> {
    let every_twentieth = rng.below(20);
    let single = *rng.pick(&FaultKind::ALL);
    let drawn = FaultKind::ALL.into_iter().filter(|_| rng.chance(CERTAIN / 2)).collect();
    match every_twentieth {
        0 => FaultKind::ALL.into(),
        1 => [single].into(),
        _ => drawn,
    }
}

fn draw_timing(rng: &mut Rng) -> Timing {
    let heartbeat_interval = Duration::from_millis(*rng.pick(&[20, 50, 50, 50, 100]));
    let election_timeout_min = heartbeat_interval * rng.between(3, 6) as u32;
    let election_timeout_max = election_timeout_min * rng.between(15, 25) as u32 / 10;
    let stall_limit = election_timeout_max * *rng.pick(&[1, 2, 4, 16]);
    Timing { heartbeat_interval, election_timeout_min, election_timeout_max, stall_limit }
}

/// In a third of the seeds.
fn draw_leases(rng: &mut Rng) -> Option<u32> {
    let drift_ppm = *rng.pick(&[0, 200, 10_000, Leases::DRIFT_PPM_MAX]);
    rng.chance(CERTAIN / 3).then_some(drift_ppm)
}

/// In a third of the seeds nodes are not equally eager. One at most never runs by itself: where all
/// others are gone for good somebody has to.
fn draw_priorities(rng: &mut Rng, nodes: usize) -> Vec<Priority> {
    if !rng.chance(CERTAIN / 3) {
        return vec![Priority::High; nodes];
    }
    let mut drawn: Vec<Priority> =
        (0..nodes).map(|_| *rng.pick(&[Priority::High, Priority::Middle, Priority::Low])).collect();
    if rng.chance(CERTAIN / 2) {
        drawn[rng.below(nodes as u64) as usize] = Priority::Never;
    }
    drawn
}

/// Limits small enough to be met now and then; a third of the seeds has those of servers.
fn draw_limits(rng: &mut Rng) -> Limits {
    let small = Limits {
        message_bytes_max: rng.between(64, 4_096),
        inflight_messages_max: rng.between(1, 16) as usize,
        inflight_bytes_max: rng.between(512, 16_384),
        log_cache_bytes: *rng.pick(&[0, 256, 1_024, 4_096, 16_384]),
        unsynced_bytes_max: rng.between(2_048, 65_536),
        uncommitted_bytes_max: rng.between(2_048, 65_536),
        unapplied_bytes_max: rng.between(512, 16_384),
        pending_proposals_max: rng.between(2, 64) as usize,
        pending_reads_max: rng.between(2, 64) as usize,
        ..Limits::DEFAULT
    };
    if rng.below(3) == 0 { Limits::DEFAULT } else { small }
}

/// In two of three seeds logs are compacted: some after a few entries already, some keep a part of
/// what they could forget.
fn draw_compaction(rng: &mut Rng, limits: Limits) -> Limits {
    let entries = *rng.pick(&[5, 20, 50, 200]);
    let (snapshot_entries, snapshot_bytes) = (rng.between(1, entries), rng.between(1_000, 100_000));
    let retain_bytes = *rng.pick(&[0, 0, 500, 5_000, 50_000]);
    let compacting = Limits { snapshot_entries, snapshot_bytes, retain_bytes, ..limits };
    if rng.below(3) == 0 { limits } else { compacting }
}

fn draw_snapshots(rng: &mut Rng, timing: Timing, faults: &BTreeSet<FaultKind>) -> SnapshotPlan {
    let when = |kind: FaultKind, rate: Ppm| if faults.contains(&kind) { rate } else { 0 };
    SnapshotPlan {
        write_mean: rng.duration(Duration::from_micros(50), timing.heartbeat_interval),
        pieces: rng.between(1, 8),
        piece_mean: rng.duration(Duration::from_micros(100), timing.heartbeat_interval),
        losses: when(FaultKind::SnapshotLoss, rng.between(10_000, 300_000)),
        failures: when(FaultKind::SnapshotFailure, rng.between(10_000, 500_000)),
        offers: if rng.chance(CERTAIN / 3) { rng.between(1_000, 100_000) } else { 0 },
    }
}

fn draw_network(rng: &mut Rng, timing: Timing, faults: &BTreeSet<FaultKind>) -> NetworkPlan {
    let when = |kind: FaultKind, rate: Ppm| if faults.contains(&kind) { rate } else { 0 };
    NetworkPlan {
        delay_min: rng.duration(Duration::from_micros(20), timing.heartbeat_interval / 50),
        delay_mean: rng.duration(Duration::from_micros(50), timing.heartbeat_interval / 10),
        spikes: when(FaultKind::DelaySpikes, rng.between(500, 30_000)),
        spike_mean: timing.election_timeout_max * rng.between(1, 10) as u32,
        loss: when(FaultKind::Loss, rng.between(1_000, 200_000)),
        duplication: when(FaultKind::Duplication, rng.between(1_000, 300_000)),
        reorder: faults.contains(&FaultKind::Reordering),
        notice: *rng.pick(&[0, CERTAIN / 2, CERTAIN]),
    }
}

fn draw_disk(rng: &mut Rng, timing: Timing, faults: &BTreeSet<FaultKind>) -> DiskPlan {
    DiskPlan {
        sync_mean: rng.duration(Duration::from_micros(50), timing.heartbeat_interval / 5),
        spikes: if faults.contains(&FaultKind::SlowDisk) { rng.between(0, 5_000) } else { 0 },
        keep_all: rng.between(0, CERTAIN / 2),
        lose_all: rng.between(CERTAIN / 4, CERTAIN),
        read_failures: if faults.contains(&FaultKind::LogReadFailure) { rng.between(1_000, 300_000) } else { 0 },
    }
}

fn draw_process(rng: &mut Rng, timing: Timing, faults: &BTreeSet<FaultKind>) -> ProcessPlan {
    let when = |kind: FaultKind, rate: u64| if faults.contains(&kind) { rate } else { 0 };
    ProcessPlan {
        drain_mean: *rng.pick(&[Duration::ZERO, Duration::from_micros(100), timing.heartbeat_interval / 20]),
        batch_max: *rng.pick(&[1, 4, 64]),
        inbox_order: *rng.pick(&[InboxOrder::Arrival, InboxOrder::ClientsFirst, InboxOrder::Random]),
        apply_mean: *rng.pick(&[Duration::from_micros(20), timing.heartbeat_interval / 50, timing.heartbeat_interval]),
        durable_machine: rng.chance(CERTAIN / 3),
        stalls: when(FaultKind::DrainStall, rng.between(20, 2_000)),
        timer_lag_mean: Duration::from_micros(when(FaultKind::LateTimers, rng.between(100, 10_000))),
        effect_crashes: when(FaultKind::EffectCrash, rng.between(20, 400)),
        downtime_mean: rng.duration(timing.election_timeout_min, timing.election_timeout_max * 6),
    }
}

fn draw_clients(rng: &mut Rng, timing: Timing) -> ClientPlan {
    // Impatient clients ask a leader that hangs again and again, up to the moment when it goes on.
    let impatient = rng.chance(CERTAIN / 3);
    let patience = rng.duration(timing.election_timeout_max, timing.election_timeout_max * 5);
    ClientPlan {
        clients: rng.between(2, 8),
        keys: *rng.pick(&[1, 3, 20]),
        think_mean: rng.duration(Duration::from_millis(5), Duration::from_millis(200)),
        backoff_mean: rng.duration(Duration::from_millis(2), timing.heartbeat_interval),
        travel_mean: rng.duration(Duration::from_micros(50), timing.heartbeat_interval / 10),
        timeout: if impatient { timing.heartbeat_interval * 3 } else { patience },
        reads: rng.between(100_000, 700_000),
        lease_reads: *rng.pick(&[CERTAIN / 4, CERTAIN / 2, CERTAIN]),
        reads_anywhere: *rng.pick(&[0, CERTAIN / 4, CERTAIN / 2]),
        appends: rng.between(0, CERTAIN),
        strays: *rng.pick(&[10_000, 100_000, 500_000]),
        padding_max: *rng.pick(&[0, 32, 500]),
    }
}

/// One line each, for the head of a trace.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, nodes, timing, limits, faults, episode_mean, fault_time, .. } = self;
        let Self { network, disk, process, snapshots, clients, leases, priorities, .. } = self;
        writeln!(f, "seed {seed}: {nodes} nodes, faults for {fault_time:?}, every {episode_mean:?} one of each kind")?;
        writeln!(f, "  faults   {faults:?}")?;
        writeln!(f, "  timing   {timing:?}")?;
        writeln!(f, "  leases   {leases:?}, priorities {priorities:?}")?;
        writeln!(f, "  limits   {limits:?}")?;
        writeln!(f, "  network  {network:?}")?;
        writeln!(f, "  disk     {disk:?}")?;
        writeln!(f, "  process  {process:?}")?;
        writeln!(f, "  bulk     {snapshots:?}")?;
        write!(f, "  clients  {clients:?}")
    }
}
