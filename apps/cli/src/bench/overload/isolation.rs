//! One callee hangs: what the callers of the others wait.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mainstay::resilience::bulkhead::{BlockingPool, BlockingSpec};
use mainstay::resilience::{EveryErrorIsTransient, Facts, Policy, Scope};

use super::super::ratio::{Ratio, Target};

/// Calls a second of each callee, and how long a well one takes.
const RATE: u32 = 300;
const WORK: Duration = Duration::from_millis(5);
const RUN: Duration = Duration::from_millis(500);
/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(2);
const PERMITS: u32 = 32;
const THREADS: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Illness {
    None,
    /// Its calls never answer.
    Hangs,
    /// Nor do they give back the thread they run on.
    Blocks,
}

pub(super) fn measure(pairs: u32) -> Result<Vec<Ratio>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let run = |illness| runtime.block_on(p99_ms(illness));
    // The first run of all warms caches and timers.
    run(Illness::None)?;
    let mut ratios = Vec::new();
    for (what, illness) in [
        ("p99 of the others beside a callee that hangs", Illness::Hangs),
        ("p99 of the others beside one that blocks its threads", Illness::Blocks),
    ] {
        let mut each = Vec::new();
        for pair in 0..pairs {
            // By turns, so that neither side is always the later one.
            let (well, ill) = if pair % 2 == 0 {
                let well = run(Illness::None)?;
                (well, run(illness)?)
            } else {
                let ill = run(illness)?;
                (run(Illness::None)?, ill)
            };
            each.push(ill / well);
        }
        ratios.push(Ratio::of(what, &each, Target::AtMost(1.5)));
    }
    Ok(ratios)
}

#[derive(Clone)]
struct Callee {
    policy: Policy,
    pool: BlockingPool,
    illness: Illness,
    is_blocking: bool,
    /// Whoever blocks waits here until the run is over.
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Callee {
    async fn ask(self) -> Result<(), ()> {
        let Callee { policy, pool, illness, is_blocking, gate } = self;
        let callee = move |_| {
            let (pool, gate) = (pool.clone(), Arc::clone(&gate));
            async move {
                match illness {
                    Illness::None if is_blocking => {
                        pool.run(None, || std::thread::sleep(WORK)).await.map_err(drop)
                    }
                    Illness::None => {
                        tokio::time::sleep(WORK).await;
                        Ok(())
                    }
                    Illness::Hangs => std::future::pending().await,
                    Illness::Blocks => {
                        let blocks = move || drop(gate.lock().map(|gate| gate.recv()));
                        pool.run(None, blocks).await.map_err(drop)
                    }
                }
            }
        };
        policy.call(Facts::unknown, EveryErrorIsTransient, callee).await.map_err(drop)
    }
}

/// The 99th percentile of what the callers of the two well callees waited, in milliseconds.
async fn p99_ms(illness: Illness) -> Result<f64> {
    let (open, gate) = mpsc::channel();
    let gate = Arc::new(Mutex::new(gate));
    let callee = |name: &str, illness, is_blocking| -> Result<Callee> {
        let policy = Policy::outbound(name).total(PATIENCE).bulkhead(PERMITS, 2 * PERMITS);
        let pool = BlockingSpec::threads(THREADS).queue(2 * THREADS).check()?;
        let pool = BlockingPool::new(pool, Arc::new(Scope::system(name)));
        Ok(Callee { policy: policy.build()?, pool, illness, is_blocking, gate: Arc::clone(&gate) })
    };
    let ill = callee("ill", illness, illness == Illness::Blocks)?;
    let well = [callee("waits", Illness::None, false)?, callee("blocks", Illness::None, true)?];
    let waited = Arc::new(Mutex::new(Vec::new()));
    let mut callers = Vec::new();
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    while began.elapsed() < RUN {
        ticks.tick().await;
        // It has its callers whatever becomes of them.
        tokio::spawn(ill.clone().ask());
        for callee in &well {
            let (callee, waited) = (callee.clone(), Arc::clone(&waited));
            callers.push(tokio::spawn(async move {
                let asked = Instant::now();
                // One that fails is none that was quick: it counts as one that waited for as long as it may.
                let waited_for = callee.ask().await.map_or(PATIENCE, |()| asked.elapsed());
                waited.lock().unwrap_or_else(PoisonError::into_inner).push(waited_for);
            }));
        }
    }
    for caller in callers {
        caller.await.context("a caller panicked; nothing is reported")?;
    }
    drop(open);
    let mut waited = std::mem::take(&mut *waited.lock().unwrap_or_else(PoisonError::into_inner));
    waited.sort_unstable();
    let p99 = waited.get(waited.len() * 99 / 100).copied().unwrap_or_default();
    Ok(p99.as_secs_f64() * 1e3)
}
