//! The user's own SQL, on the transaction's connection.

use sqlx::postgres::{PgArguments, PgQueryResult, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};

use super::transaction::Transaction;
use crate::error::{SqlError, SqlFault};

/// The user's own SQL inside a transaction. What it writes commits with everything else, or not at all.
///
/// A statement that fails ends the transaction on the server, unless it stood behind a savepoint and the closure goes
/// back to it: a closure that swallows the error is refused all the same. One that itself ends the transaction
/// (`commit`, `rollback`) is refused, and what it committed that way stays.
#[derive(Debug)]
pub struct Sql<'tx> {
    tx: &'tx Transaction,
}

impl Transaction {
    /// The user's own SQL in this transaction.
    pub fn sql(&self) -> Sql<'_> {
        Sql { tx: self }
    }
}

impl Sql<'_> {
    /// Runs a statement: `sql.execute(sqlx::query("insert into audit values ($1)").bind(100))`.
    pub fn execute(&self, query: Query<'_, Postgres, PgArguments>) -> Result<PgQueryResult, SqlError> {
        self.run(async |conn| query.execute(conn).await)
    }

    /// All rows of a query.
    pub fn fetch_all(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, SqlError> {
        self.run(async |conn| query.fetch_all(conn).await)
    }

    /// The first row of a query, if there is one.
    pub fn fetch_optional(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Option<PgRow>, SqlError> {
        self.run(async |conn| query.fetch_optional(conn).await)
    }

    /// Runs several statements without parameters.
    pub fn batch(&self, sql: &'static str) -> Result<(), SqlError> {
        self.run(async |conn| sqlx::raw_sql(sql).execute(conn).await.map(drop))
    }

    /// Anything else that sqlx can do with a connection.
    pub fn run<T>(
        &self,
        call: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> Result<T, SqlError> {
        if let Err(refusal) = self.tx.undecided() {
            return Err(SqlError { message: refusal.to_string(), kind: SqlFault::Statement });
        }
        self.tx.sql_used.set(true);
        let ended = self.tx.on_connection(async |conn, _| call(conn).await);
        ended.map_err(|error| {
            let fault = SqlError::from(error);
            if matches!(fault.kind, SqlFault::Race | SqlFault::Lost) {
                let mut state = self.tx.state.borrow_mut();
                state.again = true;
                state.broken |= fault.kind == SqlFault::Lost;
            }
            self.tx.sql_fault.borrow_mut().get_or_insert_with(|| fault.clone());
            fault
        })
    }
}
