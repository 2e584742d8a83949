//! What an event is found by, and which locks keep conditions true: hashes of types and tags.
//!
//! ```text
//! appender of {type T, tags x, y}      all: shared   T: shared   x: shared   y: shared
//! appender with too many of them       all: shared   many: alone
//! condition on tag x (and z)           many: shared  x: alone         one key an item is enough: what matches has it
//! condition on type T                  many: shared  T: alone
//! condition on every event             all: alone
//! ```
//! A condition takes its locks before it looks. Whoever appends what it looks for holds the same lock until its
//! transaction ends, so it is either seen or comes after. Two keys with one hash cost a wait, never a wrong answer.

use std::collections::BTreeMap;

use mainstay_event_store::{EventType, Query, QueryItem, StoreId, Tag};

/// More locks than this are exchanged for a coarser one: the server's table of locks is shared by all its clients.
const LOCKS_MAX: usize = 256;

/// Every event has it.
const ALL: i64 = 0;
/// Events of acts that have too many keys.
const MANY: i64 = 1;

fn key(domain: &[u8], text: &str) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain);
    hasher.update(text.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    i64::from_le_bytes(bytes)
}

/// The key of a type.
pub(crate) fn of_type(event_type: &EventType) -> i64 {
    key(b"t", event_type.as_str())
}

/// The key of a tag.
pub(crate) fn of_tag(tag: &Tag) -> i64 {
    key(b"g", tag.as_str())
}

/// The keys of an event: its type and each tag, each once.
pub(crate) fn of_event(event_type: &EventType, tags: &[Tag]) -> Vec<i64> {
    let mut keys = Vec::with_capacity(1 + tags.len());
    keys.push(of_type(event_type));
    keys.extend(tags.iter().map(of_tag));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Under which keys everything that matches an item is found.
pub(crate) fn of_item(item: &QueryItem) -> Vec<i64> {
    let mut keys = match item.tags.iter().min() {
        Some(tag) => vec![of_tag(tag)],
        None => item.types.iter().map(of_type).collect(),
    };
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Locks to be taken in their order; true: alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Locks(BTreeMap<i64, bool>);

impl Locks {
    /// What appending events with these keys needs.
    pub(crate) fn append(&mut self, keys: impl IntoIterator<Item = i64>) {
        let mut own = BTreeMap::new();
        for key in keys {
            own.insert(key, false);
        }
        if own.is_empty() {
            return;
        }
        self.share(ALL);
        if own.len() > LOCKS_MAX {
            self.0.insert(MANY, true);
        } else {
            own.into_keys().for_each(|key| self.share(key));
        }
    }

    /// What a condition needs.
    pub(crate) fn require(&mut self, query: &Query) {
        let mut keys: Vec<i64> = query.items.iter().flat_map(of_item).collect();
        keys.sort_unstable();
        keys.dedup();
        if query.is_all() || keys.len() > LOCKS_MAX {
            self.0.insert(ALL, true);
            return;
        }
        self.share(MANY);
        self.0.extend(keys.into_iter().map(|key| (key, true)));
    }

    fn share(&mut self, key: i64) {
        self.0.entry(key).or_insert(false);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// How many it would be with another's.
    pub(crate) fn len_with(&self, other: &Self) -> usize {
        self.len() + other.0.keys().filter(|key| !self.0.contains_key(key)).count()
    }

    /// Adds another's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (&key, &alone) in &other.0 {
            let held = self.0.entry(key).or_insert(alone);
            *held |= alone;
        }
    }

    /// The keys as the server knows them, in one order for everybody, and which are to be held alone; none when
    /// none is. The store is mixed in: advisory locks are the whole database's.
    pub(crate) fn for_server(&self, store: StoreId) -> (Vec<i64>, Option<Vec<bool>>) {
        let salt = key(b"s", &store.0.simple().to_string());
        let mut locks: Vec<(i64, bool)> = self.0.iter().map(|(key, alone)| (key ^ salt, *alone)).collect();
        locks.sort_unstable();
        let alone = self.0.values().any(|alone| *alone).then(|| locks.iter().map(|lock| lock.1).collect());
        (locks.into_iter().map(|lock| lock.0).collect(), alone)
    }
}

/// How many keys a batch may lock: as many as one act may.
pub(crate) const BATCH_LOCKS_MAX: usize = LOCKS_MAX + 2;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

    use proptest::prelude::*;

    use super::*;

    fn types(names: &[String]) -> Vec<EventType> {
        names.iter().map(|name| EventType::new(name).unwrap()).collect()
    }

    fn tags(names: &[String]) -> Vec<Tag> {
        names.iter().map(|name| Tag::new(name).unwrap()).collect()
    }

    /// Does holding one keep the other out?
    fn exclude(a: &Locks, b: &Locks) -> bool {
        a.0.iter().any(|(key, alone)| b.0.get(key).is_some_and(|other| *alone || *other))
    }

    proptest! {
        #[test]
        fn whoever_appends_what_a_condition_looks_for_meets_its_locks(
            event_type in "[ab]",
            event_tags in proptest::collection::btree_set("[xyz]", 0..4),
            many in any::<bool>(),
            items in proptest::collection::vec(
                (proptest::collection::vec("[ab]", 0..3), proptest::collection::vec("[xyz]", 0..3)), 0..3),
        ) {
            let event_tags: Vec<String> = event_tags.into_iter().collect();
            let items = items.into_iter()
                .filter(|(of_types, of_tags)| !of_types.is_empty() || !of_tags.is_empty())
                .map(|(of_types, of_tags)| QueryItem { types: types(&of_types), tags: tags(&of_tags) });
            let query = Query { items: items.collect() };
            let mut keys = of_event(&EventType::new(&event_type).unwrap(), &tags(&event_tags));
            if many {
                keys.extend(100_000..100_000 + LOCKS_MAX as i64);
            }
            let (mut appends, mut requires) = (Locks::default(), Locks::default());
            appends.append(keys);
            requires.require(&query);
            prop_assert!(appends.len().max(requires.len()) <= BATCH_LOCKS_MAX);
            if query.matches(&event_type, &event_tags.join("\n")) {
                prop_assert!(exclude(&appends, &requires), "{:?} {:?}", appends, requires);
            }
        }
    }

    #[test]
    fn appends_do_not_keep_each_other_out_and_two_conditions_on_one_key_do() {
        let (mut a, mut b) = (Locks::default(), Locks::default());
        a.append([10, 20]);
        b.append([20, 30]);
        assert!(!exclude(&a, &b));
        assert!(!exclude(&a, &a.clone()));
        let (mut c, mut d) = (Locks::default(), Locks::default());
        c.require(&Query::tags([Tag::new("x").unwrap()]));
        d.require(&Query::tags([Tag::new("x").unwrap(), Tag::new("y").unwrap()]));
        assert!(exclude(&c, &d) && !exclude(&a, &c));
        c.merge(&a);
        let store = StoreId(uuid::Uuid::from_u128(1));
        let (keys, alone) = c.for_server(store);
        assert!(keys.is_sorted());
        assert_eq!(alone.unwrap().iter().filter(|alone| **alone).count(), 1);
        assert_eq!(a.for_server(store).1, None);
        assert_ne!(a.for_server(store).0, a.for_server(StoreId(uuid::Uuid::from_u128(2))).0);
    }
}
