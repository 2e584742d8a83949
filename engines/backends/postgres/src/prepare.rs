//! What is worked out before the server is asked: hashes, keys, stored bytes.

use mainstay_event_store::{Author, Hash, NewEvent, StreamName, Tags, chain};

use crate::keys;

/// What goes with a new event.
#[derive(Debug)]
pub(crate) struct Extra {
    pub(crate) tags: Tags,
    /// What the event is found by.
    pub(crate) keys: Vec<i64>,
    pub(crate) content: Hash,
}

impl Extra {
    pub(crate) fn of(stream: &StreamName, event: &NewEvent, origin: &Author) -> Self {
        let tags = Tags::join(&event.tags);
        let content = chain::content_of_new(stream, event, origin.at, &origin.envelope, tags.as_str());
        Self { keys: keys::of_event(&event.event_type, &event.tags), tags, content }
    }
}
