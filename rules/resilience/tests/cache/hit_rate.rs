//! What our times, tags and stale entries make of the storage's hit rate: nothing. Counted exactly.
//!
//! Beside the cache runs the bare library, whose entries are judged by hand. Both have one shard, in which the order of
//! eviction depends on nothing but the questions; so the counts are equal, not alike, whatever the machine.

use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{Chance, Clock, Context, Envelope, ManualClock, Priority, SeededChance};
use mainstay_resilience::Scope;
use mainstay_resilience::cache::{Cache, Loaded, Spec};
use mainstay_resilience::record::Recorder;
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, UnitWeighter};

use crate::kit::secs;

const ENTRIES: usize = 500;
const QUESTIONS: usize = 30_000;

type Bare = quick_cache::sync::Cache<u64, Judged>;

/// A value of the bare library, with what decides about it.
#[derive(Clone)]
struct Judged {
    expiry: Duration,
    tagged: bool,
    /// Invalidations before it was read.
    stamp: u64,
}

fn bare() -> Bare {
    let mut options = OptionsBuilder::new();
    options.shards(1).estimated_items_capacity(ENTRIES).weight_capacity(ENTRIES as u64);
    let (hasher, drops) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
    Bare::with_options(options.build().unwrap(), UnitWeighter, hasher, drops)
}

/// Keys by their popularity, P(k) ~ 1/kˢ.
fn zipf(s: f64, chance: &SeededChance) -> Vec<u64> {
    let mut sum = 0.0;
    let shares: Vec<f64> = (1..=ENTRIES * 100)
        .map(|k| {
            sum += (k as f64).powf(-s);
            sum
        })
        .collect();
    let draw = || (chance.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
    (0..QUESTIONS).map(|_| shares.partition_point(|share| *share < draw()) as u64).collect()
}

fn traces() -> [(&'static str, Vec<u64>); 4] {
    let chance = SeededChance::new(42);
    let scanned = zipf(1.0, &chance).into_iter().enumerate();
    // One in five belongs to a scan that never comes back.
    let scanned = scanned.map(|(n, key)| if n % 5 == 0 { (ENTRIES * 100 + n) as u64 } else { key }).collect();
    let around = ENTRIES * 6 / 5;
    [
        ("Zipf 0.9", zipf(0.9, &chance)),
        ("Zipf 1.1", zipf(1.1, &chance)),
        ("Zipf 1.0 with scans", scanned),
        ("loop of 1.2 times the size", (0..QUESTIONS).map(|n| (n % around) as u64).collect()),
    ]
}

/// Hits of ours and of the bare library: a question a millisecond; every 10,000th, one value in eight is invalidated.
fn hits(trace: &[u64], ttl: Duration) -> (u64, u64) {
    let clock = ManualClock::default();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let chance: Arc<dyn Chance> = Arc::new(SeededChance::new(1));
    let cx =
        Context::new(Envelope::begin(Priority::Normal, &*chance), Arc::clone(&shared), Arc::clone(&chance));
    let scope = Arc::new(Scope::new("tested", shared, chance, Recorder::off()));
    let spec = Spec::for_everybody(ttl).ttl_jitter(0.0).entries_max(ENTRIES);
    let spec = spec.stale_while_revalidate(secs(60)).stale_if_error(secs(600));
    let cache: Cache<u64, u64> = Cache::builder("tested", spec).scope(scope).build().unwrap();
    let (bare, mut ours, mut theirs, mut stamp) = (bare(), 0, 0, 0);
    for (n, key) in trace.iter().enumerate() {
        let (now, tagged) = (clock.now().since_origin(), key.is_multiple_of(8));
        match cache.get(&cx, key) {
            Some(_) => ours += 1,
            None if tagged => cache.put(&cx, *key, Loaded::found(*key).tag("eighth")),
            None => cache.put(&cx, *key, *key),
        }
        match bare.get(key) {
            Some(kept) if now < kept.expiry && (!kept.tagged || kept.stamp == stamp) => theirs += 1,
            _ => bare.insert(*key, Judged { expiry: now + ttl, tagged, stamp }),
        }
        if n % 10_000 == 9_999 {
            cache.invalidate_tag("eighth");
            stamp += 1;
        }
        clock.advance(Duration::from_millis(1));
    }
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses), (ours, QUESTIONS as u64 - ours));
    assert!(stats.evictions > 0 && stats.entries <= ENTRIES as u64, "{stats:?}");
    (ours, theirs)
}

#[test]
fn times_tags_and_stale_entries_cost_no_hit() {
    for (pattern, trace) in traces() {
        // Of an hour none runs out; of ten seconds, in half a minute of questions, most do.
        let [(hour, bare_hour), (seconds, bare_seconds)] =
            [secs(3_600), secs(10)].map(|ttl| hits(&trace, ttl));
        assert_eq!((hour, seconds), (bare_hour, bare_seconds), "{pattern}");
        assert!(seconds < hour && hour > QUESTIONS as u64 / 10, "{pattern}: {seconds}, {hour}");
    }
}
