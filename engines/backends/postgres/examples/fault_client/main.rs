//! A process that works on a store while its server is broken: `cargo xtask crash postgres` starts it, breaks what lies
//! under it, and asks it afterwards whether every promise was kept.
//!
//! ```text
//! fault_client work  --url U --schema S --seed N --process P    lines of the books, until its input ends
//! fault_client check --url U --schema S --seed N --books FILE [--lost-from MS --lost-to MS]   one JSON object
//! fault_client watch --url U                                    how much a failover would lose, again and again
//! fault_client beat  --url U --schema S                         the last round that this server has: AT POSITION
//! fault_client drop  --url U --schema S                         removes the schema
//! ```

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_postgres::durability::Settings;
use mainstay_postgres::sqlx::{AssertSqlSafe, Connection, PgConnection, Row, query, raw_sql};
use mainstay_postgres::{Options, Postgres, Schema};

mod acts;
mod books;
mod check;
mod work;

/// Why a command could not be done.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let ended = tokio::runtime::Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(&words)));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Arguments {
    url: String,
    schema: String,
    seed: u64,
    process: u64,
    books: String,
    lost: check::Lost,
}

fn parse(words: &[String]) -> Result<Arguments, Failure> {
    let mut arguments = Arguments::default();
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a value", pair[0]).into()) };
        match name.as_str() {
            "--url" => arguments.url.clone_from(value),
            "--schema" => arguments.schema.clone_from(value),
            "--seed" => arguments.seed = value.parse()?,
            "--process" => arguments.process = value.parse()?,
            "--books" => arguments.books.clone_from(value),
            "--lost-from" => arguments.lost.from = Some(value.parse()?),
            "--lost-to" => arguments.lost.to = value.parse()?,
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    Ok(arguments)
}

/// True when what was asked for holds.
async fn run(words: &[String]) -> Result<bool, Failure> {
    let Some((command, rest)) = words.split_first() else {
        return Err("a command is missing: work, check, watch, beat, drop".into());
    };
    let arguments = parse(rest)?;
    match command.as_str() {
        "work" => work(&arguments).await.map(|()| true),
        "check" => {
            let books = books::Books::read(&std::fs::read_to_string(&arguments.books)?)?;
            let (store, cx) = open(&arguments).await?;
            let report = check::check(&store, &cx, arguments.seed, &books, arguments.lost).await?;
            store.close().await;
            println!("{}", report.to_json());
            Ok(report.violations.is_empty())
        }
        "watch" => watch(&arguments).await,
        "beat" => beat(&arguments).await.map(|()| true),
        "drop" => {
            let name = Schema::new(arguments.schema.as_str())?;
            let mut conn = PgConnection::connect(&arguments.url).await?;
            let drop = format!(
                "set client_min_messages = warning; drop schema if exists \"{}\" cascade",
                name.name()
            );
            raw_sql(AssertSqlSafe(drop)).execute(&mut conn).await?;
            Ok(true)
        }
        _ => Err(format!("unknown command {command}").into()),
    }
}

async fn open(arguments: &Arguments) -> Result<(Postgres, Context), Failure> {
    let cx = Context::system();
    let options = Options::new(arguments.url.as_str()).schema(Schema::new(arguments.schema.as_str())?);
    Ok((Postgres::open(&cx, options).await?, cx))
}

async fn work(arguments: &Arguments) -> Result<(), Failure> {
    let (store, cx) = open(arguments).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        // Whoever gives work keeps our input open; how its end is told does not matter.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    books::say(&format!("ready {}", books::now(&cx)));
    work::run(&store, &cx, arguments.seed, arguments.process, &stop).await?;
    store.close().await;
    books::say(&format!("done {}", books::now(&cx)));
    Ok(())
}

/// What `mainstay probe durability` announces of a failover, with the time at which it was asked: `AT SECONDS`, `-` without
/// a bound.
async fn watch(arguments: &Arguments) -> Result<bool, Failure> {
    let (cx, options) = (Context::system(), Options::new(arguments.url.as_str()));
    loop {
        let at = books::now(&cx);
        let settings = Settings::ask(&options).await?;
        let seconds = settings.decide().failover.loss.seconds();
        books::say(&format!("{at} {}", seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.6}"))));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The sequencer's last round that this server has, and where the feed ended then.
async fn beat(arguments: &Arguments) -> Result<(), Failure> {
    let schema = Schema::new(arguments.schema.as_str())?;
    let mut conn = PgConnection::connect(&arguments.url).await?;
    let beat = format!(
        "select (extract(epoch from at) * 1000)::bigint, position from \"{}\".heartbeat",
        schema.name()
    );
    let row = query(AssertSqlSafe(beat)).fetch_one(&mut conn).await?;
    println!("{} {}", row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
    Ok(())
}
