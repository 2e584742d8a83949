//! What the store on a server is held against: the same rows in the same tables, written by one client that checks
//! nothing and commits each alone; and COPY, the fastest way that the server has to hand out rows.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_core::Stream;
use mainstay::Context;
use mainstay::postgres::Schema;
use mainstay::postgres::sqlx::postgres::PgPoolCopyExt;
use mainstay::postgres::sqlx::{self, AssertSqlSafe, PgConnection, PgPool};

use super::rows::{Draw, payload};

/// Inserts one row a statement and a commit, for so long; rows per second. The streams must be there, and nobody may
/// work on the schema. What a batch shares costs this client everything each time: the round trip, the flush.
pub(super) async fn singly(
    conn: &mut PgConnection,
    schema: &Schema,
    bytes: usize,
    streams: u64,
    lasts: Duration,
) -> Result<f64> {
    let s = schema.name();
    let insert = format!(
        "with of as (update \"{s}\".stream set version = version + 1 where name = $1 returning id, version)
         insert into \"{s}\".event(id, stream, version, type, shape, at, envelope, tags, key, payload, content, keys)
         select $2, of.id, of.version, 'DepositMade', 1, $3, $4, $5, null, $6, $7, $8 from of"
    );
    let (cx, mut draw) = (Context::system(), Draw(0x5EED_5EED_5EED));
    let (envelope, payload, content) = (serde_json::to_vec(&cx.fact())?, payload(bytes), [7_u8; 32]);
    let (began, mut rows) = (Instant::now(), 0_u64);
    while began.elapsed() < lasts {
        let n = draw.next();
        let tag = (n >> 20) % 50_000;
        sqlx::query(AssertSqlSafe(insert.as_str()))
            .bind(format!("account-{}", n % streams))
            .bind(cx.new_id())
            .bind(cx.wall().as_millis())
            .bind(envelope.as_slice())
            .bind(format!("customer:{tag}"))
            .bind(payload.as_slice())
            .bind(content.as_slice())
            .bind(vec![0x1234_5678_i64, tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64])
            .execute(&mut *conn)
            .await?;
        rows += 1;
    }
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}

/// What a read of the feed returns, in its order.
pub(super) fn feed(schema: &Schema) -> String {
    let s = schema.name();
    format!(
        "copy (select f.position, s.name, e.version, e.id, e.type, e.shape, e.at, e.tags, e.envelope, e.key, e.payload,
               f.hash
               from \"{s}\".feed f join \"{s}\".event e on e.seq = f.seq join \"{s}\".stream s on s.id = e.stream
               order by f.position) to stdout (format binary)"
    )
}

/// Reads to the end of a COPY, keeping nothing; rows per second, for so many rows.
pub(super) async fn copy(pool: &PgPool, statement: &str, rows: u64) -> Result<f64> {
    let began = Instant::now();
    let mut out = pool.copy_out_raw(statement).await?;
    while let Some(chunk) = std::future::poll_fn(|cx| Stream::poll_next(out.as_mut(), cx)).await {
        std::hint::black_box(chunk?);
    }
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}
