//! What is acknowledged and not settled, in memory: it is the value, whatever the source still has.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use mainstay_envelope::{Context, Monotonic};

use super::super::entry::Loaded;
use super::super::flights::{Place, Places};
use super::super::handle::Cache;
use super::super::journal::{Intent, Journal, Version};
use super::super::key::Keyed;
use super::super::load::{Load, Loader};
use super::super::stats::count;
use super::stats::Counters;
use super::{Flusher, WriteBackSpec};

pub(super) struct Shared<K, V, S: Loader<K, V>, J> {
    pub(super) cache: Cache<K, V, S::Error>,
    pub(super) source: S,
    pub(super) journal: J,
    pub(super) spec: WriteBackSpec,
    pub(super) pending: Mutex<HashMap<K, Pending<V>>>,
    pub(super) room: Arc<Places>,
    /// Rounds are one at a time, so that a key is flushed in the order of its versions.
    pub(super) round: tokio::sync::Mutex<()>,
    pub(super) written: Notify,
    pub(super) counters: Counters,
}

/// What is known of a key that is being written, or written and not settled.
pub(super) struct Pending<V> {
    /// The latest write that was acknowledged and is not settled.
    pub(super) dirty: Option<Dirty<V>>,
    /// Writes that the journal has not answered yet.
    pub(super) writing: usize,
    /// The latest write that is settled; one of those under way may be it.
    pub(super) settled: Version,
    pub(super) _room: Place,
}

/// A write that was acknowledged and is not settled.
#[derive(Clone)]
pub(super) struct Dirty<V> {
    pub(super) version: Version,
    pub(super) value: Option<V>,
    /// When it was acknowledged, or, of a crashed process' writes, read from the journal.
    pub(super) at: Monotonic,
    /// The same of the first write of its key since the last that is settled.
    pub(super) since: Monotonic,
}

impl<K, V, S, J> Shared<K, V, S, J>
where
    K: Eq + Hash + Clone + Display + FromStr + Send + Sync + 'static,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    S: Loader<K, V> + Flusher<K, V>,
    J: Journal,
{
    /// What is pending is the value; the source has the old one.
    pub(super) async fn load(&self, load: &Load, key: &K) -> Result<Loaded<V>, <S as Loader<K, V>>::Error> {
        let pending = self.pending().get(key).and_then(|pending| pending.dirty.clone());
        match pending {
            Some(dirty) => Ok(dirty.value.into()),
            None => self.source.load(load, key).await,
        }
    }

    pub(super) async fn flush_one(&self, cx: &Context, intent: &Intent) -> Result<(), String> {
        let (key, value) = decode::<K, V>(intent).map_err(|why| {
            format!(
                "the journal's intent for key {:?} is not of this cache: {why}; it stays there",
                intent.key
            )
        })?;
        let flush = self.source.flush(cx, &key, value.as_ref(), intent.version);
        match tokio::time::timeout(self.spec.flush_limit, flush).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => {
                Err(format!("key {:?}, version {} was not flushed: {why}", intent.key, intent.version))
            }
            Err(_) => Err(format!(
                "key {:?}, version {} was not flushed within {:?}; nobody knows whether it was written",
                intent.key, intent.version, self.spec.flush_limit
            )),
        }
    }

    /// The source has this write of a key for good.
    pub(super) fn settled(&self, key: &K, version: Version) {
        let mut all = self.pending();
        let remembered = match all.get_mut(key) {
            Some(pending) => {
                pending.settled = pending.settled.max(version);
                let remembered = pending.dirty.as_ref().map(|dirty| dirty.version);
                if remembered.is_some_and(|dirty| dirty <= version) {
                    pending.dirty = None;
                } else if let Some(later) = &mut pending.dirty {
                    // Those between are forgotten: the journal has the latest only.
                    later.since = later.at;
                }
                if pending.is_over() {
                    all.remove(key);
                }
                remembered
            }
            None => None,
        };
        // Another write than the one that is known here: what is kept may be older than the source.
        if remembered.is_none_or(|dirty| dirty < version) {
            self.cache.0.replace(&keyed(key), None);
        }
    }
}

impl<K, V, S: Loader<K, V>, J> Shared<K, V, S, J> {
    pub(super) fn pending(&self) -> MutexGuard<'_, HashMap<K, Pending<V>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Pending<V> {
    fn is_over(&self) -> bool {
        self.dirty.is_none() && self.writing == 0
    }
}

/// A write on its way to the journal.
pub(super) struct Writing<K: Eq + Hash, V, S: Loader<K, V>, J> {
    pub(super) shared: Arc<Shared<K, V, S, J>>,
    pub(super) key: K,
}

impl<K, V, S, J> Writing<K, V, S, J>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: Loader<K, V>,
{
    /// None: as many keys are pending as may be, and this is one more.
    pub(super) fn begin(shared: Arc<Shared<K, V, S, J>>, key: K) -> Option<Self> {
        let mut all = shared.pending();
        match all.get_mut(&key) {
            Some(pending) => pending.writing += 1,
            None => {
                let _room = shared.room.take(shared.spec.pending_max)?;
                let pending = Pending { dirty: None, writing: 1, settled: Version::default(), _room };
                all.insert(key.clone(), pending);
            }
        }
        drop(all);
        Some(Self { shared, key })
    }

    /// The journal has it: it is the value from now on, unless a later write is.
    pub(super) fn acknowledged(&self, version: Version, value: Option<V>) {
        let inner = &self.shared.cache.0;
        let now = inner.scope.now();
        let (entry, keep) = inner.entry(&self.key, value.clone().into(), inner.tags.stamp(), now);
        let mut all = self.shared.pending();
        if let Some(pending) = all.get_mut(&self.key)
            && version > pending.settled
            && pending.dirty.as_ref().is_none_or(|dirty| version > dirty.version)
        {
            let since = pending.dirty.as_ref().map_or(now, |dirty| dirty.since);
            pending.dirty = Some(Dirty { version, value, at: now, since });
            inner.replace(&keyed(&self.key), keep.then_some(entry));
        }
        drop(all);
        count(&self.shared.counters.acknowledged);
        self.shared.written.notify_one();
    }
}

impl<K: Eq + Hash, V, S: Loader<K, V>, J> Drop for Writing<K, V, S, J> {
    fn drop(&mut self) {
        let mut all = self.shared.pending();
        if let Some(pending) = all.get_mut(&self.key) {
            pending.writing -= 1;
            if pending.is_over() {
                all.remove(&self.key);
            }
        }
    }
}

/// Write-back is for everybody.
pub(super) fn keyed<K: Clone>(key: &K) -> Keyed<K> {
    Keyed { member: None, key: key.clone() }
}

pub(super) fn decode<K: FromStr, V: DeserializeOwned>(intent: &Intent) -> Result<(K, Option<V>), String> {
    let key = intent.key.parse().map_err(|_| "its key is none".to_owned())?;
    let value = intent.value.as_deref().map(serde_json::from_slice).transpose();
    Ok((key, value.map_err(|why| why.to_string())?))
}
