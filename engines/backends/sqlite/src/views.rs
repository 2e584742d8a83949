//! The portable view's rows and indices.

use std::collections::HashMap;

use mainstay_event_store::{Cursor, IndexValue, Row, Rows, Scan, ScanBy, ViewName, limits, prefix_end};
use rusqlite::{Connection, OptionalExtension, params_from_iter, types::Value};

/// What is known of a view.
#[derive(Debug, Clone, Copy)]
struct View {
    id: i64,
    /// Has any of its rows an index entry? If not, a row is replaced without looking for its old entries.
    indexed: bool,
}

/// Views met by one connection, as long as nobody else can have changed them.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<ViewName, View>);

const KNOWN_MAX: usize = 1_000;

/// Bytes after which a page of rows ends, however few it holds.
const SCAN_BYTES_MAX: usize = 4 << 20;

impl Known {
    /// Forgets everything: another process has written, or something was rolled back.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn find(&mut self, conn: &Connection, view: &ViewName) -> rusqlite::Result<Option<View>> {
        if let Some(view) = self.0.get(view) {
            return Ok(Some(*view));
        }
        let found = conn
            .prepare_cached(
                "select id, exists(select 1 from main.mainstay_view_index entry where entry.view = id)
                 from main.mainstay_views where name = ?1",
            )?
            .query_row([view.as_str()], |row| Ok(View { id: row.get(0)?, indexed: row.get(1)? }))
            .optional()?;
        if let Some(found) = found {
            self.keep(view, found);
        }
        Ok(found)
    }

    fn keep(&mut self, name: &ViewName, view: View) {
        if self.0.len() >= KNOWN_MAX {
            self.0.clear();
        }
        self.0.insert(name.clone(), view);
    }

    fn make(&mut self, conn: &Connection, name: &ViewName) -> rusqlite::Result<View> {
        if let Some(view) = self.find(conn, name)? {
            return Ok(view);
        }
        conn.prepare_cached("insert into main.mainstay_views(name) values (?1)")?.execute([name.as_str()])?;
        let view = View { id: conn.last_insert_rowid(), indexed: false };
        self.keep(name, view);
        Ok(view)
    }
}

pub(crate) fn get(
    conn: &Connection,
    known: &mut Known,
    view: &ViewName,
    key: &str,
) -> rusqlite::Result<Option<Vec<u8>>> {
    let Some(View { id: view, .. }) = known.find(conn, view)? else { return Ok(None) };
    conn.prepare_cached("select value from main.mainstay_view_rows where view = ?1 and key = ?2")?
        .query_row((view, key), |row| row.get(0))
        .optional()
}

/// The index entries of a row, as kept beside it so that they can be taken back: name, zero byte, length, value.
fn pack(row: &Row) -> Option<Vec<u8>> {
    if row.indices.is_empty() {
        return None;
    }
    let mut packed = Vec::new();
    for entry in &row.indices {
        let value = entry.value.to_ordered_bytes();
        packed.extend_from_slice(&(entry.index.len() as u16).to_le_bytes());
        packed.extend_from_slice(entry.index.as_bytes());
        packed.extend_from_slice(&(value.len() as u16).to_le_bytes());
        packed.extend_from_slice(&value);
    }
    Some(packed)
}

fn unpack(mut packed: &[u8]) -> Vec<(&str, &[u8])> {
    fn part<'a>(packed: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = packed.split_first_chunk::<2>()?;
        let (part, rest) = rest.split_at_checked(u16::from_le_bytes(*length) as usize)?;
        *packed = rest;
        Some(part)
    }
    let mut entries = Vec::new();
    while let (Some(name), Some(value)) = (part(&mut packed), part(&mut packed)) {
        entries.push((std::str::from_utf8(name).unwrap_or_default(), value));
    }
    entries
}

/// A row as it stands: its place in the table, and its index entries, packed.
struct Standing {
    id: i64,
    entries: Vec<u8>,
}

fn standing(conn: &Connection, view: i64, key: &str) -> rusqlite::Result<Option<Standing>> {
    conn.prepare_cached("select id, indices from main.mainstay_view_rows where view = ?1 and key = ?2")?
        .query_row((view, key), |row| {
            Ok(Standing { id: row.get(0)?, entries: row.get::<_, Option<_>>(1)?.unwrap_or_default() })
        })
        .optional()
}

fn drop_entry(conn: &Connection, view: i64, key: &str, (name, value): (&str, &[u8])) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "delete from main.mainstay_view_index where view = ?1 and name = ?2 and value = ?3 and key = ?4",
    )?
    .execute((view, name, value, key))
    .map(drop)
}

/// Removes a row with its entries; false where there is none.
fn remove(conn: &Connection, view: i64, key: &str) -> rusqlite::Result<bool> {
    let Some(Standing { id, entries }) = standing(conn, view, key)? else { return Ok(false) };
    unpack(&entries).into_iter().try_for_each(|entry| drop_entry(conn, view, key, entry))?;
    conn.prepare_cached("delete from main.mainstay_view_rows where id = ?1")?.execute([id])?;
    Ok(true)
}

pub(crate) fn put(conn: &Connection, known: &mut Known, name: &ViewName, row: &Row) -> rusqlite::Result<()> {
    let View { id: view, indexed } = known.make(conn, name)?;
    let before = if indexed { standing(conn, view, &row.key)? } else { None };
    if !indexed && !row.indices.is_empty() {
        known.keep(name, View { id: view, indexed: true });
    }
    let after = pack(row);
    match &before {
        Some(before) => conn
            .prepare_cached("update main.mainstay_view_rows set value = ?2, indices = ?3 where id = ?1")?
            .execute((before.id, row.value.as_slice(), after.as_deref()))?,
        None => conn
            .prepare_cached(
                "insert into main.mainstay_view_rows(view, key, value, indices) values (?1, ?2, ?3, ?4)
                 on conflict(view, key) do update set value = excluded.value, indices = excluded.indices",
            )?
            .execute((view, row.key.as_str(), row.value.as_slice(), after.as_deref()))?,
    };
    // Most changes of a row leave most of its entries as they are.
    let before = before.as_ref().map_or(&[][..], |row| row.entries.as_slice());
    let (before, after) = (unpack(before), unpack(after.as_deref().unwrap_or_default()));
    for entry in before.iter().filter(|entry| !after.contains(entry)) {
        drop_entry(conn, view, &row.key, *entry)?;
    }
    for (name, value) in after.iter().filter(|entry| !before.contains(entry)) {
        conn.prepare_cached(
            "insert into main.mainstay_view_index(view, name, value, key) values (?1, ?2, ?3, ?4)",
        )?
        .execute((view, name, value, row.key.as_str()))?;
    }
    Ok(())
}

pub(crate) fn delete(
    conn: &Connection,
    known: &mut Known,
    view: &ViewName,
    key: &str,
) -> rusqlite::Result<bool> {
    let Some(View { id: view, .. }) = known.find(conn, view)? else { return Ok(false) };
    remove(conn, view, key)
}

pub(crate) fn clear(
    conn: &Connection,
    known: &mut Known,
    view: &ViewName,
    max: usize,
) -> rusqlite::Result<bool> {
    let Some(View { id: view, .. }) = known.find(conn, view)? else { return Ok(false) };
    let keys: Vec<String> = conn
        .prepare_cached("select key from main.mainstay_view_rows where view = ?1 order by key limit ?2")?
        .query_map((view, max as i64), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for key in &keys {
        remove(conn, view, key)?;
    }
    conn.prepare_cached("select exists(select 1 from main.mainstay_view_rows where view = ?1)")?
        .query_row([view], |row| row.get(0))
}

pub(crate) fn scan(conn: &Connection, known: &mut Known, scan: &Scan) -> rusqlite::Result<Rows> {
    let Some(View { id: view, .. }) = known.find(conn, &scan.view)? else { return Ok(Rows::default()) };
    let max = limits::page(scan.rows_max);
    let after = scan.after.as_ref();
    // One row more than asked for tells whether there is a next page.
    let limit = Value::from(max as i64 + 1);
    let (sql, params) = match &scan.by {
        ScanBy::Key { prefix } => (
            "select key, value, null from main.mainstay_view_rows
             where view = ?1 and key >= ?2 and key > ?3 and (?4 is null or key < ?4)
             order by key limit ?5",
            vec![
                Value::from(view),
                Value::from(prefix.clone()),
                Value::from(after.map_or(String::new(), |cursor| cursor.key.clone())),
                Value::from(prefix_end(prefix)),
                limit,
            ],
        ),
        ScanBy::Index { index, from, to } => {
            let start = after.and_then(|cursor| cursor.value.as_ref()).unwrap_or(from).to_ordered_bytes();
            (
                "select entry.key, rows.value, entry.value from main.mainstay_view_index entry
                 join main.mainstay_view_rows rows on rows.view = entry.view and rows.key = entry.key
                 where entry.view = ?1 and entry.name = ?2
                   and (entry.value, entry.key) > (?3, ?4) and entry.value >= ?5 and entry.value <= ?6
                 order by entry.value, entry.key limit ?7",
                vec![
                    Value::from(view),
                    Value::from((*index).to_owned()),
                    Value::from(start),
                    Value::from(after.map_or(String::new(), |cursor| cursor.key.clone())),
                    Value::from(from.to_ordered_bytes()),
                    Value::from(to.to_ordered_bytes()),
                    limit,
                ],
            )
        }
    };
    let mut statement = conn.prepare_cached(sql)?;
    let mut found = statement.query(params_from_iter(params))?;
    let mut rows = Rows::default();
    let (mut last, mut bytes) = (None, 0);
    while let Some(row) = found.next()? {
        if rows.rows.len() == max || bytes >= SCAN_BYTES_MAX {
            rows.next = last;
            break;
        }
        let key: String = row.get(0)?;
        let value = match row.get::<_, Option<Vec<u8>>>(2)? {
            Some(bytes) => IndexValue::from_ordered_bytes(&bytes),
            None => None,
        };
        last = Some(Cursor { value, key: key.clone() });
        let value: Vec<u8> = row.get(1)?;
        bytes += value.len();
        rows.rows.push((key, value));
    }
    Ok(rows)
}
