//! The outbox's statements. What marks and epochs mean is decided in the contract ([`outbox`]); here they are read
//! and written.

use bytes::Bytes;
use mainstay_envelope::Timestamp;
use mainstay_event_store::outbox::{self, Epoch, PAGE_BYTES_MAX, Run};
use mainstay_event_store::{OutboxRecord, OutboxRow, OutboxStatus, Position, Topic};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::recent::Fresh;

/// Bytes of rows that wait in memory for the end of their transaction.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// A row whose transaction has not ended.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) envelope: Bytes,
    pub(crate) row: OutboxRow,
    /// As stored.
    pub(crate) headers: String,
}

/// The rows of one transaction. They carry the feed's last position at its end, so they wait for it; what does
/// not fit in memory is written early, and mended when the position is known.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    rows: Vec<Pending>,
    bytes: usize,
    early: Option<Run>,
}

impl Waiting {
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        (self.bytes, self.early) = (0, None);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.early.is_none()
    }

    pub(crate) fn push(&mut self, conn: &Connection, row: Pending) -> rusqlite::Result<()> {
        self.bytes += row.row.payload.len() + row.envelope.len() + row.headers.len() + 512;
        self.rows.push(row);
        if self.bytes < WAITING_BYTES_MAX { Ok(()) } else { self.write_early(conn) }
    }

    /// Writes what waits although its position is not known.
    pub(crate) fn write_early(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let (first, last) = (self.rows.first().map(|row| row.seq), self.rows.last().map(|row| row.seq));
        self.write(conn, Position::START)?;
        let begun = self.early.map(|early| early.first).or(first);
        self.early = begun.zip(last).map(|(first, last)| Run { first, last });
        Ok(())
    }

    /// Writes what waits; `position` is the feed's last one, and nothing more comes. What was written is now in
    /// `fresh`, if it is all that the transaction wrote.
    pub(crate) fn finish(
        &mut self,
        conn: &Connection,
        position: Position,
        epochs: &[Epoch],
        fresh: &mut Fresh,
    ) -> rusqlite::Result<()> {
        if let Some(early) = self.early.take() {
            self.write(conn, position)?;
            fresh.reset();
            return place(conn, early, position);
        }
        self.bytes = 0;
        for pending in self.rows.drain(..) {
            insert(conn, &pending, position)?;
            let Pending { seq, at, envelope, row, .. } = pending;
            let (epoch, number) = outbox::number(epochs, seq);
            fresh.push(OutboxRecord { seq, at, envelope: envelope.to_vec(), row, epoch, number, position });
        }
        Ok(())
    }

    fn write(&mut self, conn: &Connection, position: Position) -> rusqlite::Result<()> {
        self.bytes = 0;
        self.rows.drain(..).try_for_each(|row| insert(conn, &row, position))
    }
}

fn insert(conn: &Connection, pending: &Pending, position: Position) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "insert into main.mainstay_outbox(seq, at, envelope, topic, key, headers, payload, position)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        pending.seq as i64,
        pending.at.as_millis(),
        &*pending.envelope,
        pending.row.topic.as_str(),
        pending.row.key.as_str(),
        pending.headers.as_str(),
        pending.row.payload.as_slice(),
        position.0 as i64,
    ))
    .map(drop)
}

/// Gives rows their position that were written before it was known. A row that is gone again stays gone.
fn place(conn: &Connection, rows: Run, position: Position) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "update main.mainstay_outbox set position = ?3 where seq between ?1 and ?2 and position <> ?3",
    )?
    .execute((rows.first as i64, rows.last as i64, position.0 as i64))
    .map(drop)
}

/// The number of the last row, whether it is still there or not.
pub(crate) fn last(conn: &Connection) -> rusqlite::Result<u64> {
    let last: Option<i64> =
        conn.prepare_cached("select max(seq) from main.mainstay_outbox")?.query_row([], |row| row.get(0))?;
    Ok(last.map_or(0, |last| last as u64).max(pruned_to(conn)?))
}

fn pruned_to(conn: &Connection) -> rusqlite::Result<u64> {
    let known: Option<i64> = conn
        .prepare_cached("select value from main.mainstay_meta where key = 'outbox_pruned_to'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(known.unwrap_or(0) as u64)
}

/// The topic of all rows, if there ever was one. A file that is older than this rule may hold rows of several: they are
/// published as they are, and the last one's topic is the file's.
pub(crate) fn topic(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let known = conn
        .prepare_cached("select value from main.mainstay_meta where key = 'outbox_topic'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    match known {
        Some(topic) => Ok(Some(topic)),
        None => conn
            .prepare_cached("select topic from main.mainstay_outbox order by seq desc limit 1")?
            .query_row([], |row| row.get(0))
            .optional(),
    }
}

/// Notes the topic; again is no change.
pub(crate) fn note_topic(conn: &Connection, topic: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "insert into main.mainstay_meta(key, value) values ('outbox_topic', ?1) on conflict(key) do nothing",
    )?
    .execute([topic])
    .map(drop)
}

fn epoch(row: &Row<'_>) -> rusqlite::Result<Epoch> {
    Ok(Epoch { epoch: row.get(0)?, after: row.get::<_, i64>(1)? as u64 })
}

/// The epochs that were opened, in their order.
pub(crate) fn epochs(conn: &Connection) -> rusqlite::Result<Vec<Epoch>> {
    conn.prepare_cached("select epoch, after from main.mainstay_outbox_epochs order by epoch")?
        .query_map([], epoch)?
        .collect()
}

fn present_epoch(conn: &Connection) -> rusqlite::Result<Epoch> {
    conn.prepare_cached("select epoch, after from main.mainstay_outbox_epochs order by epoch desc limit 1")?
        .query_row([], epoch)
        .optional()
        .map(|epoch| epoch.unwrap_or(Epoch::FIRST))
}

/// The range of sent rows with the greatest first row up to `seq`.
fn range_up_to(conn: &Connection, seq: u64) -> rusqlite::Result<Option<Run>> {
    conn.prepare_cached(
        "select first, last from main.mainstay_outbox_sent where first <= ?1 order by first desc limit 1",
    )?
    .query_row([stored(seq)], |row| {
        Ok(Run { first: row.get::<_, i64>(0)? as u64, last: row.get::<_, i64>(1)? as u64 })
    })
    .optional()
}

/// A number as a signed column holds it. Larger ones mean "past every row".
fn stored(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// The first row after `after` that is not marked, and the last one before the next mark.
fn gap(conn: &Connection, after: u64) -> rusqlite::Result<Run> {
    let next = after.saturating_add(1);
    let within = range_up_to(conn, next)?.filter(|range| range.last >= next);
    let first = within.map_or(next, |range| range.last + 1);
    let marked: Option<i64> = conn
        .prepare_cached("select min(first) from main.mainstay_outbox_sent where first >= ?1")?
        .query_row([stored(first)], |row| row.get(0))?;
    Ok(Run { first, last: marked.map_or(i64::MAX as u64, |marked| marked as u64 - 1) })
}

/// Adds a run to the sent rows. One that continues the last range costs two statements.
pub(crate) fn mark(conn: &Connection, run: Run) -> rusqlite::Result<()> {
    let mut joined = run;
    while let Some(range) = range_up_to(conn, joined.last + 1)? {
        if range.last + 1 < joined.first {
            break;
        }
        if range.first <= joined.first {
            // What lies between was removed on the way here; this one only grows.
            let last = range.last.max(joined.last);
            if last == range.last {
                return Ok(());
            }
            return conn
                .prepare_cached("update main.mainstay_outbox_sent set last = ?2 where first = ?1")?
                .execute((range.first as i64, last as i64))
                .map(drop);
        }
        conn.prepare_cached("delete from main.mainstay_outbox_sent where first = ?1")?
            .execute([range.first as i64])?;
        joined.last = joined.last.max(range.last);
    }
    conn.prepare_cached("insert into main.mainstay_outbox_sent(first, last) values (?1, ?2)")?
        .execute((joined.first as i64, joined.last as i64))
        .map(drop)
}

/// What the next epoch is decided by: the present one, and the last removed row.
pub(crate) fn before_epoch(conn: &Connection) -> rusqlite::Result<(Epoch, u64)> {
    Ok((present_epoch(conn)?, pruned_to(conn)?))
}

/// Opens an epoch, and takes back the marks of rows that it numbers anew.
pub(crate) fn open_epoch(conn: &Connection, epoch: Epoch) -> rusqlite::Result<()> {
    conn.prepare_cached("insert into main.mainstay_outbox_epochs(epoch, after) values (?1, ?2)")?
        .execute((epoch.epoch, epoch.after as i64))?;
    conn.prepare_cached("delete from main.mainstay_outbox_sent where first > ?1")?
        .execute([epoch.after as i64])?;
    conn.prepare_cached("update main.mainstay_outbox_sent set last = ?1 where last > ?1")?
        .execute([epoch.after as i64])
        .map(drop)
}

/// Removes at most `max` sent rows older than `before` from the beginning; are there more?
pub(crate) fn prune(conn: &Connection, before: Timestamp, max: usize) -> rusqlite::Result<bool> {
    let (pruned_to, sent_to) = (pruned_to(conn)?, gap(conn, 0)?.first - 1);
    let upper = sent_to.min(pruned_to.saturating_add(max as u64));
    let young: Option<i64> = conn
        .prepare_cached(
            "select min(seq) from main.mainstay_outbox where seq > ?1 and seq <= ?2 and at >= ?3",
        )?
        .query_row((pruned_to as i64, upper as i64, before.as_millis()), |row| row.get(0))?;
    let to = young.map_or(upper, |young| young as u64 - 1);
    if to > pruned_to {
        conn.prepare_cached("delete from main.mainstay_outbox where seq > ?1 and seq <= ?2")?
            .execute((pruned_to as i64, to as i64))?;
        conn.prepare_cached(
            "insert into main.mainstay_meta(key, value) values ('outbox_pruned_to', ?1)
             on conflict(key) do update set value = excluded.value",
        )?
        .execute([to as i64])?;
    }
    conn.prepare_cached(
        "select exists(select 1 from main.mainstay_outbox where seq = ?1 and ?1 <= ?2 and at < ?3)",
    )?
    .query_row((to as i64 + 1, sent_to as i64, before.as_millis()), |row| row.get(0))
}

/// How far the outbox has come.
pub(crate) fn status(conn: &Connection) -> rusqlite::Result<OutboxStatus> {
    let last = last(conn)?;
    let sent: i64 = conn
        .prepare_cached("select coalesce(sum(last - first + 1), 0) from main.mainstay_outbox_sent")?
        .query_row([], |row| row.get(0))?;
    let oldest: Option<i64> = conn
        .prepare_cached("select at from main.mainstay_outbox where seq = ?1")?
        .query_row([gap(conn, 0)?.first as i64], |row| row.get(0))
        .optional()?;
    let Epoch { epoch, after: epoch_after } = present_epoch(conn)?;
    Ok(OutboxStatus {
        last,
        unsent: last.saturating_sub(sent as u64),
        oldest_unsent: oldest.map(Timestamp::from_millis),
        epoch,
        epoch_after,
        pruned_to: pruned_to(conn)?,
    })
}

/// A page being read.
struct Page {
    epochs: Vec<Epoch>,
    records: Vec<OutboxRecord>,
    bytes: usize,
    max: usize,
}

impl Page {
    fn new(conn: &Connection, max: usize) -> rusqlite::Result<Self> {
        Ok(Self { epochs: epochs(conn)?, records: Vec::new(), bytes: 0, max })
    }

    fn full(&self) -> bool {
        self.records.len() >= self.max || self.bytes >= PAGE_BYTES_MAX
    }

    /// Reads rows of a range as far as they fit; a text says what is damaged.
    fn fill(&mut self, conn: &Connection, rows: Run) -> rusqlite::Result<Result<(), String>> {
        let mut statement = conn.prepare_cached(
            "select seq, at, envelope, topic, key, headers, payload, position from main.mainstay_outbox
             where seq between ?1 and ?2 order by seq limit ?3",
        )?;
        let left = self.max - self.records.len();
        let mut rows = statement.query((stored(rows.first), stored(rows.last), left as i64))?;
        while !self.full()
            && let Some(row) = rows.next()?
        {
            match record(row, &self.epochs)? {
                Ok(record) => {
                    self.bytes += record.row.payload.len() + record.envelope.len();
                    self.records.push(record);
                }
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Ok(()))
    }
}

/// Rows after a number.
pub(crate) fn after(
    conn: &Connection,
    seq: u64,
    max: usize,
) -> rusqlite::Result<Result<Vec<OutboxRecord>, String>> {
    let mut page = Page::new(conn, max)?;
    let rows = Run { first: seq.saturating_add(1), last: u64::MAX };
    Ok(page.fill(conn, rows)?.map(|()| page.records))
}

/// Rows after a number that are not marked: the gaps between the ranges, each of which holds at least one row.
pub(crate) fn unsent(
    conn: &Connection,
    after: u64,
    max: usize,
) -> rusqlite::Result<Result<Vec<OutboxRecord>, String>> {
    let mut page = Page::new(conn, max)?;
    let (last, mut after) = (last(conn)?, after);
    while after < last && !page.full() {
        let gap = gap(conn, after)?;
        if let Err(why) = page.fill(conn, gap)? {
            return Ok(Err(why));
        }
        after = gap.last;
    }
    Ok(Ok(page.records))
}

fn record(row: &Row<'_>, epochs: &[Epoch]) -> rusqlite::Result<Result<OutboxRecord, String>> {
    let seq = row.get::<_, i64>(0)? as u64;
    let (topic, headers): (String, String) = (row.get(3)?, row.get(5)?);
    let headers = match serde_json::from_str(&headers) {
        Ok(headers) => headers,
        Err(error) => return Ok(Err(format!("the headers of outbox row {seq}: {error}"))),
    };
    let topic = match Topic::new(topic) {
        Ok(topic) => topic,
        Err(error) => return Ok(Err(format!("outbox row {seq}: {error}"))),
    };
    let (epoch, number) = outbox::number(epochs, seq);
    Ok(Ok(OutboxRecord {
        seq,
        at: Timestamp::from_millis(row.get(1)?),
        envelope: row.get(2)?,
        row: OutboxRow { topic, key: row.get(4)?, headers, payload: row.get(6)? },
        epoch,
        number,
        position: Position(row.get::<_, i64>(7)? as u64),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use mainstay_event_store::limits;

    use super::*;

    const ROWS: u64 = 100_000;

    /// A file's tables with so many rows, of which none is marked.
    fn filled() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        crate::schema::migrate(&conn, uuid::Uuid::nil()).unwrap();
        conn.execute(
            "with recursive n(n) as (select 1 union all select n + 1 from n where n < ?1)
             insert into mainstay_outbox select n, n, x'', 't', 'k', '[]', x'', n from n",
            [ROWS as i64],
        )
        .unwrap();
        conn
    }

    #[test]
    fn a_file_from_before_there_was_one_topic_has_that_of_its_last_row() {
        let conn = filled();
        assert_eq!(topic(&conn).unwrap().as_deref(), Some("t"));
        conn.execute("update mainstay_outbox set topic = 'u' where seq = ?1", [ROWS as i64]).unwrap();
        assert_eq!(topic(&conn).unwrap().as_deref(), Some("u"));
        let both = after(&conn, ROWS - 2, 2).unwrap().unwrap();
        assert_eq!(both.iter().map(|row| row.row.topic.as_str()).collect::<Vec<_>>(), ["t", "u"]);
        note_topic(&conn, "u").unwrap();
        note_topic(&conn, "v").unwrap();
        conn.execute("delete from mainstay_outbox", []).unwrap();
        assert_eq!(topic(&conn).unwrap().as_deref(), Some("u"), "rows that are removed had it too");
    }

    /// About how many steps of the engine it takes.
    fn steps<T>(conn: &mut Connection, work: impl FnOnce(&Connection) -> T) -> (u64, T) {
        const EACH: u64 = 10;
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let step = move || {
            counted.fetch_add(EACH, Ordering::Relaxed);
            false
        };
        conn.progress_handler(EACH as i32, Some(step)).unwrap();
        let value = work(conn);
        conn.progress_handler(0, None::<fn() -> bool>).unwrap();
        (count.load(Ordering::Relaxed), value)
    }

    #[test]
    fn what_a_relay_does_all_day_costs_the_same_however_much_was_sent() {
        let mut conn = filled();
        mark(&conn, Run { first: 1, last: ROWS - 10 }).unwrap();
        let (cost, rows) = steps(&mut conn, |conn| unsent(conn, 0, 100).unwrap().unwrap());
        assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), (ROWS - 9..=ROWS).collect::<Vec<_>>());
        assert!(cost < 1_000, "reading 10 unsent rows took {cost} steps");
        let (cost, ()) =
            steps(&mut conn, |conn| mark(conn, Run { first: ROWS - 9, last: ROWS - 5 }).unwrap());
        assert!(cost < 100, "marking the next rows took {cost} steps");
        let (cost, status) = steps(&mut conn, |conn| status(conn).unwrap());
        assert_eq!((status.unsent, status.last), (5, ROWS));
        assert!(cost < 500, "the status took {cost} steps");
        let (cost, more) =
            steps(&mut conn, |conn| prune(conn, Timestamp::from_millis(i64::MAX), 10).unwrap());
        assert!(more && cost < 1_000, "removing 10 rows took {cost} steps");
        let ranges: i64 =
            conn.query_row("select count(*) from mainstay_outbox_sent", [], |row| row.get(0)).unwrap();
        assert_eq!(ranges, 1);
    }

    #[test]
    fn a_page_ends_when_it_holds_enough_bytes() {
        let conn = filled();
        conn.execute("update mainstay_outbox set payload = zeroblob(1000000) where seq <= 12", []).unwrap();
        mark(&conn, Run { first: 3, last: 4 }).unwrap();
        let (mut seqs, mut pages) = (Vec::new(), 0);
        while seqs.len() < 10 {
            let page = unsent(&conn, seqs.last().copied().unwrap_or(0), 10 - seqs.len()).unwrap().unwrap();
            let bytes: usize = page.iter().map(|row| row.row.payload.len()).sum();
            assert!(bytes < PAGE_BYTES_MAX + limits::ROW_BYTES_MAX && !page.is_empty(), "{bytes} bytes");
            seqs.extend(page.iter().map(|row| row.seq));
            pages += 1;
        }
        assert_eq!((pages, seqs), (2, vec![1, 2, 5, 6, 7, 8, 9, 10, 11, 12]));
    }
}
