//! A scratch schema on a server, and the load on a store in it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mainstay::Context;
use mainstay::postgres::sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use mainstay::postgres::{Options, Postgres, Schema};
use mainstay::store::{Position, Store};

use super::load::{self, Load, Put};

/// The sequencer that is not done by then does not run.
const PLACED_MAX: Duration = Duration::from_secs(60);

/// A schema of our own. What is in it is nobody's: it is dropped before and after.
#[derive(Debug, Clone)]
pub(crate) struct Scratch {
    pub(crate) url: String,
    pub(crate) schema: Schema,
}

impl Scratch {
    /// Names it, and drops what an earlier run under the same name may have left.
    pub(crate) async fn make(url: &str, purpose: &str) -> Result<Self> {
        let schema = Schema::new(format!("mainstay_bench_{}_{purpose}", std::process::id()))?;
        let scratch = Self { url: url.to_owned(), schema };
        scratch.remove().await?;
        Ok(scratch)
    }

    /// Drops it with everything in it.
    pub(crate) async fn remove(&self) -> Result<()> {
        let name = self.schema.name();
        let mut conn = self.connect().await?;
        let drop = format!("set client_min_messages = warning; drop schema if exists \"{name}\" cascade");
        raw_sql(AssertSqlSafe(drop)).execute(&mut conn).await.with_context(|| {
            format!("schema {name} could not be dropped; to do so: drop schema {name} cascade")
        })?;
        Ok(())
    }

    /// A connection for statements of the benchmark's own.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.url).await.context("the server can't be reached; nothing was measured")
    }

    /// A store in it as every service has it, the sequencer included, with every stream begun and in the feed.
    pub(crate) async fn seed(&self, load: Load, lanes: Option<usize>) -> Result<Bench> {
        let mut options = Options::new(self.url.as_str()).schema(self.schema.clone());
        if let Some(lanes) = lanes {
            options = options.lanes(lanes);
        }
        let store = Postgres::open(&Context::system(), options).await?;
        let bench = Bench { store, load };
        load::begin(&bench.store, load).await?;
        bench.placed(load.streams).await?;
        Ok(bench)
    }

    /// As after a night in which nothing happened: the planner knows the tables, and no dead row is left. Without it
    /// the first runs are of another table than the last ones.
    pub(crate) async fn settle(&self) -> Result<()> {
        let mut conn = self.connect().await?;
        for table in ["stream", "event", "feed", "feed_key"] {
            let vacuum = format!("vacuum analyze \"{}\".{table}", self.schema.name());
            raw_sql(AssertSqlSafe(vacuum)).execute(&mut conn).await?;
        }
        Ok(())
    }
}

/// A store under load.
pub(crate) struct Bench {
    pub(crate) store: Postgres,
    load: Load,
}

/// What came of a load.
pub(crate) struct Loaded {
    pub(crate) put: Put,
    /// How long after the last acknowledgement the feed held all of it: the sequencer was at most so far behind.
    pub(crate) lag: Duration,
}

impl Bench {
    /// Appends one event at a time from each of `appenders`, with the sequencer running beside it.
    pub(crate) async fn append(&self, appenders: usize, events: Option<u64>) -> Result<Loaded> {
        let before = self.store.head().await?.position.0;
        let put = load::put(&self.store, appenders, self.load, events).await?;
        let began = Instant::now();
        self.placed(before + put.events).await?;
        Ok(Loaded { put, lag: began.elapsed() })
    }

    /// Waits until the feed has so many events.
    async fn placed(&self, events: u64) -> Result<()> {
        let began = Instant::now();
        loop {
            let head = self.store.head().await?.position.0;
            if head >= events {
                return Ok(());
            }
            if began.elapsed() > PLACED_MAX {
                bail!("the feed has {head} of {events} events after {PLACED_MAX:?}: no sequencer runs");
            }
            self.store.wait_past(Position(events - 1), Duration::from_millis(50)).await;
        }
    }
}
