//! Is an act the repetition of one that is recorded already? Decided here once, the same for every store.
//!
//! An act is a repetition when each of its events is recorded under its id, in its stream, with the same
//! type, schema, tags and payload, in consecutive versions in the act's order. The envelope and the time may
//! differ: they tell who handed it in and when, and a retry is handed in later. A repetition is acknowledged
//! whatever it expects. Everything between "all recorded" and "none recorded" is a mistake of the caller's.

use uuid::Uuid;

use crate::event::{NewEvent, Recorded};
use crate::names::StreamName;
use crate::outcome::Refusal;
use crate::tags::Tags;
use crate::version::Version;

/// The events of an act, or of one call inside a transaction, by stream.
pub type Part<'a> = (&'a StreamName, &'a [NewEvent]);

/// What the events of an act are to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// None is recorded: append them. Also when there is no event at all.
    New,
    /// All are recorded. For each part the version of its last event; none for a part without events.
    Repeated(Vec<Option<Version>>),
}

/// Judges an act by what is recorded under its ids; `recorded` is asked once for each event, in order.
///
/// Of the answers only what the caller gave is looked at, and stream and version; a store may leave position,
/// time, envelope and hash empty. Refused as [`Refusal::IdTaken`] when it is neither new nor a repetition.
pub fn judge<'r, E: From<Refusal>>(
    parts: &[Part<'_>],
    mut recorded: impl FnMut(&Uuid) -> Result<Option<std::borrow::Cow<'r, Recorded>>, E>,
) -> Result<Verdict, E> {
    let mut versions = Vec::with_capacity(parts.len());
    let (mut known, mut unknown) = (None, None);
    for (stream, events) in parts {
        let mut last: Option<Version> = None;
        for event in *events {
            match recorded(&event.id)? {
                Some(found) => {
                    let moved = last.is_some_and(|last| found.version.0 != last.0 + 1);
                    let why = difference(stream, event, &found)
                        .or(moved.then_some("it does not follow the event that this act has before it"));
                    if let Some(why) = why {
                        return Err(taken(event.id, why).into());
                    }
                    last = Some(found.version);
                    known = Some(event.id);
                }
                None => unknown = Some(event.id),
            }
        }
        versions.push(last);
    }
    match (known, unknown) {
        (None, _) => Ok(Verdict::New),
        (Some(_), None) => Ok(Verdict::Repeated(versions)),
        (Some(id), Some(_)) => Err(taken(id, "it is recorded, but other events of this act are not").into()),
    }
}

/// How a recorded event differs from one that is handed in with its id; none when they are the same.
pub fn difference(stream: &StreamName, event: &NewEvent, recorded: &Recorded) -> Option<&'static str> {
    if recorded.stream != *stream {
        Some("it is recorded in another stream")
    } else if recorded.event_type != event.event_type || recorded.schema != event.schema {
        Some("it is recorded with another type or schema")
    } else if recorded.tags != Tags::join(&event.tags) {
        Some("it is recorded with other tags")
    } else if recorded.payload != event.payload {
        Some("it is recorded with another payload")
    } else {
        None
    }
}

fn taken(id: Uuid, why: &str) -> Refusal {
    Refusal::IdTaken { id, why: why.into() }
}
