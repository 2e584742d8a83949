//! How parked messages are shown.

use anyhow::Result;
use mainstay::envelope::{MessageIdentity, Timestamp};
use mainstay::flow::inbox::{DeadLetter, ParkedKey, Status};
use mainstay_runtime::logs::clean;
use serde::Serialize;
use serde_json::Value;

use crate::folder::Service;

/// A parked key.
#[derive(Serialize)]
pub(super) struct Waiting<'a> {
    id: &'a str,
    service: Service,
    from: &'a str,
    key: &'a str,
    #[serde(flatten)]
    status: &'a Status,
    since: String,
    messages: u64,
    why: &'a str,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(service: Service, key: &'a ParkedKey) -> Self {
        Self {
            id: &key.id,
            service,
            from: &key.topic,
            key: &key.key,
            status: &key.status,
            since: time(key.since),
            messages: key.messages,
            why: &key.why,
        }
    }

    pub(super) fn text(&self) -> String {
        let fate = match self.status {
            Status::Waiting { tries, again_at } => format!("{tries} tries, again at {}", time(*again_at)),
            Status::Dead { tries } => format!("{tries} tries, waits for you"),
        };
        format!(
            "{}  {} could not handle a message of {} with key {}: {fate}, since {}, {} behind it: {}",
            self.id,
            self.service,
            self.from,
            clean(self.key.as_bytes()),
            self.since,
            self.messages.saturating_sub(1),
            clean(self.why.as_bytes())
        )
    }
}

/// A parked message.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    id: &'a str,
    service: Service,
    /// How many of its key stand before it, from the one that was asked for.
    behind: usize,
    offset: u64,
    parked: String,
    identity: &'a MessageIdentity,
    altered: bool,
    /// The whole message: a CloudEvent in its JSON form.
    event: Value,
}

impl<'a> Shown<'a> {
    pub(super) fn new(service: Service, behind: usize, letter: &'a DeadLetter) -> Result<Self> {
        Ok(Self {
            id: &letter.id,
            service,
            behind,
            offset: letter.offset,
            parked: time(letter.parked),
            identity: &letter.identity,
            altered: letter.altered,
            event: serde_json::from_slice(&letter.event.to_json(Some(&letter.data)))?,
        })
    }

    pub(super) fn text(&self) -> String {
        let Self { id, service, offset, parked, identity, event, .. } = self;
        let altered = if self.altered {
            "\n  ALTERED: this number came with another content before; retry only if this one is to be handled too"
        } else {
            ""
        };
        let event = serde_json::to_string_pretty(event).unwrap_or_default().replace('\n', "\n  ");
        format!(
            "{id}  parked by {service} at {parked}, offset {offset}, message {}/{}/{}{altered}\n  {event}",
            identity.producer, identity.epoch, identity.seq
        )
    }
}

/// RFC 3339, or milliseconds since 1970 where the calendar ends.
fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map_or_else(|_| at.as_millis().to_string(), |at| at.to_string())
}
