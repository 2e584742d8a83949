//! Where a cache's entries may lie: quick_cache and moka compared on hit rate, time for a hit, and repeatability; and what
//! our cache makes of the one it lies on.
//!
//! `cargo run --release --package bench-peers --bin caches`. The choice: docs/decisions/0023-cache-storage.md. Nobody's clock
//! may be part of what is compared, so neither library is given a time to live.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use mainstay::Context;
use mainstay::cache::{Cache, Loaded, Spec};
use mainstay::envelope::{Chance, Monotonic, SeededChance};

#[path = "../../../apps/cli/src/bench/ratio.rs"]
#[allow(dead_code)]
mod ratio;

#[path = "../../../apps/cli/src/bench/cache/traces.rs"]
mod traces;

use ratio::{Ratio, Target, median};
use traces::traces;

/// Compares storages of cache entries.
#[derive(Debug, Parser)]
#[command(name = "caches", version)]
struct Arguments {
    /// Questions of each trace.
    #[arg(long, default_value_t = 2_000_000)]
    questions: usize,
    /// Entries of each cache in the traces.
    #[arg(long, default_value_t = 10_000)]
    entries: usize,
    /// Interleaved pairs of runs for each time.
    #[arg(long, default_value_t = 9)]
    pairs: usize,
}

/// Anything that keeps a number under a number.
trait Storage: Send + Sync {
    fn get(&self, key: u64) -> Option<u64>;
    fn put(&self, key: u64);
    fn entries(&self) -> u64;
}

struct Quick(quick_cache::sync::Cache<u64, Arc<u64>>);

impl Storage for Quick {
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key).map(|value| *value)
    }

    fn put(&self, key: u64) {
        self.0.insert(key, Arc::new(key));
    }

    fn entries(&self) -> u64 {
        self.0.len() as u64
    }
}

/// The same with a reading of the clock for each question, which anything with a time to live needs from somewhere. A
/// reading waits for what was begun before it; without one a processor works on several questions at a time.
struct Timed(quick_cache::sync::Cache<u64, Arc<u64>>, Context);

impl Storage for Timed {
    fn get(&self, key: u64) -> Option<u64> {
        black_box(self.1.now());
        self.0.get(&key).map(|value| *value)
    }

    fn put(&self, key: u64) {
        self.0.insert(key, Arc::new(key));
    }

    fn entries(&self) -> u64 {
        self.0.len() as u64
    }
}

struct Moka(moka::sync::Cache<u64, Arc<u64>>);

impl Storage for Moka {
    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key).map(|value| *value)
    }

    fn put(&self, key: u64) {
        self.0.insert(key, Arc::new(key));
    }

    fn entries(&self) -> u64 {
        self.0.iter().count() as u64
    }
}

/// Ours: with times, tags on one value in eight, and an audience. `at`: a reading of the clock that is there already.
struct Ours {
    cache: Cache<u64, u64>,
    cx: Context,
    at: Option<Monotonic>,
}

impl Storage for Ours {
    fn get(&self, key: u64) -> Option<u64> {
        match self.at {
            Some(now) => self.cache.get_at(&self.cx, &key, now),
            None => self.cache.get(&self.cx, &key),
        }
        .map(|value| *value)
    }

    fn put(&self, key: u64) {
        let loaded = Loaded::found(key);
        let loaded = if key.is_multiple_of(8) { loaded.tag("eighth") } else { loaded };
        self.cache.put(&self.cx, key, loaded);
    }

    fn entries(&self) -> u64 {
        self.cache.stats().entries
    }
}

const NAMES: [&str; 5] = ["quick_cache", "moka", "ours", "quick_cache and a clock", "ours with a clock"];

fn storages(entries: usize) -> Result<[Box<dyn Storage>; 5]> {
    let spec = Spec::for_everybody(Duration::from_secs(3_600)).entries_max(entries);
    let spec = spec.stale_while_revalidate(Duration::from_secs(60)).stale_if_error(Duration::from_secs(60));
    let cx = Context::system();
    Ok([
        Box::new(Quick(quick_cache::sync::Cache::new(entries))),
        Box::new(Moka(moka::sync::Cache::new(entries as u64))),
        Box::new(Ours { cache: Cache::new("ours", spec)?, at: Some(cx.now()), cx: cx.clone() }),
        Box::new(Timed(quick_cache::sync::Cache::new(entries), cx.clone())),
        Box::new(Ours { cache: Cache::new("ours", spec)?, at: None, cx: cx.clone() }),
    ])
}

/// Hits of a trace, and at most how many entries there were.
fn hits(storage: &dyn Storage, trace: &[u64]) -> (usize, u64) {
    let (mut hits, mut most) = (0, 0);
    for (n, key) in trace.iter().enumerate() {
        match storage.get(*key) {
            Some(_) => hits += 1,
            None => storage.put(*key),
        }
        if n % 50_000 == 0 {
            most = most.max(storage.entries());
        }
    }
    (hits, most)
}

/// Nanoseconds for a hit, among this many keys that are all there, with this many threads. `chained`: each question
/// needs the answer to the one before, as in code that does something with it; otherwise the processor works on several
/// at a time.
fn time(storage: &dyn Storage, keys: &[u64], threads: usize, chained: bool) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let at = keys.len() / threads * thread;
                let mut answer = 0;
                for key in keys[at..].iter().chain(&keys[..at]) {
                    // Zero, but the compiler and the processor don't know.
                    let needed = if chained { black_box(answer) & 1 << 63 } else { 0 };
                    answer = black_box(storage.get(*key | needed).unwrap_or(0));
                }
            });
        }
    });
    begun.elapsed().as_nanos() as f64 / keys.len() as f64
}

fn main() -> Result<()> {
    let Arguments { questions, entries, pairs } = Arguments::parse();

    println!(
        "hit rate, {questions} questions, {entries} entries; most entries seen; the same trace once more"
    );
    for (pattern, trace) in traces(questions, entries) {
        for (name, (first, again)) in NAMES.iter().zip(storages(entries)?.iter().zip(&storages(entries)?)) {
            let ((found, most), (repeated, _)) = (hits(&**first, &trace), hits(&**again, &trace));
            let rate = |hits: usize| hits as f64 / trace.len() as f64 * 100.0;
            let drift = rate(repeated) - rate(found);
            println!("{pattern:<28} {name:<12} {:>6.2} %  {most:>7}  {drift:>+7.3}", rate(found));
        }
    }

    println!("\ntime of a hit, in ns: median of {pairs} interleaved runs");
    let chance = SeededChance::new(7);
    let cases = [(1_000_u64, 1), (1_000, 2), (100_000, 1), (100_000, 2)];
    for ((resident, threads), chained) in cases.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        // Twice as large as what is kept, so that no shard has to evict.
        let storages = storages(resident as usize * 2)?;
        let keys: Vec<u64> = (0..500_000).map(|_| chance.next_u64() % resident).collect();
        for storage in &storages {
            (0..resident).for_each(|key| storage.put(key));
            time(&**storage, &keys, 1, false);
        }
        let mut times = vec![Vec::new(); storages.len()];
        for pair in 0..pairs {
            for n in 0..storages.len() {
                let at = (n + pair) % storages.len();
                times[at].push(time(&*storages[at], &keys, threads, chained));
            }
        }
        let shown: Vec<String> = NAMES
            .iter()
            .zip(&times)
            .map(|(name, ns)| format!("{name} {:.1}", median(&mut ns.clone())))
            .collect();
        let how = if chained { "chained" } else { "back to back" };
        println!("{resident:>7} keys, {threads} threads, {how}: {}", shown.join(", "));
        for (what, ours, bare) in [("ours / quick_cache", 2, 0), ("the same, both with a clock", 4, 3)] {
            let ratios: Vec<f64> =
                times[ours].iter().zip(&times[bare]).map(|(ours, bare)| ours / bare).collect();
            let Ratio { median, low, high, met, .. } = Ratio::of(what, &ratios, Target::AtMost(2.5));
            let met = if met { "met" } else { "MISSED" };
            println!("{:>10}{what:<28} {median:.2} [{low:.2}, {high:.2}], goal <= 2.5: {met}", "");
        }
    }
    Ok(())
}
