//! What an append writes: worked out where it is handed in, then only bound and stepped on the writer.

use std::collections::HashMap;

use mainstay_envelope::{Context, MessageIdentity, Producer, Timestamp};
use mainstay_messaging::{Message, Offset, Topic, partition_of};
use rusqlite::{Connection, OptionalExtension};

use super::schema::{self, CHANNELS_MAX, OFFSET_MAX};

/// One append, ready to be written.
pub(super) struct Prepared {
    pub(super) published: Timestamp,
    pub(super) bytes: usize,
    pub(super) rows: Vec<Row>,
}

pub(super) struct Row {
    partition: u32,
    /// Its outer form, as JSON.
    pub(super) event: Vec<u8>,
    pub(super) message: Message,
}

impl Prepared {
    pub(super) fn of(cx: &Context, messages: Vec<Message>, partitions: u32) -> Self {
        let mut bytes = 0;
        let rows = messages.into_iter().map(|message| {
            let event = message.event.to_json(None);
            bytes += event.len() + message.data.len() + message.key.len() + 128;
            Row { partition: partition_of(&message.key, partitions), event, message }
        });
        Self { published: cx.wall(), rows: rows.collect(), bytes }
    }
}

/// A producer's sequence: whose numbers are counted together.
type Sequence = (Producer, u32, u32);

/// What the writer remembers between transactions. Numbers never change once they are committed; after a
/// rollback it must be forgotten.
#[derive(Default)]
pub(super) struct Known {
    channels: HashMap<Topic, HashMap<u32, i64>>,
    /// The last sequence, since messages mostly come from one producer.
    last: Option<(MessageIdentity, i64)>,
    sequences: HashMap<Sequence, i64>,
}

/// What one transaction has written so far.
#[derive(Default)]
pub(super) struct Written {
    ends: HashMap<i64, u64>,
    newest: HashMap<i64, (u64, [u8; 32])>,
}

/// Writes one append into the open transaction; the places of its messages.
pub(super) fn write(
    conn: &Connection,
    known: &mut Known,
    written: &mut Written,
    append: &Prepared,
) -> rusqlite::Result<Vec<(u32, Offset)>> {
    let mut insert = conn.prepare_cached(
        "insert into main.mainstay_log_messages(id, producer, number, content, key, mark, published, event, data)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let mut places = Vec::with_capacity(append.rows.len());
    for row in &append.rows {
        let (message, identity) = (&row.message, &row.message.identity);
        let channel = channel(conn, known, &message.topic, row.partition)?;
        let end = match written.ends.get_mut(&channel) {
            Some(end) => end,
            None => {
                let end = super::read::channel_end(conn, channel)?;
                written.ends.entry(channel).or_insert(end)
            }
        };
        if *end >= OFFSET_MAX {
            return Err(full("no offset is left in this channel"));
        }
        *end += 1;
        let offset = *end;
        let sequence = sequence(conn, known, identity)?;
        // The writer's own text: `to_json` writes nothing but UTF-8.
        let event = std::str::from_utf8(&row.event)?;
        insert.execute((
            schema::row_id(channel, offset),
            sequence,
            identity.seq as i64,
            &identity.content.0[..],
            &message.key,
            message.mark as i64,
            append.published.as_millis(),
            event,
            &message.data[..],
        ))?;
        let newest = written.newest.entry(sequence).or_insert((identity.seq, identity.content.0));
        if identity.seq > newest.0 {
            *newest = (identity.seq, identity.content.0);
        }
        places.push((row.partition, Offset(offset)));
    }
    Ok(places)
}

/// Records the highest numbers, once for all appends of a transaction.
pub(super) fn finish(conn: &Connection, written: &Written) -> rusqlite::Result<()> {
    let mut update = conn.prepare_cached(
        "update main.mainstay_log_producers set number = ?2, content = ?3 where id = ?1 and number < ?2",
    )?;
    for (sequence, (number, content)) in &written.newest {
        update.execute((sequence, *number as i64, &content[..]))?;
    }
    Ok(())
}

fn full(why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
        Some(format!("the log has reached a limit: {why}")),
    )
}

fn channel(conn: &Connection, known: &mut Known, topic: &Topic, partition: u32) -> rusqlite::Result<i64> {
    if let Some(channel) = known.channels.get(topic).and_then(|of| of.get(&partition)) {
        return Ok(*channel);
    }
    let channel = match super::read::channel(conn, topic, partition)? {
        Some((channel, _)) => channel,
        None => {
            conn.prepare_cached(
                "insert into main.mainstay_log_channels(topic, partition, pruned_to) values (?1, ?2, 0)",
            )?
            .execute((topic.as_str(), partition))?;
            conn.last_insert_rowid()
        }
    };
    if channel > CHANNELS_MAX {
        return Err(full("no channel is left in this file"));
    }
    known.channels.entry(topic.clone()).or_default().insert(partition, channel);
    Ok(channel)
}

fn sequence(conn: &Connection, known: &mut Known, of: &MessageIdentity) -> rusqlite::Result<i64> {
    if let Some((last, id)) = &known.last
        && (&last.producer, last.epoch, last.partition) == (&of.producer, of.epoch, of.partition)
    {
        return Ok(*id);
    }
    let key = (of.producer.clone(), of.epoch, of.partition);
    let id = match known.sequences.get(&key) {
        Some(id) => *id,
        None => find_sequence(conn, of)?,
    };
    known.sequences.insert(key, id);
    known.last = Some((of.clone(), id));
    Ok(id)
}

fn find_sequence(conn: &Connection, of: &MessageIdentity) -> rusqlite::Result<i64> {
    let key = (of.producer.as_str(), of.epoch, of.partition);
    let found = conn
        .prepare_cached(
            "select id from main.mainstay_log_producers where producer = ?1 and epoch = ?2 and partition = ?3",
        )?
        .query_row(key, |row| row.get(0))
        .optional()?;
    if let Some(id) = found {
        return Ok(id);
    }
    conn.prepare_cached(
        "insert into main.mainstay_log_producers(producer, epoch, partition, number, content)
         values (?1, ?2, ?3, -1, x'')",
    )?
    .execute(key)?;
    Ok(conn.last_insert_rowid())
}
