//! Why a file can't be used as a log, in the operator's words; and the engine's errors in the contract's.

use std::path::PathBuf;

use mainstay_event_store::Refusal;
use mainstay_messaging::{AppendError, ReadError};
use rusqlite::ErrorCode;

/// Why a file can't be used as a log. It was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The file, or its folder, can't be opened by this user.
    #[error(
        "{path}: the log can't be opened ({why}); nothing was changed; check the path, its folder and their \
         permissions"
    )]
    Access {
        /// Where.
        path: PathBuf,
        /// The engine's words.
        why: String,
    },
    /// The file is something else.
    #[error("{path}: is not a log, but something else ({why}); nothing was changed; check the path")]
    NotALog {
        /// Where.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// The file is damaged.
    #[error("{path}: the log is damaged ({why}); nothing was changed; keep the file and restore from a copy")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A newer build wrote the file.
    #[error(
        "{path}: the log was written by a newer version (schema {found}, this build knows up to {known}); nothing \
         was changed; use the newer build"
    )]
    Newer {
        /// Where.
        path: PathBuf,
        /// The file's version.
        found: i64,
        /// This build's.
        known: i64,
    },
    /// The file has another number of partitions than was asked for.
    #[error(
        "{path}: the log has {found} partitions, {asked} were asked for; nothing was changed; ask for {found}, or \
         take another file: keys would change their partitions"
    )]
    Partitions {
        /// Where.
        path: PathBuf,
        /// The file's.
        found: u32,
        /// The caller's.
        asked: u32,
    },
    /// Another program holds a lock on the file.
    #[error(
        "{path}: another program keeps the log locked ({why}); nothing was changed; end it and try again"
    )]
    Locked {
        /// Where.
        path: PathBuf,
        /// The engine's words.
        why: String,
    },
    /// The disk is full.
    #[error("{path}: the disk is full ({why}); no log was made; free space and try again")]
    Full {
        /// Where.
        path: PathBuf,
        /// The engine's words.
        why: String,
    },
    /// Anything else.
    #[error("{path}: the log can't be used ({why}); nothing was changed")]
    Failed {
        /// Where.
        path: PathBuf,
        /// The engine's words.
        why: String,
    },
}

impl LogError {
    pub(super) fn of(path: PathBuf, error: &rusqlite::Error) -> Self {
        let why = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotALog { path, why },
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, why },
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::Access { path, why }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path, why },
            Some(ErrorCode::DiskFull) => Self::Full { path, why },
            _ => Self::Failed { path, why },
        }
    }
}

/// A file that turned out to be unusable only when it was there.
impl From<LogError> for ReadError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Damaged { .. } => Self::Damaged { why: error.to_string() },
            LogError::Locked { .. } => Self::Unavailable { why: error.to_string(), passing: true },
            _ => Self::Unavailable { why: error.to_string(), passing: false },
        }
    }
}

/// A failure of the engine before a commit: nothing was appended.
pub(super) fn refusal(error: &rusqlite::Error) -> AppendError {
    match crate::error::refusal(error) {
        Refusal::Busy { why } => AppendError::Busy { why },
        Refusal::Unavailable { why, remedy, passing } => AppendError::Unavailable { why, remedy, passing },
        other => {
            AppendError::Unavailable { why: other.to_string(), remedy: "try again".into(), passing: true }
        }
    }
}

/// What a reader thread says of its engine.
pub(super) fn read(error: mainstay_event_store::ReadError) -> ReadError {
    use mainstay_event_store::ReadError as Engine;
    match error {
        Engine::Damaged { why } => ReadError::Damaged { why },
        Engine::Unavailable { why, passing } => ReadError::Unavailable { why, passing },
        other => ReadError::Unavailable { why: other.to_string(), passing: false },
    }
}
