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
