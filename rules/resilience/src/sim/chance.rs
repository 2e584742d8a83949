//! The run's chance: one seed decides it all.

use std::time::Duration;

use mainstay_envelope::{Chance, SeededChance};

#[derive(Debug)]
pub(super) struct Dice(SeededChance);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Dice(SeededChance::new(seed))
    }

    pub(super) fn draw(&self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1).
    pub(super) fn uniform(&self) -> f64 {
        // 53 bits: as many as the fraction has.
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn is(&self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Exponentially distributed, by inversion.
    pub(super) fn exponential(&self, mean: Duration) -> Duration {
        // 1 - u is never 0, so the logarithm is finite: 36 means at most.
        mean.mul_f64(-(1.0 - self.uniform()).ln())
    }
}
