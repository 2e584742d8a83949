//! Why the journal did not do it.

use mainstay_event_store::{ReadError, Refusal};

/// Why a journal in a store did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The store refused. [`Refusal::Fenced`]: another process has opened the journal; stop writing here.
    #[error("the journal was not written: {0}")]
    Refused(#[from] Refusal),
    /// Nobody knows whether it was written; it was tried again until the time was over.
    #[error(
        "nobody knows whether the journal was written: {why}; what was recorded is flushed; write it again to be sure"
    )]
    Unknown {
        /// What failed.
        why: String,
    },
    /// The store can't be read.
    #[error("the journal could not be read: {0}")]
    Read(ReadError),
    /// A row of the journal is none.
    #[error(
        "the journal's row of key {key:?} is damaged; it was left as it is; restore it, or remove the row"
    )]
    Damaged {
        /// Which key.
        key: String,
    },
    /// All versions are used up: after 8 million openings, or a million million writes of one.
    #[error(
        "epoch {epoch} of the journal has no version left; nothing was written; open the journal again, or anew"
    )]
    Exhausted {
        /// Which opening.
        epoch: u64,
    },
}
