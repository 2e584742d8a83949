//! Crashes: working processes, or what lies under them, are killed at any moment, and every answer they gave must hold.

mod books;
mod cache;
mod cards;
mod client;
mod postgres;
mod shop;
mod store;
mod weather;
mod worker;

use std::path::PathBuf;

use anyhow::Result;

use crate::tree;

/// What is to crash.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The event store on SQLite: four writers, killed in the middle of their work.
    Store(store::Arguments),
    /// The event store on PostgreSQL: servers, network, disk and processes break under two processes that work.
    Postgres(postgres::Arguments),
    /// Write-back on SQLite: a process that writes through a cache, killed between journal, flush and settlement.
    Cache(cache::Arguments),
    /// The shop: three services, the card processor they call and their supervisor, killed while orders come in.
    Shop(shop::Arguments),
}

/// Runs the crashes. True when every promise was kept.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    match &arguments.what {
        What::Store(arguments) => store::run(arguments),
        What::Postgres(arguments) => postgres::run(arguments),
        What::Cache(arguments) => cache::run(arguments),
        What::Shop(arguments) => shop::run(arguments),
    }
}

/// Takes one order through a running shop, so that each service has heard of those it follows.
pub(crate) fn warm_up(port_base: u16) -> Result<()> {
    shop::warm_up(port_base)
}

/// Where the series keep their files.
fn out() -> Result<PathBuf> {
    Ok(tree::target()?.join("crash"))
}

/// Chance that a seed repeats (SplitMix64: Steele, Lea, Flood, 2014).
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    /// From 0 to `bound`, the latter not included.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((u128::from(bits) * u128::from(bound)) >> 64) as u64
    }
}
