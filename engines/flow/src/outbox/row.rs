//! From an event to an outbox row.

use mainstay_event_store::{NewEvent, OutboxRow, Refusal, Topic};

/// The event's id.
pub(super) const ID: &str = "id";
/// The event's type.
pub(super) const TYPE: &str = "type";
/// The number of its payload's shape; absent for 1.
pub(super) const SCHEMA: &str = "schema";

/// The row that publishes an event: its payload as it is stored, and what a receiver has to know of it as headers.
///
/// # Errors
/// A sealed payload is refused: its receivers have no key, and whoever has one may publish what it opens.
pub(crate) fn row(topic: &Topic, key: &str, event: &NewEvent) -> Result<OutboxRow, Refusal> {
    if event.payload.key.is_some() {
        let why = format!("event {} has a sealed payload, which its receivers could not read", event.id);
        return Err(Refusal::Invalid { what: "outbox row", why });
    }
    let mut headers =
        vec![(ID.to_owned(), event.id.to_string()), (TYPE.to_owned(), event.event_type.as_str().to_owned())];
    if event.schema != 1 {
        headers.push((SCHEMA.to_owned(), event.schema.to_string()));
    }
    Ok(OutboxRow {
        topic: topic.clone(),
        key: key.to_owned(),
        headers,
        payload: event.payload.bytes.to_vec(),
    })
}
