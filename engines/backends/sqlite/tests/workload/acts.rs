//! Acts derived from a seed and a number: whoever knows the two can say, repeat and recognise the act.

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, Act, AppendError, Condition, EventType, Expected, NewEvent, OutboxRow, Payload, Position, Query,
    Refusal, Store, StreamName, Tag, Topic, TransactError, Tx, Version,
};
use mainstay_sqlite::{Sqlite, Transaction};
use uuid::Uuid;

use super::{Draw, Failure};

/// Numbers of one block race for the same thing, when their block is a racing one.
const BLOCK: u64 = 8;

/// Streams that everybody appends to.
const SHARED: u64 = 8;

/// What an act is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One event at the expected version of the writer's own stream.
    Next,
    /// Events on a shared stream, whatever its version.
    Any,
    /// Events on several shared streams.
    Several,
    /// The first event of a stream: of a block, one act wins.
    First,
    /// An event unless one with the same tag is there: of a block, one act wins.
    Unless,
    /// A transaction with an event, a row in the user's own table and a message.
    Transaction,
    /// The same, ended by the user's own error: nothing of it may ever be seen.
    GivenUp,
}

/// An act.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    /// What it appends, by stream, in order.
    pub(crate) parts: Vec<(StreamName, Vec<NewEvent>)>,
    /// The tag that [`Kind::Unless`] is about.
    tag: Tag,
}

/// How an act ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged {
        position: u64,
        repeated: bool,
        versions: Vec<(StreamName, Version)>,
    },
    /// By its own expectation, condition or error.
    Refused(String),
    /// By a store that could not: busy, out of space, broken. Nothing was written either.
    Failed(String),
    Unknown(String),
}

impl Plan {
    /// The act of this number. Every writer of `writers` takes the numbers that leave its own remainder.
    pub(crate) fn new(seed: u64, writers: u64, number: u64) -> Result<Self, Failure> {
        let block = number / BLOCK;
        let mut draw = Draw::of(seed, number);
        let kind = match Draw::of(!seed, block).below(6) {
            0 => Kind::First,
            1 => Kind::Unless,
            _ => match draw.below(10) {
                0..=2 => Kind::Next,
                3..=4 => Kind::Any,
                5..=6 => Kind::Several,
                7..=8 => Kind::Transaction,
                _ => Kind::GivenUp,
            },
        };
        let tag = Tag::new(format!("seat:{block}"))?;
        let shared = draw.below(SHARED);
        let shared = |i: u64| format!("shared-{}", (shared + i) % SHARED);
        let streams: Vec<(String, u64)> = match kind {
            Kind::Next => vec![(format!("own-{}", number % writers), 1)],
            Kind::First => vec![(format!("race-{block}"), 1)],
            Kind::Any => vec![(shared(0), 1 + draw.below(3))],
            Kind::Several => (0..2 + draw.below(2)).map(|i| (shared(i), 1 + draw.below(2))).collect(),
            Kind::Unless | Kind::Transaction | Kind::GivenUp => vec![(shared(0), 1)],
        };
        let (mut parts, mut ordinal) = (Vec::new(), 0);
        for (name, count) in streams {
            let mut events = Vec::new();
            for _ in 0..count {
                let event_type = EventType::new(format!("{kind:?}"))?;
                let mut event = NewEvent::new(id(&mut draw), event_type, payload(number, ordinal, &mut draw));
                if kind == Kind::Unless {
                    event.tags.push(tag.clone());
                }
                events.push(event);
                ordinal += 1;
            }
            parts.push((StreamName::new(name)?, events));
        }
        Ok(Self { number, kind, parts, tag })
    }

    /// All its events with their streams, in order.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&StreamName, &NewEvent)> {
        self.parts.iter().flat_map(|(stream, events)| events.iter().map(move |event| (stream, event)))
    }

    /// The block in which at most one act may win.
    pub(crate) fn contest(&self) -> Option<u64> {
        matches!(self.kind, Kind::First | Kind::Unless).then_some(self.number / BLOCK)
    }

    /// Hands it to the store. `basis` is the version that [`Kind::Next`] expects.
    pub(crate) async fn submit(&self, store: &Sqlite, cx: &Context, basis: u64) -> Outcome {
        match self.kind {
            Kind::Transaction | Kind::GivenUp => self.transact(store, cx).await,
            _ => self.append(store, cx, basis).await,
        }
    }

    async fn append(&self, store: &Sqlite, cx: &Context, basis: u64) -> Outcome {
        let expected = match self.kind {
            Kind::Next => Expected::Exactly(Version(basis)),
            Kind::First => Expected::Empty,
            _ => Expected::Any,
        };
        let mut act = Act::default();
        for (stream, events) in &self.parts {
            act = act.and(stream.clone(), expected, events.clone());
        }
        if self.kind == Kind::Unless {
            act = act.unless(Condition { query: Query::tags([self.tag.clone()]), after: Position::START });
        }
        match store.append(cx, act).await {
            Ok(done) => Outcome::Acknowledged {
                // On SQLite a receipt's mark is the position of the act's last event.
                position: done.receipt.mark(),
                repeated: done.repeated,
                versions: done.versions,
            },
            Err(AppendError::Refused(refusal)) => refused(&refusal),
            Err(AppendError::Unknown { why }) => Outcome::Unknown(why),
        }
    }

    async fn transact(&self, store: &Sqlite, cx: &Context) -> Outcome {
        let plan = self.clone();
        let done = store.transact(cx, move |tx| plan.inside(tx)).await;
        match done {
            Ok(done) => {
                let (repeated, version) = done.value;
                let versions = self.parts.iter().map(|(stream, _)| (stream.clone(), version)).collect();
                Outcome::Acknowledged { position: done.receipt.mark(), repeated, versions }
            }
            Err(TransactError::User(why)) => Outcome::Refused(why.into()),
            Err(TransactError::Store(AppendError::Refused(refusal))) => refused(&refusal),
            Err(TransactError::Store(AppendError::Unknown { why })) => Outcome::Unknown(why),
        }
    }

    /// The closure: was it done before, and the stream's version.
    fn inside(&self, tx: &Transaction) -> Result<(bool, Version), Abort<&'static str>> {
        let number = self.number as i64;
        let known = tx
            .sql()
            .query_row("select version from audit where act = ?1", [number], |row| row.get::<_, i64>(0));
        if let Some(version) = known? {
            return Ok((true, Version(version as u64)));
        }
        let mut version = Version::EMPTY;
        for (stream, events) in &self.parts {
            version = tx.append(stream, Expected::Any, events)?;
        }
        tx.sql().execute("insert into audit(act, version) values (?1, ?2)", (number, version.0 as i64))?;
        tx.outbox(&OutboxRow {
            topic: Topic::new("audit").map_err(Refusal::from)?,
            key: String::new(),
            headers: Vec::new(),
            payload: self.number.to_string().into_bytes(),
        })?;
        match self.kind {
            Kind::GivenUp => Err(Abort::User("the user's own error")),
            _ => Ok((false, version)),
        }
    }
}

fn refused(refusal: &Refusal) -> Outcome {
    match refusal {
        Refusal::Conflict { .. } | Refusal::ConditionFailed { .. } => Outcome::Refused(refusal.to_string()),
        _ => Outcome::Failed(refusal.to_string()),
    }
}

/// Makes the user's own table, which the transactions write to.
pub(crate) async fn prepare(store: &Sqlite, cx: &Context) -> Result<(), TransactError<String>> {
    let make = |tx: &Transaction| {
        // Not unique: that a row stands twice must be seen by the check, not be prevented by the table.
        tx.sql().batch(
            "create table if not exists audit(act integer not null, version integer not null);
             create index if not exists audit_act on audit(act);",
        )?;
        Ok(())
    };
    store.transact(cx, make).await.map(drop)
}

/// The act's number and the event's ordinal in it, as its payload says.
pub(crate) fn origin(payload: &[u8]) -> Option<(u64, u64)> {
    let mut words = std::str::from_utf8(payload).ok()?.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

fn id(draw: &mut Draw) -> Uuid {
    let (high, low) = (draw.next(), draw.next());
    uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid()
}

/// Mostly some hundred bytes; one in eight spills over several pages, so that a commit takes many writes.
fn payload(number: u64, ordinal: u64, draw: &mut Draw) -> Payload {
    let filler = match draw.below(8) {
        0 => 4_000 + draw.below(40_000),
        _ => 20 + draw.below(400),
    };
    let mut text = format!("{number} {ordinal} ");
    while (text.len() as u64) < filler {
        text.push_str(&format!("{:016x}", draw.next()));
    }
    Payload::plain(text.into_bytes())
}
