//! The portable view: rows by key, found by declared indices.

use mainstay_event_store::{
    Cursor, IndexValue, Row as ViewRow, Rows, Scan, ScanBy, ViewName, limits, prefix_end,
};
use sqlx::{PgConnection, Row};

use super::Place;
use crate::error::damaged;

pub(crate) async fn get(
    conn: &mut PgConnection,
    place: &Place,
    view: &ViewName,
    key: &str,
) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query_scalar(place.schema.sql("select value from {s}.view_row where view = $1 and key = $2"))
        .bind(view.as_str())
        .bind(key.as_bytes())
        .persistent(place.persistent())
        .fetch_optional(conn)
        .await
}

/// Writes a row and its entries, in one statement.
pub(crate) async fn put(
    conn: &mut PgConnection,
    place: &Place,
    view: &ViewName,
    row: &ViewRow,
) -> sqlx::Result<()> {
    let names: Vec<&str> = row.indices.iter().map(|entry| entry.index).collect();
    let values: Vec<Vec<u8>> = row.indices.iter().map(|entry| entry.value.to_ordered_bytes()).collect();
    let sql = "with written as (
            insert into {s}.view_row(view, key, value) values ($1, $2, $3)
            on conflict (view, key) do update set value = excluded.value
        ), gone as (
            delete from {s}.view_index where view = $1 and key = $2 and name <> all($4::text[])
        )
        insert into {s}.view_index(view, key, name, value)
            select $1, $2, e.name, e.value from unnest($4::text[], $5::bytea[]) e(name, value)
            on conflict (view, key, name) do update set value = excluded.value
            where view_index.value <> excluded.value";
    sqlx::query(place.schema.sql(sql))
        .bind(view.as_str())
        .bind(row.key.as_bytes())
        .bind(row.value.as_slice())
        .bind(names)
        .bind(values)
        .persistent(place.persistent())
        .execute(conn)
        .await
        .map(drop)
}

pub(crate) async fn delete(
    conn: &mut PgConnection,
    place: &Place,
    view: &ViewName,
    key: &str,
) -> sqlx::Result<bool> {
    let sql = "with gone as (delete from {s}.view_index where view = $1 and key = $2)
        delete from {s}.view_row where view = $1 and key = $2";
    let done = sqlx::query(place.schema.sql(sql))
        .bind(view.as_str())
        .bind(key.as_bytes())
        .persistent(place.persistent())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes at most `max` rows; are there more?
pub(crate) async fn clear(
    conn: &mut PgConnection,
    place: &Place,
    view: &ViewName,
    max: usize,
) -> sqlx::Result<bool> {
    let sql = "with keys as (
            select key from {s}.view_row where view = $1 order by key limit $2
        ), gone as (
            delete from {s}.view_index i using keys k where i.view = $1 and i.key = k.key
        )
        delete from {s}.view_row r using keys k where r.view = $1 and r.key = k.key";
    sqlx::query(place.schema.sql(sql))
        .bind(view.as_str())
        .bind(max as i64)
        .persistent(place.persistent())
        .execute(&mut *conn)
        .await?;
    sqlx::query_scalar(place.schema.sql("select exists(select from {s}.view_row where view = $1)"))
        .bind(view.as_str())
        .persistent(place.persistent())
        .fetch_one(conn)
        .await
}

/// Rows in the scan's order. The scan was checked.
pub(crate) async fn scan(conn: &mut PgConnection, place: &Place, scan: &Scan) -> sqlx::Result<Rows> {
    let max = limits::page(scan.rows_max);
    // One more than asked for tells whether there is more.
    let limit = max as i64 + 1;
    let after = scan.after.as_ref();
    let rows = match &scan.by {
        ScanBy::Key { prefix } => {
            let sql = "select key, value, null::bytea from {s}.view_row
                where view = $1 and key >= $2 and ($3::bytea is null or key < $3) and ($4::bytea is null or key > $4)
                order by key limit $5";
            sqlx::query(place.schema.sql(sql))
                .bind(scan.view.as_str())
                .bind(prefix.as_bytes())
                .bind(prefix_end(prefix).map(String::into_bytes))
                .bind(after.map(|cursor| cursor.key.as_bytes()))
                .bind(limit)
                .persistent(place.persistent())
                .fetch_all(conn)
                .await?
        }
        ScanBy::Index { index, from, to } => {
            // The row comparison is one range of the index, also in the middle of equal values.
            let sql = "select i.key, r.value, i.value from (
                    select key, value from {s}.view_index
                    where view = $1 and name = $2 and (value, key) >= ($3, $4) and value <= $5
                      and ($6::bytea is null or (value, key) > ($6, $7))
                    order by value, key limit $8) i
                join {s}.view_row r on r.view = $1 and r.key = i.key
                order by i.value, i.key";
            let value = after.and_then(|cursor| cursor.value.as_ref()).map(IndexValue::to_ordered_bytes);
            sqlx::query(place.schema.sql(sql))
                .bind(scan.view.as_str())
                .bind(*index)
                .bind(from.to_ordered_bytes())
                .bind(&[] as &[u8])
                .bind(to.to_ordered_bytes())
                .bind(value)
                .bind(after.map_or(&[] as &[u8], |cursor| cursor.key.as_bytes()))
                .bind(limit)
                .persistent(place.persistent())
                .fetch_all(conn)
                .await?
        }
    };
    let more = rows.len() > max;
    let (mut found, mut last) = (Vec::with_capacity(rows.len().min(max)), None);
    for row in rows.iter().take(max) {
        let key = String::from_utf8(row.try_get(0)?).map_err(|_| damaged("a view row's key"))?;
        let value: Option<&[u8]> = row.try_get(2)?;
        let value =
            value.map(|bytes| IndexValue::from_ordered_bytes(bytes).ok_or_else(|| damaged("an index value")));
        last = Some(Cursor { value: value.transpose()?, key: key.clone() });
        found.push((key, row.try_get(1)?));
    }
    Ok(Rows { rows: found, next: last.filter(|_| more) })
}
