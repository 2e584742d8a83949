//! The hash chain: what proves that the feed was not changed, against a head kept elsewhere.
//!
//! ```text
//! content(e) = BLAKE3("mainstay event 1", id, schema, at, stream, type, envelope, tags, key, payload)
//! hash(0)    = BLAKE3("mainstay chain 1", store id)
//! hash(p)    = BLAKE3(hash(p-1), p, version(e_p), content(e_p))
//! ```
//! Every variable field is length-prefixed, so that no two different events give the same input. The
//! content is hashed by whoever hands the event in; only the link, a fixed 80 bytes, is the sequencer's work.
//! BLAKE3: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020.

mod archive;
#[cfg(feature = "checkpoints")]
mod checkpoint;

pub use archive::{ARCHIVE_EVENTS_MAX, ArchiveError, ArchiveWriter, Archived, digest_of};
#[cfg(feature = "checkpoints")]
pub use checkpoint::{BadCheckpoint, BadKey, Checkpoint, PublicKey, SignedCheckpoint, SigningKey};

use crate::event::{NewEvent, Recorded};
use crate::hash::Hash;
use crate::names::StreamName;
use crate::position::{Head, Position, StoreId};
use crate::version::Version;
use mainstay_envelope::Timestamp;

/// The hash before the first event of a store.
pub fn genesis(store: StoreId) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("mainstay chain 1");
    hasher.update(store.0.as_bytes());
    Hash(*hasher.finalize().as_bytes())
}

/// The parts of an event that its content hash covers, borrowed from wherever they are.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// See [`NewEvent::id`].
    pub id: &'a [u8; 16],
    /// The stream's name.
    pub stream: &'a str,
    /// The type's name.
    pub event_type: &'a str,
    /// See [`NewEvent::schema`].
    pub schema: u32,
    /// When it was handed in.
    pub at: Timestamp,
    /// The envelope's stored bytes.
    pub envelope: &'a [u8],
    /// The tags as stored: joined by a line feed, which no tag can hold.
    pub tags: &'a str,
    /// The payload's key, empty when it is plain.
    pub key: &'a str,
    /// The payload's stored bytes.
    pub payload: &'a [u8],
}

impl Content<'_> {
    /// BLAKE3 over all parts, each length-prefixed.
    pub fn hash(&self) -> Hash {
        // One buffer for the short parts: a hasher is fastest when it is fed once or twice.
        let mut head = Vec::with_capacity(
            96 + self.stream.len()
                + self.event_type.len()
                + self.envelope.len()
                + self.tags.len()
                + self.key.len(),
        );
        head.extend_from_slice(b"mainstay event 1");
        head.extend_from_slice(self.id);
        head.extend_from_slice(&self.schema.to_le_bytes());
        head.extend_from_slice(&self.at.as_millis().to_le_bytes());
        for part in [
            self.stream.as_bytes(),
            self.event_type.as_bytes(),
            self.envelope,
            self.tags.as_bytes(),
            self.key.as_bytes(),
        ] {
            head.extend_from_slice(&(part.len() as u32).to_le_bytes());
            head.extend_from_slice(part);
        }
        head.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&head);
        hasher.update(self.payload);
        Hash(*hasher.finalize().as_bytes())
    }
}

/// The content hash of an event about to be appended.
pub fn content_of_new(
    stream: &StreamName,
    event: &NewEvent,
    at: Timestamp,
    envelope: &[u8],
    tags: &str,
) -> Hash {
    Content {
        id: event.id.as_bytes(),
        stream: stream.as_str(),
        event_type: event.event_type.as_str(),
        schema: event.schema,
        at,
        envelope,
        tags,
        key: event.payload.key.as_ref().map_or("", |key| key.as_str()),
        payload: &event.payload.bytes,
    }
    .hash()
}

/// The content hash of a recorded event.
pub fn content_of(event: &Recorded) -> Hash {
    Content {
        id: event.id.as_bytes(),
        stream: event.stream.as_str(),
        event_type: event.event_type.as_str(),
        schema: event.schema,
        at: event.at,
        envelope: &event.envelope,
        tags: event.tags.as_str(),
        key: event.payload.key.as_ref().map_or("", |key| key.as_str()),
        payload: &event.payload.bytes,
    }
    .hash()
}

/// The next link.
pub fn link(previous: Hash, position: Position, version: Version, content: Hash) -> Hash {
    let mut input = [0u8; 80];
    input[..32].copy_from_slice(&previous.0);
    input[32..40].copy_from_slice(&position.0.to_le_bytes());
    input[40..48].copy_from_slice(&version.0.to_le_bytes());
    input[48..].copy_from_slice(&content.0);
    Hash(*blake3::hash(&input).as_bytes())
}

/// Walks a feed in order and proves it: positions dense, every link right.
///
/// Start it at [`Verifier::new`] (the whole feed) or at a head kept elsewhere ([`Verifier::from_head`]).
#[derive(Debug, Clone)]
pub struct Verifier {
    head: Head,
}

/// What a verifier found wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An event is missing or stands twice.
    #[error("position {found} follows {after}: the feed is not dense; an event was removed or added")]
    Gap {
        /// The last proven position.
        after: Position,
        /// What came instead of the next.
        found: Position,
    },
    /// An event, or one before it, is not what was recorded.
    #[error(
        "the chain breaks at position {at}: the event there, or its hash, was changed after it was recorded"
    )]
    Link {
        /// Where.
        at: Position,
    },
    /// The feed ends before a head that was seen earlier.
    #[error("the feed ends at {ends}, but {expected} was seen before: the end was cut off")]
    Truncated {
        /// Where it ends now.
        ends: Position,
        /// The head kept elsewhere.
        expected: Position,
    },
    /// An archived range's marker contradicts itself, or what is recorded beside it.
    #[error("the marker of positions {from} to {to} is not that of what was archived: it was changed")]
    Marker {
        /// The range's first position.
        from: Position,
        /// Its last one.
        to: Position,
    },
    /// The feed has another hash at a position whose head was kept.
    #[error("at position {at} the hash differs from the head kept elsewhere: history was rewritten")]
    Rewritten {
        /// Where.
        at: Position,
    },
}

impl Verifier {
    /// From the beginning of this store's feed.
    pub fn new(store: StoreId) -> Self {
        Self { head: Head { position: Position::START, hash: genesis(store) } }
    }

    /// From a head that was proven or kept before.
    pub fn from_head(head: Head) -> Self {
        Self { head }
    }

    /// How far the feed is proven.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Proves the next event.
    pub fn check(&mut self, event: &Recorded) -> Result<(), Broken> {
        self.check_parts(event.position, event.version, content_of(event), event.hash)
    }

    /// As [`Verifier::check`], for callers that hold the parts.
    pub fn check_parts(
        &mut self,
        position: Position,
        version: Version,
        content: Hash,
        hash: Hash,
    ) -> Result<(), Broken> {
        if position != self.head.position.next() {
            return Err(Broken::Gap { after: self.head.position, found: position });
        }
        if link(self.head.hash, position, version, content) != hash {
            return Err(Broken::Link { at: position });
        }
        self.head = Head { position, hash };
        Ok(())
    }
}
