//! How an append, a read and a commit end when they don't succeed, and what to do then.

use crate::names::BadName;
use crate::offset::Offset;

/// May the caller try again, and what has to change first? Part of the contract, so that nobody has to know the
/// backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same call will be refused again.
    Never,
    /// The same call may succeed later; wait a little first.
    Later,
}

/// Why an append was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A message breaks a limit or a rule of the contract.
    #[error("{what} refused: {why}; nothing was appended; mend the call")]
    Invalid {
        /// What was wrong.
        what: &'static str,
        /// Which rule.
        why: String,
    },
    /// The log takes no more at the moment: what waits already is as much as it may be.
    #[error("the log is busy: {why}; nothing was appended; try again a little later")]
    Busy {
        /// With what.
        why: String,
    },
    /// The engine can't write: full, read-only, corrupt, closed.
    #[error("the log can't write: {why}; nothing was appended; {remedy}")]
    Unavailable {
        /// What happened.
        why: String,
        /// What to do next.
        remedy: String,
        /// Might it pass by itself?
        passing: bool,
    },
    /// Nobody knows: the failure came while the commit was under way.
    #[error(
        "outcome unknown: {why}; the messages may or may not stand in the log; append them again: \
         a receiver's inbox drops what comes twice"
    )]
    Unknown {
        /// What failed.
        why: String,
    },
}

impl AppendError {
    /// May the caller append the same messages again? After [`AppendError::Unknown`] that may double them.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Busy { .. } | Self::Unknown { .. } | Self::Unavailable { passing: true, .. } => {
                Retry::Later
            }
            Self::Invalid { .. } | Self::Unavailable { passing: false, .. } => Retry::Never,
        }
    }
}

/// Why a read gave nothing. A read never changes anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The request breaks a limit or a rule.
    #[error("{what} refused: {why}; mend the call")]
    Invalid {
        /// What was wrong.
        what: &'static str,
        /// Which rule.
        why: String,
    },
    /// Retention has passed the reader: messages it has not seen are gone.
    #[error(
        "messages up to {first} are no longer kept, the reader stands at {asked}: those between are lost to it; \
         bring its state up to date from elsewhere, then go on from {first}"
    )]
    Truncated {
        /// Where the reader wanted to go on.
        asked: Offset,
        /// The earliest place from which all that follows is there.
        first: Offset,
    },
    /// The reader stands past the end: its memory is of another life of this log.
    #[error(
        "the reader stands at {asked}, but the log ends at {ends}: the log was restored from an older copy, or the \
         place is another log's; nothing was skipped; find out which before setting the place anew"
    )]
    PastEnd {
        /// From where.
        asked: Offset,
        /// The end.
        ends: Offset,
    },
    /// What is stored can't be read back.
    #[error("the log is damaged: {why}; keep its files and restore from a copy")]
    Damaged {
        /// What and where.
        why: String,
    },
    /// The engine can't read now.
    #[error("the log can't be read: {why}")]
    Unavailable {
        /// What happened, and what to do.
        why: String,
        /// Might it pass by itself?
        passing: bool,
    },
}

impl ReadError {
    /// May the caller read again?
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { passing: true, .. } => Retry::Later,
            _ => Retry::Never,
        }
    }
}

impl From<BadName> for ReadError {
    fn from(bad: BadName) -> Self {
        Self::Invalid { what: bad.kind, why: format!("{:?}: {}", bad.shown, bad.why) }
    }
}

/// Why a group's place was not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The group is not where the caller left it: another member is at work.
    #[error(
        "the group stands at {actual}, the caller came from {expected}; its place was not moved; another member \
         of the group is at work: go on from where the group stands"
    )]
    Moved {
        /// Where the caller came from.
        expected: Offset,
        /// Where the group is.
        actual: Offset,
    },
    /// The commit breaks a rule.
    #[error("commit refused: {why}; the group's place was not moved; mend the call")]
    Invalid {
        /// Which rule.
        why: String,
    },
    /// Where the places are kept can't be written or read.
    #[error("the group's place can't be kept: {why}; it may not have been moved; read it again")]
    Unavailable {
        /// What happened.
        why: String,
        /// Might it pass by itself?
        passing: bool,
    },
}
