//! Comparisons of the stores with other software, in one run on one machine: the file with Redis, and on PostgreSQL
//! with the design that others have there (`cargo xtask bench -- postgres --url …`).
//!
//! `cargo xtask bench` builds and runs it. It is no default member and no part of a lane: a peer has to be
//! installed, and how fast it is at this moment is no property of a change.

mod compare;
mod cpu;
mod postgres;
mod redis;

// One piece of measuring code for both programs. It lies in the binary's folder, because `mainstay bench` ships
// and this does not; as text, because this crate may not use an app. Each program leaves some of it unused.
#[path = "../../apps/cli/src/bench/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "../../apps/cli/src/bench/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "../../apps/cli/src/bench/ratio.rs"]
#[allow(dead_code)]
mod ratio;
#[path = "../../apps/cli/src/bench/rows.rs"]
mod rows;
#[path = "../../apps/cli/src/bench/postgres/server.rs"]
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Compares the SQLite store with Redis: durable appends of 250-byte events, so many clients at once.
///
/// Redis gets XADD to one stream, each answered after its fsync (appendfsync always), from redis-benchmark over
/// loopback: its own best client, which checks nothing and keeps no state. The store gets one event for each act
/// from as many tasks in this process, with everything on: versions, ids, tags, hash chain, envelope. So Redis
/// has a hop that an embedded store has not, and the store does work that Redis does not.
///
/// Runs come in interleaved pairs, on a fresh file and a fresh server each; which of the two goes first
/// alternates. A goal is judged at the worse end of the 95 % interval of the pairs' median ratio; absolute
/// figures stand beside the disk's fdatasync and the CPU pressure of the moment and are never judged.
///
/// Needs redis-server and redis-benchmark: apt-get install redis-server.
#[derive(Debug, Parser)]
#[command(name = "bench-peers", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// Where to write; needs about 1 GB, on the disk that is meant. Everything is removed at the end.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Pairs of runs in each comparison.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=99))]
    pairs: u32,
    /// How long each run lasts, in milliseconds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    millis: u64,
    /// How many clients at once; several comparisons.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,16,64,256",
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    clients: Vec<u32>,
    /// The figures as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What else is compared.
#[derive(Debug, clap::Subcommand)]
enum Other {
    Postgres(postgres::Arguments),
}

/// The run's own folder, removed at its end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: not removed: {error}", self.0.display());
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(Other::Postgres(arguments)) = &arguments.other {
        return on_postgres(arguments);
    }
    let folder = arguments.dir.join(format!("mainstay-bench-peers-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| {
        format!("{}: no folder could be made there; nothing was measured", folder.display())
    })?;
    let folder = std::path::absolute(folder)?;
    // Dropped after the runtime: then no task of ours writes there any more.
    let scratch = Scratch(folder);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime could be started; nothing was measured")?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = compare::measure(arguments, &scratch.0) => report,
            // The other future is dropped here, and with it the server, which ends it.
            interrupted = interrupted() => interrupted,
        }
    });
    drop(runtime);
    let report = report?;
    println!("{}", if arguments.json { serde_json::to_string(&report)? } else { report.to_string() });
    Ok(())
}

fn on_postgres(arguments: &postgres::Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("no runtime could be started; nothing was measured")?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = postgres::measure(arguments) => report,
            interrupted = interrupted() => {
                postgres::clean_up(arguments).await?;
                interrupted
            }
        }
    })?;
    println!("{}", if arguments.json { serde_json::to_string(&report)? } else { report.to_string() });
    Ok(())
}

/// Comes back, with an error, when somebody wants the program to end.
async fn interrupted<T>() -> Result<T> {
    let mut terminate = signal(SignalKind::terminate()).context("signals can't be watched")?;
    let mut hangup = signal(SignalKind::hangup()).context("signals can't be watched")?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended.context("signals can't be watched")?,
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    bail!("interrupted; what was made for the run is removed; nothing is reported")
}
