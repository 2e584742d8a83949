//! What the server says, as values.

use std::fmt;
use std::str::FromStr;

use mainstay_envelope::Timestamp;
use mainstay_event_store::{Hash, Head, Position};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::order;
use super::snapshot::Snapshot;
use super::state::{Open, Origin, Round, Seen};

/// What is recorded can't be what a sequencer recorded.
#[derive(Debug)]
pub(crate) struct Damaged(pub(crate) String);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Damaged {}

fn damaged(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(Damaged(format!("the sequencer's memory is damaged: {what}"))))
}

/// A stored number; they are never negative.
fn number(stored: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(stored).map_err(|_| damaged(&format!("the number {stored}")))
}

/// A number as a signed column holds it. None of them comes near its end.
pub(crate) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn parsed<T: FromStr>(row: &PgRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| damaged(&format!("{column} {text:?}")))
}

fn snapshot(text: &str) -> Result<Snapshot, sqlx::Error> {
    text.parse().map_err(|bad: super::snapshot::BadSnapshot| damaged(&format!("the snapshot {:?}", bad.0)))
}

fn millis(row: &PgRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    parsed::<i64>(row, column).map(Timestamp::from_millis)
}

/// What a round's first statement reads; none on a server that only follows another one.
pub(crate) fn seen(row: &PgRow, origin: &Origin) -> Result<Option<Seen>, sqlx::Error> {
    let Some(now) = row.try_get::<Option<String>, _>("snapshot")? else { return Ok(None) };
    let target: Option<String> = row.try_get("target")?;
    let open = match target {
        Some(target) => Some(Open {
            target: snapshot(&target)?,
            restored: parsed(row, "restored")?,
            done: parsed(row, "done")?,
        }),
        None => None,
    };
    let last = Round {
        number: parsed(row, "number")?,
        epoch: parsed(row, "epoch")?,
        holder: row.try_get("holder")?,
        until: millis(row, "until")?,
        at: millis(row, "at")?,
        head: Head { position: Position(parsed(row, "position")?), hash: parsed::<Hash>(row, "hash")? },
        outbox: parsed(row, "outbox")?,
        settled: snapshot(&row.try_get::<String, _>("settled")?)?,
        open,
        origin: Origin::parse(&row.try_get::<String, _>("origin")?),
    };
    Ok(Some(Seen { now: millis(row, "now")?, snapshot: snapshot(&now)?, origin: origin.clone(), last }))
}

/// Rows of both kinds, and the keys of the events.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) events: Vec<order::Event>,
    pub(crate) rows: Vec<order::Row>,
    /// By `seq`.
    pub(crate) keys: Vec<(u64, Vec<i64>)>,
}

impl Found {
    pub(crate) fn read(rows: &[PgRow]) -> Result<Self, sqlx::Error> {
        let mut found = Self::default();
        for row in rows {
            let (seq, xid) = (number(row.try_get("seq")?)?, number(row.try_get("xid")?)?);
            match row.try_get::<Option<i16>, _>("slot")? {
                Some(slot) => found.rows.push(order::Row { seq, xid, slot }),
                None => {
                    let content: &[u8] = row.try_get("content")?;
                    let content = content.try_into().map_err(|_| damaged("the hash of a content"))?;
                    let version = number(row.try_get("version")?)?;
                    found.events.push(order::Event { seq, xid, version, content: Hash(content) });
                    found.keys.push((seq, row.try_get("keys")?));
                }
            }
        }
        // The server sorts each kind, where it was asked to; not one after the other.
        found.events.sort_unstable_by_key(|event| event.seq);
        found.rows.sort_unstable_by_key(|row| row.seq);
        found.keys.sort_unstable_by_key(|(seq, _)| *seq);
        Ok(found)
    }

    /// Forgets what lies behind a `seq`.
    pub(crate) fn cut(&mut self, cut: u64) {
        self.events.retain(|event| event.seq <= cut);
        self.rows.retain(|row| row.seq <= cut);
        self.keys.retain(|(seq, _)| *seq <= cut);
    }

    /// The transactions of these rows, each once.
    pub(crate) fn xids(&self) -> Vec<i64> {
        let mut xids: Vec<i64> = self
            .events
            .iter()
            .map(|event| event.xid)
            .chain(self.rows.iter().map(|row| row.xid))
            .map(stored)
            .collect();
        xids.sort_unstable();
        xids.dedup();
        xids
    }
}

/// The last rows of transactions.
pub(crate) fn ends(rows: &[PgRow]) -> Result<Vec<order::Ends>, sqlx::Error> {
    let seq = |row: &PgRow, column: &str| row.try_get::<Option<i64>, _>(column)?.map(number).transpose();
    rows.iter()
        .map(|row| {
            Ok(order::Ends {
                xid: number(row.try_get("xid")?)?,
                event: seq(row, "event")?,
                row: seq(row, "row")?,
            })
        })
        .collect()
}
