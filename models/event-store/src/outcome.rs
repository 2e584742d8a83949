//! How an act ends: acknowledged, refused, or unknown. Nothing else.

use std::fmt;

use uuid::Uuid;

use crate::names::{BadName, ConsumerName, StreamName};
use crate::position::{Position, Receipt};
use crate::version::{Expected, Version};

/// An act that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The last version of each stream that the act named, in the act's order. Of a repeated act: as its events
    /// were recorded then; of a stream that it names without events: as it is now.
    pub versions: Vec<(StreamName, Version)>,
    /// Presents this act to readers.
    pub receipt: Receipt,
    /// True when every event had been recorded before, by an earlier try of the same act.
    pub repeated: bool,
}

/// A transaction that is on disk, with what its closure returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed<T> {
    /// The closure's value, from the run that committed.
    pub value: T,
    /// Presents this transaction to readers.
    pub receipt: Receipt,
}

/// May the caller try again, and what has to change first?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same act will be refused again.
    Never,
    /// The same act may succeed later; wait a little first.
    Later,
    /// Read again, decide again, then append.
    AfterReading,
}

/// Nothing was written, and nothing will be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The stream is not at the expected version: somebody else appended.
    #[error(
        "stream {stream} has version {actual}, expected was {expected}; nothing was written; \
         read the stream again and decide again"
    )]
    Conflict {
        /// Which stream.
        stream: StreamName,
        /// What the caller believed.
        expected: Expected,
        /// Its last version now.
        actual: Version,
    },
    /// An event matches a condition's query.
    #[error(
        "condition {index} does not hold: an event that matches it was recorded meanwhile{}; nothing was written; \
         read again and decide again", At(*.found)
    )]
    ConditionFailed {
        /// Which condition of the act, from 0.
        index: usize,
        /// Where the first match stands; none while it has no position yet.
        found: Option<Position>,
    },
    /// The event's id is taken by another event.
    #[error("event id {id} is taken: {why}; nothing was written; give a new event a new id")]
    IdTaken {
        /// The id.
        id: Uuid,
        /// How the two differ.
        why: String,
    },
    /// The act breaks a limit or a rule of the contract.
    #[error("{what} refused: {why}; nothing was written; mend the call")]
    Invalid {
        /// What was wrong.
        what: &'static str,
        /// Which rule.
        why: String,
    },
    /// A checkpoint is not where the caller left it: a second copy of the consumer is at work.
    #[error(
        "checkpoint of {consumer} is at {actual}, the caller came from {expected}; nothing was written; \
         another copy of this consumer is at work, or it was reset: read the checkpoint and go on from there"
    )]
    CheckpointMoved {
        /// Whose.
        consumer: ConsumerName,
        /// Where the caller came from.
        expected: Position,
        /// Where it is.
        actual: Position,
    },
    /// The lease was taken over by somebody else.
    #[error(
        "lease {lease} is in epoch {actual}, the caller holds {held}; nothing was written; \
         stop this work: its new holder has begun"
    )]
    Fenced {
        /// Which lease.
        lease: ConsumerName,
        /// The epoch the caller holds.
        held: u64,
        /// The epoch now.
        actual: u64,
    },
    /// The store takes no new work at the moment.
    #[error("the store is busy: {why}; nothing was written; try again a little later")]
    Busy {
        /// With what.
        why: String,
    },
    /// The user's closure failed in a way that is the closure's own fault.
    #[error(
        "the transaction's closure {why}; nothing of it was written; others were not harmed; mend the closure"
    )]
    Closure {
        /// What it did.
        why: String,
    },
    /// The user's own SQL was refused by the engine or by the store's rules.
    #[error("SQL refused: {why}; nothing of this transaction was written")]
    Sql {
        /// The engine's words.
        why: String,
        /// Is it a matter of time (a lock)?
        retry: bool,
    },
    /// The engine can't write: full, read-only, corrupt, of a newer version, closed.
    #[error("the store can't write: {why}; nothing was written; {remedy}")]
    Unavailable {
        /// What happened.
        why: String,
        /// What to do next.
        remedy: String,
        /// Might it pass by itself?
        passing: bool,
    },
}

struct At(Option<Position>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(position) => write!(f, " (position {position})"),
            None => Ok(()),
        }
    }
}

impl Refusal {
    /// May the caller try again? Part of the contract, so that nobody has to know the backend.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. } | Self::ConditionFailed { .. } => Retry::AfterReading,
            Self::Busy { .. } | Self::Sql { retry: true, .. } | Self::Unavailable { passing: true, .. } => {
                Retry::Later
            }
            _ => Retry::Never,
        }
    }
}

impl From<BadName> for Refusal {
    fn from(bad: BadName) -> Self {
        Self::Invalid { what: bad.kind, why: format!("{:?}: {}", bad.shown, bad.why) }
    }
}

/// Why an append was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody knows yet: the failure came while the commit was under way.
    ///
    /// To resolve it, append the same events with the same ids again: an act that did commit is then
    /// acknowledged as `repeated`, one that did not is written now.
    #[error(
        "outcome unknown: {why}; the act may or may not have been written; \
         append the same events with the same ids again to find out"
    )]
    Unknown {
        /// What failed.
        why: String,
    },
}

/// How a transaction's closure ends early. `?` turns a user's SQL error or a [`Refusal`] into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Abort<E> {
    /// The user's own reason.
    User(E),
    /// The store refused one of the closure's writes.
    Refused(Refusal),
}

impl<E> From<Refusal> for Abort<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Why a transaction was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactError<E> {
    /// The closure ended with the user's own error. Nothing of the transaction was written.
    #[error("the transaction ended with its own error: {0}; nothing of it was written")]
    User(E),
    /// See [`AppendError`].
    #[error(transparent)]
    Store(#[from] AppendError),
}

impl<E> From<Refusal> for TransactError<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Store(AppendError::Refused(refusal))
    }
}

impl<E> From<Abort<E>> for TransactError<E> {
    fn from(abort: Abort<E>) -> Self {
        match abort {
            Abort::User(error) => Self::User(error),
            Abort::Refused(refusal) => refusal.into(),
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
    /// The receipt is of another store.
    #[error("the receipt is of store {theirs}, this is store {ours}: it says nothing about what is here")]
    ForeignReceipt {
        /// The receipt's.
        theirs: crate::StoreId,
        /// This one.
        ours: crate::StoreId,
    },
    /// The reader asks for what lies past the end: its memory is of another life of this store.
    #[error(
        "asked for what follows position {asked}, but the feed ends at {ends}: \
         the store was restored from an older copy, or the checkpoint is another store's"
    )]
    PastEnd {
        /// From where.
        asked: Position,
        /// The end.
        ends: Position,
    },
    /// The events were moved to an archive; what is asked for begins there.
    #[error(
        "positions {from} to {to} are archived in {file}: they are not in the store any more; read them there, or \
         begin after position {to}"
    )]
    Archived {
        /// The range's first position.
        from: Position,
        /// Its last one.
        to: Position,
        /// The archive's name.
        file: String,
    },
    /// What is stored can't be read back.
    #[error("stored data is damaged: {why}; stop writing, keep the files, and restore from a copy")]
    Damaged {
        /// What and where.
        why: String,
    },
    /// The engine can't read now.
    #[error("the store can't read: {why}")]
    Unavailable {
        /// What happened.
        why: String,
        /// Might it pass by itself?
        passing: bool,
    },
}

impl From<BadName> for ReadError {
    fn from(bad: BadName) -> Self {
        Self::Invalid { what: bad.kind, why: format!("{:?}: {}", bad.shown, bad.why) }
    }
}

impl From<Refusal> for ReadError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid { what, why } => Self::Invalid { what, why },
            other => Self::Unavailable { why: other.to_string(), passing: other.retry() != Retry::Never },
        }
    }
}
