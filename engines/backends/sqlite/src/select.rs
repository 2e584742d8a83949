//! Finding events: by position, by stream, by type and tag. Used by readers and, under the write lock, by the writer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_envelope::Timestamp;
use mainstay_event_store::{
    EventType, Hash, KeyId, Payload, Position, Query, Recorded, StreamName, Tags, Version,
};
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use crate::prepare::{tag_key, type_key};

/// Columns of an event, in the order [`Names::event`] reads them.
macro_rules! columns {
    () => {
        "position, stream, version, id, type, schema, at, tags, envelope, key, payload, hash"
    };
}

/// Names met by one connection, so that reading a feed makes few of them twice. Bounded: a stream with a number
/// past [`STREAMS_MAX`] is looked up each time.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// By the stream's number: they are given densely, so a table is smaller and faster than a map.
    streams: Vec<Option<StreamName>>,
    /// The last type and envelope met: in a feed the next event often has the same.
    event_type: Option<EventType>,
    envelope: Bytes,
}

const STREAMS_MAX: usize = 100_000;

fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(format!("an event's {what} is not what was written")),
    )
}

impl Names {
    /// Forgets everything: what was met may have been rolled back.
    pub(crate) fn clear(&mut self) {
        self.streams.clear();
    }

    fn stream(&mut self, conn: &Connection, id: i64) -> rusqlite::Result<StreamName> {
        let place = usize::try_from(id).ok().filter(|place| *place < STREAMS_MAX);
        if let Some(Some(name)) = place.and_then(|place| self.streams.get(place)) {
            return Ok(name.clone());
        }
        let name: String = conn
            .prepare_cached("select name from main.mainstay_streams where id = ?1")?
            .query_row([id], |row| row.get(0))?;
        let name = StreamName::new(name).map_err(|_| damaged("stream"))?;
        if let Some(place) = place {
            if self.streams.len() <= place {
                self.streams.resize(place + 1, None);
            }
            self.streams[place] = Some(name.clone());
        }
        Ok(name)
    }

    fn event_type(&mut self, text: &str) -> rusqlite::Result<EventType> {
        if let Some(name) = self.event_type.as_ref().filter(|name| name.as_str() == text) {
            return Ok(name.clone());
        }
        let name = EventType::new(text).map_err(|_| damaged("type"))?;
        Ok(self.event_type.insert(name).clone())
    }

    fn envelope(&mut self, bytes: &[u8]) -> Bytes {
        if self.envelope != bytes {
            self.envelope = Bytes::copy_from_slice(bytes);
        }
        self.envelope.clone()
    }

    /// Reads an event from a row of [`columns`], all but its payload and tags.
    fn event(&mut self, conn: &Connection, row: &Row<'_>) -> rusqlite::Result<Recorded> {
        let blob = |column: usize| -> rusqlite::Result<&[u8]> {
            row.get_ref(column)?.as_blob().map_err(|_| damaged("bytes"))
        };
        let text = |column: usize| -> rusqlite::Result<&str> {
            row.get_ref(column)?.as_str().map_err(|_| damaged("text"))
        };
        let key = match row.get_ref(9)?.as_str_or_null().map_err(|_| damaged("key"))? {
            Some(key) => Some(KeyId::new(key).map_err(|_| damaged("key"))?),
            None => None,
        };
        Ok(Recorded {
            position: Position(row.get::<_, i64>(0)? as u64),
            stream: self.stream(conn, row.get(1)?)?,
            version: Version(row.get::<_, i64>(2)? as u64),
            id: Uuid::from_slice(blob(3)?).map_err(|_| damaged("id"))?,
            event_type: self.event_type(text(4)?)?,
            schema: row.get(5)?,
            at: Timestamp::from_millis(row.get(6)?),
            tags: Tags::default(),
            envelope: self.envelope(blob(8)?),
            payload: Payload { bytes: Bytes::new(), key },
            hash: Hash(blob(11)?.try_into().map_err(|_| damaged("hash"))?),
        })
    }
}

/// Events being read. Their tags and payloads go into one buffer, of which each event has slices in the end: an
/// allocation a page instead of some for each event.
#[derive(Debug, Default)]
struct Collected {
    events: Vec<Recorded>,
    bytes: Vec<u8>,
    /// Of each event, where its tags end and where its payload does.
    ends: Vec<(usize, usize)>,
}

impl Collected {
    /// Reads an event from a row of [`columns`], if it is wanted; its position.
    fn push(
        &mut self,
        conn: &Connection,
        names: &mut Names,
        row: &Row<'_>,
        wanted: impl FnOnce(&str, &str) -> bool,
    ) -> rusqlite::Result<Position> {
        let text = |column: usize| row.get_ref(column)?.as_str().map_err(|_| damaged("text"));
        let tags = text(7)?;
        if wanted(text(4)?, tags) {
            self.events.push(names.event(conn, row)?);
            self.bytes.extend_from_slice(tags.as_bytes());
            let tags = self.bytes.len();
            self.bytes.extend_from_slice(row.get_ref(10)?.as_blob().map_err(|_| damaged("payload"))?);
            self.ends.push((tags, self.bytes.len()));
        }
        Ok(Position(row.get::<_, i64>(0)? as u64))
    }

    fn full(&self) -> bool {
        self.bytes.len() >= PAGE_BYTES_MAX
    }

    fn finish(mut self) -> Vec<Recorded> {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        for (event, (tags, end)) in self.events.iter_mut().zip(self.ends) {
            if tags > start {
                event.tags = Tags::from_stored(bytes.slice(start..tags)).unwrap_or_default();
            }
            event.payload.bytes = bytes.slice(tags..end);
            start = end;
        }
        self.events
    }
}

/// Bytes of tags and payloads after which a page ends, however few events it holds.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// How much one read transaction may look at: it must not hold back the write-ahead log's reuse.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) until: Instant,
}

impl Budget {
    pub(crate) fn new(lasts: Duration) -> Self {
        Self { until: Instant::now() + lasts }
    }

    fn spent(&self, looked_at: usize) -> bool {
        looked_at.is_multiple_of(64) && Instant::now() >= self.until
    }
}

/// The stream's number and last version, if it was ever written to.
pub(crate) fn stream(conn: &Connection, stream: &StreamName) -> rusqlite::Result<Option<(i64, Version)>> {
    conn.prepare_cached(
        "select s.id, (select e.version from main.mainstay_events e where e.stream = s.id
                        order by e.version desc limit 1)
         from main.mainstay_streams s where s.name = ?1",
    )?
    .query_row([stream.as_str()], |row| {
        Ok((row.get(0)?, Version(row.get::<_, Option<i64>>(1)?.unwrap_or(0) as u64)))
    })
    .optional()
}

/// The end of the feed; nothing when it is empty.
pub(crate) fn head(conn: &Connection) -> rusqlite::Result<Option<(Position, Hash)>> {
    conn.prepare_cached("select position, hash from main.mainstay_events order by position desc limit 1")?
        .query_row([], hash_at)
        .optional()
}

/// The chain's hash at a position.
pub(crate) fn head_at(conn: &Connection, position: Position) -> rusqlite::Result<Option<(Position, Hash)>> {
    conn.prepare_cached("select position, hash from main.mainstay_events where position = ?1")?
        .query_row([position.0 as i64], hash_at)
        .optional()
}

fn hash_at(row: &Row<'_>) -> rusqlite::Result<(Position, Hash)> {
    let hash = row.get_ref(1)?.as_blob().map_err(|_| damaged("hash"))?;
    let hash = Hash(hash.try_into().map_err(|_| damaged("hash"))?);
    Ok((Position(row.get::<_, i64>(0)? as u64), hash))
}

/// The event with this id.
pub(crate) fn by_id(conn: &Connection, names: &mut Names, id: &Uuid) -> rusqlite::Result<Option<Recorded>> {
    conn.prepare_cached(concat!("select ", columns!(), " from main.mainstay_events where id = ?1"))?
        .query_row([id.as_bytes().as_slice()], |row| {
            let mut found = Collected::default();
            found.push(conn, names, row, |_, _| true)?;
            Ok(found.finish().pop())
        })
        .optional()
        .map(Option::flatten)
}

/// Is this id taken?
pub(crate) fn has_id(conn: &Connection, id: &Uuid) -> rusqlite::Result<bool> {
    conn.prepare_cached("select 1 from main.mainstay_events where id = ?1")?
        .exists([id.as_bytes().as_slice()])
}

/// Events of one stream.
pub(crate) fn stream_events(
    conn: &Connection,
    names: &mut Names,
    stream: i64,
    from: Version,
    backwards: bool,
    max: usize,
    budget: Budget,
) -> rusqlite::Result<Vec<Recorded>> {
    let mut statement = conn.prepare_cached(if backwards {
        concat!(
            "select ",
            columns!(),
            " from main.mainstay_events
                 where stream = ?1 and version <= ?2 order by version desc limit ?3"
        )
    } else {
        concat!(
            "select ",
            columns!(),
            " from main.mainstay_events
                 where stream = ?1 and version >= ?2 order by version limit ?3"
        )
    })?;
    let from = i64::try_from(from.0).unwrap_or(i64::MAX);
    let mut rows = statement.query((stream, from, max as i64))?;
    let mut found = Collected::default();
    while let Some(row) = rows.next()? {
        found.push(conn, names, row, |_, _| true)?;
        if found.full() || budget.spent(found.events.len()) {
            break;
        }
    }
    Ok(found.finish())
}

/// Events that match a query after a position, and up to where was looked. `head` is the feed's end in the
/// same read transaction.
pub(crate) fn feed(
    conn: &Connection,
    names: &mut Names,
    query: &Query,
    after: Position,
    head: Position,
    max: usize,
    budget: Budget,
) -> rusqlite::Result<(Vec<Recorded>, Position)> {
    if max == 0 {
        return Ok((Vec::new(), after));
    }
    if !query.is_all() {
        return by_keys(conn, names, query, after, head, max, budget);
    }
    let mut statement = conn.prepare_cached(concat!(
        "select ",
        columns!(),
        " from main.mainstay_events where position > ?1 order by position limit ?2"
    ))?;
    let mut rows = statement.query((after.0 as i64, max as i64))?;
    let mut found = Collected::default();
    found.events.reserve(max.min((head.0 - after.0) as usize));
    let mut next = after;
    while let Some(row) = rows.next()? {
        next = found.push(conn, names, row, |_, _| true)?;
        if found.full() || budget.spent(found.events.len()) {
            return Ok((found.finish(), next));
        }
    }
    // Positions are dense, so running out of rows before `max` means the end was reached.
    let next = if found.events.len() < max { head } else { next };
    Ok((found.finish(), next))
}

/// The keys that together lead to every event the query may match: for each item its first tag, or all its types.
fn leading_keys(query: &Query) -> Vec<i64> {
    let mut keys: Vec<i64> = query
        .items
        .iter()
        .flat_map(|item| match item.tags.first() {
            Some(tag) => vec![tag_key(tag)],
            None => item.types.iter().map(type_key).collect(),
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The next positions under any of the keys, in order, at most `max`.
fn candidates(conn: &Connection, keys: &[i64], after: Position, max: usize) -> rusqlite::Result<Vec<i64>> {
    let mut statement = conn.prepare_cached(
        "select position from main.mainstay_keys where key = ?1 and position > ?2 order by position limit ?3",
    )?;
    let mut positions = Vec::new();
    for key in keys {
        let mut rows = statement.query((key, after.0 as i64, max as i64))?;
        while let Some(row) = rows.next()? {
            positions.push(row.get::<_, i64>(0)?);
        }
    }
    if keys.len() > 1 {
        positions.sort_unstable();
        positions.dedup();
        // Past the first `max`, a key whose own list was cut may have positions that are not here.
        positions.truncate(max);
    }
    Ok(positions)
}

fn by_keys(
    conn: &Connection,
    names: &mut Names,
    query: &Query,
    after: Position,
    head: Position,
    max: usize,
    budget: Budget,
) -> rusqlite::Result<(Vec<Recorded>, Position)> {
    let positions = candidates(conn, &leading_keys(query), after, max)?;
    let (Some(first), Some(last)) = (positions.first(), positions.last()) else {
        return Ok((Vec::new(), head));
    };
    let mut found = Collected::default();
    // Where most events match, one walk is cheaper than a look-up each; in between nothing matches anyway.
    let dense = last - first < 3 * positions.len() as i64;
    let mut statement = conn.prepare_cached(concat!(
        "select ",
        columns!(),
        " from main.mainstay_events where position between ?1 and ?2 order by position"
    ))?;
    let walks = if dense { std::slice::from_ref(first) } else { positions.as_slice() };
    let mut looked_at = 0;
    for from in walks {
        let mut rows = statement.query((from, if dense { last } else { from }))?;
        let before = looked_at;
        while let Some(row) = rows.next()? {
            let position = found.push(conn, names, row, |kind, tags| query.matches(kind, tags))?;
            looked_at += 1;
            if found.full() || budget.spent(looked_at) {
                return Ok((found.finish(), position));
            }
        }
        if looked_at == before {
            return Err(damaged("index entry"));
        }
    }
    let next = match positions.last() {
        Some(last) if positions.len() == max => Position(*last as u64),
        _ => head,
    };
    Ok((found.finish(), next))
}

/// The first event that matches after a position, under the write lock.
pub(crate) fn first_match(
    conn: &Connection,
    query: &Query,
    mut after: Position,
) -> rusqlite::Result<Option<Position>> {
    if query.is_all() {
        return Ok(head(conn)?.filter(|(position, _)| *position > after).map(|_| after.next()));
    }
    const LOOK: usize = 256;
    let keys = leading_keys(query);
    let mut statement =
        conn.prepare_cached("select type, tags from main.mainstay_events where position = ?1")?;
    loop {
        let positions = candidates(conn, &keys, after, LOOK)?;
        for position in &positions {
            let matches = statement.query_row([position], |row| {
                let text = |column: usize| row.get_ref(column)?.as_str().map_err(|_| damaged("text"));
                Ok(query.matches(text(0)?, text(1)?))
            })?;
            if matches {
                return Ok(Some(Position(*position as u64)));
            }
        }
        match positions.last() {
            Some(last) if positions.len() == LOOK => after = Position(*last as u64),
            _ => return Ok(None),
        }
    }
}
