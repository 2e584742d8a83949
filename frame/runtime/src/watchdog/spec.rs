//! The settings of a watchdog.

use std::time::Duration;

use crate::setting::Invalid;

/// The shortest times it works with: below that, ordinary polls and the machine's own scheduling would be reported.
pub const SHORTEST: Duration = Duration::from_millis(1);
/// The longest times it works with; a larger figure is more likely a wrong unit than a wish.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);

/// What is too long, and how often it is looked. Each in the range [`SHORTEST`] to [`LONGEST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// A poll that runs for so long blocks its thread. Default 50 ms: a thousand times what a poll should take, and
    /// half of what a user notices.
    pub limit: Duration,
    /// The time between two looks at what is under way; at most `limit`. Default 20 ms: fifty looks a second of some
    /// loads each, while there is something to look at.
    pub look_every: Duration,
    /// The time between two questions to a runtime's heartbeat. Default 250 ms: an idle process wakes four times a
    /// second for it, and what blocks all threads for a quarter of a second is sure to be found.
    pub beat_every: Duration,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            limit: Duration::from_millis(50),
            look_every: Duration::from_millis(20),
            beat_every: Duration::from_millis(250),
        }
    }
}

impl Spec {
    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid = |field, given: Duration, problem| {
            Err(Invalid::new("watchdog", field, format!("{given:?}"), problem))
        };
        let Self { limit, look_every, beat_every } = self;
        for (field, given) in [("limit", limit), ("look_every", look_every), ("beat_every", beat_every)] {
            if given < SHORTEST {
                return invalid(field, given, "it is less than a millisecond, which ordinary polls take");
            }
            if given > LONGEST {
                return invalid(field, given, "it is longer than an hour; check the unit");
            }
        }
        if look_every > limit {
            return invalid("look_every", look_every, "it is longer than `limit`, which would be missed");
        }
        Ok(Checked(self))
    }
}

/// Settings that have been through [`Spec::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    fn the_default_passes_and_each_absurd_setting_is_named() {
        let good = Spec::default();
        assert!(good.check().is_ok());
        let (short, long) = (SHORTEST - Duration::from_nanos(1), LONGEST + Duration::from_nanos(1));
        for (spec, field) in [
            (Spec { limit: Duration::ZERO, ..good }, "limit"),
            (Spec { limit: long, ..good }, "limit"),
            (Spec { look_every: short, ..good }, "look_every"),
            (Spec { look_every: good.limit + SHORTEST, ..good }, "look_every"),
            (Spec { beat_every: short, ..good }, "beat_every"),
            (Spec { beat_every: Duration::MAX, ..good }, "beat_every"),
        ] {
            assert_eq!(spec.check().unwrap_err().field(), field, "{spec:?}");
        }
    }
}
