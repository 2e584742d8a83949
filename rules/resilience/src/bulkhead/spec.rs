//! The settings of a bulkhead: data, and the check that turns it into something that can be enforced.

use std::time::Duration;

use crate::invalid::Invalid;

/// The most permits. More calls under way at a time are a limit for nobody.
pub const MOST_PERMITS: u32 = 1_000_000;
/// The longest queue. Whoever stands behind 65,536 others is better told so.
pub const LONGEST_QUEUE: u32 = 65_536;
/// The longest wait in the queue; a larger figure is more likely a wrong unit than a wish.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// The most threads of a blocking pool.
pub const MOST_THREADS: u32 = 1_024;

/// How much may be under way at one callee, and how much may wait for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Calls under way at a time. Range: 1 to [`MOST_PERMITS`]. No default: it is the callee's capacity (what it
    /// serves per second times how long a call takes), which only its user knows.
    pub permits: u32,
    /// Calls that may wait for a permit, first come first served. Range: 0 to [`LONGEST_QUEUE`]. Default 0: refusing at
    /// once is what keeps a slow callee from holding up the rest.
    pub queue: u32,
    /// How long one may wait; the call's deadline ends the wait, too. Range: above 0, up to [`LONGEST_WAIT`].
    /// Default 1 s: longer than that, a waiting user has left.
    pub wait: Duration,
}

impl Spec {
    /// So many at a time, no queue.
    pub const fn permits(permits: u32) -> Self {
        Spec { permits, queue: 0, wait: Duration::from_secs(1) }
    }

    /// Sets [`Spec::queue`].
    #[must_use]
    pub const fn queue(mut self, capacity: u32) -> Self {
        self.queue = capacity;
        self
    }

    /// Sets [`Spec::wait`].
    #[must_use]
    pub const fn wait(mut self, at_most: Duration) -> Self {
        self.wait = at_most;
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid = |field, given: String, problem, remedy| {
            Err(Invalid::new("bulkhead", field, given, problem, remedy))
        };
        if self.permits == 0 || self.permits > MOST_PERMITS {
            let problem = "it lies outside 1 to 1,000,000";
            let remedy = "give the number of calls that the callee bears at a time";
            return invalid("permits", self.permits.to_string(), problem, remedy);
        }
        if self.queue > LONGEST_QUEUE {
            let problem = "it is longer than 65,536";
            return invalid("queue", self.queue.to_string(), problem, "give a shorter queue, or 0 for none");
        }
        if self.wait.is_zero() {
            let remedy = "give a time above zero, or a `queue` of 0 for no waiting";
            return invalid("wait", "0s".into(), "nobody could ever wait", remedy);
        }
        if self.wait > LONGEST_WAIT {
            let problem = "it is longer than an hour";
            return invalid("wait", format!("{:?}", self.wait), problem, "check the unit");
        }
        Ok(Checked(self))
    }
}

/// Settings that have been through [`Spec::check`]. Cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checked(Spec);

impl Checked {
    /// The settings themselves.
    pub const fn spec(&self) -> &Spec {
        &self.0
    }
}

/// Threads for one callee's blocking work, and how much of it may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockingSpec {
    /// Threads, started when they are first needed. Range: 1 to [`MOST_THREADS`].
    pub threads: u32,
    /// Work that may wait for a thread. Range: 0 to [`LONGEST_QUEUE`].
    pub queue: u32,
}

impl BlockingSpec {
    /// So many threads, no queue.
    pub const fn threads(threads: u32) -> Self {
        BlockingSpec { threads, queue: 0 }
    }

    /// Sets [`BlockingSpec::queue`].
    #[must_use]
    pub const fn queue(mut self, capacity: u32) -> Self {
        self.queue = capacity;
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<BlockingChecked, Invalid> {
        let invalid = |field, given: String, problem, remedy| {
            Err(Invalid::new("bulkhead", field, given, problem, remedy))
        };
        if self.threads == 0 || self.threads > MOST_THREADS {
            let problem = "it lies outside 1 to 1,024";
            return invalid(
                "threads",
                self.threads.to_string(),
                problem,
                "give as many as the callee bears calls",
            );
        }
        if self.queue > LONGEST_QUEUE {
            let problem = "it is longer than 65,536";
            return invalid("queue", self.queue.to_string(), problem, "give a shorter queue, or 0 for none");
        }
        Ok(BlockingChecked(self))
    }
}

/// Settings that have been through [`BlockingSpec::check`]. Cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockingChecked(BlockingSpec);

impl BlockingChecked {
    /// The settings themselves.
    pub const fn spec(&self) -> &BlockingSpec {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_absurd_setting_is_refused_and_named() {
        let good = Spec::permits(8);
        let nano = Duration::from_nanos(1);
        let rows = [
            ("no permit", Spec::permits(0).check().map(drop), "permits", "outside 1 to 1,000,000"),
            ("too many", Spec::permits(MOST_PERMITS + 1).check().map(drop), "permits", "outside"),
            ("huge queue", good.queue(LONGEST_QUEUE + 1).check().map(drop), "queue", "longer than 65,536"),
            ("no wait", good.wait(Duration::ZERO).check().map(drop), "wait", "nobody could ever wait"),
            ("long wait", good.wait(LONGEST_WAIT + nano).check().map(drop), "wait", "longer than an hour"),
            ("endless wait", good.wait(Duration::MAX).check().map(drop), "wait", "longer than an hour"),
            ("no thread", BlockingSpec::threads(0).check().map(drop), "threads", "outside 1 to 1,024"),
            (
                "too many threads",
                BlockingSpec::threads(MOST_THREADS + 1).check().map(drop),
                "threads",
                "outside",
            ),
            (
                "huge blocking queue",
                BlockingSpec::threads(1).queue(LONGEST_QUEUE + 1).check().map(drop),
                "queue",
                "longer than 65,536",
            ),
        ];
        for (case, checked, field, words) in rows {
            let refused = checked.expect_err(case);
            assert_eq!(refused.field(), field, "{case}");
            let shown = refused.to_string();
            for part in [words, &format!("`{field}`"), "No policy was built"] {
                assert!(shown.contains(part), "{case}: {shown:?} does not say {part:?}");
            }
        }
        assert!(Spec::permits(MOST_PERMITS).queue(LONGEST_QUEUE).wait(LONGEST_WAIT).check().is_ok());
        assert!(Spec::permits(1).wait(nano).check().is_ok());
        assert!(BlockingSpec::threads(MOST_THREADS).queue(LONGEST_QUEUE).check().is_ok());
    }
}
