//! Reading pages, ends and highest numbers, on any connection.

use bytes::Bytes;
use mainstay_envelope::{CloudEvent, ContentHash, MessageIdentity, Producer, Timestamp};
use mainstay_messaging::{Delivered, Message, Offset, Page, ReadError, Topic, limits};
use rusqlite::{Connection, OptionalExtension};

use super::schema::{OFFSET_MAX, offset_of, row_id};

/// The channel of a partition, and up to where it is gone; none if nothing was ever appended to it.
pub(super) fn channel(
    conn: &Connection,
    topic: &Topic,
    partition: u32,
) -> rusqlite::Result<Option<(i64, u64)>> {
    conn.prepare_cached(
        "select channel, pruned_to from main.mainstay_log_channels where topic = ?1 and partition = ?2",
    )?
    .query_row((topic.as_str(), partition), |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))
    .optional()
}

/// Where a channel ends: its last message, or where the last one was that is gone.
pub(super) fn channel_end(conn: &Connection, channel: i64) -> rusqlite::Result<u64> {
    let last: Option<i64> = conn
        .prepare_cached(
            "select id from main.mainstay_log_messages where id > ?1 and id <= ?2 order by id desc limit 1",
        )?
        .query_row((row_id(channel, 0), row_id(channel, OFFSET_MAX)), |row| row.get(0))
        .optional()?;
    if let Some(last) = last {
        return Ok(offset_of(last));
    }
    let pruned: i64 = conn
        .prepare_cached("select pruned_to from main.mainstay_log_channels where channel = ?1")?
        .query_row([channel], |row| row.get(0))?;
    Ok(pruned as u64)
}

pub(super) fn end(conn: &Connection, topic: &Topic, partition: u32) -> rusqlite::Result<Offset> {
    match channel(conn, topic, partition)? {
        Some((channel, _)) => channel_end(conn, channel).map(Offset),
        None => Ok(Offset::START),
    }
}

pub(super) fn newest(
    conn: &Connection,
    producer: &Producer,
    epoch: u32,
    partition: u32,
) -> rusqlite::Result<Result<Option<(u64, ContentHash)>, ReadError>> {
    let found: Option<(i64, Vec<u8>)> = conn
        .prepare_cached(
            "select number, content from main.mainstay_log_producers
             where producer = ?1 and epoch = ?2 and partition = ?3",
        )?
        .query_row((producer.as_str(), epoch, partition), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((number, content)) = found else { return Ok(Ok(None)) };
    Ok(match <[u8; 32]>::try_from(content) {
        Ok(content) => Ok(Some((number as u64, ContentHash(content)))),
        Err(_) => Err(ReadError::Damaged { why: format!("the highest number of producer {producer}") }),
    })
}

/// The next page after a place, if it is one. `end` is told even where the caller stands past it.
pub(super) fn page(
    conn: &Connection,
    topic: &Topic,
    partition: u32,
    after: Offset,
    max: usize,
) -> rusqlite::Result<Result<Page, ReadError>> {
    let nothing = |end| Page { messages: Vec::new(), next: after, end };
    let Some((channel, pruned_to)) = channel(conn, topic, partition)? else {
        return Ok(Ok(nothing(Offset::START)));
    };
    if after.0 < pruned_to {
        return Ok(Err(ReadError::Truncated { asked: after, first: Offset(pruned_to) }));
    }
    let end = Offset(channel_end(conn, channel)?);
    let max = limits::page(max);
    if after >= end || max == 0 {
        return Ok(Ok(nothing(end)));
    }
    let mut statement = conn.prepare_cached(
        "select id, producer, number, content, key, mark, published, event, data
         from main.mainstay_log_messages where id > ?1 and id <= ?2 order by id limit ?3",
    )?;
    let mut rows = statement.query((row_id(channel, after.0), row_id(channel, end.0), max as i64))?;
    let mut reader = Reader { conn, partition, topic, producers: Vec::new() };
    // One buffer for the data of the whole page: whoever keeps one message keeps its page.
    let (mut found, mut ends, mut data) = (Vec::with_capacity(max.min(256)), Vec::new(), Vec::new());
    while data.len() < limits::PAGE_BYTES_MAX
        && let Some(row) = rows.next()?
    {
        match reader.message(row)? {
            Ok(message) => found.push(message),
            Err(why) => return Ok(Err(ReadError::Damaged { why })),
        }
        data.extend_from_slice(row.get_ref(8)?.as_blob()?);
        ends.push(data.len());
    }
    let data = Bytes::from(data);
    let mut begin = 0;
    for (message, end) in found.iter_mut().zip(ends) {
        message.message.data = data.slice(begin..end);
        begin = end;
    }
    // Offsets of a channel are dense. What is missing was not pruned, so it was lost.
    let dense = (after.0 + 1..).zip(&found).all(|(expected, message)| message.offset.0 == expected);
    if !dense || found.is_empty() {
        let why = format!("messages of {topic} are missing after {after}, and retention did not take them");
        return Ok(Err(ReadError::Damaged { why }));
    }
    let next = found.last().map_or(after, |message| message.offset);
    Ok(Ok(Page { messages: found, next, end }))
}

struct Reader<'a> {
    conn: &'a Connection,
    partition: u32,
    topic: &'a Topic,
    /// The sequences met so far; mostly one.
    producers: Vec<(i64, Producer, u32, u32)>,
}

impl Reader<'_> {
    /// A message without its data.
    fn message(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<Delivered, String>> {
        let offset = Offset(offset_of(row.get(0)?));
        let sequence: i64 = row.get(1)?;
        let place = match self.producers.iter().position(|(id, ..)| *id == sequence) {
            Some(place) => place,
            None => match self.producer(sequence)? {
                Ok(producer) => {
                    self.producers.push(producer);
                    self.producers.len() - 1
                }
                Err(why) => return Ok(Err(format!("message {offset}: {why}"))),
            },
        };
        let (_, producer, epoch, partition) = &self.producers[place];
        let content = row.get_ref(3)?.as_blob()?;
        let Ok(content) = <[u8; 32]>::try_from(content) else {
            return Ok(Err(format!("the content hash of message {offset} has {} bytes", content.len())));
        };
        let event = match CloudEvent::from_json(row.get_ref(7)?.as_str()?.as_bytes()) {
            Ok((event, _)) => event,
            Err(error) => return Ok(Err(format!("message {offset}: {error}"))),
        };
        let identity = MessageIdentity {
            producer: producer.clone(),
            epoch: *epoch,
            partition: *partition,
            seq: row.get::<_, i64>(2)? as u64,
            content: ContentHash(content),
        };
        let message = Message {
            identity,
            topic: self.topic.clone(),
            key: row.get(4)?,
            event,
            data: Bytes::new(),
            mark: row.get::<_, i64>(5)? as u64,
        };
        let published = Timestamp::from_millis(row.get(6)?);
        Ok(Ok(Delivered { offset, partition: self.partition, published, message }))
    }

    fn producer(&self, sequence: i64) -> rusqlite::Result<Result<(i64, Producer, u32, u32), String>> {
        let found: Option<(String, u32, u32)> = self
            .conn
            .prepare_cached(
                "select producer, epoch, partition from main.mainstay_log_producers where id = ?1",
            )?
            .query_row([sequence], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((name, epoch, partition)) = found else {
            return Ok(Err(format!("its producer (number {sequence}) is not there")));
        };
        Ok(match Producer::new(name) {
            Ok(producer) => Ok((sequence, producer, epoch, partition)),
            Err(error) => Err(format!("its producer (number {sequence}): {error}")),
        })
    }
}
