//! Removing rows that were sent long ago: beside the publishing, never on its way.

use mainstay_envelope::{Context, Timestamp};
use mainstay_event_store::{Store, Tx};
use mainstay_messaging::Log;

use super::change::change;
use super::error::RelayError;
use super::relay::{Relay, Running};

/// How many rows are removed at once: so many, or twice what was published since, but not more than ten thousand, so
/// that publishing does not wait for long.
const PRUNE_MAX: usize = 500;
const PRUNE_ROUNDS_MAX: u64 = 20;

impl<S: Store, L: Log> Relay<S, L> {
    /// Removes old rows, at least twice as many as were published since it was called last, so that a busy relay's
    /// table does not grow for ever; are there more?
    pub async fn prune_some(&self, cx: &Context, running: &mut Running) -> Result<bool, RelayError> {
        let published = running.published - std::mem::replace(&mut running.pruned_at, running.published);
        let rounds = (2 * published).div_ceil(PRUNE_MAX as u64).clamp(1, PRUNE_ROUNDS_MAX);
        for _ in 0..rounds {
            if !self.prune(cx).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes sent rows that are older than the retention, some at once; are there more?
    pub async fn prune(&self, cx: &Context) -> Result<bool, RelayError> {
        let keep = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(cx.wall().as_millis().saturating_sub(keep));
        match change(&self.store, cx, move |tx| tx.outbox_prune(before, PRUNE_MAX)).await {
            Ok(more) => Ok(more),
            Err(error) if error.is_passing() => {
                (self.on_trouble)(&error.to_string());
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}
