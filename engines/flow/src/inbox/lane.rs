//! What is followed, and under which names its progress is kept.

use mainstay_event_store::{BadName, ConsumerName};

/// One partition of one topic, as one group follows it. Everything that has an order has it within a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) partition: u32,
    /// Names it in keys and indices: 16 hexadecimal digits.
    pub(super) id: String,
    /// Where its checkpoint is kept.
    pub(super) checkpoint: ConsumerName,
}

impl Lane {
    pub(super) fn new(group: &str, topic: &str, partition: u32) -> Result<Self, BadName> {
        let id = short(&[group.as_bytes(), topic.as_bytes(), &partition.to_le_bytes()]);
        // The names themselves may be too long for a consumer's name together; the digits tell lanes apart.
        let shown = |text: &str| text.chars().take(16).collect::<String>();
        let checkpoint = ConsumerName::new(format!("{}/{}/{id}", shown(group), shown(topic)))?;
        Ok(Self { group: group.to_owned(), topic: topic.to_owned(), partition, id, checkpoint })
    }

    /// Names one message key of this lane: 16 hexadecimal digits. Two keys that share them are parked and released
    /// as one, which costs them time and nothing else.
    pub(super) fn key(&self, key: &str) -> String {
        short(&[self.id.as_bytes(), key.as_bytes()])
    }
}

/// The first 64 bits of BLAKE3 over the parts, each preceded by its length, as hexadecimal digits.
fn short(parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("mainstay inbox lane 1");
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_lane_never_change_and_long_ones_fit() {
        let lane = Lane::new("payment", "order", 0).unwrap();
        // Checkpoints are found by these: a change would begin every topic anew.
        assert_eq!(lane.checkpoint.as_str(), format!("payment/order/{}", lane.id));
        assert_eq!(lane.id, "eb94087eccd04836");
        assert_eq!(lane.key("order-1"), "f773ab9b9deeee85");
        let long = Lane::new(&"ü".repeat(64), &"ü".repeat(128), 7).unwrap();
        assert_ne!(long.id, Lane::new(&"ü".repeat(64), &"ü".repeat(128), 8).unwrap().id);
    }
}
