//! What a service has done since it was started: counters that cost an atomic addition.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one service.
#[derive(Debug, Default)]
pub struct Stats {
    requests: AtomicU64,
    commits: AtomicU64,
    reactions: AtomicU64,
    failures: AtomicU64,
    waiting: AtomicU64,
}

/// A request that waits; it is counted until this is dropped.
#[derive(Debug)]
pub struct Waits<'a>(&'a AtomicU64);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stats {
    /// A request has come.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A request's transaction was acknowledged.
    pub fn commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered with a fault of ours.
    pub fn failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests answered with a fault of ours (500); operators were told the causes of some each second.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// A message's effect was worked out.
    pub fn reaction(&self) {
        self.reactions.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages whose effect was worked out; one that is worked out again counts again.
    pub fn reactions(&self) -> u64 {
        self.reactions.load(Ordering::Relaxed)
    }

    /// A request begins to wait for what it asks about.
    pub fn waits(&self) -> Waits<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waits(&self.waiting)
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Requests that have come.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Transactions of requests that were acknowledged.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}
