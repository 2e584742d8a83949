//! Changes: what was read before one never outlives it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mainstay_envelope::Context;
use mainstay_resilience::cache::{Cache, Load, Loaded, Loader, Spec, WriteThrough, Writer};
use mainstay_resilience::{Failed, NotDone, Why};
use tokio::task::JoinHandle;

use crate::kit::{Broken, Gate, Tested, World, plain, secs, spawn, until, world};

/// A source that a test reads and writes at once, while the cache has to pass a gate.
#[derive(Clone)]
struct Source {
    rows: Arc<Mutex<HashMap<String, u64>>>,
    loads: Gate,
    writes: Gate,
    tags: &'static [&'static str],
    fails: Arc<Mutex<Option<Broken>>>,
}

impl Source {
    fn new() -> Self {
        let (rows, fails) = (Arc::default(), Arc::default());
        Source { rows, loads: Gate::new(), writes: Gate::new(), tags: &[], fails }
    }

    fn set(&self, value: u64) {
        self.rows.lock().unwrap().insert("k".into(), value);
    }

    fn row(&self) -> Option<u64> {
        self.rows.lock().unwrap().get("k").copied()
    }
}

impl Loader<String, u64> for Source {
    type Error = Broken;

    /// Reads, and then takes its time: what it brings is as old as that.
    async fn load(&self, _: &Load, key: &String) -> Result<Loaded<u64>, Broken> {
        let read = self.rows.lock().unwrap().get(key).copied();
        self.loads.pass().await;
        let loaded = read.map_or_else(Loaded::absent, Loaded::found);
        Ok(self.tags.iter().fold(loaded, |loaded, tag| loaded.tag(*tag)))
    }
}

impl Writer<String, u64> for Source {
    type Error = Broken;

    /// Writes, and then takes its time to say so.
    async fn write(&self, _: &Context, key: &String, value: Option<&u64>) -> Result<(), Broken> {
        match value {
            Some(value) => self.rows.lock().unwrap().insert(key.clone(), *value),
            None => self.rows.lock().unwrap().remove(key),
        };
        self.writes.pass().await;
        self.fails.lock().unwrap().take().map_or(Ok(()), Err)
    }
}

fn ask(cache: &Tested, world: &World, source: &Source) -> JoinHandle<Option<u64>> {
    let (cache, cx, source) = (cache.clone(), world.cx.clone(), source.clone());
    spawn(async move {
        let load = |load, key| async move { source.load(&load, &key).await };
        cache.get_or_load(&cx, "k", load).await.unwrap().as_deref().copied()
    })
}

/// For each way to change a key while it is loaded: who waited already gets what was read, and it is not kept; who
/// asks afterwards gets what is there now.
#[tokio::test(start_paused = true)]
async fn what_was_read_before_a_change_is_not_kept_and_not_given_to_who_asks_after_it() {
    type Change = fn(&Tested, &Context);
    let changes: [(&str, Change); 4] = [
        ("invalidate", |cache, cx| cache.invalidate(cx, "k")),
        ("invalidate_tag", |cache, _| cache.invalidate_tag("shop")),
        ("clear", |cache, _| cache.clear()),
        ("put", |cache, cx| cache.put(cx, "k".into(), 2)),
    ];
    for (change, act) in changes {
        let (world, mut source) = (world(), Source::new());
        source.tags = &["shop", "tea"];
        let cache = world.cache(plain());
        source.set(1);
        let mut before = ask(&cache, &world, &source);
        until("it is read", || source.loads.loads() == 1).await;
        source.set(2);
        act(&cache, &world.cx);
        let after = ask(&cache, &world, &source);
        let loads = if change == "put" { 1 } else { 2 };
        if change == "invalidate_tag" {
            // Which tags the value will have is not known before it is there: who asks afterwards waits for it first.
            until("both wait", || cache.stats().waiting == 2).await;
            source.loads.open(1);
            assert_eq!((&mut before).await.unwrap(), Some(1), "{change}");
        }
        until("it is read anew", || source.loads.loads() == loads).await;
        source.loads.open(2);
        assert_eq!(after.await.unwrap(), Some(2), "{change}");
        if change != "invalidate_tag" {
            assert_eq!(before.await.unwrap(), Some(1), "{change}");
        }
        until("all is over", || cache.stats().loading == 0).await;
        assert_eq!(cache.get(&world.cx, "k").as_deref(), Some(&2), "{change}");
        assert_eq!(source.loads.loads(), loads, "{change}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_invalidates_all_that_have_it_for_every_audience_and_nothing_else() {
    let world = world();
    let cache = world.cache(Spec::for_each_tenant(secs(60)));
    let (a, b) = (world.with(Some("a"), None), world.with(Some("b"), None));
    for cx in [&a, &b] {
        cache.put(cx, "both".into(), Loaded::found(1).tag("shop").tag("tea"));
        cache.put(cx, "one".into(), Loaded::found(1).tag("tea"));
        cache.put(cx, "none".into(), 1);
    }
    cache.invalidate_tag("shop");
    for cx in [&a, &b] {
        assert!(cache.get(cx, "both").is_none());
        assert!(cache.get(cx, "one").is_some() && cache.get(cx, "none").is_some());
    }
    cache.put(&a, "both".into(), Loaded::found(2).tag("shop"));
    assert_eq!(cache.get(&a, "both").as_deref(), Some(&2), "what is put afterwards is valid");
    cache.invalidate(&a, "one");
    assert!(cache.get(&a, "one").is_none() && cache.get(&b, "one").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_value_with_more_tags_than_can_be_kept_is_served_and_not_kept() {
    let world = world();
    let cache = world.cache(plain());
    let many = (0..17).fold(Loaded::found(1), |loaded, n| loaded.tag(n.to_string()));
    let found = cache.get_or_load(&world.cx, "k", |_, _| async { Ok(many) }).await.unwrap();
    assert_eq!(found.as_deref(), Some(&1));
    assert!(cache.get(&world.cx, "k").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_absence_ends_with_a_put_or_an_invalidation() {
    let world = world();
    let cache = world.cache(plain());
    let absent = || cache.get_or_load(&world.cx, "k", |_, _| async { Ok(None) });
    assert!(absent().await.unwrap().is_none());
    cache.put(&world.cx, "k".into(), 1);
    assert_eq!(absent().await.unwrap().as_deref(), Some(&1));
    cache.invalidate(&world.cx, "k");
    assert!(absent().await.unwrap().is_none());
    cache.invalidate(&world.cx, "k");
    let found = cache.get_or_load(&world.cx, "k", |_, _| async { Ok(2) }).await.unwrap();
    assert_eq!(found.as_deref(), Some(&2));
}

type Through = WriteThrough<String, u64, Source>;

fn through() -> (World, Source, Through) {
    let (world, source) = (world(), Source::new());
    let cache = world.cache(plain()).write_through(source.clone()).unwrap();
    (world, source, cache)
}

fn put(cache: &Through, world: &World, value: u64) -> JoinHandle<Result<(), Failed<Broken>>> {
    let (cache, cx) = (cache.clone(), world.cx.clone());
    spawn(async move { cache.put(&cx, "k".into(), value).await })
}

#[tokio::test(start_paused = true)]
async fn written_through_is_kept_when_the_source_has_it_and_not_before() {
    let (world, source, cache) = through();
    let written = put(&cache, &world, 1);
    until("it is being written", || source.writes.loads() == 1).await;
    assert!(cache.cache().get(&world.cx, "k").is_none());
    source.writes.open(1);
    written.await.unwrap().unwrap();
    assert_eq!(cache.get(&world.cx, "k").await.unwrap().as_deref(), Some(&1));
    assert_eq!(source.loads.loads(), 0, "nothing had to be read");
    source.writes.open(1);
    cache.remove(&world.cx, "k".into()).await.unwrap();
    assert!(cache.get(&world.cx, "k").await.unwrap().is_none());
    assert_eq!((source.row(), source.loads.loads()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_read_before_the_write_is_not_kept_over_it() {
    let (world, source, cache) = through();
    source.set(1);
    let question = {
        let (cache, cx) = (cache.clone(), world.cx.clone());
        spawn(async move { cache.get(&cx, "k").await.unwrap().as_deref().copied() })
    };
    until("it is read", || source.loads.loads() == 1).await;
    source.writes.open(1);
    cache.put(&world.cx, "k".into(), 2).await.unwrap();
    source.loads.open(1);
    assert_eq!(question.await.unwrap(), Some(1));
    assert_eq!(cache.get(&world.cx, "k").await.unwrap().as_deref(), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn of_two_writes_at_a_time_neither_is_kept_and_the_source_is_asked() {
    let (world, source, cache) = through();
    let first = put(&cache, &world, 1);
    until("one is being written", || source.writes.loads() == 1).await;
    let second = put(&cache, &world, 2);
    until("both are being written", || source.writes.loads() == 2).await;
    // Whatever order they end in, the source has the second; here the first is told last.
    source.writes.open(2);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    source.loads.open(1);
    assert_eq!(cache.get(&world.cx, "k").await.unwrap().as_deref(), Some(&2));
    assert_eq!(source.loads.loads(), 1);
    source.writes.open(1);
    cache.put(&world.cx, "k".into(), 3).await.unwrap();
    assert_eq!(cache.get(&world.cx, "k").await.unwrap().as_deref(), Some(&3));
    assert_eq!(source.loads.loads(), 1, "a lone write is kept again");
}

#[tokio::test(start_paused = true)]
async fn after_a_write_that_failed_or_was_cut_off_the_source_is_asked() {
    let (world, source, cache) = through();
    source.writes.open(1);
    cache.put(&world.cx, "k".into(), 1).await.unwrap();
    // It reports a failure, and the value was written all the same.
    *source.fails.lock().unwrap() = Some(Broken("connection lost"));
    source.writes.open(1);
    let failed = cache.put(&world.cx, "k".into(), 2).await.unwrap_err();
    assert_eq!(failed, Failed::Upstream(Broken("connection lost")));
    source.loads.open(1);
    assert_eq!(cache.get(&world.cx, "k").await.unwrap().as_deref(), Some(&2));
    // It does not end in time.
    let late = cache.put(&world.cx.with_deadline(secs(1)), "k".into(), 3).await.unwrap_err();
    assert_eq!(late.refusal().unwrap().why, Why::DeadlineRanOut);
    assert_eq!(late.refusal().unwrap().not_done, NotDone::Answer);
    source.loads.open(1);
    assert_eq!(cache.get(&world.cx, "k").await.unwrap().as_deref(), Some(&3));
    // There is no time at all: nothing is written.
    let none = cache.put(&world.cx.with_deadline(secs(0)), "k".into(), 4).await.unwrap_err();
    assert_eq!(none.refusal().unwrap().not_done, NotDone::Call);
    assert_eq!(source.row(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_write_goes_on_when_its_caller_leaves() {
    let (world, source, cache) = through();
    let leaves = put(&cache, &world, 1);
    until("it is being written", || source.writes.loads() == 1).await;
    leaves.abort();
    source.writes.open(1);
    until("it is kept", || cache.cache().get(&world.cx, "k").is_some()).await;
    assert_eq!(cache.get(&world.cx, "k").await.unwrap().as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn read_through_loads_by_itself_and_writing_needs_a_cache_for_everybody() {
    let (world, source) = (world(), Source::new());
    source.set(5);
    source.loads.open(1);
    let cache = world.cache(plain()).read_through(source.clone());
    for _ in 0..2 {
        assert_eq!(cache.get(&world.cx, "k").await.unwrap().as_deref(), Some(&5));
    }
    assert_eq!(source.loads.loads(), 1);
    for spec in [Spec::for_each_tenant(secs(60)), Spec::for_each_caller(secs(60))] {
        let cache = Cache::<String, u64, Broken>::new("tested", spec).unwrap();
        assert_eq!(cache.write_through(Source::new()).unwrap_err().field(), "audience");
    }
}
