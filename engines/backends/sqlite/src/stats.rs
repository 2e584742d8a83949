//! What the writer did, for benchmarks and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sizes counted one by one; larger groups are counted with the largest of these.
const SIZES: usize = 1_025;

/// Groups committed so far, by size.
#[derive(Debug)]
pub(crate) struct Groups {
    events: AtomicU64,
    sizes: Box<[AtomicU64; SIZES]>,
}

/// How acts were grouped since the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Events committed.
    pub events: u64,
    /// For each group size, in acts and transactions, how many commits had it; sizes that never came are left out.
    pub sizes: Vec<(usize, u64)>,
}

impl GroupCounts {
    /// What came since an earlier reading of the same store.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |size| earlier.sizes.iter().find(|(known, _)| *known == size).map_or(0, |(_, n)| *n);
        let sizes = self.sizes.iter().map(|(size, commits)| (*size, commits - before(*size)));
        Self {
            events: self.events - earlier.events,
            sizes: sizes.filter(|(_, commits)| *commits > 0).collect(),
        }
    }

    /// Commits.
    pub fn commits(&self) -> u64 {
        self.sizes.iter().map(|(_, commits)| commits).sum()
    }
}

impl Default for Groups {
    fn default() -> Self {
        Self { events: AtomicU64::new(0), sizes: Box::new([const { AtomicU64::new(0) }; SIZES]) }
    }
}

impl Groups {
    pub(crate) fn note(&self, jobs: usize, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.sizes[jobs.min(SIZES - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    pub(crate) fn read(&self) -> GroupCounts {
        let sizes = self.sizes.iter().map(|commits| commits.load(Ordering::Relaxed)).enumerate();
        GroupCounts {
            events: self.events.load(Ordering::Relaxed),
            sizes: sizes.filter(|(_, commits)| *commits > 0).collect(),
        }
    }
}
