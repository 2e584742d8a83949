//! What a probe of durability found.

use mainstay::postgres::durability::Verdict;
use serde_json::{Map, Value};

/// The verdict, and what it follows from, by name.
pub(super) struct Found {
    pub(super) settings: Map<String, Value>,
    pub(super) verdict: Verdict,
}
