//! What a watchdog tells.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::thread::{Doing, Thread};

/// Something stood still. The times are right to one look at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A task blocks its thread, now.
    Blocks {
        /// Its name.
        task: Arc<str>,
        /// The thread it blocks.
        thread: Thread,
        /// For how long already.
        lasts: Duration,
        /// What the thread does.
        doing: Doing,
    },
    /// The poll of which that was told is over.
    Ended {
        /// The task's name.
        task: Arc<str>,
        /// The thread it blocked.
        thread: Thread,
        /// For how long, in all.
        lasted: Duration,
    },
    /// A runtime does not come to its tasks, now: all of its threads are blocked, or none runs it.
    Silent {
        /// Its name.
        runtime: Arc<str>,
        /// For how long already.
        lasts: Duration,
        /// The threads that have answered for it, and what each does; at most 64.
        threads: Vec<(Thread, Doing)>,
    },
    /// The runtime of which that was told goes on.
    Beats {
        /// Its name.
        runtime: Arc<str>,
        /// For how long it was silent.
        lasted: Duration,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks { task, thread, lasts, doing } => write!(
                f,
                "task {task:?} has blocked {thread} for {lasts:?} and still does: {doing}. Nothing else runs on that \
                 thread meanwhile; let it compute in a CPU pool, or block in a pool of threads"
            ),
            Self::Ended { task, thread, lasted } => {
                write!(f, "task {task:?} has blocked {thread} for {lasted:?}; it goes on")
            }
            Self::Silent { runtime, lasts, threads } => {
                write!(
                    f,
                    "runtime {runtime:?} has not come to its tasks for {lasts:?}: a task without a name blocks it, or \
                     nobody runs it. Spawn tasks through the watchdog to have them named"
                )?;
                for (thread, doing) in threads {
                    write!(f, "; {thread}: {doing}")?;
                }
                Ok(())
            }
            Self::Beats { runtime, lasted } => {
                write!(f, "runtime {runtime:?} goes on, after {lasted:?}")
            }
        }
    }
}

/// A watchdog in figures, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Looks: the watchdog's own cost.
    pub looks: u64,
    /// Tasks that live and are watched.
    pub tasks: u64,
    /// Polls that were told of as blocking.
    pub blocked: u64,
    /// Times a runtime was told of as silent.
    pub silences: u64,
    /// The longest of both that is over.
    pub longest: Duration,
}
