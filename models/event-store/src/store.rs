//! The traits a store implements, and the pages they answer with.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use mainstay_envelope::{Context, Fact, MessageIdentity, Timestamp};

use crate::act::Act;
use crate::chain::Archived;
use crate::event::{NewEvent, Recorded};
use crate::lease::{Lease, Leased};
use crate::message::{Mark, OutboxRecord, OutboxRow, OutboxStatus};
use crate::names::{ConsumerName, StreamName, ViewName};
use crate::outbox::Epoch;
use crate::outcome::{Abort, AppendError, Appended, Committed, ReadError, Refusal, TransactError};
use crate::position::{Head, Position, Receipt, StoreId};
use crate::query::{Condition, Query};
use crate::version::{Expected, Version};
use crate::view::{Row, Rows, Scan};

/// A store of facts. The crate's page holds its promises; every method here serves one of them.
pub trait Store: Clone + Debug + Send + Sync + 'static {
    /// One transaction, as a closure sees it.
    type Tx: Tx + 'static;
    /// The user's own way to the engine inside a transaction. Generic code never touches it.
    type Native<'tx>;

    /// Who this store is.
    fn id(&self) -> StoreId;

    /// Appends one act. MUST end in one of three ways: acknowledged (on disk), refused (nothing written),
    /// unknown. MUST NOT let an answer or a refusal leave before everything it was computed from is on disk.
    /// An act whose events are all recorded already is acknowledged again, whatever it expects ([`crate::repeat`]).
    fn append(&self, cx: &Context, act: Act) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// Runs a closure in one transaction: everything it writes commits together or not at all.
    ///
    /// The closure may be run more than once, and only the last run counts: it MUST have no effect but
    /// through its `Tx`. It must not block; it has a time limit. A panic is caught and refused.
    fn transact<T, E, F>(
        &self,
        cx: &Context,
        closure: F,
    ) -> impl Future<Output = Result<Committed<T>, TransactError<E>>> + Send
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Fn(&Self::Tx) -> Result<T, Abort<E>> + Send + 'static;

    /// The user's own way to the engine, inside a transaction.
    fn native(tx: &Self::Tx) -> Self::Native<'_>;

    /// The events of one stream from `from` on (included), forwards or backwards, at most `max`
    /// (cut to [`crate::limits::PAGE_EVENTS_MAX`]). An unknown stream is an empty one.
    fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        direction: Direction,
        max: usize,
    ) -> impl Future<Output = Result<StreamPage, ReadError>> + Send;

    /// The events that match, in the order of the feed, after a position.
    fn read(
        &self,
        query: &Query,
        after: Position,
        max: usize,
    ) -> impl Future<Output = Result<Page, ReadError>> + Send;

    /// The end of the feed.
    fn head(&self) -> impl Future<Output = Result<Head, ReadError>> + Send;

    /// The event at a position and the chain's hash there; none past the end.
    fn head_at(&self, position: Position) -> impl Future<Output = Result<Option<Head>, ReadError>> + Send;

    /// The ranges that left the feed, in order; each begins where the one before it ends, the first at position 1.
    ///
    /// Reading what is in one is refused as [`ReadError::Archived`]; their heads, streams' versions, ids and
    /// conditions are as before. A store that archives nothing has none.
    fn archives(&self) -> impl Future<Output = Result<Vec<Archived>, ReadError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Up to which position a reader must have come to have seen the receipt's act. `NotYet` while its
    /// events wait for their positions.
    fn position(&self, receipt: &Receipt) -> impl Future<Output = Result<Located, ReadError>> + Send;

    /// Returns when the feed may have grown past `after`, or when `at_most` is over; early is allowed.
    /// It is a hint: who waits looks again afterwards.
    fn wait_past(&self, after: Position, at_most: Duration) -> impl Future<Output = ()> + Send;

    /// One row of a view.
    fn view_get(
        &self,
        view: &ViewName,
        key: &str,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, ReadError>> + Send;

    /// Rows of a view.
    fn view_scan(&self, scan: &Scan) -> impl Future<Output = Result<Rows, ReadError>> + Send;

    /// Where a consumer stands.
    fn checkpoint(
        &self,
        consumer: &ConsumerName,
    ) -> impl Future<Output = Result<Option<Position>, ReadError>> + Send;

    /// Outbox rows after a number, in order, sent or not, as far as they are not removed. A page may be shorter
    /// than asked for, when it has [`crate::outbox::PAGE_BYTES_MAX`]; an empty one is the end.
    fn outbox_after(
        &self,
        seq: u64,
        max: usize,
    ) -> impl Future<Output = Result<Vec<OutboxRecord>, ReadError>> + Send;

    /// Outbox rows after a number that are not marked sent, in order. A page may be shorter than asked for, when it
    /// has [`crate::outbox::PAGE_BYTES_MAX`]; an empty one is the end. Costs what it returns, however many sent rows lie between.
    fn outbox_unsent(
        &self,
        after: u64,
        max: usize,
    ) -> impl Future<Output = Result<Vec<OutboxRecord>, ReadError>> + Send;

    /// The rows right after a number as this process has just committed them, without reading the store; none where
    /// it can't tell, or keeps none. Whole transactions, as far as `max` allows. Somebody else may have marked them
    /// meanwhile: it is for the relay, which knows what was marked up to its cursor because it does that itself.
    fn outbox_recent(&self, after: u64, max: usize) -> Option<Vec<OutboxRecord>> {
        let _ = (after, max);
        None
    }

    /// How far the outbox has come. Costs one step for each range of sent rows, usually one.
    fn outbox_status(&self) -> impl Future<Output = Result<OutboxStatus, ReadError>> + Send;

    /// The epochs that were opened, in their order; the first, which every store begins with, is left out.
    fn outbox_epochs(&self) -> impl Future<Output = Result<Vec<Epoch>, ReadError>> + Send;

    /// Returns when the outbox may have grown past `after`, or when `at_most` is over; early is allowed.
    /// It is a hint, as [`Store::wait_past`]: who waits looks again afterwards.
    fn wait_outbox(&self, after: u64, at_most: Duration) -> impl Future<Output = ()> + Send;

    /// A lease as recorded.
    fn lease(&self, name: &ConsumerName) -> impl Future<Output = Result<Option<Lease>, ReadError>> + Send;
}

/// What can be written, and read, inside one transaction. Every method's writes commit with the
/// transaction; reads see them at once.
///
/// Methods take `&self`, so that a closure needs no `mut`. None of them blocks on anything but the engine.
///
/// The first refusal that any of them gives decides the transaction: it is refused with it, also when the
/// closure swallows it and returns `Ok`. So no method has to undo what it began, and a fence can't be ignored.
pub trait Tx {
    /// Appends events to a stream; the new last version. Idempotent by event id, as [`Store::append`].
    fn append(
        &self,
        stream: &StreamName,
        expected: Expected,
        events: &[NewEvent],
    ) -> Result<Version, Refusal>;

    /// Refuses the transaction when an event matches the condition; one that this transaction itself appended
    /// before counts too. The refusal's index is 0.
    fn require(&self, condition: &Condition) -> Result<(), Refusal>;

    /// The last version of a stream.
    fn version(&self, stream: &StreamName) -> Result<Version, Refusal>;

    /// The events of a stream from `from` on, at most `max`. Positions of events appended by this
    /// transaction itself are as they will be if it commits, on stores that know them before.
    fn read_stream(&self, stream: &StreamName, from: Version, max: usize) -> Result<Vec<Recorded>, Refusal>;

    /// When this act was handed in: the only clock a closure may use.
    fn at(&self) -> Timestamp;

    /// Events and outbox rows written from here on carry this fact's envelope, in place of the context's: so that
    /// the effects of several messages can share one transaction, each on its own message's account. Nothing else
    /// changes, and it ends with the transaction.
    fn acting_for(&self, fact: &Fact) -> Result<(), Refusal>;

    /// Records a message to be published. The first one's topic is the store's from then on; refused: a row of
    /// another topic ([`crate::outbox::check_topic`]), and one past the limits ([`OutboxRow::check`]).
    fn outbox(&self, row: &OutboxRow) -> Result<(), Refusal>;

    /// Marks outbox rows as sent, by their numbers, in any order; again is no change. Refused: a number that no row
    /// has, more than [`crate::outbox::MARKS_MAX`] at once. Numbers in order cost a statement or two.
    fn outbox_sent(&self, seqs: &[u64]) -> Result<(), Refusal>;

    /// Removes at most `max` rows from the outbox's beginning, as far as they are sent and were handed in before
    /// `before`; are there more? It stops at the first row that is not both, so it keeps what is dense dense. For
    /// the background: it costs a write for every row.
    fn outbox_prune(&self, before: Timestamp, max: usize) -> Result<bool, Refusal>;

    /// Opens an epoch: rows after `after`, those already there included, are numbered from 1 in it; its number.
    /// Marks after `after` are taken back, since under their new numbers those rows have not been sent.
    /// Refused where [`crate::outbox::Epoch::next`] says so.
    fn outbox_new_epoch(&self, after: u64) -> Result<u32, Refusal>;

    /// Marks a message as handled by this consumer, and says whether it was before ([`crate::inbox`]).
    fn inbox_mark(&self, consumer: &ConsumerName, message: &MessageIdentity) -> Result<Mark, Refusal>;

    /// Where a consumer stands.
    fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, Refusal>;

    /// Moves a consumer from `from` (START when it has no checkpoint) to `to`; refused when it stands elsewhere.
    /// Backwards too, for a rebuild; and past the end of this feed, since the feed may be another store's.
    fn move_checkpoint(&self, consumer: &ConsumerName, from: Position, to: Position) -> Result<(), Refusal>;

    /// One row of a view.
    fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, Refusal>;

    /// Writes a row and its index entries, in place of any earlier one.
    fn view_put(&self, view: &ViewName, row: &Row) -> Result<(), Refusal>;

    /// Removes a row; was there one?
    fn view_delete(&self, view: &ViewName, key: &str) -> Result<bool, Refusal>;

    /// Rows of a view.
    fn view_scan(&self, scan: &Scan) -> Result<Rows, Refusal>;

    /// Removes at most `max` rows of a view; are there more? For rebuilds.
    fn view_clear(&self, view: &ViewName, max: usize) -> Result<bool, Refusal>;

    /// Takes or renews a lease until `at() + lasts`. A new holder, or the same one after the lease ran
    /// out, gets the next epoch; a renewal in time keeps it.
    fn acquire_lease(&self, name: &ConsumerName, holder: &str, lasts: Duration) -> Result<Leased, Refusal>;

    /// Gives a lease back, so that the next holder need not wait. Refused when the epoch is not the caller's.
    fn release_lease(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal>;

    /// Refuses the transaction unless this epoch is still the lease's: what makes a late holder harmless.
    fn fence(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal>;
}

/// Which way to read a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Forwards,
    /// Newest first. From [`Version`]`(u64::MAX)`: from the end.
    Backwards,
}

/// A part of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamPage {
    /// The events.
    pub events: Vec<Recorded>,
    /// The stream's last version when it was read.
    pub version: Version,
}

/// A part of the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The events that match.
    pub events: Vec<Recorded>,
    /// Up to here everything was looked at: where to go on, and what to keep as a checkpoint.
    pub next: Position,
    /// The end of the feed when it was read.
    pub head: Position,
}

impl Page {
    /// Was the end of the feed reached?
    pub fn at_end(&self) -> bool {
        self.next == self.head
    }
}

/// Where a receipt's act stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Located {
    /// Its last event has this position.
    At(Position),
    /// It is committed, but not yet in the feed.
    NotYet,
}
