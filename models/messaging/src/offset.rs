//! A place in a log.

use std::fmt;

/// A place in one partition of one topic: of the last message looked at; 0 is before the first.
///
/// Grows with every message of its partition, though not always by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// Before the first message.
    pub const START: Self = Self(0);
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
