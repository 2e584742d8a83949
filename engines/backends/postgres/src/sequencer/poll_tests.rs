//! What a look costs, by the server's own account.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::time::Instant;

use mainstay_envelope::Context;
use mainstay_event_store::StoreId;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use super::snapshot::{Difference, Snapshot};
use super::spec::Spec;
use super::sql::Sql;
use crate::schema::{self, Schema};

async fn connect() -> PgConnection {
    let url = std::env::var("MAINSTAY_TEST_POSTGRES").expect(
        "MAINSTAY_TEST_POSTGRES is not set: `cargo xtask engines up postgres` starts a server and says its URL",
    );
    PgConnection::connect_with(&url.parse::<PgConnectOptions>().unwrap()).await.unwrap()
}

async fn snapshot(conn: &mut PgConnection) -> Snapshot {
    let row = conn.fetch_one("select pg_current_snapshot()::text").await.unwrap();
    row.get::<String, _>(0).parse().unwrap()
}

/// All nodes of a plan.
fn nodes<'a>(plan: &'a serde_json::Value, found: &mut Vec<&'a serde_json::Value>) {
    found.push(plan);
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, found);
    }
}

/// A transaction has written and is open; behind it very many events are committed and have their places. A look then
/// reads a handful of the indexes' pages, and not what was committed since the oldest transaction began.
#[tokio::test(flavor = "current_thread")]
async fn a_look_behind_an_open_transaction_reads_what_is_new_and_nothing_else() {
    let rows: i64 = std::env::var("ROWS").map_or(20_000, |rows| rows.parse().unwrap());
    let cx = Context::system();
    let mut conn = connect().await;
    let schema = Schema::new(format!("poll_{}", cx.new_id().simple())).unwrap();
    schema::create(&mut conn, &schema, StoreId(cx.new_id())).await.unwrap();
    let name = schema.name();

    let mut open = connect().await;
    open.execute("begin").await.unwrap();
    let insert = |from: i64, count: i64| {
        AssertSqlSafe(format!(
            "insert into {name}.event(id, stream, version, type, shape, at, envelope, tags, payload, content, keys)
             select gen_random_uuid(), {from}, n, 't', 1, 0, '', '', '', decode(repeat('00', 32), 'hex'), '{{1}}'
             from generate_series(1, {count}) n"
        ))
    };
    // It has its own rows as well, which nobody may see.
    open.execute(insert(1, rows / 10)).await.unwrap();
    for part in 0..10 {
        conn.execute(insert(2 + part, rows / 10)).await.unwrap();
    }
    conn.execute(AssertSqlSafe(format!("analyze {name}.event"))).await.unwrap();
    let settled = snapshot(&mut conn).await;
    assert!(!settled.running.is_empty(), "the open transaction is not seen: {settled}");
    conn.execute(insert(100, 3)).await.unwrap();

    let spec = Spec::default();
    let sql = Sql::new(&schema, &spec);
    let new = snapshot(&mut conn).await;
    let difference = Difference::between(&settled, &new);
    let texts = |xids: &[u64]| xids.iter().map(u64::to_string).collect::<Vec<_>>();
    conn.execute("begin; set local enable_seqscan = off; set local enable_bitmapscan = off").await.unwrap();
    let ask = |text: String| {
        sqlx::query(AssertSqlSafe(text))
            .bind(texts(&difference.ended))
            .bind(difference.from.to_string())
            .bind(difference.to.to_string())
            .bind(texts(&difference.running))
            .bind(10_001i64)
    };
    let found = conn.fetch_all(ask(sql.take.to_string())).await.unwrap();
    assert_eq!(found.len(), 3);
    let begun = Instant::now();
    conn.fetch_all(ask(sql.take.to_string())).await.unwrap();
    let took = begun.elapsed();
    let explained =
        conn.fetch_one(ask(format!("explain (analyze, buffers, format json) {}", sql.take))).await.unwrap();
    let text: serde_json::Value =
        serde_json::from_str(explained.try_get_raw(0).unwrap().as_str().unwrap().trim_start_matches('\u{1}'))
            .unwrap();
    let plan = &text[0]["Plan"];
    let mut all = Vec::new();
    nodes(plan, &mut all);
    let scans: Vec<String> = all
        .iter()
        .map(|node| node["Node Type"].as_str().unwrap().to_owned())
        .filter(|kind| kind.contains("Scan"))
        .collect();
    assert!(scans.iter().any(|kind| kind.starts_with("Index")), "{scans:?}");
    assert!(!scans.iter().any(|kind| kind.contains("Seq") || kind.contains("Bitmap")), "{scans:?}");
    let buffers = plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap();
    let removed: i64 = all.iter().filter_map(|node| node["Rows Removed by Filter"].as_i64()).sum();
    println!(
        "{rows} rows behind an open transaction: {buffers} pages, {removed} rows read for nothing, {} ms on the server, \
         {took:?} with the way there",
        text[0]["Execution Time"]
    );
    assert!(buffers < 60, "{buffers} pages for 3 rows: {text:#}");
    assert_eq!(removed, 0, "{text:#}");

    // And the form that is commonly used, so that it is known what is compared.
    let common = conn
        .fetch_one(
            sqlx::query(AssertSqlSafe(format!(
                "explain (analyze, buffers, format json) select seq from {name}.event where xid >= $1::text::xid8"
            )))
            .bind(settled.xmin.to_string()),
        )
        .await
        .unwrap();
    let text: serde_json::Value =
        serde_json::from_str(common.try_get_raw(0).unwrap().as_str().unwrap().trim_start_matches('\u{1}'))
            .unwrap();
    println!("`xid >= xmin`: {} ms on the server", text[0]["Execution Time"]);
    conn.execute("rollback").await.unwrap();
    open.execute("rollback").await.unwrap();
    conn.execute(AssertSqlSafe(format!("drop schema {name} cascade"))).await.unwrap();
}
