//! Where entries lie: a bounded map that evicts. It knows no time; what an entry is good for is decided elsewhere.
//!
//! One sum bounds both the number of entries and their weight. An entry costs its weight, or its share of the
//! weight that one of `entries_max` entries has, whichever is more:
//!
//! ```text
//!   cost = max(weight, ⌈weight_max / entries_max⌉)      Σ cost ≤ weight_max  ⇒  Σ weight ≤ weight_max  and
//!                                                                               entries ≤ entries_max
//! ```
//! The price: a mixture of light and heavy entries is evicted when the sum is full, at the latest when one of the two
//! bounds is, at the earliest when both are half full.

use std::borrow::Borrow;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::Cache as Map;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::entry::Entry;
use super::key::{Keyed, Probe};
use crate::Invalid;

/// The cost that an entry was given when it was made.
#[derive(Debug, Clone)]
struct Cost;

impl<K, V, E> Weighter<Keyed<K>, Entry<V, E>> for Cost {
    fn weight(&self, _: &Keyed<K>, entry: &Entry<V, E>) -> u64 {
        entry.cost()
    }
}

/// Counts the entries that make room for others, and takes them out of the shard's lock to drop them.
#[derive(Debug, Clone, Default)]
struct Evictions(Arc<AtomicU64>);

impl<K, V, E> Lifecycle<Keyed<K>, Entry<V, E>> for Evictions {
    /// An insertion seldom evicts more than one; further ones are dropped under the lock.
    type RequestState = [Option<(Keyed<K>, Entry<V, E>)>; 2];

    fn on_evict(&self, evicted: &mut Self::RequestState, key: Keyed<K>, entry: Entry<V, E>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        if let Some(room) = evicted.iter_mut().find(|room| room.is_none()) {
            *room = Some((key, entry));
        }
    }
}

pub(super) struct Storage<K, V, E> {
    map: Map<Keyed<K>, Entry<V, E>, Cost, DefaultHashBuilder, Evictions>,
    evictions: Evictions,
    cost_min: u64,
    cost_max: u64,
}

impl<K: Eq + Hash, V, E> Storage<K, V, E> {
    /// Room for so many entries, and for so much weight if they have any.
    pub(super) fn new(entries_max: usize, weight_max: Option<u64>) -> Result<Self, Invalid> {
        let entries = entries_max as u64;
        let (capacity, cost_min) = match weight_max {
            None => (entries, 1),
            Some(0) => {
                let problem = "nothing could ever be kept";
                return Err(Invalid::new("cache", "weight_max", "0".into(), problem, "give at least 1"));
            }
            // A capacity above 2⁵³ would be rounded in the library's own sums.
            Some(weight) => {
                let weight = weight.min(1 << 53);
                (weight, weight.div_ceil(entries))
            }
        };
        // The library rounds each shard's share up; all shards together are to stay within the bound.
        let shards = shards(entries_max, capacity / cost_min);
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(entries_max)
            .weight_capacity(capacity - capacity % shards as u64)
            .build()
            .map_err(|_| {
                Invalid::new(
                    "cache",
                    "entries_max",
                    entries_max.to_string(),
                    "no storage has this size",
                    "change it",
                )
            })?;
        let evictions = Evictions::default();
        let map = Map::with_options(options, Cost, DefaultHashBuilder::default(), evictions.clone());
        // What is heavier than a shard's share of hot entries is never admitted; found out here, so that the old
        // entry of the key can be dropped in its place.
        let cost_max = map.shard_capacity() - map.shard_capacity() / 50;
        Ok(Self { map, evictions, cost_min, cost_max })
    }

    /// What an entry of this weight costs.
    pub(super) fn cost(&self, weight: u64) -> u64 {
        weight.max(self.cost_min)
    }

    #[inline]
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, probe: &Probe<'_, Q>) -> Option<Entry<V, E>>
    where
        K: Borrow<Q>,
    {
        self.map.get(probe)
    }

    /// The same, without counting as a use.
    pub(super) fn peek(&self, key: &Keyed<K>) -> Option<Entry<V, E>> {
        self.map.peek(&key.probe())
    }

    /// Keeps it in place of what was kept under the key. What is too heavy for the storage is not kept, and takes
    /// the old entry with it.
    pub(super) fn insert(&self, key: Keyed<K>, entry: Entry<V, E>) {
        if entry.cost() > self.cost_max {
            self.map.remove(&key.probe());
        } else {
            self.map.insert(key, entry);
        }
    }

    pub(super) fn remove(&self, key: &Keyed<K>) {
        self.map.remove(&key.probe());
    }

    pub(super) fn clear(&self) {
        self.map.clear();
    }

    /// Look-ups that found something, usable or not.
    pub(super) fn found(&self) -> u64 {
        self.map.hits()
    }

    /// Entries that made room for others.
    pub(super) fn evicted(&self) -> u64 {
        self.evictions.0.load(Ordering::Relaxed)
    }

    pub(super) fn entries(&self) -> usize {
        self.map.len()
    }

    /// What all entries cost.
    pub(super) fn cost_sum(&self) -> u64 {
        self.map.weight()
    }
}

/// How many locks share the load: 16, fewer where a shard would hold so few entries, or heavy ones, that one shard is
/// full while the next is empty. At least 256 of the lightest entries fit into each.
fn shards(entries_max: usize, fitting: u64) -> usize {
    let fitting = usize::try_from(fitting).unwrap_or(usize::MAX).min(entries_max);
    let mut shards = 16;
    while shards > 1 && fitting / shards < 256 {
        shards /= 2;
    }
    shards
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mainstay_envelope::Monotonic;

    use super::super::entry::Kept;
    use super::super::state::Times;
    use super::super::tags::Tags;
    use super::*;

    type Tested = Storage<u32, u64, ()>;

    fn key(key: u32) -> Keyed<u32> {
        Keyed { member: None, key }
    }

    fn insert(storage: &Tested, n: u32, weight: u64) {
        let times = Times::of_absence(Duration::from_secs(1), 0.0, Monotonic::ORIGIN, 0);
        let marks = Tags::default().marks(Tags::default().stamp(), std::iter::empty());
        let kept = Kept::new(weight, times, marks, storage.cost(weight));
        storage.insert(key(n), Entry::Value(Arc::new(kept)));
    }

    fn weight(storage: &Tested) -> (usize, u64) {
        let entries = (0..100_000).filter_map(|n| match storage.peek(&key(n)) {
            Some(Entry::Value(kept)) => Some(kept.value),
            _ => None,
        });
        entries.fold((0, 0), |(count, sum), weight| (count + 1, sum + weight))
    }

    #[test]
    fn neither_bound_is_ever_passed() {
        for (entries_max, weight_max) in
            [(1, 1), (1, 100), (100, 1), (10, 100), (300, 1_000), (5_000, 20_000), (5_000, 4_999_999)]
        {
            let storage = Tested::new(entries_max, Some(weight_max)).unwrap();
            // Light ones only, then heavy ones, then a mixture.
            for n in 0..20_000_u32 {
                insert(
                    &storage,
                    n,
                    match n / 7_000 {
                        0 => 1,
                        1 => weight_max / 10 + 1,
                        _ => u64::from(n % 50),
                    },
                );
                if n % 1_000 == 999 {
                    let (entries, weight) = weight(&storage);
                    assert!(entries <= entries_max && weight <= weight_max, "{entries} {weight}");
                    assert_eq!(storage.entries(), entries);
                }
            }
        }
        let storage = Tested::new(1_000, None).unwrap();
        (0..20_000).for_each(|n| insert(&storage, n, 1));
        assert!(storage.entries() <= 1_000 && storage.entries() > 900, "{}", storage.entries());
        assert_eq!(storage.evicted() + storage.entries() as u64, 20_000);
    }

    #[test]
    fn what_is_too_heavy_is_not_kept_and_the_old_value_neither() {
        let storage = Tested::new(1_000, Some(1_000)).unwrap();
        insert(&storage, 7, 5);
        insert(&storage, 7, 5_000);
        assert!(storage.peek(&key(7)).is_none());
        insert(&storage, 7, 6);
        assert!(matches!(storage.peek(&key(7)), Some(Entry::Value(kept)) if kept.value == 6));
    }

    #[test]
    fn room_for_nothing_is_refused() {
        assert_eq!(Tested::new(10, Some(0)).err().unwrap().field(), "weight_max");
    }
}
