//! The contract's methods on a transaction.

use std::time::Duration;

use mainstay_envelope::{Fact, MessageIdentity, Timestamp};
use mainstay_event_store::{
    Act, Author, Condition, ConsumerName, Direction, Expected, Leased, Mark, NewEvent, OutboxRow, Position,
    Recorded, Refusal, Row, Rows, Scan, StreamName, Tx, Version, ViewName, check_events, limits, outbox,
};

use super::transaction::Transaction;
use crate::append::Prepared;
use crate::ops::outbox::Pending;
use crate::ops::{self, append::lost_race};
use crate::receipt;
use crate::{conditions, select};

impl Tx for Transaction {
    fn append(
        &self,
        stream: &StreamName,
        expected: Expected,
        events: &[NewEvent],
    ) -> Result<Version, Refusal> {
        self.noted(check_events(events.iter()))?;
        let act = Act::append(stream.clone(), expected, events.to_vec());
        let act = self.noted(Prepared::new(act, self.origin.borrow().clone()))?;
        let frozen = self.isolation.is_frozen();
        self.take_turn()?;
        let appended = self.run(async |conn, place| {
            let ended = ops::append::append(conn, place, act, frozen).await?;
            Ok(Ok(ended))
        })?;
        match appended {
            Ok(done) => {
                if let (receipt::Mark::Seq(_), false) = (done.mark, done.repeated) {
                    self.wrote(done.mark);
                }
                let last = done.versions.first().map_or(Version::EMPTY, |(_, version)| *version);
                if !done.repeated {
                    self.appended(stream, last, events.len());
                }
                Ok(last)
            }
            Err(refusal) if refusal == lost_race() => Err(self.raced(refusal)),
            Err(refusal) => Err(self.decided(refusal)),
        }
    }

    fn require(&self, condition: &Condition) -> Result<(), Refusal> {
        self.noted(condition.query.check())?;
        let query = &condition.query;
        self.ask(async |conn, place| conditions::lock(conn, query, place.store, place.persistent()).await)?;
        if !self.isolation.is_frozen() {
            let met = self.ask(async |conn, place| {
                conditions::check(conn, &place.schema, condition, place.persistent()).await
            })?;
            return met.map_or(Ok(()), |refusal| Err(self.decided(refusal)));
        }
        // This transaction's own snapshot may be older than the locks: what others committed is looked at from outside,
        // where in turn nothing of this transaction is seen.
        let met = self.on_second(async |conn, place| {
            conditions::check(conn, &place.schema, condition, place.persistent()).await
        })?;
        if let Some(refusal) = met {
            return Err(self.decided(refusal));
        }
        let own = self.ask(async |conn, place| {
            conditions::own_match(conn, &place.schema, query, place.persistent()).await
        })?;
        match own {
            true => Err(self.decided(Refusal::ConditionFailed { index: 0, found: None })),
            false => Ok(()),
        }
    }

    fn version(&self, stream: &StreamName) -> Result<Version, Refusal> {
        self.ask(async |conn, place| select::version(conn, &place.schema, stream, place.persistent()).await)
    }

    fn read_stream(&self, stream: &StreamName, from: Version, max: usize) -> Result<Vec<Recorded>, Refusal> {
        let max = limits::page(max);
        let page = self.ask(async |conn, place| {
            let forwards = Direction::Forwards;
            select::stream(conn, &place.schema, stream, from, forwards, max, place.persistent()).await
        })?;
        self.placed(page.events)
    }

    fn at(&self) -> Timestamp {
        self.at
    }

    fn acting_for(&self, fact: &Fact) -> Result<(), Refusal> {
        let origin = self.noted(Author::new(self.at, fact))?;
        self.origin.replace(origin);
        Ok(())
    }

    fn outbox(&self, row: &OutboxRow) -> Result<(), Refusal> {
        self.undecided()?;
        let pending = self.noted(Pending::new(row, &self.origin.borrow()))?;
        let known = self.state.borrow().topic.clone();
        match known {
            Some(topic) => {
                self.noted(outbox::check_topic(&topic, &row.topic))?;
                self.keep(pending)
            }
            // The first one asks for the topic, which it decides if it is the store's first.
            None => {
                let mark = self.run(async |conn, place| ops::outbox::add(conn, place, &[pending]).await)?;
                self.wrote(mark);
                self.state.borrow_mut().topic = Some(row.topic.clone());
                Ok(())
            }
        }
    }

    fn outbox_sent(&self, seqs: &[u64]) -> Result<(), Refusal> {
        self.run(async |conn, place| ops::sent::mark(conn, place, seqs).await)
    }

    fn outbox_prune(&self, before: Timestamp, max: usize) -> Result<bool, Refusal> {
        let max = limits::page(max);
        self.ask(async |conn, place| ops::outbox::prune(conn, place, before, max).await)
    }

    fn outbox_new_epoch(&self, after: u64) -> Result<u32, Refusal> {
        self.run(async |conn, place| ops::outbox::new_epoch(conn, place, after).await)
    }

    fn inbox_mark(&self, consumer: &ConsumerName, message: &MessageIdentity) -> Result<Mark, Refusal> {
        self.run(async |conn, place| ops::inbox::mark(conn, place, consumer, message).await)
    }

    fn checkpoint(&self, consumer: &ConsumerName) -> Result<Option<Position>, Refusal> {
        self.ask(async |conn, place| ops::checkpoint::get(conn, place, consumer).await)
    }

    fn move_checkpoint(&self, consumer: &ConsumerName, from: Position, to: Position) -> Result<(), Refusal> {
        self.run(async |conn, place| ops::checkpoint::advance(conn, place, consumer, from, to).await)
    }

    fn view_get(&self, view: &ViewName, key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        self.ask(async |conn, place| ops::views::get(conn, place, view, key).await)
    }

    fn view_put(&self, view: &ViewName, row: &Row) -> Result<(), Refusal> {
        self.noted(row.check())?;
        self.ask(async |conn, place| ops::views::put(conn, place, view, row).await)
    }

    fn view_delete(&self, view: &ViewName, key: &str) -> Result<bool, Refusal> {
        self.ask(async |conn, place| ops::views::delete(conn, place, view, key).await)
    }

    fn view_scan(&self, scan: &Scan) -> Result<Rows, Refusal> {
        self.noted(scan.check())?;
        self.ask(async |conn, place| ops::views::scan(conn, place, scan).await)
    }

    fn view_clear(&self, view: &ViewName, max: usize) -> Result<bool, Refusal> {
        let max = limits::page(max);
        self.ask(async |conn, place| ops::views::clear(conn, place, view, max).await)
    }

    fn acquire_lease(&self, name: &ConsumerName, holder: &str, lasts: Duration) -> Result<Leased, Refusal> {
        let at = self.at;
        self.run(async |conn, place| ops::lease::acquire(conn, place, name, holder, at, lasts).await)
    }

    fn release_lease(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal> {
        let at = self.at;
        self.run(async |conn, place| ops::lease::release(conn, place, name, epoch, at).await)
    }

    fn fence(&self, name: &ConsumerName, epoch: u64) -> Result<(), Refusal> {
        self.run(async |conn, place| ops::lease::fence(conn, place, name, epoch).await)
    }
}
