//! The lines of an archive: a header, and one an event.

use bytes::Bytes;
use mainstay_envelope::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::{Payload, Recorded};
use crate::hash::Hash;
use crate::names::{EventType, KeyId, StreamName, Tag};
use crate::position::{Position, StoreId};
use crate::tags::Tags;
use crate::version::Version;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) kind: String,
    pub(super) store: StoreId,
    pub(super) from: Position,
    pub(super) to: Position,
    pub(super) before: Hash,
}

/// Stored bytes, as they are written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bits {
    Text(String),
    Hex(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    position: Position,
    stream: StreamName,
    version: u64,
    id: Uuid,
    #[serde(rename = "type")]
    event_type: EventType,
    schema: u32,
    at: Timestamp,
    tags: Vec<Tag>,
    envelope: Bits,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyId>,
    payload: Bits,
    hash: Hash,
}

impl Bits {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    fn bytes(self) -> Option<Bytes> {
        match self {
            Self::Text(text) => Some(Bytes::from(text)),
            Self::Hex(hex) if hex.len() % 2 == 0 && hex.is_ascii() => (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok())
                .collect(),
            Self::Hex(_) => None,
        }
    }
}

impl Line {
    pub(super) fn of(event: &Recorded) -> Self {
        Self {
            position: event.position,
            stream: event.stream.clone(),
            version: event.version.0,
            id: event.id,
            event_type: event.event_type.clone(),
            schema: event.schema,
            at: event.at,
            tags: event.tags.to_vec(),
            envelope: Bits::of(&event.envelope),
            key: event.payload.key.clone(),
            payload: Bits::of(&event.payload.bytes),
            hash: event.hash,
        }
    }

    pub(super) fn event(self) -> Option<Recorded> {
        Some(Recorded {
            position: self.position,
            stream: self.stream,
            version: Version(self.version),
            id: self.id,
            event_type: self.event_type,
            schema: self.schema,
            at: self.at,
            tags: Tags::join(&self.tags),
            envelope: self.envelope.bytes()?,
            payload: Payload { bytes: self.payload.bytes()?, key: self.key },
            hash: self.hash,
        })
    }
}
