//! A projection's rows, typed, inside one transaction.

use std::fmt;
use std::marker::PhantomData;

use mainstay_event_store::{Cursor, IndexEntry, Row, Scan, ScanBy, Tx, ViewName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::model::Failure;
use crate::event::without_values;

/// The rows of one projection, as its `apply` reads and writes them. Reads see the writes before them.
pub struct View<'a, R> {
    tx: &'a dyn Tx,
    name: &'a ViewName,
    indices: fn(&R) -> Vec<IndexEntry>,
    rows: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for View<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("name", self.name).finish_non_exhaustive()
    }
}

impl<'a, R: Serialize + DeserializeOwned> View<'a, R> {
    pub(crate) fn new(tx: &'a dyn Tx, name: &'a ViewName, indices: fn(&R) -> Vec<IndexEntry>) -> Self {
        Self { tx, name, indices, rows: PhantomData }
    }

    /// The row under a key.
    pub fn get(&self, key: &str) -> Result<Option<R>, Failure> {
        match self.tx.view_get(self.name, key)? {
            Some(bytes) => Ok(Some(decode_row(self.name, key, &bytes)?)),
            None => Ok(None),
        }
    }

    /// Writes a row, in place of any earlier one. At most 1 MiB of JSON.
    pub fn put(&self, key: &str, row: &R) -> Result<(), Failure> {
        let value = serde_json::to_vec(row).map_err(|error| Failure::Encode {
            view: self.name.to_string(),
            key: key.to_owned(),
            why: without_values(&error),
        })?;
        let row = Row { key: key.to_owned(), value, indices: (self.indices)(row) };
        Ok(self.tx.view_put(self.name, &row)?)
    }

    /// Changes the row under a key; begins with the default row when there is none.
    pub fn update(&self, key: &str, change: impl FnOnce(&mut R)) -> Result<(), Failure>
    where
        R: Default,
    {
        let mut row = self.get(key)?.unwrap_or_default();
        change(&mut row);
        self.put(key, &row)
    }

    /// Removes the row under a key; was there one?
    pub fn delete(&self, key: &str) -> Result<bool, Failure> {
        Ok(self.tx.view_delete(self.name, key)?)
    }

    /// At most `rows_max` rows by key or by index, after an earlier page.
    pub fn scan(&self, by: ScanBy, after: Option<Cursor>, rows_max: usize) -> Result<Found<R>, Failure> {
        let rows = self.tx.view_scan(&Scan { view: self.name.clone(), by, after, rows_max })?;
        decode_rows(self.name, rows)
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
