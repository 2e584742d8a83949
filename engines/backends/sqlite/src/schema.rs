//! The tables, their version, and how an older file becomes a newer one.
//!
//! The version stands in our own table, not in `user_version`: the file may be the user's, with
//! migrations of their own. Everything of ours begins with [`PREFIX`].

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

/// What every name of ours begins with; user code may not touch it.
pub(crate) const PREFIX: &str = "mainstay_";

/// The version this build writes.
pub(crate) const VERSION: i64 = 4;

/// One step for each version, run in order, each in one transaction with its version number.
const STEPS: [&str; VERSION as usize] = [
    "
create table mainstay_meta(
    key text primary key,
    value any not null
) strict, without rowid;

create table mainstay_streams(
    id integer primary key,
    name text not null unique
) strict;

create table mainstay_events(
    position integer primary key,
    stream integer not null,
    version integer not null,
    id blob not null,
    type text not null,
    schema integer not null,
    at integer not null,
    tags text not null,
    envelope blob not null,
    key text,
    payload blob not null,
    hash blob not null
) strict;
create unique index mainstay_events_stream on mainstay_events(stream, version);
create unique index mainstay_events_id on mainstay_events(id);

create table mainstay_keys(
    key integer not null,
    position integer not null,
    primary key (key, position)
) strict, without rowid;

create table mainstay_outbox(
    seq integer primary key,
    at integer not null,
    envelope blob not null,
    topic text not null,
    key text not null,
    headers text not null,
    payload blob not null
) strict;

create table mainstay_inbox(
    id integer primary key,
    consumer text not null,
    producer text not null,
    epoch integer not null,
    partition integer not null,
    watermark integer not null,
    holes integer not null,
    unique (consumer, producer, epoch, partition)
) strict;
create table mainstay_inbox_holes(
    inbox integer not null,
    first integer not null,
    last integer not null,
    primary key (inbox, first)
) strict, without rowid;
create table mainstay_inbox_recent(
    inbox integer not null,
    slot integer not null,
    seq integer not null,
    content blob not null,
    primary key (inbox, slot)
) strict, without rowid;

create table mainstay_checkpoints(
    consumer text primary key,
    position integer not null
) strict, without rowid;

create table mainstay_views(
    id integer primary key,
    name text not null unique
) strict;
create table mainstay_view_rows(
    view integer not null,
    key text not null,
    value blob not null,
    indices blob,
    primary key (view, key)
) strict, without rowid;
create table mainstay_view_index(
    view integer not null,
    name text not null,
    value blob not null,
    key text not null,
    primary key (view, name, value, key)
) strict, without rowid;

create table mainstay_leases(
    name text primary key,
    epoch integer not null,
    holder text not null,
    until integer not null
) strict, without rowid;
",
    "
-- Which of the older rows told of which act is not known. START says so; the last one is after all of them.
alter table mainstay_outbox add column position integer not null default 0;
update mainstay_outbox set position = coalesce((select max(position) from mainstay_events), 0)
    where seq = (select max(seq) from mainstay_outbox);

create table mainstay_outbox_sent(
    first integer primary key,
    last integer not null
) strict;
create table mainstay_outbox_epochs(
    epoch integer primary key,
    after integer not null
) strict;
",
    "
-- The ring of the last numbers and their hashes: 64 slots of 40 bytes a row, where there was a row for each slot.
create table mainstay_inbox_ring(
    id integer primary key,
    data blob not null
) strict;
insert into mainstay_inbox_ring(id, data)
    with recursive slots(slot) as (select 0 union all select slot + 1 from slots where slot < 1023)
    select i.id * 16 + s.slot / 64,
           unhex(group_concat(iif(r.seq is null, printf('%080X', 0), printf('%016X', r.seq) || hex(r.content)),
                              '' order by s.slot))
    from mainstay_inbox i cross join slots s
    left join mainstay_inbox_recent r on r.inbox = i.id and r.slot = s.slot
    group by i.id, s.slot / 64;
drop table mainstay_inbox_recent;

create table mainstay_archives(
    first integer primary key,
    last integer not null,
    events integer not null,
    first_hash blob not null,
    last_hash blob not null,
    digest blob not null,
    file text not null
) strict;
",
    "
-- Rows stand in the order they came, and only their keys are sorted: a table without rowid keeps whole rows in its inner
-- pages too, where seven of a shop's filled a page, and a commit rewrote a page for nearly every row.
create table mainstay_view_sorted(
    id integer primary key,
    view integer not null,
    key text not null,
    value blob not null,
    indices blob,
    unique (view, key)
) strict;
insert into mainstay_view_sorted(view, key, value, indices)
    select view, key, value, indices from mainstay_view_rows order by view, key;
drop table mainstay_view_rows;
alter table mainstay_view_sorted rename to mainstay_view_rows;
",
];

/// Our tables.
const TABLES: [&str; 16] = [
    "mainstay_archives",
    "mainstay_meta",
    "mainstay_streams",
    "mainstay_events",
    "mainstay_keys",
    "mainstay_outbox",
    "mainstay_outbox_sent",
    "mainstay_outbox_epochs",
    "mainstay_inbox",
    "mainstay_inbox_holes",
    "mainstay_inbox_ring",
    "mainstay_checkpoints",
    "mainstay_views",
    "mainstay_view_rows",
    "mainstay_view_index",
    "mainstay_leases",
];

/// A table of the user's that would get in the store's way: a foreign key onto one of ours makes every append
/// look it up, or fail; a name like ours is kept for later versions. The authorizer sees neither.
pub(crate) fn in_the_way(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let refers: Option<String> = conn
        .query_row(
            "select t.name from main.sqlite_schema t join pragma_foreign_key_list(t.name) f
             where t.type = 'table' and substr(f.\"table\", 1, 9) = 'mainstay_' collate nocase limit 1",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if refers.is_some() {
        return Ok(refers);
    }
    let mut names = conn.prepare(
        "select name from main.sqlite_schema
         where type in ('table', 'view') and substr(name, 1, 9) = 'mainstay_' collate nocase",
    )?;
    let names = names.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(names.into_iter().find(|name| !TABLES.contains(&name.as_str())))
}

/// What a file is to us.
pub(crate) enum Found {
    /// No table of ours.
    Nothing,
    /// Ours, of this version.
    Version(i64),
}

pub(crate) fn found(conn: &Connection) -> rusqlite::Result<Found> {
    let meta: Option<String> = conn
        .query_row("select name from main.sqlite_schema where name = 'mainstay_meta'", [], |row| row.get(0))
        .optional()?;
    if meta.is_none() {
        return Ok(Found::Nothing);
    }
    let version: Option<i64> = conn
        .query_row("select value from main.mainstay_meta where key = 'schema'", [], |row| row.get(0))
        .optional()?;
    Ok(version.map_or(Found::Nothing, Found::Version))
}

/// Brings the file to [`VERSION`], whatever older version it has. Safe when several processes do it at once:
/// each looks again under the write lock.
pub(crate) fn migrate(conn: &Connection, new_id: Uuid) -> rusqlite::Result<()> {
    loop {
        conn.execute_batch("begin immediate")?;
        let step = || -> rusqlite::Result<bool> {
            let from = match found(conn)? {
                Found::Nothing => 0,
                Found::Version(version) => version,
            };
            let Some(sql) = usize::try_from(from).ok().and_then(|from| STEPS.get(from)) else {
                return Ok(true);
            };
            conn.execute_batch(sql)?;
            conn.execute(
                "insert into main.mainstay_meta(key, value) values ('schema', ?1)
                 on conflict(key) do update set value = excluded.value",
                [from + 1],
            )?;
            conn.execute(
                "insert into main.mainstay_meta(key, value) values ('store', ?1) on conflict(key) do nothing",
                [new_id.as_bytes().as_slice()],
            )?;
            Ok(from + 1 == VERSION)
        };
        match step() {
            Ok(done) => {
                conn.execute_batch("commit")?;
                if done {
                    return Ok(());
                }
            }
            Err(error) => {
                // The first error is the one to report; the rollback's own can only be "no transaction".
                let _ = conn.execute_batch("rollback");
                return Err(error);
            }
        }
    }
}
