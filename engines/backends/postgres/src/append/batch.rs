//! How acts become one statement.
//!
//! The statement judges all acts of a batch at once, each by what was there before the batch. That is right when no act
//! of a batch can matter to another one, and this is what is made sure of here:
//!
//! * no event id stands twice in a batch;
//! * acts that share a stream expect nothing of any stream and have no condition (*free* acts): their versions are
//!   counted through in the order of the batch;
//! * no event of a batch matches a condition of another act.
//!
//! What does not fit waits for the next batch. So do acts on a stream of a batch that is under way: they would only wait
//! for its lock, and everybody in their batch with them.

use std::collections::{HashMap, HashSet};

use mainstay_event_store::{Act, Author, Condition, Expected, NewEvent, Refusal, StreamName, limits};
use uuid::Uuid;

use crate::keys::{BATCH_LOCKS_MAX, Locks};
use crate::prepare::Extra;

/// An act, with everything that can be worked out without the server.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) parts: Vec<Part>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) origin: Author,
    pub(crate) locks: Locks,
    /// About how many bytes it writes.
    pub(crate) bytes: usize,
}

/// What an act does to one stream.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) stream: StreamName,
    pub(crate) expected: Expected,
    pub(crate) events: Vec<NewEvent>,
    pub(crate) extras: Vec<Extra>,
}

impl Prepared {
    /// Checks an act and works out the rest.
    pub(crate) fn new(act: Act, origin: Author) -> Result<Self, Refusal> {
        act.check()?;
        let mut parts = Vec::with_capacity(act.streams.len());
        let mut bytes = 256;
        for part in act.streams {
            let extras: Vec<Extra> =
                part.events.iter().map(|event| Extra::of(&part.stream, event, &origin)).collect();
            for (event, extra) in part.events.iter().zip(&extras) {
                bytes += event.payload.bytes.len() + origin.envelope.len() + extra.tags.as_str().len() + 256;
            }
            parts.push(Part { stream: part.stream, expected: part.expected, events: part.events, extras });
        }
        let mut locks = Locks::default();
        locks.append(parts.iter().flat_map(|part| &part.extras).flat_map(|extra| extra.keys.iter().copied()));
        for condition in &act.conditions {
            locks.require(&condition.query);
        }
        Ok(Self { parts, conditions: act.conditions, origin, locks, bytes })
    }

    /// Does it take whatever versions it finds?
    pub(crate) fn is_free(&self) -> bool {
        self.conditions.is_empty() && self.parts.iter().all(|part| part.expected == Expected::Any)
    }

    /// Its events, with what goes with them.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&NewEvent, &Extra)> {
        self.parts.iter().flat_map(|part| part.events.iter().zip(&part.extras))
    }

    fn matches(&self, condition: &Condition) -> bool {
        self.events()
            .any(|(event, extra)| condition.query.matches(event.event_type.as_str(), extra.tags.as_str()))
    }
}

/// A batch as it is put together.
#[derive(Debug)]
pub(crate) struct Builder {
    acts_max: usize,
    bytes_max: usize,
    acts: Vec<Prepared>,
    /// The streams met, and may others share them?
    streams: HashMap<StreamName, bool>,
    ids: HashSet<Uuid>,
    locks: Locks,
    events: usize,
    bytes: usize,
    conditions: bool,
}

impl Builder {
    pub(crate) fn new(acts_max: usize, bytes_max: usize) -> Self {
        Self {
            acts_max,
            bytes_max,
            acts: Vec::new(),
            streams: HashMap::new(),
            ids: HashSet::new(),
            locks: Locks::default(),
            events: 0,
            bytes: 0,
            conditions: false,
        }
    }

    /// Is there room for a small act?
    pub(crate) fn has_room(&self) -> bool {
        self.acts.len() < self.acts_max && self.bytes < self.bytes_max && self.events < limits::ACT_EVENTS_MAX
    }

    /// Is there room for this one? There is for any as the first.
    pub(crate) fn has_room_for(&self, act: &Prepared) -> bool {
        self.acts.is_empty()
            || self.has_room()
                && self.bytes + act.bytes <= self.bytes_max
                && self.events + act.events().count() <= limits::ACT_EVENTS_MAX
                && self.locks.len_with(&act.locks) <= BATCH_LOCKS_MAX
    }

    /// May this act be judged together with those that are in?
    pub(crate) fn fits(&self, act: &Prepared, busy: &HashSet<StreamName>) -> bool {
        if act.parts.iter().any(|part| busy.contains(&part.stream)) {
            return false;
        }
        if self.acts.is_empty() {
            return true;
        }
        let free = act.is_free();
        let shared = |part: &Part| self.streams.get(&part.stream).is_some_and(|others| !(free && *others));
        if !self.has_room_for(act)
            || act.parts.iter().any(shared)
            || act.events().any(|(event, _)| self.ids.contains(&event.id))
        {
            return false;
        }
        let condition_met = |act: &Prepared, by: &Prepared| act.conditions.iter().any(|c| by.matches(c));
        if (self.conditions || !act.conditions.is_empty())
            && self.acts.iter().any(|other| condition_met(other, act) || condition_met(act, other))
        {
            return false;
        }
        true
    }

    /// Takes an act that fits.
    pub(crate) fn add(&mut self, act: Prepared) {
        let free = act.is_free();
        for part in &act.parts {
            self.streams.insert(part.stream.clone(), free);
        }
        self.ids.extend(act.events().map(|(event, _)| event.id));
        self.events += act.events().count();
        self.bytes += act.bytes;
        self.conditions |= !act.conditions.is_empty();
        self.locks.merge(&act.locks);
        self.acts.push(act);
    }

    /// The acts, and the locks that they need together.
    pub(crate) fn finish(self) -> (Vec<Prepared>, Locks) {
        (self.acts, self.locks)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

    use mainstay_envelope::Context;
    use mainstay_event_store::{EventType, Payload, Position, Query, Version};

    use super::*;

    fn event(cx: &Context, kind: &str) -> NewEvent {
        NewEvent::new(cx.new_id(), EventType::new(kind).unwrap(), Payload::plain(*b"x"))
    }

    fn act(streams: &[(&str, Expected)], events: Vec<NewEvent>) -> Act {
        let mut events = Some(events);
        let mut act = Act::default();
        for (name, expected) in streams {
            act = act.and(StreamName::new(name).unwrap(), *expected, events.take().unwrap_or_default());
        }
        act
    }

    fn prepared(cx: &Context, act: Act) -> Prepared {
        Prepared::new(act, Author::of(cx).unwrap()).unwrap()
    }

    #[test]
    fn only_acts_that_can_not_matter_to_each_other_share_a_batch() {
        let cx = Context::system();
        let exactly = Expected::Exactly(Version(1));
        let shared = event(&cx, "A");
        let on = |kind: &str| Condition {
            query: Query::types([EventType::new(kind).unwrap()]),
            after: Position(0),
        };
        let one = |name: &str, expected: Expected| act(&[(name, expected)], vec![event(&cx, "A")]);
        type Case = (&'static str, Act, Act, bool);
        let cases: Vec<Case> = vec![
            ("free acts on one stream", one("s", Expected::Any), one("s", Expected::Any), true),
            ("one expects something", one("s", Expected::Any), one("s", exactly), false),
            ("the first expects something", one("s", exactly), one("s", Expected::Any), false),
            ("other streams", one("s", exactly), one("t", exactly), true),
            (
                "free on the shared stream, but not elsewhere",
                one("s", Expected::Any),
                act(&[("s", Expected::Any), ("t", exactly)], vec![event(&cx, "A")]),
                false,
            ),
            (
                "one id twice",
                act(&[("s", Expected::Any)], vec![shared.clone()]),
                act(&[("t", Expected::Any)], vec![shared]),
                false,
            ),
            (
                "a condition on the other's event",
                one("s", Expected::Any).unless(on("A")),
                one("t", Expected::Any),
                false,
            ),
            ("the other way round", one("t", Expected::Any), one("s", Expected::Any).unless(on("A")), false),
            (
                "a condition on something else",
                one("s", Expected::Any).unless(on("B")),
                one("t", Expected::Any),
                true,
            ),
            (
                "a condition on its own event",
                one("s", Expected::Any).unless(on("B")),
                one("s", Expected::Any),
                false,
            ),
        ];
        for (what, first, second, fits) in cases {
            let mut builder = Builder::new(10, 1 << 20);
            builder.add(prepared(&cx, first));
            assert_eq!(builder.fits(&prepared(&cx, second), &HashSet::new()), fits, "{what}");
        }
    }

    #[test]
    fn a_batch_is_bounded_and_takes_any_single_act() {
        let cx = Context::system();
        let small =
            |n: usize| prepared(&cx, act(&[(&format!("s{n}"), Expected::Any)], vec![event(&cx, "A")]));
        let mut builder = Builder::new(3, 1);
        assert!(builder.fits(&small(0), &HashSet::new()), "an empty one takes everything");
        builder.add(small(0));
        assert!(!builder.fits(&small(1), &HashSet::new()), "too many bytes");
        let mut builder = Builder::new(2, 1 << 20);
        builder.add(small(0));
        assert!(builder.fits(&small(1), &HashSet::new()));
        let busy = HashSet::from([StreamName::new("s1").unwrap()]);
        assert!(!builder.fits(&small(1), &busy), "its stream is in a batch that is under way");
        builder.add(small(1));
        assert!(!builder.has_room() && !builder.fits(&small(2), &HashSet::new()));
    }
}
