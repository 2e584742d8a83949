//! The settings of a supervisor, the same for each of its children.

use std::time::Duration;

use mainstay_resilience::retry;

/// No wait of a supervisor is longer. A start or a drain of more than an hour is more likely a wrong unit.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);

/// How children are started again, and how long each may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// The waits between starts of one child. Its `max_attempts` does not count here, `give_up_after` does; a
    /// `total` is refused. Default: full jitter, 100 ms to 5 s.
    pub restart: retry::Spec,
    /// A process that has not said by then that it is ready is killed, and started again. Range: above zero, up
    /// to [`LONGEST`]. Default 60 s: a large store has its log to look through.
    pub ready_within: Duration,
    /// A ready child that has said nothing for so long, neither ready nor unready, is shown red: it may be stopped,
    /// or too busy to look after itself. It is left alone, and green again with its next word. Children say where
    /// they stand again and again, some three times within it. Range: above zero, up to [`LONGEST`]. Default 10 s.
    pub heard_within: Duration,
    /// A process that was ready for so long begins with the first wait again when it ends. Range: up to
    /// [`LONGEST`]. Default 5 s, the longest default wait: what fails more often than that keeps growing.
    pub stable_after: Duration,
    /// So many processes in a row that end without being ready once, and the child is given up. One that was
    /// ready counts from the beginning, so what once worked is tried again for ever. Range: at least 1.
    /// Default 8: with the default waits some ten seconds.
    pub give_up_after: u32,
    /// How long a child may take to finish what it has begun, before it is killed. Range: above zero, up to
    /// [`LONGEST`]. Default 10 s.
    pub drain_within: Duration,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            restart: retry::Spec::full_jitter(Duration::from_millis(100), Duration::from_secs(5)),
            ready_within: Duration::from_secs(60),
            heard_within: Duration::from_secs(10),
            stable_after: Duration::from_secs(5),
            give_up_after: 8,
            drain_within: Duration::from_secs(10),
        }
    }
}

/// Settings that can't be meant. No child was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The waits between starts.
    #[error(transparent)]
    Restart(#[from] retry::Invalid),
    /// One of the others.
    #[error("supervisor setting `{field}` is {given}: {problem}. Nothing was started; give another value.")]
    Field {
        /// Its name in [`Spec`].
        field: &'static str,
        /// Its value.
        given: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Spec {
    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid = |field, given, problem| Err(Invalid::Field { field, given, problem });
        if self.restart.total.is_some() {
            let problem = "a child that lives longer than that would never be started again";
            return invalid("restart.total", format!("{:?}", self.restart.total), problem);
        }
        if self.give_up_after == 0 {
            return invalid(
                "give_up_after",
                "0".to_owned(),
                "it counts the first start, so none would be made",
            );
        }
        let waits = [
            ("ready_within", self.ready_within, "every child would be killed at once"),
            ("drain_within", self.drain_within, "every child would be killed at once"),
            ("heard_within", self.heard_within, "no child would ever be ready"),
        ];
        for (field, wait, problem) in waits {
            if wait.is_zero() {
                return invalid(field, format!("{wait:?}"), problem);
            }
        }
        let waits = waits.map(|(field, wait, _)| (field, wait));
        for (field, wait) in waits.into_iter().chain([("stable_after", self.stable_after)]) {
            if wait > LONGEST {
                return invalid(field, format!("{wait:?}"), "it is longer than an hour; check the unit");
            }
        }
        let restart = self.restart.max_attempts(u32::MAX).check()?;
        Ok(Checked { spec: self, restart })
    }
}

/// Settings that have been through [`Spec::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    spec: Spec,
    restart: retry::Checked,
}

impl Checked {
    /// The settings themselves.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(super) fn restart(&self) -> retry::Checked {
        self.restart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_each_absurd_setting_is_named() {
        let good = Spec::default();
        good.check().unwrap();
        let hour = LONGEST + Duration::from_nanos(1);
        let restart = retry::Spec { base: Duration::ZERO, ..good.restart };
        for (spec, words) in [
            (Spec { restart, ..good }, "`base`"),
            (Spec { restart: good.restart.total(Duration::from_secs(9)), ..good }, "`restart.total`"),
            (Spec { ready_within: Duration::ZERO, ..good }, "`ready_within` is 0ns"),
            (Spec { ready_within: hour, ..good }, "`ready_within`"),
            (Spec { drain_within: Duration::ZERO, ..good }, "`drain_within` is 0ns"),
            (Spec { drain_within: hour, ..good }, "`drain_within`"),
            (Spec { heard_within: Duration::ZERO, ..good }, "`heard_within` is 0ns"),
            (Spec { heard_within: hour, ..good }, "`heard_within`"),
            (Spec { stable_after: hour, ..good }, "`stable_after`"),
            (Spec { give_up_after: 0, ..good }, "`give_up_after` is 0"),
        ] {
            let refused = spec.check().unwrap_err().to_string();
            assert!(refused.contains(words), "{words}: {refused}");
        }
    }
}
