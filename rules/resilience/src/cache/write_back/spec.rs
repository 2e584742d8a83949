//! How much write-back may hold back.

use std::time::Duration;

use crate::Invalid;

/// How much may wait for its flush, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteBackSpec {
    /// Keys that are written and not settled; further ones are refused. Range: at least 1. Default 10,000.
    pub pending_max: usize,
    /// How long a write waits for others of its key before a round begins. Up to an hour; default 100 ms.
    pub flush_after: Duration,
    /// Keys that are flushed at a time. Range 1 to 1,000; default 16.
    pub concurrency: usize,
    /// How long one flush may take. Range: above zero, up to an hour; default 10 s.
    pub flush_limit: Duration,
}

impl Default for WriteBackSpec {
    fn default() -> Self {
        WriteBackSpec {
            pending_max: 10_000,
            flush_after: Duration::from_millis(100),
            concurrency: 16,
            flush_limit: Duration::from_secs(10),
        }
    }
}

impl WriteBackSpec {
    pub(super) fn check(self) -> Result<Self, Invalid> {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        let refuse = |field, given: String, remedy| {
            Err(Invalid::new("cache", field, given, "it is out of its range", remedy))
        };
        if self.pending_max == 0 {
            return refuse("pending_max", "0".into(), "give at least 1");
        }
        if self.flush_after > HOUR {
            return refuse("flush_after", format!("{:?}", self.flush_after), "give at most an hour");
        }
        if !(1..=1_000).contains(&self.concurrency) {
            return refuse("concurrency", self.concurrency.to_string(), "give 1 to 1,000");
        }
        if self.flush_limit.is_zero() || self.flush_limit > HOUR {
            let given = format!("{:?}", self.flush_limit);
            return refuse("flush_limit", given, "give more than nothing and at most an hour");
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_absurd_setting_is_refused_and_named() {
        let (good, hour) = (WriteBackSpec::default(), Duration::from_secs(60 * 60));
        assert!(good.check().is_ok());
        for (spec, field) in [
            (WriteBackSpec { pending_max: 0, ..good }, "pending_max"),
            (WriteBackSpec { flush_after: hour * 2, ..good }, "flush_after"),
            (WriteBackSpec { concurrency: 0, ..good }, "concurrency"),
            (WriteBackSpec { concurrency: 1_001, ..good }, "concurrency"),
            (WriteBackSpec { flush_limit: Duration::ZERO, ..good }, "flush_limit"),
            (WriteBackSpec { flush_limit: hour * 2, ..good }, "flush_limit"),
        ] {
            assert_eq!(spec.check().unwrap_err().field(), field);
        }
        assert!(WriteBackSpec { flush_after: Duration::ZERO, concurrency: 1_000, ..good }.check().is_ok());
    }
}
