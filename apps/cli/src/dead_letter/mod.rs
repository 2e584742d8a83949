//! `mainstay dead-letter`: messages that a service could not handle, and what is to become of them.

mod line;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use mainstay::Context;
use mainstay::flow::inbox::{DeadLetter, DeadLetterError, DeadLetters};
use mainstay::sqlite::{Options, Sqlite};
use mainstay::store::Store;
use serde::Serialize;

use crate::folder::{self, Folder, SCHEMAS, Service, Stores};
use crate::output::{BadInput, Output};
use crate::place::{self, Durability, Given, Opened, on_store};

/// Keys that are read at a time.
const PAGE: usize = 200;

/// What to do with messages that could not be handled.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List what waits: the first message of each key, and how many are behind it.
    List(List),
    /// Show one with its content, and what waits behind it.
    Show(One),
    /// Have it tried again now. The service does so within about a second, or when it runs again.
    Retry(One),
    /// Never handle it: its effect is given up. What waits behind it goes on.
    Discard(One),
}

/// Whose messages.
#[derive(Debug, clap::Args)]
pub(crate) struct Whose {
    /// The data folder of `mainstay up`.
    #[arg(long, value_name = "DIR", default_value = folder::DEFAULT)]
    data: PathBuf,
    /// The database that the services' stores are in, as `mainstay up` was told: postgres://…, or env:NAME.
    #[arg(long, value_name = "URL")]
    store: Option<Given>,
    /// Only what this service could not handle.
    #[arg(long)]
    service: Option<Service>,
}

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    whose: Whose,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

/// Arguments of the others.
#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Which, as `list` names it.
    id: String,
    #[command(flatten)]
    whose: Whose,
}

impl Whose {
    fn folder(&self) -> Folder {
        Folder::new(&self.data)
    }

    fn services(&self) -> Vec<Service> {
        self.service.map_or(Service::PARTICIPANTS.to_vec(), |service| vec![service])
    }

    /// Opened for reading only.
    async fn stores(&self) -> Result<Stores> {
        self.folder().stores(&self.services(), self.store.as_ref()).await
    }

    /// Opened to write. What is asked for here is no event and no message, so nobody has to give it a place.
    async fn open(&self, service: Service) -> Result<Opened> {
        let Some(store) = &self.store else {
            return Ok(Opened::File(Sqlite::open(Options::new(self.folder().store(service)).existing())?));
        };
        let options = store.server()?.part(SCHEMAS, service.name())?.options().existing();
        // It is for the service to say what its server may lose.
        let options = Durability::Warn.of(options.sequencer(None).retention(None), |_| {});
        Ok(Opened::Server(place::open(options).await?))
    }
}

impl Command {
    pub(crate) fn only_prints(&self) -> bool {
        match self {
            Self::List(_) | Self::Show(_) => true,
            Self::Retry(_) | Self::Discard(_) => false,
        }
    }
}

pub(crate) async fn run(command: Command, output: &Output) -> Result<()> {
    match command {
        Command::List(arguments) => list(&arguments, output).await,
        Command::Show(arguments) => show(&arguments, output).await,
        Command::Retry(arguments) => ask(&arguments, Ask::Retry, output).await,
        Command::Discard(arguments) => ask(&arguments, Ask::Discard, output).await,
    }
}

async fn list(arguments: &List, output: &Output) -> Result<()> {
    let mut left = arguments.limit;
    match arguments.whose.stores().await? {
        Stores::Files(stores) => list_of(stores, &mut left, output).await,
        Stores::Server(stores) => list_of(stores, &mut left, output).await,
    }
}

async fn list_of<S: Store>(stores: Vec<(Service, S)>, left: &mut usize, output: &Output) -> Result<()> {
    let mut any = false;
    for (service, store) in stores {
        let letters = DeadLetters::new(store)?;
        let mut after = None;
        while *left > 0 {
            let (keys, next) = letters.list(after, PAGE.min(*left)).await?;
            *left -= keys.len().min(*left);
            for key in &keys {
                any = true;
                output.print(&line::Waiting::new(service, key), line::Waiting::text)?;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    if !any && !output.json {
        output.line("nothing waits: every message that came was handled")?;
    }
    Ok(())
}

async fn show(arguments: &One, output: &Output) -> Result<()> {
    let (service, letters) = found(arguments).await?;
    for (behind, letter) in letters.iter().enumerate() {
        output.print(&line::Shown::new(service, behind, letter)?, line::Shown::text)?;
    }
    Ok(())
}

/// Whose it is, and what waits behind it.
async fn found(arguments: &One) -> Result<(Service, Vec<DeadLetter>)> {
    match arguments.whose.stores().await? {
        Stores::Files(stores) => found_in(stores, &arguments.id).await,
        Stores::Server(stores) => found_in(stores, &arguments.id).await,
    }
}

async fn found_in<S: Store>(stores: Vec<(Service, S)>, id: &str) -> Result<(Service, Vec<DeadLetter>)> {
    for (service, store) in stores {
        match DeadLetters::new(store)?.show(id).await {
            Err(DeadLetterError::Unknown(_)) => {}
            letters => return Ok((service, letters?)),
        }
    }
    Err(unknown(id))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Ask {
    Retry,
    Discard,
}

#[derive(Serialize)]
struct Asked<'a> {
    service: Service,
    id: &'a str,
    asked: Ask,
}

async fn ask(arguments: &One, asked: Ask, output: &Output) -> Result<()> {
    // Looked for by reading: only the store that has it is opened to write.
    let (service, _) = found(arguments).await?;
    let id = arguments.id.as_str();
    let store = arguments.whose.open(service).await?;
    on_store!(store, |store| say(&store, id, asked).await)?;
    let told = output.print(&Asked { service, id, asked }, |asked| {
        let what = match asked.asked {
            Ask::Retry => "is tried again",
            Ask::Discard => "is discarded, and what waits behind it goes on",
        };
        format!("{id} {what} when {service} looks: within about a second, if it runs")
    });
    told.with_context(|| format!("{id}: {service} has been asked; asking again changes nothing"))
}

async fn say<S: Store>(store: &S, id: &str, asked: Ask) -> Result<()> {
    let (cx, letters) = (Context::system(), DeadLetters::new(store.clone())?);
    match asked {
        Ask::Retry => letters.retry(&cx, id).await?,
        Ask::Discard => letters.discard(&cx, id).await?,
    }
    Ok(())
}

fn unknown(id: &str) -> anyhow::Error {
    BadInput(format!(
        "no message {id:?} waits here; nothing was done; see `mainstay dead-letter list`, and check --data and --store"
    ))
    .into()
}
