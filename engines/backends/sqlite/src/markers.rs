//! Markers of archived ranges as rows, and what readers are told that meet one.

use mainstay_event_store::{Archived, Hash, Position, ReadError, Recorded, Refusal};
use rusqlite::{Connection, OptionalExtension, Row};

/// Columns of a marker, in the order [`marker`] reads them.
macro_rules! columns {
    () => {
        "first, last, events, first_hash, last_hash, digest, file"
    };
}

/// The markers, in order.
pub(crate) fn all(conn: &Connection) -> rusqlite::Result<Vec<Archived>> {
    conn.prepare_cached(concat!("select ", columns!(), " from main.mainstay_archives order by first"))?
        .query_map([], marker)?
        .collect()
}

fn marker(row: &Row<'_>) -> rusqlite::Result<Archived> {
    let hash = |column| row.get::<_, [u8; 32]>(column).map(Hash);
    Ok(Archived {
        from: Position(row.get::<_, i64>(0)? as u64),
        to: Position(row.get::<_, i64>(1)? as u64),
        count: row.get::<_, i64>(2)? as u64,
        first: hash(3)?,
        last: hash(4)?,
        digest: hash(5)?,
        file: row.get(6)?,
    })
}

/// Is this event archived? Its row is there, its content is not.
pub(crate) fn is_archived(event: &Recorded) -> bool {
    event.envelope.is_empty()
}

/// What of a page can be handed out: up to the first archived event. When that one is the very first, the reader
/// must know, since it would miss events.
pub(crate) fn present(
    conn: &Connection,
    mut events: Vec<Recorded>,
) -> rusqlite::Result<Result<Vec<Recorded>, ReadError>> {
    // Archived ranges lie before all others: one look at each end tells of a page without them.
    if ![events.first(), events.last()].into_iter().flatten().any(is_archived) {
        return Ok(Ok(events));
    }
    match events.iter().position(is_archived) {
        Some(0) => Ok(Err(of(conn, events[0].position)?)),
        Some(first) => {
            events.truncate(first);
            Ok(Ok(events))
        }
        None => Ok(Ok(events)),
    }
}

/// The same for a reader inside a transaction.
pub(crate) fn refused(error: ReadError) -> Refusal {
    let why = error.to_string();
    Refusal::Unavailable {
        why,
        remedy: "keep what you need of old events in a view or a snapshot".into(),
        passing: false,
    }
}

/// What a reader is told that asks for this position.
fn of(conn: &Connection, position: Position) -> rusqlite::Result<ReadError> {
    let found = conn
        .prepare_cached(concat!(
            "select ",
            columns!(),
            " from main.mainstay_archives where first <= ?1 order by first desc limit 1"
        ))?
        .query_row([position.0 as i64], marker)
        .optional()?;
    Ok(match found.filter(|found| found.contains(position)) {
        Some(Archived { from, to, file, .. }) => ReadError::Archived { from, to, file },
        None => ReadError::Damaged { why: format!("the event at position {position} has no envelope") },
    })
}
