//! One transaction: the whole state, lent to a closure.

use std::cell::RefCell;
use std::time::Duration;

use mainstay_envelope::{Fact, MessageIdentity, Timestamp};

use super::state::State;
use crate::act::check_events;
use crate::author::Author;
use crate::event::{NewEvent, Recorded, limits};
use crate::lease::{Lease, Leased};
use crate::message::{Mark, OutboxRow};
use crate::names::{ConsumerName, StreamName, ViewName};
use crate::outcome::{Abort, Refusal};
use crate::position::Position;
use crate::query::Condition;
use crate::repeat::Verdict;
use crate::store::{Direction, Tx};
use crate::version::{Expected, Version};
use crate::view::{Row, Rows, Scan};

/// A transaction of [`super::Memory`].
pub struct Transaction {
    at: Timestamp,
    inner: RefCell<Inner>,
}

struct Inner {
    author: Author,
    state: State,
    /// The first refusal: it decides the transaction, even when the closure swallows it.
    refused: Option<Refusal>,
}

impl Transaction {
    pub(super) fn begin(state: State, author: Author) -> Self {
        Self { at: author.at, inner: RefCell::new(Inner { author, state, refused: None }) }
    }

    /// Commits, or takes everything back; gives the state back either way.
    pub(super) fn end<T, E>(self, ended: Result<T, Abort<E>>) -> (State, Result<T, Abort<E>>) {
        let Inner { mut state, refused, .. } = self.inner.into_inner();
        let ended = match refused {
            Some(refusal) => ended.and(Err(Abort::Refused(refusal))),
            None => ended,
        };
        if ended.is_ok() {
            state.commit();
        } else {
            state.roll_back();
        }
        (state, ended)
    }

    /// Runs one call, and keeps the first refusal.
    fn call<T>(&self, call: impl FnOnce(&mut State, &Author) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let inner = &mut *self.inner.borrow_mut();
        let outcome = call(&mut inner.state, &inner.author);
        if let Err(refusal) = &outcome {
            inner.refused.get_or_insert_with(|| refusal.clone());
        }
        outcome
    }
}

impl Tx for Transaction {
    fn append(
        &self,
        stream: &StreamName,
        expected: Expected,
        events: &[NewEvent],
    ) -> Result<Version, Refusal> {
        self.call(|state, author| {
            check_events(events.iter())?;
            if let Verdict::Repeated(versions) = state.judge(&[(stream, events)])? {
                let last = versions.into_iter().flatten().next();
                return Ok(last.unwrap_or_else(|| state.version(stream)));
            }
            state.expect(stream, expected)?;
            for event in events {
                state.record(author, stream, event);
            }
            Ok(state.version(stream))
        })
    }

    fn require(&self, condition: &Condition) -> Result<(), Refusal> {
        self.call(|state, _| {
            condition.query.check()?;
            state.require(0, condition)
        })
    }

    fn version(&self, stream: &StreamName) -> Result<Version, Refusal> {
        self.call(|state, _| Ok(state.version(stream)))
    }

    fn read_stream(&self, stream: &StreamName, from: Version, max: usize) -> Result<Vec<Recorded>, Refusal> {
        self.call(|state, _| Ok(state.stream(stream, from, Direction::Forwards, limits::page(max))))
    }

    fn at(&self) -> Timestamp {
        self.at
    }

    fn acting_for(&self, fact: &Fact) -> Result<(), Refusal> {
        let author = self.call(|_, author| Author::new(author.at, fact))?;
        self.inner.borrow_mut().author = author;
        Ok(())
    }

    fn outbox(&self, row: &OutboxRow) -> Result<(), Refusal> {
        self.call(|state, author| {
            row.check()?;
            state.publish(author, row)
        })
    }

    fn outbox_sent(&self, seqs: &[u64]) -> Result<(), Refusal> {
        self.call(|state, _| state.outbox_sent(seqs))
    }

    fn outbox_prune(&self, before: Timestamp, max: usize) -> Result<bool, Refusal> {
        self.call(|state, _| Ok(state.outbox_prune(before, limits::page(max))))
    }

    fn outbox_new_epoch(&self, after: u64) -> Result<u32, Refusal> {
        self.call(|state, _| state.outbox_new_epoch(after))
    }

    fn inbox_mark(&self, consumer: &ConsumerName, message: &MessageIdentity) -> Result<Mark, Refusal> {
        self.call(|state, _| state.inbox_mark(consumer, message))
    }

    fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, Refusal> {
        self.call(|state, _| Ok(state.checkpoints.get(consumer).copied()))
    }

    fn move_checkpoint(&self, consumer: &ConsumerName, from: Position, to: Position) -> Result<(), Refusal> {
        self.call(|state, _| {
            let actual = state.checkpoints.get(consumer).copied().unwrap_or(Position::START);
            if actual != from {
                return Err(Refusal::CheckpointMoved { consumer: consumer.clone(), expected: from, actual });
            }
            state.set(|state| &mut state.checkpoints, consumer.clone(), to);
            Ok(())
        })
    }

    fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        self.call(|state, _| Ok(state.views.get(view, key)))
    }

    fn view_put(&self, view: &ViewName, row: &Row) -> Result<(), Refusal> {
        self.call(|state, _| {
            row.check()?;
            let before = state.views.put(view, row.clone());
            let (view, key) = (view.clone(), row.key.clone());
            state.on_roll_back(move |state| match before {
                Some(before) => drop(state.views.put(&view, before)),
                None => drop(state.views.delete(&view, &key)),
            });
            Ok(())
        })
    }

    fn view_delete(&self, view: &ViewName, key: &str) -> Result<bool, Refusal> {
        self.call(|state, _| Ok(delete(state, view, key)))
    }

    fn view_scan(&self, scan: &Scan) -> Result<Rows, Refusal> {
        self.call(|state, _| {
            scan.check()?;
            Ok(state.views.scan(scan))
        })
    }

    fn view_clear(&self, view: &ViewName, max: usize) -> Result<bool, Refusal> {
        self.call(|state, _| {
            for key in state.views.keys(view, max) {
                delete(state, view, &key);
            }
            Ok(!state.views.keys(view, 1).is_empty())
        })
    }

    fn acquire_lease(&self, name: &ConsumerName, holder: &str, lasts: Duration) -> Result<Leased, Refusal> {
        let now = self.at();
        self.call(|state, _| {
            let leased = Lease::acquire(state.leases.get(name), holder, now, lasts)?;
            if let Leased::Held(lease) = &leased {
                state.set(|state| &mut state.leases, name.clone(), lease.clone());
            }
            Ok(leased)
        })
    }

    fn release_lease(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal> {
        let now = self.at();
        self.call(|state, _| {
            let lease = Lease::release(name, state.leases.get(name), epoch, now)?;
            state.set(|state| &mut state.leases, name.clone(), lease);
            Ok(())
        })
    }

    fn fence(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal> {
        self.call(|state, _| Lease::fence(name, state.leases.get(name), epoch).map(drop))
    }
}

/// Removes a row, with the way back; was there one?
fn delete(state: &mut State, view: &ViewName, key: &str) -> bool {
    let Some(before) = state.views.delete(view, key) else {
        return false;
    };
    let view = view.clone();
    state.on_roll_back(move |state| drop(state.views.put(&view, before)));
    true
}
