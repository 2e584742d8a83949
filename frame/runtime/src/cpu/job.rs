//! A piece of work: how it is told to stop, and how it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Told to work that was begun: whether anybody still waits for it. A clone is another handle on the same.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

/// Nobody waits for the work any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody waits for this work any more: its caller left, or its deadline came")]
pub struct Cancelled;

impl Cancellation {
    /// Whether the caller left or its deadline came. To be asked now and then, some thousand times a second at
    /// most; nothing stops work that does not ask. Cost: one load.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The same, for the `?` operator.
    ///
    /// # Errors
    /// [`Cancelled`] when nobody waits any more.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    pub(super) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Why there is no result. [`began`](Self::began) tells whether the work may have had effects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// As much waits as may: more is asked of this machine than it can compute.
    #[error(
        "{job:?} was refused: all threads of the CPU pool are at work and its queue of {capacity} is full. It was not \
         begun; ask again later, ask less, or give it more cores"
    )]
    QueueFull {
        /// Which.
        job: &'static str,
        /// As configured.
        capacity: u32,
    },
    /// It would not have been done in time: by far too little time was given, or too much waits.
    #[error(
        "{job:?} was refused: {remaining:?} are left until its deadline, and it would wait some {wait:?} and then take \
         {run:?}. It was not begun; give it more time, or ask less"
    )]
    TooLate {
        /// Which.
        job: &'static str,
        /// What was left.
        remaining: Duration,
        /// What it would have waited, as far as can be foreseen.
        wait: Duration,
        /// What it would have taken, as far as can be foreseen.
        run: Duration,
    },
    /// Its deadline was reached before its turn.
    #[error(
        "the deadline of {job:?} was reached before its turn in the CPU pool. It was not begun; give it more time, \
         or find what used it up"
    )]
    DeadlineReached {
        /// Which.
        job: &'static str,
    },
    /// Its deadline came while it ran. It was told to stop and may run on; its result is thrown away.
    #[error(
        "the deadline of {job:?} came while it ran in the CPU pool. It was told to stop, and its result is not waited \
         for; give it more time, or make it less work"
    )]
    DeadlineRanOut {
        /// Which.
        job: &'static str,
    },
    /// The work panicked: its own fault. The thread goes on with other work.
    #[error("{job:?} panicked in the CPU pool: {message}. What it had done by then stands; the pool goes on")]
    Panicked {
        /// Which.
        job: &'static str,
        /// What it said, if that was text.
        message: String,
    },
    /// The pool was shut down.
    #[error("{job:?} was not begun: the CPU pool is shut down, and nothing runs in it any more")]
    Closed {
        /// Which.
        job: &'static str,
    },
}

impl Failed {
    /// Whether the work was begun, so that it may have had effects.
    pub const fn began(&self) -> bool {
        matches!(self, Self::DeadlineRanOut { .. } | Self::Panicked { .. })
    }
}
