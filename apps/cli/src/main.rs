//! `mainstay`: the one binary. Here are its commands and nothing else; what they do is in the libraries.

mod bench;
mod events;
mod output;
mod up;

use std::process::ExitCode;

use clap::Parser;

use output::Output;

/// The backend platform that stays correct when things fail.
#[derive(Debug, Parser)]
#[command(name = "mainstay", version, after_help = output::CODES)]
struct Cli {
    /// Answer in JSON, one object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the demonstration: a bank account, recorded as facts in a real store file.
    Up(up::Arguments),
    /// Append, read, follow and verify the events of a store file.
    #[command(subcommand)]
    Events(events::Command),
    /// Measure this machine and the store on it.
    #[command(subcommand)]
    Bench(bench::Command),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output { json: cli.json };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&anyhow::Error::new(error).context("no runtime could be started")),
    };
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Up(arguments) => up::run(arguments, &output).await,
            Command::Events(command) => events::run(command, &output).await,
            Command::Bench(command) => bench::run(command, &output).await,
        }
    });
    match ended {
        Ok(()) => {
            output.progress_done();
            ExitCode::SUCCESS
        }
        Err(error) => output.fail(&error),
    }
}
