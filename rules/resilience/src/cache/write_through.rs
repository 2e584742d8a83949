//! Write-through: a value is written to its source first and kept then, so what is kept was written.
//!
//! ```text
//!   put ──► task: Writer::write ──► acknowledged ──► kept            loads that began before are not kept
//!                      │ failed, or nobody knows                     two writes at a time: neither is kept,
//!                      └──► forgotten: the next reader asks the source                   the next reader asks
//! ```

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use mainstay_envelope::{Context, Deadline};

use super::core::{Ended, Inner, busy};
use super::entry::{Cached, Entry, Loaded};
use super::flights::Flights;
use super::handle::Cache;
use super::key::Keyed;
use super::load::Loader;
use super::spec::Audience;
use crate::{Failed, Invalid, Why};

/// Where a write-through cache writes to.
pub trait Writer<K: ?Sized, V>: Send + Sync + 'static {
    /// What can go wrong. Whatever it is, the value may have been written or not, as far as the cache is concerned.
    type Error: Send + Sync + 'static;

    /// Writes the value of a key, or removes it; comes back when the source has it for good.
    ///
    /// Two writes of one key may be under way at a time: which of them comes last is the source's to say. It is
    /// dropped at an `.await` when its time is over: the context's deadline, at the latest the cache's `load_limit`.
    fn write(
        &self,
        cx: &Context,
        key: &K,
        value: Option<&V>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// A [`Cache`] whose values are loaded from and written to one source. A clone is another handle.
pub struct WriteThrough<K, V, S: Loader<K, V>> {
    cache: Cache<K, V, S::Error>,
    source: Arc<S>,
}

impl<K, V, S: Loader<K, V>> Clone for WriteThrough<K, V, S> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), source: Arc::clone(&self.source) }
    }
}

impl<K, V, S: Loader<K, V>> fmt::Debug for WriteThrough<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteThrough").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl<K, V, E> Cache<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// **Write-through**: this cache, loading what is not there and writing what is put, both at `source`.
    ///
    /// # Errors
    /// The cache is not for everybody: a value written by one caller would leave the copies of the others as they were.
    /// Put the tenant into the key instead.
    pub fn write_through<S>(self, source: S) -> Result<WriteThrough<K, V, S>, Invalid>
    where
        S: Loader<K, V, Error = E> + Writer<K, V>,
    {
        self.for_writing()?;
        Ok(WriteThrough { cache: self, source: Arc::new(source) })
    }

    pub(super) fn for_writing(&self) -> Result<(), Invalid> {
        match self.0.audience {
            Audience::Everybody => Ok(()),
            other => {
                let problem = "what one caller writes would leave the copies of the others as they were";
                let remedy = "keep one value for everybody, and put the tenant or the caller into the key";
                Err(Invalid::new("cache", "audience", format!("{other:?}"), problem, remedy))
            }
        }
    }
}

impl<K, V, S> WriteThrough<K, V, S>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: Loader<K, V> + Writer<K, V>,
{
    /// The value of a key; none: there is none.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get<Q>(
        &self,
        cx: &Context,
        key: &Q,
    ) -> Result<Option<Cached<V>>, Failed<Arc<<S as Loader<K, V>>::Error>>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + Sync + ?Sized,
    {
        let source = Arc::clone(&self.source);
        self.cache.ask(cx, key, move |load, key| async move { source.load(&load, &key).await }).await
    }

    /// Writes a value to the source, then keeps it. The write goes on when the caller leaves.
    ///
    /// # Errors
    /// The writer's error, or a refusal. [`NotDone::Call`](crate::NotDone::Call): nothing was written; otherwise nobody
    /// knows, and the key is forgotten, so that the next reader asks the source.
    pub async fn put(
        &self,
        cx: &Context,
        key: K,
        value: impl Into<Loaded<V>>,
    ) -> Result<(), Failed<<S as Writer<K, V>>::Error>> {
        self.write(cx, key, value.into()).await
    }

    /// Removes the value of a key at the source, then here.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn remove(&self, cx: &Context, key: K) -> Result<(), Failed<<S as Writer<K, V>>::Error>> {
        self.write(cx, key, Loaded::absent()).await
    }

    /// The cache itself, to invalidate or to look at.
    pub fn cache(&self) -> &Cache<K, V, <S as Loader<K, V>>::Error> {
        &self.cache
    }

    async fn write(
        &self,
        cx: &Context,
        key: K,
        loaded: Loaded<V>,
    ) -> Result<(), Failed<<S as Writer<K, V>>::Error>> {
        let inner = Arc::clone(&self.cache.0);
        let limit = inner.spec().load_limit;
        let remaining =
            cx.envelope().deadline().map(|deadline: Deadline| deadline.remaining(inner.scope.now()));
        if remaining.is_some_and(|left| left.is_zero()) {
            return Err(Failed::Refused(inner.refuse(Why::DeadlineReached)));
        }
        let writes_max = inner.spec().loads_max;
        let Some(place) = inner.writes.take(writes_max) else {
            return Err(Failed::Refused(inner.refuse(busy(writes_max))));
        };
        let (source, cx) = (Arc::clone(&self.source), cx.clone());
        let key = Keyed { member: inner.member(cx.envelope()).to_member(), key };
        let task = tokio::spawn(async move {
            let _place = place;
            let writing = Writing::begin(&inner, &key);
            let stamp = inner.tags.stamp();
            let begun = inner.scope.now();
            let write = source.write(&cx, &key.key, loaded.value.as_ref());
            let (limit, why) = match remaining {
                Some(left) if left <= limit => (left, Why::DeadlineRanOut),
                _ => (limit, Why::AttemptTimedOut { limit }),
            };
            match tokio::time::timeout(limit, write).await {
                Ok(Ok(())) => {
                    let (entry, keep) = inner.entry(&key.key, loaded, stamp, begun);
                    writing.end(keep.then_some(entry));
                    Ok(())
                }
                Ok(Err(error)) => Err(Failed::Upstream(error)),
                Err(_) => Err(Failed::Refused(inner.refuse(why))),
            }
        });
        match task.await {
            Ok(ended) => ended,
            Err(_) => Err(Failed::Refused(self.cache.0.refuse(Why::WriterDied))),
        }
    }
}

/// A write under way. Dropped before its end: nobody knows what is there now.
struct Writing<'a, K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    inner: &'a Inner<K, V, E>,
    key: &'a Keyed<K>,
    written: Option<Entry<V, E>>,
}

impl<'a, K, V, E> Writing<'a, K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn begin(inner: &'a Inner<K, V, E>, key: &'a Keyed<K>) -> Self {
        let mut shard = inner.flights.lock(key);
        let slot = shard.entry(key.clone()).or_default();
        slot.writes += 1;
        slot.contended |= slot.writes > 1;
        drop(shard);
        Self { inner, key, written: None }
    }

    fn end(mut self, written: Option<Entry<V, E>>) {
        self.written = written;
    }
}

impl<K, V, E> Drop for Writing<'_, K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn drop(&mut self) {
        let mut shard = self.inner.flights.lock(self.key);
        let contended = shard.get_mut(self.key).is_some_and(|slot| {
            slot.writes -= 1;
            slot.contended
        });
        Flights::<K, Ended<V, E>>::detach(&mut shard, self.key);
        match self.written.take() {
            Some(entry) if !contended => self.inner.storage.insert(self.key.clone(), entry),
            _ => self.inner.storage.remove(self.key),
        }
    }
}
