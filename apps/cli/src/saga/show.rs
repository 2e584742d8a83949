//! `mainstay saga show`.

use std::path::PathBuf;

use anyhow::Result;
use mainstay::envelope::CorrelationId;
use mainstay::flow::inbox::{DeadLetterError, DeadLetters, Status};
use mainstay::flow::timeline::{Parked, Source, Timeline};
use mainstay::sqlite::{EmbeddedLog, LogOptions};
use mainstay::store::Store;
use uuid::Uuid;

use crate::folder::{self, Folder, Service, Stores};
use crate::output::{BadInput, Output};
use crate::place::Given;

/// Reads the stores, and the logs for when an event was published; the services may run or not. An answer of the shop carries its correlation id in the header
/// Mainstay-Correlation-Id, and an order in `correlation_id`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The correlation id.
    #[arg(value_name = "CORRELATION-ID")]
    correlation: Uuid,
    /// The data folder of `mainstay up`.
    #[arg(long, value_name = "DIR", default_value = folder::DEFAULT)]
    data: PathBuf,
    /// The database that the services' stores are in, as `mainstay up` was told: postgres://…, or env:NAME.
    #[arg(long, value_name = "URL")]
    store: Option<Given>,
    /// At most so many events of each service.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
}

/// At most so many parked keys of each service are looked through.
const PARKED_KEYS_MAX: usize = 1_000;

/// At most so many of a log's newest messages are looked through for those of this correlation: a log has no index
/// for them. Enough for what happened lately, and read in well under a second.
const LOOK_BACK: u64 = 10_000;

/// Notes when the events of a service were published: the part of a wait before it is the outbox's. What its log
/// does not tell is left out, since the stores alone tell all that happened.
async fn published(timeline: Timeline, folder: &Folder, service: Service, output: &Output) -> Timeline {
    let read = async {
        let log = EmbeddedLog::follow(LogOptions::new(folder.log(service)))?;
        anyhow::Ok(timeline.clone().with_published(service.name(), &log, LOOK_BACK).await?)
    };
    match read.await {
        Ok(timeline) => timeline,
        Err(error) => {
            output.note(&format!("when {service} published its events is not shown: {error}"));
            timeline
        }
    }
}

/// The messages of this correlation that wait in a store, as far as they stand among the first of their keys.
async fn parked<S: Store>(source: &Source<S>, correlation: Uuid) -> Result<Vec<Parked>> {
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
    let folder = Folder::new(&arguments.data);
    match folder.stores(&Service::PARTICIPANTS, arguments.store.as_ref()).await? {
        Stores::Files(stores) => show(&folder, stores, &arguments, output).await,
        Stores::Server(stores) => show(&folder, stores, &arguments, output).await,
    }
}

async fn show<S: Store>(
    folder: &Folder,
    stores: Vec<(Service, S)>,
    arguments: &Arguments,
    output: &Output,
) -> Result<()> {
    let (services, stores): (Vec<Service>, Vec<S>) = stores.into_iter().unzip();
    let named = services.iter().zip(stores);
    let sources: Vec<Source<S>> =
        named.map(|(service, store)| Source { participant: service.name().to_owned(), store }).collect();
    let mut timeline =
        Timeline::read(&sources, CorrelationId(arguments.correlation), arguments.limit).await?;
    for source in &sources {
        timeline = timeline.with_parked(parked(source, arguments.correlation).await?);
    }
    if timeline.is_empty() {
        let names: Vec<&str> = services.iter().map(|service| service.name()).collect();
        return Err(BadInput(format!(
            "nothing of correlation {} is recorded by {}; check the id, --data and --store",
            arguments.correlation,
            names.join(", ")
        ))
        .into());
    }
    for service in services {
        timeline = published(timeline, folder, service, output).await;
    }
    output.print(&timeline, |timeline| timeline.text().to_string())?;
    Ok(())
}
