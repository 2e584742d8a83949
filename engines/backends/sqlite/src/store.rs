//! The handle of a store, and the contract over it.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, Act, AppendError, Appended, Archived, Committed, ConsumerName, Direction, Head, Lease, Located,
    OutboxRecord, OutboxStatus, Page, Position, Query, ReadError, Receipt, Refusal, Rows, Scan, Store,
    StoreId, StreamName, StreamPage, TransactError, Version, ViewName, chain, limits,
};
use mainstay_event_store::{Author, outbox::Epoch};
use tokio::sync::{mpsc, oneshot, watch};

use crate::health::{Board, Health};
use crate::open::{self, OpenError};
use crate::options::Options;
use crate::prepare;
use crate::reader::Readers;
use crate::recent::Recent;
use crate::sql::Sql;
use crate::stats::{GroupCounts, Groups};
use crate::writer::{self, Append, Guard, Tail, Transact, Transaction, Work, Writer};
use crate::{markers, outbox, rows, select, views};

/// A store on one SQLite file. Clones share the threads; the last one gone ends them after the queue is empty.
#[derive(Debug, Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

struct Inner {
    id: StoreId,
    path: PathBuf,
    jobs: Option<mpsc::Sender<Box<dyn Work>>>,
    readers: Readers,
    /// The end of what this process' writer knows to be committed.
    end: watch::Receiver<Tail>,
    board: Arc<Board>,
    guard: Arc<Guard>,
    groups: Arc<Groups>,
    recent: Arc<Recent>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sqlite").field("id", &self.id).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens a store, making or migrating its file. Blocks for as long as that takes: milliseconds, or the
    /// recovery of a write-ahead log after a crash.
    pub fn open(mut options: Options) -> Result<Self, OpenError> {
        options.settle_path();
        let id = open::prepare(&options)?;
        let thread = |error: std::io::Error| OpenError::Failed {
            path: options.path.clone(),
            why: format!("no thread could be started: {error}"),
        };
        let guard = Arc::new(Guard::new(options.closure_limit));
        let board = Arc::new(Board::default());
        let groups = Arc::new(Groups::default());
        let recent = Arc::new(Recent::default());
        let (set_end, end) = watch::channel(Tail::start(chain::genesis(id)));
        let readers = Readers::start(&options).map_err(thread)?;
        let (mut jobs, mut writer) = (None, None);
        if !options.read_only {
            let (sender, receiver) = mpsc::channel(options.queue.max(1));
            let work = Writer {
                options: options.clone().existing(),
                store: id,
                guard: Arc::clone(&guard),
                board: Arc::clone(&board),
                jobs: receiver,
                end: set_end,
                groups: Arc::clone(&groups),
                recent: Arc::clone(&recent),
            };
            let spawn = std::thread::Builder::new().name("mainstay-write".into());
            writer = Some(spawn.spawn(move || work.run()).map_err(thread)?);
            jobs = Some(sender);
            let weak = Arc::downgrade(&board);
            let mut wal = options.path.clone().into_os_string();
            wal.push("-wal");
            let alarm = options.wal_alarm;
            std::thread::Builder::new()
                .name("mainstay-watch".into())
                .spawn(move || writer::watch(&weak, wal.as_ref(), alarm))
                .map_err(thread)?;
        }
        let writer = Mutex::new(writer);
        let path = options.path;
        let inner = Inner { id, path, jobs, readers, end, board, guard, groups, recent, writer };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.inner.path
    }

    /// What is wrong with the store now, if anything is.
    pub fn health(&self) -> Health {
        let board = &self.inner.board;
        Health {
            stuck: self.inner.guard.stuck_for().map(|ran| (board.running(), ran)),
            wal_bytes: Some(board.wal_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0),
            failed: board.failed(),
        }
    }

    /// How acts were grouped so far.
    pub fn groups(&self) -> GroupCounts {
        self.inner.groups.read()
    }

    /// Gives up this handle. If it is the last one, waits until the writer has emptied its queue and all threads
    /// have let go of the file. If nobody else has it open either, everything is then in that one file: there is
    /// no write-ahead log beside it any more, and it can be copied. Blocks.
    pub fn close(self) {
        let Some(mut inner) = Arc::into_inner(self.inner) else { return };
        let writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Before the writer, which moves everything into the file when it is the last to let go of it.
        inner.readers.close();
        drop(inner); // the queue's last sender
        if let Some(writer) = writer {
            // A writer that panicked has let go of the file too.
            let _ = writer.join();
        }
    }

    /// Waits until this process' writer has committed to an end like this, or until `at_most` is over.
    async fn wait(&self, at_most: Duration, reached: impl Fn(&Tail) -> bool) {
        let mut end = self.inner.end.clone();
        let grown = async { end.wait_for(reached).await.is_ok() };
        if tokio::time::timeout(at_most, grown).await == Ok(false) {
            // No writer in this process to hear from: only the slow look is left.
            tokio::time::sleep(at_most).await;
        }
    }

    async fn submit(&self, work: Box<dyn Work>) -> Result<(), Refusal> {
        let read_only = || Refusal::Unavailable {
            why: format!("{} was opened read-only", self.inner.path.display()),
            remedy: "open it for writing".into(),
            passing: false,
        };
        let jobs = self.inner.jobs.as_ref().ok_or_else(read_only)?;
        let closed = || Refusal::Unavailable {
            why: "the writer thread has ended".into(),
            remedy: "open the store anew".into(),
            passing: false,
        };
        let stuck = || Refusal::Busy {
            why: format!("the transaction {} does not come back", self.inner.board.running()),
        };
        if self.inner.guard.stuck_for().is_some() {
            return Err(stuck());
        }
        let work = match jobs.try_send(work) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(closed()),
            Err(mpsc::error::TrySendError::Full(work)) => work,
        };
        let place = jobs.reserve();
        tokio::pin!(place);
        loop {
            // The queue is full: wait for a place in turn, but not for one that a stuck closure will never make.
            match tokio::time::timeout(Duration::from_millis(100), &mut place).await {
                Ok(Ok(place)) => {
                    place.send(work);
                    return Ok(());
                }
                Ok(Err(_)) => return Err(closed()),
                Err(_) if self.inner.guard.stuck_for().is_some() => return Err(stuck()),
                Err(_) => {}
            }
        }
    }
}

const GONE: &str = "the writer thread ended before it answered";

fn damaged(why: String) -> ReadError {
    ReadError::Damaged { why }
}

impl Store for Sqlite {
    type Tx = Transaction;
    type Native<'tx> = Sql<'tx>;

    fn id(&self) -> StoreId {
        self.inner.id
    }

    async fn append(&self, cx: &Context, act: Act) -> Result<Appended, AppendError> {
        let act = prepare::act(cx, act)?;
        let (reply, answer) = oneshot::channel();
        self.submit(Box::new(Append { act, answer: None, reply })).await?;
        match answer.await {
            Ok((answer, _act)) => answer,
            Err(_) => Err(AppendError::Unknown { why: GONE.into() }),
        }
    }

    async fn transact<T, E, F>(&self, cx: &Context, closure: F) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Fn(&Transaction) -> Result<T, Abort<E>> + Send + 'static,
    {
        let origin = Author::of(cx)?;
        let name = std::any::type_name::<F>();
        let (reply, answer) = oneshot::channel();
        self.submit(Box::new(Transact { origin, closure, name, answer: None, reply })).await?;
        answer.await.unwrap_or_else(|_| Err(AppendError::Unknown { why: GONE.into() }.into()))
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
        let (stream, max) = (stream.clone(), limits::page(max));
        let backwards = direction == Direction::Backwards;
        self.inner
            .readers
            .read(move |conn, names, budget| {
                let Some((id, version)) = select::stream(conn, &stream)? else {
                    return Ok(Ok(StreamPage { events: Vec::new(), version: Version::EMPTY }));
                };
                let events = select::stream_events(conn, names, id, from, backwards, max, budget)?;
                Ok(markers::present(conn, events)?.map(|events| StreamPage { events, version }))
            })
            .await
    }

    async fn read(&self, query: &Query, after: Position, max: usize) -> Result<Page, ReadError> {
        query.check()?;
        let (query, max) = (query.clone(), limits::page(max));
        self.inner
            .readers
            .read(move |conn, names, budget| {
                let head = select::head(conn)?.map_or(Position::START, |(position, _)| position);
                if after > head {
                    return Ok(Err(ReadError::PastEnd { asked: after, ends: head }));
                }
                let (events, next) = select::feed(conn, names, &query, after, head, max, budget)?;
                Ok(markers::present(conn, events)?.map(|events| Page { events, next, head }))
            })
            .await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        let genesis = chain::genesis(self.inner.id);
        self.inner
            .readers
            .read(move |conn, _, _| {
                let (position, hash) = select::head(conn)?.unwrap_or((Position::START, genesis));
                Ok(Ok(Head { position, hash }))
            })
            .await
    }

    async fn head_at(&self, position: Position) -> Result<Option<Head>, ReadError> {
        if position == Position::START {
            return Ok(Some(Head { position, hash: chain::genesis(self.inner.id) }));
        }
        self.inner
            .readers
            .read(move |conn, _, _| {
                Ok(Ok(select::head_at(conn, position)?.map(|(position, hash)| Head { position, hash })))
            })
            .await
    }

    async fn archives(&self) -> Result<Vec<Archived>, ReadError> {
        self.inner.readers.read(move |conn, _, _| Ok(Ok(markers::all(conn)?))).await
    }

    async fn position(&self, receipt: &Receipt) -> Result<Located, ReadError> {
        if receipt.store() != self.inner.id {
            return Err(ReadError::ForeignReceipt { theirs: receipt.store(), ours: self.inner.id });
        }
        // Positions are given at commit here, so a receipt's mark is its position.
        let position = Position(receipt.mark());
        let head = self.head().await?.position;
        if position > head {
            return Err(ReadError::PastEnd { asked: position, ends: head });
        }
        Ok(Located::At(position))
    }

    async fn wait_past(&self, after: Position, at_most: Duration) {
        self.wait(at_most, |end| end.position > after).await;
    }

    async fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let (view, key) = (view.clone(), key.to_owned());
        self.inner
            .readers
            .read(move |conn, _, _| Ok(Ok(views::get(conn, &mut Default::default(), &view, &key)?)))
            .await
    }

    async fn view_scan(&self, scan: &Scan) -> Result<Rows, ReadError> {
        scan.check()?;
        let scan = scan.clone();
        self.inner
            .readers
            .read(move |conn, _, _| Ok(Ok(views::scan(conn, &mut Default::default(), &scan)?)))
            .await
    }

    async fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, ReadError> {
        let consumer = consumer.clone();
        self.inner.readers.read(move |conn, _, _| Ok(Ok(rows::checkpoint(conn, &consumer)?))).await
    }

    async fn outbox_after(&self, seq: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        let max = limits::page(max);
        self.inner.readers.read(move |conn, _, _| Ok(outbox::after(conn, seq, max)?.map_err(damaged))).await
    }

    async fn outbox_unsent(&self, after: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        let max = limits::page(max);
        self.inner
            .readers
            .read(move |conn, _, _| Ok(outbox::unsent(conn, after, max)?.map_err(damaged)))
            .await
    }

    fn outbox_recent(&self, after: u64, max: usize) -> Option<Vec<OutboxRecord>> {
        self.inner.recent.after(after, limits::page(max))
    }

    async fn outbox_status(&self) -> Result<OutboxStatus, ReadError> {
        self.inner.readers.read(move |conn, _, _| Ok(Ok(outbox::status(conn)?))).await
    }

    async fn outbox_epochs(&self) -> Result<Vec<Epoch>, ReadError> {
        self.inner.readers.read(move |conn, _, _| Ok(Ok(outbox::epochs(conn)?))).await
    }

    async fn wait_outbox(&self, after: u64, at_most: Duration) {
        self.wait(at_most, |end| end.outbox > after).await;
    }

    async fn lease(&self, name: &ConsumerName) -> Result<Option<Lease>, ReadError> {
        let name = name.clone();
        self.inner.readers.read(move |conn, _, _| Ok(Ok(rows::lease(conn, &name)?))).await
    }
}
