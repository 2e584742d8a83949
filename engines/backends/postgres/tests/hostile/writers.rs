//! Who writes: transactions of every ugly kind, on the user's own connections.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{Act, EventType, Expected, NewEvent, Payload, StreamName, Tag};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, Postgres, Transaction};
use uuid::Uuid;

use crate::chance::Chance;
use crate::server::{Way, join, publish};

/// Streams that all writers share.
const STREAMS: u64 = 200;

/// What the writers know.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Events whose commit was answered.
    pub(crate) acknowledged: Mutex<Vec<Uuid>>,
    pub(crate) stop: AtomicBool,
    pub(crate) rolled_back: AtomicU64,
    pub(crate) prepared: AtomicU64,
    pub(crate) savepoints: AtomicU64,
}

impl Ledger {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Appends events to a stream inside the open transaction; their ids.
async fn append(way: &Way, tx: &mut Transaction<'_, Postgres>, stream: &str, count: u64) -> Vec<Uuid> {
    let cx = Context::system();
    let events: Vec<NewEvent> = (0..count)
        .map(|_| {
            let kind = EventType::new("Happened").unwrap();
            NewEvent::new(cx.new_id(), kind, Payload::plain(*b"{}")).tagged(Tag::new("hostile").unwrap())
        })
        .collect();
    let ids = events.iter().map(|event| event.id).collect();
    let act = Act::append(StreamName::new(stream).unwrap(), Expected::Any, events);
    join(way, tx, &cx).await.append(act).await.unwrap();
    ids
}

async fn pause(chance: &mut Chance, most_ms: u64) {
    tokio::time::sleep(Duration::from_micros(chance.below(most_ms * 1_000))).await;
}

/// One writer, until it is told to stop. `number` tells it from the others.
pub(crate) async fn write(way: Way, seed: u64, number: u64, ledger: Arc<Ledger>) {
    let mut chance = Chance::new(seed, 1_000 + number);
    let mut conn = way.conn().await;
    let mut turn = 0u64;
    while !ledger.stopped() {
        turn += 1;
        pause(&mut chance, 6).await;
        let mut tx = conn.begin().await.unwrap();
        if chance.percent(50) {
            // The transaction has its id long before its events have their numbers.
            way.query("insert into business(note) values ('early')").execute(&mut *tx).await.unwrap();
            pause(&mut chance, 6).await;
        }
        let mut ids = Vec::new();
        if chance.percent(30) {
            publish(&way, &mut tx).await;
        }
        // In one order, as everybody who locks several.
        let mut streams: Vec<u64> = (0..=chance.below(2)).map(|_| chance.below(STREAMS)).collect();
        streams.sort_unstable();
        streams.dedup();
        for stream in streams {
            let (name, count) = (format!("s-{stream:03}"), 1 + chance.below(3));
            if chance.percent(30) {
                ledger.savepoints.fetch_add(1, Ordering::Relaxed);
                let mut inner = tx.begin().await.unwrap();
                let written = append(&way, &mut inner, &name, count).await;
                if chance.percent(50) {
                    inner.rollback().await.unwrap();
                } else {
                    inner.commit().await.unwrap();
                    ids.extend(written);
                }
            } else {
                ids.extend(append(&way, &mut tx, &name, count).await);
            }
            pause(&mut chance, 5).await;
        }
        if chance.percent(30) {
            publish(&way, &mut tx).await;
        }
        let committed = match chance.below(100) {
            0..20 => {
                tx.rollback().await.unwrap();
                false
            }
            20..35 => {
                ledger.prepared.fetch_add(1, Ordering::Relaxed);
                // Known to the whole server, so the database's name is in it.
                let gid = format!("{}-{number}-{turn}", way.connect.get_database().unwrap_or_default());
                tx.execute(AssertSqlSafe(format!("prepare transaction '{gid}'"))).await.unwrap();
                // For sqlx it is still open; for the server this is no more than a warning.
                tx.rollback().await.unwrap();
                pause(&mut chance, 20).await;
                let commits = chance.percent(70);
                let how = if commits { "commit" } else { "rollback" };
                conn.execute(AssertSqlSafe(format!("{how} prepared '{gid}'"))).await.unwrap();
                commits
            }
            _ => {
                tx.commit().await.unwrap();
                true
            }
        };
        if committed {
            ledger.acknowledged.lock().unwrap().extend(ids);
        } else {
            ledger.rolled_back.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A transaction that has written and stays open.
pub(crate) struct LongWriter {
    way: Way,
    tx: Transaction<'static, Postgres>,
    ids: Vec<Uuid>,
}

impl LongWriter {
    pub(crate) async fn begin(way: &Way) -> Self {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(way.connect.clone()).await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        way.query("insert into business(note) values ('long')").execute(&mut *tx).await.unwrap();
        let ids = append(way, &mut tx, "long", 2).await;
        Self { way: way.clone(), tx, ids }
    }

    pub(crate) async fn commit(mut self, ledger: &Ledger) {
        let more = append(&self.way, &mut self.tx, "long", 1).await;
        self.tx.commit().await.unwrap();
        self.ids.extend(more);
        ledger.acknowledged.lock().unwrap().extend(self.ids);
    }
}
