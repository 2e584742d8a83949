//! What flows between services, as far as a transaction is concerned: outbox rows and inbox marks.

use mainstay_envelope::{ContentHash, MessageIdentity, Producer, Timestamp};

use crate::event::limits;
use crate::names::Topic;
use crate::outcome::Refusal;
use crate::position::{Position, StoreId};

/// A message to be published, opaque to the store. It is recorded in the transaction that decided it
/// (transactional outbox) and numbered by whoever sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Where to: the same for all rows of a store ([`crate::outbox::check_topic`]).
    pub topic: Topic,
    /// Messages of one key are published in the order of their numbers; at most 512 bytes.
    pub key: String,
    /// Opaque to the store; at most 64 with 16 KiB together.
    pub headers: Vec<(String, String)>,
    /// At most [`limits::ROW_BYTES_MAX`] bytes.
    pub payload: Vec<u8>,
}

impl OutboxRow {
    /// Checks the limits.
    pub fn check(&self) -> Result<(), Refusal> {
        let refuse = |why: String| Err(Refusal::Invalid { what: "outbox row", why });
        if self.key.len() > limits::KEY_BYTES_MAX {
            return refuse(format!("a key of {} bytes, at most {}", self.key.len(), limits::KEY_BYTES_MAX));
        }
        if self.payload.len() > limits::ROW_BYTES_MAX {
            return refuse(format!("{} bytes, at most {}", self.payload.len(), limits::ROW_BYTES_MAX));
        }
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.headers.len() > 64 || bytes > 16 << 10 {
            return refuse(format!(
                "{} headers with {bytes} bytes; at most 64 with 16384",
                self.headers.len()
            ));
        }
        Ok(())
    }
}

/// An outbox row as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRecord {
    /// Its number in this store: dense from 1, in commit order. A relay's cursor; not what others know it by.
    pub seq: u64,
    /// When its act was handed in.
    pub at: Timestamp,
    /// The envelope's stored bytes.
    pub envelope: Vec<u8>,
    /// As handed in.
    pub row: OutboxRow,
    /// Which life of this store numbers it: the epoch that was opened last before it ([`crate::outbox`]).
    pub epoch: u32,
    /// Its number in that epoch, dense from 1: what receivers know it by.
    pub number: u64,
    /// The feed's last position when its transaction committed, which is the mark of that transaction's receipt:
    /// who has handled all messages up to this one has seen every act whose receipt has this mark or a lower one.
    ///
    /// Where a sequencer gives positions behind the writers: where its transaction's events end in the feed, which is what
    /// `position(receipt)` says; without events of its own, where the feed was when it was numbered.
    ///
    /// START where the file was written before positions were kept: such a row proves nothing about receipts.
    pub position: Position,
}

impl OutboxRecord {
    /// The hash of everything a receiver acts on: topic, key, headers, payload, envelope. When and where the row
    /// was recorded is not part of it. BLAKE3 over the parts, each preceded by its length; linear in their size.
    pub fn content(&self) -> ContentHash {
        let mut hasher = blake3::Hasher::new_derive_key("mainstay outbox message 1");
        // Lengths, and the count of the headers: no two different messages give the same input.
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(self.row.topic.as_str().as_bytes());
        part(self.row.key.as_bytes());
        part(&(self.row.headers.len() as u64).to_le_bytes());
        for (name, value) in &self.row.headers {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        part(&self.row.payload);
        part(&self.envelope);
        ContentHash(*hasher.finalize().as_bytes())
    }

    /// What receivers know the message by. The producer is the store itself, so that a new file is a new producer
    /// without anybody choosing a name; its outbox is one sequence of one topic, partition 0.
    pub fn identity(&self, store: StoreId) -> MessageIdentity {
        MessageIdentity {
            producer: Producer::from(store.0),
            epoch: self.epoch,
            partition: 0,
            seq: self.number,
            content: self.content(),
        }
    }
}

/// How far the outbox has come: what a relay goes by, and what its metrics show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxStatus {
    /// The number of the last row; 0 when there never was one.
    pub last: u64,
    /// How many rows are not marked sent.
    pub unsent: u64,
    /// When the first of them was handed in.
    pub oldest_unsent: Option<Timestamp>,
    /// The present epoch, from 1.
    pub epoch: u32,
    /// The row after which it begins; 0 for the first epoch.
    pub epoch_after: u64,
    /// Rows up to this number are removed; 0 when none is.
    pub pruned_to: u64,
}

/// What the inbox says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Seen for the first time: do the effect, in this transaction.
    First,
    /// Its effect is done already: skip it.
    Repeated,
    /// The same identity came with another content: somebody's sequence was reused. Alarm, never skip.
    Altered,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> OutboxRecord {
        OutboxRecord {
            seq: 7,
            at: Timestamp::from_millis(1),
            envelope: b"{}".to_vec(),
            row: OutboxRow {
                topic: Topic::new("ab").unwrap(),
                key: "cd".into(),
                headers: vec![("e".into(), "f".into()), ("g".into(), "h".into())],
                payload: b"ij".to_vec(),
            },
            epoch: 2,
            number: 3,
            position: Position(4),
        }
    }

    #[test]
    fn the_content_is_what_a_receiver_acts_on_and_nothing_else() {
        type Change = fn(&mut OutboxRecord);
        let said: [(&str, Change); 12] = [
            ("as it is", |_| {}),
            ("topic", |record| record.row.topic = Topic::new("ac").unwrap()),
            ("key", |record| record.row.key = "ce".into()),
            ("a header's name", |record| record.row.headers[0].0 = "x".into()),
            ("a header's value", |record| record.row.headers[1].1 = "x".into()),
            ("their order", |record| record.row.headers.reverse()),
            ("one header less", |record| drop(record.row.headers.pop())),
            ("payload", |record| record.row.payload = b"ik".to_vec()),
            ("envelope", |record| record.envelope = b"[]".to_vec()),
            // The same bytes with other borders.
            ("topic and key", |record| {
                (record.row.topic, record.row.key) = (Topic::new("abc").unwrap(), "d".into());
            }),
            ("name and value", |record| record.row.headers[0] = ("ef".into(), String::new())),
            ("payload and envelope", |record| {
                (record.row.payload, record.envelope) = (b"i".to_vec(), b"j{}".to_vec());
            }),
        ];
        let mut hashes = std::collections::HashMap::new();
        for (what, change) in said {
            let mut changed = record();
            change(&mut changed);
            if let Some(before) = hashes.insert(changed.content(), what) {
                panic!("{what} and {before} have one hash");
            }
        }
        let recorded: [Change; 5] = [
            |record| record.seq = 8,
            |record| record.at = Timestamp::from_millis(2),
            |record| record.epoch = 3,
            |record| record.number = 4,
            |record| record.position = Position(5),
        ];
        for change in recorded {
            let mut changed = record();
            change(&mut changed);
            assert_eq!(changed.content(), record().content());
        }
    }

    /// Receivers keep the hash: a build that hashes otherwise would call every repeated message altered.
    #[test]
    fn the_content_hash_never_changes() {
        assert_eq!(
            record().content().to_string(),
            "85d7e1cf62b1ad1a92cb8f990e19f98de3c4d60031375cb973529a00d03e5272"
        );
    }

    #[test]
    fn a_message_is_known_by_its_store_its_epoch_and_its_number() {
        let identity = record().identity(StoreId(uuid::Uuid::from_u128(0xa)));
        assert_eq!(identity.producer.as_str(), "0000000000000000000000000000000a");
        assert_eq!((identity.epoch, identity.partition, identity.seq), (2, 0, 3));
        assert_eq!(identity.content, record().content());
    }
}
