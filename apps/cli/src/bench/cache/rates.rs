//! Hit rates: what our times, tags and stale entries make of the bare library's.

use anyhow::Result;

use super::sides::{Bare, Ours, bare};
use super::traces::traces;
use crate::bench::ratio::{Ratio, Target};

/// By how much of itself the bare library's hit rate may be missed, either way.
const MOST: f64 = 0.01;

/// Hits of one run.
#[derive(Debug, serde::Serialize)]
pub(super) struct Rate {
    pub(super) what: String,
    pub(super) questions: usize,
    pub(super) hits: usize,
    pub(super) bare_hits: usize,
}

/// A small cache has one lock: what is evicted then depends on the questions alone, so one run is exact. In a large one it
/// depends on how keys fall into shards, by a hash that differs from run to run, ours and the library's: judged over
/// `pairs` runs of both.
pub(super) fn measure(
    questions: usize,
    pairs: u32,
    rates: &mut Vec<Rate>,
    ratios: &mut Vec<Ratio>,
) -> Result<()> {
    for (entries, runs) in [(500, 1), (10_000, pairs)] {
        for (pattern, trace) in traces(questions, entries) {
            let what = format!("hit rate, {entries} entries, {pattern}");
            let mut off = Vec::new();
            for run in 0..runs {
                let (ours, bare) = (Ours::new(entries)?, bare(entries, entries == 500)?);
                let (hits, bare_hits) = (hits(&ours, &trace), bare_hits(&bare, &trace));
                off.push(hits.abs_diff(bare_hits) as f64 / bare_hits.max(1) as f64);
                if run == 0 {
                    rates.push(Rate { what: what.clone(), questions, hits, bare_hits });
                }
            }
            ratios.push(Ratio::of(format!("{what}: off by"), &off, Target::AtMost(MOST)));
        }
    }
    Ok(())
}

fn hits(ours: &Ours, trace: &[u64]) -> usize {
    let now = ours.cx.now();
    let asked = trace.iter().filter(|key| {
        let hit = ours.get_at(**key, now).is_some();
        if !hit {
            ours.put(**key);
        }
        hit
    });
    asked.count()
}

fn bare_hits(bare: &Bare, trace: &[u64]) -> usize {
    let asked = trace.iter().filter(|key| {
        let hit = bare.get(*key).is_some();
        if !hit {
            bare.insert(**key, (**key).into());
        }
        hit
    });
    asked.count()
}
