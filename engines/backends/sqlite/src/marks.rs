//! The inbox's rows. What they mean is decided in the contract ([`inbox::mark`]); here they are read and written.
//!
//! Messages mostly come in order and many in one transaction, so what one mark has read is kept for the next: the
//! head of each sequence, and of its ring the chunks that are in use. What has changed is written when the closure has
//! ended, so that a batch of messages costs a few statements and not a few for each. It is forgotten with whatever
//! is rolled back, and when another process has written.

use std::collections::{BTreeMap, HashMap};

use mainstay_envelope::{MessageIdentity, Producer};
use mainstay_event_store::inbox::{self, Change, Hole, Known, RECENT, Recent};
use mainstay_event_store::{ConsumerName, Mark, Refusal};
use rusqlite::{Connection, OptionalExtension};

/// Slots of the ring in one row.
const CHUNK_SLOTS: u64 = 64;

/// Rows of one ring.
const CHUNKS: u64 = RECENT / CHUNK_SLOTS;

/// A slot: the number, big-endian, and the hash. A slot never used is zeros, since numbers begin at 1.
const SLOT_BYTES: usize = 40;

/// Sequences that are kept from one transaction to the next: some 40 KiB each.
const WINDOWS_MAX: usize = 64;

/// Which sequence of which producer, for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    consumer: ConsumerName,
    producer: Producer,
    epoch: u32,
    partition: u32,
}

/// What is known of one sequence.
#[derive(Debug, Default)]
struct Window {
    /// The head's row, if there is one.
    id: Option<i64>,
    watermark: u64,
    holes: u64,
    changed: bool,
    chunks: BTreeMap<u64, Chunk>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    changed: bool,
}

/// What the marks of one connection have read and not yet written.
#[derive(Debug, Default)]
pub(crate) struct Marks(HashMap<Key, Window>);

impl Marks {
    /// Forgets everything, written or not.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Marks a message. Nothing of it is in the file before [`Marks::finish`], but for its holes.
    pub(crate) fn mark(
        &mut self,
        conn: &Connection,
        consumer: &ConsumerName,
        message: &MessageIdentity,
        engine: impl Fn(rusqlite::Error) -> Refusal,
    ) -> Result<Mark, Refusal> {
        let key = Key {
            consumer: consumer.clone(),
            producer: message.producer.clone(),
            epoch: message.epoch,
            partition: message.partition,
        };
        if !self.0.contains_key(&key) {
            self.0.insert(key.clone(), Window::read(conn, &key).map_err(&engine)?);
        }
        let window = self.0.entry(key.clone()).or_default();
        let known = window.known(conn, message.seq).map_err(&engine)?;
        let (mark, change) = inbox::mark(message.seq, &message.content.0, &known)?;
        if let Some(change) = change {
            window.change(conn, &key, message, &change).map_err(&engine)?;
        }
        Ok(mark)
    }

    /// Writes what has changed.
    pub(crate) fn finish(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        for (key, window) in &mut self.0 {
            window.write(conn, key)?;
        }
        if self.0.len() > WINDOWS_MAX {
            self.0.clear();
        }
        Ok(())
    }
}

impl Window {
    fn read(conn: &Connection, key: &Key) -> rusqlite::Result<Self> {
        let head = conn
            .prepare_cached(
                "select id, watermark, holes from main.mainstay_inbox
                 where consumer = ?1 and producer = ?2 and epoch = ?3 and partition = ?4",
            )?
            .query_row((key.consumer.as_str(), key.producer.as_str(), key.epoch, key.partition), |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
            .optional()?;
        Ok(head.map_or_else(Self::default, |(id, watermark, holes)| Self {
            id: Some(id),
            watermark: watermark as u64,
            holes: holes as u64,
            ..Self::default()
        }))
    }

    /// What is stored, as far as this number is concerned.
    fn known(&mut self, conn: &Connection, seq: u64) -> rusqlite::Result<Known> {
        let (watermark, holes) = (self.watermark, self.holes);
        let hole = match self.id {
            // Above the watermark there is no hole.
            Some(id) if holes > 0 && seq <= watermark => conn
                .prepare_cached(
                    "select first, last from main.mainstay_inbox_holes
                     where inbox = ?1 and first <= ?2 order by first desc limit 1",
                )?
                .query_row((id, seq as i64), |row| {
                    Ok(Hole { first: row.get::<_, i64>(0)? as u64, last: row.get::<_, i64>(1)? as u64 })
                })
                .optional()?
                .filter(|hole| seq <= hole.last),
            _ => None,
        };
        let (chunk, at) = place(seq);
        let slot = &self.chunk(conn, chunk)?.bytes[at..at + SLOT_BYTES];
        let (number, hash) = slot.split_at(8);
        let number = number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let mut recent = Recent { seq: number, hash: [0; 32] };
        recent.hash.copy_from_slice(hash);
        Ok(Known { watermark, holes, hole, recent: (number > 0).then_some(recent) })
    }

    fn chunk(&mut self, conn: &Connection, chunk: u64) -> rusqlite::Result<&mut Chunk> {
        if !self.chunks.contains_key(&chunk) {
            let bytes: Option<Vec<u8>> = match self.id {
                Some(id) => conn
                    .prepare_cached("select data from main.mainstay_inbox_ring where id = ?1")?
                    .query_row([row_of(id, chunk)], |row| row.get(0))
                    .optional()?,
                None => None,
            };
            let empty = vec![0; CHUNK_SLOTS as usize * SLOT_BYTES];
            // A row of another length is none of ours; the marks before it are then no longer compared.
            let bytes = bytes.filter(|bytes| bytes.len() == empty.len()).unwrap_or(empty);
            self.chunks.insert(chunk, Chunk { bytes, changed: false });
        }
        Ok(self.chunks.entry(chunk).or_insert_with(|| Chunk { bytes: Vec::new(), changed: false }))
    }

    fn change(
        &mut self,
        conn: &Connection,
        key: &Key,
        message: &MessageIdentity,
        change: &Change,
    ) -> rusqlite::Result<()> {
        (self.watermark, self.holes, self.changed) = (change.watermark, change.holes, true);
        if change.remove.is_some() || change.add.iter().any(Option::is_some) {
            let id = match self.id {
                Some(id) => id,
                None => self.insert(conn, key)?,
            };
            if let Some(first) = change.remove {
                conn.prepare_cached("delete from main.mainstay_inbox_holes where inbox = ?1 and first = ?2")?
                    .execute((id, first as i64))?;
            }
            for hole in change.add.iter().flatten() {
                conn.prepare_cached(
                    "insert into main.mainstay_inbox_holes(inbox, first, last) values (?1, ?2, ?3)",
                )?
                .execute((id, hole.first as i64, hole.last as i64))?;
            }
        }
        if change.remember {
            let (chunk, at) = place(message.seq);
            let chunk = self.chunk(conn, chunk)?;
            chunk.bytes[at..at + 8].copy_from_slice(&message.seq.to_be_bytes());
            chunk.bytes[at + 8..at + SLOT_BYTES].copy_from_slice(&message.content.0);
            chunk.changed = true;
        }
        Ok(())
    }

    /// Makes the head's row.
    fn insert(&mut self, conn: &Connection, key: &Key) -> rusqlite::Result<i64> {
        conn.prepare_cached(
            "insert into main.mainstay_inbox(consumer, producer, epoch, partition, watermark, holes)
             values (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((
            key.consumer.as_str(),
            key.producer.as_str(),
            key.epoch,
            key.partition,
            self.watermark as i64,
            self.holes as i64,
        ))?;
        let id = conn.last_insert_rowid();
        self.id = Some(id);
        Ok(id)
    }

    fn write(&mut self, conn: &Connection, key: &Key) -> rusqlite::Result<()> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let id = match self.id {
            Some(id) => {
                conn.prepare_cached(
                    "update main.mainstay_inbox set watermark = ?2, holes = ?3 where id = ?1",
                )?
                .execute((id, self.watermark as i64, self.holes as i64))?;
                id
            }
            None => self.insert(conn, key)?,
        };
        for (chunk, kept) in self.chunks.iter_mut().filter(|(_, kept)| kept.changed) {
            conn.prepare_cached(
                "insert into main.mainstay_inbox_ring(id, data) values (?1, ?2)
                 on conflict(id) do update set data = excluded.data",
            )?
            .execute((row_of(id, *chunk), kept.bytes.as_slice()))?;
            kept.changed = false;
        }
        Ok(())
    }
}

/// In which chunk a number's slot is, and where its bytes begin there.
fn place(seq: u64) -> (u64, usize) {
    let slot = inbox::slot(seq);
    (slot / CHUNK_SLOTS, (slot % CHUNK_SLOTS) as usize * SLOT_BYTES)
}

/// The row of a chunk.
fn row_of(id: i64, chunk: u64) -> i64 {
    id * CHUNKS as i64 + chunk as i64
}
