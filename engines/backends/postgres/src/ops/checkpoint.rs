//! Where consumers stand.

use mainstay_event_store::{ConsumerName, Position, Refusal};
use sqlx::PgConnection;

use super::{Ended, Place};
use crate::append::position;

pub(crate) async fn get(
    conn: &mut PgConnection,
    place: &Place,
    consumer: &ConsumerName,
) -> sqlx::Result<Option<Position>> {
    let stored: Option<i64> =
        sqlx::query_scalar(place.schema.sql("select position from {s}.checkpoint where consumer = $1"))
            .bind(consumer.as_str())
            .persistent(place.persistent())
            .fetch_optional(conn)
            .await?;
    stored.map(position).transpose()
}

/// Moves a consumer from where it must stand.
pub(crate) async fn advance(
    conn: &mut PgConnection,
    place: &Place,
    consumer: &ConsumerName,
    from: Position,
    to: Position,
) -> Ended<()> {
    let Ok(stored_to) = i64::try_from(to.0) else {
        let why = format!("position {to}, which no feed can reach");
        return Ok(Err(Refusal::Invalid { what: "checkpoint", why }));
    };
    // What no column can hold is where nobody stands.
    let stored_from = i64::try_from(from.0).unwrap_or(-1);
    let stood: i64 = sqlx::query_scalar(place.schema.sql("select {s}.checkpoint_move($1, $2, $3)"))
        .bind(consumer.as_str())
        .bind(stored_from)
        .bind(stored_to)
        .persistent(place.persistent())
        .fetch_one(conn)
        .await?;
    let actual = position(stood)?;
    Ok(match actual == from {
        true => Ok(()),
        false => Err(Refusal::CheckpointMoved { consumer: consumer.clone(), expected: from, actual }),
    })
}
