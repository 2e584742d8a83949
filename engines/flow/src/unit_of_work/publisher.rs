//! What a service may publish, and where.

use std::collections::BTreeSet;
use std::sync::Arc;

use mainstay_event_store::{ConsumerName, Topic};

use crate::participant::{BadParticipant, Participant};

/// A participant's declaration, checked and made ready for use in every transaction. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    topic: Topic,
    consumer: ConsumerName,
    publishes: BTreeSet<String>,
}

impl Publisher {
    /// Of this participant.
    ///
    /// # Errors
    /// The declaration is checked here, before anything is started with it.
    pub fn new(participant: &Participant) -> Result<Self, BadParticipant> {
        participant.check()?;
        let refuse = |bad: mainstay_event_store::BadName| BadParticipant {
            name: participant.name().chars().take(40).collect(),
            why: bad.to_string(),
        };
        Ok(Self(Arc::new(Inner {
            topic: participant.topic().map_err(refuse)?,
            consumer: ConsumerName::new(participant.name()).map_err(refuse)?,
            publishes: participant.publishes().into_iter().map(str::to_owned).collect(),
        })))
    }

    /// Where it publishes.
    pub fn topic(&self) -> &Topic {
        &self.0.topic
    }

    /// The name under which it consumes.
    pub fn consumer(&self) -> &ConsumerName {
        &self.0.consumer
    }

    /// Does it publish events of this type?
    pub fn publishes(&self, event_type: &str) -> bool {
        self.0.publishes.contains(event_type)
    }
}
