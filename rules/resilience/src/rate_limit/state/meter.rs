//! The leaky bucket as a meter, as the textbook has it: a level that rises and leaks.

use std::time::Duration;

use mainstay_envelope::Monotonic;

use super::Denied;
use crate::rate_limit::spec::Checked;

/// A leaky bucket that measures: each request pours its cost in, the rate leaks out, and what would overflow is
/// refused. (J. Turner, "New directions in communications", 1986, in the form of ITU-T I.371's continuous-state
/// leaky bucket.)
///
/// It is the mirror of the [`TokenBucket`](super::TokenBucket) of the same settings: its level is `burst` minus
/// the tokens there, and on the same requests at the same times both give the same verdicts with the same times
/// to wait. A property test holds the two against each other. Limits that are shared use the bucket, whatever
/// [`Kind`](crate::rate_limit::Kind) they are; this one is for a single owner, such as a connection.
#[derive(Debug, Clone)]
pub struct LeakyMeter {
    settings: Checked,
    /// What is in it, measured by the time it takes to leak out.
    level: Duration,
    /// When the level was that.
    at: Monotonic,
}

impl LeakyMeter {
    /// An empty one.
    pub fn new(settings: Checked) -> Self {
        LeakyMeter { settings, level: Duration::ZERO, at: Monotonic::ORIGIN }
    }

    /// Pours `cost` in at `now`, or nothing. `now` never goes back from one call to the next.
    ///
    /// # Errors
    /// [`Denied`] says whether and when the same request would fit.
    pub fn pour(&mut self, now: Monotonic, cost: u32) -> Result<(), Denied> {
        let capacity = self.settings.refill();
        // Saturating: what takes longer than any capacity to leak is too large anyway.
        let poured = self.settings.interval().saturating_mul(cost);
        if poured > capacity {
            return Err(Denied::TooLarge { cost, burst: self.settings.spec().burst });
        }
        self.level = self.level_time(now);
        self.at = now;
        let raised = self.level + poured;
        if raised > capacity {
            return Err(Denied::NotYet { retry_after: raised - capacity });
        }
        self.level = raised;
        Ok(())
    }

    /// What is in it at `now`, in permits, with fractions.
    pub fn level(&self, now: Monotonic) -> f64 {
        self.level_time(now).as_nanos() as f64 / self.settings.interval().as_nanos() as f64
    }

    fn level_time(&self, now: Monotonic) -> Duration {
        self.level.saturating_sub(now.saturating_since(self.at))
    }
}
