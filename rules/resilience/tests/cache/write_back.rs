//! Write-back over a journal and a database that do what a test says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use mainstay_envelope::Context;
use mainstay_resilience::cache::{
    Flusher, Intent, Journal, Load, Loaded, Loader, OpenError, Spec, Version, WriteBack, WriteBackSpec,
    WriteError,
};
use mainstay_resilience::{Failed, Why};

use crate::kit::{Broken, Gate, World, plain, secs, spawn, until, world};

/// What survives a restart.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Data>>);

#[derive(Debug, Default)]
struct Data {
    last: u64,
    journal: HashMap<String, (Version, Option<Vec<u8>>)>,
    database: HashMap<String, (Version, Option<u64>)>,
    /// Every flush that was applied, in its order.
    applied: Vec<(String, Version)>,
    /// Keys whose flush fails.
    poisoned: Vec<&'static str>,
    /// The next append is recorded, and reported as failed.
    lies: bool,
    /// The next settlement is lost.
    forgets: bool,
}

impl Disk {
    fn data(&self) -> MutexGuard<'_, Data> {
        self.0.lock().unwrap()
    }

    fn row(&self, key: &str) -> Option<u64> {
        self.data().database.get(key).and_then(|row| row.1)
    }
}

struct Paper(Disk);

impl Journal for Paper {
    type Error = Broken;

    async fn append(&self, _: &Context, key: &str, value: Option<&[u8]>) -> Result<Version, Broken> {
        let mut data = self.0.data();
        data.last += 1;
        let version = Version(data.last);
        data.journal.insert(key.into(), (version, value.map(Into::into)));
        match std::mem::take(&mut data.lies) {
            true => Err(Broken("connection lost")),
            false => Ok(version),
        }
    }

    async fn pending(&self, after: Version, max: usize) -> Result<Vec<Intent>, Broken> {
        let data = self.0.data();
        let mut all: Vec<_> = data
            .journal
            .iter()
            .filter(|(_, (version, _))| *version > after)
            .map(|(key, (version, value))| Intent {
                key: key.clone(),
                version: *version,
                value: value.clone(),
            })
            .collect();
        all.sort_by_key(|intent| intent.version);
        all.truncate(max);
        Ok(all)
    }

    async fn settle(&self, _: &Context, settled: &[(String, Version)]) -> Result<(), Broken> {
        let mut data = self.0.data();
        if std::mem::take(&mut data.forgets) {
            return Err(Broken("connection lost"));
        }
        for (key, version) in settled {
            if data.journal.get(key).is_some_and(|(present, _)| present <= version) {
                data.journal.remove(key);
            }
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Database {
    disk: Disk,
    /// What a flush has to pass before it is applied; none: it is applied at once.
    flushes: Option<Gate>,
    loads: Gate,
}

impl Loader<String, u64> for Database {
    type Error = Broken;

    async fn load(&self, _: &Load, key: &String) -> Result<Loaded<u64>, Broken> {
        self.loads.open(1);
        self.loads.pass().await;
        Ok(self.disk.row(key).into())
    }
}

impl Flusher<String, u64> for Database {
    type Error = Broken;

    async fn flush(
        &self,
        _: &Context,
        key: &String,
        value: Option<&u64>,
        version: Version,
    ) -> Result<(), Broken> {
        if let Some(gate) = &self.flushes {
            gate.pass().await;
        }
        let mut data = self.disk.data();
        if data.poisoned.contains(&key.as_str()) {
            return Err(Broken("refused"));
        }
        if data.database.get(key).is_none_or(|(present, _)| *present < version) {
            data.database.insert(key.clone(), (version, value.copied()));
            data.applied.push((key.clone(), version));
        }
        Ok(())
    }
}

type Tested = WriteBack<String, u64, Database, Paper>;

async fn open_with(world: &World, disk: &Disk, database: Database, spec: WriteBackSpec) -> Tested {
    let cache = world.cache(plain());
    WriteBack::open(cache, database, Paper(disk.clone()), spec).await.unwrap()
}

async fn open(world: &World, disk: &Disk) -> (Tested, Database) {
    let database = Database { disk: disk.clone(), flushes: None, loads: Gate::new() };
    (open_with(world, disk, database.clone(), WriteBackSpec::default()).await, database)
}

async fn get(cache: &Tested, world: &World, key: &str) -> Option<u64> {
    cache.get(&world.cx, key).await.unwrap().as_deref().copied()
}

#[tokio::test(start_paused = true)]
async fn a_write_is_journaled_then_kept_then_flushed_then_settled() {
    let (world, disk) = (world(), Disk::default());
    let (cache, database) = open(&world, &disk).await;
    let version = cache.put(&world.cx, "k".into(), 1).await.unwrap();
    assert_eq!(disk.data().journal["k"], (version, Some(b"1".to_vec())));
    assert_eq!((disk.row("k"), cache.pending()), (None, 1), "the source has it later");
    assert_eq!((get(&cache, &world, "k").await, database.loads.loads()), (Some(1), 0));
    let round = cache.flush(&world.cx).await.unwrap();
    assert_eq!((round.flushed, round.failed), (1, 0));
    assert_eq!((disk.row("k"), cache.pending(), disk.data().journal.len()), (Some(1), 0, 0));
    cache.remove(&world.cx, "k".into()).await.unwrap();
    assert_eq!(get(&cache, &world, "k").await, None);
    cache.flush(&world.cx).await.unwrap();
    assert_eq!((disk.row("k"), cache.pending()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn until_it_is_settled_a_write_is_read_whatever_the_storage_forgets() {
    let (world, disk) = (world(), Disk::default());
    let (cache, database) = open(&world, &disk).await;
    disk.data().database.insert("k".into(), (Version(0), Some(7)));
    cache.put(&world.cx, "k".into(), 1).await.unwrap();
    for clears in [true, false] {
        if clears {
            cache.cache().clear();
        }
        assert_eq!(get(&cache, &world, "k").await, Some(1));
        tokio::time::advance(secs(61)).await;
        assert_eq!(get(&cache, &world, "k").await, Some(1), "expired, and still the value");
    }
    assert_eq!(database.loads.loads(), 0, "the source was never asked");
    cache.flush(&world.cx).await.unwrap();
    tokio::time::advance(secs(61)).await;
    assert_eq!((get(&cache, &world, "k").await, database.loads.loads()), (Some(1), 1));
}

#[tokio::test(start_paused = true)]
async fn of_many_writes_of_a_key_the_source_sees_the_last() {
    let (world, disk) = (world(), Disk::default());
    let (cache, _) = open(&world, &disk).await;
    for n in 1..=1_000 {
        cache.put(&world.cx, "k".into(), n).await.unwrap();
    }
    assert_eq!(cache.flush(&world.cx).await.unwrap().flushed, 1);
    assert_eq!((disk.row("k"), disk.data().applied.len()), (Some(1_000), 1));
}

#[tokio::test(start_paused = true)]
async fn a_write_during_the_flush_of_an_older_one_is_flushed_after_it() {
    let (world, disk, gate) = (world(), Disk::default(), Gate::new());
    let database = Database { disk: disk.clone(), flushes: Some(gate.clone()), loads: Gate::new() };
    let cache = open_with(&world, &disk, database, WriteBackSpec::default()).await;
    cache.put(&world.cx, "k".into(), 1).await.unwrap();
    let round = {
        let (cache, cx) = (cache.clone(), world.cx.clone());
        spawn(async move { cache.flush(&cx).await.unwrap() })
    };
    until("it is being flushed", || gate.loads() == 1).await;
    cache.put(&world.cx, "k".into(), 2).await.unwrap();
    gate.open(1);
    assert_eq!(round.await.unwrap().flushed, 1);
    assert_eq!((disk.row("k"), cache.pending()), (Some(1), 1), "the later one was not settled with it");
    assert_eq!(get(&cache, &world, "k").await, Some(2));
    gate.open(1);
    cache.flush(&world.cx).await.unwrap();
    assert_eq!((disk.row("k"), cache.pending(), disk.data().journal.len()), (Some(2), 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_journaled_is_answered_and_flushed_after_a_restart() {
    let (world, disk) = (world(), Disk::default());
    let (first, _) = open(&world, &disk).await;
    for n in 0..1_000 {
        first.put(&world.cx, format!("k{n}"), n).await.unwrap();
    }
    first.put(&world.cx, "k7".into(), 77).await.unwrap();
    first.remove(&world.cx, "k8".into()).await.unwrap();
    drop(first);
    let (second, database) = open(&world, &disk).await;
    assert_eq!(second.pending(), 1_000);
    assert_eq!(get(&second, &world, "k7").await, Some(77));
    assert_eq!(get(&second, &world, "k8").await, None);
    assert_eq!(database.loads.loads(), 0);
    assert_eq!(second.flush(&world.cx).await.unwrap().flushed, 1_000);
    assert_eq!((disk.row("k7"), disk.row("k8"), disk.row("k999")), (Some(77), None, Some(999)));
    assert_eq!((second.pending(), disk.data().journal.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_was_lost_is_repeated_and_changes_nothing() {
    let (world, disk) = (world(), Disk::default());
    let (cache, _) = open(&world, &disk).await;
    cache.put(&world.cx, "k".into(), 1).await.unwrap();
    disk.data().forgets = true;
    assert_eq!(cache.flush(&world.cx).await.unwrap_err(), Broken("connection lost"));
    assert_eq!((disk.row("k"), cache.pending()), (Some(1), 1));
    cache.flush(&world.cx).await.unwrap();
    assert_eq!((cache.pending(), disk.data().applied.len()), (0, 1), "the same version was applied once");
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_fails_holds_nobody_else_up_and_is_tried_again() {
    let (world, disk) = (world(), Disk::default());
    let (cache, _) = open(&world, &disk).await;
    disk.data().poisoned = vec!["k0"];
    for n in 0..600 {
        cache.put(&world.cx, format!("k{n}"), n).await.unwrap();
    }
    let round = cache.flush(&world.cx).await.unwrap();
    assert_eq!((round.flushed, round.failed, cache.pending()), (599, 1, 1));
    assert!(round.first_failure.unwrap().contains("\"k0\""));
    disk.data().poisoned.clear();
    assert_eq!(cache.flush(&world.cx).await.unwrap().flushed, 1);
}

#[tokio::test(start_paused = true)]
async fn it_tells_how_many_writes_wait_how_long_and_what_became_of_the_others() {
    let (world, disk) = (world(), Disk::default());
    let (cache, _) = open(&world, &disk).await;
    let told = |cache: &Tested| {
        let stats = cache.stats();
        (stats.pending, stats.oldest, stats.acknowledged, stats.flushed, stats.failed)
    };
    assert_eq!(told(&cache), (0, secs(0), 0, 0, 0));
    disk.data().poisoned = vec!["a"];
    for key in ["a", "b", "a"] {
        cache.put(&world.cx, key.into(), 1).await.unwrap();
        tokio::time::advance(secs(2)).await;
    }
    assert_eq!(told(&cache), (2, secs(6), 3, 0, 0), "since the first write of the oldest key");
    cache.flush(&world.cx).await.unwrap();
    assert_eq!(told(&cache), (1, secs(6), 3, 1, 1));
    // A killed process leaves it to the next, which counts from its own beginning.
    let (next, _) = open(&world, &disk).await;
    tokio::time::advance(secs(1)).await;
    assert_eq!(told(&next), (1, secs(1), 0, 0, 0));
    disk.data().poisoned.clear();
    next.flush(&world.cx).await.unwrap();
    assert_eq!(told(&next), (0, secs(0), 0, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn more_keys_than_may_be_pending_are_refused_and_not_journaled() {
    let (world, disk) = (world(), Disk::default());
    let database = Database { disk: disk.clone(), flushes: None, loads: Gate::new() };
    let spec = WriteBackSpec { pending_max: 2, ..WriteBackSpec::default() };
    let cache = open_with(&world, &disk, database, spec).await;
    cache.put(&world.cx, "a".into(), 1).await.unwrap();
    cache.put(&world.cx, "b".into(), 1).await.unwrap();
    let refused = cache.put(&world.cx, "c".into(), 1).await.unwrap_err();
    assert_eq!(refused.refusal().unwrap().why, Why::JournalFull);
    assert!(!disk.data().journal.contains_key("c"));
    cache.put(&world.cx, "a".into(), 2).await.unwrap();
    cache.flush(&world.cx).await.unwrap();
    cache.put(&world.cx, "c".into(), 1).await.unwrap();
    assert_eq!(disk.row("a"), Some(2));
}

/// The journal has it and the answer was lost: it is flushed, and nothing older is served after that.
#[tokio::test(start_paused = true)]
async fn a_write_of_unknown_outcome_is_flushed_if_the_journal_has_it() {
    let (world, disk) = (world(), Disk::default());
    let (cache, _) = open(&world, &disk).await;
    cache.put(&world.cx, "k".into(), 1).await.unwrap();
    disk.data().lies = true;
    let unknown = cache.put(&world.cx, "k".into(), 2).await.unwrap_err();
    assert!(matches!(unknown, Failed::Upstream(WriteError::Journal(_))));
    assert_eq!(get(&cache, &world, "k").await, Some(1), "the last that was acknowledged");
    cache.flush(&world.cx).await.unwrap();
    assert_eq!((disk.row("k"), cache.pending()), (Some(2), 0));
    assert_eq!(get(&cache, &world, "k").await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_something_else_is_refused_as_it_is() {
    let (world, disk) = (world(), Disk::default());
    disk.data().journal.insert("k".into(), (Version(3), Some(b"\"text\"".to_vec())));
    let database = Database { disk: disk.clone(), flushes: None, loads: Gate::new() };
    let spec = WriteBackSpec::default();
    let opened = WriteBack::open(world.cache(plain()), database.clone(), Paper(disk.clone()), spec).await;
    assert!(matches!(opened.unwrap_err(), OpenError::Foreign { key, version: Version(3), .. } if key == "k"));
    assert_eq!(disk.data().journal.len(), 1);
    let cache = world.cache(Spec::for_each_caller(secs(1)));
    let opened = WriteBack::open(cache, database, Paper(Disk::default()), spec).await;
    assert!(matches!(opened.unwrap_err(), OpenError::Invalid(invalid) if invalid.field() == "audience"));
}

#[tokio::test(start_paused = true)]
async fn running_flushes_what_is_written_and_goes_on_after_trouble() {
    let (world, disk) = (world(), Disk::default());
    let (cache, _) = open(&world, &disk).await;
    disk.data().poisoned = vec!["bad"];
    let told = Arc::new(Mutex::new(Vec::new()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let runs = {
        let (cache, cx, told) = (cache.clone(), world.cx.clone(), Arc::clone(&told));
        let tell = move |trouble: &str| told.lock().unwrap().push(trouble.to_owned());
        spawn(async move { cache.run(&cx, tell, async { drop(stopped.await) }).await })
    };
    cache.put(&world.cx, "good".into(), 1).await.unwrap();
    cache.put(&world.cx, "bad".into(), 2).await.unwrap();
    while disk.row("good").is_none() || told.lock().unwrap().len() < 3 {
        tokio::time::sleep(secs(1)).await;
    }
    disk.data().poisoned.clear();
    while cache.pending() > 0 {
        tokio::time::sleep(secs(1)).await;
    }
    assert_eq!((disk.row("good"), disk.row("bad")), (Some(1), Some(2)));
    stop.send(()).unwrap();
    runs.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_on_when_its_caller_leaves() {
    let (world, disk) = (world(), Disk::default());
    let (cache, _) = open(&world, &disk).await;
    let leaves = {
        let (cache, cx) = (cache.clone(), world.cx.clone());
        spawn(async move { cache.put(&cx, "k".into(), 1).await })
    };
    until("it was begun", || cache.pending() == 1).await;
    leaves.abort();
    until("it is kept", || cache.cache().get(&world.cx, "k").is_some()).await;
    cache.flush(&world.cx).await.unwrap();
    assert_eq!(disk.row("k"), Some(1));
}
