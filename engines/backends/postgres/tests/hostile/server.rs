//! The server, and a database of its own for each run.

use std::path::PathBuf;
use std::str::FromStr;

use mainstay_envelope::Context;
use mainstay_event_store::{OutboxRow, Topic};
use mainstay_postgres::{Joined, Options, Postgres, Schema};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Transaction};

/// The value of a variable that says where a server is.
pub(crate) fn variable(name: &str, what: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: {what}. `cargo xtask engines up postgres` starts what is needed and \
             `cargo xtask engines status postgres` shows the URLs"
        )
    })
}

/// The leader's URL.
pub(crate) fn url() -> String {
    variable("MAINSTAY_TEST_POSTGRES", "the URL of a PostgreSQL server whose user may create databases")
}

/// A way to a database.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) connect: PgConnectOptions,
    /// Through a pooler in transaction mode: statements are not kept on a connection.
    pub(crate) pooled: bool,
}

impl Way {
    pub(crate) async fn conn(&self) -> PgConnection {
        PgConnection::connect_with(&self.connect).await.unwrap()
    }

    /// A statement, kept on its connection or not.
    pub(crate) fn query<'q>(
        &self,
        sql: &'static str,
    ) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
        sqlx::query(sql).persistent(!self.pooled)
    }
}

/// Joins a transaction.
pub(crate) async fn join<'c>(
    way: &Way,
    tx: &'c mut Transaction<'_, sqlx::Postgres>,
    cx: &Context,
) -> Joined<'c> {
    let schema = Schema::default();
    let joined =
        if way.pooled { Joined::pooled(&schema, tx, cx).await } else { Joined::of(&schema, tx, cx).await };
    joined.unwrap()
}

/// Records a message inside the open transaction.
pub(crate) async fn publish(way: &Way, tx: &mut Transaction<'_, sqlx::Postgres>) {
    let topic = Topic::new("happened").unwrap();
    let row = OutboxRow { topic, key: "k".into(), headers: Vec::new(), payload: Vec::new() };
    join(way, tx, &Context::system()).await.outbox(&[row]).await.unwrap();
}

/// A database of one run, with a store in the schema `mainstay`.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) name: String,
    /// Straight to the server.
    pub(crate) direct: Way,
}

impl Database {
    /// A new one, with a store and the user's own table.
    pub(crate) async fn with_store(label: &str) -> Self {
        let database = Self::empty(label).await;
        let options = Options::with(database.direct.connect.clone()).sequencer(None).retention(None);
        drop(Postgres::open(&Context::system(), options).await.unwrap());
        let mut conn = database.direct.conn().await;
        conn.execute("create table business(id bigserial primary key, note text)").await.unwrap();
        database
    }

    /// The same, with a first message. It settles the topic; two first ones at once would wait for each other.
    pub(crate) async fn with_message(label: &str) -> Self {
        let database = Self::with_store(label).await;
        let mut conn = database.direct.conn().await;
        let mut tx = conn.begin().await.unwrap();
        publish(&database.direct, &mut tx).await;
        tx.commit().await.unwrap();
        database
    }

    /// A new one without anything.
    pub(crate) async fn empty(label: &str) -> Self {
        let server = PgConnectOptions::from_str(&url()).unwrap();
        let name = format!("hostile_{label}_{}", Context::system().new_id().simple());
        let mut conn = PgConnection::connect_with(&server).await.unwrap_or_else(|error| {
            panic!("the server of MAINSTAY_TEST_POSTGRES is not reached: {error}; `cargo xtask engines up postgres`")
        });
        conn.execute(AssertSqlSafe(format!("create database {name}"))).await.unwrap();
        let connect = server.database(&name);
        Self { name, direct: Way { connect, pooled: false } }
    }

    /// Its URL, for programs.
    pub(crate) fn url(&self) -> String {
        with_database(&url(), &self.name)
    }

    /// The same database by another server's URL.
    pub(crate) fn by(&self, url: &str, pooled: bool) -> Way {
        let connect = PgConnectOptions::from_str(url).unwrap().database(&self.name);
        let connect = if pooled { connect.statement_cache_capacity(0) } else { connect };
        Way { connect, pooled }
    }

    /// The same database by the one of several servers, apart by commas, that takes writes.
    pub(crate) async fn leader_among(&self, urls: &str) -> Way {
        for url in urls.split([',', ' ']).filter(|url| !url.is_empty()) {
            let way = self.by(url, false);
            let Ok(mut conn) = PgConnection::connect_with(&way.connect).await else { continue };
            let follows: bool =
                sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut conn).await.unwrap();
            if !follows {
                return way;
            }
        }
        panic!("none of the replicas was promoted");
    }

    /// Removes it, whoever is still connected.
    pub(crate) async fn remove(self) {
        let server = PgConnectOptions::from_str(&url()).unwrap();
        let mut conn = PgConnection::connect_with(&server).await.unwrap();
        // Prepared transactions that a failed run left would keep it.
        let mut own = self.direct.conn().await;
        let left: Vec<String> =
            sqlx::query_scalar("select gid::text from pg_prepared_xacts where database = current_database()")
                .fetch_all(&mut own)
                .await
                .unwrap();
        for gid in left {
            own.execute(AssertSqlSafe(format!("rollback prepared '{gid}'"))).await.unwrap();
        }
        own.close().await.unwrap();
        // The server's own cleaning may be at work in it, which only the second form may send away.
        for again in 0..50 {
            let how = if again % 2 == 0 { " with (force)" } else { "" };
            match conn.execute(AssertSqlSafe(format!("drop database {}{how}", self.name))).await {
                Ok(_) => return,
                Err(error) if again == 49 => panic!("{error}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }
}

/// The prepared transactions of a database.
pub(crate) async fn prepared(conn: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar("select gid::text from pg_prepared_xacts where database = current_database()")
        .fetch_all(conn)
        .await
        .unwrap()
}

/// The same server's URL for another database.
fn with_database(url: &str, name: &str) -> String {
    let (before, query) = url.split_once('?').map_or((url, None), |(before, query)| (before, Some(query)));
    let server = before.rsplit_once('/').map_or(before, |(server, _)| server);
    query.map_or_else(|| format!("{server}/{name}"), |query| format!("{server}/{name}?{query}"))
}

/// Runs a program of PostgreSQL's to its end.
pub(crate) async fn run(name: &'static str, arguments: Vec<String>) {
    let ended = tokio::task::spawn_blocking(move || {
        std::process::Command::new(program(name)).args(arguments).output()
    });
    let output = ended.await.unwrap().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A program of PostgreSQL's: from the path, or where Debian keeps it.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let found = places.iter().map(|place| place.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: it comes with the package postgresql-client"))
}
