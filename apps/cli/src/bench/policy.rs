//! `mainstay bench policy`: what the rules for calls cost, in readings of the machine's clock.

use anyhow::{Context, Result};
use serde::Serialize;

use super::machine::{self, pressure};
use super::ratio::{Ratio, Target, median};
use super::rules::{self, Side};
use crate::output::Output;

/// Measures the rules for calls and says whether their targets are met.
///
/// Nanoseconds mean nothing across machines, so each figure is judged as a multiple of one reading of the monotonic
/// clock (Rust's Instant::now) in the same run: a call can't be timed with less than two. Pairs are interleaved in
/// slices of a fifth of a millisecond; a target is judged at the worse end of the 95 % interval of the pairs' median
/// ratio. Nothing is written anywhere, and it takes a second or two.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Pairs of runs in each comparison.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(7..=999))]
    pairs: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    figures: Vec<Figure>,
    ratios: Vec<Ratio>,
    met: bool,
}

/// The machine without its disk, of which none of this makes any use.
#[derive(Debug, Serialize)]
struct Machine {
    /// Share of the last ten seconds in which some task waited for a core, in percent, before and after.
    cpu_pressure_some_avg10: [Option<f64>; 2],
    cores: usize,
}

/// Medians over the pairs of one comparison.
#[derive(Debug, Serialize)]
struct Figure {
    what: &'static str,
    ns: f64,
    /// A reading of the clock, in the same pairs.
    clock_ns: f64,
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    // A thread of its own: what is measured has a runtime of its own, and keeps a core busy.
    let report = tokio::task::spawn_blocking(move || measure(arguments.pairs))
        .await
        .context("the measurement ended early; nothing is reported")??;
    output.print(&report, human)?;
    Ok(())
}

fn measure(pairs: u32) -> Result<Report> {
    // Timers are armed where a call is pending; nobody waits for one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let _entered = runtime.enter();
    let before = pressure();
    let (mut figures, mut ratios) = (Vec::new(), Vec::new());
    rules::against_the_clock(|what, most, ours| {
        let ns = rules::pairs(pairs, &mut Side::new(ours), &mut Side::new(rules::clock()));
        let each: Vec<f64> = ns.iter().map(|(ns, clock)| ns / clock).collect();
        let (mut ours, mut clock): (Vec<f64>, Vec<f64>) = ns.into_iter().unzip();
        figures.push(Figure { what, ns: median(&mut ours), clock_ns: median(&mut clock) });
        ratios.push(Ratio::of(what, &each, Target::AtMost(most)));
    })?;
    let machine = Machine { cpu_pressure_some_avg10: [before, pressure()], cores: machine::cores()? };
    let met = ratios.iter().all(|ratio| ratio.met);
    Ok(Report { machine, figures, ratios, met })
}

fn human(report: &Report) -> String {
    use std::fmt::Write;
    let Machine { cpu_pressure_some_avg10: [before, after], cores } = &report.machine;
    let shown = |some: &Option<f64>| some.map_or("unknown".into(), |some| format!("{some} %"));
    let mut text = format!("CPU pressure {} before, {} after; {cores} cores\n", shown(before), shown(after));
    for Figure { what, ns, clock_ns } in &report.figures {
        let _ = writeln!(text, "{what:<52} {ns:>7.1} ns, beside {clock_ns:.1} ns for a reading of the clock");
    }
    super::write_ratios(&mut text, &report.ratios);
    text
}
