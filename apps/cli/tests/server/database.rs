//! The server, and schemas on it that no other run of these tests uses.

use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay::postgres::sqlx::postgres::PgConnectOptions;
use mainstay::postgres::sqlx::{self, Connection, Executor, PgConnection};

use super::kit::{mainstay_with, text};

/// Where the server is. A missing one is a failure that says what to do, not a test that passes.
pub(crate) fn url() -> String {
    std::env::var("MAINSTAY_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "MAINSTAY_TEST_POSTGRES is not set: this test needs a PostgreSQL server. Start one with \
             `cargo xtask engines up postgres`, and set the variable to the leader's URL that it prints"
        )
    })
}

pub(crate) fn server() -> PgConnectOptions {
    url().parse().unwrap()
}

/// The server's URL with another user, host and port, and these parameters besides.
pub(crate) fn url_of(user: &str, password: &str, at: &str, database: &str, parameters: &str) -> String {
    format!("postgres://{user}:{password}@{at}/{database}?{parameters}")
}

/// The password in the server's URL.
pub(crate) fn password() -> String {
    let url = url();
    let user = url.split_once("://").unwrap().1.split_once('@').unwrap().0.to_owned();
    user.split_once(':').unwrap().1.to_owned()
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Runs SQL as the tests' user.
pub(crate) fn run(sql: String) {
    block(async {
        let mut conn = PgConnection::connect(&url()).await.unwrap();
        conn.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
    });
}

/// How many schemas have a name that begins so.
pub(crate) fn schemas(begin: &str) -> i64 {
    block(async {
        let mut conn = PgConnection::connect(&url()).await.unwrap();
        let found = "select count(*) from pg_namespace where starts_with(nspname, $1)";
        sqlx::query_scalar(found).bind(begin).fetch_one(&mut conn).await.unwrap()
    })
}

static COUNT: AtomicU64 = AtomicU64::new(0);

/// The beginning of names that nobody else uses; what is called so is dropped at the end.
pub(crate) struct Names(pub(crate) String);

impl Names {
    pub(crate) fn new() -> Self {
        Self(format!("cli_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// A URL whose schema is called so.
    pub(crate) fn url(&self) -> String {
        let url = url();
        format!("{url}{}schema={}", if url.contains('?') { '&' } else { '?' }, self.0)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What failed is looked at afterwards.
            return;
        }
        run(format!(
            "do $$ declare s text; begin
                 for s in select nspname from pg_namespace where starts_with(nspname, '{}') loop
                     execute format('drop schema %I cascade', s);
                 end loop;
             end $$",
            self.0
        ));
    }
}

/// The binary, run to its end, with what it finds in its environment as STORE.
pub(crate) fn mainstay(store: &str, arguments: &[&str]) -> Output {
    mainstay_with(arguments, &[("STORE", store)])
}

/// What it prints when it succeeds.
pub(crate) fn done(store: &str, arguments: &[&str]) -> String {
    let output = mainstay(store, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Fails with this code and these words, and shows no password.
pub(crate) fn fails(store: &str, arguments: &[&str], code: i32, words: &str) {
    let output = mainstay(store, arguments);
    let said = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(words), "{arguments:?}: {words:?} is missing in: {said}");
    assert!(!said.contains(&password()) && !said.contains("secret"), "{said}");
}
