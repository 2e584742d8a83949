//! The feed under everything that a database does to it: writers with pauses, rollbacks, savepoints, early business
//! writes and prepared transactions, one that stays open for most of the run, sequencers that are killed, cut off and
//! stopped before their commit, and eight subscribers. Nothing may be lost, doubled or inverted, and nobody may wait for
//! the open transaction. That the run is hostile is proved by two readers of the common kinds, which fail in it.
//!
//! `SEEDS=1..20 RUN_SECONDS=20 cargo test -p mainstay-postgres --features server-tests --test hostile` repeats the long runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod chance;
mod readers;
mod run;
mod sequencers;
mod server;
mod writers;

use std::ops::RangeInclusive;
use std::time::Duration;

use run::{Report, Run, Truth};
use server::{Database, Way};

/// `SEEDS=1..20` (both included), default 1..3.
fn seeds() -> RangeInclusive<u64> {
    let text = std::env::var("SEEDS").unwrap_or_else(|_| "1..3".into());
    let (from, to) = text.split_once("..").unwrap_or((&text, &text));
    from.parse().expect("SEEDS=first..last")..=to.parse().expect("SEEDS=first..last")
}

/// `RUN_SECONDS=20`, default 10.
fn time() -> Duration {
    let text = std::env::var("RUN_SECONDS").unwrap_or_else(|_| "10".into());
    Duration::from_secs(text.parse().expect("RUN_SECONDS=whole seconds"))
}

/// Everybody for `time`, one writer open for 60 % of it.
async fn hostile(way: &Way, seed: u64, time: Duration) -> Report {
    let run = Run::begin(way, seed).await;
    tokio::time::sleep(time / 5).await;
    let open = run.with_a_long_writer(time * 3 / 5).await;
    tokio::time::sleep(time / 5).await;
    let report = run.end(open).await;
    println!("{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_inverted_and_nobody_waits() {
    for seed in seeds() {
        let database = Database::with_message("feed").await;
        hostile(&database.direct.clone(), seed, time()).await.assert_good();
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_in_transaction_mode_as_well() {
    let pooler = server::variable(
        "MAINSTAY_TEST_POSTGRES_POOLER",
        "the URL of a pgbouncer in transaction mode before the server of MAINSTAY_TEST_POSTGRES",
    );
    for seed in seeds().take(1) {
        let database = Database::with_message("pooled").await;
        hostile(&database.by(&pooler, true), seed, time()).await.assert_good();
        database.remove().await;
    }
}

/// A dump of the running store, restored as another database: on a server whose transaction ids are where the dump's
/// are, and on one that still has to come to them. Rows that had no place when it was made get theirs, none gets a second
/// one, and writers go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_dump_and_restore() {
    let (time, seed) = (time(), *seeds().start());
    let database = Database::with_message("dumped").await;
    let mut run = Run::begin(&database.direct, seed).await;
    tokio::time::sleep(time / 4).await;
    run.fall_behind(100).await;
    let file = std::env::temp_dir().join(format!("{}.dump", database.name));
    let file = file.to_str().unwrap().to_owned();
    let dump = vec!["--format=custom".into(), "--no-owner".into(), format!("--file={file}"), database.url()];
    server::run("pg_dump", dump).await;
    run.catch_up();
    let original = run.end((1_000, 1_000, 0)).await;
    assert!(original.events > 0);
    let whole = Truth::when_settled(&database.direct).await;
    for ahead in [0, 1_000_000_000] {
        let restored = Database::empty("restored").await;
        server::run(
            "pg_restore",
            vec!["--no-owner".into(), format!("--dbname={}", restored.url()), file.clone()],
        )
        .await;
        let mut conn = restored.direct.conn().await;
        count_ahead(&mut conn, ahead).await;
        let before = Truth::now(&restored.direct, &mut conn).await;
        assert!(before.waiting() >= 100, "the dump has everything in its place: {}", before.waiting());
        let run = Run::begin(&restored.direct, seed + 100).await;
        tokio::time::sleep(time / 4).await;
        let report = run.end((1_000, 1_000, 0)).await;
        println!("restored with ids {ahead} ahead: {report}");
        let after = Truth::when_settled(&restored.direct).await;
        before.is_continued_by(&after);
        before.is_continued_by(&whole);
        restored.remove().await;
    }
    std::fs::remove_file(file).unwrap();
    database.remove().await;
}

/// As if the dump were of a server that has given out so many more transaction ids than this one.
async fn count_ahead(conn: &mut sqlx::postgres::PgConnection, more: i64) {
    let moved = |xid: &str| format!("({xid}::text::bigint + {more})");
    let snapshot = format!(
        "({} || ':' || {} || ':' || coalesce((select string_agg({}::text, ',' order by x) from pg_snapshot_xip(%) x), ''))::pg_snapshot",
        moved("pg_snapshot_xmin(%)"),
        moved("pg_snapshot_xmax(%)"),
        moved("x"),
    );
    let statements = [
        format!("update mainstay.event set xid = {}::text::xid8", moved("xid")),
        format!("update mainstay.outbox set xid = {}::text::xid8", moved("xid")),
        format!("update mainstay.round set settled = {}", snapshot.replace('%', "settled")),
        format!(
            "update mainstay.round set target = {} where target is not null",
            snapshot.replace('%', "target")
        ),
    ];
    for statement in statements {
        sqlx::Executor::execute(&mut *conn, sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
}

/// The leader is lost in the middle of everything, and a replica takes over. What the replica has is a feed that goes on.
///
/// It takes its cluster apart, so it is run for itself, with an instance of its own:
/// `cargo xtask engines up postgres --instance promoted --port-base 25532`, what `cargo xtask engines env` says of it, and
/// `MAINSTAY_TEST_POSTGRES_PROMOTE='cargo xtask engines fault postgres kill-leader --instance promoted && cargo xtask
/// engines fault postgres promote r1 --instance promoted'`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes its cluster apart: see above"]
async fn through_the_promotion_of_a_replica() {
    let replicas = server::variable("MAINSTAY_TEST_POSTGRES_REPLICAS", "the URLs of replicas");
    let promote = server::variable("MAINSTAY_TEST_POSTGRES_PROMOTE", "a command that promotes one of them");
    let (time, seed) = (time(), *seeds().start());
    let database = Database::with_message("promoted").await;
    let mut run = Run::begin(&database.direct, seed).await;
    tokio::time::sleep(time / 2).await;
    let open = run.with_a_long_writer(time / 10).await;
    run.fall_behind(100).await;
    run.catch_up();
    run.abandon().await;
    let status = tokio::task::spawn_blocking(move || {
        std::process::Command::new("sh").arg("-c").arg(promote).status().unwrap()
    });
    assert!(status.await.unwrap().success(), "the command of MAINSTAY_TEST_POSTGRES_PROMOTE failed");
    let way = database.leader_among(&replicas).await;
    let mut conn = way.conn().await;
    let before = Truth::now(&way, &mut conn).await;
    assert!(before.waiting() > 0, "everything had its place when the leader was lost");
    let run = Run::begin(&way, seed + 100).await;
    // What was prepared when the leader was lost holds its streams until somebody decides.
    for gid in server::prepared(&mut conn).await {
        let decided = sqlx::AssertSqlSafe(format!("commit prepared '{gid}'"));
        sqlx::Executor::execute(&mut conn, decided).await.unwrap();
    }
    tokio::time::sleep(time / 2).await;
    println!("before {open:?}, after {}", run.end((1_000, 1_000, 0)).await);
    before.is_continued_by(&Truth::when_settled(&way).await);
}
