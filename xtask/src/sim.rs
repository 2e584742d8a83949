//! Builds the simulator of the resilience rules and becomes it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{examples, process, tree};

/// What the simulator gets.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The seed that decides the run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the scenario of this name; `-- --list` names them.
    #[arg(long)]
    scenario: Option<String>,
    /// Write a plot of each scenario into this folder.
    #[arg(long)]
    svg: Option<std::path::PathBuf>,
    /// Passed on: `cargo xtask sim -- --help`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Comes back only when the program can't be built or started: it replaces this process.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let mut program = Command::new(examples::build_one("mainstay-resilience", "sim")?);
    process::without_package(&mut program);
    program.arg("--seed").arg(arguments.seed.to_string()).current_dir(tree::root()?);
    for (name, value) in [
        ("--scenario", arguments.scenario.as_ref().map(std::convert::AsRef::<std::ffi::OsStr>::as_ref)),
        ("--svg", arguments.svg.as_ref().map(std::convert::AsRef::<std::ffi::OsStr>::as_ref)),
    ] {
        if let Some(value) = value {
            program.arg(name).arg(value);
        }
    }
    let error = program.args(&arguments.arguments).exec();
    Err(error).with_context(|| format!("{} can't be started", program.get_program().display()))
}
