//! How a connection to the server is used.

use std::str::FromStr;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Executor, PgConnection, PgPool, Postgres};

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

/// A connection for reading.
pub(crate) struct Reading {
    conn: PoolConnection<Postgres>,
    explicit: bool,
}

impl std::ops::Deref for Reading {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.conn
    }
}

impl std::ops::DerefMut for Reading {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.conn
    }
}

impl Reading {
    /// Ends what the reading needed. One that is dropped instead is rolled back by closing its connection.
    pub(crate) async fn end(mut self) -> sqlx::Result<()> {
        if self.explicit {
            sqlx::raw_sql("commit").execute(&mut *self.conn).await?;
            self.explicit = false;
        }
        Ok(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.explicit {
            // Its transaction is open, and the next user of the connection must not find it.
            self.conn.close_on_drop();
        }
    }
}

impl Way {
    /// A connection from a pool, in a transaction where one is needed.
    pub(crate) async fn acquire(self, pool: &PgPool) -> sqlx::Result<Reading> {
        let mut conn = pool.acquire().await?;
        let explicit = self.explicit();
        if explicit {
            sqlx::raw_sql("begin read only").execute(&mut *conn).await?;
        }
        Ok(Reading { conn, explicit })
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
async fn prepare(conn: &mut PgConnection, limit: Duration, lock: Duration) -> sqlx::Result<()> {
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

/// Connections of one kind of use. None is made before it is needed.
pub(crate) fn pool(connect: &PgConnectOptions, options: &Options, size: u32, limit: Duration) -> PgPool {
    let (pooled, lock) = (options.pooled, options.busy);
    PgPoolOptions::new()
        .max_connections(size)
        .min_connections(0)
        .acquire_timeout(options.connect_limit)
        // A look at a connection before each use costs a round trip; one that was lost is found out when it is used.
        .test_before_acquire(false)
        .after_connect(move |conn, _| {
            Box::pin(async move { if pooled { Ok(()) } else { prepare(conn, limit, lock).await } })
        })
        .connect_lazy_with(connect.clone())
}

/// The longest statement of a reader or of a batch.
pub(crate) const STATEMENT_LIMIT: Duration = Duration::from_secs(30);
