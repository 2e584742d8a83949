//! Tables whose rows come and go: outbox rows, marks of what was sent, marks of what was handled.
//!
//! # What it protects from
//!
//! A queue in a table that is updated and deleted from dies of an old snapshot: as long as anybody holds one (a backup, a
//! forgotten session, a replica's long query) no dead row can be removed, and every look-up walks over them all. So
//! nothing here is updated or deleted where messages pass. Rows are inserted into partitions; in the background they
//! are folded into a few rows that say the same, and their partition is truncated, which needs no snapshot's leave.
//!
//! ```text
//!   inbox_mark   ▒▒▒▒│▒▒  │    │▒       slot = seq / 4096 % 4       ──fold──► inbox_lane, inbox_hole, inbox_recent
//!   sent_mark    ▒▒  │▒▒▒▒│             slot = first / 65536 % 3    ──fold──► sent_range
//!   outbox       ▒▒▒▒│▒▒▒ │    │        slot = outbox_turn's        ──number, send, prune (the relay)──► gone
//! ```
//! In which slot a row stands never decides what is true of it: readers look into all of them.
//!
//! # Why nothing is lost
//!
//! * Most is folded before, in transactions of their own, and folding a mark twice changes nothing. What came meanwhile is
//!   folded under the partition's exclusive lock, in the transaction that truncates it.
//! * A partition of the outbox is truncated under its lock when it still holds exactly as many rows as were looked at. Rows
//!   are only ever inserted, so as many rows are the same rows.
//! * Who reads marks at READ COMMITTED reads them and what they are folded into in one statement, which locks the
//!   tables before it takes its snapshot. Above, `inbox_mark` (inbox.sql) compares what its snapshot says of the
//!   partitions with how they are, and has the transaction run again when one was truncated since.
//!
//! The lock is waited for only shortly ([`Spec::lock_wait`]), because whoever comes meanwhile waits behind us; a busy
//! partition stays as it is, and grows, until a later look.

mod fold;
mod inbox;
mod outbox;
mod run;
mod sent;
mod spec;

pub use run::{Retention, Swept, sweep};
pub use spec::Spec;

use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgConnection, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};

use crate::schema::Schema;

/// What the steps work with.
pub(crate) struct Desk<'a> {
    pub(crate) conn: &'a mut PgConnection,
    pub(crate) schema: &'a Schema,
    pub(crate) spec: &'a Spec,
}

impl Desk<'_> {
    /// A statement with the schema's name for `{s}` and a partition's number for `{p}`.
    fn sql(&self, template: &str, slot: u16) -> AssertSqlSafe<Arc<str>> {
        let quoted = format!("\"{}\"", self.schema.name());
        let sql = template.replace("{s}", &quoted).replace("{p}", &slot.to_string());
        AssertSqlSafe(Arc::from(sql))
    }

    fn query<'q>(&self, template: &str, slot: u16) -> Query<'q, Postgres, PgArguments> {
        sqlx::query(self.sql(template, slot)).persistent(self.spec.prepared)
    }

    /// Begins a transaction, unless another process is at it; was it begun?
    async fn begin(&mut self) -> Result<bool, sqlx::Error> {
        let template = format!(
            "begin isolation level read committed; set local lock_timeout = {}; set local jit = off;
             set local idle_in_transaction_session_timeout = 10000;
             select pg_try_advisory_xact_lock(hashtextextended('mainstay retention {}', 0)) as mine",
            self.spec.lock_wait.as_millis().max(1),
            self.schema.name()
        );
        let rows = self.conn.fetch_all(sqlx::raw_sql(AssertSqlSafe(template))).await?;
        let mine = match rows.last() {
            Some(row) => row.try_get("mine")?,
            None => false,
        };
        if !mine {
            self.rollback().await?;
        }
        Ok(mine)
    }

    async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.conn.execute(sqlx::raw_sql("commit")).await.map(drop)
    }

    async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        self.conn.execute(sqlx::raw_sql("rollback")).await.map(drop)
    }

    /// Begins a transaction that holds these partitions alone; false when somebody uses them, or another process is
    /// at it.
    async fn begin_alone(&mut self, tables: &[&str], slot: u16) -> Result<bool, sqlx::Error> {
        if !self.begin().await? {
            return Ok(false);
        }
        let locked = self.sql(&format!("lock table {} in access exclusive mode", names(tables)), slot);
        match self.conn.execute(sqlx::raw_sql(locked)).await {
            Ok(_) => Ok(true),
            Err(error) if is_code(&error, "55P03") => self.rollback().await.map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Truncates what [`Desk::begin_alone`] locked, and commits.
    async fn truncate(&mut self, tables: &[&str], slot: u16) -> Result<(), sqlx::Error> {
        let truncated = self.sql(&format!("truncate {}", names(tables)), slot);
        self.conn.execute(sqlx::raw_sql(truncated)).await?;
        self.commit().await
    }
}

/// Partitions' names, as a statement takes them.
fn names(tables: &[&str]) -> String {
    tables.iter().map(|table| format!("{{s}}.{table}_{{p}}")).collect::<Vec<_>>().join(", ")
}

/// How an attempt to truncate a partition ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Emptied {
    Done,
    /// Somebody uses it.
    Busy,
    /// Rows came that are not folded.
    Changed,
}

fn is_code(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|answer| answer.code()).is_some_and(|found| found == code)
}
