//! Write-back: a write is acknowledged when the journal has it, and reaches its source later, with what came after it.
//!
//! ```text
//!   put ─► journal ─► on disk ─► kept here ─► acknowledged
//!                        │
//!   run: every so often, the latest intent of each key ─► Flusher::flush(value, version) ─► settled in the journal
//!        killed anywhere in between: what the journal has is flushed again, with the same version
//! ```
//! Of a key that is written a thousand times a second, the source sees the last value, ten times a second.
//!
//! Until a key is settled, questions about it are answered from here, whatever the storage evicts: the source still
//! has the old value. So there are at most `pending_max` of them; more writes are refused.

mod error;
mod pending;
mod spec;
mod stats;

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::future::Future;
use std::hash::Hash;
use std::pin::pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use mainstay_envelope::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};

use super::core::Answer;
use super::flights::Places;
use super::handle::Cache;
use super::journal::{Intent, Journal, Version};
use super::load::Loader;
use crate::retry::{self, Decision, Unbudgeted};
use crate::{Failed, Outcome, Safety, Why};

pub use error::{OpenError, WriteError};
use pending::{Dirty, Pending, Shared, Writing, decode, keyed};
pub use spec::WriteBackSpec;
use stats::Counters;
pub use stats::WriteBackStats;

/// Intents of one page of a round.
const PAGE: usize = 256;

/// Whoever waits for work looks by itself after so long: a write whose outcome the journal could not tell wakes nobody.
const RECHECK: Duration = Duration::from_secs(5);

/// Where a write-back cache's values go in the end.
pub trait Flusher<K: ?Sized, V>: Send + Sync + 'static {
    /// What can go wrong.
    type Error: Display + Send + 'static;

    /// Makes the value of a key this one, or removes it, unless a write with this version or a later one was applied
    /// already; comes back when that is so for good.
    ///
    /// It MUST compare versions, as in `… WHERE version < $version`: a process that was killed may have left a flush on
    /// its way that arrives after its successor's. Writes of one key come one at a time, otherwise in the order of
    /// their versions; the same one may come again.
    fn flush(
        &self,
        cx: &Context,
        key: &K,
        value: Option<&V>,
        version: Version,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What one round did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Round {
    /// Keys whose latest write is in the source now, and settled.
    pub flushed: usize,
    /// Keys whose flush failed; they are tried again in the next round.
    pub failed: usize,
    /// What the first of those said.
    pub first_failure: Option<String>,
}

/// A [`Cache`] whose writes are acknowledged by a [`Journal`]. A clone is another handle.
///
/// Somebody has to [`run`](Self::run) it, or nothing is ever flushed.
pub struct WriteBack<K, V, S: Loader<K, V>, J>(Arc<Shared<K, V, S, J>>);

impl<K, V, S: Loader<K, V>, J> Clone for WriteBack<K, V, S, J> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V, S: Loader<K, V>, J> fmt::Debug for WriteBack<K, V, S, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("WriteBack");
        shown.field("cache", &self.0.cache).field("pending", &self.0.room.taken()).finish_non_exhaustive()
    }
}

impl<K, V, S, J> WriteBack<K, V, S, J>
where
    K: Eq + Hash + Clone + Display + FromStr + Send + Sync + 'static,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    S: Loader<K, V> + Flusher<K, V>,
    J: Journal,
{
    /// **Write-back**: this cache over `source` and `journal`, with what the journal still holds: that is answered from
    /// now on, and flushed by the first round.
    ///
    /// Keys are journaled as their text, which has to turn back into them; values as JSON.
    ///
    /// # Errors
    /// [`OpenError`]. A cache that is not for everybody is refused, as by [`Cache::write_through`].
    pub async fn open(
        cache: Cache<K, V, <S as Loader<K, V>>::Error>,
        source: S,
        journal: J,
        spec: WriteBackSpec,
    ) -> Result<Self, OpenError<J::Error>> {
        cache.for_writing()?;
        let spec = spec.check()?;
        let room = Arc::new(Places::default());
        let mut pending = HashMap::new();
        let mut after = Version::default();
        loop {
            let page = journal.pending(after, PAGE).await.map_err(OpenError::Journal)?;
            let full = page.len() >= PAGE;
            for intent in page {
                after = intent.version;
                let (key, value) = decode(&intent).map_err(|why| OpenError::Foreign {
                    key: intent.key,
                    version: intent.version,
                    why,
                })?;
                // Whatever the bound is now: it was acknowledged.
                let (settled, _room) = (Version::default(), room.take_over());
                let at = cache.0.scope.now();
                let dirty = Some(Dirty { version: after, value, at, since: at });
                pending.insert(key, Pending { dirty, writing: 0, settled, _room });
            }
            if !full {
                break;
            }
        }
        Ok(Self(Arc::new(Shared {
            cache,
            source,
            journal,
            spec,
            pending: Mutex::new(pending),
            room,
            round: tokio::sync::Mutex::default(),
            written: Notify::new(),
            counters: Counters::default(),
        })))
    }

    /// The value of a key; none: there is none. Sees every write that was acknowledged before it was asked.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get<Q>(&self, cx: &Context, key: &Q) -> Answer<V, <S as Loader<K, V>>::Error>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + Sync + ?Sized,
    {
        let shared = Arc::clone(&self.0);
        self.0.cache.ask(cx, key, move |load, key| async move { shared.load(&load, &key).await }).await
    }

    /// Writes the value of a key: acknowledged when the journal has it on disk. It goes on when the caller leaves.
    ///
    /// # Errors
    /// [`WriteError`], or a refusal: too much is pending, no time left. See there whether it may have been recorded.
    pub async fn put(&self, cx: &Context, key: K, value: V) -> Result<Version, Failed<WriteError<J::Error>>> {
        self.write(cx, key, Some(value)).await
    }

    /// Removes the value of a key, as [`put`](Self::put) writes it.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn remove(&self, cx: &Context, key: K) -> Result<Version, Failed<WriteError<J::Error>>> {
        self.write(cx, key, None).await
    }

    /// Keys that are written and not settled.
    pub fn pending(&self) -> usize {
        self.0.room.taken()
    }

    /// How its writes are doing; of its questions, [`Cache::stats`] of [`cache`](Self::cache) tells. Goes through all
    /// that is pending, under the lock that writes take: for a look every few seconds.
    pub fn stats(&self) -> WriteBackStats {
        let now = self.0.cache.0.scope.now();
        let oldest =
            self.0.pending().values().filter_map(|pending| Some(pending.dirty.as_ref()?.since)).min();
        let age = oldest.map_or(Duration::ZERO, |oldest| now.saturating_since(oldest));
        self.0.counters.snapshot(self.pending(), age)
    }

    /// The cache itself, to look at. What is invalidated there comes back from here while it is pending.
    pub fn cache(&self) -> &Cache<K, V, <S as Loader<K, V>>::Error> {
        &self.0.cache
    }

    /// Flushes in rounds until `stop` is ready. Failures are told to `on_trouble` and tried again, with full jitter from
    /// 20 ms to 5 s. To be cut off anywhere is safe: what is not settled is flushed again, by the next process too.
    pub async fn run(
        &self,
        cx: &Context,
        on_trouble: impl Fn(&str) + Send,
        stop: impl Future<Output = ()> + Send,
    ) {
        let mut stop = pin!(stop);
        let mut work = pin!(self.rounds(cx, on_trouble));
        std::future::poll_fn(|task| match stop.as_mut().poll(task) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => work.as_mut().poll(task),
        })
        .await;
    }

    /// One round: everything that is pending when it begins is flushed once, or fails once.
    ///
    /// # Errors
    /// The journal could not be read or told. What was flushed is flushed again.
    pub async fn flush(&self, cx: &Context) -> Result<Round, J::Error> {
        let shared = &self.0;
        let _one = shared.round.lock().await;
        let mut round = Round::default();
        let mut after = Version::default();
        // Writes that come meanwhile have later versions; the round ends all the same.
        for _ in 0..=self.pending() / PAGE + 1 {
            let page = shared.journal.pending(after, PAGE).await?;
            let full = page.len() >= PAGE;
            let Some(last) = page.last() else { break };
            after = last.version;
            let flushed = self.flush_page(cx, page, &mut round).await;
            if !flushed.is_empty() {
                shared.journal.settle(cx, &flushed).await?;
                round.flushed += flushed.len();
                self.0.counters.flushed(flushed.len());
                for (key, version) in flushed {
                    if let Ok(key) = key.parse() {
                        shared.settled(&key, version);
                    }
                }
            }
            if !full {
                break;
            }
        }
        Ok(round)
    }

    async fn rounds(&self, cx: &Context, on_trouble: impl Fn(&str) + Send) {
        let settings = retry::Spec::full_jitter(Duration::from_millis(20), Duration::from_secs(5));
        let settings = settings.max_attempts(u32::MAX).check().unwrap_or_default();
        let mut failing: Option<retry::State<Unbudgeted>> = None;
        loop {
            let trouble = match self.flush(cx).await {
                Ok(round) => round.first_failure,
                Err(error) => Some(error.to_string()),
            };
            let Some(trouble) = trouble else {
                failing = None;
                // A hint; the slow look behind it finds what nobody told of.
                let _ = tokio::time::timeout(RECHECK, self.0.written.notified()).await;
                tokio::time::sleep(self.0.spec.flush_after).await;
                continue;
            };
            on_trouble(&trouble);
            let state =
                failing.get_or_insert_with(|| retry::State::new(settings, cx.now(), None, Unbudgeted));
            let wait = match state.after(cx.now(), Outcome::TRANSIENT, Safety::Safe, cx.next_u64()) {
                Decision::RetryAfter(wait) => wait,
                Decision::GiveUp(_) => RECHECK,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Flushes the intents of one page, some at a time; those that are in the source now.
    async fn flush_page(&self, cx: &Context, page: Vec<Intent>, round: &mut Round) -> Vec<(String, Version)> {
        let failed_before = round.failed;
        let mut flushed = Vec::with_capacity(page.len());
        let mut under_way = JoinSet::new();
        let mut note = |ended: Result<(Intent, Result<(), String>), JoinError>| match ended {
            Ok((intent, Ok(()))) => flushed.push((intent.key, intent.version)),
            Ok((_, Err(why))) => {
                round.failed += 1;
                round.first_failure.get_or_insert(why);
            }
            Err(died) => {
                round.failed += 1;
                round.first_failure.get_or_insert_with(|| format!("a flush died: {died}"));
            }
        };
        for intent in page {
            if under_way.len() >= self.0.spec.concurrency
                && let Some(ended) = under_way.join_next().await
            {
                note(ended);
            }
            let (shared, cx) = (Arc::clone(&self.0), cx.with_deadline(self.0.spec.flush_limit));
            under_way.spawn(async move {
                let ended = shared.flush_one(&cx, &intent).await;
                (intent, ended)
            });
        }
        while let Some(ended) = under_way.join_next().await {
            note(ended);
        }
        self.0.counters.failed(round.failed - failed_before);
        flushed
    }

    async fn write(
        &self,
        cx: &Context,
        key: K,
        value: Option<V>,
    ) -> Result<Version, Failed<WriteError<J::Error>>> {
        let shared = Arc::clone(&self.0);
        let inner = &self.0.cache.0;
        let remaining = cx.envelope().deadline().map(|deadline| deadline.remaining(inner.scope.now()));
        if remaining.is_some_and(|left| left.is_zero()) {
            return Err(Failed::Refused(inner.refuse(Why::DeadlineReached)));
        }
        let encoded = value.as_ref().map(serde_json::to_vec).transpose();
        let encoded = encoded.map_err(|why| Failed::Upstream(WriteError::Encode(why.to_string())))?;
        let text = key.to_string();
        let Some(writing) = Writing::begin(shared, key) else {
            return Err(Failed::Refused(inner.refuse(Why::JournalFull)));
        };
        let cx = cx.clone();
        let task = tokio::spawn(async move {
            let appended = writing.shared.journal.append(&cx, &text, encoded.as_deref()).await;
            match &appended {
                Ok(version) => writing.acknowledged(*version, value),
                // It may have been recorded: then what is kept is older than what will be flushed.
                Err(_) => writing.shared.cache.0.replace(&keyed(&writing.key), None),
            }
            appended
        });
        let ended = match remaining {
            Some(left) => tokio::time::timeout(left, task).await,
            None => Ok(task.await),
        };
        match ended {
            Ok(Ok(appended)) => appended.map_err(|error| Failed::Upstream(WriteError::Journal(error))),
            Ok(Err(_)) => Err(Failed::Refused(inner.refuse(Why::WriterDied))),
            Err(_) => Err(Failed::Refused(inner.refuse(Why::DeadlineRanOut))),
        }
    }
}
