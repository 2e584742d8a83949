//! The rows of what is parked, in the consumer's own store.
//!
//! ```text
//! mainstay.dead-letters           <key>-<number>   a message, without its data     index mark: lane, producer, mark
//! mainstay.dead-letters.data      <key>-<number>   its data
//! mainstay.dead-letters.keys      <key>            a parked key and its status     index lane, index due
//! mainstay.dead-letters.lanes     <lane>           that it has begun, its last message, how many are parked
//! mainstay.dead-letters.requests  <key>-<number>   what an operator asks for       index lane
//! ```
//! The number counts the messages that were ever parked of a lane, so it orders them by when they came here. Their
//! offsets would not: a log that is made anew gives the same ones to other messages.

use bytes::Bytes;
use mainstay_envelope::{CloudEvent, MessageIdentity, Timestamp};
use mainstay_event_store::{
    BadName, IndexValue, ReadError, Refusal, Row, Scan, ScanBy, Store, Tx, ViewName, prefix_end,
};
use mainstay_messaging::{Delivered, Message, Offset, Topic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::state::Status;
use crate::inbox::lane::Lane;

const LANE: &str = "lane";
const DUE: &str = "due";
const MARK: &str = "mark";

/// The names of the views.
#[derive(Debug, Clone)]
pub(in crate::inbox) struct Views {
    pub(in crate::inbox) letters: ViewName,
    pub(in crate::inbox) data: ViewName,
    pub(in crate::inbox) keys: ViewName,
    pub(super) lanes: ViewName,
    pub(super) requests: ViewName,
}

impl Views {
    pub(in crate::inbox) fn new() -> Result<Self, BadName> {
        let view = |rest: &str| ViewName::new(format!("mainstay.dead-letters{rest}"));
        Ok(Self {
            letters: view("")?,
            data: view(".data")?,
            keys: view(".keys")?,
            lanes: view(".lanes")?,
            requests: view(".requests")?,
        })
    }
}

/// The message that was handled last: it tells whether the log is still the one that was followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::inbox) struct Last {
    pub(in crate::inbox) offset: u64,
    pub(in crate::inbox) identity: MessageIdentity,
}

impl Last {
    pub(in crate::inbox) fn of(delivered: &Delivered) -> Self {
        Self { offset: delivered.offset.0, identity: delivered.message.identity.clone() }
    }
}

/// One lane: written with each batch, in its transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::inbox) struct LaneRow {
    /// The log was read once; if nothing is handled, it is not because nobody was here.
    pub(in crate::inbox) begun: bool,
    /// The last message at or before the checkpoint, if there was one.
    pub(in crate::inbox) last: Option<Last>,
    /// Messages that were ever parked: the number of the latest.
    pub(in crate::inbox) letters: u64,
    /// Raised whenever the set of parked keys changes.
    pub(in crate::inbox) generation: u64,
    /// Messages that are parked.
    pub(in crate::inbox) messages: u64,
}

/// A parked key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::inbox) struct KeyRow {
    pub(in crate::inbox) group: String,
    pub(in crate::inbox) topic: String,
    pub(in crate::inbox) partition: u32,
    pub(in crate::inbox) key: String,
    pub(in crate::inbox) status: Status,
    /// Why its head could not be handled.
    pub(in crate::inbox) why: String,
    /// The number of its first message.
    pub(in crate::inbox) head: u64,
    /// And where that stood in the log.
    pub(in crate::inbox) head_offset: u64,
    pub(in crate::inbox) messages: u64,
    pub(in crate::inbox) since: Timestamp,
}

/// A parked message, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::inbox) struct Letter {
    pub(in crate::inbox) group: String,
    pub(in crate::inbox) topic: String,
    pub(in crate::inbox) partition: u32,
    /// Which one of its lane's: the order in which they were parked.
    pub(in crate::inbox) number: u64,
    /// Where it stood in the log: data.
    pub(in crate::inbox) offset: u64,
    pub(in crate::inbox) key: String,
    pub(in crate::inbox) published: Timestamp,
    pub(in crate::inbox) parked: Timestamp,
    pub(in crate::inbox) mark: u64,
    pub(in crate::inbox) identity: MessageIdentity,
    /// Its number came with another content before: it is never handled unless an operator says so.
    pub(in crate::inbox) altered: bool,
    /// Its attributes: a CloudEvent in JSON, without data.
    pub(in crate::inbox) event: Box<RawValue>,
}

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::inbox) enum Asked {
    /// Try its key again now.
    Retry,
    /// Never handle this message.
    Discard,
}

/// The row key of a letter. Sorts by number within its key.
pub(in crate::inbox) fn letter_key(key: &str, number: u64) -> String {
    format!("{key}-{number:020}")
}

fn damaged(view: &ViewName, key: &str, why: &dyn std::fmt::Display) -> Refusal {
    Refusal::Invalid { what: "parked message", why: format!("row {key} of {view} can't be read: {why}") }
}

fn encode<T: Serialize>(what: &T) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(what)
        .map_err(|error| Refusal::Invalid { what: "parked message", why: error.to_string() })
}

pub(in crate::inbox) fn decode<T: DeserializeOwned>(
    view: &ViewName,
    key: &str,
    bytes: &[u8],
) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| damaged(view, key, &error))
}

impl Letter {
    pub(in crate::inbox) fn new(
        lane: &Lane,
        number: u64,
        delivered: &Delivered,
        parked: Timestamp,
        altered: bool,
    ) -> Result<Self, Refusal> {
        let message = &delivered.message;
        let event = String::from_utf8_lossy(&message.event.to_json(None)).into_owned();
        let event = RawValue::from_string(event)
            .map_err(|error| Refusal::Invalid { what: "parked message", why: error.to_string() })?;
        Ok(Self {
            group: lane.group.clone(),
            topic: lane.topic.clone(),
            partition: lane.partition,
            number,
            offset: delivered.offset.0,
            key: message.key.clone(),
            published: delivered.published,
            parked,
            mark: message.mark,
            identity: message.identity.clone(),
            altered,
            event,
        })
    }

    /// The message's attributes.
    pub(in crate::inbox) fn event(&self) -> Result<CloudEvent, Refusal> {
        let (event, _) = CloudEvent::from_json(self.event.get().as_bytes())
            .map_err(|error| Refusal::Invalid { what: "parked message", why: error.to_string() })?;
        Ok(event)
    }

    /// The message as it came.
    pub(in crate::inbox) fn delivered(self, data: Bytes) -> Result<Delivered, Refusal> {
        let event = self.event()?;
        let topic = Topic::new(&self.topic)
            .map_err(|bad| Refusal::Invalid { what: "parked message", why: bad.to_string() })?;
        Ok(Delivered {
            offset: Offset(self.offset),
            partition: self.partition,
            published: self.published,
            message: Message { identity: self.identity, topic, key: self.key, event, data, mark: self.mark },
        })
    }
}

/// The rows inside a transaction.
pub(in crate::inbox) struct Rows<'a, T> {
    pub(in crate::inbox) tx: &'a T,
    pub(in crate::inbox) views: &'a Views,
    pub(in crate::inbox) lane: &'a Lane,
}

impl<T: Tx> Rows<'_, T> {
    pub(in crate::inbox) fn lane(&self) -> Result<LaneRow, Refusal> {
        let bytes = self.tx.view_get(&self.views.lanes, &self.lane.id)?;
        bytes.map_or(Ok(LaneRow::default()), |bytes| decode(&self.views.lanes, &self.lane.id, &bytes))
    }

    pub(in crate::inbox) fn put_lane(&self, row: &LaneRow) -> Result<(), Refusal> {
        self.tx.view_put(&self.views.lanes, &Row::new(&self.lane.id, encode(row)?))
    }

    pub(in crate::inbox) fn key(&self, key: &str) -> Result<Option<KeyRow>, Refusal> {
        let bytes = self.tx.view_get(&self.views.keys, key)?;
        bytes.map(|bytes| decode(&self.views.keys, key, &bytes)).transpose()
    }

    pub(in crate::inbox) fn put_key(&self, key: &str, row: &KeyRow) -> Result<(), Refusal> {
        let mut stored = Row::new(key, encode(row)?).indexed(LANE, IndexValue::Text(self.lane.id.clone()));
        if let Status::Waiting { again_at, .. } = row.status {
            stored = stored.indexed(DUE, due(self.lane, again_at));
        }
        self.tx.view_put(&self.views.keys, &stored)
    }

    pub(in crate::inbox) fn delete_key(&self, key: &str) -> Result<(), Refusal> {
        self.tx.view_delete(&self.views.keys, key).map(drop)
    }

    pub(in crate::inbox) fn put_letter(
        &self,
        key: &str,
        letter: &Letter,
        data: Option<&Bytes>,
    ) -> Result<(), Refusal> {
        let row_key = letter_key(key, letter.number);
        let mark = IndexValue::Text(format!(
            "{}{}/{:020}",
            self.lane.id,
            producer(letter.identity.producer.as_str()),
            letter.mark
        ));
        self.tx.view_put(&self.views.letters, &Row::new(&row_key, encode(letter)?).indexed(MARK, mark))?;
        match data {
            Some(data) => self.tx.view_put(&self.views.data, &Row::new(row_key, data.to_vec())),
            None => Ok(()),
        }
    }

    pub(in crate::inbox) fn delete_letter(&self, key: &str, number: u64) -> Result<bool, Refusal> {
        let row_key = letter_key(key, number);
        self.tx.view_delete(&self.views.data, &row_key)?;
        self.tx.view_delete(&self.views.letters, &row_key)
    }

    pub(in crate::inbox) fn letter(&self, key: &str, number: u64) -> Result<Option<Letter>, Refusal> {
        let row_key = letter_key(key, number);
        let bytes = self.tx.view_get(&self.views.letters, &row_key)?;
        bytes.map(|bytes| decode(&self.views.letters, &row_key, &bytes)).transpose()
    }

    /// A key's first letters, in order.
    pub(in crate::inbox) fn letters(&self, key: &str, max: usize) -> Result<Vec<Letter>, Refusal> {
        let by = ScanBy::Key { prefix: format!("{key}-") };
        let scan = Scan { view: self.views.letters.clone(), by, after: None, rows_max: max.max(1) };
        let rows = self.tx.view_scan(&scan)?;
        rows.rows.iter().map(|(key, bytes)| decode(&self.views.letters, key, bytes)).collect()
    }

    pub(in crate::inbox) fn data(&self, key: &str, number: u64) -> Result<Bytes, Refusal> {
        let row_key = letter_key(key, number);
        let data = self.tx.view_get(&self.views.data, &row_key)?;
        data.map(Bytes::from).ok_or_else(|| damaged(&self.views.data, &row_key, &"it is not there"))
    }

    pub(in crate::inbox) fn asked(&self, row_key: &str) -> Result<Option<Asked>, Refusal> {
        let bytes = self.tx.view_get(&self.views.requests, row_key)?;
        bytes.map(|bytes| decode(&self.views.requests, row_key, &bytes)).transpose()
    }

    pub(in crate::inbox) fn ask(&self, row_key: &str, asked: Asked) -> Result<(), Refusal> {
        let lane = IndexValue::Text(self.lane.id.clone());
        self.tx.view_put(&self.views.requests, &Row::new(row_key, encode(&asked)?).indexed(LANE, lane))
    }

    pub(in crate::inbox) fn answered(&self, row_key: &str) -> Result<(), Refusal> {
        self.tx.view_delete(&self.views.requests, row_key).map(drop)
    }
}

/// Sorts by time within a lane. Times before 1970 count as 1970.
fn due(lane: &Lane, at: Timestamp) -> IndexValue {
    IndexValue::Text(format!("{}{:020}", lane.id, at.as_millis().max(0)))
}

/// Producers may have long names, and an index value has 512 bytes: told apart by 32 digits of a hash.
fn producer(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex()[..32].to_owned()
}

/// What is read of the rows outside a transaction.
pub(in crate::inbox) struct Look<'a, S> {
    pub(in crate::inbox) store: &'a S,
    pub(in crate::inbox) views: &'a Views,
    pub(in crate::inbox) lane: &'a Lane,
}

impl<S: Store> Look<'_, S> {
    pub(in crate::inbox) async fn lane(&self) -> Result<LaneRow, ReadError> {
        let bytes = self.store.view_get(&self.views.lanes, &self.lane.id).await?;
        Ok(bytes.map_or(Ok(LaneRow::default()), |bytes| decode(&self.views.lanes, &self.lane.id, &bytes))?)
    }

    /// The names of all parked keys.
    pub(in crate::inbox) async fn keys(&self) -> Result<Vec<String>, ReadError> {
        let mut keys = Vec::new();
        let mut scan =
            Scan::equal(self.views.keys.clone(), LANE, IndexValue::Text(self.lane.id.clone()), 1_000);
        loop {
            let rows = self.store.view_scan(&scan).await?;
            keys.extend(rows.rows.into_iter().map(|(key, _)| key));
            match rows.next {
                Some(next) => scan = scan.after(next),
                None => return Ok(keys),
            }
        }
    }

    /// The key that is tried next, and when.
    pub(in crate::inbox) async fn next_due(&self) -> Result<Option<(String, KeyRow)>, ReadError> {
        let to = IndexValue::Text(format!("{}{:020}", self.lane.id, i64::MAX));
        let by = ScanBy::Index { index: DUE, from: due(self.lane, Timestamp::from_millis(0)), to };
        let scan = Scan { view: self.views.keys.clone(), by, after: None, rows_max: 1 };
        let rows = self.store.view_scan(&scan).await?;
        let Some((key, bytes)) = rows.rows.into_iter().next() else { return Ok(None) };
        let row = decode(&self.views.keys, &key, &bytes)?;
        Ok(Some((key, row)))
    }

    /// The letters about which an operator has asked for something.
    pub(in crate::inbox) async fn requests(&self, max: usize) -> Result<Vec<String>, ReadError> {
        let lane = IndexValue::Text(self.lane.id.clone());
        let scan = Scan::equal(self.views.requests.clone(), LANE, lane, max);
        Ok(self.store.view_scan(&scan).await?.rows.into_iter().map(|(key, _)| key).collect())
    }

    /// The least mark of a producer's parked messages.
    pub(in crate::inbox) async fn least_mark(&self, name: &str) -> Result<Option<u64>, ReadError> {
        let from = format!("{}{}/", self.lane.id, producer(name));
        let to = prefix_end(&from).unwrap_or_else(|| from.clone());
        let by = ScanBy::Index { index: MARK, from: IndexValue::Text(from), to: IndexValue::Text(to) };
        let scan = Scan { view: self.views.letters.clone(), by, after: None, rows_max: 1 };
        let rows = self.store.view_scan(&scan).await?;
        let Some((key, bytes)) = rows.rows.into_iter().next() else { return Ok(None) };
        Ok(Some(decode::<Letter>(&self.views.letters, &key, &bytes)?.mark))
    }
}
