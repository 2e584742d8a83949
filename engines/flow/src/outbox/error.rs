//! Why a relay stopped, in the words of whoever has to act on it.

use mainstay_event_store::{ReadError, Refusal, Retry};
use mainstay_messaging as messaging;

use super::message::NoMessage;

/// Why a relay stopped. Nothing is lost: what was not published is still in the outbox, and goes out when it is
/// started again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The outbox can't be read.
    #[error("the relay can't read the outbox: {0}; nothing more was published")]
    Read(#[from] ReadError),
    /// The store refuses marks for good.
    #[error("the relay can't mark rows as sent: {0}; what is not marked will be published again")]
    Mark(Refusal),
    /// The log refuses messages for good.
    #[error("the log refuses rows {first} to {last} of the outbox: {why}; they and all rows after them wait")]
    Append {
        /// The batch's first row.
        first: u64,
        /// The batch's last row.
        last: u64,
        /// The log's words.
        why: messaging::AppendError,
    },
    /// The log can't be read, so it is not known whether this store is the one that wrote it.
    #[error("the relay can't compare the log with the outbox: {0}; nothing was published")]
    Compare(#[from] messaging::ReadError),
    /// The log holds more messages of this store than can be remembered which the store does not remember.
    #[error(
        "this store was restored, and topic {topic} of the log holds more than {max} messages that it published and \
         does not remember; its rows can't be compared with them, and nothing was published, since receivers would \
         do things twice; restore a later copy, or let the relay remember more"
    )]
    Orphans {
        /// The log's topic.
        topic: messaging::Topic,
        /// How many it may remember.
        max: usize,
    },
    /// A row makes no message.
    #[error(
        "row {seq} of the outbox can't be published: {why}; it and all rows after it wait; mend the program"
    )]
    Row {
        /// Its number in the store.
        seq: u64,
        /// Why.
        why: String,
    },
}

impl RelayError {
    pub(super) fn row(seq: u64, why: &NoMessage) -> Self {
        Self::Row { seq, why: why.to_string() }
    }

    /// May the same step go well later?
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Read(error) => matches!(error, ReadError::Unavailable { passing: true, .. }),
            Self::Mark(refusal) => refusal.retry() != Retry::Never,
            Self::Append { why, .. } => why.retry() == messaging::Retry::Later,
            Self::Compare(error) => error.retry() == messaging::Retry::Later,
            Self::Row { .. } | Self::Orphans { .. } => false,
        }
    }
}
