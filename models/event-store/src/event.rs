//! Events: as handed in ([`NewEvent`]) and as recorded ([`Recorded`]).

use std::fmt;

use bytes::Bytes;
use mainstay_envelope::{Fact, Timestamp};
use uuid::Uuid;

use crate::hash::Hash;
use crate::names::{EventType, KeyId, StreamName, Tag};
use crate::outcome::Refusal;
use crate::tags::Tags;
use crate::version::Version;

/// The stored bytes of an event: opaque to every room but their owner's.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// The bytes as stored; sealed when `key` is given.
    pub bytes: Bytes,
    /// The key that opens them; `None` for plain bytes.
    pub key: Option<KeyId>,
}

impl Payload {
    /// Plain bytes.
    pub fn plain(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: Bytes::from(bytes.into()), key: None }
    }

    /// Bytes sealed by the caller with `key`. The store never sees the key itself.
    pub fn encrypted(key: KeyId, bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: Bytes::from(bytes.into()), key: Some(key) }
    }
}

impl fmt::Debug for Payload {
    // Payloads may hold personal data: a debug line says only how much there is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes, key {:?})", self.bytes.len(), self.key)
    }
}

/// An event to be recorded. Its id makes a second append of the same event harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Given by the caller, kept over retries: a UUID, best of version 7 (sorted inserts are cheap).
    pub id: Uuid,
    /// What happened.
    pub event_type: EventType,
    /// The version of the payload's shape, for upcasting; 1 at first.
    pub schema: u32,
    /// At most [`limits::TAGS_MAX`].
    pub tags: Vec<Tag>,
    /// At most [`limits::PAYLOAD_BYTES_MAX`].
    pub payload: Payload,
}

impl NewEvent {
    /// An event of schema 1 without tags.
    pub fn new(id: Uuid, event_type: EventType, payload: Payload) -> Self {
        Self { id, event_type, schema: 1, tags: Vec::new(), payload }
    }

    /// Adds a tag.
    pub fn tagged(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Checks every limit that concerns this event alone.
    pub fn check(&self) -> Result<(), Refusal> {
        let refuse = |what: &'static str, why: String| Err(Refusal::Invalid { what, why });
        if self.payload.bytes.len() > limits::PAYLOAD_BYTES_MAX {
            let max = limits::PAYLOAD_BYTES_MAX;
            return refuse("payload", format!("{} bytes, at most {max}", self.payload.bytes.len()));
        }
        if self.tags.len() > limits::TAGS_MAX {
            return refuse("tags", format!("{} tags, at most {}", self.tags.len(), limits::TAGS_MAX));
        }
        if (1..self.tags.len()).any(|i| self.tags[..i].contains(&self.tags[i])) {
            return refuse("tags", "the same tag twice on one event".into());
        }
        if self.id.is_nil() {
            return refuse("event id", "the nil UUID names no event".into());
        }
        if self.schema == 0 {
            return refuse("schema", "0; schemas are numbered from 1".into());
        }
        Ok(())
    }
}

/// Limits of the contract, the same in every store.
pub mod limits {
    /// Stored bytes of one event.
    pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
    /// Tags of one event.
    pub const TAGS_MAX: usize = 32;
    /// Events of one act.
    pub const ACT_EVENTS_MAX: usize = 1_000;
    /// Stored bytes of one act, all events together.
    pub const ACT_BYTES_MAX: usize = 16 << 20;
    /// Conditions of one act.
    pub const ACT_CONDITIONS_MAX: usize = 16;
    /// Items of one query, and types and tags of one item.
    pub const QUERY_ITEMS_MAX: usize = 64;
    /// Events in one page of a read; a larger request is cut to this.
    pub const PAGE_EVENTS_MAX: usize = 1_000;

    /// How many events or rows a page really gets that was asked to hold `max`.
    pub fn page(max: usize) -> usize {
        max.min(PAGE_EVENTS_MAX)
    }

    /// Bytes of one row of a view, of an outbox row, and of a row's key.
    pub const ROW_BYTES_MAX: usize = 1 << 20;
    /// Bytes of a view row's key.
    pub const KEY_BYTES_MAX: usize = 512;
    /// Index entries of one view row.
    pub const INDICES_MAX: usize = 16;
}

/// An event as the store holds it.
///
/// The bytes of events that were read together may share one buffer: an event that is kept for long keeps
/// its page, at most a thousand events. Copy the bytes of what you keep.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its place in the feed: dense, from 1. START when a stream is read before the store's sequencer has given it one;
    /// `hash` is all zeros then.
    pub position: crate::Position,
    /// The stream it belongs to.
    pub stream: StreamName,
    /// Its number in that stream: dense, from 1.
    pub version: Version,
    /// As given by the caller.
    pub id: Uuid,
    /// As given by the caller.
    pub event_type: EventType,
    /// As given by the caller.
    pub schema: u32,
    /// The writer's wall clock when the act was handed in. Data, never an order.
    pub at: Timestamp,
    /// As given by the caller.
    pub tags: Tags,
    /// The stored form of the fact's envelope; see [`Recorded::fact`].
    pub envelope: Bytes,
    /// As given by the caller.
    pub payload: Payload,
    /// The chain's hash at this position.
    pub hash: Hash,
}

impl Recorded {
    /// The envelope: who, for whom, caused by what. Read on demand, since most readers of a feed never ask.
    pub fn fact(&self) -> Result<Fact, serde_json::Error> {
        serde_json::from_slice(&self.envelope)
    }
}
