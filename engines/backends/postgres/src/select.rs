//! Finding events: by stream, by position, by type and tag, by id.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use mainstay_envelope::Timestamp;
use mainstay_event_store::{
    Direction, EventType, Hash, Head, KeyId, Page, Payload, Position, Query, Recorded, StreamName,
    StreamPage, Tags, Version,
};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::conditions;
use crate::error::damaged;
use crate::keys;
use crate::schema::Schema;

/// Columns of an event, in the order [`event`] reads them; of tables named e, f and s.
macro_rules! columns {
    () => {
        "f.position, s.name, e.version, e.id, e.type, e.shape, e.at, e.tags, e.envelope, e.key, e.payload, f.hash"
    };
}

/// The same, of a subquery named x.
macro_rules! outer {
    () => {
        "x.position, x.name, x.version, x.id, x.type, x.shape, x.at, x.tags, x.envelope, x.key, x.payload, x.hash"
    };
}

/// Where the feed is read through its index by key, this many candidates are looked at for each event of a page.
const CANDIDATES: usize = 4;

/// What consecutive events often share, so that a page holds it once.
#[derive(Debug, Default)]
struct Shared {
    stream: Option<StreamName>,
    event_type: Option<EventType>,
    envelope: Bytes,
}

impl Shared {
    /// An event whose first column stands at `at`.
    fn event(&mut self, row: &PgRow, at: usize) -> sqlx::Result<Recorded> {
        let name: &str = row.try_get(at + 1)?;
        let stream = match self.stream.as_ref().filter(|known| known.as_str() == name) {
            Some(known) => known.clone(),
            None => {
                let name = StreamName::new(name).map_err(|_| damaged("a stream's name"))?;
                self.stream.insert(name).clone()
            }
        };
        let name: &str = row.try_get(at + 4)?;
        let event_type = match self.event_type.as_ref().filter(|known| known.as_str() == name) {
            Some(known) => known.clone(),
            None => {
                let name = EventType::new(name).map_err(|_| damaged("an event's type"))?;
                self.event_type.insert(name).clone()
            }
        };
        let envelope: &[u8] = row.try_get(at + 8)?;
        if self.envelope != envelope {
            self.envelope = Bytes::copy_from_slice(envelope);
        }
        let tags: &str = row.try_get(at + 7)?;
        let tags = match tags.is_empty() {
            true => Tags::default(),
            false => Tags::from_stored(Bytes::copy_from_slice(tags.as_bytes()))
                .ok_or_else(|| damaged("an event's tags"))?,
        };
        let key: Option<&str> = row.try_get(at + 9)?;
        let key = key.map(KeyId::new).transpose().map_err(|_| damaged("an event's key"))?;
        let payload: &[u8] = row.try_get(at + 10)?;
        let hash: Option<&[u8]> = row.try_get(at + 11)?;
        let shape: i64 = row.try_get(at + 5)?;
        Ok(Recorded {
            // Not in the feed yet: START, and no hash.
            position: Position(unsigned(
                row.try_get::<Option<i64>, _>(at)?.unwrap_or_default(),
                "a position",
            )?),
            stream,
            version: Version(unsigned(row.try_get(at + 2)?, "an event's version")?),
            id: row.try_get(at + 3)?,
            event_type,
            schema: u32::try_from(shape).map_err(|_| damaged("an event's schema"))?,
            at: Timestamp::from_millis(row.try_get(at + 6)?),
            tags,
            envelope: self.envelope.clone(),
            payload: Payload { bytes: Bytes::copy_from_slice(payload), key },
            hash: match hash {
                Some(bytes) => hash_of(bytes)?,
                None => Hash([0; 32]),
            },
        })
    }
}

pub(crate) fn unsigned(stored: i64, what: &str) -> sqlx::Result<u64> {
    u64::try_from(stored).map_err(|_| damaged(what))
}

/// As a signed column holds it; what it can't hold is further than anything stored.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn hash_of(bytes: &[u8]) -> sqlx::Result<Hash> {
    bytes.try_into().map(Hash).map_err(|_| damaged("a hash of the chain"))
}

/// A part of a stream, with its version, both of one moment.
pub(crate) async fn stream(
    conn: &mut PgConnection,
    schema: &Schema,
    name: &StreamName,
    from: Version,
    direction: Direction,
    max: usize,
    persistent: bool,
) -> sqlx::Result<StreamPage> {
    // The bounds are worked out from the version, so that the statement is a range of one index.
    let sql = match direction {
        Direction::Forwards => concat!(
            "select st.version as last, ",
            outer!(),
            " from {s}.stream st left join lateral (select ",
            columns!(),
            " from {s}.event e left join {s}.feed f on f.seq = e.seq cross join (select st.name) s
              where e.stream = st.id and e.version >= $2 and e.version <= st.version
              order by e.version limit $3) x on true where st.name = $1"
        ),
        Direction::Backwards => concat!(
            "select st.version as last, ",
            outer!(),
            " from {s}.stream st left join lateral (select ",
            columns!(),
            " from {s}.event e left join {s}.feed f on f.seq = e.seq cross join (select st.name) s
              where e.stream = st.id and e.version <= $2 and e.version <= st.version
              order by e.version desc limit $3) x on true where st.name = $1"
        ),
    };
    let rows = sqlx::query(schema.sql(sql))
        .bind(name.as_str())
        .bind(signed(from.0))
        .bind(max as i64)
        .persistent(persistent)
        .fetch_all(conn)
        .await?;
    let mut page = StreamPage { events: Vec::with_capacity(rows.len()), version: Version::EMPTY };
    let mut shared = Shared::default();
    for row in &rows {
        page.version = Version(unsigned(row.try_get(0)?, "a stream's version")?);
        if row.try_get::<Option<i64>, _>(3)?.is_some() {
            page.events.push(shared.event(row, 1)?);
        }
    }
    match direction {
        Direction::Forwards => page.events.sort_by_key(|event| event.version),
        Direction::Backwards => page.events.sort_by_key(|event| std::cmp::Reverse(event.version)),
    }
    Ok(page)
}

/// The last version of a stream.
pub(crate) async fn version(
    conn: &mut PgConnection,
    schema: &Schema,
    name: &StreamName,
    persistent: bool,
) -> sqlx::Result<Version> {
    let version: Option<i64> =
        sqlx::query_scalar(schema.sql("select version from {s}.stream where name = $1"))
            .bind(name.as_str())
            .persistent(persistent)
            .fetch_optional(conn)
            .await?;
    Ok(Version(unsigned(version.unwrap_or_default(), "a stream's version")?))
}

/// The events under these ids, with their seqs.
pub(crate) async fn by_ids(
    conn: &mut PgConnection,
    schema: &Schema,
    ids: &[Uuid],
    persistent: bool,
) -> sqlx::Result<HashMap<Uuid, (Recorded, u64)>> {
    let sql = concat!(
        "select ",
        columns!(),
        ", e.seq from {s}.event e join {s}.stream s on s.id = e.stream left join {s}.feed f on f.seq = e.seq
         where e.id = any($1)"
    );
    let rows = sqlx::query(schema.sql(sql)).bind(ids).persistent(persistent).fetch_all(conn).await?;
    let mut shared = Shared::default();
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let event = shared.event(row, 0)?;
        found.insert(event.id, (event, unsigned(row.try_get(12)?, "an event's seq")?));
    }
    Ok(found)
}

/// The end of the feed; none while it is empty.
pub(crate) async fn head(
    conn: &mut PgConnection,
    schema: &Schema,
    persistent: bool,
) -> sqlx::Result<Option<Head>> {
    let sql = "select position, hash from {s}.feed order by position desc limit 1";
    let row = sqlx::query(schema.sql(sql)).persistent(persistent).fetch_optional(conn).await?;
    row.map(|row| head_of(&row)).transpose()
}

/// The event at a position and the chain's hash there.
pub(crate) async fn head_at(
    conn: &mut PgConnection,
    schema: &Schema,
    position: Position,
    persistent: bool,
) -> sqlx::Result<Option<Head>> {
    let sql = "select position, hash from {s}.feed where position = $1";
    let Ok(stored) = i64::try_from(position.0) else { return Ok(None) };
    let row = sqlx::query(schema.sql(sql)).bind(stored).persistent(persistent).fetch_optional(conn).await?;
    row.map(|row| head_of(&row)).transpose()
}

fn head_of(row: &PgRow) -> sqlx::Result<Head> {
    let position = Position(unsigned(row.try_get(0)?, "a position")?);
    Ok(Head { position, hash: hash_of(row.try_get(1)?)? })
}

/// A part of the feed. When it ends before `after`, the page says so and holds nothing.
pub(crate) async fn feed(
    conn: &mut PgConnection,
    schema: &Schema,
    query: &Query,
    after: Position,
    max: usize,
    persistent: bool,
) -> sqlx::Result<Page> {
    if query.is_all() {
        whole(conn, schema, after, max, persistent).await
    } else {
        selected(conn, schema, query, after, max, persistent).await
    }
}

/// Every event: positions are dense, so a page is a range, read together with the feed's end.
async fn whole(
    conn: &mut PgConnection,
    schema: &Schema,
    after: Position,
    max: usize,
    persistent: bool,
) -> sqlx::Result<Page> {
    let sql = concat!(
        "select h.position as head, ",
        outer!(),
        " from (select coalesce((select position from {s}.feed order by position desc limit 1), 0) as position) h
          left join lateral (select ",
        columns!(),
        " from {s}.feed f join {s}.event e on e.seq = f.seq join {s}.stream s on s.id = e.stream
          where f.position > $1 and f.position <= $2 order by f.position) x on true"
    );
    let rows = sqlx::query(schema.sql(sql))
        .bind(signed(after.0))
        .bind(signed(after.0).saturating_add(max as i64))
        .persistent(persistent)
        .fetch_all(conn)
        .await?;
    let mut page = Page { events: Vec::with_capacity(rows.len()), next: after, head: Position::START };
    let mut shared = Shared::default();
    for row in &rows {
        page.head = Position(unsigned(row.try_get(0)?, "a position")?);
        if row.try_get::<Option<i64>, _>(1)?.is_some() {
            page.events.push(shared.event(row, 1)?);
        }
    }
    page.events.sort_by_key(|event| event.position);
    if let Some(last) = page.events.last() {
        page.next = last.position;
    }
    Ok(page)
}

/// Events that match: candidates from the index by key first, then those of them that really match. What is in the
/// feed never changes, so the two may be of two moments.
async fn selected(
    conn: &mut PgConnection,
    schema: &Schema,
    query: &Query,
    after: Position,
    max: usize,
    persistent: bool,
) -> sqlx::Result<Page> {
    let head = head(conn, schema, persistent).await?.map_or(Position::START, |head| head.position);
    let mut page = Page { events: Vec::new(), next: after, head };
    if after >= head || max == 0 {
        return Ok(page);
    }
    let mut looked: Vec<i64> = query.items.iter().flat_map(keys::of_item).collect();
    looked.sort_unstable();
    looked.dedup();
    let most = max.max(250) * CANDIDATES;
    let sql = "select distinct c.position from unnest($1::bigint[]) looked(key)
        cross join lateral (
            select k.position from {s}.feed_key k
            where k.key = looked.key and k.position > $2 and k.position <= $3
            order by k.position limit $4) c
        order by c.position limit $4";
    let candidates: Vec<i64> = sqlx::query_scalar(schema.sql(sql))
        .bind(looked)
        .bind(signed(after.0))
        .bind(signed(head.0))
        .bind(most as i64)
        .persistent(persistent)
        .fetch_all(&mut *conn)
        .await?;
    // All that match up to here are among the candidates.
    let covered = match candidates.last() {
        Some(last) if candidates.len() == most => Position(unsigned(*last, "a position")?),
        _ => head,
    };
    page.next = covered;
    if candidates.is_empty() {
        return Ok(page);
    }
    let sql = concat!(
        "select ",
        columns!(),
        " from unnest($1::bigint[]) c(position) join {s}.feed f on f.position = c.position
          join {s}.event e on e.seq = f.seq join {s}.stream s on s.id = e.stream
          where exists (
            select from jsonb_to_recordset($2::text::jsonb) x(t text[], g text[])
            where (x.t is null or e.type = any(x.t))
              and (x.g is null or string_to_array(e.tags, E'\\n') @> x.g))
          order by f.position limit $3"
    );
    let rows = sqlx::query(schema.sql(sql))
        .bind(candidates)
        .bind(conditions::items(query))
        .bind(max as i64)
        .persistent(persistent)
        .fetch_all(conn)
        .await?;
    let mut shared = Shared::default();
    for row in &rows {
        page.events.push(shared.event(row, 0)?);
    }
    if let Some(last) = page.events.last().filter(|_| page.events.len() == max) {
        page.next = last.position;
    }
    Ok(page)
}

/// Does this server take writes, and how old is the heartbeat that it has? None before the first round.
pub(crate) async fn heartbeat(
    conn: &mut PgConnection,
    schema: &Schema,
    persistent: bool,
) -> sqlx::Result<(bool, Option<Duration>)> {
    let sql = "select not pg_is_in_recovery(),
                   (select greatest(extract(epoch from clock_timestamp() - at), 0)::float8 from {s}.heartbeat)";
    let row = sqlx::query(schema.sql(sql)).persistent(persistent).fetch_one(conn).await?;
    let age: Option<f64> = row.try_get(1)?;
    Ok((row.try_get(0)?, age.and_then(|age| Duration::try_from_secs_f64(age).ok())))
}

/// Is anything committed that has no place in the feed yet?
pub(crate) async fn is_unsettled(
    conn: &mut PgConnection,
    schema: &Schema,
    persistent: bool,
) -> sqlx::Result<bool> {
    let sql = "select exists(
                   select from (select settled from {s}.round order by number desc limit 1) r
                   cross join lateral (
                       (select from {s}.event e where e.xid >= pg_snapshot_xmax(r.settled) limit 1)
                       union all
                       (select from {s}.event e where e.xid = any(array(select pg_snapshot_xip(r.settled))) limit 1)
                   ) e)";
    sqlx::query_scalar(schema.sql(sql)).persistent(persistent).fetch_one(conn).await
}
