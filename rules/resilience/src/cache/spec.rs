//! The settings of a cache: data, and the check that turns it into something that can be enforced.

use std::time::Duration;

use crate::Invalid;

/// The longest time that anything here may last. Thirty days; a larger figure is more likely a wrong unit than a
/// wish.
pub const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The largest [`Spec::early_refresh`]. At ten, a value that took 1 s to load is refreshed 10 s early on average:
/// past that, a longer `ttl` is wasted.
pub const LARGEST_BETA: f64 = 10.0;

/// The largest [`Spec::ttl_jitter`]: half of the time to live.
pub const LARGEST_JITTER: f64 = 0.5;

/// For whom a value may be kept. Chosen with every cache, because the wrong one shows a customer another one's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    /// One value for everybody. Whoever loads it does so in nobody's name: the load's context has no caller and no
    /// tenant, so what a callee answers *because of them* can't get in here.
    Everybody,
    /// One value for each tenant; those without a tenant are one tenant of their own.
    Tenant,
    /// One value for each caller of each tenant; those who are not authenticated are one caller.
    Caller,
}

/// What a cache keeps, for whom, for how long, and what it does at the end of that time.
///
/// ```text
///  loaded                early_refresh            expiry = loaded + ttl (less jitter)
///    │── fresh: served ────┬─ one in some ────────┤── stale_while_revalidate ──┤        served, and loaded anew
///    │                     │  loads it anew       │── stale_if_error ────────────────┤  served if the load fails
/// ```
///
/// Made by one of the three constructors, which choose the audience, and refined by the methods of the same names as
/// the fields; [`Spec::check`] turns it into the [`Checked`] that a [`Cache`](super::Cache) takes.
///
/// ```
/// use mainstay_resilience::cache::Spec;
/// use std::time::Duration;
///
/// let minute = Duration::from_secs(60);
/// let spec = Spec::for_everybody(minute).entries_max(1_000).stale_if_error(minute).check()?;
/// assert_eq!(spec.spec().ttl, minute);
///
/// let refused = Spec::for_everybody(Duration::ZERO).check().unwrap_err();
/// assert_eq!(refused.field(), "ttl");
/// # Ok::<(), mainstay_resilience::Invalid>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// For whom a value is kept. No default.
    pub audience: Audience,
    /// How long a value is fresh, from the end of its load. Range: above zero, up to [`LONGEST`]. No default: only
    /// the data's owner knows how old it may be.
    pub ttl: Duration,
    /// The share of `ttl` by which chance shortens it, so that what was loaded together does not expire together.
    /// Range 0 to [`LARGEST_JITTER`], default 0.1. Never longer than `ttl`, which is a promise about age.
    pub ttl_jitter: f64,
    /// XFetch's β: how eagerly a value is loaded anew *before* it expires, by one reader whom chance picks, while
    /// all others are served. Range 0 (never) to [`LARGEST_BETA`], default 1, the value for which A. Vattani,
    /// F. Chierichetti and K. Lowenstein ("Optimal Probabilistic Cache Stampede Prevention", VLDB 2015) prove the
    /// optimum.
    pub early_refresh: f64,
    /// How long past its expiry a value is still served while it is loaded anew in the background (RFC 5861 §3).
    /// Up to [`LONGEST`]; default zero: never.
    pub stale_while_revalidate: Duration,
    /// How long past its expiry a value is served in place of an error (RFC 5861 §4): only where the load failed in a
    /// way that may pass, or did not end. Up to [`LONGEST`]; default zero: never.
    pub stale_if_error: Duration,
    /// How long it is remembered that there is *no* value. Up to [`LONGEST`]; default 5 s: long enough to take the
    /// load of a burst of guesses off the source, short enough that what is created is soon seen. Zero: not
    /// remembered.
    pub negative_ttl: Duration,
    /// How long the failure of a load is remembered: for that time (less jitter) nobody tries again, what is stale is
    /// served if it may be, and who gets nothing gets the same error at once. Up to a minute; default zero: the next
    /// caller tries again, one at a time.
    pub errors_for: Duration,
    /// Entries kept at most, absent ones and remembered failures included. Range 1 to [`Spec::ENTRIES_MAX`], default
    /// 10,000.
    pub entries_max: usize,
    /// How long one load may take; past it the load counts as dead. Range: above zero, up to an hour; default 10 s.
    /// A load never lasts longer than the last of those who wait for it.
    pub load_limit: Duration,
    /// Loads at a time, of different keys; who would begin one more is refused, or served what is stale. Range 1 to
    /// 1,000,000, default 256.
    pub loads_max: usize,
    /// Callers that wait for loads at a time; more are refused. Range 1 to 10,000,000, default 100,000.
    pub waiters_max: usize,
}

impl Spec {
    /// The largest [`Spec::entries_max`]: a hundred million.
    pub const ENTRIES_MAX: usize = 100_000_000;

    /// One value for everybody, fresh for `ttl`.
    pub const fn for_everybody(ttl: Duration) -> Self {
        Self::of(Audience::Everybody, ttl)
    }

    /// One value for each tenant, fresh for `ttl`.
    pub const fn for_each_tenant(ttl: Duration) -> Self {
        Self::of(Audience::Tenant, ttl)
    }

    /// One value for each caller, fresh for `ttl`.
    pub const fn for_each_caller(ttl: Duration) -> Self {
        Self::of(Audience::Caller, ttl)
    }

    const fn of(audience: Audience, ttl: Duration) -> Self {
        Spec {
            audience,
            ttl,
            ttl_jitter: 0.1,
            early_refresh: 1.0,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            negative_ttl: Duration::from_secs(5),
            errors_for: Duration::ZERO,
            entries_max: 10_000,
            load_limit: Duration::from_secs(10),
            loads_max: 256,
            waiters_max: 100_000,
        }
    }

    /// Sets [`Spec::ttl_jitter`].
    #[must_use]
    pub const fn ttl_jitter(mut self, share: f64) -> Self {
        self.ttl_jitter = share;
        self
    }

    /// Sets [`Spec::early_refresh`].
    #[must_use]
    pub const fn early_refresh(mut self, beta: f64) -> Self {
        self.early_refresh = beta;
        self
    }

    /// Sets [`Spec::stale_while_revalidate`].
    #[must_use]
    pub const fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = window;
        self
    }

    /// Sets [`Spec::stale_if_error`].
    #[must_use]
    pub const fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = window;
        self
    }

    /// Sets [`Spec::negative_ttl`].
    #[must_use]
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// Sets [`Spec::errors_for`].
    #[must_use]
    pub const fn errors_for(mut self, time: Duration) -> Self {
        self.errors_for = time;
        self
    }

    /// Sets [`Spec::entries_max`].
    #[must_use]
    pub const fn entries_max(mut self, entries: usize) -> Self {
        self.entries_max = entries;
        self
    }

    /// Sets [`Spec::load_limit`].
    #[must_use]
    pub const fn load_limit(mut self, limit: Duration) -> Self {
        self.load_limit = limit;
        self
    }

    /// Sets [`Spec::loads_max`].
    #[must_use]
    pub const fn loads_max(mut self, loads: usize) -> Self {
        self.loads_max = loads;
        self
    }

    /// Sets [`Spec::waiters_max`].
    #[must_use]
    pub const fn waiters_max(mut self, waiters: usize) -> Self {
        self.waiters_max = waiters;
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let share = |field, given: f64, most: f64| match (0.0..=most).contains(&given) {
            true => Ok(()),
            // Neither a comparison nor a range holds NaN, so it ends here too.
            false => Err(Invalid::new("cache", field, given.to_string(), "it is out of its range", {
                if most == LARGEST_JITTER {
                    "give 0 to 0.5"
                } else {
                    "give 0 (off) to 10; 1 is the usual figure"
                }
            })),
        };
        let time = |field, given: Duration, zero: bool, most: Duration| {
            let shown = format!("{given:?}");
            if given.is_zero() && !zero {
                return Err(Invalid::new(
                    "cache",
                    field,
                    shown,
                    "it is no time at all",
                    "give a time above zero",
                ));
            }
            match given > most {
                true => Err(Invalid::new(
                    "cache",
                    field,
                    shown,
                    "it is longer than can be meant",
                    "check the unit",
                )),
                false => Ok(()),
            }
        };
        let count = |field, given: usize, most: usize| match (1..=most).contains(&given) {
            true => Ok(()),
            false if given == 0 => {
                Err(Invalid::new("cache", field, "0".into(), "nothing could ever be done", "give at least 1"))
            }
            false => Err(Invalid::new(
                "cache",
                field,
                given.to_string(),
                "it is more than can be meant",
                "lower it",
            )),
        };
        time("ttl", self.ttl, false, LONGEST)?;
        share("ttl_jitter", self.ttl_jitter, LARGEST_JITTER)?;
        share("early_refresh", self.early_refresh, LARGEST_BETA)?;
        time("stale_while_revalidate", self.stale_while_revalidate, true, LONGEST)?;
        time("stale_if_error", self.stale_if_error, true, LONGEST)?;
        time("negative_ttl", self.negative_ttl, true, LONGEST)?;
        time("errors_for", self.errors_for, true, Duration::from_secs(60))?;
        count("entries_max", self.entries_max, Self::ENTRIES_MAX)?;
        time("load_limit", self.load_limit, false, Duration::from_secs(60 * 60))?;
        count("loads_max", self.loads_max, 1_000_000)?;
        count("waiters_max", self.waiters_max, 10_000_000)?;
        Ok(Checked(self))
    }
}

/// Settings that can be enforced; made by [`Spec::check`].
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

    const MINUTE: Duration = Duration::from_secs(60);
    const NANO: Duration = Duration::from_nanos(1);

    fn good() -> Spec {
        Spec::for_everybody(MINUTE)
    }

    /// Each row defends one check: (what is wrong, settings, the field to be named, words the operator needs).
    #[test]
    fn each_absurd_setting_is_refused_and_named() {
        let rows = [
            ("no time to live", Spec::for_everybody(Duration::ZERO), "ttl", "no time at all"),
            ("endless", Spec::for_each_tenant(Duration::MAX), "ttl", "check the unit"),
            ("jitter below 0", good().ttl_jitter(-0.1), "ttl_jitter", "0 to 0.5"),
            ("jitter over half", good().ttl_jitter(0.51), "ttl_jitter", "0 to 0.5"),
            ("jitter no number", good().ttl_jitter(f64::NAN), "ttl_jitter", "0 to 0.5"),
            ("beta below 0", good().early_refresh(-1.0), "early_refresh", "0 (off) to 10"),
            ("beta no number", good().early_refresh(f64::NAN), "early_refresh", "0 (off) to 10"),
            ("beta endless", good().early_refresh(f64::INFINITY), "early_refresh", "0 (off) to 10"),
            (
                "revalidates for ever",
                good().stale_while_revalidate(LONGEST + NANO),
                "stale_while_revalidate",
                "unit",
            ),
            ("stale for ever", good().stale_if_error(LONGEST + NANO), "stale_if_error", "unit"),
            ("absent for ever", good().negative_ttl(LONGEST + NANO), "negative_ttl", "unit"),
            ("failed for ever", good().errors_for(MINUTE + NANO), "errors_for", "unit"),
            ("no room", good().entries_max(0), "entries_max", "at least 1"),
            ("too much room", good().entries_max(Spec::ENTRIES_MAX + 1), "entries_max", "lower it"),
            ("no time to load", good().load_limit(Duration::ZERO), "load_limit", "above zero"),
            ("loads for ever", good().load_limit(60 * MINUTE + NANO), "load_limit", "unit"),
            ("no load", good().loads_max(0), "loads_max", "at least 1"),
            ("loads without end", good().loads_max(usize::MAX), "loads_max", "lower it"),
            ("nobody waits", good().waiters_max(0), "waiters_max", "at least 1"),
            ("waiters without end", good().waiters_max(usize::MAX), "waiters_max", "lower it"),
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
            ("shortest", Spec::for_each_caller(NANO).load_limit(NANO)),
            ("longest", Spec::for_everybody(LONGEST).stale_while_revalidate(LONGEST).stale_if_error(LONGEST)),
            ("no chance", good().ttl_jitter(0.0).early_refresh(0.0)),
            ("most chance", good().ttl_jitter(LARGEST_JITTER).early_refresh(LARGEST_BETA)),
            ("nothing remembered", good().negative_ttl(Duration::ZERO).errors_for(Duration::ZERO)),
            ("all remembered", good().negative_ttl(LONGEST).errors_for(MINUTE)),
            ("least", good().entries_max(1).loads_max(1).waiters_max(1)),
            ("most", good().entries_max(Spec::ENTRIES_MAX).load_limit(60 * MINUTE)),
        ] {
            assert!(spec.check().is_ok(), "{case}");
        }
    }
}
