//! The seam between catching up and following, forced: whatever a subscriber does between two of its looks at
//! the store, somebody else writes at that very moment.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::memory::{Memory, Transaction};
use mainstay_event_store::outbox::Epoch;
use mainstay_event_store::{
    Abort, Act, AppendError, Appended, Committed, ConsumerName, Direction, EventType, Expected, Head, Lease,
    Located, NewEvent, OutboxRecord, OutboxStatus, Page, Payload, Position, Query, ReadError, Receipt, Rows,
    Scan, Store, StoreId, StreamName, StreamPage, Subscribe, TransactError, Version, ViewName,
};

/// A store on which somebody appends one event after each answer that a reader of the feed is given, and
/// before the reader has it, until the budget is spent. Its pages end where they like.
#[derive(Debug, Clone)]
struct Busy {
    store: Memory,
    left: Arc<AtomicU64>,
    /// Counts the pages; what is not 0 draws their lengths.
    cut: Arc<AtomicU64>,
}

impl Busy {
    fn new(count: u64) -> Self {
        Self { store: Memory::new(), left: Arc::new(AtomicU64::new(count)), cut: Arc::default() }
    }

    async fn somebody_writes(&self) {
        let spend = |left: u64| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).is_ok() {
            write(&self.store).await;
        }
    }
}

async fn write(store: &Memory) {
    let cx = Context::system();
    let event = NewEvent::new(cx.new_id(), EventType::new("Written").unwrap(), Payload::plain(*b""));
    let act = Act::append(StreamName::new("s").unwrap(), Expected::Any, vec![event]);
    store.append(&cx, act).await.unwrap();
}

impl Store for Busy {
    type Tx = Transaction;
    type Native<'tx> = ();

    fn id(&self) -> StoreId {
        self.store.id()
    }

    async fn read(&self, query: &Query, after: Position, max: usize) -> Result<Page, ReadError> {
        let draw = self.cut.load(Ordering::SeqCst);
        let max = if draw == 0 {
            max
        } else {
            1 + (self.cut.fetch_add(977, Ordering::SeqCst) % 1_500) as usize % max
        };
        let page = self.store.read(query, after, max).await;
        self.somebody_writes().await;
        page
    }

    async fn head(&self) -> Result<Head, ReadError> {
        let head = self.store.head().await;
        self.somebody_writes().await;
        head
    }

    async fn head_at(&self, position: Position) -> Result<Option<Head>, ReadError> {
        let head = self.store.head_at(position).await;
        self.somebody_writes().await;
        head
    }

    async fn wait_past(&self, after: Position, at_most: Duration) {
        self.somebody_writes().await;
        self.store.wait_past(after, at_most).await;
        self.somebody_writes().await;
    }

    async fn append(&self, cx: &Context, act: Act) -> Result<Appended, AppendError> {
        self.store.append(cx, act).await
    }

    async fn transact<T, E, F>(&self, cx: &Context, closure: F) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Fn(&Transaction) -> Result<T, Abort<E>> + Send + 'static,
    {
        self.store.transact(cx, closure).await
    }

    fn native(_: &Transaction) {}

    async fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        direction: Direction,
        max: usize,
    ) -> Result<StreamPage, ReadError> {
        self.store.read_stream(stream, from, direction, max).await
    }

    async fn position(&self, receipt: &Receipt) -> Result<Located, ReadError> {
        self.store.position(receipt).await
    }

    async fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.store.view_get(view, key).await
    }

    async fn view_scan(&self, scan: &Scan) -> Result<Rows, ReadError> {
        self.store.view_scan(scan).await
    }

    async fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, ReadError> {
        self.store.checkpoint(consumer).await
    }

    async fn outbox_after(&self, seq: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        self.store.outbox_after(seq, max).await
    }

    async fn outbox_unsent(&self, after: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        self.store.outbox_unsent(after, max).await
    }

    async fn outbox_epochs(&self) -> Result<Vec<Epoch>, ReadError> {
        self.store.outbox_epochs().await
    }

    async fn outbox_status(&self) -> Result<OutboxStatus, ReadError> {
        self.store.outbox_status().await
    }

    async fn wait_outbox(&self, after: u64, at_most: Duration) {
        self.store.wait_outbox(after, at_most).await;
    }

    async fn lease(&self, name: &ConsumerName) -> Result<Option<Lease>, ReadError> {
        self.store.lease(name).await
    }
}

#[tokio::test]
async fn what_is_written_in_the_seam_is_not_missed() {
    const COUNT: u64 = 200;
    let store = Busy::new(COUNT);
    let mut subscription = store.subscribe(Query::all(), Position::START);
    for expected in 1..=COUNT {
        let next = tokio::time::timeout(Duration::from_secs(10), subscription.next_event()).await;
        let event = next.unwrap_or_else(|_| panic!("event {expected} never came")).unwrap();
        assert_eq!(event.position, Position(expected));
    }
    assert_eq!(store.store.head().await.unwrap().position, Position(COUNT), "all of them were asked for");
}

#[tokio::test]
async fn pages_that_end_early_are_read_on_from_where_they_ended() {
    const COUNT: u64 = 20_000;
    let store = Busy::new(0);
    for _ in 0..COUNT / 500 {
        let cx = Context::system();
        let kind = EventType::new("Written").unwrap();
        let event = |_| NewEvent::new(cx.new_id(), kind.clone(), Payload::plain(*b""));
        let act = Act::append(StreamName::new("s").unwrap(), Expected::Any, (0..500).map(event).collect());
        store.store.append(&cx, act).await.unwrap();
    }
    store.cut.store(1, Ordering::SeqCst);
    let mut subscription = store.subscribe(Query::all(), Position::START);
    for expected in 1..=COUNT {
        assert_eq!(subscription.next_event().await.unwrap().position, Position(expected));
    }
}
