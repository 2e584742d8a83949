//! `mainstay events archive`: old events into a file, a marker in their place.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use mainstay::sqlite::{NotArchived, Options, Sqlite};
use mainstay::store::{AppendError, Archived, Position};

use super::Where;
use crate::output::{BadInput, Output, Unusable};
use crate::place::Place;

/// Moves the events before a position to a new file and records a marker for them. The chain stays provable:
/// `events verify` passes across the marker, and with `--archive` proves what is in the file too. For store files only.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// The first position that stays. Whoever follows the feed should be past it.
    #[arg(long, value_name = "POSITION")]
    before: u64,
    /// The archive: a new file.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let Place::File(file) = arguments.place.store.place()? else {
        let why = "a store on a server is not archived: only a store file's events can be moved to an archive; nothing was \
                   moved";
        return Err(BadInput(why.to_owned()).into());
    };
    let store = Sqlite::open(Options::new(&file).existing())?;
    let marker = store.archive(Position(arguments.before), &arguments.to).await.map_err(explained)?;
    store.close();
    let told = output.print(&marker, |marker| {
        let Archived { from, to, count, digest, .. } = marker;
        let file = arguments.to.display();
        format!("positions {from} to {to} ({count} events) are in {file}; keep it\ndigest {digest}")
    });
    told.with_context(|| format!("the events are in {}; keep it", arguments.to.display()))
}

/// The error with the exit code that is its own.
fn explained(error: NotArchived) -> anyhow::Error {
    let said = error.to_string();
    match error {
        NotArchived::Range(_) => BadInput(said).into(),
        NotArchived::Read(error) => error.into(),
        NotArchived::Unknown(why) => anyhow::Error::new(AppendError::Unknown { why }).context(said),
        NotArchived::File { .. } | NotArchived::Refused(_) => Unusable(said).into(),
    }
}
