//! `mainstay events read` and `tail`.

use anyhow::Result;
use mainstay::store::{
    Direction, EventType, Position, Query, QueryItem, Recorded, Store, StreamName, Subscribe, Tag, Version,
};

use super::{Where, line};
use crate::output::{BadInput, Output};
use crate::place::on_store;

/// Which events.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    #[command(flatten)]
    place: Where,
    /// Only events of this type; several: any of them.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<EventType>,
    /// Only events with this tag; several: all of them.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,
}

impl Selection {
    fn query(&self) -> Query {
        if self.types.is_empty() && self.tags.is_empty() {
            return Query::all();
        }
        Query { items: vec![QueryItem { types: self.types.clone(), tags: self.tags.clone() }] }
    }
}

/// Arguments of `read`.
#[derive(Debug, clap::Args)]
pub(crate) struct Read {
    #[command(flatten)]
    selection: Selection,
    /// Only this stream.
    #[arg(long, conflicts_with_all = ["types", "tags", "after"])]
    stream: Option<StreamName>,
    /// With --stream: newest first.
    #[arg(long, requires = "stream")]
    backwards: bool,
    /// Only events after this position of the feed.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// At most so many.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

/// Arguments of `tail`.
#[derive(Debug, clap::Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    selection: Selection,
    /// Begin after this position of the feed; default: at its end.
    #[arg(long)]
    after: Option<u64>,
    /// End after so many events.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

/// Prints events until the limit; false when it is reached.
fn print(events: &[Recorded], left: &mut u64, output: &Output) -> Result<bool> {
    for event in events {
        if *left == 0 {
            return Ok(false);
        }
        output.line(&if output.json { line::json(event)? } else { line::human(event) })?;
        *left -= 1;
    }
    Ok(*left > 0)
}

pub(crate) async fn read(arguments: Read, output: &Output) -> Result<()> {
    on_store!(arguments.selection.place.look().await?, |store| read_from(&store, &arguments, output).await)
}

async fn read_from(store: &impl Store, arguments: &Read, output: &Output) -> Result<()> {
    let mut left = arguments.limit;
    if let Some(stream) = &arguments.stream {
        return read_stream(store, stream, arguments.backwards, left, output).await;
    }
    let query = arguments.selection.query();
    let mut after = Position(arguments.after);
    loop {
        let page = store.read(&query, after, usize::try_from(left).unwrap_or(usize::MAX).max(1)).await?;
        if !print(&page.events, &mut left, output)? || page.at_end() {
            return Ok(());
        }
        after = page.next;
    }
}

async fn read_stream(
    store: &impl Store,
    stream: &StreamName,
    backwards: bool,
    mut left: u64,
    output: &Output,
) -> Result<()> {
    let direction = if backwards { Direction::Backwards } else { Direction::Forwards };
    let mut from = Version(if backwards { u64::MAX } else { 1 });
    loop {
        let page = store.read_stream(stream, from, direction, usize::MAX).await?;
        if page.version == Version::EMPTY {
            return Err(
                BadInput(format!("stream {stream} has no event; nothing was read; check its name")).into()
            );
        }
        let Some(last) = page.events.last().map(|event| event.version) else { return Ok(()) };
        let end = if backwards { last.0 == 1 } else { last == page.version };
        if !print(&page.events, &mut left, output)? || end {
            return Ok(());
        }
        from = Version(if backwards { last.0 - 1 } else { last.0 + 1 });
    }
}

pub(crate) async fn tail(arguments: Tail, output: &Output) -> Result<()> {
    on_store!(arguments.selection.place.look().await?, |store| tail_of(&store, &arguments, output).await)
}

async fn tail_of(store: &impl Store, arguments: &Tail, output: &Output) -> Result<()> {
    let after = match arguments.after {
        Some(after) => Position(after),
        None => store.head().await?.position,
    };
    let mut feed = store.subscribe(arguments.selection.query(), after);
    let mut left = arguments.limit;
    loop {
        let page = tokio::select! {
            page = feed.next_page() => page?,
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        };
        if !print(&page.events, &mut left, output)? {
            return Ok(());
        }
    }
}
