//! The embedded log keeps every promise of the contract; a store keeps the places of its groups.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use mainstay_envelope::Timestamp;
use mainstay_messaging::Log;
use mainstay_messaging::conformance::Harness;
use mainstay_sqlite::rusqlite::Connection;
use mainstay_sqlite::{EmbeddedLog, LogOptions, Options, Sqlite};

mod folder;

struct Embedded {
    folder: folder::Folder,
    /// Holds the file's write lock while the log is stalled.
    stalled: Mutex<Option<Connection>>,
}

impl Embedded {
    fn new() -> Self {
        Self { folder: folder::Folder::new(), stalled: Mutex::default() }
    }

    fn options(path: &Path, partitions: u32) -> LogOptions {
        LogOptions::new(path).partitions(partitions).retention(None).busy_limit(Duration::from_secs(2))
    }
}

impl Harness for Embedded {
    type Log = EmbeddedLog;
    type Offsets = Sqlite;

    async fn open(&self, partitions: u32) -> EmbeddedLog {
        EmbeddedLog::open(Self::options(&self.folder.path().join("log.db"), partitions)).unwrap()
    }

    async fn again(&self, log: &EmbeddedLog) -> EmbeddedLog {
        EmbeddedLog::follow(Self::options(log.path(), log.partitions())).unwrap()
    }

    async fn offsets(&self) -> Sqlite {
        Sqlite::open(Options::new(self.folder.path().join("consumer.db"))).unwrap()
    }

    async fn prune(&self, log: &EmbeddedLog, before: Timestamp) {
        log.prune(before).await.unwrap();
    }

    async fn stall(&self, log: &EmbeddedLog, stalled: bool) {
        let mut holder = self.stalled.lock().unwrap();
        *holder = stalled.then(|| {
            let conn = Connection::open(log.path()).unwrap();
            conn.execute_batch("begin immediate").unwrap();
            conn
        });
    }
}

mainstay_messaging::conformance_suite!(Embedded::new());
