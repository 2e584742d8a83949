//! Which message it is: what a receiver remembers so that it takes effect once.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::parts::Producer;

/// The BLAKE3 hash of a message's content.
///
/// The same identity with another content is not a repetition but a fault, and this is how it is noticed.
/// Serialized as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let hash = blake3::Hash::from_hex(text.as_bytes()).map_err(de::Error::custom)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// Names one message for good: a producer's number for it, and the hash of what it said.
///
/// Sorts by producer, epoch, partition and number, which is the order in which one producer meant its messages
/// for one partition. The content comes last and only so that equal means equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageIdentity {
    /// Who numbered it.
    pub producer: Producer,
    /// Which life of the producer: raised when its numbering begins anew (a restored backup, a new outbox).
    pub epoch: u32,
    /// Which of the producer's sequences.
    pub partition: u32,
    /// Its number in that sequence.
    pub seq: u64,
    /// What it said.
    pub content: ContentHash,
}

impl MessageIdentity {
    /// Do both name the same message, whatever they say? If so and their contents differ, one is a forgery or
    /// its producer has numbered two messages alike.
    pub fn same_number(&self, other: &Self) -> bool {
        (&self.producer, self.epoch, self.partition, self.seq)
            == (&other.producer, other.epoch, other.partition, other.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(producer: &str, epoch: u32, partition: u32, seq: u64, content: &[u8]) -> MessageIdentity {
        MessageIdentity {
            producer: Producer::new(producer).unwrap(),
            epoch,
            partition,
            seq,
            content: ContentHash::of(content),
        }
    }

    #[test]
    fn messages_sort_by_producer_then_epoch_then_partition_then_number() {
        let sorted = [
            identity("a", 1, 1, 2, b"z"),
            identity("a", 1, 1, 10, b"y"),
            identity("a", 1, 2, 1, b"x"),
            identity("a", 2, 0, 0, b"w"),
            identity("b", 0, 0, 0, b"v"),
        ];
        assert!(sorted.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn one_number_with_two_contents_is_noticed() {
        let (one, two) = (identity("a", 1, 1, 1, b"one"), identity("a", 1, 1, 1, b"two"));
        assert!(one.same_number(&two));
        assert_ne!(one, two);
        for other in [
            identity("b", 1, 1, 1, b"one"),
            identity("a", 2, 1, 1, b"one"),
            identity("a", 1, 2, 1, b"one"),
            identity("a", 1, 1, 2, b"one"),
        ] {
            assert!(!one.same_number(&other));
        }
    }

    #[test]
    fn it_is_written_readably_and_read_back() {
        let given = identity("shop", 1, 2, 3, b"");
        let text = serde_json::to_string(&given).unwrap();
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(
            text,
            format!(r#"{{"producer":"shop","epoch":1,"partition":2,"seq":3,"content":"{empty}"}}"#)
        );
        assert_eq!(serde_json::from_str::<MessageIdentity>(&text).unwrap(), given);
        assert!(serde_json::from_str::<ContentHash>(&format!("{:?}", &empty[1..])).is_err());
    }
}
