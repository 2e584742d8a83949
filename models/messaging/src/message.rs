//! What is published and what is received.

use bytes::Bytes;
use mainstay_envelope::{CloudEvent, MessageIdentity, Timestamp};

use crate::error::AppendError;
use crate::names::Topic;
use crate::offset::Offset;

/// Limits of the contract: every log keeps them, so that a message that one accepts is accepted by all.
pub mod limits {
    /// The longest key, in bytes.
    pub const KEY_BYTES_MAX: usize = 512;
    /// The longest data, in bytes.
    pub const DATA_BYTES_MAX: usize = 1 << 20;
    /// The most messages of one append.
    pub const APPEND_MESSAGES_MAX: usize = 1_000;
    /// The most bytes of one append: data, keys and attributes.
    pub const APPEND_BYTES_MAX: usize = 16 << 20;
    /// The most messages of one page. A page also ends after [`PAGE_BYTES_MAX`].
    pub const PAGE_MESSAGES_MAX: usize = 1_000;
    /// Bytes of data after which a page ends, however few messages it has; it has at least one if there is one.
    pub const PAGE_BYTES_MAX: usize = 4 << 20;

    /// Cuts a page's size to what is allowed.
    pub fn page(max: usize) -> usize {
        max.min(PAGE_MESSAGES_MAX)
    }
}

/// A message: which one it is, where it goes, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which message it is, for ever: what an inbox remembers. Numbers begin at 1; 0 is "none yet" to whoever keeps
    /// the highest one.
    pub identity: MessageIdentity,
    /// Where to.
    pub topic: Topic,
    /// Messages of one key stay in the order they were appended in; at most [`limits::KEY_BYTES_MAX`] bytes. An
    /// empty key is a key like any other.
    pub key: String,
    /// The attributes of its outer form (CloudEvents 1.0).
    pub event: CloudEvent,
    /// What it says; at most [`limits::DATA_BYTES_MAX`] bytes. A log neither reads nor changes it.
    pub data: Bytes,
    /// The last position of the producer's feed when the message's transaction committed: who has handled all
    /// messages up to this mark has seen what a receipt of that transaction stands for.
    pub mark: u64,
}

impl Message {
    /// About how many bytes it takes: data, key and attributes.
    pub fn weight(&self) -> usize {
        let extensions: usize =
            self.event.extensions().iter().map(|(name, value)| name.len() + value.len()).sum();
        256 + self.data.len() + self.key.len() + extensions
    }

    fn check(&self) -> Result<(), AppendError> {
        let refuse = |why: String| Err(AppendError::Invalid { what: "message", why });
        if self.key.len() > limits::KEY_BYTES_MAX {
            return refuse(format!("a key of {} bytes, at most {}", self.key.len(), limits::KEY_BYTES_MAX));
        }
        if self.data.len() > limits::DATA_BYTES_MAX {
            return refuse(format!("{} bytes of data, at most {}", self.data.len(), limits::DATA_BYTES_MAX));
        }
        if self.identity.seq == 0 {
            return refuse("number 0, but a producer's first message has number 1".into());
        }
        // Stored as signed numbers of 64 bits by most engines.
        if self.identity.seq > i64::MAX as u64 || self.mark > i64::MAX as u64 {
            return refuse("a number or mark past the largest signed number of 64 bits".into());
        }
        Ok(())
    }
}

/// Checks what is handed to [`Log::append`](crate::Log::append): every log begins with it.
///
/// # Errors
/// [`AppendError::Invalid`] for a message that is too large or has no number, for too many or too much at once.
pub fn check(messages: &[Message]) -> Result<(), AppendError> {
    let refuse = |why: String| Err(AppendError::Invalid { what: "append", why });
    if messages.len() > limits::APPEND_MESSAGES_MAX {
        return refuse(format!("{} messages, at most {}", messages.len(), limits::APPEND_MESSAGES_MAX));
    }
    messages.iter().try_for_each(Message::check)?;
    let bytes: usize = messages.iter().map(Message::weight).sum();
    if bytes > limits::APPEND_BYTES_MAX {
        return refuse(format!("{bytes} bytes, at most {}", limits::APPEND_BYTES_MAX));
    }
    Ok(())
}

/// A message as it came out of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Its place: who has handled it goes on after this.
    pub offset: Offset,
    /// The partition in which that place is.
    pub partition: u32,
    /// When it was appended. Data only.
    pub published: Timestamp,
    /// The message as it was handed in.
    pub message: Message,
}

/// Some messages of one partition, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The messages; empty where there are none after the place that was asked for.
    pub messages: Vec<Delivered>,
    /// Where the next page goes on.
    pub next: Offset,
    /// Where the partition ended when the page was read.
    pub end: Offset,
}

impl Page {
    /// Was there nothing more when the page was read?
    pub fn at_end(&self) -> bool {
        self.next >= self.end
    }
}

/// The partition of a key: the first 8 bytes of BLAKE3 over its bytes, as a little-endian number, modulo the
/// number of partitions. The same in every log and every version, so that producers in other languages agree.
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    if partitions <= 1 {
        return 0;
    }
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..8]);
    (u64::from_le_bytes(first) % u64::from(partitions)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_key_never_changes() {
        // Written down: a change would send followers of a key to another partition. (The hash of nothing
        // begins with AF in BLAKE3's own test vectors.)
        let of = |key| partition_of(key, 16);
        assert_eq!(["", "order-1", "order-2", "Ä"].map(of), [15, 3, 3, 12]);
        assert_eq!(partition_of("order-1", 1), 0);
        assert_eq!(partition_of("order-1", 0), 0);
    }
}
