//! From the engine's error codes to the operator's words, in one place.

use mainstay_event_store::{Abort, ReadError, Refusal};
use rusqlite::ErrorCode;

/// What a failure of the engine means for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody holds a lock; it passes.
    Locked,
    /// The disk is full.
    Full,
    /// The file or its folder can't be written.
    ReadOnly,
    /// The file is damaged, or no database.
    Damaged,
    /// The operating system failed to read or write.
    Io,
    /// A statement took longer than its limit.
    Interrupted,
    /// A constraint of a table.
    Constraint,
    /// Anything else: the statement's own fault.
    Statement,
}

pub(crate) fn kind(error: &rusqlite::Error) -> Kind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            Kind::Locked
        }
        Some(ErrorCode::DiskFull) => Kind::Full,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => Kind::ReadOnly,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Damaged,
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::NoLargeFileSupport) => Kind::Io,
        Some(ErrorCode::OperationInterrupted) => Kind::Interrupted,
        Some(ErrorCode::ConstraintViolation) => Kind::Constraint,
        _ => Kind::Statement,
    }
}

/// A failure of the engine under the store's own statements, before a commit: nothing was written.
pub(crate) fn refusal(error: &rusqlite::Error) -> Refusal {
    let why = error.to_string();
    let unavailable = |remedy: &str, passing: bool| Refusal::Unavailable {
        why: why.clone(),
        remedy: remedy.into(),
        passing,
    };
    match kind(error) {
        Kind::Locked => Refusal::Busy { why: format!("another process holds the write lock ({why})") },
        Kind::Full => unavailable("free space on its disk; appends go on by themselves then", true),
        Kind::ReadOnly => unavailable("make the file and its folder writable for this user", true),
        Kind::Damaged => unavailable("stop writing, keep the files, and restore from a copy", false),
        Kind::Io => unavailable(
            "look at the system's log for its disk; appends go on by themselves if it heals",
            true,
        ),
        Kind::Interrupted => Refusal::Closure { why: "took longer than its time limit".into() },
        Kind::Constraint | Kind::Statement => {
            unavailable("this is a defect of the store: please report it with this message", false)
        }
    }
}

pub(crate) fn read_error(error: &rusqlite::Error) -> ReadError {
    let why = error.to_string();
    match kind(error) {
        Kind::Damaged => ReadError::Damaged { why },
        Kind::Locked | Kind::Full | Kind::Io | Kind::Interrupted => {
            ReadError::Unavailable { why, passing: true }
        }
        Kind::ReadOnly | Kind::Constraint | Kind::Statement => ReadError::Unavailable { why, passing: false },
    }
}

/// An error of the user's own SQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    message: String,
    locked: bool,
    constraint: bool,
}

impl SqlError {
    /// Did a constraint of the user's tables refuse the row?
    pub fn is_constraint(&self) -> bool {
        self.constraint
    }
}

impl SqlError {
    /// The transaction is gone: nothing more may be done in its name.
    pub(crate) fn lost() -> Self {
        Self { message: LOST.into(), locked: false, constraint: false }
    }
}

/// What a closure is told that goes on after its transaction was rolled back under it.
pub(crate) const LOST: &str = "goes on after an earlier statement of it rolled the whole transaction back";

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        let kind = kind(&error);
        let message = match (&error, kind) {
            (_, Kind::Interrupted) => "took longer than the transaction's time limit".into(),
            (rusqlite::Error::SqliteFailure(failure, _), _)
                if failure.code == ErrorCode::AuthorizationForStatementDenied =>
            {
                format!(
                    "{error}: inside a transaction, SQL may not begin or end one, change settings, attach files, \
                     or touch tables whose names begin with {}",
                    crate::schema::PREFIX
                )
            }
            _ => error.to_string(),
        };
        Self { message, locked: kind == Kind::Locked, constraint: kind == Kind::Constraint }
    }
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Self::Sql { retry: error.locked, why: error.message }
    }
}

impl<E> From<SqlError> for Abort<E> {
    fn from(error: SqlError) -> Self {
        Self::Refused(error.into())
    }
}
