//! One run: everybody at once, then what came of it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mainstay_event_store::{Hash, Head, Position, StoreId, Version, chain};
use sqlx::Row;
use tokio::sync::watch;
use uuid::Uuid;

use crate::readers::{self, Got, Shared};
use crate::sequencers::{Candidates, Killer};
use crate::server::Way;
use crate::writers::{self, Ledger, LongWriter};

const WRITERS: u64 = 16;
const SUBSCRIBERS: usize = 8;
const CANDIDATES: usize = 3;
/// What a row with a place has as its transaction, after a restore.
const FORGOTTEN: i64 = 3;

/// A run that has begun.
pub(crate) struct Run {
    seed: u64,
    way: Way,
    killer: Arc<Killer>,
    candidates: Option<Candidates>,
    pub(crate) ledger: Arc<Ledger>,
    writers: Vec<tokio::task::JoinHandle<()>>,
    subscribers: Vec<(Shared, tokio::task::JoinHandle<()>)>,
    by_seq: (Shared, tokio::task::JoinHandle<()>),
    by_xid: (Shared, tokio::task::JoinHandle<()>),
    end: watch::Sender<Option<i64>>,
}

/// How long what is committed may take to everybody while a writer stays open. A disk may stand for some seconds; a feed that
/// waits for the writer waits for as long as that is open, which is longer than any of this.
const PATIENCE: Duration = Duration::from_secs(15);

/// What one run showed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) events: usize,
    pub(crate) rows: i64,
    pub(crate) rounds: u64,
    pub(crate) ended_early: u64,
    /// Of the events that were acknowledged while the long writer was open, how many every subscriber had before it
    /// committed, in thousandths; at once, and when asked again until all were there or [`PATIENCE`] was at its end.
    pub(crate) delivered_at_once: usize,
    pub(crate) delivered: usize,
    pub(crate) by_seq_lost: usize,
    pub(crate) by_xid_inverted: u64,
    pub(crate) by_xid_delivered: usize,
}

impl Run {
    pub(crate) async fn begin(way: &Way, seed: u64) -> Self {
        let killer = Killer::new(seed);
        let candidates = Some(Candidates::start(way, CANDIDATES, &killer));
        let ledger = Arc::<Ledger>::default();
        let writers = (0..WRITERS - 1)
            .map(|number| tokio::spawn(writers::write(way.clone(), seed, number, ledger.clone())))
            .collect();
        let (end, ended) = watch::channel(None);
        let subscribers = (0..SUBSCRIBERS as u64)
            .map(|number| {
                let got = Shared::default();
                let reading = readers::subscribe(way.clone(), seed + number, got.clone(), ended.clone());
                (got, tokio::spawn(reading))
            })
            .collect();
        let (by_seq, by_xid) = (Shared::default(), Shared::default());
        let seq_task = tokio::spawn(readers::by_seq(way.clone(), by_seq.clone(), ledger.clone()));
        let xid_task = tokio::spawn(readers::by_xid(way.clone(), by_xid.clone(), ledger.clone()));
        Self {
            seed,
            way: way.clone(),
            killer,
            candidates,
            ledger,
            writers,
            subscribers,
            by_seq: (by_seq, seq_task),
            by_xid: (by_xid, xid_task),
            end,
        }
    }

    /// One writer stays open for this long; what came through meanwhile, in thousandths: at once, soon, by xid.
    pub(crate) async fn with_a_long_writer(&self, open: Duration) -> (usize, usize, usize) {
        let long = LongWriter::begin(&self.way).await;
        let before: HashSet<Uuid> = self.ledger.acknowledged.lock().unwrap().iter().copied().collect();
        tokio::time::sleep(open).await;
        let known = self.ledger.acknowledged.lock().unwrap().clone();
        let meanwhile: Vec<Uuid> = known.into_iter().filter(|id| !before.contains(id)).collect();
        assert!(meanwhile.len() >= 100, "only {} events were committed meanwhile", meanwhile.len());
        let at_once = self.delivered(&meanwhile);
        let (asked, mut soon) = (Instant::now(), at_once);
        while soon < 1_000 && asked.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
            soon = self.delivered(&meanwhile);
        }
        let by_xid = share(&meanwhile, &self.by_xid.0.lock().unwrap());
        long.commit(&self.ledger).await;
        (at_once, soon, by_xid)
    }

    /// No sequencer works until this many rows wait for their place.
    pub(crate) async fn fall_behind(&mut self, rows: i64) {
        if let Some(candidates) = self.candidates.take() {
            candidates.stop().await;
        }
        let mut conn = self.way.conn().await;
        let begun = Instant::now();
        loop {
            let truth = Truth::now(&self.way, &mut conn).await;
            if truth.waiting() >= rows {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(120),
                "only {} rows wait after 120 s",
                truth.waiting()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sequencers work again.
    pub(crate) fn catch_up(&mut self) {
        self.candidates = Some(Candidates::start(&self.way, CANDIDATES, &self.killer));
    }

    /// The server is lost to everybody in the middle of what they do.
    pub(crate) async fn abandon(self) {
        let tasks = self.subscribers.into_iter().map(|subscriber| subscriber.1);
        for task in tasks.chain(self.writers).chain([self.by_seq.1, self.by_xid.1]) {
            task.abort();
        }
        if let Some(candidates) = self.candidates {
            candidates.abandon();
        }
    }

    fn delivered(&self, ids: &[Uuid]) -> usize {
        self.subscribers.iter().map(|(got, _)| share(ids, &got.lock().unwrap())).min().unwrap_or(0)
    }

    /// Ends the writing, waits until all is through, and judges.
    pub(crate) async fn end(self, open: (usize, usize, usize)) -> Report {
        self.ledger.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.by_seq.1.await.unwrap();
        self.by_xid.1.await.unwrap();
        let truth = Truth::when_settled(&self.way).await;
        self.end.send(Some(truth.feed.len() as i64)).unwrap();
        let mut got = Vec::new();
        for (shared, task) in self.subscribers {
            task.await.unwrap();
            got.push(shared.lock().unwrap().clone());
        }
        if let Some(candidates) = self.candidates {
            candidates.stop().await;
        }
        truth.judge();
        let acknowledged = self.ledger.acknowledged.lock().unwrap().clone();
        for (number, got) in got.iter().enumerate() {
            assert_eq!(
                (got.gaps, got.doubled, got.inverted, got.skipped_versions()),
                (0, 0, 0, 0),
                "{number}"
            );
            let expected: Vec<Uuid> = truth.feed.iter().map(|event| event.id).collect();
            let received: Vec<Uuid> = got.events.iter().map(|event| event.2).collect();
            assert!(received == expected, "subscriber {number} got something else than the feed");
            let lost = acknowledged.iter().filter(|id| !got.has(id)).count();
            assert_eq!(lost, 0, "subscriber {number} lost acknowledged events");
        }
        let count = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
        assert!(count(&self.ledger.prepared) > 0 && count(&self.ledger.savepoints) > 0);
        assert!(count(&self.ledger.rolled_back) > 0, "nothing was rolled back");
        let by_seq = self.by_seq.0.lock().unwrap().clone();
        let by_xid = self.by_xid.0.lock().unwrap().clone();
        Report {
            seed: self.seed,
            events: truth.feed.len(),
            rows: truth.outbox.len() as i64,
            rounds: count(&self.killer.asked),
            ended_early: self.killer.all(),
            delivered_at_once: open.0,
            delivered: open.1,
            by_seq_lost: truth.feed.iter().filter(|event| !by_seq.has(&event.id)).count(),
            by_xid_inverted: by_xid.inverted,
            by_xid_delivered: open.2,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thousandths = |of: usize| of as f64 / 10.0;
        write!(
            f,
            "seed {}: {} events, {} messages, {} rounds of which {} ended before their commit; lost 0, doubled 0, inverted 0; \
             past the open writer at once {} %, soon {} %; `seq > last` lost {}; `xid < xmin` inverted {}, past the \
             open writer {} %",
            self.seed,
            self.events,
            self.rows,
            self.rounds,
            self.ended_early,
            thousandths(self.delivered_at_once),
            thousandths(self.delivered),
            self.by_seq_lost,
            self.by_xid_inverted,
            thousandths(self.by_xid_delivered),
        )
    }
}

impl Report {
    /// Nothing of it is left to chance but how much: a run in which nothing was hostile proves nothing.
    pub(crate) fn assert_good(&self) {
        assert!(self.ended_early > 0, "no sequencer ended early: {self:?}");
        assert!(self.delivered >= 990, "the feed stood behind an open transaction: {self:?}");
        assert!(self.by_seq_lost > 0, "the run was not hostile: `seq > last` lost nothing: {self:?}");
        assert!(self.by_xid_inverted > 0, "the run was not hostile: by xid nothing was inverted: {self:?}");
        // But for what began before it.
        assert!(self.by_xid_delivered < 100, "by xid something came past an open transaction: {self:?}");
    }
}

fn share(ids: &[Uuid], got: &Got) -> usize {
    ids.iter().filter(|id| got.has(id)).count() * 1_000 / ids.len().max(1)
}

struct Event {
    position: i64,
    hash: Vec<u8>,
    id: Uuid,
    xid: i64,
    stream: i64,
    version: i64,
    content: Vec<u8>,
}

/// What the database holds when nobody writes any more.
pub(crate) struct Truth {
    store: StoreId,
    events: i64,
    feed: Vec<Event>,
    rows: i64,
    /// Number, transaction, position.
    outbox: Vec<(i64, i64, i64)>,
    keyed: i64,
}

impl Truth {
    /// Waits until every row has its place.
    pub(crate) async fn when_settled(way: &Way) -> Self {
        let mut conn = way.conn().await;
        let begun = Instant::now();
        loop {
            let truth = Self::now(way, &mut conn).await;
            if truth.waiting() == 0 {
                return truth;
            }
            let left = truth.waiting();
            assert!(begun.elapsed() < Duration::from_secs(30), "{left} rows without a place after 30 s");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn now(way: &Way, conn: &mut sqlx::postgres::PgConnection) -> Self {
        sqlx::Executor::execute(&mut *conn, "begin isolation level repeatable read").await.unwrap();
        let store: String = way
            .query("select value from mainstay.meta where key = 'store'")
            .fetch_one(&mut *conn)
            .await
            .unwrap()
            .get(0);
        let counts = way
            .query(
                "select (select count(*) from mainstay.event), (select count(*) from mainstay.outbox),
                        (select count(*) from mainstay.feed_key)",
            )
            .fetch_one(&mut *conn)
            .await
            .unwrap();
        let feed = way
            .query(
                "select f.position, f.hash, e.id::text, e.xid::text::bigint, e.stream, e.version, e.content
                 from mainstay.feed f join mainstay.event e on e.seq = f.seq order by f.position",
            )
            .fetch_all(&mut *conn)
            .await
            .unwrap();
        let outbox = way
            .query(
                "select n.number, o.xid::text::bigint, n.position
                 from mainstay.outbox_number n join mainstay.outbox o on o.seq = n.seq and o.slot = n.slot
                 order by n.number",
            )
            .fetch_all(&mut *conn)
            .await
            .unwrap();
        sqlx::Executor::execute(&mut *conn, "commit").await.unwrap();
        Self {
            store: StoreId(store.parse().unwrap()),
            events: counts.get(0),
            rows: counts.get(1),
            keyed: counts.get(2),
            feed: feed
                .iter()
                .map(|row| Event {
                    position: row.get(0),
                    hash: row.get(1),
                    id: row.get::<String, _>(2).parse().unwrap(),
                    xid: row.get(3),
                    stream: row.get(4),
                    version: row.get(5),
                    content: row.get(6),
                })
                .collect(),
            outbox: outbox.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect(),
        }
    }

    /// Rows without a place.
    pub(crate) fn waiting(&self) -> i64 {
        self.events - self.feed.len() as i64 + self.rows - self.outbox.len() as i64
    }

    /// Dense, in the streams' order, chained, each key present; outbox rows dense, and never ahead of their facts.
    pub(crate) fn judge(&self) {
        let mut head = Head { position: Position::START, hash: chain::genesis(self.store) };
        let mut versions: HashMap<i64, i64> = HashMap::new();
        let mut last_of: HashMap<i64, i64> = HashMap::new();
        for event in &self.feed {
            let position = head.position.next();
            assert_eq!(event.position as u64, position.0, "the feed is not dense");
            let content = Hash(event.content.as_slice().try_into().unwrap());
            let hash = chain::link(head.hash, position, Version(event.version as u64), content);
            assert_eq!(hash.0.as_slice(), event.hash, "the chain breaks at {position}");
            head = Head { position, hash };
            let version = versions.entry(event.stream).or_insert(0);
            assert_eq!(event.version, *version + 1, "stream {} at {position}", event.stream);
            *version = event.version;
            if event.xid != FORGOTTEN {
                last_of.insert(event.xid, event.position);
            }
        }
        let distinct: HashSet<Uuid> = self.feed.iter().map(|event| event.id).collect();
        assert_eq!(distinct.len(), self.feed.len(), "an event stands twice in the feed");
        assert_eq!(self.keyed, 2 * self.feed.len() as i64, "each event has two keys");
        let mut before = 0;
        for (place, (number, xid, position)) in self.outbox.iter().enumerate() {
            assert_eq!(*number, place as i64 + 1, "the outbox is not dense");
            assert!(*position >= before, "position of outbox row {number} goes back");
            before = *position;
            // A transaction's rows carry the position of its last event.
            if let Some(last) = last_of.get(xid) {
                assert_eq!(position, last, "outbox row {number}");
            }
        }
    }

    pub(crate) fn is_continued_by(&self, later: &Self) {
        assert!(later.feed.len() >= self.feed.len(), "the feed became shorter");
        for (before, after) in self.feed.iter().zip(&later.feed) {
            assert_eq!((before.id, &before.hash), (after.id, &after.hash), "position {}", before.position);
        }
    }
}
