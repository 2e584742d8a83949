//! What the rules decide, and when, on the machine's clock: a timeline in tenths of a second, the same at every run.
//!
//! `cargo run --package mainstay-resilience --example timeline --all-features`. It takes two seconds. `cargo xtask clock`
//! runs it while the wall clock jumps to and fro by an hour, and compares.
//!
//! Standard output is the timeline. Standard error says how often the wall clock jumped, and how late this process was
//! woken at worst: on a machine that is too busy a timeline means nothing, which is no fault of the rules.

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mainstay_envelope::Context;
use mainstay_resilience::cache::{self, Cache};
use mainstay_resilience::rate_limit::{Denied, Spec, TokenBucket};
use mainstay_resilience::{
    Breaker, EveryErrorIsTransient, Facts, Failed, OutboundBuilder, Policy, Retry, Safety, Scope,
};

type Answer = Result<&'static str, &'static str>;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let watch = Watch::begin();
    let began = Instant::now();
    let lines = tokio::try_join!(
        breaker(Timeline::new("breaker", began)),
        bucket(Timeline::new("token bucket", began)),
        deadline(Timeline::new("deadline", began)),
        ttl(Timeline::new("cache", began)),
        retries(Timeline::new("retries", began)),
    )?;
    for timeline in [lines.0, lines.1, lines.2, lines.3, lines.4] {
        timeline.0.iter().for_each(|line| println!("{line}"));
    }
    let Seen { jumps, late } = watch.end()?;
    eprintln!("jumps {jumps}");
    eprintln!("late_ms {}", late.as_millis());
    Ok(())
}

/// What happened when, one line each.
struct Timeline(Vec<String>, &'static str, Instant);

impl Timeline {
    const fn new(rule: &'static str, began: Instant) -> Self {
        Timeline(Vec::new(), rule, began)
    }

    /// Sleeps until so long after the beginning. Tokio's timers are the machine's monotonic clock.
    async fn until(&self, at: Duration) {
        tokio::time::sleep_until(tokio::time::Instant::from_std(self.2 + at)).await;
    }

    /// Writes down what happens now.
    fn note(&mut self, what: impl Display) {
        self.0.push(format!("{:.1} s {}: {what}", self.2.elapsed().as_secs_f64(), self.1));
    }
}

/// In tenths of a second.
fn shown(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

async fn ask<Fut>(policy: &Policy, callee: impl Fn(Facts) -> Fut + Clone) -> String
where
    Fut: Future<Output = Answer>,
{
    let facts = |now| Facts::unknown(now).with_safety(Safety::Safe);
    match policy.call(facts, EveryErrorIsTransient, callee).await {
        Ok(answer) => answer.to_owned(),
        Err(Failed::Upstream(error)) => error.to_owned(),
        Err(Failed::Refused(refusal)) => {
            let wait = refusal.retry_after.map_or_else(String::new, |wait| format!(", {} left", shown(wait)));
            format!("refused by {:?}{wait}", refusal.rule)
        }
    }
}

fn outbound(name: &str) -> OutboundBuilder {
    Policy::outbound(name)
}

/// Two failures open it for half a second; a probe closes it.
async fn breaker(mut line: Timeline) -> Result<Timeline, Box<dyn Error>> {
    let settings = Breaker::failure_rate(0.5).over(4).minimum_calls(2).open_for(ms(500));
    let policy = outbound("breaker").breaker(settings).build()?;
    for _ in 0..2 {
        line.note(ask(&policy, |_| async { Err("failed") }).await);
    }
    for at in [200, 400, 800, 900, 1_600] {
        line.until(ms(at)).await;
        line.note(ask(&policy, |_| async { Ok("answered") }).await);
    }
    Ok(line)
}

/// A token each 700 ms, and never more than one.
async fn bucket(mut line: Timeline) -> Result<Timeline, Box<dyn Error>> {
    let (bucket, scope) =
        (TokenBucket::new(&Spec::token_bucket(1, ms(700)).check()?), Scope::system("bucket"));
    for at in [0, 200, 400, 1_000, 1_200, 2_000] {
        line.until(ms(at)).await;
        match bucket.take(scope.now(), 1) {
            Ok(()) => line.note("admitted"),
            Err(Denied::NotYet { retry_after }) => line.note(format!("denied for {}", shown(retry_after))),
            Err(other) => line.note(other),
        }
    }
    Ok(line)
}

/// A call may take 600 ms.
async fn deadline(mut line: Timeline) -> Result<Timeline, Box<dyn Error>> {
    let policy = outbound("deadline").total(ms(600)).build()?;
    for takes in [ms(300), Duration::from_secs(3_600), ms(400)] {
        let callee = move |_| async move {
            tokio::time::sleep(takes).await;
            Ok("answered")
        };
        line.note(ask(&policy, callee).await);
    }
    Ok(line)
}

/// A value is good for 700 ms.
async fn ttl(mut line: Timeline) -> Result<Timeline, Box<dyn Error>> {
    let settings = cache::Spec::for_everybody(ms(700)).ttl_jitter(0.0).early_refresh(0.0);
    let cache = Cache::<String, u32, Infallible>::new("cache", settings)?;
    let (cx, loads) = (Context::system(), Arc::new(AtomicU32::new(0)));
    for at in [0, 200, 500, 1_000, 1_300, 2_000] {
        line.until(ms(at)).await;
        let loads = Arc::clone(&loads);
        let load = |_, _| async move { Ok(loads.fetch_add(1, Ordering::Relaxed) + 1) };
        let value = cache.get_or_load(&cx, "key", load).await?;
        line.note(format!("load number {}", value.as_deref().copied().unwrap_or_default()));
    }
    Ok(line)
}

/// After 300 ms, and after 600 more.
async fn retries(mut line: Timeline) -> Result<Timeline, Box<dyn Error>> {
    let settings = Retry::exact(ms(300), ms(600)).max_attempts(3);
    let policy = outbound("retries").total(ms(1_800)).retry(settings).build()?;
    let tries = Arc::new(AtomicU32::new(0));
    let callee = move |_| {
        let is_third = tries.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        async move { if is_third { Ok("answered at the third try") } else { Err("failed") } }
    };
    line.note(ask(&policy, callee.clone()).await);
    line.note(ask(&policy, callee).await);
    Ok(line)
}

/// A thread that looks at both clocks all the time.
struct Watch {
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// How often wall time went on by another amount than the monotonic clock.
    jumps: u32,
    /// How much later than it wished it was woken, at worst.
    late: Duration,
}

impl Watch {
    fn begin() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            let (mut wall, mut monotonic) = (SystemTime::now(), Instant::now());
            while !over.load(Ordering::Relaxed) {
                const STEP: Duration = ms(5);
                std::thread::sleep(STEP);
                let (wall_now, now) = (SystemTime::now(), Instant::now());
                let passed = now - monotonic;
                let by_wall = wall_now.duration_since(wall).unwrap_or_else(|back| back.duration());
                seen.jumps += u32::from(by_wall.abs_diff(passed) > Duration::from_secs(60));
                seen.late = seen.late.max(passed.saturating_sub(STEP));
                (wall, monotonic) = (wall_now, now);
            }
            seen
        });
        Watch { is_over, thread }
    }

    fn end(self) -> Result<Seen, Box<dyn Error>> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the thread that looks at the clocks panicked".into())
    }
}
