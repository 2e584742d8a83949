//! Closures that know their positions ([`crate::Options::settled_receipts`]).
//!
//! Who appends holds the lock of every event shared until its transaction has ended (`keys.rs`). So who holds it alone,
//! before it draws its first seq, knows that nobody is between his seq and his commit: what is committed comes before, all
//! else after, and the sequencer gives places in the order of seqs.
//!
//! ```text
//! position = the feed's end + events that are committed and have no place + the event's number among its transaction's
//!            └──────────── of one moment, after the lock ───────────────┘
//! ```

use mainstay_event_store::{Position, Query, Recorded, Refusal, StreamName, Version};
use sqlx::PgConnection;

use super::transaction::Transaction;
use crate::conditions;
use crate::ops::Place;
use crate::select::unsigned;

impl Transaction {
    /// Before the first append: waits until no other transaction is between its events and its end.
    pub(super) fn take_turn(&self) -> Result<(), Refusal> {
        let Some(own) = &self.own else { return Ok(()) };
        if own.borrow().alone {
            return Ok(());
        }
        let all = Query::all();
        self.ask(async |conn, place| conditions::lock(conn, &all, place.store, place.persistent()).await)?;
        own.borrow_mut().alone = true;
        Ok(())
    }

    /// Notes what it has appended: so many events, the last one with this version.
    pub(super) fn appended(&self, stream: &StreamName, last: Version, count: usize) {
        if let Some(own) = &self.own {
            own.borrow_mut().add(stream, last, count as u64);
        }
    }

    /// Gives its own events the positions that they will have.
    pub(super) fn placed(&self, mut events: Vec<Recorded>) -> Result<Vec<Recorded>, Refusal> {
        let Some(own) = &self.own else { return Ok(events) };
        let own = own.borrow();
        let is_own = |event: &Recorded| own.number(&event.stream, event.version).is_some();
        if !events.iter().any(is_own) {
            return Ok(events);
        }
        let before = self.on_second(async |conn, place| committed(conn, place).await)?;
        for event in &mut events {
            if let Some(number) = own.number(&event.stream, event.version) {
                event.position = Position(before + number);
            }
        }
        Ok(events)
    }
}

/// How many events are committed now: the feed's end, and what waits for its place.
async fn committed(conn: &mut PgConnection, place: &Place) -> sqlx::Result<u64> {
    let count: i64 = sqlx::query_scalar(place.schema.sql(
        "select coalesce((select position from {s}.feed order by position desc limit 1), 0) + (
            select count(*) from (select settled from {s}.round order by number desc limit 1) r
            cross join lateral (
                select e.seq from {s}.event e where e.xid = any(array(select pg_snapshot_xip(r.settled)))
                union all
                select e.seq from {s}.event e where e.xid >= pg_snapshot_xmax(r.settled)) e
            where not exists (select from {s}.feed f where f.seq = e.seq))",
    ))
    .persistent(place.persistent())
    .fetch_one(conn)
    .await?;
    unsigned(count, "the number of events")
}
