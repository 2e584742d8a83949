//! Everything the store holds, and how each step is taken back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use mainstay_envelope::{MessageIdentity, Producer, Timestamp};
use uuid::Uuid;

use super::outbox::{Outbox, Stored};
use super::views::Views;
use crate::act::Act;
use crate::author::Author;
use crate::chain;
use crate::event::{NewEvent, Recorded};
use crate::inbox::Window;
use crate::lease::Lease;
use crate::message::{Mark, OutboxRow};
use crate::names::{ConsumerName, StreamName};
use crate::outbox;
use crate::outcome::{ReadError, Refusal};
use crate::position::{Head, Position, StoreId};
use crate::query::{Condition, Query};
use crate::repeat::{self, Verdict};
use crate::store::{Direction, Page};
use crate::tags::Tags;
use crate::version::{Expected, Version};

/// One consumer's memory of one producer's partition.
type InboxKey = (ConsumerName, Producer, u32, u32);

/// How to take one step back.
type Undo = Box<dyn FnOnce(&mut State) + Send>;

pub(super) struct State {
    id: StoreId,
    /// The feed: the event at position p is `events[p - 1]`.
    events: Vec<Recorded>,
    /// Positions of each stream's events: version v is `streams[name][v - 1]`.
    streams: HashMap<StreamName, Vec<Position>>,
    ids: HashMap<Uuid, Position>,
    pub(super) outbox: Outbox,
    inbox: HashMap<InboxKey, Window>,
    pub(super) checkpoints: HashMap<ConsumerName, Position>,
    pub(super) leases: HashMap<ConsumerName, Lease>,
    pub(super) views: Views,
    journal: Vec<Undo>,
}

/// What became of an act.
pub(super) struct Outcome {
    /// For each of its streams.
    pub(super) versions: Vec<Version>,
    /// Its last event, or the end of the feed when it has none.
    pub(super) position: Position,
    pub(super) repeated: bool,
}

impl State {
    pub(super) fn new(id: StoreId) -> Self {
        Self {
            id,
            events: Vec::new(),
            streams: HashMap::new(),
            ids: HashMap::new(),
            outbox: Outbox::default(),
            inbox: HashMap::new(),
            checkpoints: HashMap::new(),
            leases: HashMap::new(),
            views: Views::default(),
            journal: Vec::new(),
        }
    }

    /// Keeps everything written since the last commit.
    pub(super) fn commit(&mut self) {
        let position = self.head().position;
        self.outbox.place(position);
        self.journal.clear();
    }

    /// Takes back everything written since the last commit, the latest first.
    pub(super) fn roll_back(&mut self) {
        while let Some(undo) = self.journal.pop() {
            undo(self);
        }
    }

    /// Notes how to take back the step about to be made.
    pub(super) fn on_roll_back(&mut self, undo: impl FnOnce(&mut Self) + Send + 'static) {
        self.journal.push(Box::new(undo));
    }

    /// The act as a whole: recorded, repeated or refused.
    pub(super) fn append_act(&mut self, author: &Author, act: &Act) -> Result<Outcome, Refusal> {
        let parts: Vec<_> = act.streams.iter().map(|part| (&part.stream, part.events.as_slice())).collect();
        if let Verdict::Repeated(recorded) = self.judge(&parts)? {
            let last = act.events().last().and_then(|event| self.ids.get(&event.id));
            let position = last.copied().unwrap_or(self.head().position);
            let versions = parts
                .iter()
                .zip(recorded)
                .map(|((stream, _), version)| version.unwrap_or_else(|| self.version(stream)))
                .collect();
            return Ok(Outcome { versions, position, repeated: true });
        }
        // Everything is checked before anything is written, so there is nothing to take back here.
        for part in &act.streams {
            self.expect(&part.stream, part.expected)?;
        }
        for (index, condition) in act.conditions.iter().enumerate() {
            self.require(index, condition)?;
        }
        for part in &act.streams {
            for event in &part.events {
                self.record(author, &part.stream, event);
            }
        }
        self.commit();
        let versions = act.streams.iter().map(|part| self.version(&part.stream)).collect();
        Ok(Outcome { versions, position: self.head().position, repeated: false })
    }

    pub(super) fn judge(&self, parts: &[repeat::Part<'_>]) -> Result<Verdict, Refusal> {
        repeat::judge(parts, |id| Ok(self.ids.get(id).map(|&at| Cow::Borrowed(self.event(at)))))
    }

    pub(super) fn expect(&self, stream: &StreamName, expected: Expected) -> Result<(), Refusal> {
        let actual = self.version(stream);
        if expected.allows(actual) {
            return Ok(());
        }
        Err(Refusal::Conflict { stream: stream.clone(), expected, actual })
    }

    pub(super) fn require(&self, index: usize, condition: &Condition) -> Result<(), Refusal> {
        condition.check_after(self.head().position)?;
        match self.after(condition.after).iter().find(|event| condition.query.selects(event)) {
            Some(found) => Err(Refusal::ConditionFailed { index, found: Some(found.position) }),
            None => Ok(()),
        }
    }

    /// Adds an event to the end of its stream and of the feed.
    pub(super) fn record(&mut self, author: &Author, stream: &StreamName, event: &NewEvent) {
        let head = self.head();
        let (position, version) = (head.position.next(), Version(self.version(stream).0 + 1));
        let tags = Tags::join(&event.tags);
        let content = chain::content_of_new(stream, event, author.at, &author.envelope, tags.as_str());
        self.on_roll_back({
            let (stream, id) = (stream.clone(), event.id);
            move |state| {
                state.events.pop();
                state.ids.remove(&id);
                if let Entry::Occupied(mut positions) = state.streams.entry(stream) {
                    positions.get_mut().pop();
                    if positions.get().is_empty() {
                        positions.remove();
                    }
                }
            }
        });
        self.events.push(Recorded {
            position,
            stream: stream.clone(),
            version,
            id: event.id,
            event_type: event.event_type.clone(),
            schema: event.schema,
            at: author.at,
            tags,
            envelope: author.envelope.clone(),
            payload: event.payload.clone(),
            hash: chain::link(head.hash, position, version, content),
        });
        self.streams.entry(stream.clone()).or_default().push(position);
        self.ids.insert(event.id, position);
    }

    /// Adds a row to the end of the outbox.
    pub(super) fn publish(&mut self, author: &Author, row: &OutboxRow) -> Result<(), Refusal> {
        let known = self.outbox.topic.is_some();
        outbox::check_topic(self.outbox.topic.get_or_insert_with(|| row.topic.clone()), &row.topic)?;
        self.on_roll_back(move |state| {
            if !known {
                state.outbox.topic = None;
            }
            state.outbox.rows.pop_back();
            state.outbox.unplaced -= 1;
        });
        let (at, envelope, row) = (author.at, author.envelope.to_vec(), row.clone());
        self.outbox.rows.push_back(Stored { at, envelope, row, position: Position::START });
        self.outbox.unplaced += 1;
        Ok(())
    }

    pub(super) fn outbox_sent(&mut self, seqs: &[u64]) -> Result<(), Refusal> {
        let runs = outbox::runs(seqs, self.outbox.last())?;
        let before = self.outbox.sent.clone();
        self.on_roll_back(|state| state.outbox.sent = before);
        for run in runs {
            self.outbox.sent.mark(run);
        }
        Ok(())
    }

    /// Removes sent rows from the outbox's beginning; are there more?
    pub(super) fn outbox_prune(&mut self, before: Timestamp, max: usize) -> bool {
        for _ in 0..self.outbox.removable(before, max) {
            let Some(removed) = self.outbox.rows.pop_front() else { break };
            self.outbox.pruned_to += 1;
            self.on_roll_back(|state| {
                state.outbox.rows.push_front(removed);
                state.outbox.pruned_to -= 1;
            });
        }
        self.outbox.removable(before, 1) > 0
    }

    pub(super) fn outbox_new_epoch(&mut self, after: u64) -> Result<u32, Refusal> {
        let next = self.outbox.epoch().next(after, self.outbox.last(), self.outbox.pruned_to)?;
        let before = self.outbox.sent.clone();
        self.on_roll_back(|state| {
            state.outbox.sent = before;
            state.outbox.epochs.pop();
        });
        self.outbox.sent.cut(after);
        self.outbox.epochs.push(next);
        Ok(next.epoch)
    }

    pub(super) fn inbox_mark(
        &mut self,
        consumer: &ConsumerName,
        message: &MessageIdentity,
    ) -> Result<Mark, Refusal> {
        let key = (consumer.clone(), message.producer.clone(), message.epoch, message.partition);
        let seq = message.seq;
        let window = self.inbox.entry(key.clone()).or_default();
        let before = window.known(seq);
        let mark = window.mark(seq, &message.content.0)?;
        if mark == Mark::First {
            self.on_roll_back(move |state| {
                if let Some(window) = state.inbox.get_mut(&key) {
                    window.unmark(seq, &before);
                }
            });
        }
        Ok(mark)
    }

    /// Writes an entry of a map, with the way back.
    pub(super) fn set<K, V>(&mut self, map: fn(&mut Self) -> &mut HashMap<K, V>, key: K, value: V)
    where
        K: Clone + Eq + Hash + Send + 'static,
        V: Send + 'static,
    {
        let before = map(self).insert(key.clone(), value);
        self.on_roll_back(move |state| {
            match before {
                Some(before) => map(state).insert(key, before),
                None => map(state).remove(&key),
            };
        });
    }

    pub(super) fn head(&self) -> Head {
        self.events.last().map_or_else(
            || Head { position: Position::START, hash: chain::genesis(self.id) },
            |event| Head { position: event.position, hash: event.hash },
        )
    }

    pub(super) fn head_at(&self, position: Position) -> Option<Head> {
        if position == Position::START {
            return Some(Head { position, hash: chain::genesis(self.id) });
        }
        let index = usize::try_from(position.0 - 1).ok()?;
        self.events.get(index).map(|event| Head { position, hash: event.hash })
    }

    pub(super) fn version(&self, stream: &StreamName) -> Version {
        Version(self.streams.get(stream).map_or(0, |positions| positions.len() as u64))
    }

    pub(super) fn stream(
        &self,
        stream: &StreamName,
        from: Version,
        direction: Direction,
        max: usize,
    ) -> Vec<Recorded> {
        let positions = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(from.0).unwrap_or(usize::MAX);
        let event = |&position: &Position| self.event(position).clone();
        match direction {
            Direction::Forwards => {
                positions.iter().skip(from.saturating_sub(1)).take(max).map(event).collect()
            }
            Direction::Backwards => {
                positions[..from.min(positions.len())].iter().rev().take(max).map(event).collect()
            }
        }
    }

    pub(super) fn read(&self, query: &Query, after: Position, max: usize) -> Result<Page, ReadError> {
        let head = self.head().position;
        if after > head {
            return Err(ReadError::PastEnd { asked: after, ends: head });
        }
        let (mut events, mut next) = (Vec::new(), after);
        for event in self.after(after) {
            if events.len() == max {
                return Ok(Page { events, next, head });
            }
            next = event.position;
            if query.selects(event) {
                events.push(event.clone());
            }
        }
        Ok(Page { events, next, head })
    }

    /// The events after a position that is not past the end.
    fn after(&self, position: Position) -> &[Recorded] {
        let index = usize::try_from(position.0).unwrap_or(usize::MAX);
        &self.events[index.min(self.events.len())..]
    }

    /// The event at a position that one of our own indices names.
    fn event(&self, position: Position) -> &Recorded {
        &self.events[position.0 as usize - 1]
    }
}
