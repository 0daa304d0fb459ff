//! Numbers drawn from a seed.

/// SplitMix64 (Steele, Lea, Flood, *Fast Splittable Pseudorandom Number Generators*, 2014).
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Draw {
    /// Sequence number `which` of `seed`.
    pub(super) fn of(seed: u64, which: u64) -> Self {
        Draw(Draw(seed ^ which.wrapping_mul(STEP)).next())
    }

    /// A number drawn evenly from all of `u64`.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `count`, which is not zero.
    pub(super) fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_and_all_of_the_range() {
        let drawn =
            |seed| (0..100).map(|_| ()).scan(Draw::of(seed, 1), |draw, ()| Some(draw.below(7)));
        assert!(drawn(1).eq(drawn(1)));
        assert!(!drawn(1).eq(drawn(2)));
        assert!((0..7).all(|place| drawn(1).any(|drawn| drawn == place)));
    }
}
