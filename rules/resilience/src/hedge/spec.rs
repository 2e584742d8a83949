//! The settings of a hedge: data, and the check that turns it into something that can be enforced.

use std::time::Duration;

use crate::invalid::Invalid;

/// The longest [`Spec::at_most`]; a larger figure is more likely a wrong unit than a wish.
pub const LONGEST_DELAY: Duration = Duration::from_secs(60 * 60);

/// When a second try is made beside the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spec {
    /// The share of calls that are answered before a second try: it is made once a call takes longer than this share
    /// of the recent ones did. Range: 0.5 to 0.999. Default 0.95: one call in twenty is asked twice.
    pub percentile: f64,
    /// No second try is made earlier. Range: up to `at_most`. Default 1 ms: below that, the second is no faster.
    pub at_least: Duration,
    /// The second try is made after this time at the latest, and always after this time until enough calls were
    /// measured. Range: above 0, up to [`LONGEST_DELAY`]. Default 1 s.
    pub at_most: Duration,
    /// Calls to be measured before the percentile is believed. Range: at least 1. Default 100: of fewer, the 95th
    /// percentile is a matter of five calls.
    pub minimum_calls: u32,
}

impl Default for Spec {
    fn default() -> Self {
        Spec::percentile(0.95)
    }
}

impl Spec {
    /// A second try once a call takes longer than this share of the recent ones did.
    pub const fn percentile(percentile: f64) -> Self {
        Spec {
            percentile,
            at_least: Duration::from_millis(1),
            at_most: Duration::from_secs(1),
            minimum_calls: 100,
        }
    }

    /// Sets [`Spec::at_least`] and [`Spec::at_most`].
    #[must_use]
    pub const fn between(mut self, at_least: Duration, at_most: Duration) -> Self {
        self.at_least = at_least;
        self.at_most = at_most;
        self
    }

    /// Sets [`Spec::minimum_calls`].
    #[must_use]
    pub const fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = calls;
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid =
            |field, given: String, problem, remedy| Err(Invalid::new("hedge", field, given, problem, remedy));
        // Also false for NaN.
        if !(0.5..=0.999).contains(&self.percentile) {
            let remedy = "give a share such as 0.95, not a percentage";
            return invalid(
                "percentile",
                self.percentile.to_string(),
                "it lies outside 0.5 to 0.999",
                remedy,
            );
        }
        if self.at_most.is_zero() {
            let problem = "every call would be made twice at once";
            return invalid("at_most", "0s".into(), problem, "give a time above zero, such as 1s");
        }
        if self.at_most > LONGEST_DELAY {
            let given = format!("{:?}", self.at_most);
            return invalid("at_most", given, "it is longer than an hour", "check the unit");
        }
        if self.at_least > self.at_most {
            let given = format!("{:?}", self.at_least);
            return invalid("at_least", given, "it is longer than `at_most`", "lower it, or raise `at_most`");
        }
        if self.minimum_calls == 0 {
            let problem = "a percentile needs a call to be taken of";
            return invalid("minimum_calls", "0".into(), problem, "give 1 or more");
        }
        Ok(Checked(self))
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

    #[test]
    fn each_absurd_setting_is_refused_and_named() {
        let (good, ms) = (Spec::default(), Duration::from_millis);
        let rows = [
            ("every other call", Spec::percentile(0.49), "percentile", "outside 0.5 to 0.999"),
            ("a percentage", Spec::percentile(95.0), "percentile", "not a percentage"),
            ("never", Spec::percentile(1.0), "percentile", "outside"),
            ("no number", Spec::percentile(f64::NAN), "percentile", "NaN"),
            ("at once", good.between(Duration::ZERO, Duration::ZERO), "at_most", "made twice at once"),
            ("endless", good.between(ms(1), Duration::MAX), "at_most", "longer than an hour"),
            ("least above most", good.between(ms(11), ms(10)), "at_least", "longer than `at_most`"),
            ("no minimum", good.minimum_calls(0), "minimum_calls", "needs a call"),
        ];
        for (case, spec, field, words) in rows {
            let refused = spec.check().expect_err(case);
            assert_eq!(refused.field(), field, "{case}");
            let shown = refused.to_string();
            for part in [words, &format!("`{field}`"), "No policy was built"] {
                assert!(shown.contains(part), "{case}: {shown:?} does not say {part:?}");
            }
        }
        for spec in [good, Spec::percentile(0.5), Spec::percentile(0.999).between(ms(10), ms(10))] {
            assert!(spec.check().is_ok(), "{spec:?}");
        }
    }
}
