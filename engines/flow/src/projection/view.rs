//! A projection's rows, typed, inside one transaction.
//!
//! Rows are written behind: a row that many events of one transaction change is read once and written once.
//! From one transaction to the next they are kept only by [`Kept`], which says when they still hold.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;

use mainstay_event_store::{Cursor, IndexEntry, Position, Row, Scan, ScanBy, Tx, ViewName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::event::without_values;

/// Rows held back, or kept, at most.
const HELD_MAX: usize = 16_384;

/// Rows are let go after so many bytes of them were written: no more can be held.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The rows of one projection, as its `apply` reads and writes them. Reads see the writes before them.
pub struct View<'a, R> {
    tx: &'a dyn Tx,
    name: &'a ViewName,
    indices: fn(&R) -> Vec<IndexEntry>,
    held: RefCell<HashMap<String, Held<R>>>,
    /// How many of them are to be written.
    changed: Cell<usize>,
    /// Bytes written of them since they were last let go.
    bytes: Cell<usize>,
    /// The event being applied.
    now: Cell<Position>,
}

/// A row as this transaction will write it; none: as it will remove it.
struct Held<R> {
    row: Option<R>,
    /// The event that changed it last; none when it is as it is stored.
    changed_by: Option<Position>,
}

/// Rows kept between the transactions of one projector, so that it need not read what it has just written.
///
/// They hold for exactly one moment: the checkpoint at `at`, in one generation. A transaction begins by moving the
/// checkpoint from where it takes them, so it is refused when anybody else has applied anything meanwhile.
pub(super) struct Kept<R> {
    at: Position,
    view: Option<ViewName>,
    rows: HashMap<String, Held<R>>,
    bytes: usize,
}

impl<R> Default for Kept<R> {
    fn default() -> Self {
        Self { at: Position::START, view: None, rows: HashMap::new(), bytes: 0 }
    }
}

impl<R> fmt::Debug for View<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("name", self.name).finish_non_exhaustive()
    }
}

impl<'a, R: Serialize + DeserializeOwned> View<'a, R> {
    pub(crate) fn new(tx: &'a dyn Tx, name: &'a ViewName, indices: fn(&R) -> Vec<IndexEntry>) -> Self {
        let now = Cell::new(Position::START);
        Self { tx, name, indices, held: RefCell::default(), changed: Cell::new(0), bytes: Cell::new(0), now }
    }

    /// Begins with the rows that were kept, if they are those of this view at this checkpoint.
    pub(super) fn resume(self, kept: Kept<R>, at: Position) -> Self {
        if kept.at == at && kept.view.as_ref() == Some(self.name) {
            self.held.replace(kept.rows);
            self.bytes.set(kept.bytes);
        }
        self
    }

    /// Keeps the rows for the transaction that begins at this checkpoint. After [`View::flush`].
    pub(super) fn keep(self, at: Position) -> Kept<R> {
        let (rows, bytes) = (self.held.into_inner(), self.bytes.get());
        if rows.len() >= HELD_MAX || bytes > KEPT_BYTES_MAX {
            return Kept::default();
        }
        Kept { at, view: Some(self.name.clone()), rows, bytes }
    }

    /// The row under a key.
    pub fn get(&self, key: &str) -> Result<Option<R>, Failure> {
        if let Some(held) = self.held.borrow().get(key) {
            // A row need not be Clone: what is written behind is handed out by way of its JSON, as it will be
            // read again.
            let copy = |row| decode_row(self.name, key, &self.encode(key, row)?);
            return held.row.as_ref().map(copy).transpose();
        }
        self.stored(key)
    }

    /// Writes a row, in place of any earlier one. At most 1 MiB of JSON.
    pub fn put(&self, key: &str, row: &R) -> Result<(), Failure> {
        let copy = decode_row(self.name, key, &self.encode(key, row)?)?;
        self.hold(key, Some(copy))
    }

    /// Changes the row under a key; begins with the default row when there is none. Cheaper than `get` and
    /// `put`: a row that was changed before in this transaction is changed in place.
    pub fn update(&self, key: &str, change: impl FnOnce(&mut R)) -> Result<(), Failure>
    where
        R: Default,
    {
        if let Some(held) = self.held.borrow_mut().get_mut(key) {
            change(held.row.get_or_insert_default());
            if held.changed_by.replace(self.now.get()).is_none() {
                self.changed.set(self.changed.get() + 1);
            }
            return Ok(());
        }
        let mut row = self.stored(key)?.unwrap_or_default();
        change(&mut row);
        self.hold(key, Some(row))
    }

    /// Removes the row under a key; was there one?
    pub fn delete(&self, key: &str) -> Result<bool, Failure> {
        let held = self.held.borrow().get(key).map(|held| held.row.is_some());
        let there = match held {
            Some(there) => there,
            None => self.tx.view_get(self.name, key)?.is_some(),
        };
        self.hold(key, None)?;
        Ok(there)
    }

    /// At most `rows_max` rows by key or by index, after an earlier page.
    pub fn scan(&self, by: ScanBy, after: Option<Cursor>, rows_max: usize) -> Result<Found<R>, Failure> {
        self.flush().map_err(|(_, why)| why)?;
        let rows = self.tx.view_scan(&Scan { view: self.name.clone(), by, after, rows_max })?;
        decode_rows(self.name, rows)
    }

    /// What follows is this event's doing.
    pub(super) fn begin(&self, event: Position) {
        self.now.set(event);
    }

    /// Writes everything that was held back; on failure, the event whose row it was.
    pub(super) fn flush(&self) -> Result<(), (Position, Failure)> {
        let mut held = self.held.borrow_mut();
        let mut changed: Vec<_> = Vec::with_capacity(self.changed.take());
        changed.extend(held.iter_mut().filter_map(|(key, held)| {
            let changed_by = held.changed_by.take()?;
            Some((key, changed_by, held.row.as_ref()))
        }));
        // In the order of the keys: cheaper to insert, and the same each time.
        changed.sort_unstable_by_key(|changed| changed.0);
        for (key, changed_by, row) in changed {
            self.write(key, row).map_err(|why| (changed_by, why))?;
        }
        if held.len() >= HELD_MAX || self.bytes.get() > KEPT_BYTES_MAX {
            held.clear();
            self.bytes.set(0);
        }
        Ok(())
    }

    fn write(&self, key: &str, row: Option<&R>) -> Result<(), Failure> {
        match row {
            Some(row) => {
                let value = self.encode(key, row)?;
                self.bytes.set(self.bytes.get() + value.len());
                let row = Row { key: key.to_owned(), value, indices: (self.indices)(row) };
                Ok(self.tx.view_put(self.name, &row)?)
            }
            None => Ok(self.tx.view_delete(self.name, key).map(drop)?),
        }
    }

    fn hold(&self, key: &str, row: Option<R>) -> Result<(), Failure> {
        let mut held = self.held.borrow_mut();
        let before = held.insert(key.to_owned(), Held { row, changed_by: Some(self.now.get()) });
        if before.is_none_or(|before| before.changed_by.is_none()) {
            self.changed.set(self.changed.get() + 1);
        }
        let full = held.len() >= HELD_MAX;
        drop(held);
        if full { self.flush().map_err(|(_, why)| why) } else { Ok(()) }
    }

    fn stored(&self, key: &str) -> Result<Option<R>, Failure> {
        let bytes = self.tx.view_get(self.name, key)?;
        bytes.map(|bytes| decode_row(self.name, key, &bytes)).transpose()
    }

    fn encode(&self, key: &str, row: &R) -> Result<Vec<u8>, Failure> {
        serde_json::to_vec(row).map_err(|error| Failure::Encode {
            view: self.name.to_string(),
            key: key.to_owned(),
            why: without_values(&error),
        })
    }
}

/// A page of typed rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<R> {
    /// Keys and rows, in the scan's order.
    pub rows: Vec<(String, R)>,
    /// Where to go on; none at the end.
    pub next: Option<Cursor>,
}

pub(super) fn decode_row<R: DeserializeOwned>(
    view: &ViewName,
    key: &str,
    bytes: &[u8],
) -> Result<R, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::Row {
        view: view.to_string(),
        key: key.to_owned(),
        why: without_values(&error),
    })
}

pub(super) fn decode_rows<R: DeserializeOwned>(
    view: &ViewName,
    found: mainstay_event_store::Rows,
) -> Result<Found<R>, Failure> {
    let rows = found.rows.into_iter().map(|(key, bytes)| {
        let row = decode_row(view, &key, &bytes)?;
        Ok((key, row))
    });
    Ok(Found { rows: rows.collect::<Result<_, Failure>>()?, next: found.next })
}
