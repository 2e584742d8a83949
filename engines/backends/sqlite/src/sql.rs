//! The user's own SQL, inside the store's transaction.

use rusqlite::{OptionalExtension, Params, Row};

use crate::error::SqlError;
use crate::writer::{Code, Transaction};

/// The user's way to their own tables, in the same transaction as the facts.
///
/// Refused, with nothing harmed: beginning or ending a transaction, savepoints, PRAGMA, ATTACH, DETACH,
/// writes to the store's tables. Reading them is allowed, their shape is not promised. Each call costs one
/// statement; statements are kept prepared.
#[derive(Debug, Clone, Copy)]
pub struct Sql<'tx> {
    tx: &'tx Transaction,
}

/// Set before the user's text so that it never equals a statement of the store: the two share a cache, and a
/// statement that the store prepared was not checked against what users may do.
fn theirs(sql: &str) -> String {
    format!("/*user*/{sql}")
}

impl Transaction {
    /// The user's own SQL.
    pub fn sql(&self) -> Sql<'_> {
        Sql { tx: self }
    }
}

impl Sql<'_> {
    /// A statement after the transaction is gone would be a transaction of its own.
    fn enter(&self) -> Result<Code<'_>, SqlError> {
        if self.tx.is_lost() { Err(SqlError::lost()) } else { Ok(self.tx.guard().user_code()) }
    }

    /// Runs one statement; the number of rows it changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize, SqlError> {
        let _user = self.enter()?;
        Ok(self.tx.conn().prepare_cached(&theirs(sql))?.execute(params)?)
    }

    /// The first row of a query, if there is one.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, SqlError> {
        let _user = self.enter()?;
        Ok(self.tx.conn().prepare_cached(&theirs(sql))?.query_row(params, read).optional()?)
    }

    /// All rows of a query.
    pub fn query<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, SqlError> {
        let _user = self.enter()?;
        let mut statement = self.tx.conn().prepare_cached(&theirs(sql))?;
        let rows = statement.query_map(params, read)?.collect::<Result<Vec<_>, _>>()?;
        Ok(rows)
    }

    /// Runs several statements, as for a migration of the user's own tables.
    pub fn batch(&self, sql: &str) -> Result<(), SqlError> {
        let _user = self.enter()?;
        Ok(self.tx.conn().execute_batch(sql)?)
    }
}
