//! From an outbox row to a message, and from a message to what a handler acts on.
//!
//! The message's outer form is a CloudEvent. What the row's envelope says goes into extensions, under names that
//! others use too where there are such: `traceparent` (distributed tracing extension), `correlationid` and
//! `causationid`; `tenant`, `actor` and `schema` are ours.

use bytes::Bytes;
use mainstay_envelope::cloud_event::{ATTRIBUTE_BYTES_MAX, CloudEventError, EXTENSIONS_MAX};
use mainstay_envelope::{
    Actor, CausationId, CloudEvent, CorrelationId, Fact, Tenant, Timestamp, TraceParent,
};
use mainstay_event_store::{OutboxRecord, StoreId};
use mainstay_messaging::{BadName, Message, Topic};
use uuid::Uuid;

use super::row::{ID, SCHEMA, TYPE};

const TRACE_PARENT: &str = "traceparent";
const CORRELATION: &str = "correlationid";
const CAUSATION: &str = "causationid";
const TENANT: &str = "tenant";
const ACTOR: &str = "actor";

/// The type of a row that names none.
const UNTYPED: &str = "message";

/// Why a row makes no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoMessage {
    #[error(transparent)]
    Event(#[from] CloudEventError),
    #[error(transparent)]
    Topic(#[from] BadName),
    #[error("its stored envelope can't be read ({0})")]
    Envelope(String),
}

/// The message that a row publishes; the same each time.
///
/// Headers other than those of [`row`](super::row()) become extensions; one that can't be one (by its name, or a
/// character of its value) is left out. So is an actor's or a tenant's name with a character that no attribute
/// may have: the event in the store keeps it.
pub(super) fn message(record: OutboxRecord, store: StoreId) -> Result<Message, NoMessage> {
    let identity = record.identity(store);
    let fact: Fact =
        serde_json::from_slice(&record.envelope).map_err(|error| NoMessage::Envelope(error.to_string()))?;
    let (mut id, mut event_type) = (None, None);
    let mut others = Vec::new();
    for (name, value) in record.row.headers {
        match name.as_str() {
            ID => id = Some(value),
            TYPE => event_type = Some(value),
            _ => others.push((name, value)),
        }
    }
    let id = id.unwrap_or_else(|| format!("{}-{}-{}", identity.producer, identity.epoch, identity.seq));
    let event =
        CloudEvent::new(id, source(record.row.topic.as_str()), event_type.as_deref().unwrap_or(UNTYPED))?;
    let mut event = event.with_time(record.at)?.with_data_content_type("application/json")?;
    let known = [
        (TRACE_PARENT, fact.trace.map(|trace| trace.to_string())),
        (CORRELATION, Some(fact.correlation.0.to_string())),
        (CAUSATION, fact.causation.map(|cause| cause.0.to_string())),
        (TENANT, fact.tenant.map(|tenant| tenant.as_str().to_owned())),
        (ACTOR, fact.actor.map(|actor| actor.as_str().to_owned())),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    for (name, value) in known.chain(others) {
        if may_be_extension(&event, &name, &value) {
            event = event.with_extension(name, value)?;
        }
    }
    Ok(Message {
        identity,
        topic: Topic::new(record.row.topic.as_str())?,
        key: record.row.key,
        event,
        data: Bytes::from(record.row.payload),
        mark: record.position.0,
    })
}

/// Would the event take this extension? Asked beforehand, since a refusal would cost the event.
fn may_be_extension(event: &CloudEvent, name: &str, value: &str) -> bool {
    let plain = value.len() <= ATTRIBUTE_BYTES_MAX && value.bytes().all(|byte| (0x20..0x7F).contains(&byte));
    let ours = matches!(name, TRACE_PARENT | CORRELATION | CAUSATION | TENANT | ACTOR | SCHEMA);
    let room = event.extensions().len() < EXTENSIONS_MAX;
    (ours && plain && room) || event.clone().with_extension(name, value).is_ok()
}

/// The source of a topic's messages: a URI-reference (RFC 3986), so what it does not allow is written in percents.
fn source(topic: &str) -> String {
    use std::fmt::Write;
    let mut source = String::with_capacity(1 + topic.len());
    source.push('/');
    for byte in topic.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            source.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(source, "%{byte:02X}");
        }
    }
    source
}

/// What a handler has to know of a message beside its payload.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) id: Uuid,
    pub(crate) schema: u32,
    pub(crate) at: Timestamp,
    /// What the handler's own events will carry: the message is their cause.
    pub(crate) fact: Fact,
}

/// Reads a message's attributes. Any CloudEvent can be read: what a foreign producer does not say is made up from
/// what it does, the same each time.
pub(crate) fn open(event: &CloudEvent, published: Timestamp) -> Opened {
    let id = Uuid::try_parse(event.id()).unwrap_or_else(|_| derived_id(event));
    let parsed = |name| event.extension(name).and_then(|text| Uuid::try_parse(text).ok());
    let correlation = parsed(CORRELATION).filter(|correlation| !correlation.is_nil()).unwrap_or(id);
    Opened {
        id,
        schema: event.extension(SCHEMA).and_then(|schema| schema.parse().ok()).unwrap_or(1),
        at: event.time().unwrap_or(published),
        fact: Fact {
            trace: event.extension(TRACE_PARENT).and_then(|text| text.parse::<TraceParent>().ok()),
            correlation: CorrelationId(correlation),
            causation: Some(CausationId(id)),
            tenant: event.extension(TENANT).and_then(|text| Tenant::new(text).ok()),
            actor: event.extension(ACTOR).and_then(|text| Actor::new(text).ok()),
        },
    }
}

/// An id for an event whose own is no UUID: version 8, from source and id, which together are unique (CloudEvents
/// 1.0.2 §3.1.1).
fn derived_id(event: &CloudEvent) -> Uuid {
    let mut hasher = blake3::Hasher::new_derive_key("mainstay id of a foreign event 1");
    hasher.update(&(event.source().len() as u64).to_le_bytes());
    hasher.update(event.source().as_bytes());
    hasher.update(event.id().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use mainstay_event_store::{OutboxRow, Position, Topic as RowTopic};

    use super::*;

    fn record(headers: &[(&str, &str)], fact: &Fact) -> OutboxRecord {
        OutboxRecord {
            seq: 9,
            at: Timestamp::from_millis(1_000),
            envelope: serde_json::to_vec(fact).unwrap(),
            row: OutboxRow {
                topic: RowTopic::new("order desk").unwrap(),
                key: "order-1".into(),
                headers: headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
                payload: b"{}".to_vec(),
            },
            epoch: 2,
            number: 4,
            position: Position(17),
        }
    }

    fn store() -> StoreId {
        StoreId(Uuid::from_u128(5))
    }

    #[test]
    fn what_a_row_says_of_its_cause_and_account_reaches_the_handler() {
        let fact = Fact {
            trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap()),
            correlation: CorrelationId(Uuid::from_u128(1)),
            causation: Some(CausationId(Uuid::from_u128(2))),
            tenant: Some(Tenant::new("acme").unwrap()),
            actor: Some(Actor::new("Käthe").unwrap()),
        };
        let id = Uuid::from_u128(3).to_string();
        let message =
            message(record(&[("id", &id), ("type", "OrderCreated"), ("schema", "3")], &fact), store())
                .unwrap();
        assert_eq!((message.event.source(), message.event.event_type()), ("/order%20desk", "OrderCreated"));
        assert_eq!((message.mark, message.identity.epoch, message.identity.seq), (17, 2, 4));
        let opened = open(&message.event, Timestamp::from_millis(0));
        assert_eq!(
            (opened.id, opened.schema, opened.at),
            (Uuid::from_u128(3), 3, Timestamp::from_millis(1_000))
        );
        let expected = Fact { causation: Some(CausationId(Uuid::from_u128(3))), ..fact };
        assert_eq!(opened.fact, expected);
    }

    #[test]
    fn a_row_that_somebody_wrote_by_hand_is_published_too() {
        let odd = [("Content-Type", "x"), ("note", "a\u{fffe}b"), ("colour", "blue"), ("data", "taken")];
        let fact = Fact { actor: Some(Actor::new("a\u{fdd0}").unwrap()), ..Fact::default() };
        let message = message(record(&odd, &fact), store()).unwrap();
        assert_eq!(message.event.id(), "00000000000000000000000000000005-2-4");
        let extensions: Vec<_> = message.event.extensions().keys().map(String::as_str).collect();
        assert_eq!(extensions, ["colour", "correlationid"]);
        let (one, again) =
            (open(&message.event, Timestamp::default()), open(&message.event, Timestamp::default()));
        assert_eq!(one.id, again.id, "an id that is made up is the same each time");
        assert_eq!(one.fact.correlation, CorrelationId(one.id), "what has no correlation begins one");
    }
}
