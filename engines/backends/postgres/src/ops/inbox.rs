//! Marking messages as handled.

use mainstay_envelope::MessageIdentity;
use mainstay_event_store::inbox::{self, HOLES_MAX, Known};
use mainstay_event_store::{ConsumerName, Mark, Refusal};
use sqlx::PgConnection;

use super::{Ended, Place};
use crate::error::damaged;

/// Marks a message, and says whether it was before. One round trip; what is decided is what the contract's rules say
/// (retention/inbox.sql).
pub(crate) async fn mark(
    conn: &mut PgConnection,
    place: &Place,
    consumer: &ConsumerName,
    message: &MessageIdentity,
) -> Ended<Mark> {
    // The rule that concerns the number alone.
    if let Err(refusal) = inbox::mark(message.seq, &message.content.0, &Known::default()) {
        return Ok(Err(refusal));
    }
    let said: String = sqlx::query_scalar(place.schema.sql("select {s}.inbox_mark($1, $2, $3, $4, $5, $6)"))
        .bind(consumer.as_str())
        .bind(message.producer.as_str())
        .bind(i64::from(message.epoch))
        .bind(i64::from(message.partition))
        .bind(message.seq as i64)
        .bind(message.content.0.as_slice())
        .persistent(place.persistent())
        .fetch_one(conn)
        .await?;
    Ok(match said.as_str() {
        "first" => Ok(Mark::First),
        "repeated" => Ok(Mark::Repeated),
        "altered" => Ok(Mark::Altered),
        "busy" => Err(Refusal::Busy {
            why: format!(
                "the inbox waits for {HOLES_MAX} ranges of missing messages of this producer and takes no further one; \
                 deliver the oldest missing messages first"
            ),
        }),
        _ => return Err(damaged("the inbox's answer")),
    })
}
