//! The store that costs nothing: every promise of the contract, in the memory of one process.
//!
//! For tests of whatever is built on a store, and as the shortest complete implementation to read. "On disk"
//! means here: visible to every clone. Nothing outlives the last clone.
//!
//! One lock guards everything. A write runs under it, with a journal of how to take each step back; a
//! transaction that is refused, or whose closure panics, is taken back before the lock is given up, so nobody
//! ever sees a part of it. A closure runs exactly once. No time limit is enforced on it: the store has no
//! clock, and a closure that blocks blocks every user of this store.
//!
//! Cost: appending is constant for each event; reading a stream or the feed without a query costs what it
//! returns; with a query, and for a condition, it looks at every event after the position.

mod outbox;
mod state;
mod tx;
mod views;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstay_envelope::Context;
use tokio::sync::watch;

use crate::act::Act;
use crate::author::Author;
use crate::event::limits;
use crate::lease::Lease;
use crate::message::{OutboxRecord, OutboxStatus};
use crate::names::{ConsumerName, StreamName, ViewName};
use crate::outbox::Epoch;
use crate::outcome::{Abort, AppendError, Appended, Committed, ReadError, Refusal, TransactError};
use crate::position::{Head, Position, Receipt, StoreId};
use crate::query::Query;
use crate::store::{Direction, Located, Page, Store, StreamPage};
use crate::version::Version;
use crate::view::{Rows, Scan};
use state::State;
pub use tx::Transaction;

/// A store in memory. Clones share it.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    id: StoreId,
    state: Mutex<State>,
    /// The last position, for those who wait.
    grown: watch::Sender<Position>,
    /// The outbox's last row, for its relay.
    outbox: watch::Sender<u64>,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("id", &self.shared.id)
            .field("head", &*self.shared.grown.borrow())
            .finish()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store with an identity of its own.
    pub fn new() -> Self {
        Self::with_id(StoreId(Context::system().new_id()))
    }

    /// An empty store with a given identity, for runs that are repeated from a seed.
    pub fn with_id(id: StoreId) -> Self {
        let (grown, outbox) = (watch::Sender::new(Position::START), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { id, state: Mutex::new(State::new(id)), grown, outbox }) }
    }

    /// A closure's panic is caught before it reaches the lock, and no step of ours panics between two writes:
    /// a poisoned lock would say nothing about the state, so it is not looked at.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits what `state` holds: gives the receipt and wakes those who wait.
    fn publish(&self, position: Position) -> Receipt {
        self.shared.grown.send_if_modified(|grown| {
            let more = position > *grown;
            *grown = position.max(*grown);
            more
        });
        Receipt::new(self.shared.id, position.0)
    }
}

impl Store for Memory {
    type Tx = Transaction;
    type Native<'tx> = ();

    fn id(&self) -> StoreId {
        self.shared.id
    }

    async fn append(&self, cx: &Context, act: Act) -> Result<Appended, AppendError> {
        act.check()?;
        let author = Author::of(cx)?;
        let mut state = self.lock();
        let outcome = state.append_act(&author, &act)?;
        // Published under the lock, so that positions are announced in their order.
        let receipt = self.publish(outcome.position);
        drop(state);
        let streams = act.streams.into_iter().map(|part| part.stream);
        let versions = streams.zip(outcome.versions).collect();
        Ok(Appended { versions, receipt, repeated: outcome.repeated })
    }

    async fn transact<T, E, F>(&self, cx: &Context, closure: F) -> Result<Committed<T>, TransactError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Fn(&Self::Tx) -> Result<T, Abort<E>> + Send + 'static,
    {
        let author = Author::of(cx)?;
        let mut state = self.lock();
        // The transaction owns the state while the closure runs, and gives it back whatever happened.
        let tx = Transaction::begin(std::mem::replace(&mut *state, State::new(self.shared.id)), author);
        let ended = catch_unwind(AssertUnwindSafe(|| closure(&tx)));
        let ended = match ended {
            Ok(value) => value,
            Err(panic) => {
                let why = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned());
                let why = why.map_or("panicked".to_owned(), |why| format!("panicked: {why}"));
                Err(Abort::Refused(Refusal::Closure { why }))
            }
        };
        let (after, ended) = tx.end(ended);
        *state = after;
        self.shared.outbox.send_if_modified(|last| {
            let before = std::mem::replace(last, state.outbox.last());
            before != *last
        });
        let value = ended?;
        let receipt = self.publish(state.head().position);
        Ok(Committed { value, receipt })
    }

    fn native(_: &Transaction) {}

    async fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        direction: Direction,
        max: usize,
    ) -> Result<StreamPage, ReadError> {
        let state = self.lock();
        let events = state.stream(stream, from, direction, limits::page(max));
        Ok(StreamPage { events, version: state.version(stream) })
    }

    async fn read(&self, query: &Query, after: Position, max: usize) -> Result<Page, ReadError> {
        query.check()?;
        self.lock().read(query, after, limits::page(max))
    }

    async fn head(&self) -> Result<Head, ReadError> {
        Ok(self.lock().head())
    }

    async fn head_at(&self, position: Position) -> Result<Option<Head>, ReadError> {
        Ok(self.lock().head_at(position))
    }

    async fn position(&self, receipt: &Receipt) -> Result<Located, ReadError> {
        if receipt.store() != self.shared.id {
            return Err(ReadError::ForeignReceipt { theirs: receipt.store(), ours: self.shared.id });
        }
        let (asked, ends) = (Position(receipt.mark()), self.lock().head().position);
        if asked > ends { Err(ReadError::PastEnd { asked, ends }) } else { Ok(Located::At(asked)) }
    }

    async fn wait_past(&self, after: Position, at_most: Duration) {
        let mut grown = self.shared.grown.subscribe();
        // Over time or woken: both mean "look again", and the sender lives as long as `self`.
        let _ = tokio::time::timeout(at_most, grown.wait_for(|grown| *grown > after)).await;
    }

    async fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.lock().views.get(view, key))
    }

    async fn view_scan(&self, scan: &Scan) -> Result<Rows, ReadError> {
        scan.check()?;
        Ok(self.lock().views.scan(scan))
    }

    async fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, ReadError> {
        Ok(self.lock().checkpoints.get(consumer).copied())
    }

    async fn outbox_after(&self, seq: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        Ok(self.lock().outbox.after(seq, limits::page(max)))
    }

    async fn outbox_unsent(&self, after: u64, max: usize) -> Result<Vec<OutboxRecord>, ReadError> {
        Ok(self.lock().outbox.unsent(after, limits::page(max)))
    }

    async fn outbox_status(&self) -> Result<OutboxStatus, ReadError> {
        Ok(self.lock().outbox.status())
    }

    async fn outbox_epochs(&self) -> Result<Vec<Epoch>, ReadError> {
        Ok(self.lock().outbox.epochs.clone())
    }

    async fn wait_outbox(&self, after: u64, at_most: Duration) {
        let mut last = self.shared.outbox.subscribe();
        let _ = tokio::time::timeout(at_most, last.wait_for(|last| *last > after)).await;
    }

    async fn lease(&self, name: &ConsumerName) -> Result<Option<Lease>, ReadError> {
        Ok(self.lock().leases.get(name).cloned())
    }
}
