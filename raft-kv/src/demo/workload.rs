//! What the demo writes when it is given no file.

use bytes::Bytes;
use raft_kv::key::Key;

/// So many keys share the generated writes: few enough that most are written several times, at
/// several nodes' hands, and a write that were applied twice shows in their versions.
const KEYS: u64 = 4_000;

/// Numbers that follow from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// `count` writes that follow from the seed.
pub(crate) fn generated(draws: &mut Draws, count: usize) -> Vec<(Key, Bytes)> {
    (0..count)
        .map(|nth| {
            let key = format!("user/{:04}", draws.below(KEYS));
            let value = format!("visit {nth}, session {:016x}{:016x}", draws.next(), draws.next());
            let key = Key::new(key).expect("because it is neither empty nor long");
            (key, Bytes::from(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_writes() {
        let writes = |seed| generated(&mut Draws::new(seed), 100);
        assert_eq!(writes(7), writes(7));
        assert_ne!(writes(7), writes(8));
    }
}
