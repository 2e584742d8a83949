//! The settings of a retry: data, and the check that turns it into something that can be enforced.

use std::time::Duration;

use crate::invalid::Invalid;

/// The longest single wait this rule ever asks for, whether from its own backoff or from a Retry-After.
///
/// A day: whatever is retried later than that is a durable timer's work, not a waiting caller's.
pub const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest [`Spec::total`]; a larger figure is more likely a wrong unit than a wish. Thirty days.
pub const LONGEST_TOTAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The largest [`Spec::factor`]. Past ten, the second wait is the cap and there is no growth left to speak of.
pub const LARGEST_FACTOR: u32 = 10;

/// How chance spreads the waits of callers that failed together.
///
/// The three formulas are those of M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// No chance at all: `min(cap, base·factorⁿ)`, for retry n = 0, 1, 2…
    ///
    /// For a lone caller (a supervisor, a test) and wherever the exact sequence is promised. Callers that
    /// failed together come back together.
    None,
    /// Uniform in `[0, min(cap, base·factorⁿ)]`. The cap is applied first and the chance after it, so callers
    /// stay spread however long the outage lasts. The default.
    Full,
    /// `min(cap, uniform in [base, previous·factor])`, where the first `previous` is `base`.
    ///
    /// Never shorter than `base`, which Full does not promise. The price is in the formula, which cuts at the
    /// cap *after* the chance: of callers that have been failing for long, two in five wait exactly the cap
    /// (with a cap of 16·`base`; one in five with 10,000·`base`), and those will do so again two times in
    /// three. Where many callers may fail for long, use [`Jitter::Full`].
    Decorrelated,
}

/// What to try again, how often, and how long to wait in between.
///
/// Made by one of the three constructors and refined by the methods of the same names as the fields;
/// [`Spec::check`] turns it into the [`Checked`] that a [`State`](super::State) takes.
///
/// ```
/// use mainstay_resilience::retry::Spec;
/// use std::time::Duration;
///
/// let spec = Spec::full_jitter(Duration::from_millis(50), Duration::from_secs(1)).max_attempts(4).check()?;
/// assert_eq!(spec.ceiling(1), Duration::from_millis(100));
///
/// let refused = Spec::exact(Duration::ZERO, Duration::from_secs(8)).check().unwrap_err();
/// assert_eq!(refused.field(), "base");
/// # Ok::<(), mainstay_resilience::retry::Invalid>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// The first wait (its ceiling, with full jitter). Range: above zero, up to `cap`. Default 50 ms: a round
    /// trip and a short restart of a pool fit in, and the caller hardly notices.
    pub base: Duration,
    /// The growth from one wait to the next. Range 1 (constant; 2 with decorrelated jitter, whose waits could
    /// not grow otherwise) to [`LARGEST_FACTOR`]. Default 2, with decorrelated jitter 3: the figures of the
    /// paper. Whole, so that exact sequences are exact.
    pub factor: u32,
    /// No backoff is longer, jitter included; only a server's Retry-After is. Range: `base` to
    /// [`LONGEST_WAIT`]. Default 1 s: longer than that, a waiting user has left.
    pub cap: Duration,
    /// How chance spreads the waits. Default [`Jitter::Full`]: of the three it adds least load to whatever is
    /// recovering, and it is the one that still spreads at the cap.
    pub jitter: Jitter,
    /// Tries in all, the first one included; 1 never retries. Range: at least 1. Default 5: one try and the
    /// four waits 1, 2, 4, 8 times `base`. The budget, not this figure, is what prevents a storm.
    pub max_attempts: u32,
    /// Time from the first try after which no retry starts any more. Range: above zero (above `base` where
    /// every wait is at least `base`), up to [`LONGEST_TOTAL`]. Default none: the call's own deadline, given to
    /// [`State::new`](super::State::new), is the usual bound; when both are there, the earlier one holds.
    pub total: Option<Duration>,
}

impl Default for Spec {
    fn default() -> Self {
        Spec::full_jitter(Duration::from_millis(50), Duration::from_secs(1))
    }
}

impl Spec {
    /// Waits of exactly `base`, 2·`base`, 4·`base` … and then `cap`: with 1 s and 8 s, the classical 1, 2, 4, 8 s.
    pub const fn exact(base: Duration, cap: Duration) -> Self {
        Spec { base, factor: 2, cap, jitter: Jitter::None, max_attempts: 5, total: None }
    }

    /// Waits uniform in `[0, min(cap, base·2ⁿ)]`. The one to take unless there is a reason.
    pub const fn full_jitter(base: Duration, cap: Duration) -> Self {
        Spec { base, factor: 2, cap, jitter: Jitter::Full, max_attempts: 5, total: None }
    }

    /// Waits of `min(cap, uniform in [base, 3·previous])`. Read [`Jitter::Decorrelated`] about the cap first.
    pub const fn decorrelated(base: Duration, cap: Duration) -> Self {
        Spec { base, factor: 3, cap, jitter: Jitter::Decorrelated, max_attempts: 5, total: None }
    }

    /// Sets [`Spec::factor`].
    #[must_use]
    pub const fn factor(mut self, factor: u32) -> Self {
        self.factor = factor;
        self
    }

    /// Sets [`Spec::max_attempts`], the first try included.
    #[must_use]
    pub const fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// Sets [`Spec::total`].
    #[must_use]
    pub const fn total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid =
            |field, given: String, problem, remedy| Err(Invalid::new("retry", field, given, problem, remedy));
        let grows_from_base = !matches!(self.jitter, Jitter::Full);
        if self.base.is_zero() {
            let problem = "without a first wait, every retry would be immediate";
            return invalid(
                "base",
                format!("{:?}", self.base),
                problem,
                "give a wait above zero, such as 50ms",
            );
        }
        if self.cap < self.base {
            let problem = "it is shorter than `base`, the first wait";
            return invalid("cap", format!("{:?}", self.cap), problem, "raise `cap` or lower `base`");
        }
        if self.cap > LONGEST_WAIT {
            let remedy = "check the unit; waits beyond a day belong to a durable timer";
            return invalid("cap", format!("{:?}", self.cap), "it is longer than a day", remedy);
        }
        if self.factor == 0 {
            let problem = "every wait after the first would be zero";
            return invalid("factor", self.factor.to_string(), problem, "give 2, or 1 for constant waits");
        }
        if self.factor == 1 && self.jitter == Jitter::Decorrelated {
            let problem = "with decorrelated jitter every wait would be exactly `base`, with no chance in it";
            return invalid(
                "factor",
                self.factor.to_string(),
                problem,
                "give 3, the usual figure, or at least 2",
            );
        }
        if self.factor > LARGEST_FACTOR {
            let problem = "it is larger than 10, which goes from `base` to `cap` in a step or two";
            return invalid(
                "factor",
                self.factor.to_string(),
                problem,
                "give a factor up to 10, or a larger `base`",
            );
        }
        if self.max_attempts == 0 {
            let problem = "it counts the first try, so 0 would forbid the call itself";
            return invalid("max_attempts", "0".to_owned(), problem, "give 1 for no retries");
        }
        if let Some(total) = self.total {
            let given = || format!("{total:?}");
            if total.is_zero() {
                let remedy =
                    "give a time above zero, or leave it out to be bound by the call's deadline alone";
                return invalid("total", given(), "no retry could ever start", remedy);
            }
            if grows_from_base && total <= self.base {
                let problem = "it ends before the first wait (`base`) does, so no retry could ever start";
                return invalid(
                    "total",
                    given(),
                    problem,
                    "raise `total`, or give `max_attempts` 1 for no retries",
                );
            }
            if total > LONGEST_TOTAL {
                let remedy = "check the unit, or leave it out to be bound by the call's deadline alone";
                return invalid("total", given(), "it is longer than thirty days", remedy);
            }
        }
        Ok(Checked(self))
    }
}

/// Settings that have been through [`Spec::check`], or are the defaults. Cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Checked(Spec);

impl Checked {
    /// Settings as a recorded decision read them; they were checked before they were recorded.
    pub(super) const fn recorded(spec: Spec) -> Self {
        Checked(spec)
    }

    /// The settings themselves.
    pub const fn spec(&self) -> &Spec {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn good() -> Spec {
        Spec::full_jitter(ms(50), ms(1_000))
    }

    #[test]
    fn the_defaults_pass_their_own_check() {
        assert_eq!(Spec::default().check(), Ok(Checked::default()));
        assert_eq!(*Checked::default().spec(), Spec::default());
    }

    /// Each row defends one check: (what is wrong, settings, the field to be named, words the operator needs).
    #[test]
    fn each_absurd_setting_is_refused_and_named() {
        let nano = Duration::from_nanos(1);
        let rows = [
            ("zero base", Spec { base: Duration::ZERO, ..good() }, "base", "above zero"),
            ("cap below base", Spec { cap: ms(49), ..good() }, "cap", "shorter than `base`"),
            ("cap over a day", Spec { cap: LONGEST_WAIT + nano, ..good() }, "cap", "longer than a day"),
            ("cap endless", Spec { cap: Duration::MAX, ..good() }, "cap", "longer than a day"),
            ("no growth at all", good().factor(0), "factor", "would be zero"),
            (
                "decorrelated stuck at base",
                Spec::decorrelated(ms(50), ms(500)).factor(1),
                "factor",
                "exactly `base`",
            ),
            ("factor too large", good().factor(LARGEST_FACTOR + 1), "factor", "larger than 10"),
            ("factor overflowing", good().factor(u32::MAX), "factor", "larger than 10"),
            ("no try", good().max_attempts(0), "max_attempts", "forbid the call itself"),
            ("zero total", good().total(Duration::ZERO), "total", "no retry could ever start"),
            (
                "total within the first wait",
                Spec::exact(ms(50), ms(500)).total(ms(50)),
                "total",
                "before the first wait",
            ),
            (
                "total within the least decorrelated wait",
                Spec::decorrelated(ms(50), ms(500)).total(ms(50)),
                "total",
                "before the first wait",
            ),
            ("total over thirty days", good().total(LONGEST_TOTAL + nano), "total", "thirty days"),
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
        let nano = Duration::from_nanos(1);
        for (case, spec) in [
            ("least base", Spec { base: nano, ..good() }),
            ("base equal to cap", Spec::full_jitter(ms(50), ms(50))),
            ("longest cap", Spec { cap: LONGEST_WAIT, ..good() }),
            ("constant waits", good().factor(1)),
            ("slowest decorrelated growth", Spec::decorrelated(ms(50), ms(500)).factor(2)),
            ("largest factor", good().factor(LARGEST_FACTOR)),
            ("no retries", good().max_attempts(1)),
            ("most attempts", good().max_attempts(u32::MAX)),
            ("a total that full jitter can still use", good().total(nano)),
            ("a total just past the first wait", Spec::exact(ms(50), ms(500)).total(ms(50) + nano)),
            ("longest total", good().total(LONGEST_TOTAL)),
        ] {
            assert!(spec.check().is_ok(), "{case}");
        }
    }
}
