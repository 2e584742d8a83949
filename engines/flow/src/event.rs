//! Events as the program knows them ([`Event`]), and the way to the stored form and back.

use std::fmt::Display;

use mainstay_event_store::{
    BadName, EventType, KeyId, NewEvent, Payload, Query, QueryItem, Recorded, Tag, limits,
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A family of facts: what a decider decides and a projection reads. Derive it: `#[derive(Event)]`.
///
/// What it MUST hold, for every value: [`Event::decode`] of what [`Event::encode`] gave is the same value; the
/// type's name and the meaning of a schema number never change, since what is stored is for ever.
pub trait Event: Clone + Send + Sync + Sized + 'static {
    /// The names of all its types.
    fn types() -> &'static [&'static str];

    /// The name of this event's type; one of [`Event::types`].
    fn event_type(&self) -> &'static str;

    /// The number of the payload's present shape, from 1.
    fn schema(&self) -> u32;

    /// The tags it is found by. Refused when a value makes no tag: empty, too long, with control characters.
    fn tags(&self) -> Result<Vec<Tag>, BadName>;

    /// The payload's bytes, in the present schema.
    fn encode(&self) -> Result<Vec<u8>, serde_json::Error>;

    /// The event from what is stored, upcast from older schemas.
    ///
    /// # Errors
    /// [`Undecodable`] says why; never a panic, whatever the bytes are.
    fn decode(event_type: &str, schema: u32, bytes: &[u8]) -> Result<Self, Undecodable>;
}

/// Why a recorded event can't be read by this program. Nothing was changed; the event stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// The type is none of the family's.
    #[error(
        "type {event_type:?} is not one of this program's events; add it, or read the stream it belongs to"
    )]
    UnknownType {
        /// As recorded.
        event_type: String,
    },
    /// A newer program wrote it.
    #[error("{event_type} has schema {schema}, this program knows {known} at most; run the newer program")]
    Newer {
        /// As recorded.
        event_type: String,
        /// As recorded.
        schema: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// The upcast function refused it.
    #[error(
        "{event_type} of schema {from} could not be brought to the next schema: {why}; mend its upcast function"
    )]
    Upcast {
        /// As recorded.
        event_type: String,
        /// The schema at which the function failed.
        from: u32,
        /// In the function's words.
        why: String,
    },
    /// The bytes are not of the shape that the type and the schema promise.
    #[error(
        "{event_type} of schema {schema} does not have its declared shape: {why}; \
         if the declaration changed, raise its schema and add an upcast"
    )]
    Payload {
        /// As recorded.
        event_type: String,
        /// As recorded.
        schema: u32,
        /// What is wrong, without any value of the payload: it may be personal data.
        why: String,
    },
    /// The payload is sealed, and this program has no key for it.
    #[error("the payload is sealed with key {key}; it can't be read without it")]
    Sealed {
        /// Which key.
        key: KeyId,
    },
}

impl Undecodable {
    /// The refusal of a type that is none of the family's.
    pub fn unknown_type(event_type: &str) -> Self {
        Self::UnknownType { event_type: event_type.to_owned() }
    }
}

/// Brings a payload of schema `from` to `from + 1`; an error in the author's words.
pub type Upcast = fn(u32, serde_json::Value) -> Result<serde_json::Value, String>;

/// What derived code calls to read one type's fields.
pub fn decode<T: DeserializeOwned>(
    event_type: &str,
    known: u32,
    schema: u32,
    bytes: &[u8],
    upcast: Option<Upcast>,
) -> Result<T, Undecodable> {
    let shape = |error: serde_json::Error| Undecodable::Payload {
        event_type: event_type.to_owned(),
        schema,
        why: without_values(&error),
    };
    match upcast {
        _ if schema > known => Err(Undecodable::Newer { event_type: event_type.to_owned(), schema, known }),
        Some(upcast) if schema < known => {
            let mut payload = serde_json::from_slice(bytes).map_err(shape)?;
            for from in schema..known {
                payload = upcast(from, payload).map_err(|why| Undecodable::Upcast {
                    event_type: event_type.to_owned(),
                    from,
                    why,
                })?;
            }
            serde_json::from_value(payload).map_err(shape)
        }
        _ => serde_json::from_slice(bytes).map_err(shape),
    }
}

/// What derived code calls to make one tag.
pub fn tag(name: &str, value: impl Display) -> Result<Tag, BadName> {
    Tag::new(format!("{name}:{value}"))
}

/// serde's messages quote values ("invalid type: string \"…\""), which may be personal data. Only messages
/// that name nothing but the program's own words are passed on.
pub(crate) fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("missing field `") {
        return text;
    }
    let what = match error.classify() {
        serde_json::error::Category::Data => "a value has the wrong type",
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is no JSON",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// The event of a record.
pub(crate) fn open<E: Event>(recorded: &Recorded) -> Result<E, Undecodable> {
    if let Some(key) = &recorded.payload.key {
        return Err(Undecodable::Sealed { key: key.clone() });
    }
    E::decode(recorded.event_type.as_str(), recorded.schema, &recorded.payload.bytes)
}

/// Why an event can't be stored: its declaration's fault. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// Its type's name, or one of its tags, breaks a rule.
    #[error(transparent)]
    Name(#[from] BadName),
    /// Its fields make no JSON.
    #[error("{event_type} can't be written as JSON: {why}; nothing was written; mend its fields' types")]
    Encode {
        /// Which type.
        event_type: &'static str,
        /// What is wrong, without any value.
        why: String,
    },
    /// What would be written could not be read again.
    #[error(
        "{event_type} could not be read again once written: {why}; nothing was written; mend its declaration"
    )]
    Unreadable {
        /// Which type.
        event_type: &'static str,
        /// What reading it would say.
        why: Undecodable,
    },
}

/// The stored form of an event.
///
/// It is read back at once: an event that can be written but not read (a NaN, which JSON turns into null)
/// would stop its stream for ever. That costs about as much as the writing, and far less than the disk.
pub(crate) fn close<E: Event>(event: &E, id: Uuid) -> Result<NewEvent, Unstorable> {
    let event_type = event.event_type();
    let bytes =
        event.encode().map_err(|error| Unstorable::Encode { event_type, why: without_values(&error) })?;
    E::decode(event_type, event.schema(), &bytes)
        .map_err(|why| Unstorable::Unreadable { event_type, why })?;
    Ok(NewEvent {
        id,
        event_type: EventType::new(event_type)?,
        schema: event.schema(),
        tags: event.tags()?,
        payload: Payload::plain(bytes),
    })
}

/// Every event of the family, whatever its stream.
pub(crate) fn query<E: Event>() -> Result<Query, BadName> {
    let types = E::types().iter().map(EventType::new).collect::<Result<Vec<_>, _>>()?;
    let items = types.chunks(limits::QUERY_ITEMS_MAX);
    Ok(Query { items: items.map(|types| QueryItem { types: types.to_vec(), tags: Vec::new() }).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Fields {
        cents: u64,
    }

    fn steps(from: u32, mut payload: serde_json::Value) -> Result<serde_json::Value, String> {
        match from {
            1 => Ok(serde_json::json!({ "euros": payload["amount"].take() })),
            2 => Ok(serde_json::json!({ "cents": payload["euros"].as_u64().ok_or("no euros")? * 100 })),
            _ => Err(format!("no step from {from}")),
        }
    }

    fn read(schema: u32, bytes: &[u8]) -> Result<Fields, Undecodable> {
        decode("Paid", 3, schema, bytes, Some(steps))
    }

    #[test]
    fn an_old_schema_takes_every_step_and_a_newer_one_is_refused() {
        assert_eq!(read(1, b"{\"amount\":7}"), Ok(Fields { cents: 700 }));
        assert_eq!(read(2, b"{\"euros\":7}"), Ok(Fields { cents: 700 }));
        assert_eq!(read(3, b"{\"cents\":7}"), Ok(Fields { cents: 7 }));
        assert!(matches!(read(4, b"{\"cents\":7}"), Err(Undecodable::Newer { schema: 4, known: 3, .. })));
        assert!(matches!(read(2, b"{}"), Err(Undecodable::Upcast { from: 2, .. })));
        assert!(matches!(read(0, b"{}"), Err(Undecodable::Upcast { from: 0, .. })));
    }

    #[test]
    fn an_error_never_shows_a_value_of_the_payload() {
        for bytes in [&b"{\"cents\":\"alice@example\"}"[..], b"\"alice@example\"", b"{\"alice@example\":1,}"]
        {
            let shown = read(3, bytes).unwrap_err().to_string();
            assert!(shown.contains("Paid of schema 3") && !shown.contains("alice"), "{shown}");
        }
        assert!(read(3, b"{}").unwrap_err().to_string().contains("missing field `cents`"));
    }
}
