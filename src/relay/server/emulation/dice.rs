//! [`Dice`]: chance that a test can repeat.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::crypto;

/// SplitMix64 (Steele, Lea and Flood 2014): a counter and a mixing of its bits. Not for secrets.
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

/// The step of the counter: 2^64 divided by the golden ratio, which is odd, so that every state comes once.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Dice {
    pub(super) fn new() -> Self {
        Self::seeded(u64::from_ne_bytes(crypto::random()))
    }

    pub(super) fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// `true` once in so many times, on average. At least one.
    pub(super) fn one_in(&self, times: u32) -> bool {
        self.throw().is_multiple_of(u64::from(times))
    }

    /// A time between these two, to the millisecond.
    pub(super) fn between(&self, shortest: Duration, longest: Duration) -> Duration {
        let span = longest.saturating_sub(shortest).as_millis();
        let span = u64::try_from(span).unwrap_or(u64::MAX - 1);
        shortest + Duration::from_millis(self.throw() % (span + 1))
    }

    fn throw(&self) -> u64 {
        let mut bits = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequence() {
        let dice = Dice::seeded(1_234_567);
        let thrown: Vec<_> = (0..3).map(|_| dice.throw()).collect();
        assert_eq!(
            thrown,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
