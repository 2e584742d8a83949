//! Rows of views as JSON: what is stored is what is answered.

use mainstay::store::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// The bytes of a row. The rows of the shop are plain records, which can always be written.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(|error| Refusal::Invalid { what: "row", why: error.to_string() })
}

/// The same, as JSON that goes into other JSON as it is.
pub fn raw<T: Serialize>(value: &T) -> Result<Box<RawValue>, Refusal> {
    to_raw_value(value).map_err(|error| Refusal::Invalid { what: "row", why: error.to_string() })
}

/// A row as it was written, by this program or an older one.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| Refusal::Invalid {
        what: "row",
        why: format!("it can't be read (line {}, column {}); rebuild the view", error.line(), error.column()),
    })
}
