//! `mainstay bench cache`: our cache beside the library it keeps its entries in, and write-back beside the disk.

mod herd;
mod hits;
mod rates;
mod sides;
mod traces;
mod write_back;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::machine::{Machine, pressure};
use super::ratio::Ratio;
use super::scratch::Scratch;
use crate::output::Output;

/// Measures the cache and says whether its targets are met.
///
/// A hit is judged as a multiple of a hit of the bare storage library in the same run, in interleaved slices of a fifth
/// of a millisecond; hit rates by how far they are from the library's; a herd by its number of loads; write-back by its
/// acknowledged writes for each fdatasync that the disk can do one after the other. Ratios are judged at the worse end of
/// the 95 % interval of the pairs' median. Takes about a minute, most of it for hit rates and the disk.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write; needs a few MB. Everything is removed at the end.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Pairs of runs in each comparison.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(7..=999))]
    pairs: u32,
    /// Questions of each trace.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    questions: u64,
    /// How long each run of write-back lasts, in milliseconds.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(50..=600_000))]
    millis: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    /// See [`Machine::cpu_pressure_some_avg10`]; at the end.
    cpu_pressure_some_avg10_after: Option<f64>,
    hits: Vec<hits::Figure>,
    rates: Vec<rates::Rate>,
    herds: Vec<herd::Herd>,
    write_back: Vec<write_back::Figure>,
    ratios: Vec<Ratio>,
    met: bool,
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let scratch = Scratch::make(&arguments.dir)?;
    let machine = Machine::probe(scratch.path())?;
    let Arguments { pairs, questions, millis, .. } = arguments;
    output.progress("hits and hit rates");
    // A thread of its own: what is measured keeps a core busy.
    let (hits, rates, mut ratios) = tokio::task::spawn_blocking(move || {
        let (mut figures, mut rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        hits::measure(pairs, &mut figures, &mut ratios)?;
        rates::measure(usize::try_from(questions)?, pairs, &mut rates, &mut ratios)?;
        anyhow::Ok((figures, rates, ratios))
    })
    .await
    .context("the measurement ended early; nothing is reported")??;
    output.progress("the herd");
    let herds = herd::measure().await?;
    let (mut write_back, lasts) = (Vec::new(), Duration::from_millis(millis));
    write_back::measure(scratch.path(), pairs, lasts, output, &mut write_back, &mut ratios).await?;
    let met = ratios.iter().all(|ratio| ratio.met) && herds.iter().all(|herd| herd.met);
    let cpu_pressure_some_avg10_after = pressure();
    let report =
        Report { machine, cpu_pressure_some_avg10_after, hits, rates, herds, write_back, ratios, met };
    output.print(&report, human)?;
    Ok(())
}

fn human(report: &Report) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    super::write_machine(&mut text, &report.machine);
    for hits::Figure { what, ns, bare_ns } in &report.hits {
        let _ = writeln!(text, "{what:<52} {ns:>7.1} ns, bare {bare_ns:.1} ns");
    }
    for rates::Rate { what, questions, hits, bare_hits } in &report.rates {
        let share = |hits: &usize| *hits as f64 / *questions as f64 * 100.0;
        let _ = writeln!(
            text,
            "{what:<58} {:>6.2} % ({hits}), bare {:.2} % ({bare_hits})",
            share(hits),
            share(bare_hits)
        );
    }
    for herd in &report.herds {
        let _ = writeln!(
            text,
            "{:<58} {} answered, {} loads of {} expected, {:.3} s: {}",
            herd.what,
            herd.answered,
            herd.loads,
            herd.loads_expected,
            herd.seconds,
            if herd.met { "met" } else { "MISSED" }
        );
    }
    for write_back::Figure { writers, writes_per_second, fdatasyncs_per_second, flushed_share } in
        &report.write_back
    {
        let _ = writeln!(
            text,
            "write-back, {writers} writers: {writes_per_second:.0} writes/s, {:.0} % of them flushed; \
             {fdatasyncs_per_second:.0} fdatasync/s",
            flushed_share * 100.0
        );
    }
    super::write_ratios(&mut text, &report.ratios);
    text
}
