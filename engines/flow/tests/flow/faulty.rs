//! A store that fails where it is told to: before a write, or after it with the answer lost, or never answers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::memory::{Memory, Transaction};
use mainstay_event_store::outbox::Epoch;
use mainstay_event_store::{
    Abort, Act, AppendError, Appended, Committed, ConsumerName, Direction, Expected, Head, Lease, Located,
    NewEvent, OutboxRecord, OutboxStatus, Page, Position, Query, ReadError, Receipt, Refusal, Rows, Scan,
    Store, StoreId, StreamName, StreamPage, TransactError, Version, ViewName,
};
use tokio::sync::watch;

/// What somebody else does.
#[derive(Clone)]
pub(crate) struct Meanwhile(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

/// What happens to one write.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    None,
    /// Others come first: whatever they do happens between the caller's reads and its write.
    Yield,
    /// Somebody else does this just before.
    Meanwhile(Meanwhile),
    /// Refused for now; nothing is written.
    Busy,
    /// Not written, and nobody knows.
    LostBefore,
    /// Written, and nobody knows.
    LostAfter,
    /// The process dies before the write.
    CrashBefore,
    /// The process dies after the write.
    CrashAfter,
    /// Somebody else appends to a stream just before.
    Rival(StreamName, NewEvent),
}

#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    pub(crate) inner: Memory,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    writes: Arc<Mutex<usize>>,
    crashed: watch::Sender<bool>,
    /// What the closure of the transaction under way has spent: 0 at the begin of each.
    pub(crate) spent: Arc<AtomicUsize>,
}

impl Faulty {
    pub(crate) fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self::over(Memory::new(), faults)
    }

    /// The same rows and events in a process started anew.
    pub(crate) fn over(inner: Memory, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            inner,
            faults: Arc::new(Mutex::new(faults.into_iter().collect())),
            writes: Arc::default(),
            crashed: watch::Sender::new(false),
            spent: Arc::default(),
        }
    }

    /// Faults for the writes from now on.
    pub(crate) fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Writes that were tried.
    pub(crate) fn writes(&self) -> usize {
        *self.writes.lock().unwrap()
    }

    /// Ready when the process has died.
    pub(crate) async fn crashed(&self) {
        let mut crashed = self.crashed.subscribe();
        crashed.wait_for(|crashed| *crashed).await.unwrap();
    }

    fn next(&self) -> Fault {
        *self.writes.lock().unwrap() += 1;
        self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None)
    }

    async fn before(&self, cx: &Context, fault: &Fault) -> Result<(), AppendError> {
        match fault {
            Fault::Busy => Err(Refusal::Busy { why: "a test".into() }.into()),
            Fault::LostBefore => Err(AppendError::Unknown { why: "lost before".into() }),
            Fault::CrashBefore => self.die().await,
            Fault::Meanwhile(act) => {
                act.0();
                Ok(())
            }
            Fault::Yield => {
                tokio::task::yield_now().await;
                Ok(())
            }
            Fault::Rival(stream, event) => {
                let act = Act::append(stream.clone(), Expected::Any, vec![event.clone()]);
                self.inner.append(cx, act).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    async fn after(&self, fault: &Fault) -> Result<(), AppendError> {
        match fault {
            Fault::LostAfter => Err(AppendError::Unknown { why: "lost after".into() }),
            Fault::CrashAfter => self.die().await,
            _ => Ok(()),
        }
    }

    async fn die(&self) -> ! {
        self.crashed.send_replace(true);
        std::future::pending().await
    }
}

impl Store for Faulty {
    type Tx = Transaction;
    type Native<'tx> = ();

    fn id(&self) -> StoreId {
        self.inner.id()
    }

    async fn append(&self, cx: &Context, act: Act) -> Result<Appended, AppendError> {
        let fault = self.next();
        self.before(cx, &fault).await?;
        let done = self.inner.append(cx, act).await?;
        self.after(&fault).await?;
        Ok(done)
    }

    async fn transact<T, E, F>(&self, cx: &Context, closure: F) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Fn(&Self::Tx) -> Result<T, Abort<E>> + Send + 'static,
    {
        let fault = self.next();
        self.before(cx, &fault).await?;
        let spent = Arc::clone(&self.spent);
        let counted = move |tx: &Transaction| {
            spent.store(0, Ordering::Relaxed);
            closure(tx)
        };
        let done = self.inner.transact(cx, counted).await?;
        self.after(&fault).await?;
        Ok(done)
    }

    fn native(_: &Transaction) {}

    async fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        direction: Direction,
        max: usize,
    ) -> Result<StreamPage, ReadError> {
        self.inner.read_stream(stream, from, direction, max).await
    }

    async fn read(&self, query: &Query, after: Position, max: usize) -> Result<Page, ReadError> {
        self.inner.read(query, after, max).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        self.inner.head().await
    }

    async fn head_at(&self, position: Position) -> Result<Option<Head>, ReadError> {
        self.inner.head_at(position).await
    }

    async fn position(&self, receipt: &Receipt) -> Result<Located, ReadError> {
        self.inner.position(receipt).await
    }

    async fn wait_past(&self, after: Position, at_most: Duration) {
        self.inner.wait_past(after, at_most).await;
    }

    async fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.inner.view_get(view, key).await
    }

    async fn view_scan(&self, scan: &Scan) -> Result<Rows, ReadError> {
        self.inner.view_scan(scan).await
    }

    async fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, ReadError> {
        self.inner.checkpoint(consumer).await
    }

    async fn outbox_after(&self, seq: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        self.inner.outbox_after(seq, max).await
    }

    async fn outbox_unsent(&self, after: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        self.inner.outbox_unsent(after, max).await
    }

    async fn outbox_status(&self) -> Result<OutboxStatus, ReadError> {
        self.inner.outbox_status().await
    }

    async fn outbox_epochs(&self) -> Result<Vec<Epoch>, ReadError> {
        self.inner.outbox_epochs().await
    }

    async fn wait_outbox(&self, after: u64, at_most: Duration) {
        self.inner.wait_outbox(after, at_most).await;
    }

    async fn lease(&self, name: &ConsumerName) -> Result<Option<Lease>, ReadError> {
        self.inner.lease(name).await
    }
}
