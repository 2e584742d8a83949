//! The contract's suite on a real file. The second handle is opened anew: its own connections, its own writer
//! thread, nothing shared in memory, as another process would have it.

// A failed test is a panic; the lint's exemption for tests does not reach helper functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU32, Ordering};

use mainstay_event_store::conformance::Harness;
use mainstay_sqlite::{Options, Sqlite};

mod folder;

/// Stores in a folder that goes when the test ends.
struct Files {
    folder: folder::Folder,
    made: AtomicU32,
}

impl Files {
    fn new() -> Self {
        Self { folder: folder::Folder::new(), made: AtomicU32::new(0) }
    }
}

impl Harness for Files {
    type Store = Sqlite;

    async fn open(&self) -> Sqlite {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        Sqlite::open(Options::new(self.folder.path().join(format!("store-{n}.db")))).unwrap()
    }

    async fn again(&self, store: &Sqlite) -> Sqlite {
        Sqlite::open(Options::new(store.path()).existing()).unwrap()
    }
}

mainstay_event_store::conformance_suite!(Files::new());
