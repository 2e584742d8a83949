//! How often, and from how many rows on, partitions are folded and truncated.

use std::time::Duration;

/// The background's settings.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Between two looks. Default 5 s.
    pub every: Duration,
    /// A partition with fewer rows of marks is left alone until `fold_after`. Default 1,000: truncating costs the
    /// server a few milliseconds, however few rows there are.
    pub fold_rows: u32,
    /// After this time a partition is folded, however few rows it has. Default 60 s.
    pub fold_after: Duration,
    /// The outbox goes on to its next partition, if that is empty, after this time. Default 60 s.
    pub turn_after: Duration,
    /// How long to wait for a partition's lock; others wait behind us meanwhile. Default 50 ms.
    pub lock_wait: Duration,
    /// Marks that are folded in one transaction. Default 10,000.
    pub rows_max: u32,
    /// Statements stay prepared on their connection. False behind a pooler in transaction mode.
    pub prepared: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            fold_rows: 1_000,
            fold_after: Duration::from_secs(60),
            turn_after: Duration::from_secs(60),
            lock_wait: Duration::from_millis(50),
            rows_max: 10_000,
            prepared: true,
        }
    }
}
