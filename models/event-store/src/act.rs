//! One act: events for one or more streams, with expectations and conditions, all or nothing.

use crate::event::{NewEvent, limits};
use crate::names::StreamName;
use crate::outcome::Refusal;
use crate::query::Condition;
use crate::version::Expected;

/// What to append. All of it is recorded, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Act {
    /// Streams with what is expected of them and their new events, in order. A stream without events
    /// is only checked.
    pub streams: Vec<StreamAct>,
    /// Conditions over the whole feed.
    pub conditions: Vec<Condition>,
}

/// The part of an act that concerns one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamAct {
    /// Which stream.
    pub stream: StreamName,
    /// What the caller believes of it.
    pub expected: Expected,
    /// Its new events, in order; may be empty.
    pub events: Vec<NewEvent>,
}

impl Act {
    /// An act on one stream.
    pub fn append(stream: StreamName, expected: Expected, events: Vec<NewEvent>) -> Self {
        Self { streams: vec![StreamAct { stream, expected, events }], conditions: Vec::new() }
    }

    /// The same act also concerns another stream.
    pub fn and(mut self, stream: StreamName, expected: Expected, events: Vec<NewEvent>) -> Self {
        self.streams.push(StreamAct { stream, expected, events });
        self
    }

    /// Refused when an event matches the condition.
    pub fn unless(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// All its events, in the order in which they are recorded.
    pub fn events(&self) -> impl Iterator<Item = &NewEvent> + Clone {
        self.streams.iter().flat_map(|part| &part.events)
    }

    /// Checks everything that can be known without the store.
    pub fn check(&self) -> Result<(), Refusal> {
        let refuse = |what: &'static str, why: String| Err(Refusal::Invalid { what, why });
        if self.streams.is_empty() {
            return refuse("act", "it names no stream".into());
        }
        if self.streams.len() > limits::ACT_EVENTS_MAX {
            return refuse("act", format!("more than {} streams", limits::ACT_EVENTS_MAX));
        }
        if (1..self.streams.len())
            .any(|i| self.streams[..i].iter().any(|part| part.stream == self.streams[i].stream))
        {
            return refuse("act", "it names the same stream twice".into());
        }
        check_events(self.events())?;
        if self.conditions.len() > limits::ACT_CONDITIONS_MAX {
            return refuse("act", format!("more than {} conditions", limits::ACT_CONDITIONS_MAX));
        }
        for condition in &self.conditions {
            condition.query.check()?;
        }
        Ok(())
    }
}

/// Checks the events of one act, or of one call inside a transaction: each by itself, their number, their
/// bytes together, and that no id stands twice.
pub fn check_events<'a>(events: impl Iterator<Item = &'a NewEvent> + Clone) -> Result<(), Refusal> {
    let refuse = |what: &'static str, why: String| Err(Refusal::Invalid { what, why });
    let (mut count, mut bytes) = (0, 0);
    for event in events.clone() {
        event.check()?;
        count += 1;
        bytes += event.payload.bytes.len();
    }
    if count > limits::ACT_EVENTS_MAX {
        return refuse("act", format!("{count} events, at most {}", limits::ACT_EVENTS_MAX));
    }
    if bytes > limits::ACT_BYTES_MAX {
        return refuse("act", format!("{bytes} payload bytes, at most {}", limits::ACT_BYTES_MAX));
    }
    if count > 1 {
        let mut ids: Vec<_> = events.map(|event| event.id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Refusal::IdTaken { id: pair[0], why: "it stands twice in this act".into() });
        }
    }
    Ok(())
}
