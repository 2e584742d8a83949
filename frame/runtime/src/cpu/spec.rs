//! The settings of a CPU pool.

use crate::setting::Invalid;

/// The most threads. More than cores help nobody here; the largest machines have some hundreds.
pub const MOST_THREADS: u32 = 1_024;
/// The longest queue. Work behind 65,536 others is better told so.
pub const LONGEST_QUEUE: u32 = 65_536;

/// Pieces of work that wait for each thread, by default.
const QUEUE_A_THREAD: u32 = 8;

/// How much is computed at a time, and how much may wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Threads, all started with the pool. Range: 1 to [`MOST_THREADS`]. Default: the cores this process may use
    /// (one, if the system does not say), because one more thread makes each piece of work slower and none sooner.
    pub threads: u32,
    /// Work that may wait for a thread, first come, first served. Range: 0 to [`LONGEST_QUEUE`]. Default: 8 for each
    /// thread, so that the last one waits about as long as eight pieces of work take.
    pub queue: u32,
}

impl Default for Spec {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Self::threads(u32::try_from(cores).unwrap_or(MOST_THREADS).min(MOST_THREADS))
    }
}

impl Spec {
    /// So many threads, and the default queue for them.
    pub const fn threads(threads: u32) -> Self {
        Self { threads, queue: threads.saturating_mul(QUEUE_A_THREAD) }
    }

    /// Sets [`Spec::queue`].
    #[must_use]
    pub const fn queue(mut self, capacity: u32) -> Self {
        self.queue = capacity;
        self
    }

    /// Refuses settings that can't mean what they say.
    ///
    /// # Errors
    /// [`Invalid`] names the first field out of its range.
    pub fn check(self) -> Result<Checked, Invalid> {
        let invalid =
            |field, given: u32, problem| Err(Invalid::new("CPU pool", field, given.to_string(), problem));
        match self {
            Self { threads: 0, .. } => invalid("threads", 0, "no work could ever run"),
            Self { threads, .. } if threads > MOST_THREADS => {
                invalid("threads", threads, "it is more than 1,024; give as many as there are cores")
            }
            Self { queue, .. } if queue > LONGEST_QUEUE => {
                invalid("queue", queue, "it is longer than 65,536; whoever waits there waits for nothing")
            }
            spec => Ok(Checked(spec)),
        }
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
        assert!(Spec::default().check().is_ok());
        assert!(Spec::threads(MOST_THREADS).queue(LONGEST_QUEUE).check().is_ok());
        assert!(Spec::threads(1).queue(0).check().is_ok());
        for (spec, field) in [
            (Spec::threads(0), "threads"),
            (Spec::threads(MOST_THREADS + 1), "threads"),
            (Spec::threads(u32::MAX), "threads"),
            (Spec::threads(1).queue(LONGEST_QUEUE + 1), "queue"),
        ] {
            let refused = spec.check().unwrap_err();
            assert_eq!(refused.field(), field, "{refused}");
            assert!(refused.to_string().contains("Nothing was started"), "{refused}");
        }
    }
}
