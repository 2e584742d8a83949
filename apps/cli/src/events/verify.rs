//! `mainstay events verify`: the chain, proved.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use mainstay::store::{Broken, Head, Position, Query, Store, Verifier};
use serde::Serialize;

use crate::output::Output;

/// A chain proves change only against a head that was kept elsewhere: keep what this prints, and hand it in
/// next time with --head.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The store file.
    file: PathBuf,
    /// A head kept elsewhere, `POSITION:HASH`; several are allowed.
    #[arg(long = "head", value_name = "POSITION:HASH")]
    heads: Vec<Kept>,
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
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let store = super::look(&arguments.file)?;
    let mut verifier = Verifier::new(store.id());
    let mut kept: Vec<Head> = arguments.heads.iter().map(|kept| kept.0).collect();
    kept.sort_by_key(|head| head.position);
    let mut waiting = kept.iter().peekable();
    let matches = |head: Head, waiting: &mut std::iter::Peekable<std::slice::Iter<'_, Head>>| {
        while let Some(kept) = waiting.next_if(|kept| kept.position == head.position) {
            if kept.hash != head.hash {
                return Err(Broken::Rewritten { at: head.position });
            }
        }
        Ok(())
    };
    matches(verifier.head(), &mut waiting)?;
    let mut after = Position::START;
    loop {
        let page = store.read(&Query::all(), after, usize::MAX).await?;
        for event in &page.events {
            verifier.check(event)?;
            matches(verifier.head(), &mut waiting)?;
        }
        after = page.next;
        if after.0.is_multiple_of(100_000) || page.at_end() {
            output.progress(&format!("verified {} of {}", after, page.head));
        }
        if page.at_end() {
            break;
        }
    }
    output.progress_done();
    let head = verifier.head();
    if let Some(missing) = waiting.next() {
        return Err(Broken::Truncated { ends: head.position, expected: missing.position }.into());
    }
    let proved = Proved {
        ok: true,
        store: store.id().0,
        events: head.position.0,
        head: format!("{}:{}", head.position, head.hash),
        kept_heads_matched: kept.len(),
    };
    output.print(&proved, |proved| {
        let against = match proved.kept_heads_matched {
            0 => "against no kept head: an unbroken chain alone does not prove that nothing was rewritten"
                .to_owned(),
            1 => "and the kept head matches".to_owned(),
            n => format!("and all {n} kept heads match"),
        };
        format!("{} events, chain unbroken, {against}\nhead {}", proved.events, proved.head)
    });
    Ok(())
}
