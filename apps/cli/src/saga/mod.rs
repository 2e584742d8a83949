//! `mainstay saga`: the choreography as declared, and what came of one cause.

mod graph;
mod show;

use anyhow::Result;

use crate::output::Output;

/// What to do with sagas.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show all that came of one cause, in all services, with waits and causes.
    Show(show::Arguments),
    /// Draw the declared choreography, and fail if it does not hold together.
    Graph(graph::Arguments),
}

pub(crate) async fn run(command: Command, output: &Output) -> Result<()> {
    match command {
        Command::Show(arguments) => show::run(arguments, output).await,
        Command::Graph(arguments) => graph::run(&arguments, output),
    }
}
