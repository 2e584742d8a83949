//! [`Cache`]: the handle that a service holds, and cache-aside, the first of its four uses.

use std::borrow::Borrow;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use mainstay_envelope::{Context, Monotonic};

use super::core::{Asking, Inner, Job, Seen, Weigh};
use super::entry::{Cached, Loaded};
use super::flights::{Flights, Places};
use super::key::{Keyed, Probe};
use super::load::Load;
use super::spec::{Checked, Spec};
use super::stats::{Counters, Stats};
use super::storage::Storage;
use super::tags::Tags;
use crate::{Classify, EveryErrorIsTransient, Failed, Invalid, Live, Scope};

/// Values by key, kept for a while and for an audience, loaded once however many ask. A clone is another handle.
///
/// `E` is the error of whatever loads the values; a cache that is only put into needs none.
///
/// A hit takes one shard's read lock and one reference count, allocates nothing, and costs some 50 ns. Methods that may
/// load need a tokio runtime, in which the load runs as a task of its own.
///
/// ```
/// use mainstay_envelope::Context;
/// use mainstay_resilience::cache::{Cache, Spec};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cx = Context::system();
/// let prices = Cache::<String, u64, std::io::Error>::new("prices", Spec::for_everybody(Duration::from_secs(60)))?;
///
/// // Ten thousand callers at once: the closure runs for one of them.
/// let price = prices.get_or_load(&cx, "tea", |_load, _key| async { Ok(450) }).await?;
/// assert_eq!(price.as_deref(), Some(&450));
///
/// prices.invalidate(&cx, "tea");                                  // the source was changed by somebody
/// assert!(prices.get(&cx, "tea").is_none());
/// # Ok(())
/// # }
/// ```
pub struct Cache<K, V, E = Infallible>(pub(super) Arc<Inner<K, V, E>>);

impl<K, V, E> Clone for Cache<K, V, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V, E> fmt::Debug for Cache<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", self.0.scope.name()).finish_non_exhaustive()
    }
}

/// A cache with more to say than its settings.
pub struct Builder<K, V, E> {
    scope: Arc<Scope>,
    spec: Spec,
    classify: Box<dyn Classify<V, E> + Send + Sync>,
    weight_max: Option<u64>,
    weigh: Option<Weigh<K, V>>,
}

impl<K, V, E> fmt::Debug for Builder<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Builder");
        shown.field("spec", &self.spec).field("weight_max", &self.weight_max).finish_non_exhaustive()
    }
}

impl<K, V, E> Builder<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// The policy it belongs to: its name, clock and chance. Default: a scope of its own, of the machine's clock.
    #[must_use]
    pub fn scope(mut self, scope: Arc<Scope>) -> Self {
        self.scope = scope;
        self
    }

    /// Bounds the sum of what values weigh (their bytes, say), beside [`Spec::entries_max`]. A value that is heavier
    /// than one of the storage's shards is served and not kept.
    ///
    /// `weigh` is asked once for each value that is kept; 0 counts as 1. An entry costs its weight, or `weight_max /
    /// entries_max` if that is more, and the sum of costs stays below `weight_max`.
    #[must_use]
    pub fn weigh(mut self, weight_max: u64, weigh: impl Fn(&K, &V) -> u32 + Send + Sync + 'static) -> Self {
        self.weight_max = Some(weight_max);
        self.weigh = Some(Box::new(weigh));
        self
    }

    /// Says which errors may pass: only in place of those a stale value is served. Default: every error may.
    #[must_use]
    pub fn classify(mut self, classify: impl Classify<V, E> + Send + Sync + 'static) -> Self {
        self.classify = Box::new(classify);
        self
    }

    /// The cache.
    ///
    /// # Errors
    /// [`Invalid`] names the first setting out of its range.
    pub fn build(self) -> Result<Cache<K, V, E>, Invalid> {
        let spec = self.spec.check()?;
        Ok(Cache(Arc::new(Inner {
            records_hits: self.scope.recorder().keeps_all(),
            storage: Storage::new(self.spec.entries_max, self.weight_max)?,
            scope: self.scope,
            audience: self.spec.audience,
            spec: Live::new(spec),
            tags: Tags::default(),
            flights: Flights::new(),
            loads: Arc::new(Places::default()),
            writes: Arc::new(Places::default()),
            waiters: Arc::new(Places::default()),
            classify: self.classify,
            weigh: self.weigh,
            counters: Counters::default(),
        })))
    }
}

impl<K, V, E> Cache<K, V, E>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    /// An empty cache; `name` is for logs, metrics and refusals.
    ///
    /// # Errors
    /// [`Invalid`] names the first setting out of its range.
    pub fn new(name: impl Into<Arc<str>>, spec: Spec) -> Result<Self, Invalid> {
        Self::builder(name, spec).build()
    }

    /// An empty cache with a weight, a classifier or a scope of its own.
    pub fn builder(name: impl Into<Arc<str>>, spec: Spec) -> Builder<K, V, E> {
        Builder {
            scope: Arc::new(Scope::system(name)),
            spec,
            classify: Box::new(EveryErrorIsTransient),
            weight_max: None,
            weigh: None,
        }
    }

    /// **Cache-aside**: the fresh value of a key for the audience of `cx`; the caller loads what is not there, and
    /// [`put`](Self::put)s it.
    ///
    /// Prefer [`get_or_load`](Self::get_or_load): between a caller's load and its `put` somebody else may change the
    /// source and invalidate the key, and the old value would be put after it.
    pub fn get<Q>(&self, cx: &Context, key: &Q) -> Option<Cached<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let inner = &self.0;
        inner.fresh(inner.look_now(&Probe { member: inner.member(cx.envelope()), key }))
    }

    /// The same as of a reading of the clock that the caller has already.
    pub fn get_at<Q>(&self, cx: &Context, key: &Q, now: Monotonic) -> Option<Cached<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let inner = &self.0;
        inner.fresh(inner.look(&Probe { member: inner.member(cx.envelope()), key }, now))
    }

    /// Keeps what the caller has loaded or written; a load of the key that is under way brings nothing any more.
    pub fn put(&self, cx: &Context, key: K, value: impl Into<Loaded<V>>) {
        let inner = &self.0;
        let key = Keyed { member: inner.member(cx.envelope()).to_member(), key };
        let (entry, keep) = inner.entry(&key.key, value.into(), inner.tags.stamp(), inner.scope.now());
        inner.replace(&key, keep.then_some(entry));
    }

    /// The value of a key; `load`ed by one caller when it is not there, while the others wait for the same load.
    ///
    /// None: the loader says that there is none. `load` runs in a task of its own, which no caller's leaving ends; it
    /// is given the key, so that it need not be copied for a hit.
    ///
    /// # Errors
    /// The loader's error, shared by all who waited, or a refusal: no time left, too many loads or waiters, a load that
    /// died twice. Where [`Spec::stale_if_error`] allows, a stale value instead.
    pub async fn get_or_load<Q, F, L, Fut>(
        &self,
        cx: &Context,
        key: &Q,
        load: F,
    ) -> Result<Option<Cached<V>>, Failed<Arc<E>>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + Sync + ?Sized,
        F: FnOnce(Load, K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<L, E>> + Send + 'static,
        L: Into<Loaded<V>>,
    {
        self.ask(cx, key, move |given, key| async move { load(given, key).await.map(Into::into) }).await
    }

    /// Forgets the value of a key for the audience of `cx`; what a load under way brings is not kept. Values for other
    /// audiences stay: give them a tag.
    pub fn invalidate<Q>(&self, cx: &Context, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let probe = Probe { member: self.0.member(cx.envelope()), key };
        self.0.replace(&probe.to_keyed(), None);
    }

    /// Forgets every value with this tag, for every audience: whatever was read before now and has it. Constant time,
    /// however many they are.
    pub fn invalidate_tag(&self, tag: &str) {
        self.0.tags.invalidate(tag);
    }

    /// Forgets everything, also what loads under way bring.
    pub fn clear(&self) {
        self.0.flights.detach_all();
        self.0.storage.clear();
    }

    /// How it is doing.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// The settings at present.
    pub fn spec(&self) -> Checked {
        *self.0.spec.get()
    }

    /// Changes the settings, and forgets nothing: what is kept is fresh as long as it was to be, what is loaded from now
    /// on follows the new ones. How long what is stale may be served is new at once, also for what is kept.
    ///
    /// # Errors
    /// [`Invalid`]: a setting is out of its range, or is the audience or the size, which a cache is made with. Nothing
    /// was changed.
    pub fn reconfigure(&self, spec: Spec) -> Result<(), Invalid> {
        let new = spec.check()?;
        self.0.spec.replace(|old| {
            let fixed = |field, given: String| {
                let problem = "it can't be changed while the cache is in use";
                Err(Invalid::new("cache", field, given, problem, "make a new cache"))
            };
            let old = old.spec();
            if old.audience != spec.audience {
                return fixed("audience", format!("{:?}", spec.audience));
            }
            if old.entries_max != spec.entries_max {
                return fixed("entries_max", spec.entries_max.to_string());
            }
            Ok(new)
        })
    }

    /// A question with a loader that is made into a task only if there is something to load.
    pub(super) async fn ask<Q, F, Fut>(
        &self,
        cx: &Context,
        key: &Q,
        load: F,
    ) -> Result<Option<Cached<V>>, Failed<Arc<E>>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + Sync + ?Sized,
        F: FnOnce(Load, K) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
    {
        let inner = &self.0;
        let asked = inner.tags.stamp();
        let probe = Probe { member: inner.member(cx.envelope()), key };
        let job = |key: K| -> Job<V, E> {
            let (cx, audience) = (cx.clone(), inner.audience);
            Box::new(move |lead| Box::pin(load(Load::new(cx, audience, lead), key)))
        };
        match inner.look_now(&probe) {
            Seen::Serve(found) => {
                found.iter().for_each(|found| inner.tally(found));
                Ok(found)
            }
            Seen::Refresh(found) => {
                inner.tally(&found);
                let key = probe.to_keyed();
                let job = job(key.key.clone());
                inner.refresh(&found, key, job);
                Ok(Some(found))
            }
            Seen::Failed(error) => Err(Failed::Upstream(error)),
            Seen::Load(stale) => {
                let key = probe.to_keyed();
                let job = job(key.key.clone());
                inner.load(Asking::of(cx.envelope()), asked, key, stale, job).await
            }
        }
    }
}
