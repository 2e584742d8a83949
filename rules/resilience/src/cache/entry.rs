//! What is kept: a value, that there is none, or that loading it failed; and the handle that a hit gives.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay_envelope::Monotonic;

use super::state::{Found, Times};
use super::tags::Marks;
use crate::record::nanos;

/// What a load brought: a value, or that there is none.
///
/// A loader returns anything that turns into it: a value, an `Option` of one, or this, where there are tags or an own
/// time to live to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<V> {
    pub(super) value: Option<V>,
    pub(super) ttl: Option<Duration>,
    pub(super) tags: Vec<Arc<str>>,
}

impl<V> Loaded<V> {
    /// This value.
    pub fn found(value: V) -> Self {
        Self { value: Some(value), ttl: None, tags: Vec::new() }
    }

    /// There is none: remembered for [`Spec::negative_ttl`](super::Spec::negative_ttl), and dropped by the same
    /// invalidations.
    pub fn absent() -> Self {
        Self { value: None, ttl: None, tags: Vec::new() }
    }

    /// Adds a tag; of more than [`TAGS_MAX`](super::TAGS_MAX) the value is not kept, because not every one of them
    /// could invalidate it.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Arc<str>>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// How long it is fresh, in place of [`Spec::ttl`](super::Spec::ttl) (or of `negative_ttl`, where there is none);
    /// zero: not kept.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

impl<V> From<V> for Loaded<V> {
    fn from(value: V) -> Self {
        Self::found(value)
    }
}

impl<V> From<Option<V>> for Loaded<V> {
    fn from(value: Option<V>) -> Self {
        Self { value, ttl: None, tags: Vec::new() }
    }
}

/// One kept thing, with all that decides about it. What a hit reads comes first, on one cache line with the counts of
/// references and a small value.
#[repr(C)]
pub(super) struct Kept<T> {
    /// Before this it is simply fresh, in nanoseconds of the clock, as all instants here: half the size.
    pub(super) fresh_until: u64,
    pub(super) marks: Marks,
    pub(super) value: T,
    since: u64,
    expiry: u64,
    /// In microseconds; what took longer than an hour counts as an hour.
    delta: u32,
    /// Nobody tries to load it anew until so many milliseconds after `since`: a load has failed a moment ago.
    held: AtomicU32,
    /// What it weighs in the storage: fixed, so that the storage's sums stay right.
    pub(super) cost: u64,
}

impl<T> Kept<T> {
    pub(super) fn new(value: T, times: Times, marks: Marks, cost: u64) -> Self {
        let (since, expiry) = (nanos(times.since), nanos(times.expiry));
        let delta = u32::try_from(times.delta.as_micros()).unwrap_or(u32::MAX);
        let (fresh_until, held) = (nanos(times.early_from), AtomicU32::new(0));
        Self { fresh_until, marks, value, since, expiry, delta, held, cost }
    }

    pub(super) fn times(&self) -> Times {
        let at = |nanos| Monotonic::from_nanos(nanos);
        let delta = Duration::from_micros(self.delta.into());
        Times { since: at(self.since), delta, early_from: at(self.fresh_until), expiry: at(self.expiry) }
    }

    pub(super) fn hold_until(&self, until: Monotonic) {
        // Rounded up; an entry of more than 49 days is held for ever, that is until it is loaded anew.
        let after = nanos(until).saturating_sub(self.since).div_ceil(1_000_000);
        self.held.fetch_max(u32::try_from(after).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(super) fn is_held(&self, now: Monotonic) -> bool {
        nanos(now).saturating_sub(self.since) < u64::from(self.held.load(Ordering::Relaxed)) * 1_000_000
    }
}

/// An entry as it lies in the storage. A clone is one reference count.
pub(super) enum Entry<V, E> {
    Value(Arc<Kept<V>>),
    Absent(Arc<Kept<()>>),
    Failed(Arc<Kept<Arc<E>>>),
}

impl<V, E> Clone for Entry<V, E> {
    fn clone(&self) -> Self {
        match self {
            Self::Value(kept) => Self::Value(Arc::clone(kept)),
            Self::Absent(kept) => Self::Absent(Arc::clone(kept)),
            Self::Failed(kept) => Self::Failed(Arc::clone(kept)),
        }
    }
}

impl<V, E> Entry<V, E> {
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Value(kept) => kept.cost,
            Self::Absent(kept) => kept.cost,
            Self::Failed(kept) => kept.cost,
        }
    }

    /// What decides about it at `now`.
    pub(super) fn found(&self, now: Monotonic) -> Found {
        match self {
            Self::Value(kept) => Found::Value { times: kept.times(), held: kept.is_held(now) },
            Self::Absent(kept) => Found::Absent { until: kept.times().expiry },
            Self::Failed(kept) => Found::Failed { until: kept.times().expiry },
        }
    }

    pub(super) fn marks(&self) -> &Marks {
        match self {
            Self::Value(kept) => &kept.marks,
            Self::Absent(kept) => &kept.marks,
            Self::Failed(kept) => &kept.marks,
        }
    }
}

/// Why a value was given though it may not be the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// It is within its time to live.
    Fresh,
    /// It is past it, and being loaded anew ([`Spec::stale_while_revalidate`](super::Spec::stale_while_revalidate)).
    Revalidating,
    /// It is past it, and could not be loaded anew ([`Spec::stale_if_error`](super::Spec::stale_if_error)).
    InPlaceOfAnError,
}

/// A value out of the cache: shared, not copied. Dereferences to it; a clone is one reference count.
///
/// It stays what it is however long it is held, also when the cache forgets or replaces it.
pub struct Cached<V> {
    kept: Arc<Kept<V>>,
    freshness: Freshness,
}

impl<V> Cached<V> {
    pub(super) fn new(kept: Arc<Kept<V>>, freshness: Freshness) -> Self {
        Self { kept, freshness }
    }

    /// Whether this is the value of that entry, and not of one that replaced it.
    pub(super) fn is(&self, kept: &Arc<Kept<V>>) -> bool {
        Arc::ptr_eq(&self.kept, kept)
    }

    /// Whether it is fresh, and if not, why it was given all the same.
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Whether it is within its time to live.
    pub fn is_fresh(&self) -> bool {
        self.freshness == Freshness::Fresh
    }

    /// When it was loaded or written, on the clock of the process: `now` less this is its age.
    pub fn since(&self) -> Monotonic {
        self.kept.times().since
    }

    /// From when on it is not fresh.
    pub fn expiry(&self) -> Monotonic {
        self.kept.times().expiry
    }
}

impl<V> Clone for Cached<V> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept), freshness: self.freshness }
    }
}

impl<V> Deref for Cached<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.kept.value
    }
}

impl<V: fmt::Debug> fmt::Debug for Cached<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached").field("value", &**self).field("freshness", &self.freshness).finish()
    }
}

impl<V: PartialEq> PartialEq<V> for Cached<V> {
    fn eq(&self, other: &V) -> bool {
        **self == *other
    }
}
