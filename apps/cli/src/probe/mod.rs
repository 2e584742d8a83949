//! `mainstay probe`: what a store, or the server it is on, really promises.

mod durability;
mod file;
mod found;

use anyhow::Result;

use crate::output::Output;

/// What to ask for.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What an acknowledgement survives: how much is lost when the server is killed, the power fails, the machine is lost.
    Durability(durability::Arguments),
}

pub(crate) async fn run(command: Command, output: &Output) -> Result<()> {
    match command {
        Command::Durability(arguments) => durability::run(&arguments, output).await,
    }
}
