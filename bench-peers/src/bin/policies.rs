//! The rules for calls beside the clock, governor, failsafe, tower-resilience and tower's own, in one run on one machine.
//!
//! `cargo run --release --package bench-peers --bin policies`.

use std::hash::RandomState;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use failsafe::CircuitBreaker as _;
use governor::clock::{Clock as _, FakeRelativeClock, MonotonicClock};
use governor::{Quota, RateLimiter};
use mainstay::resilience::bulkhead::{self, Bulkhead, BulkheadLayer};
use mainstay::resilience::circuit_breaker::CircuitBreakerLayer;
use mainstay::resilience::rate_limit::{Keyed, RateLimit, Spec, TokenBucket};
use mainstay::resilience::timeout::{self, TimeoutLayer, Timeouts};
use mainstay::resilience::{EveryErrorIsTransient, InsideLayer, Outside, Scope, Undescribed};
use serde::Serialize;
use tower::timeout::Timeout;
use tower_layer::Layer;
use tower_resilience_circuitbreaker::CircuitBreakerLayer as TowerResilience;

#[path = "../../../apps/cli/src/bench/ratio.rs"]
#[allow(dead_code)]
mod ratio;
#[path = "../../../apps/cli/src/bench/rows.rs"]
#[allow(dead_code)]
mod rows;
// The same subjects and the same pairs as `mainstay bench policy`.
#[path = "../../../apps/cli/src/bench/rules.rs"]
mod rules;

use ratio::{Ratio, Target, median};
use rows::Draw;
use rules::{Echo, Side, ask, each, on_two_threads};

/// Compares the rules for calls with a reading of the clock and with other libraries, by the nanosecond.
///
/// Each comparison is made of pairs, interleaved in slices of a fifth of a millisecond; a goal is judged at the worse end
/// of the 95 % interval of the pairs' median ratio, ours to theirs. Where a library reads a clock by itself it is
/// compared twice: as it comes, and with a clock of the same kind as ours or none.
#[derive(Debug, Parser)]
#[command(name = "policies", version)]
struct Arguments {
    /// Pairs of runs in each comparison.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(7..=999))]
    pairs: u32,
    /// Only comparisons whose name has this in it.
    #[arg(long, default_value = "")]
    only: String,
    /// The figures as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Share of the last ten seconds in which some task waited for a core, as the kernel says it; before and after.
    cpu_pressure: [Option<String>; 2],
    cores: usize,
    comparisons: Vec<Comparison>,
    /// Is every goal met?
    met: bool,
}

/// Medians over the pairs of one comparison, in nanoseconds, and the ratio.
#[derive(Debug, Serialize)]
struct Comparison {
    peer: &'static str,
    ours_ns: f64,
    theirs_ns: f64,
    ratio: Ratio,
}

/// The comparisons done so far.
struct Bench {
    pairs: u32,
    only: String,
    done: Vec<Comparison>,
}

impl Bench {
    fn compare(
        &mut self,
        what: &'static str,
        most: f64,
        ours: rules::Timed<'_>,
        peer: &'static str,
        theirs: rules::Timed<'_>,
    ) {
        if !what.contains(&self.only) {
            return;
        }
        let (mut ours, mut theirs) = (Side::new(ours), Side::new(theirs));
        let ns = rules::pairs(self.pairs, &mut ours, &mut theirs);
        let each: Vec<f64> = ns.iter().map(|(ours, theirs)| ours / theirs).collect();
        let (mut one, mut other): (Vec<f64>, Vec<f64>) = ns.into_iter().unzip();
        self.done.push(Comparison {
            peer,
            ours_ns: median(&mut one),
            theirs_ns: median(&mut other),
            ratio: Ratio::of(what, &each, Target::AtMost(most)),
        });
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // Timers are armed where a call is pending; nobody waits for one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let _entered = runtime.enter();
    let before = pressure();
    let mut bench = Bench { pairs: arguments.pairs, only: arguments.only, done: Vec::new() };
    rules::against_the_clock(|what, most, ours| {
        bench.compare(what, most, ours, "Instant::now", rules::clock());
    })?;
    breakers(&mut bench)?;
    buckets(&mut bench)?;
    keyed(&mut bench)?;
    towers(&mut bench)?;
    let comparisons = bench.done;
    let report = Report {
        cpu_pressure: [before, pressure()],
        cores: std::thread::available_parallelism()?.get(),
        met: comparisons.iter().all(|done| done.ratio.met),
        comparisons,
    };
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

/// What the kernel says of tasks that wait for a core.
fn pressure() -> Option<String> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    text.split_whitespace().find_map(|word| word.strip_prefix("avg10=")).map(|some| format!("{some} %"))
}

fn breakers(bench: &mut Bench) -> Result<()> {
    let scope = Arc::new(Scope::system("callee"));
    let (ours, mut given) = (rules::breaker(&scope)?, rules::given());
    let at = given();
    let second = Duration::from_secs(5);
    // It reads a clock only as its window slides; ours reads one at the call's start and end.
    let rate = failsafe::failure_policy::success_rate_over_time_window(
        0.5,
        20,
        Duration::from_secs(10),
        failsafe::backoff::constant(second),
    );
    let rate = failsafe::Config::new().failure_policy(rate).build();
    let in_a_row = failsafe::failure_policy::consecutive_failures(20, failsafe::backoff::constant(second));
    let in_a_row = failsafe::Config::new().failure_policy(in_a_row).build();
    let ok = || Ok::<_, ()>(black_box(1_u64));
    bench.compare(
        "breaker: rates, real clock",
        1.0,
        each(|| rules::check_and_record(&ours, || scope.now())),
        "failsafe",
        each(|| rate.call(ok)),
    );
    bench.compare(
        "breaker: no clock (theirs: failures in a row)",
        1.0,
        each(|| rules::check_and_record(&ours, &mut given)),
        "failsafe",
        each(|| in_a_row.call(ok)),
    );
    bench.compare(
        "breaker: two threads, real clock",
        1.0,
        on_two_threads(|| rules::check_and_record(&ours, || scope.now())),
        "failsafe",
        on_two_threads(|| rate.call(ok)),
    );
    bench.compare(
        "breaker: two threads, no clock",
        1.0,
        on_two_threads(|| rules::check_and_record(&ours, || at)),
        "failsafe",
        on_two_threads(|| in_a_row.call(ok)),
    );
    let inside = InsideLayer::new(Undescribed).layer(Echo(0));
    let layer = CircuitBreakerLayer::new(Some(ours.clone()), EveryErrorIsTransient);
    let mut service = Outside::new(layer.layer(inside), Arc::clone(&scope), Undescribed);
    let mut peer = tower_resilience()?.layer(Echo(0));
    bench.compare(
        "breaker: as a layer",
        1.0,
        each(|| ask(&mut service)),
        "tower-resilience",
        each(|| ask(&mut peer)),
    );
    Ok(())
}

/// Set as ours is.
fn tower_resilience() -> Result<TowerResilience> {
    TowerResilience::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .minimum_number_of_calls(20)
        .slow_call_duration_threshold(Duration::from_millis(200))
        .slow_call_rate_threshold(0.5)
        .build()
        .context("tower-resilience refused its settings")
}

/// As many permits as nobody uses up here, refilled each microsecond.
const BURST: u32 = 4_000_000_000;

fn quota() -> Result<Quota> {
    let quota = Quota::with_period(Duration::from_micros(1)).context("a microsecond is a period")?;
    Ok(quota.allow_burst(NonZeroU32::new(BURST).context("it is not zero")?))
}

fn spec() -> Spec {
    Spec::token_bucket(1_000_000, Duration::from_secs(1)).burst(BURST)
}

fn buckets(bench: &mut Bench) -> Result<()> {
    let scope = Scope::system("callee");
    let ours = TokenBucket::new(&spec().check()?);
    let default = RateLimiter::direct(quota()?);
    let same = RateLimiter::direct_with_clock(quota()?, MonotonicClock);
    let fake = RateLimiter::direct_with_clock(quota()?, FakeRelativeClock::default());
    let at = scope.now();
    let real = || ours.take(scope.now(), 1).is_ok();
    let given = || ours.take(black_box(at), 1).is_ok();
    bench.compare(
        "token bucket: as it comes (theirs: TSC)",
        1.2,
        each(real),
        "governor",
        each(|| default.check().is_ok()),
    );
    bench.compare("token bucket: std's clock", 1.2, each(real), "governor", each(|| same.check().is_ok()));
    bench.compare("token bucket: no clock", 1.2, each(given), "governor", each(|| fake.check().is_ok()));
    bench.compare(
        "token bucket: two threads, no clock",
        1.2,
        on_two_threads(given),
        "governor",
        on_two_threads(|| fake.check().is_ok()),
    );
    // One permit in thirty days, and it is gone: every further request is refused, with the time to wait.
    let month = Duration::from_secs(30 * 24 * 3_600);
    let ours = TokenBucket::new(&Spec::token_bucket(1, month).check()?);
    let theirs = RateLimiter::direct(Quota::with_period(month).context("a month is a period")?);
    bench.compare(
        "token bucket: refused, with the wait",
        1.2,
        each(|| ours.take(scope.now(), 1)),
        "governor",
        each(|| theirs.check().map_err(|not_until| not_until.wait_time_from(theirs.clock().now()))),
    );
    Ok(())
}

fn keyed(bench: &mut Bench) -> Result<()> {
    const KEYS: u64 = 100_000;
    let scope = Scope::system("callee");
    let ours = Keyed::<u64, _>::new(&spec().keys_max(120_000).check()?, RandomState::new());
    let default = RateLimiter::keyed(quota()?);
    let same = RateLimiter::dashmap_with_clock(quota()?, MonotonicClock);
    let fake = RateLimiter::dashmap_with_clock(quota()?, FakeRelativeClock::default());
    let at = scope.now();
    for key in 0..KEYS {
        // Every key has its place before anything is measured.
        let _ = (ours.take(at, &key, 1), default.check_key(&key), same.check_key(&key), fake.check_key(&key));
    }
    // In an order of chance, the same for all: what a server sees, and what a processor can't foresee.
    let mut draw = Draw(0x9E37_79B9_7F4A_7C15);
    let order: Vec<u64> = (0..1 << 16).map(|_| draw.next() % KEYS).collect();
    let order = &order;
    let keys = || {
        let mut at = 0;
        move || {
            at = (at + 1) % order.len();
            order[at]
        }
    };
    let (mut a, mut b) = (keys(), keys());
    bench.compare(
        "keyed: as it comes (theirs: TSC)",
        1.0,
        each(|| ours.take(scope.now(), &a(), 1).is_ok()),
        "governor",
        each(|| default.check_key(&b()).is_ok()),
    );
    let (mut a, mut b) = (keys(), keys());
    bench.compare(
        "keyed: std's clock",
        1.0,
        each(|| ours.take(scope.now(), &a(), 1).is_ok()),
        "governor",
        each(|| same.check_key(&b()).is_ok()),
    );
    let (mut a, mut b) = (keys(), keys());
    bench.compare(
        "keyed: no clock",
        1.0,
        each(|| ours.take(black_box(at), &a(), 1).is_ok()),
        "governor",
        each(|| fake.check_key(&b()).is_ok()),
    );
    Ok(())
}

/// Never tries again; it has to copy the request and be asked about the answer all the same.
#[derive(Debug, Clone)]
struct Never;

impl<E> tower::retry::Policy<u64, u64, E> for Never {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut u64, _: &mut Result<u64, E>) -> Option<Self::Future> {
        None
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

/// Tower's own layers with the limits of our stack: total, retry, permits, attempt.
fn theirs_around<S: Clone>(
    inner: S,
) -> Timeout<tower::retry::Retry<Never, tower::limit::ConcurrencyLimit<Timeout<S>>>> {
    let attempt = Timeout::new(inner, Duration::from_millis(300));
    let permits = tower::limit::ConcurrencyLimit::new(attempt, 32);
    Timeout::new(tower::retry::Retry::new(Never, permits), Duration::from_secs(2))
}

fn towers(bench: &mut Bench) -> Result<()> {
    let scope = Arc::new(Scope::system("callee"));
    let inside = || InsideLayer::new(Undescribed).layer(Echo(0));
    let permits = bulkhead::Spec::permits(32).queue(64).check()?;
    let layer = BulkheadLayer::new(Some(Bulkhead::new(Some(permits), Arc::clone(&scope))));
    let mut ours = Outside::new(layer.layer(inside()), Arc::clone(&scope), Undescribed);
    let mut theirs = tower::limit::ConcurrencyLimit::new(Echo(0), 32);
    bench.compare(
        "bulkhead (theirs: ConcurrencyLimit)",
        1.0,
        each(|| ask(&mut ours)),
        "tower",
        each(|| ask(&mut theirs)),
    );
    let layer = RateLimit::new(&scope, spec().check()?)?.layer();
    let mut ours = Outside::new(layer.layer(inside()), Arc::clone(&scope), Undescribed);
    let rate = tower::limit::rate::Rate::new(u64::from(BURST), Duration::from_secs(3_600));
    let mut theirs = tower::limit::RateLimit::new(Echo(0), rate);
    // Theirs is one service's own count behind `&mut`; ours is shared by all clones.
    bench.compare(
        "rate limit (theirs: not shared)",
        1.0,
        each(|| ask(&mut ours)),
        "tower",
        each(|| ask(&mut theirs)),
    );
    let limit = Duration::from_millis(300);
    for (what, polls) in [("timeout, ready at once", 0), ("timeout, pending once", 1)] {
        let timeouts = Timeouts::new(timeout::Spec::default().attempt(limit).check()?, Arc::clone(&scope));
        let inside = InsideLayer::new(Undescribed).layer(Echo(polls));
        let layer = TimeoutLayer::new(timeouts, timeout::Kind::Attempt);
        let mut ours = Outside::new(layer.layer(inside), Arc::clone(&scope), Undescribed);
        let mut theirs = Timeout::new(Echo(polls), limit);
        bench.compare(what, 1.0, each(|| ask(&mut ours)), "tower", each(|| ask(&mut theirs)));
    }
    let whats =
        [("full stack, ready (theirs: no breaker)", 0), ("full stack, pending once (theirs: no breaker)", 1)];
    for (what, polls) in whats {
        let mut ours = rules::stack(polls)?;
        let mut theirs = theirs_around(Echo(polls));
        bench.compare(what, 1.0, each(|| ask(&mut ours)), "tower", each(|| ask(&mut theirs)));
    }
    let whats = [("full stack, ready", 0), ("full stack, pending once", 1)];
    for (what, polls) in whats {
        let mut ours = rules::stack(polls)?;
        let mut theirs = theirs_around(tower_resilience()?.layer(Echo(polls)));
        bench.compare(
            what,
            1.0,
            each(|| ask(&mut ours)),
            "tower with tower-resilience",
            each(|| ask(&mut theirs)),
        );
    }
    Ok(())
}

fn print(report: &Report) {
    let Report { cpu_pressure: [before, after], cores, comparisons, met } = report;
    let shown = |some: &Option<String>| some.clone().unwrap_or("unknown".into());
    println!("CPU pressure {} before, {} after; {cores} cores", shown(before), shown(after));
    println!("{:<46} {:>8} {:>8}  ratio [95 %]", "ours / theirs", "ours ns", "theirs");
    for Comparison { peer, ours_ns, theirs_ns, ratio } in comparisons {
        let Ratio { what, median, low, high, pairs, target, met } = ratio;
        let met = if *met { "met" } else { "MISSED" };
        println!(
            "{what:<46} {ours_ns:>8.1} {theirs_ns:>8.1}  {median:.2} [{low:.2}, {high:.2}] over {pairs} pairs, \
             {peer}, goal {target}: {met}"
        );
    }
    println!("{}", if *met { "every goal is met" } else { "not every goal is met" });
}
