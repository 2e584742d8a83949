//! The groups' places, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_envelope::Context;

use crate::error::CommitError;
use crate::log::Offsets;
use crate::names::{Group, Topic};
use crate::offset::Offset;

type Places = HashMap<(Group, Topic, u32), Offset>;

/// Places that are forgotten with the last clone. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryOffsets {
    places: Arc<Mutex<Places>>,
}

impl Offsets for MemoryOffsets {
    async fn committed(&self, group: &Group, topic: &Topic, partition: u32) -> Result<Offset, CommitError> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(places.get(&(group.clone(), topic.clone(), partition)).copied().unwrap_or_default())
    }

    async fn commit(
        &self,
        _: &Context,
        group: &Group,
        topic: &Topic,
        partition: u32,
        from: Offset,
        to: Offset,
    ) -> Result<(), CommitError> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry((group.clone(), topic.clone(), partition)).or_default();
        if *place != from {
            return Err(CommitError::Moved { expected: from, actual: *place });
        }
        *place = to;
        Ok(())
    }
}
