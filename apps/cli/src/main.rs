//! `mainstay`: the one binary. Here are its commands and nothing else; what they do is in the libraries.

mod bench;
mod dead_letter;
mod events;
mod folder;
mod http;
mod output;
mod place;
mod policy;
mod probe;
mod replay;
mod saga;
mod secret;
mod service;
mod shop_store;
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
    /// Run the shop on this machine: three services and a card processor, supervised, until you end it.
    Up(up::Arguments),
    /// One service of the shop: what `up` starts. It ends when its standard input does.
    #[command(hide = true)]
    Service(service::Arguments),
    /// Messages that a service could not handle: list, show, retry, discard.
    #[command(subcommand)]
    DeadLetter(dead_letter::Command),
    /// What came of one cause across all services; the choreography they declare.
    #[command(subcommand)]
    Saga(saga::Command),
    /// Append, read, follow and verify the events of a store: a file, or a schema of a PostgreSQL database.
    #[command(subcommand)]
    Events(events::Command),
    /// The policies of a document: check them, show what each of them comes to.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Decide recorded decisions again, and name the first that comes out otherwise.
    Replay(replay::Arguments),
    /// Ask what a store or a server really promises.
    #[command(subcommand)]
    Probe(probe::Command),
    /// Measure this machine and the store on it.
    #[command(subcommand)]
    Bench(bench::Command),
}

impl Command {
    /// Does it nothing but print? Then a reader that has seen enough is no failure, as with any filter. Of a command
    /// that changes something, whoever started it has to know that the answer was lost.
    fn only_prints(&self) -> bool {
        match self {
            Self::Up(_) | Self::Service(_) => false,
            Self::DeadLetter(command) => command.only_prints(),
            Self::Events(command) => command.only_prints(),
            Self::Saga(_) | Self::Policy(_) | Self::Replay(_) | Self::Probe(_) | Self::Bench(_) => true,
        }
    }
}

/// Was JSON asked for, as far as can be told of arguments that make no command?
fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return Output { json: wants_json() }.misused(&error),
    };
    let only_prints = cli.command.only_prints();
    let output = Output { json: cli.json };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&anyhow::Error::new(error).context("no runtime could be started")),
    };
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Up(arguments) => up::run(arguments, &output).await,
            Command::Service(arguments) => service::run(arguments).await,
            Command::Saga(command) => saga::run(command, &output).await,
            Command::DeadLetter(command) => dead_letter::run(command, &output).await,
            Command::Events(command) => events::run(command, &output).await,
            Command::Policy(command) => policy::run(&command, &output),
            Command::Replay(arguments) => replay::run(&arguments, &output),
            Command::Probe(command) => probe::run(command, &output).await,
            Command::Bench(command) => bench::run(command, &output).await,
        }
    });
    match ended {
        Ok(()) => {
            output.progress_done();
            ExitCode::SUCCESS
        }
        Err(error) if only_prints && output::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => output.fail(&error),
    }
}
