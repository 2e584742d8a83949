//! From the server's error codes to the operator's words, in one place.

use mainstay_event_store::{Abort, ReadError, Refusal};
use sqlx::postgres::PgDatabaseError;

/// What a failure means for the store. Codes: PostgreSQL's manual, appendix A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 40001: it lost a race with another transaction; run it again from the start.
    Serialization,
    /// 40P01: it waited in a ring with others; run it again.
    Deadlock,
    /// Something else holds a lock longer than it was waited for.
    Locked,
    /// A statement or a pause inside a transaction took longer than its limit.
    TimedOut,
    /// 23505.
    Unique,
    /// Another constraint of a table.
    Constraint,
    /// The connection is gone, or could not be had: nobody knows how a commit that was under way ended.
    Lost,
    /// The server takes no more: connections, memory, locks.
    Busy,
    /// No space left where the server keeps its files.
    Full,
    /// The server is a replica, or was set to read only.
    ReadOnly,
    /// This user may not.
    Permission,
    /// The server found its files damaged, or what it answered is not what was written.
    Damaged,
    /// Anything else: the statement's own fault.
    Statement,
}

pub(crate) fn kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(error) => kind_of(error.code().as_deref().unwrap_or_default()),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Kind::Lost,
        sqlx::Error::PoolTimedOut => Kind::Busy,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Kind::Damaged,
        _ => Kind::Statement,
    }
}

fn kind_of(code: &str) -> Kind {
    match code {
        "40001" => Kind::Serialization,
        "40P01" => Kind::Deadlock,
        "55P03" => Kind::Locked,
        "57014" => Kind::TimedOut,
        "23505" => Kind::Unique,
        "25P03" => Kind::Lost, // idle in a transaction: the server has closed the connection
        "25006" => Kind::ReadOnly,
        "42501" => Kind::Permission,
        "53100" => Kind::Full,
        _ if code.starts_with("23") => Kind::Constraint,
        _ if code.starts_with("53") => Kind::Busy,
        _ if code.starts_with("08") || code.starts_with("57P") => Kind::Lost,
        _ if code.starts_with("XX") || code.starts_with("58") => Kind::Damaged,
        _ => Kind::Statement,
    }
}

/// May the same work succeed when it is done again from its beginning?
pub(crate) fn passes(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Serialization
            | Kind::Deadlock
            | Kind::Locked
            | Kind::Lost
            | Kind::Busy
            | Kind::Full
            | Kind::ReadOnly
    )
}

/// The server's words, with its code and what it adds to them; for other errors sqlx's, but for a connection that failed:
/// whose it was is to be said.
pub(crate) fn words(error: &sqlx::Error) -> String {
    let database = match error {
        sqlx::Error::Database(database) => database,
        sqlx::Error::Io(error) => return format!("the connection to the server failed ({error})"),
        error => return error.to_string(),
    };
    let Some(error) = database.try_downcast_ref::<PgDatabaseError>() else { return database.to_string() };
    let mut text = format!("{} ({})", error.message(), error.code());
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more);
    }
    text
}

/// A failure under the store's own statements, before a commit: nothing was written.
pub(crate) fn refusal(error: &sqlx::Error) -> Refusal {
    let why = words(error);
    let unavailable = |remedy: &str, passing: bool| Refusal::Unavailable {
        why: why.clone(),
        remedy: remedy.into(),
        passing,
    };
    match kind(error) {
        Kind::Serialization | Kind::Deadlock | Kind::Unique => {
            Refusal::Busy { why: format!("other transactions were faster each time ({why})") }
        }
        Kind::Locked => Refusal::Busy { why: format!("a lock was not free in time ({why})") },
        Kind::Busy => Refusal::Busy { why: format!("the server takes no more ({why})") },
        Kind::TimedOut => Refusal::Closure { why: format!("took longer than its time limit ({why})") },
        Kind::Lost => unavailable("it goes on by itself when the server can be reached again", true),
        Kind::Full => unavailable("free space on the server's disk; it goes on by itself then", true),
        Kind::ReadOnly => {
            unavailable("the server is a replica, or set to read only; write to the leader", true)
        }
        Kind::Permission => unavailable("grant this user what the schema's owner may", false),
        Kind::Damaged => {
            unavailable("stop writing, look at the server's log, and restore from a copy", false)
        }
        Kind::Constraint | Kind::Statement => {
            unavailable("this is a defect of the store: please report it with this message", false)
        }
    }
}

pub(crate) fn read_error(error: &sqlx::Error) -> ReadError {
    let why = words(error);
    match kind(error) {
        Kind::Damaged => ReadError::Damaged { why },
        kind => ReadError::Unavailable { why, passing: passes(kind) || kind == Kind::TimedOut },
    }
}

/// Stored bytes that can't be what was written.
pub(crate) fn damaged(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} is not what was written").into())
}

/// An error of the user's own SQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    pub(crate) message: String,
    pub(crate) kind: SqlFault,
}

/// What kind of fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlFault {
    /// It lost a race; the closure is run again.
    Race,
    /// A constraint of a table refused the row.
    Constraint,
    /// It took too long.
    TimedOut,
    /// The connection, or the server, is gone.
    Lost,
    /// The statement itself.
    Statement,
}

impl SqlError {
    /// Did a constraint of the user's tables refuse the row?
    pub fn is_constraint(&self) -> bool {
        self.kind == SqlFault::Constraint
    }

    /// What kind of fault it was.
    pub fn fault(&self) -> SqlFault {
        self.kind
    }
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        let fault = match kind(&error) {
            Kind::Serialization | Kind::Deadlock | Kind::Locked => SqlFault::Race,
            Kind::Unique | Kind::Constraint => SqlFault::Constraint,
            Kind::TimedOut => SqlFault::TimedOut,
            Kind::Lost => SqlFault::Lost,
            _ => SqlFault::Statement,
        };
        Self { message: words(&error), kind: fault }
    }
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Self::Sql { retry: matches!(error.kind, SqlFault::Race | SqlFault::Lost), why: error.message }
    }
}

impl<E> From<SqlError> for Abort<E> {
    fn from(error: SqlError) -> Self {
        Self::Refused(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_nobodys_fault_is_tried_again() {
        let again = ["40001", "40P01", "55P03", "57P01", "08006", "53300", "53100", "25006", "25P03"];
        for code in again {
            assert!(passes(kind_of(code)), "{code}");
        }
        for code in ["23505", "23514", "42501", "42P01", "22001", "XX001", "57014", "0A000"] {
            assert!(!passes(kind_of(code)), "{code}");
        }
    }
}
