//! `mainstay policy`: what a document says of calls.

mod check;
mod show;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use mainstay::fleet::{Document, Mistakes, TEXT_MAX};

use crate::output::{BadInput, Output};

/// What to do with the policies of a document.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Tell all that is wrong with a document, with lines and what would be right; or that nothing is.
    Check(check::Arguments),
    /// Show a policy with all defaults filled in, as the stack of rules that calls go through.
    Show(show::Arguments),
}

pub(crate) fn run(command: &Command, output: &Output) -> Result<()> {
    match command {
        Command::Check(arguments) => check::run(arguments, output),
        Command::Show(arguments) => show::run(arguments, output),
    }
}

/// Reads a document; the inner error is what is wrong with what it says.
fn read(path: &Path) -> Result<Result<Document, Mistakes>> {
    let name = path.display();
    let mut bytes = Vec::new();
    // One more than is read tells that there is more; the document refuses it.
    let read = File::open(path).and_then(|file| file.take(TEXT_MAX as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        BadInput(format!("{name}: the document can't be read: {error}; nothing was checked"))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes().iter().take(error.utf8_error().valid_up_to()).filter(|byte| **byte == b'\n');
        BadInput(format!("{name}:{}: the document is not UTF-8 there; nothing was checked", line.count() + 1))
    })?;
    Ok(Document::read(&name.to_string(), &text))
}
