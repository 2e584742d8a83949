//! What the writer did, for benchmarks and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Groups committed so far, by size.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    commits: AtomicU64,
    jobs: AtomicU64,
    events: AtomicU64,
    sizes: [AtomicU64; 16],
}

/// How acts were grouped since the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Commits.
    pub commits: u64,
    /// Acts and transactions in them.
    pub jobs: u64,
    /// Events in them.
    pub events: u64,
    /// Commits of 1, 2 to 3, 4 to 7, … jobs.
    pub sizes: [u64; 16],
}

impl Groups {
    pub(crate) fn note(&self, jobs: usize, events: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.jobs.fetch_add(jobs as u64, Ordering::Relaxed);
        self.events.fetch_add(events, Ordering::Relaxed);
        let class = (jobs.max(1).ilog2() as usize).min(self.sizes.len() - 1);
        self.sizes[class].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    pub(crate) fn read(&self) -> GroupCounts {
        GroupCounts {
            commits: self.commits.load(Ordering::Relaxed),
            jobs: self.jobs.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            sizes: std::array::from_fn(|i| self.sizes[i].load(Ordering::Relaxed)),
        }
    }
}
