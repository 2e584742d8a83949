//! Recording messages, and reading them by their dense numbers.

use bytes::Bytes;
use mainstay_envelope::Timestamp;
use mainstay_event_store::{
    Author,
    outbox::{Epoch, PAGE_BYTES_MAX, check_topic, number},
};
use mainstay_event_store::{OutboxRecord, OutboxRow, OutboxStatus, Position, Refusal, Topic};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::sent::{self, SentMarks, epoch, last};
use super::{Ended, Place};
use crate::append::position;
use crate::error::damaged;
use crate::receipt::Mark;
use crate::select::{signed, unsigned};

/// A row on its way, with who wrote it and when.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    at: Timestamp,
    envelope: Bytes,
    row: OutboxRow,
    headers: String,
}

impl Pending {
    /// Checks a row. Its topic is the transaction's business.
    pub(crate) fn new(row: &OutboxRow, origin: &Author) -> Result<Self, Refusal> {
        row.check()?;
        let headers = serde_json::to_string(&row.headers)
            .map_err(|error| Refusal::Invalid { what: "outbox row", why: error.to_string() })?;
        Ok(Self { at: origin.at, envelope: origin.envelope.clone(), row: row.clone(), headers })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.envelope.len() + self.row.payload.len() + self.headers.len() + 128
    }
}

/// Records rows, all of one topic; the mark that covers them.
pub(crate) async fn add(conn: &mut PgConnection, place: &Place, rows: &[Pending]) -> Ended<Mark> {
    let Some(first) = rows.first() else { return Ok(Err(nothing())) };
    let topic = &first.row.topic;
    let at: Vec<i64> = rows.iter().map(|row| row.at.as_millis()).collect();
    let envelope: Vec<&[u8]> = rows.iter().map(|row| &*row.envelope).collect();
    let key: Vec<&[u8]> = rows.iter().map(|row| row.row.key.as_bytes()).collect();
    let headers: Vec<&str> = rows.iter().map(|row| row.headers.as_str()).collect();
    let payload: Vec<&[u8]> = rows.iter().map(|row| row.row.payload.as_slice()).collect();
    let row = sqlx::query(place.schema.sql("select topic, xid from {s}.outbox_add($1, $2, $3, $4, $5, $6)"))
        .bind(topic.as_str())
        .bind(at)
        .bind(envelope)
        .bind(key)
        .bind(headers)
        .bind(payload)
        .persistent(place.persistent())
        .fetch_one(conn)
        .await?;
    let of_store = Topic::new(row.try_get::<&str, _>(0)?).map_err(|_| damaged("the outbox's topic"))?;
    if let Err(refusal) = check_topic(&of_store, topic) {
        return Ok(Err(refusal));
    }
    let xid: String = row.try_get(1)?;
    Ok(Ok(Mark::Xid(xid.parse().map_err(|_| damaged("a transaction's id"))?)))
}

fn nothing() -> Refusal {
    Refusal::Invalid { what: "outbox row", why: "there is none".into() }
}

/// All epochs that were opened, in their order.
pub(crate) async fn epochs(conn: &mut PgConnection, place: &Place) -> sqlx::Result<Vec<Epoch>> {
    let sql = "select epoch, after from {s}.outbox_epoch order by epoch";
    let rows = sqlx::query(place.schema.sql(sql)).persistent(place.persistent()).fetch_all(conn).await?;
    rows.iter().map(|row| epoch(row.try_get(0)?, row.try_get(1)?)).collect()
}

/// Opens the next epoch.
pub(crate) async fn new_epoch(conn: &mut PgConnection, place: &Place, after: u64) -> Ended<u32> {
    // Whoever removes rows, folds marks or opens an epoch does it alone.
    let pruned_to = lock_pruned(&mut *conn, place).await?;
    let epochs = epochs(&mut *conn, place).await?;
    let last = last(&mut *conn, place).await?;
    let next = match epochs.last().copied().unwrap_or(Epoch::FIRST).next(after, last, pruned_to) {
        Ok(next) => next,
        Err(refusal) => return Ok(Err(refusal)),
    };
    sqlx::query(place.schema.sql("insert into {s}.outbox_epoch(epoch, after) values ($1, $2)"))
        .bind(i64::from(next.epoch))
        .bind(signed(next.after))
        .persistent(place.persistent())
        .execute(conn)
        .await?;
    Ok(Ok(next.epoch))
}

async fn lock_pruned(conn: &mut PgConnection, place: &Place) -> sqlx::Result<u64> {
    let sql = "select pruned_to from {s}.outbox_pruned for update";
    let pruned: i64 =
        sqlx::query_scalar(place.schema.sql(sql)).persistent(place.persistent()).fetch_one(conn).await?;
    unsigned(pruned, "an outbox number")
}

/// Removes at most `max` rows from the beginning, as far as they are sent and older than `before`; are there more?
///
/// What is removed is not there for readers from then on; its space is freed when its whole partition is.
pub(crate) async fn prune(
    conn: &mut PgConnection,
    place: &Place,
    before: Timestamp,
    max: usize,
) -> sqlx::Result<bool> {
    let pruned_to = lock_pruned(&mut *conn, place).await?;
    let marks = sent::load(&mut *conn, place, pruned_to).await?;
    let sent_to = marks.sent.gap(pruned_to).first - 1;
    // One row further than may be removed: it tells whether there is more.
    let furthest = sent_to.min(marks.last).min(pruned_to.saturating_add(max as u64 + 1));
    let sql = "select min(young.number) from (
            select n.number, o.at from {s}.outbox_number n join {s}.outbox o on o.seq = n.seq and o.slot = n.slot
            where n.number > $1 and n.number <= $2) young
        where young.at >= $3";
    let young: Option<i64> = sqlx::query_scalar(place.schema.sql(sql))
        .bind(signed(pruned_to))
        .bind(signed(furthest))
        .bind(before.as_millis())
        .persistent(place.persistent())
        .fetch_one(&mut *conn)
        .await?;
    let may_go = match young {
        Some(young) => unsigned(young, "an outbox number")?.saturating_sub(1),
        None => furthest,
    };
    let goes = may_go.min(pruned_to.saturating_add(max as u64)).max(pruned_to);
    if goes > pruned_to {
        sqlx::query(place.schema.sql("update {s}.outbox_pruned set pruned_to = $1"))
            .bind(signed(goes))
            .persistent(place.persistent())
            .execute(conn)
            .await?;
    }
    Ok(may_go > goes)
}

/// How far the outbox has come.
pub(crate) async fn status(conn: &mut PgConnection, place: &Place) -> sqlx::Result<OutboxStatus> {
    let SentMarks { sent, epochs, last, pruned_to } = sent::load(&mut *conn, place, 0).await?;
    let sent_rows = count_between(&sent, pruned_to, last);
    let first = sent.gap(pruned_to).first;
    let mut oldest_unsent = None;
    if first <= last {
        let sql =
            "select o.at from {s}.outbox_number n join {s}.outbox o on o.seq = n.seq and o.slot = n.slot
            where n.number = $1";
        let at: Option<i64> = sqlx::query_scalar(place.schema.sql(sql))
            .bind(signed(first))
            .persistent(place.persistent())
            .fetch_optional(conn)
            .await?;
        oldest_unsent = at.map(Timestamp::from_millis);
    }
    let present = epochs.last().copied().unwrap_or(Epoch::FIRST);
    Ok(OutboxStatus {
        last,
        unsent: last.saturating_sub(pruned_to).saturating_sub(sent_rows),
        oldest_unsent,
        epoch: present.epoch,
        epoch_after: present.after,
        pruned_to,
    })
}

/// How many rows after one number and up to another are marked.
fn count_between(sent: &mainstay_event_store::outbox::Sent, after: u64, last: u64) -> u64 {
    let (mut unsent, mut at) = (0, after);
    while at < last {
        let gap = sent.gap(at);
        if gap.first > last {
            break;
        }
        let ends = gap.last.min(last);
        unsent += ends - gap.first + 1;
        at = ends;
    }
    last.saturating_sub(after) - unsent
}

/// Rows after a number, sent or not.
pub(crate) async fn after(
    conn: &mut PgConnection,
    place: &Place,
    seq: u64,
    max: usize,
) -> sqlx::Result<Vec<OutboxRecord>> {
    let epochs = epochs(&mut *conn, place).await?;
    let first = signed(seq).saturating_add(1);
    // Numbers are dense, but a page begins where removed rows end.
    read(conn, place, &epochs, &[first], &[i64::MAX], max).await
}

/// Rows after a number that are not marked sent.
pub(crate) async fn unsent(
    conn: &mut PgConnection,
    place: &Place,
    after: u64,
    max: usize,
) -> sqlx::Result<Vec<OutboxRecord>> {
    let SentMarks { sent, epochs, last, pruned_to } = sent::load(&mut *conn, place, after).await?;
    let (mut firsts, mut lasts, mut rows, mut at) = (Vec::new(), Vec::new(), 0_u64, after.max(pruned_to));
    while at < last && rows < max as u64 {
        let gap = sent.gap(at);
        let ends = gap.last.min(last);
        if gap.first > ends {
            break;
        }
        firsts.push(signed(gap.first));
        lasts.push(signed(ends));
        rows += ends - gap.first + 1;
        at = ends;
    }
    if firsts.is_empty() {
        return Ok(Vec::new());
    }
    read(conn, place, &epochs, &firsts, &lasts, max).await
}

/// Rows of these ranges, in order, at most `max`, and no more bytes than a page may have.
async fn read(
    conn: &mut PgConnection,
    place: &Place,
    epochs: &[Epoch],
    firsts: &[i64],
    lasts: &[i64],
    max: usize,
) -> sqlx::Result<Vec<OutboxRecord>> {
    // The sizes before a row decide whether it is still read: payloads that are not, are not fetched either.
    let sql = "select x.number, x.position, x.at, x.envelope, x.key, x.headers, x.payload, t.topic from (
            select n.number, n.position, o.at, o.envelope, o.key, o.headers, o.payload,
                sum(octet_length(o.payload) + octet_length(o.envelope)) over (order by n.number)
                    - octet_length(o.payload) - octet_length(o.envelope) as before
            from (
                select c.number, c.slot, c.seq, c.position from unnest($1::bigint[], $2::bigint[]) g(first, last)
                cross join lateral (
                    select number, slot, seq, position from {s}.outbox_number
                    where number >= greatest(g.first, (select pruned_to + 1 from {s}.outbox_pruned)) and number <= g.last
                    order by number limit $3) c
                order by c.number limit $3) n
            join {s}.outbox o on o.seq = n.seq and o.slot = n.slot) x
        cross join {s}.outbox_topic t
        where x.before < $4 order by x.number";
    let rows = sqlx::query(place.schema.sql(sql))
        .bind(firsts)
        .bind(lasts)
        .bind(max as i64)
        .bind(PAGE_BYTES_MAX as i64)
        .persistent(place.persistent())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| record(row, epochs)).collect()
}

fn record(row: &PgRow, epochs: &[Epoch]) -> sqlx::Result<OutboxRecord> {
    let seq = unsigned(row.try_get(0)?, "an outbox number")?;
    let position: Position = position(row.try_get(1)?)?;
    let (epoch, number) = number(epochs, seq);
    let headers: &str = row.try_get(5)?;
    Ok(OutboxRecord {
        seq,
        at: Timestamp::from_millis(row.try_get(2)?),
        envelope: row.try_get(3)?,
        row: OutboxRow {
            topic: Topic::new(row.try_get::<&str, _>(7)?).map_err(|_| damaged("the outbox's topic"))?,
            key: String::from_utf8(row.try_get(4)?).map_err(|_| damaged("an outbox row's key"))?,
            headers: serde_json::from_str(headers).map_err(|_| damaged("an outbox row's headers"))?,
            payload: row.try_get(6)?,
        },
        epoch,
        number,
        position,
    })
}

#[cfg(test)]
mod tests {
    use mainstay_event_store::outbox::{Run, Sent};

    use super::*;

    #[test]
    fn marked_rows_are_counted_between_two_numbers() {
        let mut sent = Sent::default();
        for (first, last) in [(2, 4), (7, 7), (10, 20)] {
            sent.mark(Run { first, last });
        }
        for (after, last, expected) in [(0, 1, 0), (0, 4, 3), (1, 12, 7), (3, 8, 2), (20, 30, 0), (5, 5, 0)] {
            assert_eq!(count_between(&sent, after, last), expected, "after {after} up to {last}");
        }
    }
}
