//! What is under way for each key: its load, and its writes. The one lock under which entries change.
//!
//! Whoever replaces or removes an entry does so here, and takes the key's load out of the map in the same step: the
//! load goes on for those who wait for it already, and what it brings is not kept, since it may have read what was
//! there before. So nothing that was read before a change outlives it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use mainstay_envelope::sync::atomic::{AtomicUsize, Ordering};
use mainstay_envelope::sync::{Mutex, MutexGuard, PoisonError};

use super::key::Keyed;
use super::single_flight::Flight;

/// Locks that share the keys.
const SHARDS: usize = 16;

pub(super) struct Flights<K, T> {
    shards: [Mutex<Shard<K, T>>; SHARDS],
    hasher: RandomState,
}

pub(super) type Shard<K, T> = HashMap<Keyed<K>, Slot<T>>;

/// What is under way for one key.
pub(super) struct Slot<T> {
    /// The load that callers join, and whose result is kept.
    pub(super) flight: Option<Arc<Flight<T>>>,
    /// Writes under way.
    pub(super) writes: usize,
    /// Of those under way, several were at a time: nobody knows which of them came last.
    pub(super) contended: bool,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { flight: None, writes: 0, contended: false }
    }
}

impl<K: Eq + Hash, T: Clone> Flights<K, T> {
    pub(super) fn new() -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, hasher: RandomState::new() }
    }

    /// The shard of a key, locked. Never held across an await, nor while user code runs.
    pub(super) fn lock(&self, key: &Keyed<K>) -> MutexGuard<'_, Shard<K, T>> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a load out of the map if it is the key's; whether it was. For its end.
    pub(super) fn forget(shard: &mut Shard<K, T>, key: &Keyed<K>, flight: &Arc<Flight<T>>) -> bool {
        let Some(slot) = shard.get_mut(key) else { return false };
        if !slot.flight.as_ref().is_some_and(|present| Arc::ptr_eq(present, flight)) {
            return false;
        }
        slot.flight = None;
        if slot.writes == 0 {
            shard.remove(key);
        }
        true
    }

    /// Takes the key's load out of the map, if there is one: what it brings is not kept.
    pub(super) fn detach(shard: &mut Shard<K, T>, key: &Keyed<K>) {
        if let Some(slot) = shard.get_mut(key) {
            slot.flight = None;
            if slot.writes == 0 {
                shard.remove(key);
            }
        }
    }

    /// Takes all loads out of the map, shard by shard; `each` runs under every shard's lock.
    pub(super) fn detach_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, slot| {
                slot.flight = None;
                slot.writes > 0
            });
        }
    }
}

/// Places of which only so many can be taken.
#[derive(Debug, Default)]
pub(super) struct Places(AtomicUsize);

/// One place; given back on drop.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Places {
    /// Takes one, if fewer than `limit` are taken.
    pub(super) fn take(self: &Arc<Self>, limit: usize) -> Option<Place> {
        self.ask(limit).1
    }

    /// The same, with how many were taken before: fewer than `limit` if there is a place.
    pub(super) fn ask(self: &Arc<Self>, limit: usize) -> (usize, Option<Place>) {
        let below = |taken: usize| (taken < limit).then_some(taken + 1);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below) {
            Ok(taken) => (taken, Some(Place(Arc::clone(self)))),
            Err(taken) => (taken, None),
        }
    }

    /// Takes one whatever is taken: in place of one that is about to be given back.
    pub(super) fn take_over(self: &Arc<Self>) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(self))
    }

    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
