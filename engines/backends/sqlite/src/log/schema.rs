//! The log's tables. A log has a file of its own; nobody else's tables are in it.
//!
//! A *channel* is one partition of one topic. A message's row id is its channel's number times 2⁴⁸ plus its
//! offset, so the messages of a channel stand together, in order, without an index.

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

/// The version this build writes.
pub(super) const VERSION: i64 = 1;

/// Bits of a row id that are the offset.
const OFFSET_BITS: u32 = 48;

/// The last offset a channel can have.
pub(super) const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 1;

/// Channels a file can have: what is left of a positive row id.
pub(super) const CHANNELS_MAX: i64 = (1 << (63 - OFFSET_BITS)) - 1;

const TABLES: &str = "
create table mainstay_log_meta(
    key text primary key,
    value any not null
) strict, without rowid;

create table mainstay_log_channels(
    channel integer primary key,
    topic text not null,
    partition integer not null,
    pruned_to integer not null,
    unique (topic, partition)
) strict;

create table mainstay_log_producers(
    id integer primary key,
    producer text not null,
    epoch integer not null,
    partition integer not null,
    number integer not null,
    content blob not null,
    unique (producer, epoch, partition)
) strict;

create table mainstay_log_messages(
    id integer primary key,
    producer integer not null,
    number integer not null,
    content blob not null,
    key text not null,
    mark integer not null,
    published integer not null,
    event text not null,
    data blob not null
) strict;
";

/// The row id of an offset. The caller has checked both against their largest.
pub(super) fn row_id(channel: i64, offset: u64) -> i64 {
    channel << OFFSET_BITS | offset as i64
}

/// The offset in a row id.
pub(super) fn offset_of(row_id: i64) -> u64 {
    row_id as u64 & OFFSET_MAX
}

/// What a file is to us.
pub(super) enum Found {
    /// A database without any table.
    Empty,
    /// A database of somebody else's.
    Foreign(String),
    /// A log of this version.
    Version(i64),
}

pub(super) fn found(conn: &Connection) -> rusqlite::Result<Found> {
    let meta: Option<String> = conn
        .query_row("select name from main.sqlite_schema where name = 'mainstay_log_meta'", [], |row| {
            row.get(0)
        })
        .optional()?;
    if meta.is_none() {
        let other: Option<String> =
            conn.query_row("select name from main.sqlite_schema limit 1", [], |row| row.get(0)).optional()?;
        return Ok(
            other.map_or(Found::Empty, |name| Found::Foreign(format!("a database with {name:?} in it")))
        );
    }
    let version: Option<i64> = conn
        .query_row("select value from main.mainstay_log_meta where key = 'schema'", [], |row| row.get(0))
        .optional()?;
    Ok(version.map_or_else(|| Found::Foreign("its version is missing".into()), Found::Version))
}

/// Makes the tables, unless another process was faster.
pub(super) fn create(conn: &Connection, id: Uuid, partitions: u32) -> rusqlite::Result<()> {
    conn.execute_batch("begin immediate")?;
    let made = (|| {
        if let Found::Empty = found(conn)? {
            conn.execute_batch(TABLES)?;
            conn.execute(
                "insert into main.mainstay_log_meta(key, value) values ('schema', ?1), ('log', ?2), ('partitions', ?3)",
                (VERSION, id.as_bytes().as_slice(), partitions),
            )?;
        }
        conn.execute_batch("commit")
    })();
    if made.is_err() {
        // The first error is the one to report; the rollback's own can only be "no transaction".
        let _ = conn.execute_batch("rollback");
    }
    made
}
