//! The journal of a write-back cache, over any store: what was acknowledged and not yet flushed is a row.
//!
//! ```text
//!   append(k, a) ─► Tx{ fence, row k = (version 1, a) } ─► on disk ─► acknowledged
//!   append(k, b) ─► Tx{ fence, row k = (version 2, b) }                   one row a key: the latest
//!   pending()    ─► rows, by the index of their versions
//!   settle(k, 2) ─► Tx{ fence, row k is still version 2 ─► deleted }
//! ```
//! Rows of a portable view and no stream: only the latest intent of a key counts, so the journal is as large as what is
//! pending and has no history to clean up.
//!
//! **Versions** are (epoch, number). Each opening takes the journal's lease and with it the next epoch; numbers are
//! counted in memory. So they grow over restarts with nothing written for them, and all keys together need no shared row.
//!
//! **One holder.** Whoever opens the journal last holds it. Every transaction of a holder names its epoch, so the writes
//! of one that was followed are refused ([`Refusal::Fenced`]), also when it only slept.
//!
//! Promises, each with its test in `tests/flow/journal.rs`, and on a SQLite file with processes that are killed in
//! `tests/write_back.rs` of the root package.

mod error;
mod row;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, AppendError, ConsumerName, IndexValue, Leased, Refusal, Retry, Scan, ScanBy, Store, TransactError,
    Tx, ViewName,
};
use mainstay_resilience::cache::{Intent, Journal, Version};
use mainstay_resilience::retry::{Checked, Spec};

pub use error::JournalError;

use crate::pace::Pace;

/// Bits of a version that count the writes of one epoch: a million million of them.
const NUMBER_BITS: u32 = 40;

/// The index by which rows are found in the order of their versions.
const BY_VERSION: &str = "version";

/// A [`Journal`] in a store. See the module's page.
pub struct StoreJournal<S> {
    store: S,
    view: ViewName,
    lease: ConsumerName,
    epoch: u64,
    /// Writes numbered in this epoch.
    numbered: AtomicU64,
    settings: Checked,
}

impl<S: fmt::Debug> fmt::Debug for StoreJournal<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StoreJournal");
        shown.field("store", &self.store).field("view", &self.view).field("epoch", &self.epoch).finish()
    }
}

impl<S: Store> StoreJournal<S> {
    /// Opens the journal of this name, at most 100 bytes, and follows whoever held it: their later writes are refused.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was changed, except that the former holder may be fenced already.
    pub async fn open(cx: &Context, store: S, name: &str) -> Result<Self, JournalError> {
        let view = ViewName::new(format!("mainstay.journal.{name}")).map_err(Refusal::from)?;
        let lease = ConsumerName::new(view.as_str()).map_err(Refusal::from)?;
        // Nobody else has it, so the lease is never taken for a renewal of a former one's.
        let holder = cx.new_id().to_string();
        let settings = Spec::full_jitter(Duration::from_millis(5), Duration::from_millis(500))
            .max_attempts(12)
            .check()
            .unwrap_or_default();
        let named = lease.clone();
        let epoch = run(&store, cx, settings, move |tx| follow(tx, &named, &holder)).await?;
        if epoch >= 1 << (63 - NUMBER_BITS) {
            return Err(JournalError::Exhausted { epoch });
        }
        Ok(Self { store, view, lease, epoch, numbered: AtomicU64::new(0), settings })
    }

    /// The next version of this epoch.
    fn next(&self) -> Result<Version, JournalError> {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed) + 1;
        match number >> NUMBER_BITS {
            0 => Ok(Version(self.epoch << NUMBER_BITS | number)),
            _ => Err(JournalError::Exhausted { epoch: self.epoch }),
        }
    }
}

/// Takes the lease, whoever has it; the epoch. It is never held for any time: that somebody follows is what fences.
fn follow<T: Tx>(tx: &T, lease: &ConsumerName, holder: &str) -> Result<u64, Refusal> {
    let taken = match tx.acquire_lease(lease, holder, Duration::ZERO)? {
        Leased::Held(held) => return Ok(held.epoch),
        // The wall clock went back since it was taken.
        Leased::Taken(taken) => taken,
    };
    tx.release_lease(lease, taken.epoch)?;
    match tx.acquire_lease(lease, holder, Duration::ZERO)? {
        Leased::Held(held) => Ok(held.epoch),
        Leased::Taken(_) => Err(Refusal::Busy { why: format!("the lease {lease} was not given back") }),
    }
}

/// One transaction that may be run any number of times, until the context's deadline. Its outcome is known at the end,
/// unless the store can't be reached for so long.
async fn run<S, T, F>(store: &S, cx: &Context, settings: Checked, closure: F) -> Result<T, JournalError>
where
    S: Store,
    T: Send + 'static,
    F: Fn(&S::Tx) -> Result<T, Refusal> + Clone + Send + 'static,
{
    let mut pace = Pace::new(cx, settings);
    let mut unknown = None;
    loop {
        let closure = closure.clone();
        let ended = store
            .transact(cx, move |tx| closure(tx).map_err(Abort::<std::convert::Infallible>::Refused))
            .await;
        let error = match ended {
            Ok(done) => return Ok(done.value),
            Err(TransactError::User(never)) => match never {},
            Err(TransactError::Store(error)) => error,
        };
        let again = match &error {
            AppendError::Refused(refusal) => refusal.retry() == Retry::Later,
            AppendError::Unknown { why } => {
                unknown = Some(why.clone());
                true
            }
        };
        if !again || pace.again(cx).await.is_err() {
            // Once a run ended unknown, a later refusal can't say any more that nothing was written.
            return Err(match (unknown, error) {
                (Some(why), _) | (None, AppendError::Unknown { why }) => JournalError::Unknown { why },
                (None, AppendError::Refused(refusal)) => JournalError::Refused(refusal),
            });
        }
    }
}

impl<S: Store> Journal for StoreJournal<S> {
    type Error = JournalError;

    async fn append(&self, cx: &Context, key: &str, value: Option<&[u8]>) -> Result<Version, JournalError> {
        let version = self.next()?;
        let row = row::encode(key, version, value);
        row.check().map_err(JournalError::Refused)?;
        let (view, lease, epoch) = (self.view.clone(), self.lease.clone(), self.epoch);
        run(&self.store, cx, self.settings, move |tx| {
            tx.fence(&lease, epoch)?;
            // Of two writes at a time the later version may have committed first; it stays.
            let present = tx.view_get(&view, &row.key)?;
            if present.and_then(|bytes| row::version(&bytes)).is_none_or(|present| present <= version) {
                tx.view_put(&view, &row)?;
            }
            Ok(())
        })
        .await?;
        Ok(version)
    }

    async fn pending(&self, after: Version, max: usize) -> Result<Vec<Intent>, JournalError> {
        let least = i64::try_from(after.0.saturating_add(1)).unwrap_or(i64::MAX);
        let (from, to) = (IndexValue::Integer(least), IndexValue::Integer(i64::MAX));
        let by = ScanBy::Index { index: BY_VERSION, from, to };
        let scan = Scan { view: self.view.clone(), by, after: None, rows_max: max };
        let rows = self.store.view_scan(&scan).await.map_err(JournalError::Read)?;
        rows.rows.into_iter().map(|(key, bytes)| row::decode(key, &bytes)).collect()
    }

    async fn settle(&self, cx: &Context, settled: &[(String, Version)]) -> Result<(), JournalError> {
        let (view, lease, epoch) = (self.view.clone(), self.lease.clone(), self.epoch);
        let settled = std::sync::Arc::<[_]>::from(settled);
        run(&self.store, cx, self.settings, move |tx| {
            tx.fence(&lease, epoch)?;
            for (key, version) in settled.iter() {
                let present = tx.view_get(&view, key)?;
                if present.and_then(|bytes| row::version(&bytes)).is_some_and(|present| present <= *version) {
                    tx.view_delete(&view, key)?;
                }
            }
            Ok(())
        })
        .await
    }
}
