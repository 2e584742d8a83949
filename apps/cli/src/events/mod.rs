//! `mainstay events`: the facts of a store, for people and scripts.

mod append;
mod archive;
mod checkpoint;
mod line;
mod prove;
mod read;
mod verify;

use anyhow::Result;

use crate::output::Output;
use crate::place::{Given, Opened};

/// What to do with the events of a store.
///
/// STORE is a file, or postgres://user:password@host:port/database[?schema=NAME][&pooled=true][&sslmode=…], or env:NAME
/// for either of them in an environment variable, where the process list does not show it. schema: that of the store's
/// tables, mainstay when it is left out. pooled: there is a pooler in transaction mode in between.
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

/// Which store.
#[derive(Debug, clap::Args)]
struct Where {
    /// The store: a file, postgres://…, or env:NAME; see `mainstay events --help`.
    #[arg(value_name = "STORE")]
    store: Given,
}

impl Where {
    /// Opens an existing store for reading only.
    async fn look(&self) -> Result<Opened> {
        self.store.place()?.look().await
    }
}
