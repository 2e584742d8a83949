//! `mainstay bench overload`: ten times the capacity, and a callee that hangs, on this machine and in real time.

mod isolation;
mod shedding;

use anyhow::{Context, Result};
use serde::Serialize;

use super::machine::{self, pressure};
use super::ratio::Ratio;
use crate::output::Output;

/// Overloads a service and hangs a callee, and says whether the others are served.
///
/// The service has ten permits and takes 50 ms: 200 calls a second, whatever the machine. Its client is an open loop:
/// it asks less for no answer, late or missing. A callee hangs beside two that are well, once in calls that wait and
/// once in calls that block their thread; the callers of the well ones are compared in interleaved pairs of runs, judged
/// at the worse end of the 95 % interval. Both are simulated exactly by `cargo xtask sim`; here it is shown that the
/// machine does the same. Nothing is written anywhere.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds at each load.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Pairs of runs beside a callee that hangs; each run takes half a second.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(7..=999))]
    pairs: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Share of the last ten seconds in which some task waited for a core, in percent, before and after.
    cpu_pressure_some_avg10: [Option<f64>; 2],
    cores: usize,
    shedding: shedding::Figures,
    checks: Vec<Check>,
    ratios: Vec<Ratio>,
    met: bool,
}

/// A figure and the bound it is held against.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    what: &'static str,
    value: f64,
    target: String,
    met: bool,
}

impl Check {
    pub(super) fn at_least(what: &'static str, value: f64, least: f64) -> Self {
        Check { what, value, target: format!(">= {least}"), met: value >= least }
    }

    pub(super) fn at_most(what: &'static str, value: f64, most: f64) -> Self {
        Check { what, value, target: format!("<= {most}"), met: value <= most }
    }
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    // A thread and a runtime of their own: what is measured shares no worker with this command.
    let report = tokio::task::spawn_blocking(move || measure(&arguments))
        .await
        .context("the measurement ended early; nothing is reported")??;
    output.print(&report, human)?;
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<Report> {
    let before = pressure();
    let (shedding, checks) = shedding::measure(arguments.seconds)?;
    let ratios = isolation::measure(arguments.pairs)?;
    let met = checks.iter().all(|check| check.met) && ratios.iter().all(|ratio| ratio.met);
    let (pressure, cores) = ([before, pressure()], machine::cores()?);
    Ok(Report { cpu_pressure_some_avg10: pressure, cores, shedding, checks, ratios, met })
}

fn human(report: &Report) -> String {
    use std::fmt::Write;
    let [before, after] =
        report.cpu_pressure_some_avg10.map(|some| some.map_or("unknown".into(), |some| format!("{some} %")));
    let mut text = format!("CPU pressure {before} before, {after} after; {} cores\n", report.cores);
    report.shedding.write(&mut text);
    for Check { what, value, target, met } in &report.checks {
        let verdict = if *met { "met" } else { "MISSED" };
        let _ = writeln!(text, "{what:<52} {value:>8.3}, target {target}: {verdict}");
    }
    super::write_ratios(&mut text, &report.ratios);
    text
}
