//! The load on a store: appenders that each wait for their acknowledgement.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use mainstay::Context;
use mainstay::sqlite::{GroupCounts, Options, Sqlite};
use mainstay::store::{Act, EventType, Expected, NewEvent, Payload, Store, StreamName, Tag};

use super::rows::{Draw, payload};

/// What a load is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) payload: usize,
    pub(crate) streams: u64,
    pub(crate) lasts: Duration,
}

/// What came of it.
pub(crate) struct Measured {
    pub(crate) events: u64,
    pub(crate) seconds: f64,
    pub(crate) latency: Histogram<u64>,
    pub(crate) groups: GroupCounts,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    pub(crate) fn us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The sizes of the groups in a fixed shuffled order, at most about a thousand, in their true proportions.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        let commits = self.groups.commits().max(1);
        let mut sizes = Vec::new();
        for (size, count) in &self.groups.sizes {
            let share = if commits <= 1_000 { *count } else { (count * 1_000).div_ceil(commits) };
            sizes.extend(std::iter::repeat_n(*size, share as usize));
        }
        let mut draw = Draw(0xD1CE);
        for i in (1..sizes.len()).rev() {
            sizes.swap(i, (draw.next() % (i as u64 + 1)) as usize);
        }
        sizes
    }
}

/// A store file with every stream begun, so that neither side of a comparison makes streams while it is timed.
/// The store is left open, and so knows its streams, as the plain loop does.
pub(crate) async fn seed(path: &Path, load: Load) -> Result<Sqlite> {
    remove(path)?;
    let store = Sqlite::open(Options::new(path))?;
    begin(&store, load).await?;
    Ok(store)
}

/// Begins every stream with an event of its own.
pub(crate) async fn begin<S: Store>(store: &S, load: Load) -> Result<()> {
    let cx = Context::system();
    let opened = EventType::new("AccountCreated")?;
    for chunk in (0..load.streams).collect::<Vec<_>>().chunks(500) {
        let mut act = Act::default();
        for stream in chunk {
            let event = NewEvent::new(cx.new_id(), opened.clone(), Payload::plain(*b"{}"));
            act = act.and(StreamName::new(format!("account-{stream}"))?, Expected::Empty, vec![event]);
        }
        store.append(&cx, act).await?;
    }
    Ok(())
}

/// Removes a store's files.
pub(crate) fn remove(path: &Path) -> Result<()> {
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match std::fs::remove_file(&name) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Appends to a file, as [`put`], and closes it.
pub(crate) async fn append(
    store: Sqlite,
    appenders: usize,
    load: Load,
    events: Option<u64>,
) -> Result<Measured> {
    let before = store.groups();
    let Put { events, seconds, latency } = put(&store, appenders, load, events).await?;
    let groups = store.groups().since(&before);
    store.close();
    Ok(Measured { events, seconds, latency, groups })
}

/// What all appenders did together.
pub(crate) struct Put {
    pub(crate) events: u64,
    pub(crate) seconds: f64,
    pub(crate) latency: Histogram<u64>,
}

impl Put {
    pub(crate) fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    pub(crate) fn us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

/// Appends one event at a time from each of `appenders` until the time is over, or until `events` are written.
pub(crate) async fn put<S: Store>(
    store: &S,
    appenders: usize,
    load: Load,
    events: Option<u64>,
) -> Result<Put> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..appenders)
        .map(|appender| {
            let store = store.clone();
            let share = events.map(|events| events / appenders as u64);
            tokio::spawn(one_appender(store, appender as u64, load, began, share))
        })
        .collect();
    let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let mut events = 0;
    for task in tasks {
        let (count, own) = task.await??;
        events += count;
        latency.add(own)?;
    }
    Ok(Put { events, seconds: began.elapsed().as_secs_f64(), latency })
}

async fn one_appender<S: Store>(
    store: S,
    appender: u64,
    load: Load,
    began: Instant,
    share: Option<u64>,
) -> Result<(u64, Histogram<u64>)> {
    let cx = Context::system();
    let made = EventType::new("DepositMade")?;
    let mut draw = Draw(0x5EED ^ (appender + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let payload = payload(load.payload);
    let mut count = 0;
    while share.map_or_else(|| began.elapsed() < load.lasts, |share| count < share) {
        let n = draw.next();
        let event = NewEvent::new(cx.new_id(), made.clone(), Payload::plain(payload.as_slice()))
            .tagged(Tag::new(format!("customer:{}", (n >> 20) % 50_000))?);
        let stream = StreamName::new(format!("account-{}", n % load.streams))?;
        let act = Act::append(stream, Expected::Any, vec![event]);
        let start = Instant::now();
        store.append(&cx, act).await?;
        latency.record(start.elapsed().as_nanos() as u64)?;
        count += 1;
    }
    Ok((count, latency))
}
