//! The world's only source of chance: a small generator with named forks.
//!
//! A fork depends on the seed and its name alone, never on how much was drawn before. So whoever
//! adds a fault adds a fork, and the draws of everything else stay what they were.

use std::time::Duration;

use crate::digest::mix;

/// A xoshiro256++ generator that remembers where it came from, so that it can be forked by name.
#[derive(Clone, Debug)]
pub struct Rng {
    origin: u64,
    words: [u64; 4],
}

/// One in a million, the unit of all rates: integers give the same draw on every machine.
pub type Ppm = u64;

/// Certainty, in [`Ppm`].
pub const CERTAIN: Ppm = 1_000_000;

impl Rng {
    /// The generator of a seed.
    pub fn from_seed(seed: u64) -> Self {
        // SplitMix64 spreads even the seeds 0, 1, 2 … over the whole state.
        let mut counter = seed;
        let words = std::array::from_fn(|_| {
            counter = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = counter;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^ (word >> 31)
        });
        Self { origin: seed, words }
    }

    /// An independent generator for `purpose`.
    #[must_use]
    pub fn fork(&self, purpose: &str) -> Self {
        let name = purpose.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| mix(hash, u64::from(byte)));
        Self::from_seed(mix(self.origin, name))
    }

    /// An independent generator for the `nth` of several alike.
    #[must_use]
    pub fn fork_nth(&self, purpose: &str, nth: u64) -> Self {
        let named = self.fork(purpose);
        Self::from_seed(mix(named.origin, nth.wrapping_add(1)))
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        let [a, b, c, d] = self.words;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c2, d2) = (c ^ a, d ^ b);
        self.words = [a ^ d2, b ^ c2, c2 ^ (b << 17), d2.rotate_left(45)];
        result
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is uniform but for a bias of at most bound / 2⁶⁴.
        let product = u128::from(self.draw()) * u128::from(bound);
        (product >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// A duration from `low` to `high`.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_nanos(self.between(nanos(low), nanos(high)))
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: Ppm) -> bool {
        // Without the shortcut the draw would be wasted on faults that are switched off.
        probability > 0 && self.below(CERTAIN) < probability
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// An exponentially distributed duration, at most 44 times its mean.
    ///
    /// Integers only: −log₂ of a uniform draw is its count of leading zeros plus what the bits
    /// after them say, taken as linear between powers of two (off by at most 0.09).
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        let word = self.draw() | 1;
        let zeros = word.leading_zeros();
        let after_leading_one = (word << zeros << 1) >> 48;
        let log2_times_65536 = (u64::from(zeros) + 1) * 65_536 - after_leading_one;
        // × ln 2, as 45426 / 65536.
        let factor = u128::from(log2_times_65536) * 45_426;
        let scaled = (u128::from(nanos(mean)) * factor) >> 32;
        Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
    }
}

/// A duration in whole nanoseconds; saturates.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
