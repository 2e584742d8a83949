//! `mainstay saga show`.

use std::path::PathBuf;

use anyhow::Result;
use mainstay::envelope::CorrelationId;
use mainstay::flow::inbox::{DeadLetterError, DeadLetters, Status};
use mainstay::flow::timeline::{Parked, Source, Timeline};
use mainstay::sqlite::Sqlite;
use uuid::Uuid;

use crate::folder::{self, Folder, Service};
use crate::output::{BadInput, Output};

/// Reads the stores; the services may run or not. An answer of the shop carries its correlation id in the header
/// Mainstay-Correlation-Id, and an order in `correlation_id`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The correlation id.
    #[arg(value_name = "CORRELATION-ID")]
    correlation: Uuid,
    /// The data folder of `mainstay up`.
    #[arg(long, value_name = "DIR", default_value = folder::DEFAULT)]
    data: PathBuf,
    /// At most so many events of each service.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
}

/// At most so many parked keys of each service are looked through.
const PARKED_KEYS_MAX: usize = 1_000;

/// The messages of this correlation that wait in a store, as far as they stand among the first of their keys.
async fn parked(source: &Source<Sqlite>, correlation: Uuid) -> Result<Vec<Parked>> {
    let letters = DeadLetters::new(source.store.clone())?;
    let mut found = Vec::new();
    for key in letters.list(None, PARKED_KEYS_MAX).await?.0 {
        let (tries, is_dead) = match key.status {
            Status::Waiting { tries, .. } => (tries, false),
            Status::Dead { tries } => (tries, true),
        };
        let behind = match letters.show(&key.id).await {
            // Released or discarded since it was listed: it waits no more.
            Err(DeadLetterError::Unknown(_)) => continue,
            behind => behind?,
        };
        for (place, letter) in behind.into_iter().enumerate() {
            let is_of_it = letter.event.fact().is_ok_and(|fact| fact.correlation.0 == correlation);
            if !is_of_it {
                continue;
            }
            found.push(Parked {
                participant: source.participant.clone(),
                from: key.topic.clone(),
                id: letter.event.id().parse().unwrap_or_default(),
                event_type: letter.event.event_type().to_owned(),
                since: letter.parked,
                // Only the first of a key is ever tried; the others wait for it.
                tries: if place == 0 { tries } else { 0 },
                is_dead,
                why: if place == 0 { key.why.clone() } else { format!("it waits behind {}", key.id) },
            });
        }
    }
    Ok(found)
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let stores = Folder::new(&arguments.data).stores(&Service::ALL)?;
    let sources: Vec<Source<Sqlite>> = stores
        .into_iter()
        .map(|(service, store)| Source { participant: service.name().to_owned(), store })
        .collect();
    let mut timeline =
        Timeline::read(&sources, CorrelationId(arguments.correlation), arguments.limit).await?;
    for source in &sources {
        timeline = timeline.with_parked(parked(source, arguments.correlation).await?);
    }
    if timeline.is_empty() {
        let services: Vec<&str> = sources.iter().map(|source| source.participant.as_str()).collect();
        return Err(BadInput(format!(
            "nothing of correlation {} is recorded by {}; check the id, and --data",
            arguments.correlation,
            services.join(", ")
        ))
        .into());
    }
    output.print(&timeline, |timeline| timeline.text().to_string());
    Ok(())
}
