//! The projection that the benchmark runs: what each account holds, one row an account.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use mainstay::projection::{Failure, Observed, Projection, Projector, View};
use mainstay::sqlite::{Options, Sqlite};
use mainstay::{Context, Event};
use serde::{Deserialize, Serialize};

/// The events that the load writes.
#[derive(Debug, Clone, Event)]
enum Made {
    AccountCreated,
    DepositMade { amount: i64 },
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Balance {
    minor: i64,
}

struct Balances;

impl Projection for Balances {
    type Event = Made;
    type Row = Balance;
    const NAME: &'static str = "bench-balances";

    fn apply(&self, view: &View<'_, Balance>, event: &Observed<'_, Made>) -> Result<(), Failure> {
        match event.event() {
            Made::AccountCreated => view.put(event.stream().as_str(), &Balance::default()),
            Made::DepositMade { amount } => {
                view.update(event.stream().as_str(), |balance| balance.minor += amount)
            }
        }
    }
}

/// Events per second of a projection of the whole feed into a database of its own, durable.
pub(crate) async fn project(source: &Path) -> Result<f64> {
    let target = source.with_file_name("projected.db");
    super::load::remove(&target)?;
    let from = Sqlite::open(Options::new(source).read_only())?;
    let to = Sqlite::open(Options::new(&target))?;
    let projector = Projector::new(from, to, Balances)?;
    let began = Instant::now();
    let end = projector.run_until_caught_up(&Context::system()).await?;
    let rate = end.0 as f64 / began.elapsed().as_secs_f64();
    drop(projector);
    super::load::remove(&target)?;
    Ok(rate)
}
