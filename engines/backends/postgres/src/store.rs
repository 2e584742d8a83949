//! The handle of a store, and the contract over it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, Act, AppendError, Appended, Committed, ConsumerName, Direction, Head, Lease, Located,
    OutboxRecord, OutboxStatus, Page, Position, Query, ReadError, Receipt, Refusal, Rows, Scan, Store,
    StoreId, StreamName, StreamPage, TransactError, Version, ViewName, chain, limits,
};
use mainstay_event_store::{Author, outbox::Epoch};
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::{mpsc, oneshot, watch};

use crate::append::{Lane, Queue, position};
use crate::connect::Way;
use crate::error::{Kind, kind, read_error};
use crate::hints::{Ends, Hints};
use crate::listen::{self, LOOK_EVERY};
use crate::open::{self, OpenError};
use crate::ops::{self, Place};
use crate::options::{Isolation, Options};
use crate::pool::{Pool, asking};
use crate::receipt::Mark;
use crate::retention::Retention;
use crate::retries::RaceBudget;
use crate::schema::Schema;
use crate::select;
use crate::sequencer::{self, Sequencer, Status};
use crate::tx::{Setup, Sql, Transact, Transaction, Worker};

/// Reads on a connection. One that turns out to be lost is replaced a few times: reading twice does no harm. A macro, since
/// a future made by a closure could not be told to be `Send` for every lifetime.
macro_rules! reading {
    ($store:expr, |$conn:ident, $place:ident| $call:expr) => {{
        let inner = &$store.inner;
        let $place = &inner.place;
        let mut tries = 0;
        loop {
            match asking!(inner.readers, $place, |$conn| $call) {
                Ok(value) => break Ok(value),
                Err(error) if kind(&error) == Kind::Lost && tries < READ_AGAIN_MAX => tries += 1,
                Err(error) => break Err(read_error(&error)),
            }
        }
    }};
}

/// A store in one schema of a PostgreSQL database. Clones share connections, threads and tasks; the last one gone ends
/// them. Opened on a tokio runtime, and used while that runs.
#[derive(Debug, Clone)]
pub struct Postgres {
    inner: Arc<Inner>,
    isolation: Isolation,
}

struct Inner {
    place: Place,
    readers: Pool,
    writers: Option<Writers>,
    hints: Arc<Hints>,
    busy: Duration,
    settled: Option<Duration>,
    sequencer: Mutex<Option<Sequencer>>,
    retention: Mutex<Option<Retention>>,
    status: Option<watch::Receiver<Status>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// What a handle that may write has.
struct Writers {
    pool: Pool,
    queue: Arc<Queue>,
    jobs: mpsc::Sender<Box<dyn crate::tx::Work>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(writers) = &self.writers {
            writers.queue.close();
        }
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Postgres {
    /// Opens a store, making its schema when it is not there. Whatever makes it unusable is told here.
    ///
    /// `cx` gives a new store its identity, and the sequencer its name and its chance; it is not kept for anything else.
    pub async fn open(cx: &Context, options: Options) -> Result<Self, OpenError> {
        let opened = open::open(&options, cx).await?;
        let connect = opened.connect;
        let retry = options
            .retry
            .check()
            .map_err(|invalid| OpenError::BadSetting { setting: "retry", why: invalid.to_string() })?;
        let way = Way { pooled: options.pooled };
        let place = Place { schema: options.schema.clone(), store: opened.id, way };
        let hints = Arc::new(Hints::default());
        let budget = Arc::new(RaceBudget::default());
        let readers = Pool::new(&connect, &options, options.readers as usize);
        let channel = sequencer::channel(&options.schema);
        let mut tasks = Vec::new();
        let mut sequencer = None;
        if let Some(spec) = options.sequencer.clone() {
            let start = sequencer::Start {
                options: connect.clone(),
                schema: &options.schema,
                cx: cx.clone(),
                hints: Arc::clone(&hints),
                spec,
            };
            sequencer = Some(Sequencer::start_with(start).map_err(|invalid| OpenError::BadSetting {
                setting: "sequencer",
                why: invalid.to_string(),
            })?);
        }
        let status = sequencer.as_ref().map(Sequencer::status);
        let start = |spec| Retention::start(connect.clone(), &options.schema, cx, spec);
        let retention = options.retention.clone().map(start);
        // One connection more, which listens, where a connection is one.
        if !options.pooled {
            let listening = listen::listen(connect.clone(), channel.clone(), Arc::clone(&hints));
            tasks.push(tokio::spawn(listening));
        }
        let mut writers = None;
        if !options.read_only {
            // The lanes, and one to tell other processes.
            let pool = Pool::new(&connect, &options, options.lanes + 1);
            let queue = Arc::new(Queue::new(options.queue, options.batch_acts));
            let lane = Lane {
                queue: Arc::clone(&queue),
                pool: pool.clone(),
                way,
                schema: options.schema.clone(),
                store: opened.id,
                hints: Arc::clone(&hints),
                retry,
                budget: Arc::clone(&budget),
                bytes_max: options.batch_bytes,
            };
            for _ in 0..options.lanes {
                // Not among the tasks that are aborted: what is under way is ended, then the queue is closed.
                tokio::spawn(lane.clone().run());
            }
            if !options.pooled {
                let telling =
                    listen::tell(pool.clone(), channel, place.clone(), Arc::clone(&hints), status.clone());
                tasks.push(tokio::spawn(telling));
            }
            let setup = Setup {
                place: place.clone(),
                connect,
                connect_limit: options.connect_limit,
                limit: options.closure_limit,
                lock_limit: options.busy,
                retry,
                budget,
                hints: Arc::clone(&hints),
                serial: options.settled.is_some(),
            };
            let jobs =
                Worker::start(&setup, options.workers, options.queue).map_err(|error| OpenError::Failed {
                    schema: options.schema.name().to_owned(),
                    why: format!("no thread could be started: {error}"),
                })?;
            writers = Some(Writers { pool, queue, jobs });
        }
        let (sequencer, retention) = (Mutex::new(sequencer), Mutex::new(retention));
        let (busy, settled) = (options.busy, options.settled);
        let inner =
            Inner { place, readers, writers, hints, busy, settled, sequencer, retention, status, tasks };
        Ok(Self { inner: Arc::new(inner), isolation: options.isolation })
    }

    /// The same store, whose closures see this much of each other. Plain appends are judged by the versions and
    /// conditions they name, whatever this is.
    pub fn with_isolation(&self, isolation: Isolation) -> Self {
        Self { inner: Arc::clone(&self.inner), isolation }
    }

    /// The schema of its tables.
    pub fn schema(&self) -> &Schema {
        &self.inner.place.schema
    }

    /// What this process's sequencer is doing; none when it is no candidate.
    pub fn sequencer(&self) -> Option<Status> {
        self.inner.status.as_ref().map(|status| status.borrow().clone())
    }

    /// Ends this handle's sequencer after its present round, so that another process can take over at once, and refuses
    /// appends from now on. What was acknowledged is on disk with or without it.
    pub async fn close(self) {
        if let Some(writers) = &self.inner.writers {
            writers.queue.close();
        }
        let sequencer = self.inner.sequencer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sequencer) = sequencer {
            sequencer.stop().await;
        }
        let retention = self.inner.retention.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(retention) = retention {
            retention.stop().await;
        }
        for task in &self.inner.tasks {
            task.abort();
        }
        self.inner.readers.close().await;
        if let Some(writers) = &self.inner.writers {
            writers.pool.close().await;
        }
    }

    /// A receipt whose mark is a position, once its act is in the feed: one that another service can compare with how far
    /// it has come ([`mainstay_event_store::OutboxRecord::position`]). None when that takes longer than `at_most`.
    pub async fn settle(&self, receipt: &Receipt, at_most: Duration) -> Result<Option<Receipt>, ReadError> {
        let ends = tokio::time::Instant::now() + at_most;
        loop {
            // Before the look: what is recorded after it ends the wait.
            let head = self.inner.hints.ends();
            if let Located::At(position) = self.position(receipt).await? {
                return Ok(Some(Mark::Position(position.0).receipt(self.id())));
            }
            let left = ends.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.inner.hints.wait(left.min(LOOK_EVERY), |ends| *ends != head).await;
        }
    }

    /// What an act is answered with: its receipt, with its position where that is waited for. The act is committed: an
    /// error of reading, or the end of the wait, leaves the receipt that can be settled later.
    async fn settled_receipt(&self, cx: &Context, receipt: Receipt) -> Receipt {
        let Some(at_most) = self.inner.settled else { return receipt };
        let at_most = at_most.min(cx.remaining().unwrap_or(Duration::MAX));
        match self.settle(&receipt, at_most).await {
            Ok(Some(settled)) => settled,
            Ok(None) | Err(_) => receipt,
        }
    }

    /// Waits until the ends are known to be like this, or until `at_most` is over.
    async fn wait(&self, at_most: Duration, reached: impl Fn(&Ends) -> bool + Copy) {
        let ends = tokio::time::Instant::now() + at_most;
        loop {
            if reached(&self.inner.hints.ends()) {
                return;
            }
            // The hints of another process may be lost; a look costs a round trip.
            if let Ok(now) = listen::look(&self.inner.readers, &self.inner.place).await {
                self.inner.hints.sequenced(now);
            }
            let left = ends.saturating_duration_since(tokio::time::Instant::now());
            if self.inner.hints.wait(left.min(LOOK_EVERY), reached).await || left <= LOOK_EVERY {
                return;
            }
        }
    }

    fn writers(&self) -> Result<&Writers, Refusal> {
        self.inner.writers.as_ref().ok_or_else(|| Refusal::Unavailable {
            why: format!("schema {} was opened read-only", self.inner.place.schema.name()),
            remedy: "open it for writing".into(),
            passing: false,
        })
    }
}

/// How many lost connections a read replaces. Of those that a server closed when it was restarted, the first one found takes
/// the others along.
const READ_AGAIN_MAX: usize = 2;

const GONE: &str = "the transaction's thread ended before it answered";

impl Store for Postgres {
    type Tx = Transaction;
    type Native<'tx> = Sql<'tx>;

    fn id(&self) -> StoreId {
        self.inner.place.store
    }

    async fn append(&self, cx: &Context, act: Act) -> Result<Appended, AppendError> {
        let appended = self.writers()?.queue.append(cx, act, self.inner.busy).await?;
        Ok(Appended { receipt: self.settled_receipt(cx, appended.receipt).await, ..appended })
    }

    async fn transact<T, E, F>(&self, cx: &Context, closure: F) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Fn(&Transaction) -> Result<T, Abort<E>> + Send + 'static,
    {
        let jobs = &self.writers()?.jobs;
        let origin = Author::of(cx)?;
        let (reply, answer) = oneshot::channel();
        let job = Transact { cx: cx.clone(), origin, isolation: self.isolation, closure, reply };
        match tokio::time::timeout(self.inner.busy, jobs.send(Box::new(job))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(AppendError::Unknown { why: GONE.into() }.into()),
            Err(_) => {
                let why = format!("no place in the queue of transactions for {:?}", self.inner.busy);
                return Err(Refusal::Busy { why }.into());
            }
        }
        let committed =
            answer.await.unwrap_or_else(|_| Err(AppendError::Unknown { why: GONE.into() }.into()))?;
        Ok(Committed { receipt: self.settled_receipt(cx, committed.receipt).await, ..committed })
    }

    fn native(tx: &Transaction) -> Sql<'_> {
        tx.sql()
    }

    async fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        direction: Direction,
        max: usize,
    ) -> Result<StreamPage, ReadError> {
        let max = limits::page(max);
        reading!(self, |conn, place| select::stream(
            conn,
            &place.schema,
            stream,
            from,
            direction,
            max,
            place.persistent()
        ))
    }

    async fn read(&self, query: &Query, after: Position, max: usize) -> Result<Page, ReadError> {
        query.check()?;
        let max = limits::page(max);
        let page = reading!(self, |conn, place| select::feed(
            conn,
            &place.schema,
            query,
            after,
            max,
            place.persistent()
        ))?;
        self.inner.hints.sequenced(Ends { position: page.head.0, outbox: 0 });
        match after > page.head {
            true => Err(ReadError::PastEnd { asked: after, ends: page.head }),
            false => Ok(page),
        }
    }

    async fn head(&self) -> Result<Head, ReadError> {
        let head = reading!(self, |conn, place| select::head(conn, &place.schema, place.persistent()))?;
        Ok(head.unwrap_or(Head { position: Position::START, hash: chain::genesis(self.id()) }))
    }

    async fn head_at(&self, position: Position) -> Result<Option<Head>, ReadError> {
        if position == Position::START {
            return Ok(Some(Head { position, hash: chain::genesis(self.id()) }));
        }
        reading!(self, |conn, place| select::head_at(conn, &place.schema, position, place.persistent()))
    }

    async fn position(&self, receipt: &Receipt) -> Result<Located, ReadError> {
        if receipt.store() != self.id() {
            return Err(ReadError::ForeignReceipt { theirs: receipt.store(), ours: self.id() });
        }
        let (sql, mark) = match Mark::of(receipt) {
            Mark::Position(at) => {
                let head = self.head().await?.position;
                return match Position(at) <= head {
                    true => Ok(Located::At(Position(at))),
                    false => Err(ReadError::PastEnd { asked: Position(at), ends: head }),
                };
            }
            Mark::Seq(seq) => ("select position from {s}.feed where seq = $1", seq),
            // Everything that the transaction saw was committed before it, so it is settled when the transaction is; or
            // when nothing that is committed by now waits for its place.
            Mark::Xid(xid) => (
                "select r.position from (
                    select position, settled from {s}.round order by number desc limit 1) r
                 where pg_visible_in_snapshot($1::bigint::text::xid8, pg_current_snapshot())
                   and (pg_visible_in_snapshot($1::bigint::text::xid8, r.settled) or not (
                        exists(select from {s}.event e where e.xid = any(array(select pg_snapshot_xip(r.settled)))
                            and not exists (select from {s}.feed f where f.seq = e.seq))
                        or exists(select from {s}.event e where e.xid >= pg_snapshot_xmax(r.settled)
                            and not exists (select from {s}.feed f where f.seq = e.seq))
                        or exists(select from {s}.outbox o where o.xid = any(array(select pg_snapshot_xip(r.settled)))
                            and not exists (select from {s}.outbox_number n where n.seq = o.seq))
                        or exists(select from {s}.outbox o where o.xid >= pg_snapshot_xmax(r.settled)
                            and not exists (select from {s}.outbox_number n where n.seq = o.seq))))",
                xid,
            ),
        };
        let Ok(mark) = i64::try_from(mark) else { return Ok(Located::NotYet) };
        let found: Option<PgRow> = reading!(self, |conn, place| {
            sqlx::query(place.schema.sql(sql)).bind(mark).persistent(place.persistent()).fetch_optional(conn)
        })?;
        let at = found.map(|row| row.try_get(0).and_then(position)).transpose();
        Ok(at.map_err(|error| read_error(&error))?.map_or(Located::NotYet, Located::At))
    }

    async fn wait_past(&self, after: Position, at_most: Duration) {
        self.wait(at_most, move |ends| ends.position > after.0).await;
    }

    async fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        reading!(self, |conn, place| ops::views::get(conn, place, view, key))
    }

    async fn view_scan(&self, scan: &Scan) -> Result<Rows, ReadError> {
        scan.check()?;
        reading!(self, |conn, place| ops::views::scan(conn, place, scan))
    }

    async fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, ReadError> {
        reading!(self, |conn, place| ops::checkpoint::get(conn, place, consumer))
    }

    async fn outbox_after(&self, seq: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        let max = limits::page(max);
        reading!(self, |conn, place| ops::outbox::after(conn, place, seq, max))
    }

    async fn outbox_unsent(&self, after: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        let max = limits::page(max);
        reading!(self, |conn, place| ops::outbox::unsent(conn, place, after, max))
    }

    async fn outbox_status(&self) -> Result<OutboxStatus, ReadError> {
        reading!(self, |conn, place| ops::outbox::status(conn, place))
    }

    async fn outbox_epochs(&self) -> Result<Vec<Epoch>, ReadError> {
        reading!(self, |conn, place| ops::outbox::epochs(conn, place))
    }

    async fn wait_outbox(&self, after: u64, at_most: Duration) {
        self.wait(at_most, move |ends| ends.outbox > after).await;
    }

    async fn lease(&self, name: &ConsumerName) -> Result<Option<Lease>, ReadError> {
        reading!(self, |conn, place| ops::lease::get(conn, place, name, ops::lease::Look::Free))
    }
}

/// What a leader and its replicas are asked beside the contract ([`crate::Replicated`]).
impl Postgres {
    /// Does this server take writes, and how old is the heartbeat that it has? None before the first round.
    pub(crate) async fn heartbeat(&self) -> Result<(bool, Option<Duration>), ReadError> {
        reading!(self, |conn, place| select::heartbeat(conn, &place.schema, place.persistent()))
    }

    /// Waits until everything that is committed now has its place in the feed.
    pub(crate) async fn settled(&self, at_most: Duration) -> Result<(), ReadError> {
        let ends = tokio::time::Instant::now() + at_most;
        while reading!(self, |conn, place| select::is_unsettled(conn, &place.schema, place.persistent()))? {
            let left = ends.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                let why = format!(
                    "what is committed has had no place in the feed for {} ms: no sequencer runs, or it is far behind; \
                     nothing was read",
                    at_most.as_millis()
                );
                return Err(ReadError::Unavailable { why, passing: true });
            }
            self.inner.hints.committed_elsewhere();
            let head = self.inner.hints.ends();
            self.inner.hints.wait(left.min(Duration::from_millis(10)), |ends| *ends != head).await;
        }
        Ok(())
    }
}
