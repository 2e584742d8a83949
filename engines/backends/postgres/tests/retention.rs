//! Folding and truncating under those who mark and look at the same time, and under an old snapshot that somebody holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)] // a test fails by panicking

#[path = "hostile/server.rs"]
mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_postgres::Schema;
use mainstay_postgres::retention::{self, Swept, sweep};
use mainstay_postgres::sequencer::{self, Sequencer};
use server::{Database, Way};
use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

const FIRST: &str = "first";
const REPEATED: &str = "repeated";

fn spec() -> retention::Spec {
    retention::Spec { rows_max: 500, ..retention::Spec::default() }
}

async fn sweep_all(conn: &mut PgConnection) -> Swept {
    sweep(conn, &Schema::default(), &spec(), true).await.unwrap()
}

/// Marks a message in the open transaction, or in one of its own.
async fn mark(conn: &mut PgConnection, seq: i64, content: u8) -> Result<String, sqlx::Error> {
    sqlx::query("select mainstay.inbox_mark('c', 'p', 1, 0, $1, $2)")
        .bind(seq)
        .bind(vec![content; 32])
        .fetch_one(conn)
        .await
        .map(|row| row.get(0))
}

async fn number(conn: &mut PgConnection, sql: &'static str) -> i64 {
    conn.fetch_one(sql).await.unwrap().get(0)
}

async fn marks(conn: &mut PgConnection) -> i64 {
    number(conn, "select count(*) from mainstay.inbox_mark").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_folded_is_still_known() {
    let database = Database::with_store("folded").await;
    let mut conn = database.direct.conn().await;
    let mut all: Vec<i64> = (1..=2_500).chain([4_000, 4_002, 9_000, 20_000]).collect();
    // Not in order, so that holes come and go.
    all.sort_by_key(|seq| seq.wrapping_mul(0x9e37_79b9) % 4_099);
    for part in all.chunks(700) {
        conn.execute("begin").await.unwrap();
        for seq in part {
            assert_eq!(mark(&mut conn, *seq, 1).await.unwrap(), FIRST, "{seq}");
        }
        conn.execute("commit").await.unwrap();
        let swept = sweep_all(&mut conn).await;
        assert!(swept.folded >= part.len() as u64 && swept.emptied > 0 && swept.busy == 0, "{swept:?}");
        assert_eq!(marks(&mut conn).await, 0);
        for seq in part {
            assert_eq!(mark(&mut conn, *seq, 1).await.unwrap(), REPEATED, "{seq}");
        }
    }
    assert_eq!(sweep_all(&mut conn).await.folded, 0, "repeated messages leave nothing");
    assert_eq!(mark(&mut conn, 20_000, 2).await.unwrap(), "altered");
    assert_eq!(mark(&mut conn, 1, 2).await.unwrap(), REPEATED, "its content is forgotten");
    let row = conn.fetch_one("select watermark, holes from mainstay.inbox_lane").await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (20_000, 4));
    assert_eq!(mark(&mut conn, 4_001, 1).await.unwrap(), FIRST);
    sweep_all(&mut conn).await;
    assert_eq!(number(&mut conn, "select holes from mainstay.inbox_lane").await, 3);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_from_before_the_folding_is_not_misled() {
    let database = Database::with_store("misled").await;
    let mut conn = database.direct.conn().await;
    for level in ["repeatable read", "serializable"] {
        for seq in 1..=20 {
            mark(&mut conn, seq, 1).await.unwrap();
        }
        let mut old = database.direct.conn().await;
        old.execute(sqlx::AssertSqlSafe(format!("begin isolation level {level}"))).await.unwrap();
        old.execute("select 1 from mainstay.meta").await.unwrap();
        assert_eq!(mark(&mut conn, 21, 1).await.unwrap(), FIRST);
        assert!(sweep_all(&mut conn).await.emptied > 0, "the snapshot alone holds up nobody");
        let refused = mark(&mut old, 21, 1).await.unwrap_err();
        let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "40001", "{refused}");
        old.execute("rollback").await.unwrap();

        // Whoever has looked once is protected by its lock.
        let mut early = database.direct.conn().await;
        early.execute(sqlx::AssertSqlSafe(format!("begin isolation level {level}"))).await.unwrap();
        assert_eq!(mark(&mut early, 21, 1).await.unwrap(), REPEATED);
        assert_eq!(mark(&mut conn, 22, 1).await.unwrap(), FIRST);
        let swept = sweep_all(&mut conn).await;
        assert!(swept.busy > 0 && marks(&mut conn).await > 0, "{swept:?}");
        assert_eq!(mark(&mut early, 1, 1).await.unwrap(), REPEATED);
        early.execute("rollback").await.unwrap();
        conn.execute(
            "truncate mainstay.inbox_mark, mainstay.inbox_lane, mainstay.inbox_hole, mainstay.inbox_recent",
        )
        .await
        .unwrap();
    }
    database.remove().await;
}

/// A mark that is committed after its partition was folded, and before that is truncated, is folded as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_comes_while_the_lock_is_waited_for_is_not_lost() {
    let database = Database::with_store("late_mark").await;
    let (mut conn, mut late) = (database.direct.conn().await, database.direct.conn().await);
    for seq in 1..=4 {
        mark(&mut conn, seq, 1).await.unwrap();
    }
    late.execute("begin").await.unwrap();
    assert_eq!(mark(&mut late, 5, 1).await.unwrap(), FIRST);
    let way = database.direct.clone();
    let sweeping = tokio::spawn(async move {
        let spec = retention::Spec { lock_wait: Duration::from_secs(60), ..spec() };
        sweep(&mut way.conn().await, &Schema::default(), &spec, true).await.unwrap()
    });
    let waits = "select count(*) from pg_locks where not granted and mode = 'AccessExclusiveLock'
                 and relation = 'mainstay.inbox_mark_0'::regclass";
    let waited = async {
        while number(&mut conn, waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waited).await.expect("it waits for the lock within 30 s");
    late.execute("commit").await.unwrap();
    assert_eq!(sweeping.await.unwrap().emptied, 1);
    assert_eq!(marks(&mut conn).await, 0);
    assert_eq!(mark(&mut conn, 5, 1).await.unwrap(), REPEATED);
    database.remove().await;
}

/// Every message comes to three consumers' copies at once, at every level, while the background does nothing but fold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_happens_once_while_its_marks_are_folded() {
    const MESSAGES: i64 = 600;
    let database = Database::with_store("once").await;
    let stop = Arc::new(AtomicBool::new(false));
    let sweeping = {
        let (way, stop) = (database.direct.clone(), stop.clone());
        tokio::spawn(async move {
            let (mut conn, mut emptied) = (way.conn().await, 0);
            while !stop.load(Ordering::Relaxed) {
                emptied += sweep_all(&mut conn).await.emptied;
            }
            emptied
        })
    };
    let copies: Vec<_> = ["read committed", "repeatable read", "serializable"]
        .into_iter()
        .map(|level| tokio::spawn(consume(database.direct.clone(), level, MESSAGES)))
        .collect();
    let mut effects: HashMap<i64, u32> = HashMap::new();
    for copy in copies {
        for seq in copy.await.unwrap() {
            *effects.entry(seq).or_default() += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(sweeping.await.unwrap() > 0, "nothing was truncated: the test shows nothing");
    let mut conn = database.direct.conn().await;
    for seq in 1..=MESSAGES {
        assert_eq!(effects.get(&seq), Some(&1), "effects of message {seq}");
        assert_eq!(mark(&mut conn, seq, 1).await.unwrap(), REPEATED);
    }
    sweep_all(&mut conn).await;
    let row = conn.fetch_one("select watermark, holes from mainstay.inbox_lane").await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<i64, _>(1)), (MESSAGES, 0));
    database.remove().await;
}

/// The messages whose effect this copy did.
async fn consume(way: Way, level: &'static str, messages: i64) -> Vec<i64> {
    let mut conn = way.conn().await;
    let mut done = Vec::new();
    for seq in 1..=messages {
        loop {
            conn.execute(sqlx::AssertSqlSafe(format!("begin isolation level {level}"))).await.unwrap();
            // The snapshot is taken before the mark is looked for.
            conn.execute("select count(*) from mainstay.meta").await.unwrap();
            let said = mark(&mut conn, seq, 1).await;
            let ended = match said {
                Ok(said) => conn.execute("commit").await.map(|_| said),
                Err(error) => Err(error),
            };
            match ended {
                Ok(said) => {
                    if said == FIRST {
                        done.push(seq);
                    }
                    break;
                }
                Err(error) => {
                    let code = error.as_database_error().and_then(|answer| answer.code()).unwrap_or_default();
                    assert!(["40001", "40P01"].contains(&code.as_ref()), "{error}");
                    conn.execute("rollback").await.unwrap();
                }
            }
        }
    }
    done
}

/// Rows, and how far they are.
struct Outbox {
    conn: PgConnection,
    sequencer: Sequencer,
}

impl Outbox {
    async fn of(database: &Database) -> Self {
        let (connect, cx) = (database.direct.connect.clone(), Context::system());
        let spec = sequencer::Spec::default();
        let sequencer = Sequencer::start(connect, &Schema::default(), &cx, spec).unwrap();
        Self { conn: database.direct.conn().await, sequencer }
    }

    async fn publish(&mut self, rows: i64) {
        sqlx::query(
            "insert into mainstay.outbox(slot, at, envelope, key, headers, payload)
             select t.slot, 0, '', '', '[]', '' from mainstay.outbox_turn t, generate_series(1, $1)",
        )
        .bind(rows)
        .execute(&mut self.conn)
        .await
        .unwrap();
        let all = number(&mut self.conn, "select last_value from mainstay.seq").await;
        let mut status = self.sequencer.status();
        let numbered = status.wait_for(|status| status.outbox >= all as u64);
        tokio::time::timeout(Duration::from_secs(30), numbered).await.expect("numbered within 30 s").unwrap();
    }

    /// As a relay that sent all rows up to one, and removed them.
    async fn send_and_prune(&mut self, from: i64, to: i64) {
        let said: i64 = sqlx::query_scalar("select mainstay.outbox_sent(array[$1], array[$2], $2)")
            .bind(from)
            .bind(to)
            .fetch_one(&mut self.conn)
            .await
            .unwrap();
        assert!(said >= to);
        sqlx::query("update mainstay.outbox_pruned set pruned_to = $1")
            .bind(to)
            .execute(&mut self.conn)
            .await
            .unwrap();
    }

    async fn rows(&mut self) -> (i64, i64) {
        let rows = number(&mut self.conn, "select count(*) from mainstay.outbox").await;
        (rows, number(&mut self.conn, "select count(*) from mainstay.outbox_number").await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_of_the_outbox_goes_when_all_its_rows_may_go_and_not_before() {
    let database = Database::with_store("turn").await;
    let mut outbox = Outbox::of(&database).await;
    outbox.publish(10).await;
    assert!(sweep_all(&mut outbox.conn).await.turned);
    outbox.publish(10).await;
    assert_eq!(outbox.rows().await, (20, 20));
    // The last row of the old partition is not removed yet.
    outbox.send_and_prune(1, 9).await;
    let swept = sweep_all(&mut outbox.conn).await;
    assert_eq!((swept.emptied, outbox.rows().await), (1, (20, 20)), "only the mark's partition: {swept:?}");
    outbox.send_and_prune(10, 10).await;

    // Somebody who read the turn long ago still writes there; uncommitted, then committed and without a number.
    let mut late = database.direct.conn().await;
    late.execute("begin").await.unwrap();
    let write = "insert into mainstay.outbox(slot, at, envelope, key, headers, payload)
                 values (0, 0, '', '', '[]', '')";
    late.execute(write).await.unwrap();
    assert!(sweep_all(&mut outbox.conn).await.busy > 0, "its row would be lost");
    let Outbox { mut conn, sequencer } = outbox;
    sequencer.stop().await;
    late.execute("commit").await.unwrap();
    sweep_all(&mut conn).await;
    let rows = number(&mut conn, "select count(*) from mainstay.outbox").await;
    assert_eq!(rows, 21, "it has no number yet");
    let mut outbox = Outbox { conn, sequencer: Outbox::of(&database).await.sequencer };
    outbox.publish(1).await;
    sweep_all(&mut outbox.conn).await;
    assert_eq!(outbox.rows().await, (22, 22), "the late row is numbered and not removed");
    outbox.send_and_prune(11, 22).await;
    sweep_all(&mut outbox.conn).await;
    sweep_all(&mut outbox.conn).await;
    assert_eq!(outbox.rows().await, (0, 0));
    let ranges = outbox.conn.fetch_all("select epoch, first, last from mainstay.sent_range").await.unwrap();
    let ranges: Vec<(i64, i64, i64)> =
        ranges.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(ranges, [(1, 1, 22)]);
    outbox.publish(1).await;
    assert_eq!(number(&mut outbox.conn, "select min(number) from mainstay.outbox_number").await, 23);
    database.remove().await;
}

/// Somebody holds a snapshot for the whole run, as a backup or a forgotten session does. What messages pass through is
/// no larger after many turns than after a few, and has no dead rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_snapshot_neither_bloats_nor_slows() {
    const TURNS: i64 = 24;
    const ROWS: i64 = 200;
    let database = Database::with_store("held").await;
    let mut held = database.direct.conn().await;
    held.execute("begin isolation level repeatable read").await.unwrap();
    held.execute("select count(*) from business").await.unwrap();
    let mut outbox = Outbox::of(&database).await;
    let mut sizes = Vec::new();
    for turn in 0..TURNS {
        outbox.publish(ROWS).await;
        outbox.send_and_prune(turn * ROWS + 1, (turn + 1) * ROWS).await;
        outbox.conn.execute("begin").await.unwrap();
        for seq in turn * ROWS + 1..=(turn + 1) * ROWS {
            assert_eq!(mark(&mut outbox.conn, seq, 1).await.unwrap(), FIRST);
        }
        outbox.conn.execute("commit").await.unwrap();
        sweep_all(&mut outbox.conn).await;
        sizes.push(
            number(
                &mut outbox.conn,
                "select sum(pg_total_relation_size(c.oid))::bigint from pg_class c
                 where c.relnamespace = 'mainstay'::regnamespace and c.relkind = 'r'
                   and c.relname ~ '^(outbox_[0-9]|outbox_number_|sent_mark_|inbox_mark_|feed)'",
            )
            .await,
        );
    }
    let (early, late) = (sizes[..8].iter().max().unwrap(), sizes[16..].iter().max().unwrap());
    assert!(late <= early, "the tables grow under a held snapshot: {sizes:?}");
    // What a look into them costs does not grow either: pages, not time.
    let pages = explain_pages(&mut outbox.conn, TURNS * ROWS).await;
    assert!(pages < 120, "{pages} pages to mark one message after {TURNS} turns under a held snapshot");
    // Neither has the sequencer's memory dead rows.
    let dead =
        "select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables where relname like 'round_%'";
    outbox.conn.execute("select pg_stat_force_next_flush()").await.unwrap();
    assert_eq!(number(&mut outbox.conn, dead).await, 0);
    held.execute("commit").await.unwrap();
    database.remove().await;
}

/// Pages that marking a message touches.
async fn explain_pages(conn: &mut PgConnection, seq: i64) -> i64 {
    // Plans are made once; a second call shows what each one costs.
    mark(conn, seq, 1).await.unwrap();
    let rows = sqlx::query("explain (analyze, buffers, timing off, summary off) select mainstay.inbox_mark('c', 'p', 1, 0, $1, $2)")
        .bind(seq)
        .bind(vec![1u8; 32])
        .fetch_all(conn)
        .await
        .unwrap();
    let text: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let line =
        text.iter().find(|line| line.contains("Buffers: shared hit=")).unwrap_or_else(|| panic!("{text:?}"));
    line.split(['=', ' ']).filter_map(|word| word.parse::<i64>().ok()).sum()
}
