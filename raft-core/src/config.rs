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
}

impl Timing {
    /// For one data centre: heartbeats every 50 ms, elections after 150–300 ms.
    pub const LAN: Self = Self {
        heartbeat_interval: Duration::from_millis(50),
        election_timeout_min: Duration::from_millis(150),
        election_timeout_max: Duration::from_millis(300),
    };

    /// Across continents: heartbeats every 200 ms, elections after 1–2 s.
    pub const WAN: Self = Self {
        heartbeat_interval: Duration::from_millis(200),
        election_timeout_min: Duration::from_secs(1),
        election_timeout_max: Duration::from_secs(2),
    };
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
    };
}

/// What a node is told at its start. If it exists, it is consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    timing: Timing,
    limits: Limits,
    seed: u64,
}

impl Config {
    /// Checks and bundles.
    ///
    /// `seed` feeds the election timeouts, together with the node's id and boot; two nodes may
    /// share one.
    ///
    /// # Errors
    /// If heartbeats are not at least three times as frequent as the shortest election timeout,
    /// if the range of timeouts is too narrow to break ties, or if a limit is zero.
    pub fn new(timing: Timing, limits: Limits, seed: u64) -> Result<Self, ConfigError> {
        let Timing { heartbeat_interval, election_timeout_min, election_timeout_max } = timing;
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
        ];
        match named.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(ConfigError::ZeroLimit { name }),
            None => Ok(Self { timing, limits, seed }),
        }
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
