//! Acts derived from a seed and a number: whoever knows the two can say, repeat and recognise the act.

use mainstay_envelope::{ContentHash, Context, MessageIdentity, Producer};
use mainstay_event_store::{
    Abort, Act, AppendError, ConsumerName, EventType, Expected, Mark, NewEvent, OutboxRow, Payload, Receipt,
    Refusal, Retry, Row, Store, StreamName, Tag, Topic, TransactError, Tx, Version, ViewName,
};
use mainstay_postgres::{Postgres, Transaction};
use uuid::Uuid;

use crate::Failure;

/// Streams that everybody appends to.
const SHARED: u64 = 8;

/// Rows that effects count in.
pub(crate) const COUNTERS: u64 = 4;

/// A writer's acts are numbered from its own number times this.
pub(crate) const A_WRITER: u64 = 1_000_000_000;

/// Seeded chance (SplitMix64: Steele, Lea, Flood, 2014).
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        let mut draw = Self(seed);
        Self(draw.next() ^ number.wrapping_mul(0xd129_0d3b_5d2a_4c35))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// What an act is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One event at the expected version of the writer's own stream.
    Next,
    /// Events on a shared stream, whatever its version.
    Any,
    /// Events on two shared streams.
    Several,
    /// A message is handled: its mark, an event, a message of its own and a count commit together.
    Effect,
}

/// An act.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    /// What it appends, by stream, in order.
    pub(crate) parts: Vec<(StreamName, Vec<NewEvent>)>,
}

/// Was it handled before, and where its events stand.
type Handled = (bool, Vec<(StreamName, Version)>);

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged {
        again: bool,
        receipt: Receipt,
        versions: Vec<(StreamName, Version)>,
    },
    /// Nothing was written, and it may be tried again.
    Passing(String),
    /// The writer's own stream stands elsewhere.
    Conflict(Version),
    /// Nothing was written, and trying again would not help.
    Failed(String),
    Unknown(String),
}

impl Plan {
    pub(crate) fn new(seed: u64, number: u64) -> Result<Self, Failure> {
        let mut draw = Draw::of(seed, number);
        let kind = match draw.below(10) {
            0..=3 => Kind::Any,
            4..=5 => Kind::Next,
            6..=7 => Kind::Several,
            _ => Kind::Effect,
        };
        let first = draw.below(SHARED);
        let shared = |i: u64| format!("shared-{}", (first + i) % SHARED);
        let streams: Vec<(String, u64)> = match kind {
            Kind::Any => vec![(shared(0), 1 + draw.below(3))],
            Kind::Next => vec![(own(number), 1)],
            Kind::Several => vec![(shared(0), 1 + draw.below(2)), (shared(1), 1)],
            Kind::Effect => vec![(format!("effects-{}", counter(number)), 1)],
        };
        let (mut parts, mut ordinal) = (Vec::new(), 0_u64);
        for (name, count) in streams {
            let mut events = Vec::new();
            for _ in 0..count {
                let text = format!("{number} {ordinal} {}", "x".repeat(20 + draw.below(300) as usize));
                let (high, low) = (draw.next(), draw.next());
                let bytes = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
                let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
                let event = NewEvent::new(
                    id,
                    EventType::new(format!("{kind:?}"))?,
                    Payload::plain(text.into_bytes()),
                );
                events.push(event.tagged(Tag::new(format!("part:{}", number % 16))?));
                ordinal += 1;
            }
            parts.push((StreamName::new(name)?, events));
        }
        Ok(Self { number, kind, parts })
    }

    /// All its events with their streams, in order.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&StreamName, &NewEvent)> {
        self.parts.iter().flat_map(|(stream, events)| events.iter().map(move |event| (stream, event)))
    }

    /// Hands it to the store. `basis`: the version that [`Kind::Next`] expects, or the message's number of [`Kind::Effect`].
    pub(crate) async fn submit(&self, store: &Postgres, cx: &Context, basis: u64) -> Outcome {
        if self.kind == Kind::Effect {
            return self.handle(store, cx, basis).await;
        }
        let expected =
            if self.kind == Kind::Next { Expected::Exactly(Version(basis)) } else { Expected::Any };
        let mut act = Act::default();
        for (stream, events) in &self.parts {
            act = act.and(stream.clone(), expected, events.clone());
        }
        match store.append(cx, act).await {
            Ok(done) => {
                Outcome::Acknowledged { again: done.repeated, receipt: done.receipt, versions: done.versions }
            }
            Err(error) => failed(error),
        }
    }

    async fn handle(&self, store: &Postgres, cx: &Context, message: u64) -> Outcome {
        let plan = self.clone();
        let identity = match identity(self.number, message) {
            Ok(identity) => identity,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let done = store.transact(cx, move |tx: &Transaction| plan.inside(tx, &identity)).await;
        match done {
            Ok(done) => {
                let (again, versions) = done.value;
                Outcome::Acknowledged { again, receipt: done.receipt, versions }
            }
            Err(TransactError::User(why)) => Outcome::Failed(why),
            Err(TransactError::Store(error)) => failed(error),
        }
    }

    fn inside(&self, tx: &Transaction, message: &MessageIdentity) -> Result<Handled, Abort<String>> {
        match tx.inbox_mark(&consumer()?, message)? {
            Mark::First => {}
            Mark::Repeated => return Ok((true, Vec::new())),
            Mark::Altered => return Err(Abort::User("the message is another one".into())),
        }
        let mut versions = Vec::new();
        for (stream, events) in &self.parts {
            versions.push((stream.clone(), tx.append(stream, Expected::Any, events)?));
        }
        let (view, key) = (view()?, counter(self.number).to_string());
        let count = tx.view_get(&view, &key)?.as_deref().and_then(number).unwrap_or(0);
        tx.view_put(&view, &Row::new(key.clone(), (count + 1).to_string()))?;
        tx.outbox(&OutboxRow {
            topic: Topic::new("handled").map_err(Refusal::from)?,
            key,
            headers: Vec::new(),
            payload: self.number.to_string().into_bytes(),
        })?;
        Ok((false, versions))
    }
}

fn failed(error: AppendError) -> Outcome {
    match error {
        AppendError::Unknown { why } => Outcome::Unknown(why),
        AppendError::Refused(Refusal::Conflict { actual, .. }) => Outcome::Conflict(actual),
        AppendError::Refused(refusal) if refusal.retry() == Retry::Later => {
            Outcome::Passing(refusal.to_string())
        }
        AppendError::Refused(refusal) => Outcome::Failed(refusal.to_string()),
    }
}

/// The stream of the writer to whom an act belongs.
pub(crate) fn own(number: u64) -> String {
    format!("own-{}", number / A_WRITER)
}

/// In which row the effect of an act is counted.
pub(crate) fn counter(number: u64) -> u64 {
    number % COUNTERS
}

/// Whose effects they are.
pub(crate) fn consumer() -> Result<ConsumerName, Refusal> {
    Ok(ConsumerName::new("desk")?)
}

/// Where they are counted.
pub(crate) fn view() -> Result<ViewName, Refusal> {
    Ok(ViewName::new("counts")?)
}

/// The message that an act handles: each writer is a sequence of its own.
pub(crate) fn identity(number: u64, message: u64) -> Result<MessageIdentity, Failure> {
    Ok(MessageIdentity {
        producer: Producer::new("driver")?,
        epoch: 1,
        partition: u32::try_from(number / A_WRITER)?,
        seq: message,
        content: ContentHash::of(number.to_string().as_bytes()),
    })
}

/// A number in text.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The act's number and the event's ordinal in it, as its payload says.
pub(crate) fn origin(payload: &[u8]) -> Option<(u64, u64)> {
    let mut words = std::str::from_utf8(payload).ok()?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// The ids of a plan.
pub(crate) fn ids(plan: &Plan) -> impl Iterator<Item = Uuid> + '_ {
    plan.events().map(|(_, event)| event.id)
}
