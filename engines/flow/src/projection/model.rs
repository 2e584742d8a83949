//! What a projection is: rows made from events, one after the other.

use mainstay_envelope::{Fact, Timestamp};
use mainstay_event_store::{IndexEntry, Recorded, StreamName, Tags, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::failure::Failure;
use super::view::View;
use crate::event::Event;

/// A read model: rows by key, made from the events of one family in the order of the feed.
///
/// The same projection runs inline (in the transaction that records the events) or asynchronously (a
/// [`Projector`](super::Projector) follows the feed), and has to give the same rows. So it MUST depend on
/// nothing but its view and the event: no clock, no chance, no I/O; and not on the event's position, which an
/// event has only after its commit. It may be run again for the same event when a transaction is tried again;
/// only the last run counts. It has no effect but through its view: an e-mail sent from here would be sent
/// again by every rebuild.
pub trait Projection: Send + Sync + 'static {
    /// The family it reads. Events of other families are never looked at.
    type Event: Event;
    /// One row, stored as JSON.
    type Row: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Its name, for ever: rows, checkpoint and progress are kept under it. At most 100 bytes.
    const NAME: &'static str;
    /// Raise it when `apply`, or the row's shape, changes: rows made by another version are never mixed with
    /// this one's; they have to be rebuilt.
    const VERSION: u32 = 1;

    /// Brings the rows up to this event. An error stops the projection; nothing of the event is written.
    fn apply(&self, view: &View<'_, Self::Row>, event: &Observed<'_, Self::Event>) -> Result<(), Failure>;

    /// What a row is found by, beside its key.
    fn indices(_row: &Self::Row) -> Vec<IndexEntry> {
        Vec::new()
    }
}

/// An event as a projection sees it.
#[derive(Debug)]
pub struct Observed<'a, E> {
    recorded: &'a Recorded,
    event: &'a E,
}

impl<'a, E> Observed<'a, E> {
    pub(crate) fn new(recorded: &'a Recorded, event: &'a E) -> Self {
        Self { recorded, event }
    }

    /// What happened.
    pub fn event(&self) -> &'a E {
        self.event
    }

    /// The stream it belongs to.
    pub fn stream(&self) -> &'a StreamName {
        &self.recorded.stream
    }

    /// Its number in that stream, from 1.
    pub fn version(&self) -> Version {
        self.recorded.version
    }

    /// Its id.
    pub fn id(&self) -> Uuid {
        self.recorded.id
    }

    /// When it was handed in, by its writer's wall clock. Data, never an order.
    pub fn at(&self) -> Timestamp {
        self.recorded.at
    }

    /// Its tags.
    pub fn tags(&self) -> &'a Tags {
        &self.recorded.tags
    }

    /// Who, for whom, caused by what. Read on demand.
    pub fn fact(&self) -> Result<Fact, Failure> {
        self.recorded.fact().map_err(|error| Failure::Wrong(format!("its envelope can't be read: {error}")))
    }
}
