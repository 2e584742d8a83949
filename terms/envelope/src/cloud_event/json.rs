//! The JSON format and the JSON batch format of CloudEvents.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::draft::Draft;
use super::error::{CloudEventError, Problem};
use super::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, CloudEvent, EXTENSIONS_MAX, JSON_BYTES_MAX, SPEC_VERSION, time,
};

/// Members of one document: the attributes of the specification, data in one of its two forms, extensions.
const MEMBERS_MAX: usize = EXTENSIONS_MAX + 10;

impl CloudEvent {
    /// The event as one document, its data within.
    ///
    /// Data comes back byte for byte from [`from_json`](Self::from_json): JSON stands there as it is, text of
    /// another content type as a string, and what is neither in Base64. Takes time in proportion to the data.
    pub fn to_json(&self, data: Option<&[u8]>) -> Vec<u8> {
        let mut json = Vec::with_capacity(256 + data.map_or(0, |data| data.len() + data.len() / 2));
        self.write_json(data, &mut json);
        json
    }

    fn write_json(&self, data: Option<&[u8]>, to: &mut Vec<u8>) {
        // Strings into memory: there is nothing here that can fail.
        let _ = serde_json::to_writer(to, &Document { event: self, data });
    }

    /// Reads one event, and its data where it has any.
    ///
    /// # Errors
    /// What is not JSON of one event in the specification's form, names a member twice, is longer than
    /// [`JSON_BYTES_MAX`], or has an attribute that [`CloudEvent`] does not allow.
    pub fn from_json(json: &[u8]) -> Result<WithData, CloudEventError> {
        if json.len() > JSON_BYTES_MAX {
            return Err(CloudEventError::document(Problem::TooLong(json.len(), JSON_BYTES_MAX)));
        }
        let Members(members) = serde_json::from_slice(json).map_err(|error| not_json(&error))?;
        let (mut draft, mut data, mut base64) = (Draft::default(), None, None);
        for (at, (name, value)) in members.iter().enumerate() {
            if members[..at].iter().any(|(other, _)| other == name) {
                return Err(CloudEventError::new(name, Problem::Twice));
            }
            match name.as_ref() {
                "data" => data = Some(*value),
                "data_base64" => base64 = unset(value).map(|value| string(name, value)).transpose()?,
                _ => {
                    if let Some(value) = unset(value) {
                        draft.set(name, attribute(name, value)?)?;
                    }
                }
            }
        }
        let event = draft.finish()?;
        let data = match (data, base64) {
            (Some(_), Some(_)) => return Err(CloudEventError::new("data_base64", Problem::Twice)),
            (Some(value), None) if event.holds_json() => Some(value.get().as_bytes().to_vec()),
            (Some(value), None) => unset(value)
                .map(|value| string("data", value))
                .transpose()?
                .map(|text| text.into_owned().into_bytes()),
            (None, Some(text)) => {
                let not = |_| CloudEventError::new("data_base64", Problem::NotA("Base64 of RFC 4648 §4"));
                Some(STANDARD.decode(text.as_bytes()).map_err(not)?)
            }
            (None, None) => None,
        };
        Ok((event, data))
    }
}

/// An event as it was read, with its data where it has any.
pub type WithData = (CloudEvent, Option<Vec<u8>>);

/// Several events with their data as one document (JSON batch format).
pub fn json_batch<'a>(events: impl IntoIterator<Item = (&'a CloudEvent, Option<&'a [u8]>)>) -> Vec<u8> {
    let mut json = vec![b'['];
    for (event, data) in events {
        if json.len() > 1 {
            json.push(b',');
        }
        event.write_json(data, &mut json);
    }
    json.push(b']');
    json
}

/// Reads a batch: all of its events, or none.
///
/// # Errors
/// As [`CloudEvent::from_json`]; a batch of more than [`BATCH_EVENTS_MAX`] events or
/// [`BATCH_BYTES_MAX`] bytes.
pub fn batch_from_json(json: &[u8]) -> Result<Vec<WithData>, CloudEventError> {
    if json.len() > BATCH_BYTES_MAX {
        return Err(CloudEventError::document(Problem::TooLong(json.len(), BATCH_BYTES_MAX)));
    }
    let Batch(events) = serde_json::from_slice(json).map_err(|error| not_json(&error))?;
    if events.len() > BATCH_EVENTS_MAX {
        return Err(CloudEventError::document(Problem::TooMany(BATCH_EVENTS_MAX, "events")));
    }
    events.into_iter().map(|event| CloudEvent::from_json(event.get().as_bytes())).collect()
}

fn not_json(error: &serde_json::Error) -> CloudEventError {
    CloudEventError::document(Problem::Json(error.to_string()))
}

/// §2.2: a null stands for an attribute that is not there.
fn unset(value: &RawValue) -> Option<&RawValue> {
    (value.get() != "null").then_some(value)
}

fn string<'a>(name: &str, value: &'a RawValue) -> Result<Cow<'a, str>, CloudEventError> {
    let text: Result<Text<'a>, _> = serde_json::from_str(value.get());
    text.map(|text| text.0).map_err(|_| CloudEventError::new(name, Problem::NotA("a JSON string")))
}

/// The canonical text of an attribute's value (§2.2). Those of the specification are strings.
fn attribute(name: &str, value: &RawValue) -> Result<String, CloudEventError> {
    let refuse = |what| Err(CloudEventError::new(name, Problem::NotA(what)));
    let extension = !super::RESERVED.contains(&name);
    match value.get().as_bytes().first() {
        Some(b'"') => string(name, value).map(Cow::into_owned),
        Some(b't' | b'f') if extension => Ok(value.get().to_owned()),
        Some(b'-' | b'0'..=b'9') if extension => match value.get().parse::<i32>() {
            Ok(number) => Ok(number.to_string()),
            Err(_) => refuse("a whole number of 32 bits"),
        },
        _ if extension => refuse("a string, a boolean or a whole number"),
        _ => refuse("a JSON string"),
    }
}

struct Document<'a> {
    event: &'a CloudEvent,
    data: Option<&'a [u8]>,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let event = self.event;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("specversion", SPEC_VERSION)?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("source", &event.source)?;
        map.serialize_entry("type", &event.event_type)?;
        if let Some(subject) = &event.subject {
            map.serialize_entry("subject", subject)?;
        }
        if let Some(at) = event.time {
            map.serialize_entry("time", &time::write(at))?;
        }
        if let Some(media_type) = &event.data_content_type {
            map.serialize_entry("datacontenttype", media_type)?;
        }
        if let Some(schema) = &event.data_schema {
            map.serialize_entry("dataschema", schema)?;
        }
        for (name, value) in &event.extensions {
            map.serialize_entry(name, value)?;
        }
        if let Some(data) = self.data {
            match std::str::from_utf8(data).ok().map(|text| (text, event.holds_json())) {
                Some((text, true)) => match serde_json::from_str::<&RawValue>(text) {
                    // Blanks around the value would be lost.
                    Ok(value) if value.get().len() == text.len() => map.serialize_entry("data", value)?,
                    _ => map.serialize_entry("data_base64", &STANDARD.encode(data))?,
                },
                Some((text, false)) => map.serialize_entry("data", text)?,
                None => map.serialize_entry("data_base64", &STANDARD.encode(data))?,
            }
        }
        map.end()
    }
}

/// A string that borrows from the document where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        from.deserialize_str(Visit)
    }
}

/// The members of one document, in its order, unread.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some(Text(name)) = map.next_key()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(A::Error::custom("it has too many members"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Visit)
    }
}

/// The events of a batch, unread.
struct Batch<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Batch<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Batch<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of events")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Batch<'de>, A::Error> {
                let mut events = Vec::new();
                // One more than is allowed: the caller tells.
                while events.len() <= BATCH_EVENTS_MAX {
                    match seq.next_element()? {
                        Some(event) => events.push(event),
                        None => return Ok(Batch(events)),
                    }
                }
                Err(A::Error::custom(format!("it has more than {BATCH_EVENTS_MAX} events")))
            }
        }
        from.deserialize_seq(Visit)
    }
}
