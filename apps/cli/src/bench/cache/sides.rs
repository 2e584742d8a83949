//! What is compared: our cache, and the library it keeps its entries in, bare.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use mainstay::Context;
use mainstay::cache::{Cache, Loaded, Spec};
use mainstay::envelope::Monotonic;
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, UnitWeighter};

/// The library, with values that are shared as ours are.
pub(super) type Bare = quick_cache::sync::Cache<u64, Arc<u64>>;

/// With as many locks as it chooses, or with one.
pub(super) fn bare(entries: usize, one_lock: bool) -> Result<Bare> {
    if !one_lock {
        return Ok(Bare::new(entries));
    }
    let mut options = OptionsBuilder::new();
    options.shards(1).estimated_items_capacity(entries).weight_capacity(entries as u64);
    let (hasher, drops) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
    Ok(Bare::with_options(options.build()?, UnitWeighter, hasher, drops))
}

/// Ours, with times, tags on one value in eight, and an audience.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) cache: Cache<u64, u64>,
    pub(super) cx: Context,
}

impl Ours {
    pub(super) fn new(entries: usize) -> Result<Self> {
        let spec = Spec::for_everybody(Duration::from_secs(3_600)).entries_max(entries);
        let spec =
            spec.stale_while_revalidate(Duration::from_secs(60)).stale_if_error(Duration::from_secs(60));
        Ok(Self { cache: Cache::new("ours", spec)?, cx: Context::system() })
    }

    pub(super) fn put(&self, key: u64) {
        let loaded = Loaded::found(key);
        let loaded = if key.is_multiple_of(8) { loaded.tag("eighth") } else { loaded };
        self.cache.put(&self.cx, key, loaded);
    }

    /// A hit that reads the clock.
    pub(super) fn get(&self, key: u64) -> Option<u64> {
        self.cache.get(&self.cx, &key).map(|value| *value)
    }

    /// A hit of somebody who has read it already.
    pub(super) fn get_at(&self, key: u64, now: Monotonic) -> Option<u64> {
        self.cache.get_at(&self.cx, &key, now).map(|value| *value)
    }
}
