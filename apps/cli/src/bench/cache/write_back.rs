//! Write-back: acknowledged writes beside the disk's fdatasync. A write is acknowledged when the journal has it on disk.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mainstay::Context;
use mainstay::cache::{Cache, Flusher, Load, Loaded, Loader, Spec, Version, WriteBack, WriteBackSpec};
use mainstay::flow::journal::StoreJournal;
use mainstay::sqlite::{Options, Sqlite};
use tokio::sync::oneshot;

use crate::bench::load;
use crate::bench::plain;
use crate::bench::ratio::{Ratio, Target, median};
use crate::output::Output;

/// Keys that are written again and again.
const KEYS: u64 = 1_000;

/// About what the journal writes of a write.
const RECORD: usize = 100;

/// Medians over the pairs of one comparison.
#[derive(Debug, serde::Serialize)]
pub(super) struct Figure {
    pub(super) writers: usize,
    /// Writes acknowledged a second.
    pub(super) writes_per_second: f64,
    /// A record appended and fdatasync, one after the other, in the same pairs.
    pub(super) fdatasyncs_per_second: f64,
    /// Of the writes, the share that reached the source; of the others a later one of their key did.
    pub(super) flushed_share: f64,
}

pub(super) async fn measure(
    folder: &Path,
    pairs: u32,
    lasts: Duration,
    output: &Output,
    figures: &mut Vec<Figure>,
    ratios: &mut Vec<Ratio>,
) -> Result<()> {
    // Alone, a write waits for one commit of the journal; many share one.
    for (writers, least) in [(1, 0.3), (64, 6.0)] {
        let (mut each, mut rates, mut syncs, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for pair in 1..=pairs {
            output.progress(&format!("write-back, {writers} writers: pair {pair} of {pairs}"));
            let (rate, share) = run(&folder.join("journal.db"), writers, lasts).await?;
            let raw = folder.join("raw");
            let bare = tokio::task::spawn_blocking(move || plain::raw_loop(&raw, &[1], RECORD, lasts));
            let bare = bare.await.context("the disk's loop ended early; nothing is reported")??.rate();
            each.push(rate / bare);
            rates.push(rate);
            syncs.push(bare);
            shares.push(share);
        }
        figures.push(Figure {
            writers,
            writes_per_second: median(&mut rates),
            fdatasyncs_per_second: median(&mut syncs),
            flushed_share: median(&mut shares),
        });
        let what = format!("write-back, {writers} writers / fdatasync one by one");
        ratios.push(Ratio::of(what, &each, Target::AtLeast(least)));
    }
    Ok(())
}

/// A source in memory, so that the disk sees the journal alone.
struct Sink;

impl Loader<u64, u64> for Sink {
    type Error = Infallible;

    async fn load(&self, _: &Load, _: &u64) -> Result<Loaded<u64>, Infallible> {
        Ok(Loaded::absent())
    }
}

impl Flusher<u64, u64> for Sink {
    type Error = Infallible;

    async fn flush(&self, _: &Context, _: &u64, _: Option<&u64>, _: Version) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Acknowledged writes a second, and the share of them that was flushed.
async fn run(path: &Path, writers: usize, lasts: Duration) -> Result<(f64, f64)> {
    let cx = Context::system();
    let journal = StoreJournal::open(&cx, Sqlite::open(Options::new(path))?, "bench").await?;
    let cache = Cache::new("bench", Spec::for_everybody(Duration::from_secs(3_600)))?;
    let cache = WriteBack::open(cache, Sink, journal, WriteBackSpec::default()).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let rounds = {
        let (cache, cx) = (cache.clone(), cx.clone());
        tokio::spawn(async move {
            let ends = async {
                // Dropped or sent, it is over.
                let _ = stopped.await;
            };
            cache.run(&cx, |_| {}, ends).await;
        })
    };
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let writing: Vec<_> = (0..writers as u64)
        .map(|writer| {
            let (cache, cx, over) = (cache.clone(), cx.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    cache.put(&cx, (writer * 7_919 + n) % KEYS, n).await?;
                }
                Ok::<_, mainstay::resilience::Failed<_>>(())
            })
        })
        .collect();
    tokio::time::sleep(lasts).await;
    over.store(true, Ordering::Relaxed);
    for writer in writing {
        writer.await.context("a writer died; nothing is reported")??;
    }
    let (stats, seconds) = (cache.stats(), began.elapsed().as_secs_f64());
    drop(stop);
    rounds.await.context("the rounds of flushing ended early; nothing is reported")?;
    drop(cache);
    load::remove(path)?;
    let share = stats.flushed as f64 / stats.acknowledged.max(1) as f64;
    Ok((stats.acknowledged as f64 / seconds, share))
}
