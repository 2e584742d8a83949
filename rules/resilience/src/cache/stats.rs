//! What a cache has done, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a cache is doing. Counts are since it was made, each exact by itself; read one after the other, so that sums
/// of them may be a few off while it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Entries kept: values, absences, remembered failures.
    pub entries: u64,
    /// What they cost (see [`Builder::weigh`](super::Builder::weigh)); without a weigher, as many as there are.
    pub cost: u64,
    /// Answers from a fresh entry.
    pub hits: u64,
    /// Answers from a stale one, while it was loaded anew or in place of an error.
    pub stale: u64,
    /// Questions for which nothing usable was kept.
    pub misses: u64,
    /// Of those, that joined a load which was under way already.
    pub joined: u64,
    /// Loads begun, in the background or for somebody.
    pub loads: u64,
    /// Of those, begun early or to revalidate, while what was kept was served.
    pub refreshes: u64,
    /// Of those, begun early: while what was kept was still fresh.
    pub early_refreshes: u64,
    /// Loads that ended with an error of the source.
    pub failed: u64,
    /// Leaders that panicked, were cancelled, or were out of time.
    pub died: u64,
    /// Loads that another waiter took over from a dead leader.
    pub handed_over: u64,
    /// Loads whose result was not kept, because the key was written or invalidated while they were under way.
    pub superseded: u64,
    /// Questions that were refused: no time left, too many loads or waiters, a load that died.
    pub refused: u64,
    /// Entries that made room for others.
    pub evictions: u64,
    /// Loads under way.
    pub loading: u64,
    /// Callers that wait for them.
    pub waiting: u64,
}

/// The counters behind it. Hits are counted by the storage, whose shard is at hand anyway.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// What the storage found and was of no use, or was served stale.
    pub(super) found_unfresh: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) joined: AtomicU64,
    pub(super) loads: AtomicU64,
    pub(super) refreshes: AtomicU64,
    pub(super) early: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) died: AtomicU64,
    pub(super) handed_over: AtomicU64,
    pub(super) superseded: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// What the storage knows.
pub(super) struct Stored {
    /// Look-ups that found something.
    pub(super) found: u64,
    pub(super) evicted: u64,
    pub(super) entries: u64,
    pub(super) cost: u64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// All of it, with what the storage knows.
    pub(super) fn snapshot(&self, stored: Stored, loading: u64, waiting: u64) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            entries: stored.entries,
            cost: stored.cost,
            evictions: stored.evicted,
            hits: stored.found.saturating_sub(read(&self.found_unfresh)),
            stale: read(&self.stale),
            misses: read(&self.misses),
            joined: read(&self.joined),
            loads: read(&self.loads),
            refreshes: read(&self.refreshes),
            early_refreshes: read(&self.early),
            failed: read(&self.failed),
            died: read(&self.died),
            handed_over: read(&self.handed_over),
            superseded: read(&self.superseded),
            refused: read(&self.refused),
            loading,
            waiting,
        }
    }
}
