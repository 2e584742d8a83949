//! Why write-back was not opened, or a write not acknowledged.

use super::super::journal::Version;
use crate::Invalid;

/// Why a write-back cache could not be opened. Nothing was flushed and nothing was forgotten.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<J> {
    /// Its settings.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The journal could not be read.
    #[error("the journal could not be read: {0}; nothing was flushed, the journal is as it was")]
    Journal(J),
    /// What the journal holds can't be read as a key or a value of this cache.
    #[error(
        "the journal's intent for key {key:?}, version {version}, is not of this cache: {why}; nothing was flushed, the \
         journal is as it was; open it with the program that wrote it"
    )]
    Foreign {
        /// Which key.
        key: String,
        /// Which write of it.
        version: Version,
        /// What is wrong with it.
        why: String,
    },
}

/// Why a write was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<J> {
    /// The journal said no, or nobody knows: the write may have been recorded, and is flushed then.
    #[error(
        "the journal did not acknowledge the write: {0}; it may have been recorded; write it again to be sure"
    )]
    Journal(J),
    /// The value can't be written down. Nothing was done.
    #[error("the value can't be encoded: {0}; nothing was written")]
    Encode(String),
}
