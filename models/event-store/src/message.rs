//! What flows between services, as far as a transaction is concerned: outbox rows and inbox marks.

use mainstay_envelope::Timestamp;

use crate::event::limits;
use crate::names::Topic;
use crate::outcome::Refusal;

/// A message to be published, opaque to the store. It is recorded in the transaction that decided it
/// (transactional outbox) and numbered by whoever sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Where to.
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
    /// Its number: dense in this store, from 1, in commit order.
    pub seq: u64,
    /// When its act was handed in.
    pub at: Timestamp,
    /// The envelope's stored bytes.
    pub envelope: Vec<u8>,
    /// As handed in.
    pub row: OutboxRow,
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
