//! Write-back on SQLite files: a process is killed between journal, flush and settlement, again and again, and the
//! database ends with the last acknowledged value of each key.
//!
//! ```text
//!   parent ──starts──► worker: puts k0..k4, always larger values, each told before and after:  > try k1 17   > ack k1 17
//!      │                  │      its journal and its database stop for ever at a chosen step:   > halted
//!      │ ◄────lines───────┘
//!      └── kill -9 at that line; another worker goes on with the same files; at the end everything is flushed:
//!          each key's row is its last acknowledged value, or the one that was never answered after it
//! ```
//! The worker is this test program again. Nothing waits for a time: it stops at the step and says so.
//!
//! `MAINSTAY_KILLS=100 cargo test --test write_back -- --nocapture` kills a hundred times and shows what it met.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers are part of the tests")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay::Context;
use mainstay::cache::{
    Cache, Flusher, Intent, Journal, Load, Loaded, Loader, Spec, Version, WriteBack, WriteBackSpec,
};
use mainstay::flow::journal::{JournalError, StoreJournal};
use mainstay::sqlite::{Options, Sqlite};
use mainstay::store::{Abort, ReadError, Row, Store, TransactError, Tx, ViewName};

const KEYS: u64 = 5;

/// Where a worker is stopped.
const STEPS: [&str; 6] =
    ["before-journal", "after-journal", "before-flush", "after-flush", "before-settle", "after-settle"];

/// Stops at the `nth` passing of a step, for ever.
#[derive(Clone)]
struct Halt {
    step: String,
    nth: u64,
    passed: Arc<AtomicU64>,
}

impl Halt {
    fn never() -> Self {
        Halt { step: String::new(), nth: 0, passed: Arc::default() }
    }

    async fn at(&self, step: &str) {
        if step == self.step && self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.nth {
            say("halted");
            pending::<()>().await;
        }
    }
}

struct Halting {
    journal: StoreJournal<Sqlite>,
    halt: Halt,
}

impl Journal for Halting {
    type Error = JournalError;

    async fn append(&self, cx: &Context, key: &str, value: Option<&[u8]>) -> Result<Version, JournalError> {
        self.halt.at("before-journal").await;
        let version = self.journal.append(cx, key, value).await?;
        self.halt.at("after-journal").await;
        Ok(version)
    }

    async fn pending(&self, after: Version, max: usize) -> Result<Vec<Intent>, JournalError> {
        self.journal.pending(after, max).await
    }

    async fn settle(&self, cx: &Context, settled: &[(String, Version)]) -> Result<(), JournalError> {
        self.halt.at("before-settle").await;
        self.journal.settle(cx, settled).await?;
        self.halt.at("after-settle").await;
        Ok(())
    }
}

/// The database behind the cache: another file, whose rows carry the version they were written with.
#[derive(Clone)]
struct Database {
    store: Sqlite,
    rows: ViewName,
    halt: Halt,
}

impl Database {
    fn open(folder: &Path, halt: Halt) -> Self {
        let store = Sqlite::open(Options::new(folder.join("database.db"))).unwrap();
        Database { store, rows: ViewName::new("rows").unwrap(), halt }
    }

    async fn row(&self, key: &str) -> Option<(u64, u64)> {
        self.store.view_get(&self.rows, key).await.unwrap().map(|bytes| decode(&bytes))
    }
}

fn decode(bytes: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from_be_bytes(*bytes[at..].first_chunk().unwrap());
    (number(0), number(8))
}

impl Loader<String, u64> for Database {
    type Error = ReadError;

    async fn load(&self, _: &Load, key: &String) -> Result<Loaded<u64>, ReadError> {
        Ok(self.store.view_get(&self.rows, key).await?.map(|bytes| decode(&bytes).1).into())
    }
}

impl Flusher<String, u64> for Database {
    type Error = TransactError<Infallible>;

    async fn flush(
        &self,
        cx: &Context,
        key: &String,
        value: Option<&u64>,
        version: Version,
    ) -> Result<(), TransactError<Infallible>> {
        self.halt.at("before-flush").await;
        let value = *value.unwrap();
        let row = Row::new(key.clone(), [version.0.to_be_bytes(), value.to_be_bytes()].concat());
        let rows = self.rows.clone();
        let write = move |tx: &<Sqlite as Store>::Tx| {
            let present = tx.view_get(&rows, &row.key)?.map(|bytes| decode(&bytes).0);
            if present.is_none_or(|present| present < version.0) {
                tx.view_put(&rows, &row)?;
            }
            Ok::<_, Abort<Infallible>>(())
        };
        self.store.transact(cx, write).await?;
        self.halt.at("after-flush").await;
        Ok(())
    }
}

type Tested = WriteBack<String, u64, Database, Halting>;

async fn open(cx: &Context, folder: &Path, halt: Halt) -> (Tested, Database) {
    let store = Sqlite::open(Options::new(folder.join("journal.db"))).unwrap();
    let journal = StoreJournal::open(cx, store, "tested").await.unwrap();
    let cache = Cache::new("tested", Spec::for_everybody(Duration::from_secs(60))).unwrap();
    let settings = WriteBackSpec { flush_after: Duration::from_millis(1), ..WriteBackSpec::default() };
    let journal = Halting { journal, halt: halt.clone() };
    let database = Database::open(folder, halt);
    (WriteBack::open(cache, database.clone(), journal, settings).await.unwrap(), database)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn say(line: &str) {
    // On a line of its own, whatever the harness has begun to print.
    let mut out = std::io::stdout().lock();
    write!(out, "\n> {line}\n").unwrap();
    out.flush().unwrap();
}

/// No test, but what the test below starts as its worker.
#[test]
fn worker() {
    let Some(folder) = std::env::var_os("MAINSTAY_FOLDER") else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let (step, nth, from) =
        (std::env::var("MAINSTAY_STEP").unwrap(), number("MAINSTAY_NTH"), number("MAINSTAY_FROM"));
    let halt = Halt { step, nth, passed: Arc::default() };
    runtime().block_on(async {
        let cx = Context::system();
        let (cache, database) = open(&cx, Path::new(&folder), halt).await;
        let puts = (0..KEYS).map(|key| {
            let (cache, database, cx) = (cache.clone(), database.clone(), cx.clone());
            // Some keys are written all the time; of the others nothing newer hides the loss of a value.
            let patient = key > KEYS / 2;
            tokio::spawn(async move {
                let key = format!("k{key}");
                for value in from.. {
                    say(&format!("try {key} {value}"));
                    cache.put(&cx, key.clone(), value).await.unwrap();
                    say(&format!("ack {key} {value}"));
                    assert_eq!(cache.get(&cx, &*key).await.unwrap().as_deref(), Some(&value));
                    while patient && database.row(&key).await.is_none_or(|row| row.1 < value) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            })
        });
        let puts: Vec<_> = puts.collect();
        cache.run(&cx, |trouble| say(&format!("trouble {trouble}")), pending()).await;
        drop(puts);
    });
}

/// What a worker said of each key.
#[derive(Debug, Default, Clone, Copy)]
struct Said {
    tried: u64,
    acknowledged: u64,
}

/// A worker that is killed at the end of the test, whatever its end is.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Once it is gone, both change nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a worker, kills it at its step, and notes what it said until then.
fn kill_at(folder: &Path, step: &str, nth: u64, ledger: &mut HashMap<String, Said>) {
    let from = ledger.values().map(|said| said.tried).max().unwrap_or(0) + 1;
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--nocapture", "--test-threads=1"])
        .env("MAINSTAY_FOLDER", folder)
        .env("MAINSTAY_STEP", step)
        .env("MAINSTAY_NTH", nth.to_string())
        .env("MAINSTAY_FROM", from.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut worker = Killed(child);
    let mut lines = BufReader::new(worker.0.stdout.take().unwrap()).lines();
    let mut note = |line: String| {
        let Some(said) = line.strip_prefix("> ") else { return false };
        match said.split(' ').collect::<Vec<_>>()[..] {
            ["try", key, value] => ledger.entry(key.into()).or_default().tried = value.parse().unwrap(),
            ["ack", key, value] => {
                ledger.entry(key.into()).or_default().acknowledged = value.parse().unwrap()
            }
            ["halted"] => return true,
            _ => panic!("{step} {nth}: the worker says {said:?}"),
        }
        false
    };
    loop {
        let line =
            lines.next().unwrap_or_else(|| panic!("{step} {nth}: the worker ended by itself")).unwrap();
        if note(line) {
            break;
        }
    }
    worker.0.kill().unwrap();
    worker.0.wait().unwrap();
    // What it said before it was killed is still in the pipe; the last line may be cut.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    for line in rest {
        if line.split(' ').count() == 4 {
            note(line);
        }
    }
}

#[test]
fn whatever_it_is_killed_between_the_database_ends_with_the_last_acknowledged_values() {
    let kills = std::env::var("MAINSTAY_KILLS").map_or(STEPS.len() as u64, |kills| kills.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = HashMap::new();
    for kill in 0..kills {
        let step = STEPS[(kill % STEPS.len() as u64) as usize];
        // Early and late in a process's life; 3, 8, 13 … so that the first ones are among them.
        let nth = 1 + (kill * 7) % 23;
        kill_at(folder.path(), step, nth, &mut ledger);
        let (in_database, pending) =
            runtime().block_on(check(folder.path(), &ledger, kill % 5 == 4 || kill + 1 == kills));
        println!(
            "kill {:>3} {step:<14} (time {nth:>2}): {pending} keys were pending; in the database: {in_database:?}",
            kill + 1
        );
    }
    assert_eq!(ledger.len() as u64, KEYS);
    assert!(ledger.values().all(|said| said.acknowledged > 0));
}

/// Opens what the killed worker left: every acknowledged value is answered, and, once flushed, in the database.
async fn check(folder: &Path, ledger: &HashMap<String, Said>, flush: bool) -> (Vec<u64>, usize) {
    let cx = Context::system();
    let (cache, database) = open(&cx, folder, Halt::never()).await;
    let before = rows(&database, ledger).await;
    let pending = cache.pending();
    for (key, said) in ledger {
        let answered = cache.get(&cx, &**key).await.unwrap().as_deref().copied().unwrap_or(0);
        assert!(
            (said.acknowledged..=said.tried).contains(&answered),
            "{key}: {answered} is answered, {said:?}"
        );
    }
    // Now and then only, so that what several processes left is flushed together.
    if !flush {
        return (before.values().map(|row| row.1).collect(), pending);
    }
    let round = cache.flush(&cx).await.unwrap();
    assert_eq!((round.failed, cache.pending()), (0, 0), "{round:?}");
    let after = rows(&database, ledger).await;
    for (key, said) in ledger {
        let (version, value) = after.get(key).copied().unwrap_or_default();
        assert!(
            (said.acknowledged..=said.tried).contains(&value),
            "{key}: {value} in the database, {said:?}"
        );
        let (old_version, old_value) = before.get(key).copied().unwrap_or_default();
        assert!(version >= old_version && value >= old_value, "{key}: {value} after {old_value}");
    }
    (after.values().map(|row| row.1).collect(), pending)
}

async fn rows(database: &Database, ledger: &HashMap<String, Said>) -> HashMap<String, (u64, u64)> {
    let mut rows = HashMap::new();
    for key in ledger.keys() {
        rows.extend(database.row(key).await.map(|row| (key.clone(), row)));
    }
    rows
}
