//! Layer 1: what a node is told at its start: its timing, its limits, its seed.

use core::time::Duration;

use crate::error::ConfigError;

/// How long a node waits for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A leader lets every peer hear from it at least this often.
    pub heartbeat_interval: Duration,
    /// Election timeouts are drawn between this (also the length of leader stickiness) …
    pub election_timeout_min: Duration,
    /// … and this (also how long a leader goes on without hearing from a majority).
    pub election_timeout_max: Duration,
    /// A leader whose own disk has not finished what was committed this long ago hands over and
    /// steps down (contract D9); it does so too when nothing is committed for ten times as long
    /// because a write hangs.
    pub stall_limit: Duration,
}

impl Timing {
    /// For one data centre: heartbeats every 50 ms, elections after 150–300 ms.
    pub const LAN: Self = Self {
        heartbeat_interval: Duration::from_millis(50),
        election_timeout_min: Duration::from_millis(150),
        election_timeout_max: Duration::from_millis(300),
        stall_limit: Duration::from_secs(1),
    };

    /// Across continents: heartbeats every 200 ms, elections after 1–2 s.
    pub const WAN: Self = Self {
        heartbeat_interval: Duration::from_millis(200),
        election_timeout_min: Duration::from_secs(1),
        election_timeout_max: Duration::from_secs(2),
        stall_limit: Duration::from_secs(4),
    };
}

/// How eagerly a node runs for leader (contract V7). It only delays: whoever is needed still
/// takes over, a little later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Never by itself, except when it holds entries that a candidate lacks; then it hands over as
    /// soon as it can.
    Never,
    /// Waits two election timeouts longer.
    Low,
    /// Waits one election timeout longer.
    Middle,
    /// Does not wait longer than it must.
    #[default]
    High,
}

impl Priority {
    /// How many election timeouts more than others it waits.
    pub(crate) fn patience(self) -> u32 {
        match self {
            Self::High => 0,
            Self::Middle => 1,
            Self::Low | Self::Never => 2,
        }
    }
}

/// Lease reads: a leader answers from its own state while a majority has promised not to elect
/// another one (Thesis 6.4.1; contract T3). Safe as long as no clock drifts further than stated
/// and no clock stands still: a virtual machine that is paused or moved as a whole is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leases {
    drift_ppm: u32,
}

impl Leases {
    /// Clocks that drift further than this are no clocks: one part in ten.
    pub const DRIFT_PPM_MAX: u32 = 100_000;

    /// Leases for clocks each of which runs at most so many millionths too fast or too slow.
    ///
    /// # Errors
    /// If `drift_ppm` exceeds [`Self::DRIFT_PPM_MAX`].
    pub fn new(drift_ppm: u32) -> Result<Self, ConfigError> {
        if drift_ppm > Self::DRIFT_PPM_MAX {
            return Err(ConfigError::DriftTooLarge { drift_ppm, max: Self::DRIFT_PPM_MAX });
        }
        Ok(Self { drift_ppm })
    }

    /// How much of a promise can be relied on: times (1 − ε) / (1 + ε), rounded down.
    pub(crate) fn reliable(self, promise: Duration) -> Duration {
        let drift = u128::from(self.drift_ppm);
        let nanos = promise.as_nanos().saturating_mul(1_000_000_u128.saturating_sub(drift))
            / 1_000_000_u128.saturating_add(drift);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What a node keeps in memory or in flight at most. All are per node unless they say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of entries in one append.
    pub message_bytes_max: u64,
    /// Appends in flight to one peer.
    pub inflight_messages_max: usize,
    /// Bytes of entries in flight to one peer.
    pub inflight_bytes_max: u64,
    /// Bytes of recent entries kept in memory; older ones are read back with `ReadLog`.
    pub log_cache_bytes: u64,
    /// Bytes of entries handed to the log writer and not yet durable.
    pub unsynced_bytes_max: u64,
    /// Bytes of entries that a leader has appended and not yet committed.
    pub uncommitted_bytes_max: u64,
    /// Bytes of entries handed to the state machine and not yet applied.
    pub unapplied_bytes_max: u64,
    /// Proposals without an answer.
    pub pending_proposals_max: usize,
    /// Reads without an answer.
    pub pending_reads_max: usize,
    /// A snapshot is taken when the log has grown by so many bytes since the last one …
    pub snapshot_bytes: u64,
    /// … or by so many entries.
    pub snapshot_entries: u64,
    /// Bytes of the log that are kept although a snapshot covers them, for peers that are behind:
    /// sending them is cheaper than sending the snapshot.
    pub retain_bytes: u64,
}

impl Limits {
    /// For servers: a few dozen megabytes in all.
    pub const DEFAULT: Self = Self {
        message_bytes_max: 1 << 20,
        inflight_messages_max: 128,
        inflight_bytes_max: 8 << 20,
        log_cache_bytes: 32 << 20,
        unsynced_bytes_max: 16 << 20,
        uncommitted_bytes_max: 16 << 20,
        unapplied_bytes_max: 8 << 20,
        pending_proposals_max: 65_536,
        pending_reads_max: 65_536,
        snapshot_bytes: 64 << 20,
        snapshot_entries: 1_000_000,
        retain_bytes: 16 << 20,
    };
}

/// What a node is told at its start. If it exists, it is consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    timing: Timing,
    limits: Limits,
    seed: u64,
    priority: Priority,
    leases: Option<Leases>,
}

impl Config {
    /// Checks and bundles.
    ///
    /// `seed` feeds the election timeouts, together with the node's id and boot; two nodes may
    /// share one.
    ///
    /// # Errors
    /// If heartbeats are not at least three times as frequent as the shortest election timeout,
    /// if the range of timeouts is too narrow to break ties, if the stall limit is shorter than an
    /// election, or if a limit is zero.
    pub fn new(timing: Timing, limits: Limits, seed: u64) -> Result<Self, ConfigError> {
        let Timing { heartbeat_interval, election_timeout_min, election_timeout_max, stall_limit } = timing;
        if stall_limit < election_timeout_max {
            return Err(ConfigError::StallLimitTooShort { stall_limit, election_timeout_max });
        }
        if heartbeat_interval.is_zero() || election_timeout_min < heartbeat_interval.saturating_mul(3) {
            return Err(ConfigError::ElectionTimeoutTooShort { election_timeout_min, heartbeat_interval });
        }
        if election_timeout_max < election_timeout_min.saturating_add(election_timeout_min / 2) {
            return Err(ConfigError::ElectionTimeoutRange { min: election_timeout_min, max: election_timeout_max });
        }
        let Limits {
            message_bytes_max,
            inflight_messages_max,
            inflight_bytes_max,
            // No cache at all is slow, but right: what is durable is read back.
            log_cache_bytes: _,
            unsynced_bytes_max,
            uncommitted_bytes_max,
            unapplied_bytes_max,
            pending_proposals_max,
            pending_reads_max,
            snapshot_bytes,
            snapshot_entries,
            // Nothing kept: whoever is behind gets the snapshot.
            retain_bytes: _,
        } = limits;
        let named = [
            ("message_bytes_max", message_bytes_max),
            ("inflight_messages_max", inflight_messages_max as u64),
            ("inflight_bytes_max", inflight_bytes_max),
            ("unsynced_bytes_max", unsynced_bytes_max),
            ("uncommitted_bytes_max", uncommitted_bytes_max),
            ("unapplied_bytes_max", unapplied_bytes_max),
            ("pending_proposals_max", pending_proposals_max as u64),
            ("pending_reads_max", pending_reads_max as u64),
            ("snapshot_bytes", snapshot_bytes),
            ("snapshot_entries", snapshot_entries),
        ];
        match named.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(ConfigError::ZeroLimit { name }),
            None => Ok(Self { timing, limits, seed, priority: Priority::default(), leases: None }),
        }
    }

    /// The same, running for leader with this priority.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// The same, with lease reads. All nodes of a cluster have them, or none: one that has not
    /// promises nothing, and one that restarts without them forgets what it promised.
    #[must_use]
    pub fn with_leases(self, leases: Leases) -> Self {
        Self { leases: Some(leases), ..self }
    }

    /// How eagerly this node runs for leader.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Whether, and how, it reads by lease.
    pub fn leases(&self) -> Option<Leases> {
        self.leases
    }

    /// How long this node waits for what.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// What this node keeps at most.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What its generator starts from.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn new(timing: Timing, limits: Limits) -> Result<(), ConfigError> {
        Config::new(timing, limits, 7).map(|_| ())
    }

    #[test]
    fn the_presets_are_valid() {
        assert_eq!(new(Timing::LAN, Limits::DEFAULT), Ok(()));
        assert_eq!(new(Timing::WAN, Limits::DEFAULT), Ok(()));
    }

    #[test]
    fn rule_x2_a_ratio_under_three_is_refused() {
        let timing = Timing { heartbeat_interval: Duration::from_millis(51), ..Timing::LAN };
        let Timing { heartbeat_interval, election_timeout_min, .. } = timing;
        let error = ConfigError::ElectionTimeoutTooShort { election_timeout_min, heartbeat_interval };
        assert_eq!(new(timing, Limits::DEFAULT), Err(error));
    }

    #[test]
    fn regress_t026_a_range_too_narrow_to_break_ties_is_refused() {
        let (min, max) = (Duration::from_millis(150), Duration::from_millis(224));
        let timing = Timing { election_timeout_max: max, ..Timing::LAN };
        assert_eq!(new(timing, Limits::DEFAULT), Err(ConfigError::ElectionTimeoutRange { min, max }));
        let timing = Timing { election_timeout_max: Duration::from_millis(225), ..Timing::LAN };
        assert_eq!(new(timing, Limits::DEFAULT), Ok(()));
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        type Change = fn(&mut Limits);
        let cases: [(Change, &str); 8] = [
            (|limits| limits.message_bytes_max = 0, "message_bytes_max"),
            (|limits| limits.inflight_messages_max = 0, "inflight_messages_max"),
            (|limits| limits.inflight_bytes_max = 0, "inflight_bytes_max"),
            (|limits| limits.unsynced_bytes_max = 0, "unsynced_bytes_max"),
            (|limits| limits.uncommitted_bytes_max = 0, "uncommitted_bytes_max"),
            (|limits| limits.unapplied_bytes_max = 0, "unapplied_bytes_max"),
            (|limits| limits.pending_proposals_max = 0, "pending_proposals_max"),
            (|limits| limits.pending_reads_max = 0, "pending_reads_max"),
        ];
        for (change, name) in cases {
            let mut limits = Limits::DEFAULT;
            change(&mut limits);
            assert_eq!(new(Timing::LAN, limits), Err(ConfigError::ZeroLimit { name }));
        }
        assert_eq!(new(Timing::LAN, Limits { log_cache_bytes: 0, ..Limits::DEFAULT }), Ok(()), "slow, but right");
    }

    #[test]
    fn clocks_that_drift_too_far_are_refused() {
        let max = Leases::DRIFT_PPM_MAX;
        assert_eq!(Leases::new(max + 1), Err(ConfigError::DriftTooLarge { drift_ppm: max + 1, max }));
        assert!(Leases::new(max).is_ok());
    }

    #[test]
    fn rule_d9_a_stall_limit_shorter_than_an_election_is_refused() {
        let (stall_limit, election_timeout_max) = (Duration::from_millis(299), Duration::from_millis(300));
        let timing = Timing { stall_limit, ..Timing::LAN };
        let error = ConfigError::StallLimitTooShort { stall_limit, election_timeout_max };
        assert_eq!(new(timing, Limits::DEFAULT), Err(error));
    }

    proptest! {
        // The lease is timed by a clock that may run slow, the promise by one that may run fast: however
        // both drift, the lease must end first. And not much earlier than it must.
        #[test]
        fn rule_t3_a_lease_ends_before_the_promise_whatever_the_clocks_do(
            nanos in prop_oneof![0..2_000_000_000_u64, any::<u64>()], drift_ppm in 0..=Leases::DRIFT_PPM_MAX,
        ) {
            let leases = Leases::new(drift_ppm).expect("within the limit");
            let reliable = leases.reliable(Duration::from_nanos(nanos)).as_nanos();
            let (slow, fast) = (1_000_000 - u128::from(drift_ppm), 1_000_000 + u128::from(drift_ppm));
            // The longest that the lease can last, and the shortest that the promise can, in millionths of
            // a true nanosecond; both times slow and fast, so that nothing is rounded.
            prop_assert!(reliable * fast <= u128::from(nanos) * slow);
            prop_assert!((reliable + 1) * fast > u128::from(nanos) * slow);
        }

        #[test]
        fn no_timing_that_is_taken_lets_a_heartbeat_come_too_late(
            heartbeat in 0..100_u64, min in 0..400_u64, max in 0..600_u64,
        ) {
            let millis = Duration::from_millis;
            let timing = Timing {
                heartbeat_interval: millis(heartbeat),
                election_timeout_min: millis(min),
                election_timeout_max: millis(max),
                stall_limit: millis(600),
            };
            let valid = heartbeat > 0 && min >= 3 * heartbeat && 2 * max >= 3 * min;
            prop_assert_eq!(new(timing, Limits::DEFAULT).is_ok(), valid);
        }
    }
}
