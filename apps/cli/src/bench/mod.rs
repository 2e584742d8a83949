//! `mainstay bench`: comparisons with physical limits, on this machine, in a folder or a schema that is made and removed.

mod cache;
mod flow;
mod load;
mod machine;
mod overload;
mod plain;
mod policy;
mod postgres;
mod project;
mod ratio;
mod rows;
mod rules;
mod scratch;
mod shop;
pub(crate) mod shop_process;
mod store;
mod usage;

use anyhow::Result;

use crate::output::Output;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The store: appends, the feed, a projection.
    Store(store::Arguments),
    /// The flow of facts: the relay, the inbox, a poisoned message.
    Flow(flow::Arguments),
    /// The rules for calls: circuit breaker, the whole outbound stack.
    Policy(policy::Arguments),
    /// Overload and a callee that hangs, in real time.
    Overload(overload::Arguments),
    /// The cache: hits and hit rates beside its storage library, the herd, write-back beside the disk.
    Cache(cache::Arguments),
    /// The shop: orders through three services, as an outside client sees them.
    Shop(shop::Arguments),
}

pub(crate) async fn run(command: Command, output: &Output) -> Result<()> {
    match command {
        Command::Store(arguments) if arguments.url().is_some() => postgres::run(&arguments, output).await,
        Command::Store(arguments) => store::run(arguments, output).await,
        Command::Flow(arguments) => flow::run(arguments, output).await,
        Command::Policy(arguments) => policy::run(arguments, output).await,
        Command::Overload(arguments) => overload::run(arguments, output).await,
        Command::Cache(arguments) => cache::run(arguments, output).await,
        Command::Shop(arguments) => shop::run(arguments, output).await,
    }
}

/// The machine at that moment, as a line for people.
fn write_machine(text: &mut String, machine: &machine::Machine) {
    use std::fmt::Write;
    let _ = writeln!(
        text,
        "fdatasync p50 {} us, p99 {} us; CPU pressure {}; {} cores",
        machine.fdatasync_p50_us,
        machine.fdatasync_p99_us,
        machine.cpu_pressure_some_avg10.map_or("unknown".into(), |some| format!("{some} %")),
        machine.cores
    );
}

/// Ratios as lines for people.
fn write_ratios(text: &mut String, ratios: &[ratio::Ratio]) {
    use std::fmt::Write;
    for r in ratios {
        let _ = writeln!(
            text,
            "{:<52} {:>6.2} [{:.2}, {:.2}] over {} pairs, target {}: {}",
            r.what,
            r.median,
            r.low,
            r.high,
            r.pairs,
            r.target,
            if r.met { "met" } else { "MISSED" }
        );
    }
    text.truncate(text.trim_end().len());
}
