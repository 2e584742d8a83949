//! The herd: many callers at a value that is not there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mainstay::Context;
use mainstay::cache::{Cache, Spec};

/// Callers at once.
const CALLERS: u64 = 10_000;

/// How long a load may take before its leader is given up.
const LIMIT: Duration = Duration::from_millis(500);

/// What became of one herd.
#[derive(Debug, serde::Serialize)]
pub(super) struct Herd {
    pub(super) what: &'static str,
    pub(super) callers: u64,
    /// Of those, that got the value.
    pub(super) answered: u64,
    pub(super) loads: u64,
    pub(super) loads_expected: u64,
    pub(super) seconds: f64,
    pub(super) met: bool,
}

pub(super) async fn measure() -> Result<Vec<Herd>> {
    Ok(vec![
        herd("10,000 callers at an absent value", 0).await?,
        herd("10,000 callers, the first load hangs until it is given up", 1).await?,
    ])
}

/// The first `hanging` loads never end.
async fn herd(what: &'static str, hanging: u64) -> Result<Herd> {
    let spec = Spec::for_everybody(Duration::from_secs(60)).load_limit(LIMIT).waiters_max(CALLERS as usize);
    let cache: Cache<u64, u64, io::Error> = Cache::new("herd", spec)?;
    let (cx, loads) = (Context::system(), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (cache, cx, loads) = (cache.clone(), cx.clone(), Arc::clone(&loads));
            tokio::spawn(async move {
                let waiting = cache.clone();
                let load = move |_, key: u64| async move {
                    if loads.fetch_add(1, Ordering::SeqCst) < hanging {
                        std::future::pending::<()>().await;
                    }
                    // Not before the whole herd is there, or it would be none.
                    while hanging == 0 && waiting.stats().waiting < CALLERS {
                        tokio::task::yield_now().await;
                    }
                    Ok(key)
                };
                cache.get_or_load(&cx, &1, load).await
            })
        })
        .collect();
    let mut answered = 0;
    for caller in callers {
        let answer = caller.await.context("a caller died; nothing is reported")?;
        answered += u64::from(matches!(answer, Ok(Some(value)) if *value == 1));
    }
    let (loads, loads_expected) = (loads.load(Ordering::SeqCst), hanging + 1);
    let met = (loads, answered) == (loads_expected, CALLERS);
    let seconds = began.elapsed().as_secs_f64();
    Ok(Herd { what, callers: CALLERS, answered, loads, loads_expected, seconds, met })
}
