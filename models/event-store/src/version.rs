//! Versions: where an event stands in its stream, and what a caller believes of that.

use std::fmt;

/// The number of an event in its stream. The first event is 1; 0 is a stream without events.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// A stream without events.
    pub const EMPTY: Self = Self(0);
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the caller believes about a stream when it appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever its version.
    Any,
    /// The stream has no event yet.
    Empty,
    /// The stream has at least one event.
    Exists,
    /// The last event of the stream has exactly this version.
    Exactly(Version),
}

impl Expected {
    /// Does a stream whose last version is `actual` meet the expectation?
    pub fn allows(self, actual: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Empty => actual == Version::EMPTY,
            Self::Exists => actual > Version::EMPTY,
            Self::Exactly(version) => actual == version,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::Empty => f.write_str("no event"),
            Self::Exists => f.write_str("at least one event"),
            Self::Exactly(version) => write!(f, "version {version}"),
        }
    }
}
