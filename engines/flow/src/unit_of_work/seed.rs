//! Where a work's ids come from: the same seed gives the same ids, however often the work is run.

use mainstay_envelope::{Context, MessageIdentity, SeededChance, Timestamp};
use uuid::Uuid;

/// The beginning of a sequence of ids.
///
/// A transaction's closure may be run again (a group that was dropped, a lost answer), and only the last run counts.
/// If each run drew new ids, a second run after a lost answer would record a second time; so a work draws nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    key: [u8; 32],
    at: Timestamp,
}

impl Seed {
    /// A new one, drawn now: for a request, once, before its transaction.
    pub fn draw(cx: &Context) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mainstay work of a request 1");
        hasher.update(cx.new_id().as_bytes());
        Self { key: *hasher.finalize().as_bytes(), at: cx.wall() }
    }

    /// The seed of one consumer's work for a message: the same each time the message comes. `at` is a time that
    /// belongs to the message; it becomes the beginning of the ids, so that a store's index of ids grows at its end.
    pub fn of_message(consumer: &str, message: &MessageIdentity, at: Timestamp) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mainstay work of a message 1");
        // Length-prefixed, so that no two messages give the same input.
        for part in [consumer.as_bytes(), message.producer.as_str().as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(&message.epoch.to_le_bytes());
        hasher.update(&message.partition.to_le_bytes());
        hasher.update(&message.seq.to_le_bytes());
        hasher.update(&message.content.0);
        Self { key: *hasher.finalize().as_bytes(), at }
    }

    /// Chance that this seed decides, for what is neither an id nor remembered: a span's number.
    pub(crate) fn chance(&self) -> SeededChance {
        let mut first = [0; 8];
        first.copy_from_slice(&self.key[..8]);
        SeededChance::new(u64::from_le_bytes(first))
    }

    /// Id number `ordinal`, from 0: a UUID of version 7 (RFC 9562 §5.7) whose time is the seed's and whose other
    /// bits are a keyed BLAKE3 hash.
    pub fn id(&self, ordinal: u64) -> Uuid {
        let hash = blake3::keyed_hash(&self.key, &ordinal.to_le_bytes());
        let mut bits = [0; 10];
        bits.copy_from_slice(&hash.as_bytes()[..10]);
        let millis = u64::try_from(self.at.as_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use mainstay_envelope::{ContentHash, Producer};

    use super::*;

    #[test]
    fn the_ids_of_a_messages_work_are_stable_and_its_own() {
        let message = |producer: &str, epoch, seq, content: &[u8]| MessageIdentity {
            producer: Producer::new(producer).unwrap(),
            epoch,
            partition: 0,
            seq,
            content: ContentHash::of(content),
        };
        let at = Timestamp::from_millis(1_700_000_000_000);
        let id = |consumer, message, ordinal| Seed::of_message(consumer, &message, at).id(ordinal);
        assert_eq!(id("payment", message("a", 1, 1, b""), 0), id("payment", message("a", 1, 1, b""), 0));
        let all = [
            id("payment", message("a", 1, 1, b""), 0),
            id("payment", message("a", 1, 1, b""), 1),
            id("paymen", message("ta", 1, 1, b""), 0),
            id("payment", message("a", 2, 1, b""), 0),
            id("payment", message("a", 1, 2, b""), 0),
            id("payment", message("a", 1, 1, b"x"), 0),
        ];
        for (i, one) in all.iter().enumerate() {
            assert_eq!(one.get_version_num(), 7);
            assert!(one.to_string().starts_with("018bcfe5-6800-7"), "{one}");
            assert!(!all[..i].contains(one), "{i}");
        }
        // Stored for ever: after a change of the derivation, a work cut off by an upgrade would record twice.
        assert_eq!(all[0].to_string(), "018bcfe5-6800-7274-a77f-eb9ce99f0bc9");
    }

    #[test]
    fn two_requests_have_no_id_in_common() {
        let cx = Context::system();
        let (one, two) = (Seed::draw(&cx), Seed::draw(&cx));
        assert_eq!(one.id(3), one.id(3));
        assert!((0..20).all(|i| (0..20).all(|j| one.id(i) != two.id(j))));
    }
}
