//! The statement of a batch: what goes to the server, and what its answer means for each act.

use std::collections::HashMap;

use mainstay_event_store::{Expected, Position, Refusal, StoreId, StreamName, Version};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row};

use super::batch::Prepared;
use crate::conditions;
use crate::error::damaged;
use crate::keys::Locks;
use crate::receipt::Mark;
use crate::schema::Schema;

/// What the server says of one act.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It is written.
    Written {
        /// The last version of each of its streams.
        versions: Vec<(StreamName, Version)>,
        mark: Mark,
    },
    /// At least one of its ids is recorded already.
    Known,
    /// Nothing of it is written.
    Refused(Refusal),
}

/// How a transaction wants its acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A transaction of its own, of acts that can't be refused ([`Prepared::is_free`]): an id that is recorded is an
    /// error.
    Free,
    /// A transaction of its own: an id that somebody records at this very moment is an error.
    Alone,
    /// Inside one that must stay usable: it is no error, and [`Answer::again`] is set.
    Inside,
}

/// The answer to a batch.
#[derive(Debug)]
pub(crate) struct Answer {
    /// For each act, in order; empty when `again` is set.
    pub(crate) verdicts: Vec<Verdict>,
    /// An id was recorded at this very moment: nothing is written, ask again with a new snapshot.
    pub(crate) again: bool,
}

const FREE: &str =
    "select bases, seqs, xid from {s}.append_free($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
    $14, $15)";
const ALONE: &str = "select bases, known, failed_act, failed_cond, failed_at, ends, seqs, xid, false as again
    from {s}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21::text[]::jsonb[], $22)";
const INSIDE: &str = "select bases, known, failed_act, failed_cond, failed_at, ends, seqs, xid, again
    from {s}.append_inside($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21::text[]::jsonb[], $22)";

/// Sends a batch; everything is in one statement.
pub(crate) async fn send(
    conn: &mut PgConnection,
    schema: &Schema,
    store: StoreId,
    acts: &[Prepared],
    locks: &Locks,
    form: Form,
    persistent: bool,
) -> sqlx::Result<Answer> {
    let mut names: Vec<&str> =
        acts.iter().flat_map(|act| &act.parts).map(|part| part.stream.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let nth: HashMap<&str, i32> = names.iter().copied().zip(1..).collect();
    let stream = |name: &StreamName| nth.get(name.as_str()).copied().unwrap_or(0);

    let mut parts = (Vec::new(), Vec::new(), Vec::new());
    let count = acts.iter().flat_map(|act| &act.parts).map(|part| part.events.len()).sum();
    let mut events = Columns::with_capacity(count);
    let mut conditions = (Vec::new(), Vec::new(), Vec::new());
    let mut counted: HashMap<i32, i32> = HashMap::new();
    for (i, act) in (0_i32..).zip(acts) {
        for part in &act.parts {
            let stream = stream(&part.stream);
            parts.0.push(i);
            parts.1.push(stream);
            parts.2.push(stored_expectation(part.expected));
            for (event, extra) in part.events.iter().zip(&part.extras) {
                let nth = counted.entry(stream).or_default();
                *nth += 1;
                events.act.push(i);
                events.stream.push(stream);
                events.nth.push(*nth);
                events.id.push(event.id);
                events.kind.push(event.event_type.as_str());
                events.shape.push(i64::from(event.schema));
                events.at.push(act.origin.at.as_millis());
                events.envelope.push(&act.origin.envelope);
                events.tags.push(extra.tags.as_str());
                events.key.push(event.payload.key.as_ref().map(|key| key.as_str()));
                events.payload.push(&event.payload.bytes);
                events.content.push(&extra.content.0);
                events.keys.push(array_text(&extra.keys));
            }
        }
        for condition in &act.conditions {
            conditions.0.push(i);
            conditions.1.push(conditions::items(&condition.query).unwrap_or_else(|| "null".to_owned()));
            conditions.2.push(i64::try_from(condition.after.0).unwrap_or(i64::MAX));
        }
    }
    let (locks, alone) = locks.for_server(store);
    let careful = match form {
        Form::Free => {
            let counts: Vec<i32> =
                (1..=names.len() as i32).map(|nth| counted.get(&nth).copied().unwrap_or(0)).collect();
            let query = sqlx::query(schema.sql(FREE)).bind(locks).bind(names.as_slice()).bind(counts);
            let row = events.bind(query).persistent(persistent).fetch_one(conn).await?;
            return Ok(Answer { verdicts: judge(acts, &Raw::free(&row)?, stream)?, again: false });
        }
        Form::Alone => ALONE,
        Form::Inside => INSIDE,
    };
    let query = sqlx::query(schema.sql(careful))
        .bind(locks)
        .bind(alone)
        .bind(names.as_slice())
        .bind(parts.0)
        .bind(parts.1)
        .bind(parts.2)
        .bind(std::mem::take(&mut events.act));
    let row = events
        .bind(query)
        .bind(conditions.0)
        .bind(conditions.1)
        .bind(conditions.2)
        .persistent(persistent)
        .fetch_one(conn)
        .await?;
    let again = row.try_get("again")?;
    let verdicts = if again { Vec::new() } else { judge(acts, &Raw::of(&row)?, stream)? };
    Ok(Answer { verdicts, again })
}

/// The events of a batch, column by column.
struct Columns<'a> {
    act: Vec<i32>,
    stream: Vec<i32>,
    nth: Vec<i32>,
    id: Vec<uuid::Uuid>,
    kind: Vec<&'a str>,
    shape: Vec<i64>,
    at: Vec<i64>,
    envelope: Vec<&'a [u8]>,
    tags: Vec<&'a str>,
    key: Vec<Option<&'a str>>,
    payload: Vec<&'a [u8]>,
    content: Vec<&'a [u8]>,
    keys: Vec<String>,
}

impl Columns<'_> {
    fn with_capacity(count: usize) -> Self {
        Self {
            act: Vec::with_capacity(count),
            stream: Vec::with_capacity(count),
            nth: Vec::with_capacity(count),
            id: Vec::with_capacity(count),
            kind: Vec::with_capacity(count),
            shape: Vec::with_capacity(count),
            at: Vec::with_capacity(count),
            envelope: Vec::with_capacity(count),
            tags: Vec::with_capacity(count),
            key: Vec::with_capacity(count),
            payload: Vec::with_capacity(count),
            content: Vec::with_capacity(count),
            keys: Vec::with_capacity(count),
        }
    }

    /// Binds them in the order in which both functions take them. The acts come before, where they are asked for.
    fn bind<'q>(self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query
            .bind(self.stream)
            .bind(self.nth)
            .bind(self.id)
            .bind(self.kind)
            .bind(self.shape)
            .bind(self.at)
            .bind(self.envelope)
            .bind(self.tags)
            .bind(self.key)
            .bind(self.payload)
            .bind(self.content)
            .bind(self.keys)
    }
}

/// An array as the server reads it from text: arrays of arrays of different lengths are none of its types.
fn array_text(keys: &[i64]) -> String {
    let mut text = String::with_capacity(2 + 21 * keys.len());
    text.push('{');
    for (i, key) in keys.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&key.to_string());
    }
    text.push('}');
    text
}

/// As functions.sql reads it. A version that no column can hold is one that no stream has.
fn stored_expectation(expected: Expected) -> i64 {
    match expected {
        Expected::Any => -1,
        Expected::Exists => -2,
        Expected::Empty => 0,
        Expected::Exactly(version) => i64::try_from(version.0).unwrap_or(-3),
    }
}

/// What the server answered.
#[derive(Debug, Default)]
struct Raw {
    bases: Vec<i64>,
    known: Vec<i32>,
    failed: HashMap<i32, (i32, Option<i64>)>,
    ends: i64,
    seqs: Vec<i64>,
    xid: u64,
}

impl Raw {
    fn free(row: &PgRow) -> sqlx::Result<Self> {
        let xid: &str = row.try_get("xid")?;
        Ok(Self {
            bases: row.try_get("bases")?,
            seqs: row.try_get::<Option<_>, _>("seqs")?.unwrap_or_default(),
            xid: xid.parse().map_err(|_| damaged("a transaction's id"))?,
            ..Self::default()
        })
    }

    fn of(row: &PgRow) -> sqlx::Result<Self> {
        let acts: Option<Vec<i32>> = row.try_get("failed_act")?;
        let conditions: Option<Vec<i32>> = row.try_get("failed_cond")?;
        let at: Option<Vec<Option<i64>>> = row.try_get("failed_at")?;
        let failed = acts.unwrap_or_default().into_iter();
        let failed = failed.zip(conditions.unwrap_or_default().into_iter().zip(at.unwrap_or_default()));
        let xid: String = row.try_get("xid")?;
        Ok(Self {
            bases: row.try_get("bases")?,
            known: row.try_get::<Option<_>, _>("known")?.unwrap_or_default(),
            failed: failed.collect(),
            ends: row.try_get::<Option<_>, _>("ends")?.unwrap_or_default(),
            seqs: row.try_get::<Option<_>, _>("seqs")?.unwrap_or_default(),
            xid: xid.parse().map_err(|_| damaged("a transaction's id"))?,
        })
    }
}

fn judge(acts: &[Prepared], raw: &Raw, stream: impl Fn(&StreamName) -> i32) -> sqlx::Result<Vec<Verdict>> {
    let mut versions: HashMap<i32, u64> = HashMap::new();
    for (nth, base) in (1..).zip(&raw.bases) {
        versions.insert(nth, u64::try_from(*base).map_err(|_| damaged("a stream's version"))?);
    }
    let base = |name: &StreamName| versions.get(&stream(name)).copied().unwrap_or_default();
    let mut grown = versions.clone();
    let mut seqs = raw.seqs.iter();
    let mut verdicts = Vec::with_capacity(acts.len());
    // In all, the condition's number counts through the batch.
    let mut first_condition = 0;
    for (i, act) in (0_i32..).zip(acts) {
        let conditions_before = first_condition;
        first_condition += act.conditions.len();
        let conflict = act.parts.iter().find(|part| !part.expected.allows(Version(base(&part.stream))));
        if raw.known.contains(&i) {
            verdicts.push(Verdict::Known);
        } else if let Some(part) = conflict {
            let (stream, expected) = (part.stream.clone(), part.expected);
            let actual = Version(base(&part.stream));
            verdicts.push(Verdict::Refused(Refusal::Conflict { stream, expected, actual }));
        } else if let Some((nth, at)) = raw.failed.get(&i) {
            let index = (*nth as usize).saturating_sub(1 + conditions_before);
            let condition = act.conditions.get(index).ok_or_else(|| damaged("a condition's number"))?;
            verdicts.push(Verdict::Refused(conditions::refusal(condition, index, *at, raw.ends)));
        } else {
            let mut told = Vec::with_capacity(act.parts.len());
            let mut mark = Mark::Xid(raw.xid);
            for part in &act.parts {
                let version = grown.entry(stream(&part.stream)).or_default();
                *version += part.events.len() as u64;
                told.push((part.stream.clone(), Version(*version)));
                for _ in &part.events {
                    let seq = seqs.next().ok_or_else(|| damaged("the number of inserted events"))?;
                    mark = mark.later(Mark::Seq(u64::try_from(*seq).unwrap_or_default()));
                }
            }
            verdicts.push(Verdict::Written { versions: told, mark });
        }
    }
    if seqs.next().is_some() {
        return Err(damaged("the number of inserted events"));
    }
    Ok(verdicts)
}

/// Where a stored number is a position.
pub(crate) fn position(stored: i64) -> sqlx::Result<Position> {
    u64::try_from(stored).map(Position).map_err(|_| damaged("a position"))
}
