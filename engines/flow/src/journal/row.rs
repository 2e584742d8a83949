//! An intent as a row: the version, whether there is a value, the value.
//!
//! ```text
//!   0        8  9
//!   │version │k │ value …        version: big-endian; k: 1 a value follows, 0 the key is to be removed
//! ```

use mainstay_event_store::{IndexValue, Row};
use mainstay_resilience::cache::{Intent, Version};

use super::BY_VERSION;
use super::error::JournalError;

const REMOVE: u8 = 0;
const VALUE: u8 = 1;

pub(super) fn encode(key: &str, version: Version, value: Option<&[u8]>) -> Row {
    let mut bytes = Vec::with_capacity(9 + value.map_or(0, <[u8]>::len));
    bytes.extend_from_slice(&version.0.to_be_bytes());
    bytes.push(if value.is_some() { VALUE } else { REMOVE });
    bytes.extend_from_slice(value.unwrap_or_default());
    // Fits: an epoch has 23 bits, a number 40.
    let index = i64::try_from(version.0).unwrap_or(i64::MAX);
    Row::new(key, bytes).indexed(BY_VERSION, IndexValue::Integer(index))
}

/// The version of a row; none when it is damaged.
pub(super) fn version(bytes: &[u8]) -> Option<Version> {
    bytes.first_chunk().map(|version| Version(u64::from_be_bytes(*version)))
}

pub(super) fn decode(key: String, bytes: &[u8]) -> Result<Intent, JournalError> {
    let parts = version(bytes).zip(bytes.get(8..).and_then(<[u8]>::split_first));
    match parts {
        Some((version, (&VALUE, value))) => Ok(Intent { key, version, value: Some(value.to_vec()) }),
        Some((version, (&REMOVE, []))) => Ok(Intent { key, version, value: None }),
        _ => Err(JournalError::Damaged { key }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_intent_comes_back_as_it_was_and_its_form_does_not_change() {
        for value in [None, Some(&b""[..]), Some(&b"{}"[..])] {
            let row = encode("k", Version(0x0102), value);
            let intent = decode("k".into(), &row.value).unwrap();
            assert_eq!((intent.version, intent.value.as_deref()), (Version(0x0102), value));
        }
        // Written down on purpose: a row of an older build is flushed by a newer one.
        assert_eq!(encode("k", Version(0x0102), Some(b"v")).value, [0, 0, 0, 0, 0, 0, 1, 2, 1, b'v']);
    }

    #[test]
    fn a_damaged_row_is_named_and_not_taken_for_anything() {
        for bytes in
            [&[][..], &[0; 8], &[0; 7], &[0, 0, 0, 0, 0, 0, 0, 1, 2], &[0, 0, 0, 0, 0, 0, 0, 1, 0, 9]]
        {
            assert!(matches!(decode("k".into(), bytes), Err(JournalError::Damaged { key }) if key == "k"));
        }
    }
}
