//! How a connection to the server is used.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor, PgConnection};

use crate::options::{Options, Server};

/// May something be kept on a connection from one transaction to the next?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// A pooler in transaction mode hands each transaction to another connection.
    pub(crate) pooled: bool,
}

impl Way {
    /// May statements stay prepared?
    pub(crate) fn persistent(self) -> bool {
        !self.pooled
    }

    /// Does a single statement need a transaction around it? Preparing and running it are two steps, which must
    /// reach one connection.
    pub(crate) fn explicit(self) -> bool {
        self.pooled
    }
}

/// Where and how to connect. Fails on a URL that is none.
pub(crate) fn connect_options(options: &Options) -> sqlx::Result<PgConnectOptions> {
    let connect = match &options.server {
        Server::Url(url) => PgConnectOptions::from_str(url)?,
        Server::Connect(connect) => connect.as_ref().clone(),
    };
    let named = connect.get_application_name().is_some();
    let connect = if named { connect } else { connect.application_name("mainstay") };
    Ok(if options.pooled {
        connect.statement_cache_capacity(0)
    } else {
        connect.statement_cache_capacity(200)
    })
}

/// What every connection of ours is told first, where there is no pooler in between. The planner is kept to indexes:
/// what it knows of tables that grow all the time is out of date, and a plan is kept for the connection's life.
pub(crate) async fn prepare(conn: &mut PgConnection, limit: Duration, lock: Duration) -> sqlx::Result<()> {
    let settings = format!(
        "set statement_timeout = {}; set lock_timeout = {}; set idle_in_transaction_session_timeout = {};
         set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set jit = off;
         set default_transaction_isolation = 'read committed'",
        limit.as_millis().max(1),
        lock.as_millis().max(1),
        limit.as_millis().max(1),
    );
    conn.execute(sqlx::AssertSqlSafe(settings)).await.map(drop)
}
