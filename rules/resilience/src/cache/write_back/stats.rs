//! What a write-back cache has written, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How the writes of a write-back cache are doing. Counts are since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WriteBackStats {
    /// Keys that are written, or being written, and not settled: what the source still has to get.
    pub pending: u64,
    /// How long the oldest of them has waited since it was acknowledged; of what a killed process left, since it was
    /// opened. Zero if nothing waits. It grows while the source takes nothing.
    pub oldest: Duration,
    /// Writes that the journal acknowledged.
    pub acknowledged: u64,
    /// Writes that are in the source and settled; of several of one key between two rounds only the last.
    pub flushed: u64,
    /// Flushes that failed, each to be tried again.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) acknowledged: AtomicU64,
    flushed: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    pub(super) fn flushed(&self, writes: usize) {
        self.flushed.fetch_add(writes as u64, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, flushes: usize) {
        self.failed.fetch_add(flushes as u64, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, pending: usize, oldest: Duration) -> WriteBackStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriteBackStats {
            pending: pending as u64,
            oldest,
            acknowledged: read(&self.acknowledged),
            flushed: read(&self.flushed),
            failed: read(&self.failed),
        }
    }
}
