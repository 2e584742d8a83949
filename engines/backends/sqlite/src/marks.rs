//! The inbox's rows. What they mean is decided in the contract ([`inbox::mark`]); here they are read and written.

use mainstay_envelope::MessageIdentity;
use mainstay_event_store::inbox::{self, Change, Hole, Known, Recent};
use mainstay_event_store::{ConsumerName, Mark, Refusal};
use rusqlite::{Connection, OptionalExtension};

pub(crate) fn mark(
    conn: &Connection,
    consumer: &ConsumerName,
    message: &MessageIdentity,
    engine: impl Fn(rusqlite::Error) -> Refusal,
) -> Result<Mark, Refusal> {
    let (id, known) = known(conn, consumer, message).map_err(&engine)?;
    let (mark, change) = inbox::mark(message.seq, &message.content.0, &known)?;
    if let Some(change) = change {
        write(conn, consumer, message, id, &change).map_err(&engine)?;
    }
    Ok(mark)
}

fn known(
    conn: &Connection,
    consumer: &ConsumerName,
    message: &MessageIdentity,
) -> rusqlite::Result<(Option<i64>, Known)> {
    let seq = i64::try_from(message.seq).unwrap_or(i64::MAX);
    let head = conn
        .prepare_cached(
            "select id, watermark, holes from main.mainstay_inbox
             where consumer = ?1 and producer = ?2 and epoch = ?3 and partition = ?4",
        )?
        .query_row((consumer.as_str(), message.producer.as_str(), message.epoch, message.partition), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()?;
    let Some((id, watermark, holes)) = head else { return Ok((None, Known::default())) };
    let hole = conn
        .prepare_cached(
            "select first, last from main.mainstay_inbox_holes
             where inbox = ?1 and first <= ?2 order by first desc limit 1",
        )?
        .query_row((id, seq), |row| {
            Ok(Hole { first: row.get::<_, i64>(0)? as u64, last: row.get::<_, i64>(1)? as u64 })
        })
        .optional()?
        .filter(|hole| message.seq <= hole.last);
    let recent = conn
        .prepare_cached("select seq, content from main.mainstay_inbox_recent where inbox = ?1 and slot = ?2")?
        .query_row((id, inbox::slot(message.seq) as i64), |row| {
            Ok(Recent { seq: row.get::<_, i64>(0)? as u64, hash: row.get(1)? })
        })
        .optional()?;
    Ok((Some(id), Known { watermark: watermark as u64, holes: holes as u64, hole, recent }))
}

fn write(
    conn: &Connection,
    consumer: &ConsumerName,
    message: &MessageIdentity,
    id: Option<i64>,
    change: &Change,
) -> rusqlite::Result<()> {
    let (watermark, holes) = (change.watermark as i64, change.holes as i64);
    let id = match id {
        Some(id) => {
            conn.prepare_cached("update main.mainstay_inbox set watermark = ?2, holes = ?3 where id = ?1")?
                .execute((id, watermark, holes))?;
            id
        }
        None => {
            conn.prepare_cached(
                "insert into main.mainstay_inbox(consumer, producer, epoch, partition, watermark, holes)
                 values (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                consumer.as_str(),
                message.producer.as_str(),
                message.epoch,
                message.partition,
                watermark,
                holes,
            ))?;
            conn.last_insert_rowid()
        }
    };
    if let Some(first) = change.remove {
        conn.prepare_cached("delete from main.mainstay_inbox_holes where inbox = ?1 and first = ?2")?
            .execute((id, first as i64))?;
    }
    for hole in change.add.iter().flatten() {
        conn.prepare_cached("insert into main.mainstay_inbox_holes(inbox, first, last) values (?1, ?2, ?3)")?
            .execute((id, hole.first as i64, hole.last as i64))?;
    }
    if change.remember {
        conn.prepare_cached(
            "insert or replace into main.mainstay_inbox_recent(inbox, slot, seq, content) values (?1, ?2, ?3, ?4)",
        )?
        .execute((id, inbox::slot(message.seq) as i64, message.seq as i64, message.content.0.as_slice()))?;
    }
    Ok(())
}
