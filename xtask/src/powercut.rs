//! Power cuts: as many as one likes of the SQLite store's test of them, from any seed.
//!
//! The test itself runs in every lane with few cuts; this runs it with many. Each disk takes ten cuts and has a
//! seed of its own, so a long run can go on where it stopped: the progress lines name the next seed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::process::{self, Ended};
use crate::tree;

/// How long a build may take.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How long one cut may take, on a busy machine.
const CUT_LIMIT: Duration = Duration::from_secs(2);

/// How many, and from where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often to cut the power.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    cuts: u32,
    /// The seed of the first disk; the next has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object on standard output at the end; progress, and what was broken, go to standard error.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Summary {
    seed: u64,
    cuts: u32,
    /// Nothing acknowledged was lost, and nothing else was broken.
    passed: bool,
    seconds: f64,
}

/// Runs the cuts. True when nothing acknowledged was lost, and nothing else was broken.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let cargo = |last: &[&str]| -> Result<std::process::Command> {
        let mut command = process::cargo();
        command
            .args(["test", "--all-features", "--package", "mainstay-sqlite", "--test", "power_cut"])
            .args(last);
        command.current_dir(tree::root()?).stdout(std::io::stderr());
        Ok(command)
    };
    match process::run(&mut cargo(&["--no-run"])?, BUILD_LIMIT)? {
        Ended::Exited(status) if status.success() => {}
        _ => bail!("the test does not compile, so nothing was cut"),
    }
    let mut command = cargo(&["--", "--exact", "nothing_acknowledged_is_lost_in_any_cut", "--nocapture"])?;
    command.env("MAINSTAY_CUTS", arguments.cuts.to_string()).env("MAINSTAY_SEED", arguments.seed.to_string());
    let began = Instant::now();
    let passed = match process::run(&mut command, BUILD_LIMIT + CUT_LIMIT * arguments.cuts)? {
        Ended::Exited(status) => status.success(),
        Ended::TimedOut => bail!("the cuts did not end in time; the last progress line names the next seed"),
    };
    if arguments.json {
        let Arguments { cuts, seed, .. } = *arguments;
        let summary = Summary { seed, cuts, passed, seconds: began.elapsed().as_secs_f64() };
        println!("{}", serde_json::to_string(&summary)?);
    }
    Ok(passed)
}
