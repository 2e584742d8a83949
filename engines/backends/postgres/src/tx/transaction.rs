//! One transaction, as a closure sees it: every method runs on the worker's connection, and waits for it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mainstay_envelope::Timestamp;
use mainstay_event_store::{Author, Refusal, Topic};
use sqlx::{Connection, PgConnection};
use tokio::runtime::Runtime;

use super::own::Own;
use crate::error::{self, Kind, SqlError, kind};
use crate::limit::silent;
use crate::ops::outbox::Pending;
use crate::ops::{self, Ended, Place};
use crate::options::Isolation;
use crate::receipt::Mark;

/// Bytes of outbox rows that are kept until they are written together.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// What an open transaction knows, over all its closure's calls. See [`mainstay_event_store::Tx`].
#[derive(Debug)]
pub struct Transaction {
    pub(super) runtime: Rc<Runtime>,
    pub(super) place: Place,
    pub(super) isolation: Isolation,
    pub(super) at: Timestamp,
    /// Who writes; changed by `acting_for`.
    pub(super) origin: RefCell<Author>,
    pub(super) conn: RefCell<PgConnection>,
    /// Looks at what is committed now, where this transaction's own snapshot is older.
    pub(super) second: RefCell<Second>,
    pub(super) state: RefCell<State>,
    /// The last fault of the user's own SQL; whether it ended the transaction is seen before the commit.
    pub(super) sql_fault: RefCell<Option<SqlError>>,
    pub(super) sql_used: Cell<bool>,
    /// What it has appended, where it is to know the positions of that.
    pub(super) own: Option<RefCell<Own>>,
    pub(super) began: Instant,
    pub(super) limit: Duration,
}

/// A connection that is made when it is first needed, and kept by the worker.
#[derive(Debug)]
pub(super) struct Second {
    pub(super) options: sqlx::postgres::PgConnectOptions,
    pub(super) conn: Option<PgConnection>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// The first refusal decides.
    pub(super) refused: Option<Refusal>,
    /// It lost a race, or its connection: to be run again from the start.
    pub(super) again: bool,
    /// The connection is of no more use.
    pub(super) broken: bool,
    pub(super) mark: Option<Mark>,
    /// Rows of the outbox that are not sent to the server yet; all of `topic`.
    pub(super) pending: Vec<Pending>,
    pub(super) pending_bytes: usize,
    pub(super) topic: Option<Topic>,
}

impl Transaction {
    /// Does what a call asks for, unless the transaction is decided already.
    pub(super) fn run<T>(
        &self,
        call: impl AsyncFnOnce(&mut PgConnection, &Place) -> Ended<T>,
    ) -> Result<T, Refusal> {
        self.undecided()?;
        let ended = self.on_connection(call);
        match ended {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(refusal)) => Err(self.decided(refusal)),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// As [`Transaction::run`], for what can't be refused.
    pub(super) fn ask<T>(
        &self,
        call: impl AsyncFnOnce(&mut PgConnection, &Place) -> sqlx::Result<T>,
    ) -> Result<T, Refusal> {
        self.run(async |conn, place| call(conn, place).await.map(Ok))
    }

    /// Runs on the connection, until the closure's time is over. The server has the same limit, and is faster: this
    /// one is for a server that does not answer.
    pub(super) fn on_connection<T>(
        &self,
        call: impl AsyncFnOnce(&mut PgConnection, &Place) -> sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        let mut conn = self.conn.borrow_mut();
        let left = self.limit.saturating_sub(self.began.elapsed()) + Duration::from_secs(1);
        let ended =
            self.runtime.block_on(async { tokio::time::timeout(left, call(&mut conn, &self.place)).await });
        ended.unwrap_or_else(|_| {
            self.state.borrow_mut().broken = true;
            Err(silent(left))
        })
    }

    /// The first refusal, or that the time is over.
    pub(super) fn undecided(&self) -> Result<(), Refusal> {
        if let Some(refusal) = &self.state.borrow().refused {
            return Err(refusal.clone());
        }
        if self.began.elapsed() > self.limit {
            let why = format!("took longer than its time limit of {:?}", self.limit);
            return Err(self.decided(Refusal::Closure { why }));
        }
        Ok(())
    }

    /// Notes a refusal; the first one counts.
    pub(super) fn decided(&self, refusal: Refusal) -> Refusal {
        self.state.borrow_mut().refused.get_or_insert(refusal).clone()
    }

    /// Notes what a refusal of a pure rule decides.
    pub(super) fn noted<T>(&self, ended: Result<T, Refusal>) -> Result<T, Refusal> {
        ended.map_err(|refusal| self.decided(refusal))
    }

    /// Notes that the server failed.
    pub(super) fn failed(&self, error: &sqlx::Error) -> Refusal {
        let failure = kind(error);
        {
            let mut state = self.state.borrow_mut();
            state.broken |= failure == Kind::Lost;
            state.again |= error::passes(failure) || failure == Kind::Unique;
        }
        self.decided(error::refusal(error))
    }

    /// A race that showed without an error.
    pub(super) fn raced(&self, refusal: Refusal) -> Refusal {
        self.state.borrow_mut().again = true;
        self.decided(refusal)
    }

    /// This transaction wrote something that its receipt has to cover.
    pub(super) fn wrote(&self, mark: Mark) {
        let mut state = self.state.borrow_mut();
        state.mark = Some(state.mark.map_or(mark, |known| known.later(mark)));
    }

    /// Keeps a row of the outbox until it is written together with others.
    pub(super) fn keep(&self, row: Pending) -> Result<(), Refusal> {
        let full = {
            let mut state = self.state.borrow_mut();
            state.pending_bytes += row.bytes();
            state.pending.push(row);
            state.pending_bytes > PENDING_BYTES_MAX
        };
        if full { self.flush() } else { Ok(()) }
    }

    /// Writes the rows of the outbox that were kept.
    pub(super) fn flush(&self) -> Result<(), Refusal> {
        let rows = {
            let mut state = self.state.borrow_mut();
            state.pending_bytes = 0;
            std::mem::take(&mut state.pending)
        };
        if rows.is_empty() {
            return Ok(());
        }
        let mark = self.run(async |conn, place| ops::outbox::add(conn, place, &rows).await)?;
        self.wrote(mark);
        Ok(())
    }

    /// Looks with a snapshot of this moment, on another connection.
    pub(super) fn on_second<T>(
        &self,
        call: impl AsyncFnOnce(&mut PgConnection, &Place) -> sqlx::Result<T>,
    ) -> Result<T, Refusal> {
        self.undecided()?;
        let mut second = self.second.borrow_mut();
        let left = self.limit.saturating_sub(self.began.elapsed()) + Duration::from_millis(1);
        let explicit = self.place.way.explicit();
        let looked = self.runtime.block_on(async {
            tokio::time::timeout(left, async {
                let mut conn = match second.conn.take() {
                    Some(conn) => conn,
                    None => PgConnection::connect_with(&second.options).await?,
                };
                if explicit {
                    sqlx::raw_sql("begin").execute(&mut conn).await?;
                }
                let answer = call(&mut conn, &self.place).await?;
                if explicit {
                    sqlx::raw_sql("commit").execute(&mut conn).await?;
                }
                Ok((conn, answer))
            })
            .await
        });
        match looked {
            Ok(Ok((conn, answer))) => {
                second.conn = Some(conn);
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => Err(self.failed(&silent(left))),
        }
    }
}
