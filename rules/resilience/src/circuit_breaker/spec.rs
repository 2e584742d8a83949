//! The settings of a circuit breaker: data, and the check that turns it into something that can be enforced.

use std::time::Duration;

use super::shards;
use crate::invalid::Invalid;

/// The largest count window. Each call in it takes a byte; a window of more calls is one of minutes, so a time
/// window says what is meant.
pub const LARGEST_COUNT: u32 = 65_536;
/// The shortest time window: ten buckets of 10 ms.
pub const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// The longest time window. What happened longer ago says nothing about now.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(60 * 60);
/// The longest of all other times here; a larger figure is more likely a wrong unit than a wish.
pub const LONGEST_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest [`Spec::open_growth`].
pub const LARGEST_GROWTH: u32 = 10;
/// The most probes of one half-open phase.
pub const MOST_PROBES: u32 = 1_000;

/// The most [`Spec::shards`].
pub const MOST_SHARDS: u32 = 64;

/// Which past calls the rates are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// The last so many calls. Slides with every call: the oldest one leaves as the newest comes.
    Count(u32),
    /// The calls that ended within this time, in tenths of it: a call counts for at least nine tenths of the
    /// window and never longer than all of it.
    Time(Duration),
}

impl From<u32> for Window {
    fn from(calls: u32) -> Self {
        Window::Count(calls)
    }
}

impl From<Duration> for Window {
    fn from(time: Duration) -> Self {
        Window::Time(time)
    }
}

/// When slowness alone opens the breaker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slow {
    /// A call that took longer than this is slow, whatever came of it, a cancelled one included.
    pub longer_than: Duration,
    /// The share of slow calls at which it opens. Range: above 0, up to 1.
    pub rate: f64,
}

/// What the breaker does with what it learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Refuses calls while open. The default.
    #[default]
    Enforce,
    /// Learns and changes its state as if it refused, and refuses nothing: to try settings on live traffic.
    ObserveOnly,
    /// Lets everything pass and learns nothing.
    Disabled,
    /// Refuses everything and learns nothing: an operator took the callee out.
    ForcedOpen,
}

/// When a circuit breaker opens, for how long, and how it finds its way back.
///
/// ```
/// use mainstay_resilience::circuit_breaker::Spec;
/// use std::time::Duration;
///
/// let spec = Spec::failure_rate(0.5).over(100).open_for(Duration::from_secs(5)).check()?;
/// let refused = Spec::failure_rate(f64::NAN).check().unwrap_err();
/// assert_eq!(refused.field(), "failure_rate");
/// # let _ = spec; Ok::<(), mainstay_resilience::Invalid>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// The share of failures in the window at which it opens. Range: a millionth to 1; kept to a millionth, so
    /// that the comparison is exact. Default 0.5: half of what is asked is lost, so refusing costs no more than
    /// asking.
    pub failure_rate: f64,
    /// When slowness opens it, too. Default none: a timeout of each try makes the slowest ones failures.
    pub slow: Option<Slow>,
    /// Which past calls count. Default the last 100.
    pub window: Window,
    /// Calls that the window must hold before any rate is believed. Range: 1 to the count window's size. Default
    /// 20: of a callee that fails one call in ten, fewer than one window in 100,000 holds 10 failures among 20.
    pub minimum_calls: u32,
    /// How long it stays open the first time. Range: above 0, up to `open_cap`. Default 5 s: a restart fits in.
    pub open_for: Duration,
    /// By what the open time grows each time a probe fails. Range: 1 (constant) to [`LARGEST_GROWTH`]. Default 2.
    pub open_growth: u32,
    /// No open time is longer. Range: `open_for` to [`LONGEST_TIME`]. Default 1 min: an hour's outage must not
    /// cost another hour.
    pub open_cap: Duration,
    /// Calls let through to find out whether the callee is well again; their rates decide as the window's do. Range:
    /// 1 to [`MOST_PROBES`]. Default 1.
    pub probes: u32,
    /// A probe of which nothing was heard for this long counts as failed, so that one that never ends wedges nothing.
    /// Range: above 0, up to [`LONGEST_TIME`]. Default 1 min: longer than any try may take.
    pub probe_limit: Duration,
    /// Into how many parts the window is divided, so that threads that count at once don't wait for each other; as many
    /// as cores ask at a time. Range: 1 to [`MOST_SHARDS`], and with a count window at most an eighth of its calls. Default
    /// 1: a count window is exact. With more, E = an eighth of its n calls may be others: all entries but E are among the
    /// last n + E calls, and n − 2·E at least are among the last n; when all calls fail, the rate is 7/8 after n + E of
    /// them. A time window is exact with any number.
    pub shards: u32,
    /// What it does with what it learns.
    pub mode: Mode,
}

impl Default for Spec {
    fn default() -> Self {
        Spec::failure_rate(0.5)
    }
}

impl Spec {
    /// Opens at this share of failures.
    pub const fn failure_rate(rate: f64) -> Self {
        Spec {
            failure_rate: rate,
            slow: None,
            window: Window::Count(100),
            minimum_calls: 20,
            open_for: Duration::from_secs(5),
            open_growth: 2,
            open_cap: Duration::from_secs(60),
            probes: 1,
            probe_limit: Duration::from_secs(60),
            shards: 1,
            mode: Mode::Enforce,
        }
    }

    /// Sets [`Spec::window`]: a number of calls, or a time. A count below [`Spec::minimum_calls`] lowers that, too.
    #[must_use]
    pub fn over(mut self, window: impl Into<Window>) -> Self {
        self.window = window.into();
        if let Window::Count(calls) = self.window {
            self.minimum_calls = self.minimum_calls.min(calls.max(1));
        }
        self
    }

    /// Sets [`Spec::minimum_calls`].
    #[must_use]
    pub const fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = calls;
        self
    }

    /// Sets [`Spec::slow`].
    #[must_use]
    pub const fn slow(mut self, longer_than: Duration, rate: f64) -> Self {
        self.slow = Some(Slow { longer_than, rate });
        self
    }

    /// Sets [`Spec::open_for`], and raises [`Spec::open_cap`] to it where that is shorter.
    #[must_use]
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self.open_cap = self.open_cap.max(time);
        self
    }

    /// Sets [`Spec::open_growth`] and [`Spec::open_cap`].
    #[must_use]
    pub const fn open_growth(mut self, growth: u32, cap: Duration) -> Self {
        self.open_growth = growth;
        self.open_cap = cap;
        self
    }

    /// Sets [`Spec::probes`].
    #[must_use]
    pub const fn probes(mut self, probes: u32) -> Self {
        self.probes = probes;
        self
    }

    /// Sets [`Spec::probe_limit`].
    #[must_use]
    pub const fn probe_limit(mut self, limit: Duration) -> Self {
        self.probe_limit = limit;
        self
    }

    /// Sets [`Spec::shards`].
    #[must_use]
    pub const fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// Sets [`Spec::mode`].
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid = |field, given: String, problem, remedy| {
            Invalid::new("circuit_breaker", field, given, problem, remedy)
        };
        let rate = |field, rate: f64| match millionths(rate) {
            Some(parts) => Ok(parts),
            None => {
                let problem = "a share lies between a millionth and 1";
                let remedy = "give a share such as 0.5, not a percentage";
                Err(invalid(field, rate.to_string(), problem, remedy))
            }
        };
        let time = |field, time: Duration| {
            if time.is_zero() {
                return Err(invalid(
                    field,
                    format!("{time:?}"),
                    "it is zero",
                    "give a time above zero, such as 5s",
                ));
            }
            if time > LONGEST_TIME {
                return Err(invalid(field, format!("{time:?}"), "it is longer than a day", "check the unit"));
            }
            Ok(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
        };
        let failure_rate = rate("failure_rate", self.failure_rate)?;
        let (slow_after, slow_rate) = match self.slow {
            Some(slow) => (time("slow.longer_than", slow.longer_than)?, rate("slow.rate", slow.rate)?),
            // Nothing takes longer than that, and no share is above 1.
            None => (u64::MAX, OFF),
        };
        match self.window {
            Window::Count(0) => {
                let remedy = "give a number of calls, such as 100";
                return Err(invalid("window", "0 calls".into(), "no call would ever count", remedy));
            }
            Window::Count(calls) if calls > LARGEST_COUNT => {
                let remedy = "give fewer calls, or a time window";
                return Err(invalid(
                    "window",
                    format!("{calls} calls"),
                    "it is larger than 65,536 calls",
                    remedy,
                ));
            }
            Window::Time(time) if time < SHORTEST_WINDOW => {
                let remedy = "give a time window from 100ms on";
                return Err(invalid("window", format!("{time:?}"), "it is shorter than 100 ms", remedy));
            }
            Window::Time(time) if time > LONGEST_WINDOW => {
                let remedy = "check the unit, or give a shorter window";
                return Err(invalid("window", format!("{time:?}"), "it is longer than an hour", remedy));
            }
            Window::Count(_) | Window::Time(_) => {}
        }
        if self.minimum_calls == 0 {
            let problem = "a rate needs a call to be taken of";
            return Err(invalid("minimum_calls", "0".into(), problem, "give 1 or more"));
        }
        if let Window::Count(calls) = self.window
            && self.minimum_calls > calls
        {
            let problem = "the window never holds as many calls, so it would never open";
            let remedy = "lower it, or enlarge `window`";
            return Err(invalid("minimum_calls", self.minimum_calls.to_string(), problem, remedy));
        }
        if self.shards == 0 || self.shards > MOST_SHARDS {
            let problem = "it lies outside 1 to 64";
            let remedy = "give 1, or as many as cores ask at a time";
            return Err(invalid("shards", self.shards.to_string(), problem, remedy));
        }
        if let Window::Count(calls) = self.window
            && self.shards > 1
            && shards::block(calls, self.shards) < 2
        {
            let problem = "the window has fewer than eight calls for each, too few to be divided";
            let remedy = "lower it, or enlarge `window`";
            return Err(invalid("shards", self.shards.to_string(), problem, remedy));
        }
        let open_for = time("open_for", self.open_for)?;
        let open_cap = time("open_cap", self.open_cap)?;
        if open_cap < open_for {
            let problem = "it is shorter than `open_for`, the first open time";
            let remedy = "raise `open_cap` or lower `open_for`";
            return Err(invalid("open_cap", format!("{:?}", self.open_cap), problem, remedy));
        }
        if self.open_growth == 0 || self.open_growth > LARGEST_GROWTH {
            let problem = "it lies outside 1 to 10";
            let remedy = "give 2, or 1 for a constant open time";
            return Err(invalid("open_growth", self.open_growth.to_string(), problem, remedy));
        }
        if self.probes == 0 || self.probes > MOST_PROBES {
            let problem = "it lies outside 1 to 1,000";
            let remedy = "give 1, or as many calls as it takes to judge the callee";
            return Err(invalid("probes", self.probes.to_string(), problem, remedy));
        }
        let probe_limit = time("probe_limit", self.probe_limit)?;
        Ok(Checked { spec: self, failure_rate, slow_after, slow_rate, open_for, open_cap, probe_limit })
    }
}

/// A rate that no share reaches.
const OFF: u32 = 2_000_000;

fn millionths(rate: f64) -> Option<u32> {
    // Also false for NaN.
    let in_range = (0.000_000_5..=1.0).contains(&rate);
    in_range.then_some((rate * 1e6).round() as u32)
}

/// Settings that have been through [`Spec::check`]. Cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked {
    spec: Spec,
    /// In millionths.
    pub(super) failure_rate: u32,
    /// In nanoseconds.
    pub(super) slow_after: u64,
    /// In millionths.
    pub(super) slow_rate: u32,
    pub(super) open_for: u64,
    pub(super) open_cap: u64,
    pub(super) probe_limit: u64,
}

impl Checked {
    /// The settings themselves.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Each row defends one check: (what is wrong, settings, the field to be named, words the operator needs).
    #[test]
    fn each_absurd_setting_is_refused_and_named() {
        let good = Spec::default();
        let nano = Duration::from_nanos(1);
        let rows = [
            ("no rate", Spec { failure_rate: 0.0, ..good }, "failure_rate", "between a millionth and 1"),
            ("negative rate", Spec { failure_rate: -0.5, ..good }, "failure_rate", "between"),
            ("a percentage", Spec { failure_rate: 50.0, ..good }, "failure_rate", "not a percentage"),
            ("no number", Spec { failure_rate: f64::NAN, ..good }, "failure_rate", "NaN"),
            ("endless", Spec { failure_rate: f64::INFINITY, ..good }, "failure_rate", "between"),
            ("below a millionth", Spec { failure_rate: 1e-7, ..good }, "failure_rate", "between"),
            ("slow: no rate", good.slow(secs(1), 0.0), "slow.rate", "between"),
            ("slow: no number", good.slow(secs(1), f64::NAN), "slow.rate", "between"),
            ("slow: no time", good.slow(Duration::ZERO, 0.5), "slow.longer_than", "zero"),
            ("slow: a year", good.slow(secs(31_536_000), 0.5), "slow.longer_than", "longer than a day"),
            ("empty window", Spec { window: Window::Count(0), ..good }, "window", "no call would ever count"),
            ("huge window", good.over(LARGEST_COUNT + 1), "window", "larger than 65,536"),
            ("window of no time", good.over(Duration::ZERO), "window", "shorter than 100 ms"),
            ("window too short", good.over(SHORTEST_WINDOW - nano), "window", "shorter than 100 ms"),
            ("window too long", good.over(LONGEST_WINDOW + nano), "window", "longer than an hour"),
            ("endless window", good.over(Duration::MAX), "window", "longer than an hour"),
            ("no minimum", good.minimum_calls(0), "minimum_calls", "needs a call"),
            ("minimum above the window", good.over(10).minimum_calls(11), "minimum_calls", "never open"),
            ("never open", Spec { open_for: Duration::ZERO, ..good }, "open_for", "zero"),
            ("open for ever", good.open_for(Duration::MAX), "open_for", "longer than a day"),
            ("cap below base", good.open_growth(2, secs(4)), "open_cap", "shorter than `open_for`"),
            ("endless cap", good.open_growth(2, Duration::MAX), "open_cap", "longer than a day"),
            ("no growth", good.open_growth(0, secs(60)), "open_growth", "outside 1 to 10"),
            ("wild growth", good.open_growth(u32::MAX, secs(60)), "open_growth", "outside 1 to 10"),
            ("no probe", good.probes(0), "probes", "outside 1 to 1,000"),
            ("too many probes", good.probes(MOST_PROBES + 1), "probes", "outside 1 to 1,000"),
            ("no shard", good.shards(0), "shards", "outside 1 to 64"),
            (
                "too many shards",
                good.over(LARGEST_COUNT).shards(MOST_SHARDS + 1),
                "shards",
                "outside 1 to 64",
            ),
            (
                "shards of nothing",
                good.over(15).minimum_calls(1).shards(2),
                "shards",
                "too few to be divided",
            ),
            ("no probe time", good.probe_limit(Duration::ZERO), "probe_limit", "zero"),
            ("endless probe", good.probe_limit(Duration::MAX), "probe_limit", "longer than a day"),
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
        let good = Spec::default();
        for (case, spec) in [
            ("the defaults", good),
            ("a millionth", Spec::failure_rate(0.000_001)),
            ("all", Spec::failure_rate(1.0)),
            ("one call", good.over(1)),
            ("largest window", good.over(LARGEST_COUNT).minimum_calls(LARGEST_COUNT)),
            ("shortest window", good.over(SHORTEST_WINDOW)),
            ("longest window", good.over(LONGEST_WINDOW).minimum_calls(u32::MAX)),
            ("constant open time", good.open_growth(1, secs(5))),
            ("longest times", good.open_for(LONGEST_TIME).probe_limit(LONGEST_TIME)),
            ("most probes", good.probes(MOST_PROBES)),
        ] {
            assert!(spec.check().is_ok(), "{case}");
        }
    }
}
