//! What is killed and what is checked: a write-back cache over two SQLite files, a journal and a database, which says of
//! each write when it is tried and when it is acknowledged.
//!
//! `tests/write_back.rs` kills it at each step in turn, `tests/write_back/worker.rs` is it as a process that
//! `cargo xtask crash cache` kills at drawn moments.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::path::Path;
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

/// Anything that keeps the work from being done at all.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

pub(crate) const KEYS: u64 = 5;

/// Where it can be stopped.
pub(crate) const STEPS: [&str; 6] =
    ["before-journal", "after-journal", "before-flush", "after-flush", "before-settle", "after-settle"];

/// Stops at the `nth` passing of a step, for ever, and says so.
#[derive(Clone)]
pub(crate) struct Halt {
    step: String,
    nth: u64,
    passed: Arc<AtomicU64>,
    say: fn(&str),
}

impl Halt {
    pub(crate) fn never(say: fn(&str)) -> Self {
        Self::at_step("", 0, say)
    }

    pub(crate) fn at_step(step: &str, nth: u64, say: fn(&str)) -> Self {
        Halt { step: step.into(), nth, passed: Arc::default(), say }
    }

    async fn at(&self, step: &str) {
        if step == self.step && self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.nth {
            (self.say)("halted");
            pending::<()>().await;
        }
    }
}

pub(crate) struct Halting {
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
pub(crate) struct Database {
    store: Sqlite,
    rows: ViewName,
    halt: Halt,
}

impl Database {
    fn open(folder: &Path, halt: Halt) -> Result<Self, Failure> {
        let store = Sqlite::open(Options::new(folder.join("database.db")))?;
        Ok(Database { store, rows: ViewName::new("rows")?, halt })
    }

    async fn row(&self, key: &str) -> Result<Option<(u64, u64)>, Failure> {
        let bytes = self.store.view_get(&self.rows, key).await?;
        bytes.map(|bytes| decode(&bytes).ok_or_else(|| format!("the row of {key} is cut").into())).transpose()
    }
}

/// Version and value.
fn decode(bytes: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    Some((number(0)?, number(8)?))
}

impl Loader<String, u64> for Database {
    type Error = ReadError;

    async fn load(&self, _: &Load, key: &String) -> Result<Loaded<u64>, ReadError> {
        let bytes = self.store.view_get(&self.rows, key).await?;
        Ok(bytes.and_then(|bytes| decode(&bytes)).map(|(_, value)| value).into())
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
        // Nothing is ever removed here.
        let value = value.copied().unwrap_or_default();
        let row = Row::new(key.clone(), [version.0.to_be_bytes(), value.to_be_bytes()].concat());
        let rows = self.rows.clone();
        let write = move |tx: &<Sqlite as Store>::Tx| {
            let present = tx.view_get(&rows, &row.key)?.and_then(|bytes| decode(&bytes));
            if present.is_none_or(|(present, _)| present < version.0) {
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

async fn open(cx: &Context, folder: &Path, halt: Halt) -> Result<(Tested, Database), Failure> {
    let store = Sqlite::open(Options::new(folder.join("journal.db")))?;
    let journal = StoreJournal::open(cx, store, "tested").await?;
    let cache = Cache::new("tested", Spec::for_everybody(Duration::from_secs(60)))?;
    let settings = WriteBackSpec { flush_after: Duration::from_millis(1), ..WriteBackSpec::default() };
    let journal = Halting { journal, halt: halt.clone() };
    let database = Database::open(folder, halt)?;
    Ok((WriteBack::open(cache, database.clone(), journal, settings).await?, database))
}

/// Writes the values `from..until` of each key, ever larger ones, and flushes meanwhile. Each is told before and after:
/// `try k1 17`, `ack k1 17`.
pub(crate) async fn append(
    folder: &Path,
    halt: Halt,
    from: u64,
    until: u64,
    say: fn(&str),
) -> Result<(), Failure> {
    let cx = Context::system();
    let (cache, database) = open(&cx, folder, halt).await?;
    let mut writers = tokio::task::JoinSet::new();
    for key in 0..KEYS {
        let (cache, database, cx) = (cache.clone(), database.clone(), cx.clone());
        // Some keys are written all the time; of the others nothing newer hides the loss of a value.
        let patient = key > KEYS / 2;
        writers.spawn(async move {
            let key = format!("k{key}");
            for value in from..until {
                say(&format!("try {key} {value}"));
                cache.put(&cx, key.clone(), value).await?;
                say(&format!("ack {key} {value}"));
                let answered = cache.get(&cx, &*key).await.map_err(|failed| failed.to_string())?;
                if answered.as_deref() != Some(&value) {
                    return Err(format!("{key}: {value} was acknowledged, {answered:?} is answered").into());
                }
                while patient && database.row(&key).await?.is_none_or(|row| row.1 < value) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Ok::<_, Failure>(())
        });
    }
    let (told, mut ended) = (|trouble: &str| say(&format!("trouble {trouble}")), Ok(()));
    let all = async {
        while let Some(writer) = writers.join_next().await {
            ended = writer.map_err(Failure::from).and_then(|writer| writer);
            if ended.is_err() {
                break;
            }
        }
    };
    cache.run(&cx, told, all).await;
    ended?;
    cache.flush(&cx).await?;
    Ok(())
}

/// What was said of a key.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) tried: u64,
    pub(crate) acknowledged: u64,
    /// Version and value of the database's row, as it was seen last.
    seen: (u64, u64),
}

/// Everything that was said, by whom ever.
#[derive(Debug, Default)]
pub(crate) struct Ledger(pub(crate) BTreeMap<String, Said>);

impl Ledger {
    /// Takes a line; false if it is none of a ledger.
    pub(crate) fn note(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
        let (&[what, key, ..], Some(first)) = (&words[..], number(2)) else { return false };
        let said = self.0.entry(key.to_owned()).or_default();
        match (what, number(3)) {
            ("try", None) => said.tried = first,
            ("ack", None) => said.acknowledged = first,
            ("seen", Some(value)) => said.seen = (first, value),
            _ => return false,
        }
        true
    }
}

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Keys that were pending.
    pub(crate) pending: usize,
    /// Key, version, value of each row of the database.
    pub(crate) rows: Vec<(String, u64, u64)>,
    pub(crate) violations: Vec<String>,
}

/// Opens what a killed process left: every acknowledged value is answered, no row is older than it was; with `flush`, each
/// row is the last acknowledged value of its key, or the one that was tried after it and never answered.
pub(crate) async fn check(folder: &Path, ledger: &Ledger, flush: bool) -> Result<Checked, Failure> {
    let cx = Context::system();
    let (cache, database) = open(&cx, folder, Halt::never(|_| {})).await?;
    let mut checked = Checked { pending: cache.pending(), ..Checked::default() };
    let mut wrong = |what: String| checked.violations.push(what);
    for (key, said) in &ledger.0 {
        let answered = cache.get(&cx, &**key).await.map_err(|failed| failed.to_string())?;
        let answered = answered.as_deref().copied().unwrap_or(0);
        if !(said.acknowledged..=said.tried).contains(&answered) {
            wrong(format!("{key}: {answered} is answered, {said:?}"));
        }
    }
    // What was there before a flush may not be newer than what is there after it.
    for flushes in [false, true].into_iter().take(1 + usize::from(flush)) {
        if flushes {
            let round = cache.flush(&cx).await?;
            if (round.failed, cache.pending()) != (0, 0) {
                wrong(format!("not everything was flushed: {round:?}, {} pending", cache.pending()));
            }
        }
        checked.rows.clear();
        for (key, said) in &ledger.0 {
            let (version, value) = database.row(key).await?.unwrap_or_default();
            if version < said.seen.0 || value < said.seen.1 {
                wrong(format!("{key}: {value} of version {version} in the database, later than {said:?}"));
            }
            if flushes && !(said.acknowledged..=said.tried).contains(&value) {
                wrong(format!("{key}: {value} in the database, {said:?}"));
            }
            checked.rows.push((key.clone(), version, value));
        }
    }
    Ok(checked)
}
