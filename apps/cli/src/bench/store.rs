//! `mainstay bench store`: the SQLite store beside the physical limits of the same machine, in one run; with `--url` the
//! store on a server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use mainstay::sqlite::{Options, Sqlite};
use mainstay::store::{Position, Query, Subscribe};
use serde::Serialize;

use super::load::{self, Load, Measured};
use super::machine::{self, Machine};
use super::plain;
use super::ratio::{Ratio, Target, median};
use super::scratch::Scratch;
use crate::output::{BadInput, Output};

/// Measures the store and says whether its targets are met.
///
/// Each comparison is made of interleaved pairs of runs; a target is judged at the worse end of the 95 % interval of
/// the pairs' median ratio. Absolute figures are printed beside the disk's fdatasync and the CPU pressure of the
/// moment, and are never judged. Files are fresh for each run; on a server (--url) a scratch schema is made and dropped.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write; needs about 1 GB. Everything is removed at the end.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Pairs of runs in each comparison.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=99))]
    pairs: u32,
    /// How long each run lasts, in milliseconds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    millis: u64,
    /// How many appenders at once; several comparisons.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    appenders: Vec<usize>,
    /// Instead of a file, a database: postgres://user:password@host:port/database. It needs some hundred MB.
    #[arg(long, conflicts_with_all = ["grow", "keep"])]
    url: Option<String>,
    /// With --url: batches under way at once, instead of the store's own choice.
    #[arg(long, requires = "url", value_parser = clap::value_parser!(u8).range(1..=16))]
    lanes: Option<u8>,
    /// Events in the feed that is read and projected.
    #[arg(long, default_value_t = 200_000)]
    feed: u64,
    /// Instead: append so many events, read them all, and print the peak of this process's memory.
    #[arg(long)]
    grow: Option<u64>,
    /// With --grow: keep the file and go on with what it holds.
    #[arg(long, requires = "grow")]
    keep: bool,
}

const PAYLOAD: usize = 250;
const STREAMS: u64 = 10_000;

impl Arguments {
    pub(super) fn check(&self) -> Result<()> {
        if self.appenders.iter().any(|n| *n == 0 || *n > 100_000) {
            return Err(BadInput("--appenders: each from 1 to 100000; nothing was measured".into()).into());
        }
        Ok(())
    }

    /// The database to measure instead of a file.
    pub(super) fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn pairs(&self) -> u32 {
        self.pairs
    }

    pub(super) fn appenders(&self) -> &[usize] {
        &self.appenders
    }

    pub(super) fn lanes(&self) -> Option<usize> {
        self.lanes.map(usize::from)
    }

    pub(super) fn feed(&self) -> u64 {
        self.feed
    }

    pub(super) fn load(&self) -> Load {
        Load { payload: PAYLOAD, streams: STREAMS, lasts: Duration::from_millis(self.millis) }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    figures: Vec<Figure>,
    ratios: Vec<Ratio>,
    met: bool,
}

/// Medians over the pairs of one comparison.
#[derive(Debug, Serialize)]
struct Figure {
    appenders: usize,
    events_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    mean_group: f64,
    plain_loop_per_second: f64,
}

pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    arguments.check()?;
    if let Some(events) = arguments.grow {
        return grow(&arguments, events, output).await;
    }
    let scratch = Scratch::make(&arguments.dir)?;
    let report = measure(&arguments, scratch.path(), output).await?;
    output.print(&report, human)?;
    Ok(())
}

async fn measure(arguments: &Arguments, folder: &Path, output: &Output) -> Result<Report> {
    let load = arguments.load();
    let (ours, theirs) = (folder.join("store.db"), folder.join("plain.db"));
    let machine = Machine::probe(folder)?;
    let (mut figures, mut ratios) = (Vec::new(), Vec::new());
    for &appenders in &arguments.appenders {
        let mut pairs = Pairs::default();
        for pair in 1..=arguments.pairs {
            output.progress(&format!("{appenders} appenders: pair {pair} of {}", arguments.pairs));
            let store = load::seed(&ours, load).await?;
            let mut measured = load::append(store, appenders, load, None).await?;
            let sizes = measured.sizes();
            load::seed(&theirs, load).await?.close();
            let plain = plain::sqlite_loop(&theirs, &sizes, PAYLOAD, STREAMS, load.lasts)?;
            pairs.plain.push(measured.rate() / plain.rate());
            pairs.plain_rate.push(plain.rate());
            if appenders == 64 {
                load::seed(&theirs, load).await?.close();
                let singly = plain::sqlite_loop(&theirs, &[1], PAYLOAD, STREAMS, load.lasts)?;
                pairs.singly.push(measured.rate() / singly.rate());
                // What the store writes of an event, without its indices.
                let mut raw = plain::raw_loop(&folder.join("raw"), &sizes, PAYLOAD + 150, load.lasts)?;
                pairs.raw_p99.push(measured.us(0.99) / raw.p99_us());
            }
            pairs.note(&mut measured);
        }
        let least = if appenders == 1 { 0.5 } else { 0.7 };
        ratios.push(Ratio::of(
            format!("{appenders} appenders / plain loop in the same groups"),
            &pairs.plain,
            Target::AtLeast(least),
        ));
        if appenders == 64 {
            ratios.push(Ratio::of(
                "64 appenders / one commit per event",
                &pairs.singly,
                Target::AtLeast(6.0),
            ));
            ratios.push(Ratio::of(
                "p99 at 64 / p99 of raw group append + fdatasync",
                &pairs.raw_p99,
                Target::AtMost(4.0),
            ));
        }
        figures.push(pairs.figure(appenders));
    }
    feed(arguments, &ours, load, output, &mut ratios).await?;
    load::remove(&ours)?;
    load::remove(&theirs)?;
    let met = ratios.iter().all(|ratio| ratio.met);
    Ok(Report { machine, figures, ratios, met })
}

#[derive(Default)]
struct Pairs {
    plain: Vec<f64>,
    plain_rate: Vec<f64>,
    singly: Vec<f64>,
    raw_p99: Vec<f64>,
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    group: Vec<f64>,
}

impl Pairs {
    fn note(&mut self, measured: &mut Measured) {
        self.rate.push(measured.rate());
        self.p50.push(measured.us(0.5));
        self.p99.push(measured.us(0.99));
        self.group.push(measured.events as f64 / measured.groups.commits().max(1) as f64);
    }

    fn figure(mut self, appenders: usize) -> Figure {
        Figure {
            appenders,
            events_per_second: median(&mut self.rate),
            p50_us: median(&mut self.p50),
            p99_us: median(&mut self.p99),
            mean_group: median(&mut self.group),
            plain_loop_per_second: median(&mut self.plain_rate),
        }
    }
}

/// The feed read, and projected, beside a bare SELECT loop.
async fn feed(
    arguments: &Arguments,
    path: &Path,
    load: Load,
    output: &Output,
    ratios: &mut Vec<Ratio>,
) -> Result<()> {
    output.progress(&format!("feed: writing {} events", arguments.feed));
    let store = load::seed(path, load).await?;
    load::append(store, 64, load, Some(arguments.feed)).await?;
    let (mut read, mut projected) = (Vec::new(), Vec::new());
    for pair in 1..=arguments.pairs {
        output.progress(&format!("feed: pair {pair} of {}", arguments.pairs));
        let ours = read_feed(path).await?;
        let bare = plain::select_loop(path)?;
        read.push(ours / bare.rate());
        let ours = super::project::project(path).await?;
        let bare = plain::select_loop(path)?;
        projected.push(ours / bare.rate());
    }
    ratios.push(Ratio::of("feed read / bare SELECT loop", &read, Target::AtLeast(0.6)));
    ratios.push(Ratio::of("feed projected / bare SELECT loop", &projected, Target::AtLeast(0.3)));
    Ok(())
}

/// Events per second of a read of the whole feed.
async fn read_feed(path: &Path) -> Result<f64> {
    let store = Sqlite::open(Options::new(path).read_only())?;
    let mut feed = store.subscribe(Query::all(), Position::START);
    let mut count = 0;
    let began = Instant::now();
    loop {
        let page = feed.next_page().await?;
        count += page.events.len();
        std::hint::black_box(&page);
        if page.at_end() {
            break;
        }
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

#[derive(Debug, Serialize)]
struct Grown {
    events: u64,
    append_per_second: f64,
    read_per_second: f64,
    open_and_first_append_ms: f64,
    peak_memory_bytes: Option<u64>,
}

/// Appends and reads many events, and says how much memory that took.
async fn grow(arguments: &Arguments, events: u64, output: &Output) -> Result<()> {
    let path = arguments.dir.join("mainstay-grow.db");
    let load = Load { payload: PAYLOAD, streams: STREAMS, lasts: Duration::MAX };
    if !arguments.keep || !path.exists() {
        load::seed(&path, load).await?.close();
    }
    let began = Instant::now();
    load::append(Sqlite::open(Options::new(&path))?, 1, load, Some(1)).await?;
    let first = began.elapsed();
    let slices = events.div_ceil(1_000_000).max(1);
    let (mut written, mut seconds) = (0, 0.0);
    for slice in 0..slices {
        output.progress(&format!("grow: {written} of {events} events"));
        let share = events / slices + u64::from(slice < events % slices);
        let measured = load::append(Sqlite::open(Options::new(&path))?, 64, load, Some(share)).await?;
        written += measured.events;
        seconds += measured.seconds;
    }
    output.progress("grow: reading");
    let read = read_feed(&path).await?;
    let report = Grown {
        events: written,
        append_per_second: written as f64 / seconds,
        read_per_second: read,
        open_and_first_append_ms: first.as_secs_f64() * 1_000.0,
        peak_memory_bytes: machine::peak_memory(),
    };
    if !arguments.keep {
        load::remove(&path)?;
    }
    output.print(&report, |report| {
        format!(
            "{} events appended at {:.0}/s, the feed read at {:.0}/s; open and first append {:.1} ms; peak memory {}",
            report.events,
            report.append_per_second,
            report.read_per_second,
            report.open_and_first_append_ms,
            report.peak_memory_bytes.map_or("unknown".into(), |bytes| format!("{} MiB", bytes >> 20)),
        )
    })?;
    Ok(())
}

fn human(report: &Report) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    super::write_machine(&mut text, &report.machine);
    let _ = writeln!(text, "appenders   events/s     p50 us     p99 us  mean group  plain loop/s");
    for f in &report.figures {
        let _ = writeln!(
            text,
            "{:>9} {:>10.0} {:>10.0} {:>10.0} {:>11.1} {:>13.0}",
            f.appenders, f.events_per_second, f.p50_us, f.p99_us, f.mean_group, f.plain_loop_per_second
        );
    }
    super::write_ratios(&mut text, &report.ratios);
    text
}
