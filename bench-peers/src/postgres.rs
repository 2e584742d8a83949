//! The store on PostgreSQL beside the design that most libraries have there: a function for each append, with an advisory
//! lock for the stream's category, so that positions inside a category are in the order of commits (message-db, 2016).
//! The SQL is ours, made after its documentation: what is compared is the design, on the same server, in one run.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use mainstay::Context;
use mainstay::postgres::sqlx::{self, AssertSqlSafe, PgConnection, raw_sql};
use serde::Serialize;

use crate::load::Load;
use crate::machine::Machine;
use crate::ratio::{Ratio, Target, median};
use crate::rows::{Draw, payload};
use crate::server::Scratch;

const PAYLOAD: usize = 250;
const STREAMS: u64 = 10_000;

/// How many clients the targets are set for, and how often the design's rate has to be reached there.
const JUDGED: u32 = 64;
const LEAST: f64 = 2.0;

/// Compares the PostgreSQL store with a function for each append and an advisory lock, as message-db does it.
///
/// Both append 250-byte events to 10,000 streams of the same server, in scratch schemas that are dropped at the end. The
/// store has one handle, with its sequencer running; it must be no more than a second behind at the end of each run. The
/// other design has a connection for each client, which appends by one call, a commit each; its streams are spread over
/// as many categories as there are clients, which is the best case: no lock is ever waited for.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The database: postgres://user:password@host:port/database.
    #[arg(long)]
    url: String,
    /// Pairs of runs in each comparison.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=99))]
    pairs: u32,
    /// How long each run lasts, in milliseconds.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    millis: u64,
    /// How many clients at once; several comparisons.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,16,64",
        value_parser = clap::value_parser!(u32).range(1..=300)
    )]
    clients: Vec<u32>,
    /// All streams in one category, so that the other design's appends queue.
    #[arg(long)]
    one_category: bool,
    /// The figures as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    payload_bytes: usize,
    figures: Vec<Figure>,
    ratios: Vec<Ratio>,
    met: bool,
    machine_before: Machine,
    machine_after: Machine,
}

/// Medians over the pairs of one comparison.
#[derive(Debug, Serialize)]
struct Figure {
    clients: u32,
    ours: Side,
    lag_ms_max: f64,
    function: Side,
    median_ratio: f64,
}

#[derive(Debug, Serialize)]
struct Side {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

#[derive(Default)]
struct Runs {
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Runs {
    fn note(&mut self, rate: f64, latency: &Histogram<u64>) {
        let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
        self.rate.push(rate);
        self.p50.push(us(0.5));
        self.p99.push(us(0.99));
    }

    fn side(&mut self) -> Side {
        let (p50_us, p99_us) = (median(&mut self.p50), median(&mut self.p99));
        Side { per_second: median(&mut self.rate), p50_us, p99_us }
    }
}

/// Runs all comparisons.
pub(crate) async fn measure(arguments: &Arguments) -> Result<Report> {
    let (ours, theirs) = schemas(arguments).await?;
    let report = compare(arguments, &ours, &theirs).await;
    remove(&ours, &theirs).await?;
    report
}

/// Drops the scratch schemas of this process, should there be any.
pub(crate) async fn clean_up(arguments: &Arguments) -> Result<()> {
    schemas(arguments).await.map(drop)
}

async fn schemas(arguments: &Arguments) -> Result<(Scratch, Scratch)> {
    Ok((Scratch::make(&arguments.url, "ours").await?, Scratch::make(&arguments.url, "function").await?))
}

async fn remove(ours: &Scratch, theirs: &Scratch) -> Result<()> {
    let removed = (ours.remove().await, theirs.remove().await);
    removed.0?;
    removed.1
}

async fn compare(arguments: &Arguments, ours: &Scratch, theirs: &Scratch) -> Result<Report> {
    let folder = std::env::temp_dir();
    let machine_before = Machine::probe(&folder)?;
    let load = Load { payload: PAYLOAD, streams: STREAMS, lasts: Duration::from_millis(arguments.millis) };
    let bench = ours.seed(load, None).await?;
    ours.settle().await?;
    make(theirs, arguments).await?;
    let (mut figures, mut ratios) = (Vec::new(), Vec::new());
    for &clients in &arguments.clients {
        let (mut store, mut function) = (Runs::default(), Runs::default());
        let (mut pairs, mut lag) = (Vec::new(), Vec::new());
        for pair in 1..=arguments.pairs {
            crate::compare::progress(&format!("{clients} clients: pair {pair} of {}", arguments.pairs));
            // Who goes first alternates, so that a machine that grows slower or faster favours nobody.
            for is_ours in [pair % 2 == 1, pair % 2 == 0] {
                if is_ours {
                    let loaded = bench.append(clients as usize, None).await?;
                    store.note(loaded.put.rate(), &loaded.put.latency);
                    lag.push(loaded.lag.as_secs_f64());
                } else {
                    let (rate, latency) = call(theirs, arguments, clients, load).await?;
                    function.note(rate, &latency);
                }
            }
            if let (Some(ours), Some(theirs)) = (store.rate.last(), function.rate.last()) {
                pairs.push(ours / theirs);
            }
        }
        if clients == JUDGED {
            let what = format!("{clients} clients: store / function for each append");
            ratios.push(Ratio::of(what, &pairs, Target::AtLeast(LEAST)));
            ratios.push(Ratio::of("seconds the sequencer is behind afterwards", &lag, Target::AtMost(1.0)));
        }
        let lag_ms_max = lag.iter().fold(0.0, |most, lag| f64::max(*lag, most)) * 1_000.0;
        let (ours, function) = (store.side(), function.side());
        figures.push(Figure { clients, ours, lag_ms_max, function, median_ratio: median(&mut pairs) });
    }
    crate::compare::progress("");
    bench.store.close().await;
    let (met, machine_after) = (ratios.iter().all(|ratio| ratio.met), Machine::probe(&folder)?);
    Ok(Report { payload_bytes: PAYLOAD, figures, ratios, met, machine_before, machine_after })
}

/// The other design's table, its function, and a first message in every stream.
async fn make(theirs: &Scratch, arguments: &Arguments) -> Result<()> {
    let s = theirs.schema.name();
    let mut conn = theirs.connect().await?;
    let categories = arguments.clients.iter().max().copied().unwrap_or(1);
    let sql = format!(
        r#"
        create schema "{s}";
        create table "{s}".message(
            global_position bigint generated always as identity primary key,
            id uuid not null unique,
            stream_name text not null,
            position bigint not null,
            at timestamp not null default (now() at time zone 'utc'),
            type text not null,
            data jsonb not null,
            metadata jsonb not null
        );
        create unique index on "{s}".message(stream_name, position);
        create index on "{s}".message(split_part(stream_name, '-', 1), global_position);
        create function "{s}".append(
            message_id uuid, stream text, message_type text, message_data jsonb, message_metadata jsonb, expected bigint
        ) returns bigint language plpgsql as $$
        declare
            stands bigint;
        begin
            perform pg_advisory_xact_lock(hashtextextended(split_part(stream, '-', 1), 0));
            select max(m.position) into stands from "{s}".message m where m.stream_name = stream;
            stands := coalesce(stands, -1);
            if expected is not null and expected <> stands then
                raise exception 'the stream % stands at %, not at %', stream, stands, expected;
            end if;
            insert into "{s}".message(id, stream_name, position, type, data, metadata)
                values (message_id, stream, stands + 1, message_type, message_data, message_metadata);
            return stands + 1;
        end
        $$;
        insert into "{s}".message(id, stream_name, position, type, data, metadata)
            select gen_random_uuid(), 'account' || i % {categories} || '-' || i, 0, 'AccountCreated', '{{}}', '{{}}'
            from generate_series(0, {}) i;
        "#,
        STREAMS - 1
    );
    raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.context("the other design's tables")?;
    let vacuum = format!("vacuum analyze \"{s}\".message");
    raw_sql(AssertSqlSafe(vacuum)).execute(&mut conn).await?;
    Ok(())
}

/// So many clients call the function, one append and one commit a call.
async fn call(
    theirs: &Scratch,
    arguments: &Arguments,
    clients: u32,
    load: Load,
) -> Result<(f64, Histogram<u64>)> {
    let call = format!(
        "select \"{}\".append($1, $2, 'DepositMade', $3::jsonb, $4::jsonb, null)",
        theirs.schema.name()
    );
    let mut connections = Vec::new();
    for _ in 0..clients {
        let mut conn = theirs.connect().await?;
        // As of any client that has worked for a while: its statement is prepared, the function's plans are made.
        for n in 0..10 {
            one(&mut conn, &call, &Context::system(), &format!("warm{n}-0"), "{}").await?;
        }
        connections.push(conn);
    }
    let categories = if arguments.one_category { 1 } else { u64::from(clients) };
    let began = Instant::now();
    let tasks: Vec<_> = (0..u64::from(clients))
        .zip(connections)
        .map(|(client, mut conn)| {
            let call = call.clone();
            tokio::spawn(async move {
                let (cx, text) = (Context::system(), payload(load.payload));
                let text = String::from_utf8(text)?;
                let mut draw = Draw(0x5EED ^ (client + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
                let mut count = 0_u64;
                while began.elapsed() < load.lasts {
                    let stream = format!("account{}-{}", client % categories, draw.next() % load.streams);
                    let start = Instant::now();
                    one(&mut conn, &call, &cx, &stream, &text).await?;
                    latency.record(start.elapsed().as_nanos() as u64)?;
                    count += 1;
                }
                anyhow::Ok((count, latency))
            })
        })
        .collect();
    let (mut count, mut latency) = (0, Histogram::new_with_bounds(1, 60_000_000_000, 3)?);
    for task in tasks {
        let (own, measured) = task.await??;
        count += own;
        latency.add(measured)?;
    }
    Ok((count as f64 / began.elapsed().as_secs_f64(), latency))
}

async fn one(conn: &mut PgConnection, call: &str, cx: &Context, stream: &str, data: &str) -> Result<()> {
    let metadata = serde_json::to_string(&cx.fact())?;
    let query = sqlx::query(AssertSqlSafe(call)).bind(cx.new_id()).bind(stream).bind(data).bind(metadata);
    query.execute(conn).await?;
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Mainstay's PostgreSQL store beside a function for each append; {}-byte events",
            self.payload_bytes
        )?;
        for (when, machine) in [("before", &self.machine_before), ("after", &self.machine_after)] {
            let pressure =
                machine.cpu_pressure_some_avg10.map_or("unknown".into(), |some| format!("{some} %"));
            let (p50, p99) = (machine.fdatasync_p50_us, machine.fdatasync_p99_us);
            writeln!(f, "{when}: fdatasync p50 {p50} us, p99 {p99} us; CPU pressure {pressure}")?;
        }
        writeln!(
            f,
            "clients             per second   p50 us   p99 us   sequencer behind by at most   median ratio"
        )?;
        for Figure { clients, ours, lag_ms_max, function, median_ratio } in &self.figures {
            let side =
                |side: &Side| format!("{:>10.0} {:>8.0} {:>8.0}", side.per_second, side.p50_us, side.p99_us);
            writeln!(
                f,
                "{clients:>7}  store     {}   {lag_ms_max:>8.0} ms {median_ratio:>30.2}",
                side(ours)
            )?;
            writeln!(f, "         function  {}", side(function))?;
        }
        for (index, ratio) in self.ratios.iter().enumerate() {
            let Ratio { what, median, low, high, pairs, target, met } = ratio;
            let met = if *met { "met" } else { "MISSED" };
            let end = if index + 1 == self.ratios.len() { "" } else { "\n" };
            write!(
                f,
                "{what:<44} {median:.2} [{low:.2}, {high:.2}] over {pairs} pairs, target {target}: {met}{end}"
            )?;
        }
        Ok(())
    }
}
