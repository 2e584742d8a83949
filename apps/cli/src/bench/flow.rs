//! `mainstay bench flow`: the relay, the inbox and a poisoned message, on the SQLite store and log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use mainstay::Context;
use mainstay::flow::inbox::Follower;
use mainstay::flow::outbox::Relay;
use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::Work;
use mainstay::messaging::{Log, Offset, Topic};
use mainstay::sqlite::{EmbeddedLog, LogOptions, Options, Sqlite, Transaction};
use mainstay::store::{self, Abort, OutboxRow, Refusal, Store, Tx};
use serde::Serialize;

use super::load;
use super::machine::Machine;
use super::ratio::{Ratio, Target, median};
use super::scratch::Scratch;
use crate::output::Output;

/// Measures the relay's rate, what the inbox adds to a handler, and what a poisoned message costs the others.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write; needs about 1 GB. Everything is removed at the end.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Pairs of runs in each comparison.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=99))]
    pairs: u32,
    /// Messages of each run.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1_000..=5_000_000))]
    messages: u64,
}

const KEYS: u64 = 500;
const TOPIC: &str = "desk";
/// What a follower puts into one transaction, so that the loop beside it does the same.
const BATCH: usize = 256;

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    relay_per_second: f64,
    inbox_per_second: f64,
    bare_handler_per_second: f64,
    ratios: Vec<Ratio>,
    met: bool,
}

/// Files one row for each message; one of them can't be filed.
struct Clerk {
    poisoned: Option<&'static str>,
}

impl Reactor<Sqlite> for Clerk {
    fn participant(&self) -> Participant {
        Participant::new("clerk").on("Noted", TOPIC).ends().into()
    }

    fn react(&self, work: &Work<'_, Sqlite>, message: &Incoming<'_>) -> Result<(), Failure> {
        if Some(message.key()) == self.poisoned {
            return Err(Failure::poisoned("it can't be filed"));
        }
        Ok(file(work.tx(), message.key(), message.data())?)
    }
}

/// The effect: one row of the user's own.
fn file(tx: &Transaction, key: &str, data: &[u8]) -> Result<(), Refusal> {
    tx.sql().execute("insert into filed(key, data) values (?1, ?2)", (key, data))?;
    Ok(())
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let folder = Scratch::make(&arguments.dir)?;
    output.print(&measure(&arguments, folder.path(), output).await?, human)?;
    Ok(())
}

async fn measure(arguments: &Arguments, folder: &Path, output: &Output) -> Result<Report> {
    let machine = Machine::probe(folder)?;
    let (cx, messages) = (Context::system(), arguments.messages);
    let mut relayed = Vec::new();
    for pair in 1..=arguments.pairs {
        output.progress(&format!("relay: run {pair} of {}", arguments.pairs));
        relayed.push(relay(&cx, folder, messages).await?);
    }
    // The last run's log is what the followers read.
    let log = EmbeddedLog::open(LogOptions::new(folder.join("log.db")))?;
    check_order(&log, messages).await?;
    let (mut inbox, mut bare, mut overhead, mut delay) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for pair in 1..=arguments.pairs {
        output.progress(&format!("inbox: pair {pair} of {}", arguments.pairs));
        let with = follow(&cx, folder, &log, messages, None).await?;
        let without = handle(&cx, folder, &log, messages).await?;
        let poisoned = follow(&cx, folder, &log, messages, Some("key-7")).await?;
        overhead.push(without / with);
        delay.push(with / poisoned);
        inbox.push(with);
        bare.push(without);
    }
    let rate: Vec<f64> = relayed.iter().map(|rate| rate / 20_000.0).collect();
    let ratios = vec![
        Ratio::of("relay / 20,000 messages a second", &rate, Target::AtLeast(1.0)),
        Ratio::of("time with the inbox / the same effect without it", &overhead, Target::AtMost(1.2)),
        Ratio::of("time with a poisoned key / without one", &delay, Target::AtMost(1.1)),
    ];
    let met = ratios.iter().all(|ratio| ratio.met);
    Ok(Report {
        machine,
        relay_per_second: median(&mut relayed),
        inbox_per_second: median(&mut inbox),
        bare_handler_per_second: median(&mut bare),
        ratios,
        met,
    })
}

/// Messages a second from a full outbox to a durable log, with their marks.
async fn relay(cx: &Context, folder: &Path, messages: u64) -> Result<f64> {
    let (store, log) = (folder.join("desk.db"), folder.join("log.db"));
    load::remove(&store)?;
    load::remove(&log)?;
    let (store, log) = (Sqlite::open(Options::new(&store))?, EmbeddedLog::open(LogOptions::new(&log))?);
    let payload = super::rows::payload(250);
    for from in (0..messages).step_by(500) {
        let payload = payload.clone();
        let written = store.transact(cx, move |tx| {
            for number in from..messages.min(from + 500) {
                tx.outbox(&OutboxRow {
                    topic: store::Topic::new(TOPIC).map_err(Refusal::from)?,
                    key: format!("key-{}", number % KEYS),
                    headers: vec![("type".into(), "Noted".into())],
                    payload: payload.clone(),
                })?;
            }
            Ok::<_, Abort<std::convert::Infallible>>(())
        });
        written.await?;
    }
    let relay = Relay::new(store, log);
    let began = Instant::now();
    let published = relay.run_until_empty(cx).await?;
    let seconds = began.elapsed().as_secs_f64();
    if published != messages {
        bail!("the relay published {published} of {messages} messages");
    }
    Ok(messages as f64 / seconds)
}

/// The numbers of each key in the log grow.
async fn check_order(log: &EmbeddedLog, messages: u64) -> Result<()> {
    let (topic, mut after, mut last, mut count) =
        (Topic::new(TOPIC)?, Offset(0), std::collections::HashMap::new(), 0);
    loop {
        let page = log.read(&topic, 0, after, 1_000).await?;
        for delivered in &page.messages {
            let before = last.insert(delivered.message.key.clone(), delivered.message.identity.seq);
            if before.is_some_and(|before| before >= delivered.message.identity.seq) {
                bail!("messages of {} are out of order", delivered.message.key);
            }
            count += 1;
        }
        if page.next == after {
            break;
        }
        after = page.next;
    }
    if count != messages {
        bail!("the log holds {count} of {messages} messages");
    }
    Ok(())
}

/// An empty store with the user's table.
async fn office(cx: &Context, folder: &Path) -> Result<Sqlite> {
    let path = folder.join("office.db");
    load::remove(&path)?;
    let store = Sqlite::open(Options::new(&path))?;
    let made = store.transact(cx, |tx| {
        let table =
            "create table filed(id integer primary key, key text not null, data blob not null) strict";
        Ok::<_, Abort<std::convert::Infallible>>(tx.sql().batch(table).map_err(Refusal::from)?)
    });
    made.await?;
    Ok(store)
}

/// Messages a second through a follower.
async fn follow(
    cx: &Context,
    folder: &Path,
    log: &EmbeddedLog,
    messages: u64,
    poisoned: Option<&'static str>,
) -> Result<f64> {
    let store = office(cx, folder).await?;
    let follower = Follower::new(store, log.clone(), TOPIC, Arc::new(Clerk { poisoned }))?;
    let began = Instant::now();
    let handled = follower.run_until_caught_up(cx).await?;
    let seconds = began.elapsed().as_secs_f64();
    if handled < messages {
        bail!("the follower looked at {handled} of {messages} messages");
    }
    Ok(messages as f64 / seconds)
}

/// The same messages and the same effect, in transactions of the same size, without marks and checkpoints; the next
/// page is read while one is written, as the follower does.
async fn handle(cx: &Context, folder: &Path, log: &EmbeddedLog, messages: u64) -> Result<f64> {
    let (store, topic) = (office(cx, folder).await?, Topic::new(TOPIC)?);
    let began = Instant::now();
    let mut count = 0;
    let mut page = log.read(&topic, 0, Offset(0), BATCH).await?;
    while !page.messages.is_empty() {
        count += page.messages.len() as u64;
        let (after, handed) = (page.next, page.messages);
        let written = store.transact(cx, move |tx| {
            for delivered in &handed {
                file(tx, &delivered.message.key, &delivered.message.data)?;
            }
            Ok::<_, Abort<std::convert::Infallible>>(())
        });
        let (written, next) = tokio::join!(written, log.read(&topic, 0, after, BATCH));
        written?;
        page = next?;
    }
    if count != messages {
        bail!("the loop handled {count} of {messages} messages");
    }
    Ok(messages as f64 / began.elapsed().as_secs_f64())
}

fn human(report: &Report) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    super::write_machine(&mut text, &report.machine);
    let _ = writeln!(
        text,
        "relay {:.0} messages/s; follower {:.0}/s; the same effect without the inbox {:.0}/s",
        report.relay_per_second, report.inbox_per_second, report.bare_handler_per_second
    );
    super::write_ratios(&mut text, &report.ratios);
    text
}
