//! Layer 0: a small seeded generator. The core asks nobody else for randomness, so that the same
//! inputs always give the same effects.

use core::time::Duration;

/// SplitMix64: enough to keep election timeouts apart, and a whole generator in three lines.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    /// Seeded from everything that tells one life of one node from another.
    pub(crate) fn new(parts: [u64; 3]) -> Self {
        let mut rng = Self { state: 0 };
        for part in parts {
            rng.state ^= part;
            rng.state = rng.next();
        }
        rng
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A duration between the two, both included; no draw is made when they are equal.
    pub(crate) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = u64::try_from(max.saturating_sub(min).as_nanos()).unwrap_or(u64::MAX - 1);
        if span == 0 {
            return min;
        }
        min.saturating_add(Duration::from_nanos(self.next() % span.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_range_and_differ_between_nodes() {
        let (min, max) = (Duration::from_millis(150), Duration::from_millis(300));
        let mut first = Rng::new([7, 1, 1]);
        let mut second = Rng::new([7, 2, 1]);
        let draws: alloc::vec::Vec<_> = (0..100).map(|_| (first.between(min, max), second.between(min, max))).collect();
        assert!(draws.iter().all(|(a, b)| (min..=max).contains(a) && (min..=max).contains(b)));
        assert!(draws.iter().filter(|(a, b)| a == b).count() < 5);
    }
}
