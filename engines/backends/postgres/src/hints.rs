//! Who wakes whom in this process. Everything here is a hint: a lost one costs the time to the next slow look.

use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How far the feed and the outbox are known to have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The feed's last position.
    pub(crate) position: u64,
    /// The outbox's last number.
    pub(crate) outbox: u64,
}

/// The bells of one store handle, shared by its writers, its sequencer, its listener and its readers.
#[derive(Debug)]
pub(crate) struct Hints {
    /// For the sequencer: rows were committed.
    rows: Notify,
    /// For whoever tells other processes: rows were committed here.
    told: Notify,
    /// For readers: rows have their places.
    ends: watch::Sender<Ends>,
}

impl Default for Hints {
    fn default() -> Self {
        Self { rows: Notify::new(), told: Notify::new(), ends: watch::Sender::new(Ends::default()) }
    }
}

impl Hints {
    /// Rows without a place were committed by this process.
    pub(crate) fn committed(&self) {
        self.rows.notify_one();
        self.told.notify_one();
    }

    /// Another process says that it committed rows.
    pub(crate) fn committed_elsewhere(&self) {
        self.rows.notify_one();
    }

    /// For the sequencer: returns when rows may have been committed, also when that was before the call; or when
    /// `at_most` is over. For one waiter.
    pub(crate) async fn wait_committed(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.rows.notified()).await;
    }

    /// For whoever tells other processes, as [`Hints::wait_committed`].
    pub(crate) async fn wait_to_tell(&self) {
        self.told.notified().await;
    }

    /// Feed and outbox have come so far. Never takes anything back.
    pub(crate) fn sequenced(&self, ends: Ends) {
        self.ends.send_if_modified(|known| {
            let grown =
                Ends { position: known.position.max(ends.position), outbox: known.outbox.max(ends.outbox) };
            let changed = grown != *known;
            *known = grown;
            changed
        });
    }

    /// What is known now.
    pub(crate) fn ends(&self) -> Ends {
        *self.ends.borrow()
    }

    /// Waits until the ends are like this, or until `at_most` is over; was it met?
    pub(crate) async fn wait(&self, at_most: Duration, reached: impl Fn(&Ends) -> bool) -> bool {
        let mut ends = self.ends.subscribe();
        let met = ends.wait_for(reached);
        matches!(tokio::time::timeout(at_most, met).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn a_hint_given_before_the_wait_is_not_lost() {
        let hints = Hints::default();
        hints.committed();
        hints.wait_committed(LONG).await;
        hints.wait_to_tell().await;
        hints.sequenced(Ends { position: 7, outbox: 2 });
        assert!(hints.wait(LONG, |ends| ends.position > 6).await);
        hints.sequenced(Ends { position: 3, outbox: 5 });
        assert_eq!(hints.ends(), Ends { position: 7, outbox: 5 });
        assert!(!hints.wait(Duration::from_millis(1), |ends| ends.outbox > 5).await);
    }
}
