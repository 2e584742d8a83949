//! Checkpoints and leases: the rows that writer and readers both look up.

use mainstay_envelope::Timestamp;
use mainstay_event_store::{ConsumerName, Lease, Position};
use rusqlite::{Connection, OptionalExtension};

pub(crate) fn record_lease(conn: &Connection, name: &ConsumerName, lease: &Lease) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "insert into main.mainstay_leases(name, epoch, holder, until) values (?1, ?2, ?3, ?4)
         on conflict(name) do update
         set epoch = excluded.epoch, holder = excluded.holder, until = excluded.until",
    )?
    .execute((name.as_str(), lease.epoch as i64, lease.holder.as_str(), lease.until.as_millis()))
    .map(drop)
}

pub(crate) fn checkpoint(conn: &Connection, consumer: &ConsumerName) -> rusqlite::Result<Option<Position>> {
    conn.prepare_cached("select position from main.mainstay_checkpoints where consumer = ?1")?
        .query_row([consumer.as_str()], |row| Ok(Position(row.get::<_, i64>(0)? as u64)))
        .optional()
}

pub(crate) fn lease(conn: &Connection, name: &ConsumerName) -> rusqlite::Result<Option<Lease>> {
    conn.prepare_cached("select epoch, holder, until from main.mainstay_leases where name = ?1")?
        .query_row([name.as_str()], |row| {
            Ok(Lease {
                epoch: row.get::<_, i64>(0)? as u64,
                holder: row.get(1)?,
                until: Timestamp::from_millis(row.get(2)?),
            })
        })
        .optional()
}
