//! What is worked out before the server is asked: hashes, keys, stored bytes.

use bytes::Bytes;
use mainstay_envelope::{Context, Fact, Timestamp};
use mainstay_event_store::{Hash, NewEvent, Refusal, StreamName, Tags, chain};

use crate::keys;

/// The stored form of who hands an act in, and when.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) at: Timestamp,
    pub(crate) envelope: Bytes,
}

impl Origin {
    pub(crate) fn of(cx: &Context) -> Result<Self, Refusal> {
        Self::new(cx.wall(), &cx.fact())
    }

    pub(crate) fn new(at: Timestamp, fact: &Fact) -> Result<Self, Refusal> {
        let envelope = serde_json::to_vec(fact)
            .map_err(|error| Refusal::Invalid { what: "envelope", why: error.to_string() })?;
        Ok(Self { at, envelope: envelope.into() })
    }
}

/// What goes with a new event.
#[derive(Debug)]
pub(crate) struct Extra {
    pub(crate) tags: Tags,
    /// What the event is found by.
    pub(crate) keys: Vec<i64>,
    pub(crate) content: Hash,
}

impl Extra {
    pub(crate) fn of(stream: &StreamName, event: &NewEvent, origin: &Origin) -> Self {
        let tags = Tags::join(&event.tags);
        let content = chain::content_of_new(stream, event, origin.at, &origin.envelope, tags.as_str());
        Self { keys: keys::of_event(&event.event_type, &event.tags), tags, content }
    }
}
