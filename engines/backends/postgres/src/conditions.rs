//! Conditions: how a query goes to the server, and what its answer means.

use mainstay_event_store::{Condition, Position, Query, Refusal, StoreId};
use serde_json::json;
use sqlx::{PgConnection, Row};

use crate::keys::{self, Locks};
use crate::schema::Schema;

/// A query's items as functions.sql reads them; none for every event.
pub(crate) fn items(query: &Query) -> Option<String> {
    if query.is_all() {
        return None;
    }
    let items = query.items.iter().map(|item| {
        let types = (!item.types.is_empty()).then_some(&item.types);
        let tags = (!item.tags.is_empty()).then_some(&item.tags);
        json!({ "k": keys::of_item(item), "t": types, "g": tags })
    });
    Some(serde_json::Value::Array(items.collect()).to_string())
}

/// The refusal of a condition that does not hold. `at` is where the first match stands: 0 when it has no position yet,
/// none when the condition begins past the end of the feed.
pub(crate) fn refusal(condition: &Condition, index: usize, at: Option<i64>, ends: i64) -> Refusal {
    let Some(at) = at else {
        // The feed may have come further since; the answer stays the same.
        let ends = u64::try_from(ends).unwrap_or_default().min(condition.after.0.saturating_sub(1));
        let refused = condition.check_after(Position(ends)).err();
        return refused.unwrap_or(Refusal::ConditionFailed { index, found: None });
    };
    let found = u64::try_from(at).ok().filter(|at| *at > 0).map(Position);
    Refusal::ConditionFailed { index, found }
}

/// Takes a condition's locks, for the rest of the transaction.
pub(crate) async fn lock(
    conn: &mut PgConnection,
    query: &Query,
    store: StoreId,
    persistent: bool,
) -> sqlx::Result<()> {
    let mut locks = Locks::default();
    locks.require(query);
    let (keys, alone) = locks.for_server(store);
    for (key, alone) in keys.iter().zip(alone.unwrap_or_default()) {
        let lock = if alone {
            "select pg_advisory_xact_lock($1)"
        } else {
            "select pg_advisory_xact_lock_shared($1)"
        };
        sqlx::query(lock).bind(key).persistent(persistent).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Looks for what a condition forbids, among everything that this connection's transaction sees.
pub(crate) async fn check(
    conn: &mut PgConnection,
    schema: &Schema,
    condition: &Condition,
    persistent: bool,
) -> sqlx::Result<Option<Refusal>> {
    let after = i64::try_from(condition.after.0).unwrap_or(i64::MAX);
    let row = sqlx::query(schema.sql("select hit, ends from {s}.violation($1::text::jsonb, $2)"))
        .bind(items(&condition.query))
        .bind(after)
        .persistent(persistent)
        .fetch_one(conn)
        .await?;
    let (hit, ends): (Option<i64>, i64) = (row.try_get("hit")?, row.try_get("ends")?);
    Ok(match hit {
        None if after <= ends => None,
        hit => Some(refusal(condition, 0, hit, ends)),
    })
}

/// Does an event that this very transaction wrote match? For transactions whose snapshot is older than the locks.
pub(crate) async fn own_match(
    conn: &mut PgConnection,
    schema: &Schema,
    query: &Query,
    persistent: bool,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(schema.sql(
        "select exists(
            select from {s}.event e
            where e.xid = pg_current_xact_id_if_assigned()
              and ($1::text is null or exists (
                select from jsonb_to_recordset($1::text::jsonb) x(t text[], g text[])
                where (x.t is null or e.type = any(x.t))
                  and (x.g is null or string_to_array(e.tags, E'\\n') @> x.g))))",
    ))
    .bind(items(query))
    .persistent(persistent)
    .fetch_one(conn)
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

    use mainstay_event_store::Tag;

    use super::*;

    #[test]
    fn a_refusal_tells_where_or_that_the_position_is_none_of_ours() {
        let condition = Condition { query: Query::tags([Tag::new("x").unwrap()]), after: Position(7) };
        assert_eq!(
            refusal(&condition, 2, Some(9), 9),
            Refusal::ConditionFailed { index: 2, found: Some(Position(9)) }
        );
        assert_eq!(refusal(&condition, 0, Some(0), 9), Refusal::ConditionFailed { index: 0, found: None });
        for ends in [3, 7, 9] {
            assert!(matches!(refusal(&condition, 0, None, ends), Refusal::Invalid { .. }), "{ends}");
        }
        assert_eq!(items(&Query::all()), None);
    }
}
