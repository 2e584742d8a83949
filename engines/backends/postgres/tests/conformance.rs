//! The contract's whole suite on a server. Each case has a schema of its own, dropped when it has passed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::conformance::{Features, Harness};
use mainstay_postgres::sqlx::{self, Connection, Executor, PgConnection};
use mainstay_postgres::{Options, Postgres, Schema};

/// Where the server is. A missing one is a failure that says what to do, not a test that passes.
fn url() -> String {
    std::env::var("MAINSTAY_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "MAINSTAY_TEST_POSTGRES is not set: this test needs a PostgreSQL server. Start one with \
             `cargo xtask engines up postgres`, and set the variable to the leader's URL that it prints"
        )
    })
}

/// Through a pooler in transaction mode, when the URL is such a one's: `MAINSTAY_TEST_POSTGRES_POOLED=1`.
fn options() -> Options {
    // A case puts four hundred calls into one closure, and many stores share the machine.
    let options = Options::new(url()).closure_limit(Duration::from_secs(15));
    match std::env::var_os("MAINSTAY_TEST_POSTGRES_POOLED") {
        Some(_) => options.pooled(),
        None => options,
    }
}

/// Stores in schemas that no other run of these tests uses.
#[derive(Default)]
struct Server {
    schemas: Mutex<Vec<Schema>>,
}

static COUNT: AtomicU64 = AtomicU64::new(0);

impl Harness for Server {
    type Store = Postgres;

    async fn open(&self) -> Postgres {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = Schema::new(format!("conformance_{}_{number}", std::process::id())).unwrap();
        self.schemas.lock().unwrap().push(schema.clone());
        Postgres::open(&Context::system(), options().schema(schema)).await.unwrap()
    }

    async fn again(&self, store: &Postgres) -> Postgres {
        let schema = Schema::new(store.schema().name()).unwrap();
        Postgres::open(&Context::system(), options().schema(schema).existing()).await.unwrap()
    }

    fn features(&self) -> Features {
        Features { positions_at_commit: false }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What failed is looked at afterwards.
            return;
        }
        let schemas = std::mem::take(&mut *self.schemas.lock().unwrap());
        // Dropped on a thread of its own: this one runs the test's runtime.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut conn = PgConnection::connect(&url()).await.unwrap();
                for schema in schemas {
                    let drop = format!("drop schema \"{}\" cascade", schema.name());
                    // A sequencer that still runs may stand in the way: then both wait, one of them in vain.
                    for last in [false, false, true] {
                        match conn.execute(sqlx::AssertSqlSafe(drop.clone())).await {
                            Err(error) => assert!(!last, "{error}"),
                            Ok(_) => break,
                        }
                    }
                }
            });
        });
        dropping.join().unwrap();
    }
}

mainstay_event_store::conformance_suite!(Server::default());
