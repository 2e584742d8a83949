//! The contract's [`Tx`] on a transaction of the writer: each method one or a few statements.

use std::time::Duration;

use mainstay_envelope::{Fact, MessageIdentity, Timestamp};
use mainstay_event_store::{Author, outbox::runs};
use mainstay_event_store::{
    Condition, ConsumerName, Expected, Lease, Leased, Mark, NewEvent, OutboxRow, Position, Recorded, Refusal,
    Row, Rows, Scan, StreamName, Tx, Version, ViewName, limits,
};

use super::transaction::Transaction;
use crate::outbox::Pending;
use crate::rows::{checkpoint, lease, record_lease};
use crate::select::{self, Budget};
use crate::{markers, outbox, views};

impl Tx for Transaction {
    fn append(
        &self,
        stream: &StreamName,
        expected: Expected,
        events: &[NewEvent],
    ) -> Result<Version, Refusal> {
        self.inside(|| self.append_inside(stream, expected, events))
    }

    fn require(&self, condition: &Condition) -> Result<(), Refusal> {
        let check = || match condition.query.check().and_then(|()| self.violation(condition))? {
            Some(position) => Err(Refusal::ConditionFailed { index: 0, found: Some(position) }),
            None => Ok(()),
        };
        self.inside(check)
    }

    fn version(&self, stream: &StreamName) -> Result<Version, Refusal> {
        self.inside(|| self.version_of(stream))
    }

    fn read_stream(&self, stream: &StreamName, from: Version, max: usize) -> Result<Vec<Recorded>, Refusal> {
        let max = limits::page(max);
        let read = self.ask(|conn| {
            let Some(found) = self.stream(stream)? else { return Ok(Ok(Vec::new())) };
            let mut names = self.names.borrow_mut();
            // The closure's own time limit is the one that counts.
            let budget = Budget::new(Duration::from_secs(60));
            let events = select::stream_events(conn, &mut names, found.id, from, false, max, budget)?;
            markers::present(conn, events)
        })?;
        self.noted(read.map_err(markers::refused))
    }

    fn at(&self) -> Timestamp {
        self.origin.borrow().at
    }

    fn acting_for(&self, fact: &Fact) -> Result<(), Refusal> {
        let origin = self.noted(Author::new(self.at(), fact))?;
        self.origin.replace(origin);
        Ok(())
    }

    fn outbox(&self, row: &OutboxRow) -> Result<(), Refusal> {
        self.noted(row.check())?;
        let headers = self.noted(
            serde_json::to_string(&row.headers)
                .map_err(|error| Refusal::Invalid { what: "outbox row", why: error.to_string() }),
        )?;
        self.topic(&row.topic)?;
        let mut tail = self.tail.get();
        tail.outbox += 1;
        let Author { at, envelope } = self.origin.borrow().clone();
        let pending = Pending { seq: tail.outbox, at, envelope, row: row.clone(), headers };
        self.ask(|conn| self.waiting.borrow_mut().push(conn, pending))?;
        self.tail.set(tail);
        Ok(())
    }

    fn outbox_sent(&self, seqs: &[u64]) -> Result<(), Refusal> {
        let runs = self.noted(runs(seqs, self.tail.get().outbox))?;
        self.fresh.borrow_mut().marked(runs.last().map_or(0, |run| run.last));
        self.ask(|conn| runs.into_iter().try_for_each(|run| outbox::mark(conn, run)))
    }

    fn outbox_prune(&self, before: Timestamp, max: usize) -> Result<bool, Refusal> {
        let max = limits::page(max);
        self.ask(|conn| {
            // Rows of this very transaction may be among them.
            self.waiting.borrow_mut().write_early(conn)?;
            outbox::prune(conn, before, max)
        })
    }

    fn outbox_new_epoch(&self, after: u64) -> Result<u32, Refusal> {
        let (present, pruned_to) = self.ask(outbox::before_epoch)?;
        let next = self.noted(present.next(after, self.tail.get().outbox, pruned_to))?;
        self.ask(|conn| outbox::open_epoch(conn, next))?;
        self.forget_epochs();
        Ok(next.epoch)
    }

    fn inbox_mark(&self, consumer: &ConsumerName, message: &MessageIdentity) -> Result<Mark, Refusal> {
        self.inside(|| {
            let engine = |error| self.engine(error);
            self.marks.borrow_mut().mark(self.conn(), consumer, message, engine)
        })
    }

    fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, Refusal> {
        self.ask(|conn| checkpoint(conn, consumer))
    }

    fn move_checkpoint(&self, consumer: &ConsumerName, from: Position, to: Position) -> Result<(), Refusal> {
        let actual = self.checkpoint(consumer)?.unwrap_or(Position::START);
        if actual != from {
            return self.noted(Err(Refusal::CheckpointMoved {
                consumer: consumer.clone(),
                expected: from,
                actual,
            }));
        }
        self.ask(|conn| {
            conn.prepare_cached(
                "insert into main.mainstay_checkpoints(consumer, position) values (?1, ?2)
                 on conflict(consumer) do update set position = excluded.position",
            )?
            .execute((consumer.as_str(), to.0 as i64))
        })
        .map(drop)
    }

    fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        self.ask(|conn| views::get(conn, &mut self.views.borrow_mut(), view, key))
    }

    fn view_put(&self, view: &ViewName, row: &Row) -> Result<(), Refusal> {
        self.noted(row.check())?;
        self.ask(|conn| views::put(conn, &mut self.views.borrow_mut(), view, row))
    }

    fn view_delete(&self, view: &ViewName, key: &str) -> Result<bool, Refusal> {
        self.ask(|conn| views::delete(conn, &mut self.views.borrow_mut(), view, key))
    }

    fn view_scan(&self, scan: &Scan) -> Result<Rows, Refusal> {
        self.noted(scan.check())?;
        self.ask(|conn| views::scan(conn, &mut self.views.borrow_mut(), scan))
    }

    fn view_clear(&self, view: &ViewName, max: usize) -> Result<bool, Refusal> {
        let max = limits::page(max);
        self.ask(|conn| views::clear(conn, &mut self.views.borrow_mut(), view, max))
    }

    fn acquire_lease(&self, name: &ConsumerName, holder: &str, lasts: Duration) -> Result<Leased, Refusal> {
        let known = self.ask(|conn| lease(conn, name))?;
        let leased = self.noted(Lease::acquire(known.as_ref(), holder, self.at(), lasts))?;
        if let Leased::Held(held) = &leased {
            self.ask(|conn| record_lease(conn, name, held))?;
        }
        Ok(leased)
    }

    fn release_lease(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal> {
        let known = self.ask(|conn| lease(conn, name))?;
        let released = self.noted(Lease::release(name, known.as_ref(), epoch, self.at()))?;
        self.ask(|conn| record_lease(conn, name, &released))
    }

    fn fence(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal> {
        let known = self.ask(|conn| lease(conn, name))?;
        self.noted(Lease::fence(name, known.as_ref(), epoch).map(drop))
    }
}
