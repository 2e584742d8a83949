//! `mainstay events verify`: the chain, proved.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use mainstay::store::{Head, Position, Store, Verifier};
use serde::Serialize;

use super::Where;
use super::checkpoint::{checkpoints, public_key};
use super::prove::{Proof, Walk};
use crate::output::Output;
use crate::place::on_store;

/// A chain proves change only against a head that was kept elsewhere: keep what this prints, and hand it in
/// next time with --head; or keep signed checkpoints (`events checkpoint`).
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// A head kept elsewhere, `POSITION:HASH`; several are allowed.
    #[arg(long = "head", value_name = "POSITION:HASH")]
    heads: Vec<Kept>,
    /// A file of signed checkpoints, as `events checkpoint` printed them; several are allowed.
    #[arg(long = "checkpoint", value_name = "FILE", requires = "public_key")]
    checkpoints: Vec<PathBuf>,
    /// The public key of whoever signed them.
    #[arg(long, value_name = "FILE", requires = "checkpoints")]
    public_key: Option<PathBuf>,
    /// An archive of this store, as `events archive` wrote it; several are allowed.
    #[arg(long = "archive", value_name = "FILE")]
    archives: Vec<PathBuf>,
}

/// A head as it is written down.
#[derive(Debug, Clone, Copy)]
struct Kept(Head);

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (position, hash) =
            text.split_once(':').ok_or("it has no colon; give POSITION:HASH as verify printed it")?;
        let position = Position(position.parse().map_err(|_| "its position is not a number")?);
        let hash = hash.parse().map_err(|error| format!("{error}"))?;
        Ok(Self(Head { position, hash }))
    }
}

#[derive(Serialize)]
struct Proved {
    ok: bool,
    store: uuid::Uuid,
    events: u64,
    head: String,
    kept_heads_matched: usize,
    /// Of the events, those that are in archives.
    archived: u64,
    /// Of these, those whose archive was handed in and proved.
    archived_proved: u64,
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    on_store!(arguments.place.look().await?, |store| verify(&store, &arguments, output).await)
}

async fn verify(store: &impl Store, arguments: &Arguments, output: &Output) -> Result<()> {
    let mut kept: Vec<Head> = arguments.heads.iter().map(|kept| kept.0).collect();
    if let Some(key) = &arguments.public_key {
        let key = public_key(key)?;
        for file in &arguments.checkpoints {
            kept.extend(checkpoints(file, &key, store.id())?);
        }
    }
    let walk = Walk::new(store, Verifier::new(store.id())).with_heads(&kept);
    let Proof { head, archived, archived_proved } =
        walk.with_archives(&arguments.archives)?.prove(output).await?;
    let proved = Proved {
        ok: true,
        store: store.id().0,
        events: head.position.0,
        head: format!("{}:{}", head.position, head.hash),
        kept_heads_matched: kept.len(),
        archived,
        archived_proved,
    };
    output.print(&proved, |proved| {
        let against = match proved.kept_heads_matched {
            0 => "against no kept head: an unbroken chain alone does not prove that nothing was rewritten"
                .to_owned(),
            1 => "and the kept head matches".to_owned(),
            n => format!("and all {n} kept heads match"),
        };
        let archived = match (proved.archived, proved.archived_proved) {
            (0, _) => String::new(),
            (all, seen) if all == seen => format!(" ({all} archived, proved by their files)"),
            (all, seen) => format!(
                " ({all} archived, {seen} of them proved by their files; the rest stands or falls with its markers)"
            ),
        };
        format!("{} events{archived}, chain unbroken, {against}\nhead {}", proved.events, proved.head)
    })?;
    Ok(())
}
