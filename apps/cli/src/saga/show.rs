//! `mainstay saga show`.

use std::path::PathBuf;

use anyhow::Result;
use mainstay::envelope::CorrelationId;
use mainstay::flow::timeline::{Source, Timeline};
use mainstay::sqlite::{Options, Sqlite};
use uuid::Uuid;

use crate::folder::{self, Folder, Service};
use crate::output::{BadInput, Output, Unusable};

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

/// Opens the stores that are there, for reading only.
fn sources(data: &Folder) -> Result<Vec<Source<Sqlite>>> {
    let mut sources = Vec::new();
    for service in Service::ALL {
        let file = data.store(service);
        if file.exists() {
            let store = Sqlite::open(Options::new(&file).read_only())?;
            sources.push(Source { participant: service.name().to_owned(), store });
        }
    }
    if sources.is_empty() {
        return Err(Unusable(format!(
            "{}: there is no store of a service in this folder; nothing was read; give the data folder of \
             `mainstay up` with --data",
            data.path().display()
        ))
        .into());
    }
    Ok(sources)
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let sources = sources(&Folder::new(&arguments.data))?;
    let timeline = Timeline::read(&sources, CorrelationId(arguments.correlation), arguments.limit).await?;
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
