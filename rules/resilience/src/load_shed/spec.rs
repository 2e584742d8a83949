//! The settings of load shedding: data, and the check that turns it into something that can be enforced.

use std::time::Duration;

use crate::invalid::Invalid;

/// The most calls that may be under way at a time, whatever was measured.
pub const LARGEST_LIMIT: u32 = 1_000_000;

/// The most that [`Spec::queue`] may be: each waits with its request in memory.
pub const LARGEST_QUEUE: u32 = 100_000;

/// The longest [`Spec::interval`], [`Adaptive::window`] and [`Adaptive::probe_every`]: an hour.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The largest [`Adaptive::tolerance`]: beyond it a callee may get ten times slower and nothing is done.
pub const LARGEST_TOLERANCE: f64 = 10.0;

/// How many calls may be under way at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// This many. For a capacity that is known: workers, connections, processors.
    Fixed(u32),
    /// As many as are measured to go through without waiting for each other.
    Adaptive(Adaptive),
}

/// How the limit follows what is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// The limit before anything is measured. Range: `min` to `max`. Default 20.
    pub initial: u32,
    /// The limit never falls below. Range: 1 to `max`. Default 4: enough to go on measuring.
    pub min: u32,
    /// The limit never rises above. Range: `min` to [`LARGEST_LIMIT`]. Default 1,000.
    pub max: u32,
    /// How many times the undisturbed response time counts as still undisturbed. Range: above 1 to
    /// [`LARGEST_TOLERANCE`]. Default 1.5: a standing queue of half a response time, in exchange for a limit that
    /// doesn't follow every fluctuation.
    pub tolerance: f64,
    /// The limit is set anew once in this time, if enough was measured. Range: above zero, up to
    /// [`LONGEST_INTERVAL`]. Default 100 ms.
    pub window: Duration,
    /// While the limit is used up, the undisturbed response time is measured again this often, by halving the
    /// limit for a window or some. Spread by chance between 0.75 and 1.25 of it, so that clients of one callee don't
    /// do it together. Range: ten windows to [`LONGEST_INTERVAL`]. Default 10 s.
    pub probe_every: Duration,
}

impl Default for Adaptive {
    fn default() -> Self {
        Adaptive {
            initial: 20,
            min: 4,
            max: 1_000,
            tolerance: 1.5,
            window: Duration::from_millis(100),
            probe_every: Duration::from_secs(10),
        }
    }
}

/// How many at a time, how many may wait, and how long.
///
/// ```
/// use mainstay_resilience::load_shed::Spec;
///
/// let settings = Spec::adaptive().queue(200).check()?;
/// assert_eq!(settings.spec().queue, 200);
/// let refused = Spec::fixed(0).check().unwrap_err();
/// assert_eq!(refused.field(), "limit");
/// # Ok::<(), mainstay_resilience::Invalid>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// How many calls may be under way at a time.
    pub limit: Limit,
    /// How many may wait, of all priorities together. Range: 0 (nobody waits) to [`LARGEST_QUEUE`]. Default 100.
    /// Without a queue there is no order in which to give up: who comes when the limit is used up is refused,
    /// whatever its priority.
    pub queue: u32,
    /// How long one may wait while the queue stands, that is, from when the first in it has waited that long at every
    /// look during an `interval`, and until it is empty. Range: above zero, up to `interval`. Default 5 ms, CoDel's
    /// (RFC 8289 §4.3). Where fewer than four are served in that time, the time in which four are served.
    pub target: Duration,
    /// How long one may wait at other times, and how long a queue has to stand before it counts as standing. Range:
    /// `target` to [`LONGEST_INTERVAL`]. Default 100 ms, CoDel's: a burst that is over by then costs nobody
    /// anything but the wait.
    pub interval: Duration,
}

impl Spec {
    /// `limit` calls at a time.
    pub const fn fixed(limit: u32) -> Self {
        Spec {
            limit: Limit::Fixed(limit),
            queue: 100,
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
        }
    }

    /// As many calls at a time as are measured to go through without waiting for each other.
    pub fn adaptive() -> Self {
        Spec { limit: Limit::Adaptive(Adaptive::default()), ..Spec::fixed(1) }
    }

    /// The same without a queue, for the way out: one limit for each callee, and who finds it used up is told so.
    pub fn adaptive_limit() -> Self {
        Spec { queue: 0, ..Spec::adaptive() }
    }

    /// Sets [`Spec::queue`].
    #[must_use]
    pub const fn queue(mut self, queue: u32) -> Self {
        self.queue = queue;
        self
    }

    /// Sets [`Spec::target`].
    #[must_use]
    pub const fn target(mut self, target: Duration) -> Self {
        self.target = target;
        self
    }

    /// Sets [`Spec::interval`].
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid = |field, given: String, problem, remedy| {
            Err(Invalid::new("load_shed", field, given, problem, remedy))
        };
        match self.limit {
            Limit::Fixed(limit) if limit == 0 || limit > LARGEST_LIMIT => {
                let problem = "it is not between 1 and 1,000,000";
                return invalid(
                    "limit",
                    limit.to_string(),
                    problem,
                    "give as many as can be worked on at a time",
                );
            }
            Limit::Fixed(_) => {}
            Limit::Adaptive(adaptive) => adaptive.check()?,
        }
        if self.queue > LARGEST_QUEUE {
            let remedy =
                "give as many as are answered within `interval`; the others would only wait to be refused";
            return invalid("queue", self.queue.to_string(), "it is more than 100,000", remedy);
        }
        let given = |time: Duration| format!("{time:?}");
        if self.target.is_zero() {
            let problem = "whoever waits at all would be refused";
            return invalid("target", given(self.target), problem, "give a time above zero, or a queue of 0");
        }
        if self.interval < self.target {
            let problem = "it is shorter than `target`, the time to wait when it is busiest";
            return invalid("interval", given(self.interval), problem, "raise `interval` or lower `target`");
        }
        if self.interval > LONGEST_INTERVAL {
            return invalid("interval", given(self.interval), "it is longer than an hour", "check the unit");
        }
        Ok(Checked(self))
    }
}

impl Adaptive {
    fn check(&self) -> Result<(), Invalid> {
        let invalid = |field, given: String, problem, remedy| {
            Err(Invalid::new("load_shed", field, given, problem, remedy))
        };
        if self.min == 0 {
            let problem = "with nothing under way nothing is measured, so it would stay at 0";
            return invalid("min", "0".to_owned(), problem, "give at least 1");
        }
        if self.max < self.min || self.max > LARGEST_LIMIT {
            let problem = "it is not between `min` and 1,000,000";
            return invalid("max", self.max.to_string(), problem, "raise `max` or lower `min`");
        }
        if self.initial < self.min || self.initial > self.max {
            let problem = "it is not between `min` and `max`";
            return invalid("initial", self.initial.to_string(), problem, "begin within the range");
        }
        // Written so that a NaN is refused, too.
        if !(self.tolerance > 1.0 && self.tolerance <= LARGEST_TOLERANCE) {
            let problem = "it is not above 1 and up to 10";
            return invalid("tolerance", self.tolerance.to_string(), problem, "give 1.5, the usual figure");
        }
        if self.window.is_zero() || self.window > LONGEST_INTERVAL {
            let problem = "it is not above zero and up to an hour";
            return invalid(
                "window",
                format!("{:?}", self.window),
                problem,
                "give some response times, such as 100ms",
            );
        }
        if self.probe_every < self.window.saturating_mul(10) || self.probe_every > LONGEST_INTERVAL {
            let problem = "it is not between ten windows and an hour";
            let remedy = "give 10s: a probe takes a window or some, at half the limit";
            return invalid("probe_every", format!("{:?}", self.probe_every), problem, remedy);
        }
        Ok(())
    }
}

/// Settings that have been through [`Spec::check`]. Cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked(Spec);

impl Checked {
    /// The settings themselves.
    pub const fn spec(&self) -> &Spec {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive(change: impl FnOnce(&mut Adaptive)) -> Spec {
        let mut adaptive = Adaptive::default();
        change(&mut adaptive);
        Spec { limit: Limit::Adaptive(adaptive), ..Spec::fixed(1) }
    }

    /// Each row defends one check: (what is wrong, settings, the field to be named).
    #[test]
    fn each_absurd_setting_is_refused_and_named() {
        let ms = Duration::from_millis;
        let rows = [
            ("nothing at a time", Spec::fixed(0), "limit"),
            ("everything at a time", Spec::fixed(LARGEST_LIMIT + 1), "limit"),
            ("everybody waits", Spec::fixed(1).queue(LARGEST_QUEUE + 1), "queue"),
            ("no time to wait", Spec::fixed(1).target(Duration::ZERO), "target"),
            ("bad days are better than good ones", Spec::fixed(1).target(ms(101)), "interval"),
            ("an interval of hours", Spec::fixed(1).interval(LONGEST_INTERVAL + ms(1)), "interval"),
            ("nothing to measure", adaptive(|a| a.min = 0), "min"),
            ("an empty range", adaptive(|a| a.max = 3), "max"),
            ("a range without end", adaptive(|a| a.max = LARGEST_LIMIT + 1), "max"),
            ("begins below", adaptive(|a| a.initial = 3), "initial"),
            ("begins above", adaptive(|a| a.initial = 1_001), "initial"),
            ("tolerates nothing", adaptive(|a| a.tolerance = 1.0), "tolerance"),
            ("tolerates all", adaptive(|a| a.tolerance = f64::INFINITY), "tolerance"),
            ("tolerates what is no number", adaptive(|a| a.tolerance = f64::NAN), "tolerance"),
            ("no window", adaptive(|a| a.window = Duration::ZERO), "window"),
            ("a window of hours", adaptive(|a| a.window = LONGEST_INTERVAL + ms(1)), "window"),
            ("always probing", adaptive(|a| a.probe_every = ms(999)), "probe_every"),
            ("never probing", adaptive(|a| a.probe_every = LONGEST_INTERVAL + ms(1)), "probe_every"),
        ];
        for (case, spec, field) in rows {
            let refused = spec.check().expect_err(case);
            assert_eq!(refused.field(), field, "{case}");
            let shown = refused.to_string();
            for part in [&format!("`{field}`"), "No policy was built"] {
                assert!(shown.contains(part), "{case}: {shown:?} does not say {part:?}");
            }
        }
    }

    #[test]
    fn the_ends_of_every_range_are_accepted() {
        let second = Duration::from_secs(1);
        for (case, spec) in [
            ("one at a time", Spec::fixed(1)),
            ("most at a time", Spec::fixed(LARGEST_LIMIT).queue(LARGEST_QUEUE)),
            ("nobody waits", Spec::adaptive_limit()),
            ("as long at all times", Spec::fixed(1).target(second).interval(second)),
            ("one figure only", adaptive(|a| (a.min, a.initial, a.max) = (7, 7, 7))),
            ("most tolerant", adaptive(|a| a.tolerance = LARGEST_TOLERANCE)),
            ("ten windows", adaptive(|a| a.probe_every = second)),
        ] {
            assert!(spec.check().is_ok(), "{case}");
        }
    }
}
