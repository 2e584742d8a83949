//! `mainstay bench`: comparisons with physical limits, on this machine, in a folder that is made and removed.

mod load;
mod machine;
mod plain;
mod project;
mod ratio;
mod rows;
mod store;

use anyhow::Result;

use crate::output::Output;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// The store: appends, the feed, a projection.
    Store(store::Arguments),
}

pub(crate) async fn run(command: Command, output: &Output) -> Result<()> {
    match command {
        Command::Store(arguments) => store::run(arguments, output).await,
    }
}
