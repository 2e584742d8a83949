//! `mainstay events`: the facts of a store file, for people and scripts.

mod append;
mod archive;
mod checkpoint;
mod line;
mod prove;
mod read;
mod verify;

use std::path::Path;

use anyhow::Result;
use mainstay::sqlite::{Options, Sqlite};

use crate::output::Output;

/// What to do with the events of a store file.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Append events: one from the arguments, or one act a line from standard input.
    Append(append::Arguments),
    /// Print events.
    Read(read::Read),
    /// Print events as they come, until interrupted.
    Tail(read::Tail),
    /// Prove the hash chain, from the beginning or against a head kept elsewhere.
    Verify(verify::Arguments),
    /// Make a key pair for signed checkpoints.
    Key(checkpoint::Key),
    /// Print the head of a store, signed, to be kept elsewhere.
    Checkpoint(checkpoint::Arguments),
    /// Move old events to a file, with a marker in their place.
    Archive(archive::Arguments),
}

impl Command {
    /// A signed checkpoint is no listing: it is lost when nobody keeps it.
    pub(crate) fn only_prints(&self) -> bool {
        match self {
            Self::Read(_) | Self::Tail(_) | Self::Verify(_) => true,
            Self::Append(_) | Self::Key(_) | Self::Checkpoint(_) | Self::Archive(_) => false,
        }
    }
}

pub(crate) async fn run(command: Command, output: &Output) -> Result<()> {
    match command {
        Command::Append(arguments) => append::run(arguments, output).await,
        Command::Read(arguments) => read::read(arguments, output).await,
        Command::Tail(arguments) => read::tail(arguments, output).await,
        Command::Verify(arguments) => verify::run(arguments, output).await,
        Command::Key(arguments) => checkpoint::make_key(arguments, output),
        Command::Archive(arguments) => archive::run(arguments, output).await,
        Command::Checkpoint(arguments) => checkpoint::run(arguments, output).await,
    }
}

/// Opens an existing store for reading only.
fn look(path: &Path) -> Result<Sqlite> {
    Ok(Sqlite::open(Options::new(path).read_only())?)
}
