//! Who reads: subscribers of the feed, and two readers of the kinds that are known to fail.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use crate::chance::Chance;
use crate::server::Way;
use crate::writers::Ledger;

/// What a reader got.
#[derive(Debug, Default, Clone)]
pub(crate) struct Got {
    /// In the order in which it came.
    pub(crate) events: Vec<(i64, i64, Uuid)>,
    /// Events that came before an earlier one of their stream, or again.
    pub(crate) inverted: u64,
    pub(crate) doubled: u64,
    /// A position that does not follow the one before it.
    pub(crate) gaps: u64,
    versions: HashMap<i64, i64>,
    known: HashSet<Uuid>,
}

impl Got {
    fn take(&mut self, stream: i64, version: i64, id: Uuid) {
        if !self.known.insert(id) {
            self.doubled += 1;
        }
        let last = self.versions.entry(stream).or_insert(0);
        if version < *last {
            self.inverted += 1;
        }
        *last = version.max(*last);
        self.events.push((stream, version, id));
    }

    pub(crate) fn has(&self, id: &Uuid) -> bool {
        self.known.contains(id)
    }

    /// How many versions of streams were passed over, of what it got.
    pub(crate) fn skipped_versions(&self) -> u64 {
        let mut next: HashMap<i64, i64> = HashMap::new();
        let mut skipped = 0;
        for (stream, version, _) in &self.events {
            let expected = next.entry(*stream).or_insert(1);
            if version != expected {
                skipped += 1;
            }
            *expected = version + 1;
        }
        skipped
    }
}

pub(crate) type Shared = Arc<Mutex<Got>>;

fn id(row: &PgRow, column: &str) -> Uuid {
    row.get::<String, _>(column).parse().unwrap()
}

async fn page(way: &Way, conn: &mut PgConnection, sql: &'static str, after: [i64; 2]) -> Vec<PgRow> {
    // Behind a pooler a statement needs a transaction around it, or its parts meet different connections.
    if way.pooled {
        sqlx::Executor::execute(&mut *conn, "begin").await.unwrap();
    }
    let rows = way.query(sql).bind(after[0]).bind(after[1]).fetch_all(&mut *conn).await.unwrap();
    if way.pooled {
        sqlx::Executor::execute(&mut *conn, "commit").await.unwrap();
    }
    rows
}

/// Reads the feed by positions until it has come to `end`, which is told when nothing comes any more.
pub(crate) async fn subscribe(
    way: Way,
    seed: u64,
    got: Shared,
    end: tokio::sync::watch::Receiver<Option<i64>>,
) {
    let mut chance = Chance::new(seed, 9);
    let (mut conn, mut last) = (way.conn().await, 0);
    while end.borrow().is_none_or(|end| last < end) {
        let rows = page(
            &way,
            &mut conn,
            "select f.position, e.stream, e.version, e.id::text as id
             from mainstay.feed f join mainstay.event e on e.seq = f.seq
             where f.position > $1 and $2 = $2 order by f.position limit 200",
            [last, 0],
        )
        .await;
        {
            let mut got = got.lock().unwrap();
            for row in &rows {
                let position: i64 = row.get("position");
                if position != last + 1 {
                    got.gaps += 1;
                }
                last = position;
                got.take(row.get("stream"), row.get("version"), id(row, "id"));
            }
        }
        if rows.is_empty() {
            tokio::time::sleep(Duration::from_millis(1 + chance.below(8))).await;
        }
    }
}

/// `seq > last`: passes over whoever commits late.
pub(crate) async fn by_seq(way: Way, got: Shared, ledger: Arc<Ledger>) {
    let (mut conn, mut last) = (way.conn().await, 0);
    loop {
        let done = ledger.stopped();
        let rows = page(
            &way,
            &mut conn,
            "select seq, stream, version, id::text as id from mainstay.event
             where seq > $1 and $2 = $2 order by seq limit 200",
            [last, 0],
        )
        .await;
        for row in &rows {
            last = row.get("seq");
            got.lock().unwrap().take(row.get("stream"), row.get("version"), id(row, "id"));
        }
        if rows.is_empty() {
            if done {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// By transaction, as far as no earlier one runs: waits behind every open one, and one stream's events come in the order
/// in which their transactions began.
pub(crate) async fn by_xid(way: Way, got: Shared, ledger: Arc<Ledger>) {
    let (mut conn, mut last) = (way.conn().await, [0, 0]);
    loop {
        let done = ledger.stopped();
        let rows = page(
            &way,
            &mut conn,
            "select xid::text::bigint as xid, seq, stream, version, id::text as id from mainstay.event
             where (xid, seq) > ($1::text::xid8, $2) and xid < pg_snapshot_xmin(pg_current_snapshot())
             order by mainstay.event.xid, seq limit 200",
            last,
        )
        .await;
        for row in &rows {
            last = [row.get("xid"), row.get("seq")];
            got.lock().unwrap().take(row.get("stream"), row.get("version"), id(row, "id"));
        }
        if rows.is_empty() {
            if done {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
