//! The settings of the timeouts: data, and the check that turns it into something that can be enforced.

use std::time::Duration;

use crate::invalid::Invalid;

/// The longest limit; a larger figure is more likely a wrong unit than a wish.
pub const LONGEST_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a call may take. Without either, its deadline alone is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Spec {
    /// All tries together, waits between them included. Range: above 0, up to [`LONGEST_LIMIT`].
    pub total: Option<Duration>,
    /// One try, time in the bulkhead's queue not included. Range: above 0, up to `total`.
    pub attempt: Option<Duration>,
}

impl Spec {
    /// Sets [`Spec::total`].
    #[must_use]
    pub const fn total(mut self, limit: Duration) -> Self {
        self.total = Some(limit);
        self
    }

    /// Sets [`Spec::attempt`].
    #[must_use]
    pub const fn attempt(mut self, limit: Duration) -> Self {
        self.attempt = Some(limit);
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid = |field, given: Duration, problem, remedy| {
            Err(Invalid::new("timeout", field, format!("{given:?}"), problem, remedy))
        };
        for (field, limit) in [("total", self.total), ("attempt", self.attempt)] {
            let Some(limit) = limit else { continue };
            if limit.is_zero() {
                let remedy = "give a time above zero, or leave it out";
                return invalid(field, limit, "every call would be over before it began", remedy);
            }
            if limit > LONGEST_LIMIT {
                return invalid(field, limit, "it is longer than a day", "check the unit");
            }
        }
        if let (Some(total), Some(attempt)) = (self.total, self.attempt)
            && attempt > total
        {
            let problem = "it is longer than `total`, which would end every try first";
            return invalid("attempt", attempt, problem, "lower it, or raise `total`");
        }
        Ok(Checked(self))
    }
}

/// Settings that have been through [`Spec::check`], or are the defaults. Cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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

    #[test]
    fn each_absurd_setting_is_refused_and_named() {
        let (none, nano, sec) = (Spec::default(), Duration::from_nanos(1), Duration::from_secs(1));
        let rows = [
            ("no time", none.total(Duration::ZERO), "total", "over before it began"),
            ("no time for a try", none.attempt(Duration::ZERO), "attempt", "over before it began"),
            ("a year", none.total(sec * 31_536_000), "total", "longer than a day"),
            ("endless", none.total(Duration::MAX), "total", "longer than a day"),
            ("an endless try", none.attempt(LONGEST_LIMIT + nano), "attempt", "longer than a day"),
            ("a try longer than all", none.total(sec).attempt(sec + nano), "attempt", "longer than `total`"),
        ];
        for (case, spec, field, words) in rows {
            let refused = spec.check().expect_err(case);
            assert_eq!(refused.field(), field, "{case}");
            let shown = refused.to_string();
            for part in [words, &format!("`{field}`"), "No policy was built"] {
                assert!(shown.contains(part), "{case}: {shown:?} does not say {part:?}");
            }
        }
        for spec in [none, none.total(nano).attempt(nano), none.total(LONGEST_LIMIT).attempt(LONGEST_LIMIT)] {
            assert!(spec.check().is_ok(), "{spec:?}");
        }
    }
}
