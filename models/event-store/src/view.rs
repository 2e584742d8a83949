//! The portable view: rows by key with declared indices, written in the same transaction as the facts.
//!
//! A view needs no SQL and no schema of its own, so the same projection runs on every store. Rows are
//! opaque bytes; what they are found by is declared beside them.

use crate::event::limits;
use crate::names::ViewName;
use crate::outcome::Refusal;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Unique in its view; at most [`limits::KEY_BYTES_MAX`] bytes, not empty.
    pub key: String,
    /// At most [`limits::ROW_BYTES_MAX`] bytes.
    pub value: Vec<u8>,
    /// What it is found by; at most [`limits::INDICES_MAX`].
    pub indices: Vec<IndexEntry>,
}

/// A value under which a row is found, in an index named by the view's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The index's name; one entry for each index and row.
    pub index: &'static str,
    /// The row's value in it.
    pub value: IndexValue,
}

/// A value of an index. Integers sort as numbers, texts by their bytes; integers before texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexValue {
    /// A signed number.
    Integer(i64),
    /// A text of at most [`limits::KEY_BYTES_MAX`] bytes.
    Text(String),
}

impl IndexValue {
    /// Bytes that sort as the values do, so that a store can keep them in one binary column.
    ///
    /// A kind byte, then the number with its sign bit flipped, most significant byte first, or the text.
    pub fn to_ordered_bytes(&self) -> Vec<u8> {
        match self {
            Self::Integer(number) => {
                let mut bytes = vec![1];
                bytes.extend_from_slice(&(*number as u64 ^ (1 << 63)).to_be_bytes());
                bytes
            }
            Self::Text(text) => {
                let mut bytes = Vec::with_capacity(1 + text.len());
                bytes.push(2);
                bytes.extend_from_slice(text.as_bytes());
                bytes
            }
        }
    }

    /// What [`IndexValue::to_ordered_bytes`] was made from; none when the bytes are damaged.
    pub fn from_ordered_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (1, number) => {
                Some(Self::Integer((u64::from_be_bytes(number.try_into().ok()?) ^ (1 << 63)) as i64))
            }
            (2, text) => Some(Self::Text(std::str::from_utf8(text).ok()?.to_owned())),
            _ => None,
        }
    }
}

/// The least text that sorts, by its bytes, after every text that begins with `prefix`; none when there is
/// no such text. With it a scan by prefix is a range, which no character of the prefix can turn into a pattern.
pub fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The successor of U+D7FF is U+E000: what lies between is no character.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

impl Row {
    /// A row without index entries.
    pub fn new(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: value.into(), indices: Vec::new() }
    }

    /// Adds an index entry.
    pub fn indexed(mut self, index: &'static str, value: IndexValue) -> Self {
        self.indices.push(IndexEntry { index, value });
        self
    }

    /// Checks the limits.
    pub fn check(&self) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::Invalid { what: "view row", why });
        if self.key.is_empty() || self.key.len() > limits::KEY_BYTES_MAX {
            return refuse(format!("a key of {} bytes; 1 to {}", self.key.len(), limits::KEY_BYTES_MAX));
        }
        if self.value.len() > limits::ROW_BYTES_MAX {
            return refuse(format!("{} bytes, at most {}", self.value.len(), limits::ROW_BYTES_MAX));
        }
        if self.indices.len() > limits::INDICES_MAX {
            return refuse(format!("more than {} index entries", limits::INDICES_MAX));
        }
        for (i, entry) in self.indices.iter().enumerate() {
            if entry.index.is_empty() || entry.index.len() > 64 {
                return refuse(format!("an index name of {} bytes; 1 to 64", entry.index.len()));
            }
            if self.indices[..i].iter().any(|other| other.index == entry.index) {
                return refuse(format!("two entries in index {}", entry.index));
            }
            if matches!(&entry.value, IndexValue::Text(text) if text.len() > limits::KEY_BYTES_MAX) {
                return refuse(format!("an index value over {} bytes", limits::KEY_BYTES_MAX));
            }
        }
        Ok(())
    }
}

/// Which rows of a view, in which order, from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Which view.
    pub view: ViewName,
    /// By an index, or by key.
    pub by: ScanBy,
    /// Only what follows this row, as handed out by an earlier page.
    pub after: Option<Cursor>,
    /// At most so many rows, at least 1; cut to [`limits::PAGE_EVENTS_MAX`].
    pub rows_max: usize,
}

/// The order and the range of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanBy {
    /// By key, those that begin with `prefix`.
    Key {
        /// The beginning of the keys; empty for all.
        prefix: String,
    },
    /// By index value, then key; both ends included.
    Index {
        /// Which index.
        index: &'static str,
        /// The least value.
        from: IndexValue,
        /// The greatest value.
        to: IndexValue,
    },
}

/// Where a page of a scan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The last row's index value; none for a scan by key.
    pub value: Option<IndexValue>,
    /// The last row's key.
    pub key: String,
}

impl Scan {
    /// All rows by key.
    pub fn keys(view: ViewName, rows_max: usize) -> Self {
        Self { view, by: ScanBy::Key { prefix: String::new() }, after: None, rows_max }
    }

    /// The rows with exactly this value in an index.
    pub fn equal(view: ViewName, index: &'static str, value: IndexValue, rows_max: usize) -> Self {
        Self { view, by: ScanBy::Index { index, from: value.clone(), to: value }, after: None, rows_max }
    }

    /// Goes on after an earlier page.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Checks that it can be answered: a page of no row could not say where it ended, and a cursor of another
    /// kind of scan would lose rows.
    pub fn check(&self) -> Result<(), Refusal> {
        let refuse = |why: &str| Err(Refusal::Invalid { what: "scan", why: why.into() });
        if self.rows_max == 0 {
            return refuse("a page of 0 rows never ends; ask for at least 1");
        }
        let by_index = matches!(self.by, ScanBy::Index { .. });
        if self.after.as_ref().is_some_and(|cursor| cursor.value.is_some() != by_index) {
            return refuse("the cursor is of a scan by something else; hand in the one of the page before");
        }
        Ok(())
    }
}

/// A page of rows. `next` is where to go on; none at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Key and value of each row, in the scan's order.
    pub rows: Vec<(String, Vec<u8>)>,
    /// The cursor of the next page.
    pub next: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = IndexValue> {
        prop_oneof![
            any::<i64>().prop_map(IndexValue::Integer),
            (-2i64..3).prop_map(IndexValue::Integer),
            "[a-cÄ\u{0}\u{10ffff}]{0,4}".prop_map(IndexValue::Text),
        ]
    }

    proptest! {
        #[test]
        fn ordered_bytes_sort_as_the_values_and_come_back(a in value(), b in value()) {
            prop_assert_eq!(a.cmp(&b), a.to_ordered_bytes().cmp(&b.to_ordered_bytes()));
            prop_assert_eq!(IndexValue::from_ordered_bytes(&a.to_ordered_bytes()), Some(a));
        }

        #[test]
        fn what_begins_with_a_prefix_is_exactly_what_lies_before_its_end(
            prefix in "[ab%_\u{d7ff}\u{e000}\u{10ffff}]{0,3}",
            text in "[ab%_\u{d7ff}\u{e000}\u{10ffff}]{0,5}",
        ) {
            let inside = text >= prefix && prefix_end(&prefix).is_none_or(|end| text < end);
            prop_assert_eq!(inside, text.starts_with(&prefix));
        }
    }

    #[test]
    fn damaged_ordered_bytes_are_no_value() {
        for bytes in [&[][..], &[0], &[1], &[1, 2, 3], &[2, 0xff], &[3]] {
            assert_eq!(IndexValue::from_ordered_bytes(bytes), None, "{bytes:?}");
        }
    }
}
