//! The four uses of a cache, over one source that counts how often it is read and written: cache-aside, read-through,
//! write-through, and write-back, whose acknowledged writes survive the end of the process that acknowledged them.
//!
//! Run it: `cargo run --example cache`. The chapter: docs/guide/cache.md.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay::Context;
use mainstay::cache::{
    Cache, Flusher, Load, Loaded, Loader, Spec, Version, WriteBack, WriteBackSpec, Writer,
};
use mainstay::flow::journal::StoreJournal;
use mainstay::sqlite::{Options, Sqlite};

/// A price list, as a database would keep it.
#[derive(Clone, Default)]
struct Prices(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    rows: HashMap<String, (u64, Version)>,
    reads: u32,
    writes: u32,
}

impl Prices {
    fn with<T>(&self, act: impl FnOnce(&mut Table) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read(&self, article: &str) -> Option<u64> {
        self.with(|table| {
            table.reads += 1;
            table.rows.get(article).map(|row| row.0)
        })
    }

    fn write(&self, article: &str, price: Option<u64>, version: Version) {
        self.with(|table| {
            table.writes += 1;
            match price {
                Some(price) => table.rows.insert(article.to_owned(), (price, version)),
                None => table.rows.remove(article),
            };
        });
    }

    /// Reads and writes since it was asked last.
    fn traffic(&self) -> (u32, u32) {
        self.with(|table| (std::mem::take(&mut table.reads), std::mem::take(&mut table.writes)))
    }
}

impl Loader<String, u64> for Prices {
    type Error = Infallible;

    async fn load(&self, _: &Load, article: &String) -> Result<Loaded<u64>, Infallible> {
        Ok(self.read(article).into())
    }
}

impl Writer<String, u64> for Prices {
    type Error = Infallible;

    async fn write(&self, _: &Context, article: &String, price: Option<&u64>) -> Result<(), Infallible> {
        Prices::write(self, article, price.copied(), Version::default());
        Ok(())
    }
}

impl Flusher<String, u64> for Prices {
    type Error = Infallible;

    async fn flush(
        &self,
        _: &Context,
        article: &String,
        price: Option<&u64>,
        version: Version,
    ) -> Result<(), Infallible> {
        // The comparison is the flusher's duty: a killed process may have left a flush on its way.
        if self.with(|table| table.rows.get(article).is_none_or(|row| row.1 < version)) {
            Prices::write(self, article, price.copied(), version);
        }
        Ok(())
    }
}

fn settings() -> Spec {
    Spec::for_everybody(Duration::from_secs(60)).entries_max(1_000)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (cx, prices) = (Context::system(), Prices::default());
    prices.write("tea", Some(450), Version::default());
    prices.traffic();

    // Cache-aside: the caller reads and writes the source, and tells the cache.
    let aside = Cache::<String, u64>::new("aside", settings())?;
    for _ in 0..100 {
        let source = prices.clone();
        let price =
            aside.get_or_load(&cx, "tea", |_, article| async move { Ok(source.read(&article)) }).await?;
        assert_eq!(price.as_deref(), Some(&450));
    }
    prices.write("tea", Some(460), Version::default());
    aside.invalidate(&cx, "tea");
    println!("cache-aside:   100 questions and a change: {:?} reads and writes", prices.traffic());

    // Read-through: the cache reads the source by itself.
    let through = Cache::new("read-through", settings())?.read_through(prices.clone());
    for _ in 0..100 {
        assert_eq!(through.get(&cx, "tea").await?.as_deref(), Some(&460));
        assert!(through.get(&cx, "unknown").await?.is_none());
    }
    println!("read-through:  200 questions, half of them for nothing: {:?}", prices.traffic());

    // Write-through: a write is acknowledged when the source has it, and then kept.
    let through = Cache::new("write-through", settings())?.write_through(prices.clone())?;
    for price in 461..=480 {
        through.put(&cx, "tea".to_owned(), price).await?;
        assert_eq!(through.get(&cx, "tea").await?.as_deref(), Some(&price));
    }
    println!("write-through: 20 writes, each read again: {:?}", prices.traffic());

    // Write-back: a write is acknowledged when the journal has it on disk; the source gets the last one.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("journal.db");
    let back = open(&cx, &file, &prices).await?;
    for price in 481..=500 {
        back.put(&cx, "tea".to_owned(), price).await?;
        assert_eq!(back.get(&cx, "tea").await?.as_deref(), Some(&price));
    }
    back.flush(&cx).await?;
    println!("write-back:    20 writes, each read again, one flush: {:?}", prices.traffic());

    // Acknowledged and not flushed when the process ends: the next one has it, and brings it to the source.
    back.put(&cx, "tea".to_owned(), 510).await?;
    drop(back);
    assert_eq!(prices.read("tea"), Some(500));
    let again = open(&cx, &file, &prices).await?;
    assert_eq!(again.get(&cx, "tea").await?.as_deref(), Some(&510));
    again.flush(&cx).await?;
    println!("               after a restart the source has {:?}", prices.read("tea"));
    assert_eq!(prices.read("tea"), Some(510));
    Ok(())
}

async fn open(
    cx: &Context,
    file: &std::path::Path,
    prices: &Prices,
) -> Result<WriteBack<String, u64, Prices, StoreJournal<Sqlite>>, Box<dyn Error>> {
    let journal = StoreJournal::open(cx, Sqlite::open(Options::new(file))?, "prices").await?;
    let cache = Cache::new("write-back", settings())?;
    // A service runs it: `tokio::spawn(async move { back.run(&cx, |trouble| eprintln!("{trouble}"), stop).await })`.
    Ok(WriteBack::open(cache, prices.clone(), journal, WriteBackSpec::default()).await?)
}
