//! What came of one cause, across all services: one correlation, one timeline.
//!
//! ```text
//! 2026-01-05T10:00:00.000Z            order      order-7        OrderCreated
//! 2026-01-05T10:00:00.012Z    +12 ms  payment    account-alice  PaymentProcessed  ◄ OrderCreated of order
//! 2026-01-05T10:00:00.020Z     +8 ms  inventory  stock-apple    InventoryUpdated  ◄ PaymentProcessed of payment
//! ```
//!
//! Every event that a [`Work`](crate::unit_of_work::Work) records carries the tag of its correlation
//! ([`correlation::tag`]), so each store finds its part by an index. The parts are put together by cause: each event
//! names the one that led to it.
//!
//! Promises, each with its test in `tests/flow/timeline.rs`:
//! - An event never stands before its cause, nor before an earlier event of its own store, whatever the clocks of
//!   the machines say (`a_cause_stands_before_its_effect_whatever_the_clocks_say`).
//! - It is bounded, and says of which stores it is not the whole (`more_events_than_asked_for_are_left_out_and_said_to_be`).

mod order;
mod published;
mod text;

use mainstay_envelope::{CorrelationId, Timestamp};
use mainstay_event_store::{Position, Query, ReadError, Recorded, Store, limits};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::correlation;

/// Events of one store in a timeline; a larger wish is cut to this.
pub const EVENTS_MAX: usize = 10_000;

/// A store to look into, and whose it is.
#[derive(Debug, Clone)]
pub struct Source<S> {
    /// The participant's name, as the timeline shows it.
    pub participant: String,
    /// Its facts.
    pub store: S,
}

/// What came of one cause. It serializes to JSON; [`Timeline::text`] is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// What all of it has in common.
    pub correlation: CorrelationId,
    /// The events: each after its cause, and after those before it in its store; else by time.
    pub events: Vec<Entry>,
    /// Messages of this correlation that wait, because their handling failed.
    pub parked: Vec<Parked>,
    /// The participants whose stores hold more events of this correlation than were asked for.
    pub incomplete: Vec<String>,
}

/// One event of a timeline. It shows what happened, never an event's content: that may be personal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The wall clock of whoever recorded it; in JSON as RFC 3339.
    #[serde(serialize_with = "rfc_3339")]
    pub at: Timestamp,
    /// Milliseconds since its cause. Two machines' clocks lie between: it can be negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<i64>,
    /// When it came into its participant's log, if that was asked for ([`Timeline::with_published`]) and found there;
    /// in JSON as RFC 3339.
    #[serde(serialize_with = "rfc_3339_if", skip_serializing_if = "Option::is_none")]
    pub published: Option<Timestamp>,
    /// In whose store it is.
    pub participant: String,
    /// Its stream.
    pub stream: String,
    /// Its number there.
    pub version: u64,
    /// Its place in the store's feed.
    pub position: Position,
    /// The event.
    pub id: Uuid,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: String,
    /// What directly led to it; none where it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// What directly led to an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The id of an event or a message.
    pub id: Uuid,
    /// The event's type and whose it is; none when it is not in this timeline.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    pub event: Option<CausingEvent>,
}

/// A cause that is in the timeline too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CausingEvent {
    /// In whose store it is.
    pub participant: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: String,
}

/// A message that could not be handled and waits, with those behind it of the same key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parked {
    /// Whose consumer has it.
    pub participant: String,
    /// Who published it.
    pub from: String,
    /// The message's event.
    pub id: Uuid,
    /// What it tells.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Since when; in JSON as RFC 3339.
    #[serde(serialize_with = "rfc_3339")]
    pub since: Timestamp,
    /// Tries that failed.
    pub tries: u32,
    /// Nothing more is tried until an operator decides.
    pub is_dead: bool,
    /// Why the last try failed.
    pub why: String,
}

/// A store that could not be asked: there is no timeline, since it could lack what matters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store of {participant} could not be read, so there is no timeline: {why}")]
pub struct TimelineError {
    /// Whose store.
    pub participant: String,
    /// What it said.
    pub why: ReadError,
}

impl Timeline {
    /// Looks for the events of a correlation in each store, at most `max` a store ([`EVENTS_MAX`] at the most).
    ///
    /// It is what the stores hold now: a saga that is still under way has a longer one later. Cost: an indexed read
    /// a store; then it grows with the number of events times that of stores.
    pub async fn read<S: Store>(
        sources: &[Source<S>],
        correlation: CorrelationId,
        max: usize,
    ) -> Result<Self, TimelineError> {
        let max = max.min(EVENTS_MAX);
        let mut stores = Vec::with_capacity(sources.len());
        let mut incomplete = Vec::new();
        for Source { participant, store } in sources {
            let found = find(store, correlation, max).await;
            let (events, is_whole) =
                found.map_err(|why| TimelineError { participant: participant.clone(), why })?;
            if !is_whole {
                incomplete.push(participant.clone());
            }
            stores.push(events.into_iter().map(|found| found.named(participant)).collect());
        }
        Ok(Self { correlation, events: order::merge(stores), parked: Vec::new(), incomplete })
    }

    /// Adds the messages that wait; the longest waiting first.
    #[must_use]
    pub fn with_parked(mut self, parked: impl IntoIterator<Item = Parked>) -> Self {
        self.parked.extend(parked);
        self.parked.sort_by(|a, b| (a.since, &a.participant, a.id).cmp(&(b.since, &b.participant, b.id)));
        self
    }

    /// Is there nothing of this correlation?
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.parked.is_empty()
    }
}

/// An event that was found, without what is not shown.
struct Found {
    event: Recorded,
    cause: Option<Uuid>,
}

impl Found {
    fn named(self, participant: &str) -> Entry {
        let Self { event, cause } = self;
        Entry {
            at: event.at,
            wait_ms: None,
            published: None,
            participant: participant.to_owned(),
            stream: event.stream.as_str().to_owned(),
            version: event.version.0,
            position: event.position,
            id: event.id,
            event_type: event.event_type.as_str().to_owned(),
            cause: cause.map(|id| Cause { id, event: None }),
        }
    }
}

/// A store's events of a correlation, in the order of its feed; and were these all?
async fn find<S: Store>(
    store: &S,
    correlation: CorrelationId,
    max: usize,
) -> Result<(Vec<Found>, bool), ReadError> {
    let query = Query::tags([correlation::tag(correlation)?]);
    let mut found: Vec<Found> = Vec::new();
    let mut after = Position::START;
    loop {
        // One more than wanted, to know whether there is more.
        let page = store.read(&query, after, limits::page(max + 1 - found.len())).await?;
        let is_at_end = page.at_end();
        after = page.next;
        for event in page.events {
            if found.len() == max {
                return Ok((found, false));
            }
            let fact = event.fact().map_err(|why| ReadError::Damaged {
                why: format!("the envelope of the event at position {}: {why}", event.position),
            })?;
            found.push(Found { cause: fact.causation.map(|cause| cause.0), event });
        }
        if is_at_end {
            return Ok((found, true));
        }
    }
}

/// RFC 3339 in UTC, to the millisecond; the bare number for a time outside the calendar.
fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| format!("{} ms", at.as_millis()), |at| format!("{at:.3}"))
}

fn rfc_3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time(*at))
}

fn rfc_3339_if<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc_3339(at, serializer),
        None => serializer.serialize_none(),
    }
}
