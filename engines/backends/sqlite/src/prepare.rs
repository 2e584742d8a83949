//! What is worked out before the writer's turn: hashes, keys, stored bytes. The writer only binds and steps.

use mainstay_envelope::Context;
use mainstay_event_store::{
    Act, Author, Condition, EventType, Expected, Hash, NewEvent, Refusal, StreamName, Tag, Tags, chain,
};

/// What goes with a new event.
#[derive(Debug)]
pub(crate) struct Extra {
    pub(crate) tags: Tags,
    /// What the event is found by: its type and each tag.
    pub(crate) keys: Vec<i64>,
    pub(crate) content: Hash,
}

#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) stream: StreamName,
    pub(crate) expected: Expected,
    pub(crate) events: Vec<NewEvent>,
    /// One for each event.
    pub(crate) extras: Vec<Extra>,
}

#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) origin: Author,
    pub(crate) parts: Vec<Part>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) bytes: usize,
}

pub(crate) fn extra(stream: &StreamName, new: &NewEvent, origin: &Author) -> Extra {
    let tags = Tags::join(&new.tags);
    let content = chain::content_of_new(stream, new, origin.at, &origin.envelope, tags.as_str());
    let mut keys = Vec::with_capacity(1 + new.tags.len());
    keys.push(type_key(&new.event_type));
    keys.extend(new.tags.iter().map(tag_key));
    // Two tags of one event that share a key would break the table's uniqueness; one row finds both.
    if keys.len() > 1 {
        keys.sort_unstable();
        keys.dedup();
    }
    Extra { tags, keys, content }
}

pub(crate) fn act(cx: &Context, act: Act) -> Result<Prepared, Refusal> {
    act.check()?;
    let origin = Author::of(cx)?;
    let mut bytes = 0;
    let parts = act
        .streams
        .into_iter()
        .map(|part| {
            let extras = part.events.iter().map(|new| {
                bytes += new.payload.bytes.len() + 512;
                extra(&part.stream, new, &origin)
            });
            Part {
                extras: extras.collect(),
                expected: part.expected,
                events: part.events,
                stream: part.stream,
            }
        })
        .collect();
    Ok(Prepared { origin, parts, conditions: act.conditions, bytes })
}

/// The key of a type in the index: 8 bytes of a hash, so that no name has to be looked up. Two names may
/// share a key; whoever finds a row by its key compares the names.
pub(crate) fn type_key(event_type: &EventType) -> i64 {
    key(b"type ", event_type.as_str())
}

/// As [`type_key`], for tags.
pub(crate) fn tag_key(tag: &Tag) -> i64 {
    key(b"tag ", tag.as_str())
}

fn key(kind: &[u8], text: &str) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind);
    hasher.update(text.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    i64::from_le_bytes(bytes)
}
