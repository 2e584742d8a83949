//! The settings of a rate limit: data, and the check that turns it into something that can be enforced.

use std::time::Duration;

use crate::invalid::Invalid;

/// The shortest time between two permits of a bucket, so at most a million permits a second: with whole
/// nanoseconds the rate that is enforced is then within a thousandth of the one that was asked for.
pub const SHORTEST_INTERVAL: Duration = Duration::from_micros(1);

/// The shortest time between two departures of a queue. Below it a timer of one millisecond can't keep them apart.
pub const SHORTEST_DEPARTURE: Duration = Duration::from_millis(1);

/// The longest time in which an empty bucket gets full. Whatever is counted over longer is a quota that has to
/// outlive the process, not a rate.
pub const LONGEST_REFILL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The most that [`Spec::queue`] may be: each waits with its request in memory.
pub const LARGEST_QUEUE: u32 = 100_000;

/// The most that [`Spec::keys_max`] may be: about a gigabyte of buckets.
pub const MOST_KEYS: usize = 10_000_000;

/// What happens to what comes faster than the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Up to `burst` go at once, then one for each token that drips in; the rest is refused.
    TokenBucket,
    /// The same limit told the other way round: each request pours in, the rate leaks out, and what would
    /// overflow `burst` is refused. The level is `burst` minus the tokens, always; the verdicts are the same.
    LeakyMeter,
    /// Nothing bursts: requests leave one interval apart, in the order they came. Up to `queue` of them wait.
    LeakyQueue,
}

/// How many, in which time, and what of the rest.
///
/// ```
/// use mainstay_resilience::rate_limit::Spec;
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// let settings = Spec::token_bucket(100, second).burst(20).check()?;
/// assert_eq!(settings.interval(), Duration::from_millis(10));
///
/// let refused = Spec::token_bucket(0, second).check().unwrap_err();
/// assert_eq!(refused.field(), "permits");
/// # Ok::<(), mainstay_resilience::Invalid>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// What happens to what comes faster.
    pub kind: Kind,
    /// How many in each `per`, in the long run. Range: at least 1; the interval that follows,
    /// `per / permits`, at least [`SHORTEST_INTERVAL`] ([`SHORTEST_DEPARTURE`] for a queue).
    pub permits: u32,
    /// The time in which they may come. Range: above zero. Only `permits / per` counts, not the two by
    /// themselves: sixty a minute and one a second are the same limit.
    pub per: Duration,
    /// How many may come at once after a quiet time; also the largest cost of one request. Range: at least 1;
    /// `burst` intervals at most [`LONGEST_REFILL`]. Default: `permits`, which is what "100 a second" means to
    /// most, and admits up to 200 in some second. A queue has no bursts and ignores nothing: there it must be 1.
    pub burst: u32,
    /// How many may wait in a [`Kind::LeakyQueue`]; what comes then is refused. Range: 1 to [`LARGEST_QUEUE`];
    /// 0, and only 0, for the other kinds, which never wait.
    pub queue: u32,
    /// How many keys a keyed limit remembers. Range: 1 to [`MOST_KEYS`]. Default 100,000, some ten megabytes.
    /// What happens beyond it is told at [`Keyed`](super::Keyed).
    pub keys_max: usize,
}

impl Spec {
    /// `permits` in each `per`, as many at once after a quiet time.
    pub const fn token_bucket(permits: u32, per: Duration) -> Self {
        Spec { kind: Kind::TokenBucket, permits, per, burst: permits, queue: 0, keys_max: 100_000 }
    }

    /// The mirror of [`Spec::token_bucket`]: a bucket of capacity `permits` that leaks `permits` in each `per`.
    pub const fn leaky_meter(permits: u32, per: Duration) -> Self {
        Spec { kind: Kind::LeakyMeter, ..Spec::token_bucket(permits, per) }
    }

    /// Departures `per / permits` apart, up to `queue` waiting.
    pub const fn leaky_queue(permits: u32, per: Duration, queue: u32) -> Self {
        Spec { kind: Kind::LeakyQueue, burst: 1, queue, ..Spec::token_bucket(permits, per) }
    }

    /// Sets [`Spec::burst`]: the tokens that a bucket holds, the capacity of a meter.
    #[must_use]
    pub const fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// Sets [`Spec::keys_max`].
    #[must_use]
    pub const fn keys_max(mut self, keys_max: usize) -> Self {
        self.keys_max = keys_max;
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid = |field, given: String, problem, remedy| {
            Err(Invalid::new("rate_limit", field, given, problem, remedy))
        };
        if self.permits == 0 {
            let problem = "nothing would ever be admitted";
            return invalid("permits", "0".to_owned(), problem, "give at least 1, or remove what is limited");
        }
        if self.per.is_zero() {
            let problem = "a number in no time is not a rate";
            return invalid("per", "0ns".to_owned(), problem, "give a time above zero, such as 1s");
        }
        // Up, never down: rounding must not admit more than was asked for.
        let interval = self.per.as_nanos().div_ceil(u128::from(self.permits));
        let shortest = if self.kind == Kind::LeakyQueue { SHORTEST_DEPARTURE } else { SHORTEST_INTERVAL };
        if self.per.as_nanos() < shortest.as_nanos() * u128::from(self.permits) {
            let (problem, remedy) = if self.kind == Kind::LeakyQueue {
                let problem =
                    "departures would be less than a millisecond apart, closer than a timer can keep them";
                (problem, "lower the rate, or use a token bucket")
            } else {
                ("it is more than a million a second", "count in larger units, with a cost for each request")
            };
            return invalid("permits", format!("{} in {:?}", self.permits, self.per), problem, remedy);
        }
        if self.burst == 0 {
            let problem = "not even one request would fit";
            return invalid("burst", "0".to_owned(), problem, "give at least 1");
        }
        let refill = interval.saturating_mul(u128::from(self.burst));
        if refill > LONGEST_REFILL.as_nanos() {
            let problem = "it takes longer than thirty days to fill again";
            let remedy = "check the units; what is counted over months is a durable quota";
            let field = if self.burst == 1 { "per" } else { "burst" };
            return invalid(
                field,
                format!("{} at {} in {:?}", self.burst, self.permits, self.per),
                problem,
                remedy,
            );
        }
        match self.kind {
            Kind::LeakyQueue if self.burst != 1 => {
                let problem = "a queue lets nothing burst";
                return invalid(
                    "burst",
                    self.burst.to_string(),
                    problem,
                    "leave it out, or use a token bucket",
                );
            }
            Kind::LeakyQueue if self.queue == 0 || self.queue > LARGEST_QUEUE => {
                let problem = "it is not between 1 and 100,000";
                let remedy = "give as many as may wait; for none, use a token bucket with a burst of 1";
                return invalid("queue", self.queue.to_string(), problem, remedy);
            }
            Kind::TokenBucket | Kind::LeakyMeter if self.queue != 0 => {
                let problem = "this kind refuses and never waits";
                return invalid(
                    "queue",
                    self.queue.to_string(),
                    problem,
                    "leave it out, or use a leaky queue",
                );
            }
            _ => {}
        }
        if self.keys_max == 0 || self.keys_max > MOST_KEYS {
            let problem = "it is not between 1 and 10,000,000";
            let remedy = "give as many keys as there are callers at one time, and a tenth more";
            return invalid("keys_max", self.keys_max.to_string(), problem, remedy);
        }
        // Both fit: the refill is at most thirty days of nanoseconds.
        let nanos = |exact: u128| u64::try_from(exact).unwrap_or(u64::MAX);
        Ok(Checked { spec: self, interval_ns: nanos(interval), refill_ns: nanos(refill) })
    }
}

/// Settings that have been through [`Spec::check`]. Cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checked {
    spec: Spec,
    interval_ns: u64,
    refill_ns: u64,
}

impl Checked {
    /// The settings themselves.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The time for one permit: `per / permits` in whole nanoseconds, rounded up.
    pub const fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval_ns)
    }

    /// The time in which an empty bucket gets full: `burst` intervals.
    pub const fn refill(&self) -> Duration {
        Duration::from_nanos(self.refill_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Each row defends one check: (what is wrong, settings, the field to be named, words the operator needs).
    #[test]
    fn each_absurd_setting_is_refused_and_named() {
        let bucket = Spec::token_bucket(100, SECOND);
        let queue = Spec::leaky_queue(100, SECOND, 10);
        let rows = [
            ("no permits", Spec::token_bucket(0, SECOND), "permits", "nothing would ever be admitted"),
            ("no time", Spec::token_bucket(1, Duration::ZERO), "per", "not a rate"),
            ("too fast for a bucket", Spec::token_bucket(1_000_001, SECOND), "permits", "million a second"),
            (
                "too fast for a queue",
                Spec::leaky_queue(1_001, SECOND, 1),
                "permits",
                "less than a millisecond",
            ),
            ("no burst", bucket.burst(0), "burst", "not even one"),
            ("a burst of months", Spec::token_bucket(1, SECOND).burst(3_000_000), "burst", "thirty days"),
            ("a rate of years", Spec::token_bucket(1, Duration::MAX), "per", "thirty days"),
            ("a queue that bursts", queue.burst(2), "burst", "lets nothing burst"),
            ("a queue of nobody", Spec { queue: 0, ..queue }, "queue", "between 1 and 100,000"),
            (
                "a queue of everybody",
                Spec { queue: LARGEST_QUEUE + 1, ..queue },
                "queue",
                "between 1 and 100,000",
            ),
            ("a bucket that waits", Spec { queue: 1, ..bucket }, "queue", "never waits"),
            ("no keys", bucket.keys_max(0), "keys_max", "between 1 and 10,000,000"),
            ("all keys", bucket.keys_max(MOST_KEYS + 1), "keys_max", "between 1 and 10,000,000"),
        ];
        for (case, spec, field, words) in rows {
            let refused = spec.check().expect_err(case);
            assert_eq!(refused.field(), field, "{case}");
            let shown = refused.to_string();
            for part in [words, &format!("`{field}`"), "No policy was built"] {
                assert!(shown.contains(part), "{case}: {shown:?} does not say {part:?}");
            }
        }
    }

    #[test]
    fn the_ends_of_every_range_are_accepted() {
        for (case, spec) in [
            ("a million a second", Spec::token_bucket(1_000_000, SECOND)),
            ("one in thirty days", Spec::token_bucket(1, LONGEST_REFILL)),
            ("the largest burst", Spec::token_bucket(1, SECOND).burst(2_592_000)),
            ("a thousand departures a second", Spec::leaky_queue(1_000, SECOND, LARGEST_QUEUE)),
            ("one key", Spec::leaky_meter(1, SECOND).keys_max(1)),
            ("most keys", Spec::leaky_meter(1, SECOND).keys_max(MOST_KEYS)),
        ] {
            assert!(spec.check().is_ok(), "{case}");
        }
    }

    #[test]
    fn an_interval_is_rounded_so_that_never_more_is_admitted_and_by_less_than_a_thousandth() {
        for permits in [1, 3, 7, 999, 700_001, 999_999] {
            let interval = Spec::token_bucket(permits, SECOND).check().unwrap().interval();
            let in_a_second = 1e9 / interval.as_nanos() as f64;
            assert!(in_a_second <= f64::from(permits), "{permits}: {in_a_second}");
            assert!(in_a_second >= f64::from(permits) * 0.999, "{permits}: {in_a_second}");
        }
    }
}
