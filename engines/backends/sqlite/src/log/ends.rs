//! Where reads have met the end of a partition, so that a waiter need not look there once more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use mainstay_messaging::{Offset, Topic};

/// Partitions remembered; what was forgotten costs one look.
const ENDS_MAX: usize = 256;

/// The ends that were read, each with the count of rings before that read: as long as nothing has rung since, nothing
/// is known to have come after it.
#[derive(Debug, Default)]
pub(super) struct Ends {
    known: Mutex<HashMap<(Topic, u32), (Offset, u64)>>,
}

impl Ends {
    pub(super) fn note(&self, topic: &Topic, partition: u32, end: Offset, rung: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ENDS_MAX {
            known.clear();
        }
        known.insert((topic.clone(), partition), (end, rung));
    }

    /// Was this the end when it was read last, and has nothing rung since?
    pub(super) fn is(&self, topic: &Topic, partition: u32, end: Offset, rung: u64) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(topic.clone(), partition)) == Some(&(end, rung))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_end_is_known_until_something_rings_and_for_its_own_partition_only() {
        let (ends, topic) = (Ends::default(), Topic::new("t").unwrap());
        ends.note(&topic, 0, Offset(7), 3);
        assert!(ends.is(&topic, 0, Offset(7), 3));
        assert!(!ends.is(&topic, 0, Offset(7), 4), "it has rung since that read began");
        assert!(!ends.is(&topic, 0, Offset(6), 3), "somebody stands before it");
        assert!(!ends.is(&topic, 1, Offset(7), 3));
        assert!(!ends.is(&Topic::new("u").unwrap(), 0, Offset(7), 3));
        for partition in 1..=ENDS_MAX as u32 {
            ends.note(&topic, partition, Offset(1), 3);
        }
        assert!(ends.known.lock().unwrap().len() <= ENDS_MAX);
    }
}
