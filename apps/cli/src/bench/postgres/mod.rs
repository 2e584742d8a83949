//! `mainstay bench store --url`: the store on a server beside what the same server does without it, in one run.

mod limits;
pub(crate) mod server;

use std::time::Instant;

use anyhow::Result;
use mainstay::postgres::sqlx::PgPool;
use mainstay::postgres::{Options, Postgres};
use mainstay::store::{Position, Query, Store, Subscribe};
use serde::Serialize;

use super::load::{self, Load};
use super::machine::Machine;
use super::ratio::{Ratio, Target, median};
use super::rows;
use super::store::Arguments;
use crate::output::Output;
use server::{Bench, Scratch};

/// Who has the feed's end more than this behind the acknowledgements is too slow.
const LAG_MAX_S: f64 = 1.0;

/// The two schemas of a run: the store's, and one with the same tables and rows that nobody but a plain client writes to.
struct Place<'a> {
    ours: &'a Scratch,
    plain: &'a Scratch,
}

#[derive(Debug, Serialize)]
struct Report {
    machine_before: Machine,
    machine_after: Machine,
    figures: Vec<Figure>,
    singly_per_second: f64,
    feed_per_second: f64,
    copy_per_second: f64,
    ratios: Vec<Ratio>,
    met: bool,
}

/// Medians over the runs with so many appenders.
#[derive(Debug, Serialize)]
struct Figure {
    appenders: usize,
    events_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    lag_ms_max: f64,
}

pub(super) async fn run(arguments: &Arguments, output: &Output) -> Result<()> {
    arguments.check()?;
    let (url, load) = (arguments.url().unwrap_or_default(), arguments.load());
    let ours = Scratch::make(url, "ours").await?;
    let plain = Scratch::make(url, "plain").await?;
    let place = Place { ours: &ours, plain: &plain };
    let report = tokio::select! {
        report = measure(arguments, &place, load, output) => report,
        interrupted = tokio::signal::ctrl_c() => match interrupted {
            Ok(()) => Err(anyhow::anyhow!("interrupted; the scratch schemas are dropped; nothing is reported")),
            Err(error) => Err(error.into()),
        },
    };
    let removed = (ours.remove().await, plain.remove().await);
    let report = report?;
    output.print(&report, human)?;
    removed.0?;
    removed.1
}

async fn measure(arguments: &Arguments, place: &Place<'_>, load: Load, output: &Output) -> Result<Report> {
    let machine_before = Machine::probe(arguments.dir())?;
    output.progress("beginning the streams");
    // The plain client's tables are a store's, with nobody working on them.
    place.plain.seed(load, None).await?.store.close().await;
    place.plain.settle().await?;
    let bench = place.ours.seed(load, arguments.lanes()).await?;
    place.ours.settle().await?;

    let (mut figures, mut ratios, mut singly) = (Vec::new(), Vec::new(), Vec::new());
    let mut conn = place.plain.connect().await?;
    for &appenders in arguments.appenders() {
        let (mut runs, mut against) = (Runs::default(), Vec::new());
        for pair in 1..=arguments.pairs() {
            output.progress(&format!("{appenders} appenders: pair {pair} of {}", arguments.pairs()));
            // Who goes first alternates, so that a machine that grows slower or faster favours nobody.
            let mut alone = None;
            for is_ours in [pair % 2 == 1, pair % 2 == 0] {
                if is_ours {
                    runs.note(&bench, appenders).await?;
                } else if appenders == 64 {
                    let schema = &place.plain.schema;
                    let rate =
                        limits::singly(&mut conn, schema, load.payload, load.streams, load.lasts).await?;
                    alone = Some(rate);
                }
            }
            if let (Some(ours), Some(alone)) = (runs.rate.last(), alone) {
                against.push(ours / alone);
                singly.push(alone);
            }
        }
        if !against.is_empty() {
            ratios.push(Ratio::of(
                "64 appenders / one client committing singly",
                &against,
                Target::AtLeast(6.0),
            ));
            let lag = "seconds the sequencer is behind after 64 appenders";
            ratios.push(Ratio::of(lag, &runs.lag, Target::AtMost(LAG_MAX_S)));
        }
        figures.push(runs.figure(appenders));
    }
    drop(conn);
    let (feed_per_second, copy_per_second) = feed(arguments, place, bench, output, &mut ratios).await?;
    let met = ratios.iter().all(|ratio| ratio.met);
    let singly_per_second = median(&mut singly);
    let machine_after = Machine::probe(arguments.dir())?;
    let report = Report {
        machine_before,
        machine_after,
        figures,
        singly_per_second,
        feed_per_second,
        copy_per_second,
        ratios,
        met,
    };
    Ok(report)
}

#[derive(Default)]
struct Runs {
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// Seconds.
    lag: Vec<f64>,
}

impl Runs {
    async fn note(&mut self, bench: &Bench, appenders: usize) -> Result<()> {
        let loaded = bench.append(appenders, None).await?;
        self.rate.push(loaded.put.rate());
        self.p50.push(loaded.put.us(0.5));
        self.p99.push(loaded.put.us(0.99));
        self.lag.push(loaded.lag.as_secs_f64());
        Ok(())
    }

    fn figure(mut self, appenders: usize) -> Figure {
        Figure {
            appenders,
            events_per_second: median(&mut self.rate),
            p50_us: median(&mut self.p50),
            p99_us: median(&mut self.p99),
            lag_ms_max: self.lag.iter().fold(0.0, |most, lag| lag.max(most)) * 1_000.0,
        }
    }
}

/// The feed read beside COPY of the same rows.
async fn feed(
    arguments: &Arguments,
    place: &Place<'_>,
    bench: Bench,
    output: &Output,
    ratios: &mut Vec<Ratio>,
) -> Result<(f64, f64)> {
    let events = arguments.feed();
    output.progress(&format!("feed: writing {events} events"));
    bench.append(64, Some(events)).await?;
    // Only who reads is there.
    bench.store.close().await;
    place.ours.settle().await?;
    let options = Options::new(place.ours.url.as_str()).schema(place.ours.schema.clone()).read_only();
    let store = Postgres::open(&mainstay::Context::system(), options).await?;
    let pool = PgPool::connect(&place.ours.url).await?;
    let statement = limits::feed(&place.ours.schema);
    let rows = store.head().await?.position.0;
    let (mut read, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 1..=arguments.pairs() {
        output.progress(&format!("feed: pair {pair} of {}", arguments.pairs()));
        let (mut feed, mut copied) = (0.0, 0.0);
        for is_ours in [pair % 2 == 1, pair % 2 == 0] {
            if is_ours {
                feed = read_feed(&store).await?;
            } else {
                copied = limits::copy(&pool, &statement, rows).await?;
            }
        }
        read.push(feed / copied);
        ours.push(feed);
        theirs.push(copied);
    }
    ratios.push(Ratio::of("feed read / COPY of the same rows", &read, Target::AtLeast(0.5)));
    Ok((median(&mut ours), median(&mut theirs)))
}

/// Events per second of a read of the whole feed.
async fn read_feed(store: &Postgres) -> Result<f64> {
    let mut feed = store.subscribe(Query::all(), Position::START);
    let (began, mut count) = (Instant::now(), 0);
    loop {
        let page = feed.next_page().await?;
        count += page.events.len() as u64;
        std::hint::black_box(&page);
        if page.at_end() {
            break;
        }
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

fn human(report: &Report) -> String {
    use std::fmt::Write;
    let mut text = String::from("before: ");
    super::write_machine(&mut text, &report.machine_before);
    text.push_str("after:  ");
    super::write_machine(&mut text, &report.machine_after);
    let _ = writeln!(text, "appenders   events/s     p50 us     p99 us  sequencer behind by at most");
    for f in &report.figures {
        let _ = writeln!(
            text,
            "{:>9} {:>10.0} {:>10.0} {:>10.0} {:>8.0} ms",
            f.appenders, f.events_per_second, f.p50_us, f.p99_us, f.lag_ms_max
        );
    }
    let _ = writeln!(
        text,
        "one client committing singly {:.0}/s; feed read {:.0}/s; COPY {:.0}/s",
        report.singly_per_second, report.feed_per_second, report.copy_per_second
    );
    super::write_ratios(&mut text, &report.ratios);
    text
}
