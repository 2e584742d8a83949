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

/// Bytes of them at most, but for the last one: their keys and their JSON as it was when they were read, put or
/// written. What is added to a row in place shows when it is written; it comes out of a page of bounded size.
const HELD_BYTES_MAX: usize = 32 << 20;

/// The rows of one projection, as its `apply` reads and writes them. Reads see the writes before them.
pub struct View<'a, R> {
    tx: &'a dyn Tx,
    name: &'a ViewName,
    indices: fn(&R) -> Vec<IndexEntry>,
    held: RefCell<HashMap<String, Held<R>>>,
    /// How many of them are to be written.
    changed: Cell<usize>,
    /// What they take together.
    bytes: Cell<usize>,
    /// The event being applied.
    now: Cell<Position>,
}

/// A row as this transaction will write it; none: as it will remove it.
struct Held<R> {
    row: Option<R>,
    /// The event that changed it last; none when it is as it is stored.
    changed_by: Option<Position>,
    /// Of its key and its JSON, as it was last seen.
    bytes: usize,
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
        if rows.len() >= HELD_MAX || bytes > HELD_BYTES_MAX {
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
        Ok(self.stored(key)?.map(|(row, _)| row))
    }

    /// Writes a row, in place of any earlier one. At most 1 MiB of JSON.
    pub fn put(&self, key: &str, row: &R) -> Result<(), Failure> {
        let bytes = self.encode(key, row)?;
        let copy = decode_row(self.name, key, &bytes)?;
        self.hold(key, Some(copy), bytes.len())
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
        let (mut row, bytes) = self.stored(key)?.unwrap_or_default();
        change(&mut row);
        self.hold(key, Some(row), bytes)
    }

    /// Removes the row under a key; was there one?
    pub fn delete(&self, key: &str) -> Result<bool, Failure> {
        let held = self.held.borrow().get(key).map(|held| held.row.is_some());
        let there = match held {
            Some(there) => there,
            None => self.tx.view_get(self.name, key)?.is_some(),
        };
        self.hold(key, None, 0)?;
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
            Some((key, changed_by, held))
        }));
        // In the order of the keys: cheaper to insert, and the same each time.
        changed.sort_unstable_by_key(|changed| changed.0);
        for (key, changed_by, held) in changed {
            let bytes = key.len() + self.write(key, held.row.as_ref()).map_err(|why| (changed_by, why))?;
            self.weigh(std::mem::replace(&mut held.bytes, bytes), bytes);
        }
        if held.len() >= HELD_MAX || self.bytes.get() > HELD_BYTES_MAX {
            held.clear();
            self.bytes.set(0);
        }
        Ok(())
    }

    /// Writes a row; the bytes of its JSON.
    fn write(&self, key: &str, row: Option<&R>) -> Result<usize, Failure> {
        let Some(row) = row else {
            self.tx.view_delete(self.name, key)?;
            return Ok(0);
        };
        let value = self.encode(key, row)?;
        let bytes = value.len();
        self.tx.view_put(self.name, &Row { key: key.to_owned(), value, indices: (self.indices)(row) })?;
        Ok(bytes)
    }

    /// Holds a row back whose JSON has so many bytes; writes everything that is held when that is too much.
    fn hold(&self, key: &str, row: Option<R>, bytes: usize) -> Result<(), Failure> {
        let (mut held, bytes) = (self.held.borrow_mut(), key.len() + bytes);
        let before = held.insert(key.to_owned(), Held { row, changed_by: Some(self.now.get()), bytes });
        self.weigh(before.as_ref().map_or(0, |before| before.bytes), bytes);
        if before.is_none_or(|before| before.changed_by.is_none()) {
            self.changed.set(self.changed.get() + 1);
        }
        let full = held.len() >= HELD_MAX || self.bytes.get() > HELD_BYTES_MAX;
        drop(held);
        if full { self.flush().map_err(|(_, why)| why) } else { Ok(()) }
    }

    /// A row that took `before` takes `now`.
    fn weigh(&self, before: usize, now: usize) {
        self.bytes.set(self.bytes.get() - before + now);
    }

    /// The row as it is stored, and the bytes of its JSON.
    fn stored(&self, key: &str) -> Result<Option<(R, usize)>, Failure> {
        let bytes = self.tx.view_get(self.name, key)?;
        bytes.map(|bytes| Ok((decode_row(self.name, key, &bytes)?, bytes.len()))).transpose()
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

#[cfg(test)]
mod tests {
    use mainstay_envelope::Context;
    use mainstay_event_store::memory::Memory;
    use mainstay_event_store::{Abort, Store};

    use super::*;

    const ROW: usize = 1_000_000;
    const ROWS: usize = 36;

    fn name() -> ViewName {
        ViewName::new("large#1").unwrap()
    }

    /// Never more than the limit and one row, and what is counted is what is held.
    fn check(view: &View<'_, String>) {
        let held = view.held.borrow();
        let sizes =
            held.iter().map(|(key, held)| key.len() + held.row.as_ref().map_or(0, |row| row.len() + 2));
        let size: usize = sizes.sum();
        assert_eq!(view.bytes.get(), size);
        assert!(size <= HELD_BYTES_MAX + ROW, "{size} bytes are held in {} rows", held.len());
    }

    /// Runs one transaction and gives the view back as it is kept.
    async fn transact(
        store: &Memory,
        kept: Kept<String>,
        apply: fn(&View<'_, String>) -> Result<(), Failure>,
    ) -> Kept<String> {
        let (cx, kept) = (Context::system(), std::sync::Mutex::new(Some(kept)));
        let done = store.transact(&cx, move |tx| {
            let (name, before) = (name(), kept.lock().unwrap().take().unwrap());
            let view = View::new(tx, &name, |_| Vec::new()).resume(before, Position(1));
            apply(&view).and_then(|()| view.flush().map_err(|(_, why)| why)).map_err(Abort::User)?;
            check(&view);
            Ok(view.keep(Position(1)))
        });
        done.await.unwrap().value
    }

    fn put(view: &View<'_, String>) -> Result<(), Failure> {
        for n in 0..ROWS {
            view.put(&n.to_string(), &"a".repeat(ROW))?;
            check(view);
        }
        // What was let go is written.
        assert!(view.tx.view_get(view.name, "0")?.is_some());
        // What is put again and again is held once.
        for _ in 0..3 {
            view.put("again", &"a".repeat(ROW))?;
            check(view);
        }
        assert!(view.tx.view_get(view.name, "again")?.is_none());
        Ok(())
    }

    fn update(view: &View<'_, String>) -> Result<(), Failure> {
        for n in 0..ROWS {
            view.update(&n.to_string(), |row| row.replace_range(..1, "b"))?;
            check(view);
        }
        for n in [0, ROWS - 1] {
            assert!(view.get(&n.to_string())?.is_some_and(|row| row.len() == ROW && row.starts_with('b')));
            check(view);
        }
        Ok(())
    }

    fn delete(view: &View<'_, String>) -> Result<(), Failure> {
        for n in 0..ROWS {
            assert!(view.delete(&n.to_string())?);
            check(view);
        }
        assert!(view.bytes.get() < HELD_BYTES_MAX);
        Ok(())
    }

    #[tokio::test]
    async fn what_is_held_is_bounded_in_bytes() {
        let store = Memory::new();
        let mut kept = Kept::default();
        for apply in [put, update, delete] {
            kept = transact(&store, kept, apply).await;
            assert!(kept.bytes <= HELD_BYTES_MAX);
        }
    }

    #[tokio::test]
    async fn what_grows_in_place_counts_when_it_is_written() {
        let store = Memory::new();
        let kept = transact(&store, Kept::default(), |view| {
            for n in 0..ROWS {
                view.update(&n.to_string(), |row| row.push_str(&"a".repeat(ROW)))?;
            }
            Ok(())
        });
        assert_eq!(kept.await.rows.len(), 0, "so much is not kept");
    }
}
