//! Layer 0: numbers that nobody can guess, from the operating system; and jitter, from a small
//! generator that they seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The operating system has no random numbers to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random numbers: {0}; identities and sessions need them")]
pub struct RandomError(getrandom::Error);

/// 128 random bits: an identity that nobody else draws.
pub(crate) fn identity() -> Result<u128, RandomError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(u128::from_le_bytes(bytes))
}

/// Spreads out the retries of many clients, so that they do not come back all at once.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    /// A generator that starts from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// A duration between half of `around` and one and a half of it.
    pub(crate) fn spread(&self, around: Duration) -> Duration {
        // SplitMix64: each draw moves the state by a constant, so concurrent draws differ.
        let mut mixed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        // The upper 16 bits, as 65,536 steps over the width of the interval.
        let step = u32::from((mixed >> 48) as u16);
        around / 2 + around.saturating_mul(step) / (1 << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ() {
        assert_ne!(identity(), identity());
    }

    #[test]
    fn jitter_stays_within_half_and_one_and_a_half() {
        let (jitter, around) = (Jitter::new(7), Duration::from_millis(100));
        let draws: Vec<Duration> = (0..1000).map(|_| jitter.spread(around)).collect();
        assert!(draws.iter().all(|draw| (around / 2..around * 3 / 2).contains(draw)));
        assert!(draws.iter().any(|draw| *draw < around * 6 / 10));
        assert!(draws.iter().any(|draw| *draw > around * 14 / 10));
    }
}
