//! The portable views: rows by key, and for each index the keys in the order of their values.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use crate::event::limits;
use crate::names::ViewName;
use crate::view::{Cursor, IndexEntry, IndexValue, Row, Rows, Scan, ScanBy};

#[derive(Default)]
pub(super) struct Views {
    views: HashMap<ViewName, View>,
}

#[derive(Default)]
struct View {
    rows: BTreeMap<String, Row>,
    indices: HashMap<&'static str, BTreeSet<(IndexValue, String)>>,
}

impl Views {
    pub(super) fn get(&self, view: &ViewName, key: &str) -> Option<Vec<u8>> {
        self.views.get(view)?.rows.get(key).map(|row| row.value.clone())
    }

    /// The first keys of a view.
    pub(super) fn keys(&self, view: &ViewName, max: usize) -> Vec<String> {
        self.views.get(view).map_or_else(Vec::new, |view| view.rows.keys().take(max).cloned().collect())
    }

    /// Writes a row; gives the one it replaced.
    pub(super) fn put(&mut self, view: &ViewName, row: Row) -> Option<Row> {
        let view = self.views.entry(view.clone()).or_default();
        let before = view.remove(&row.key);
        for IndexEntry { index, value } in &row.indices {
            view.indices.entry(index).or_default().insert((value.clone(), row.key.clone()));
        }
        view.rows.insert(row.key.clone(), row);
        before
    }

    /// Removes a row; gives it.
    pub(super) fn delete(&mut self, view: &ViewName, key: &str) -> Option<Row> {
        self.views.get_mut(view)?.remove(key)
    }

    /// A page of a scan that was checked.
    pub(super) fn scan(&self, scan: &Scan) -> Rows {
        self.views.get(&scan.view).map_or_else(Rows::default, |view| view.scan(scan))
    }
}

impl View {
    /// Removes a row and its index entries.
    fn remove(&mut self, key: &str) -> Option<Row> {
        let row = self.rows.remove(key)?;
        for IndexEntry { index, value } in &row.indices {
            if let Some(entries) = self.indices.get_mut(index) {
                entries.remove(&(value.clone(), key.to_owned()));
            }
        }
        Some(row)
    }

    fn scan(&self, scan: &Scan) -> Rows {
        let max = limits::page(scan.rows_max);
        let cursors: Vec<Cursor> = match &scan.by {
            ScanBy::Key { prefix } => {
                let after = scan.after.as_ref().map(|cursor| cursor.key.as_str());
                let start = match after {
                    Some(after) if after >= prefix.as_str() => Bound::Excluded(after),
                    _ => Bound::Included(prefix.as_str()),
                };
                self.rows
                    .range::<str, _>((start, Bound::Unbounded))
                    .take_while(|(key, _)| key.starts_with(prefix))
                    .map(|(key, _)| Cursor { value: None, key: key.clone() })
                    .take(max + 1)
                    .collect()
            }
            ScanBy::Index { index, from, to } => {
                let least = (from.clone(), String::new());
                let after =
                    scan.after.as_ref().and_then(|cursor| Some((cursor.value.clone()?, cursor.key.clone())));
                let start = match after {
                    Some(after) if after >= least => Bound::Excluded(after),
                    _ => Bound::Included(least),
                };
                let entries = self.indices.get(index);
                let entries =
                    entries.into_iter().flat_map(|set| set.range((start.clone(), Bound::Unbounded)));
                entries
                    .take_while(|(value, _)| value <= to)
                    .map(|(value, key)| Cursor { value: Some(value.clone()), key: key.clone() })
                    .take(max + 1)
                    .collect()
            }
        };
        // One row more than asked for was looked at: it alone tells whether this page is the last.
        let next = (cursors.len() > max).then(|| cursors[max - 1].clone());
        let rows = cursors
            .into_iter()
            .take(max)
            .filter_map(|cursor| self.rows.get(&cursor.key).map(|row| (cursor.key, row.value.clone())))
            .collect();
        Rows { rows, next }
    }
}
