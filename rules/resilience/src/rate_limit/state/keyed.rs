//! A bucket for each key: sharded, bounded, and forgetting only what there is nothing to forget about.

use std::borrow::Borrow;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use mainstay_envelope::Monotonic;
use mainstay_envelope::sync::{Mutex, MutexGuard, PoisonError};

use super::{Denied, Rate, Taken, nanos};
use crate::rate_limit::spec::Checked;

/// A shard for about this many keys, so that a new key at the bound looks at no more than that.
const KEYS_OF_A_SHARD: usize = 1_024;
const SHARDS_MAX: usize = 64;

/// A token bucket for each key: an identity, a route, a tenant, or any combination that can be hashed.
///
/// A key that was not seen before begins with a full bucket. It remembers at most `keys_max` keys; at the bound it
/// forgets keys whose buckets are full, and only those: a full bucket is what a key that comes back begins with,
/// so nobody gains by being forgotten. While no bucket is full, keys without a place share one bucket in each
/// shard, of the same size. They get less than their due, never more, and whoever gets a place later begins with
/// what was left in the shared one. So a flood of made-up keys can't make room for itself by pushing others out.
///
/// One hash, one short lock of one shard, no allocation for a key that is known. A new key at the bound looks
/// at the keys of its shard (`keys_max / 64`, at least 1,024), and only when one of them can be full by now. The
/// bound is each shard's share of `keys_max`; as hashes are not spread evenly, give a tenth more than you have.
///
/// The hasher `S` is a parameter because keys often come from strangers: hash with a secret
/// ([`RandomState`](std::hash::RandomState)) where they do, and with a fixed one where a run is to be repeated.
#[derive(Debug)]
pub struct Keyed<K, S> {
    hasher: Arc<S>,
    shards: Box<[Mutex<Shard<K, S>>]>,
}

#[derive(Debug)]
struct Shard<K, S> {
    rate: Rate,
    /// For each key the instant at which its bucket is full.
    full_at: HashMap<K, Cell<u64>, Known<S>>,
    capacity: usize,
    /// The bucket of those without a place.
    shared: u64,
    /// No bucket of this shard is full before this instant.
    next_full: u64,
}

impl<K: Hash + Eq, S: BuildHasher> Keyed<K, S> {
    /// No key is known yet.
    pub fn new(settings: &Checked, hasher: S) -> Self {
        let keys_max = settings.spec().keys_max;
        let shards = keys_max.div_ceil(KEYS_OF_A_SHARD).next_power_of_two().min(SHARDS_MAX);
        let hasher = Arc::new(hasher);
        let shard = || {
            let known = Known { hasher: Arc::clone(&hasher), hash: Cell::new(None) };
            Mutex::new(Shard {
                rate: Rate::of(settings),
                full_at: HashMap::with_hasher(known),
                capacity: (keys_max / shards).max(1),
                shared: 0,
                next_full: u64::MAX,
            })
        };
        let shards = (0..shards).map(|_| shard()).collect();
        Keyed { hasher, shards }
    }

    /// Takes `cost` permits of `key` at `now`, or none. The key is cloned when it is seen for the first time.
    ///
    /// # Errors
    /// [`Denied`] says whether and when the same request would be admitted. For a key that shares a bucket the
    /// time is that of the shared one.
    pub fn take<Q>(&self, now: Monotonic, key: &Q, cost: u32) -> Result<(), Denied>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.take_explained(now, key, cost).result
    }

    /// As [`take`](Self::take), with what was read for it.
    pub fn take_explained<Q>(&self, now: Monotonic, key: &Q, cost: u32) -> Taken
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let now = nanos(now);
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        let rate = shard.rate;
        if let Some(known) = shard.known(hash, key) {
            let full_at = known.get();
            let result = rate.take(full_at, now, cost).map(|next| known.set(next));
            return Taken { full_at, rate, result };
        }
        let full_at = shard.shared;
        let result = rate.take(full_at, now, cost).map(|next| {
            if shard.has_place(now) {
                shard.next_full = shard.next_full.min(next);
                shard.full_at.insert(key.to_owned(), Cell::new(next));
            } else {
                shard.shared = next;
            }
        });
        Taken { full_at, rate, result }
    }

    /// Whole permits that are there for `key` at `now`.
    pub fn left<Q>(&self, now: Monotonic, key: &Q) -> u32
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash);
        let full_at = shard.known(hash, key).map(Cell::get);
        let full_at = full_at.unwrap_or(shard.shared);
        shard.rate.left(full_at, nanos(now))
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).full_at.len()).sum()
    }

    /// Forgets every key whose bucket is full at `now`, which changes no later verdict. For whoever wants the
    /// memory back before the bound is reached; looks at all keys, a shard at a time.
    pub fn forget_full(&self, now: Monotonic) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.forget_full(nanos(now));
            shard.full_at.shrink_to_fit();
        }
    }

    /// Changes the settings: each key keeps the permits it has, cut to the new size. Looks at all keys, a shard
    /// at a time; each request is decided under the old settings or the new ones. A smaller `keys_max` is kept to
    /// as buckets get full. (The number of shards stays.)
    pub fn reconfigure(&self, settings: &Checked, now: Monotonic) {
        let (now, new) = (nanos(now), Rate::of(settings));
        let capacity = (settings.spec().keys_max / self.shards.len()).max(1);
        for shard in &self.shards {
            let mut shard = lock(shard);
            let old = std::mem::replace(&mut shard.rate, new);
            shard.capacity = capacity;
            shard.shared = new.carry_over(old, shard.shared, now);
            for full_at in shard.full_at.values() {
                full_at.set(new.carry_over(old, full_at.get(), now));
            }
            shard.next_full = shard.full_at.values().map(Cell::get).min().unwrap_or(u64::MAX);
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard<K, S>> {
        // Other bits than those by which a map places and tags its entries.
        let index = (hash >> 32) as usize & (self.shards.len() - 1);
        lock(&self.shards[index])
    }
}

impl<K: Hash + Eq, S: BuildHasher> Shard<K, S> {
    /// The bucket of a key that is remembered, whose hash is known already.
    #[inline]
    fn known<Q: Hash + Eq + ?Sized>(&self, hash: u64, key: &Q) -> Option<&Cell<u64>>
    where
        K: Borrow<Q>,
    {
        let asked = Asked(&self.full_at.hasher().hash);
        asked.0.set(Some(hash));
        self.full_at.get(key)
    }

    /// Whether a new key can be remembered, after forgetting full buckets if that is what it takes.
    fn has_place(&mut self, now: u64) -> bool {
        if self.full_at.len() >= self.capacity && self.next_full <= now {
            self.forget_full(now);
        }
        self.full_at.len() < self.capacity
    }

    fn forget_full(&mut self, now: u64) {
        let mut next_full = u64::MAX;
        self.full_at.retain(|_, full_at| {
            let keep = full_at.get() > now;
            if keep {
                next_full = next_full.min(full_at.get());
            }
            keep
        });
        self.next_full = next_full;
    }
}

fn lock<K, S>(shard: &Mutex<Shard<K, S>>) -> MutexGuard<'_, Shard<K, S>> {
    // A panic can only come from a key's own Eq, between two whole states.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A hasher may treat a number otherwise than its bytes, so each kind of write goes to its own.
macro_rules! forward {
    ($($write:ident: $number:ty),*) => {
        $(#[inline]
        fn $write(&mut self, number: $number) {
            if let MaybeKnown::Made(hasher) = self {
                hasher.$write(number);
            }
        })*
    };
}

/// The hasher of the maps. The key's hash is known where a map is asked, because it chose the shard; so it is handed in
/// and not made again, and need not be kept beside each key.
#[derive(Debug)]
struct Known<S> {
    hasher: Arc<S>,
    /// The hash of the key that the map is just asked for. None: it is to be made, as when the map grows.
    hash: Cell<Option<u64>>,
}

/// A map's question has been put, whatever came of it (a panic in a key's own Eq, too): what is hashed next is another key.
struct Asked<'a>(&'a Cell<Option<u64>>);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl<S: BuildHasher> BuildHasher for Known<S> {
    type Hasher = MaybeKnown<S::Hasher>;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        match self.hash.get() {
            Some(hash) => MaybeKnown::Known(hash),
            None => MaybeKnown::Made(self.hasher.build_hasher()),
        }
    }
}

enum MaybeKnown<H> {
    Known(u64),
    Made(H),
}

impl<H: Hasher> Hasher for MaybeKnown<H> {
    #[inline]
    fn finish(&self) -> u64 {
        match self {
            MaybeKnown::Known(hash) => *hash,
            MaybeKnown::Made(hasher) => hasher.finish(),
        }
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        if let MaybeKnown::Made(hasher) = self {
            hasher.write(bytes);
        }
    }

    forward! {
        write_u8: u8, write_u16: u16, write_u32: u32, write_u64: u64, write_u128: u128, write_usize: usize,
        write_i8: i8, write_i16: i16, write_i32: i32, write_i64: i64, write_i128: i128, write_isize: isize
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;
    use std::time::Duration;

    use super::*;
    use crate::rate_limit::Spec;

    #[test]
    fn keys_are_found_again_after_their_map_has_grown() {
        let hour = Duration::from_secs(3_600);
        // One shard, so that it grows many times.
        let settings = Spec::token_bucket(1, hour).keys_max(1_000).check().unwrap();
        let limit = Keyed::<u64, _>::new(&settings, RandomState::new());
        let now = Monotonic::from_origin(hour);
        let admitted = || (0..1_000).filter(|key| limit.take(now, key, 1).is_ok()).count();
        assert_eq!((admitted(), limit.keys()), (1_000, 1_000));
        assert_eq!(admitted(), 0, "each has taken its permit");
    }
}
