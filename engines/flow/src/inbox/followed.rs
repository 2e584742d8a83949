//! How far each producer's facts are handled here: what a receipt waits for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::Producer;
use mainstay_event_store::{Receipt, StoreId};
use tokio::sync::watch;

/// What one service has handled, of all producers that it follows. Cheap to clone; in memory.
///
/// A receipt is a promise about one store. Whoever holds one and asks another service to have seen its act first
/// waits here until the follower has handled every message up to it. A message that is parked counts as not handled.
///
/// It is told only by messages: an act that published nothing is seen when the producer's next message is.
///
/// A mark is a position among the producer's events, so an act that wrote messages and no event has none of its own:
/// it shares the mark of the act before it, and its receipt may be met as soon as that one's messages are handled.
/// Whoever wants such an act waited for records an event with it.
#[derive(Debug, Clone)]
pub struct Followed {
    own: StoreId,
    lanes: Arc<watch::Sender<Lanes>>,
}

/// For each topic and partition, what is handled of each producer.
#[derive(Debug, Default)]
struct Lanes(HashMap<(String, u32), HashMap<Producer, u64>>);

/// Why a receipt's act can't be called seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSeen {
    /// It is of a store whose facts are not followed here.
    #[error(
        "the receipt is of store {store}, whose facts are not followed here; nothing was read; present it to a \
         service that follows them"
    )]
    NotFollowed {
        /// The receipt's.
        store: StoreId,
    },
    /// It was not handled in time.
    #[error(
        "the receipt's act was not handled here within {waited_ms} ms: what was written is safe, only not seen here \
         yet; ask again"
    )]
    NotYet {
        /// How long it was waited for.
        waited_ms: u64,
        /// Up to which mark of that store everything is handled; none when nothing is known.
        reached: Option<u64>,
    },
}

impl Followed {
    /// Of the service with this store, whose own acts it sees at once.
    pub fn new(own: StoreId) -> Self {
        Self { own, lanes: Arc::new(watch::Sender::new(Lanes::default())) }
    }

    /// Waits until everything up to a receipt's act is handled here, at most so long.
    pub async fn wait(&self, receipt: &Receipt, at_most: Duration) -> Result<(), NotSeen> {
        if receipt.store() == self.own {
            return Ok(());
        }
        let producer = Producer::from(receipt.store().0);
        let mut lanes = self.lanes.subscribe();
        let ready = lanes.wait_for(|lanes| {
            lanes.reached(&producer) >= Some(receipt.mark()) || lanes.is_foreign(&producer)
        });
        // Over time or met: what is so now is what counts.
        let _ = tokio::time::timeout(at_most, ready).await;
        let lanes = self.lanes.borrow();
        match lanes.reached(&producer) {
            Some(reached) if reached >= receipt.mark() => Ok(()),
            None if lanes.is_foreign(&producer) => Err(NotSeen::NotFollowed { store: receipt.store() }),
            reached => Err(NotSeen::NotYet {
                waited_ms: u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX),
                reached,
            }),
        }
    }

    /// A lane is followed from now on.
    pub(super) fn begin(&self, topic: &str, partition: u32) {
        self.lanes.send_modify(|lanes| {
            lanes.0.entry((topic.to_owned(), partition)).or_default();
        });
    }

    /// Of a lane, everything of these producers is handled up to these marks.
    pub(super) fn reached(
        &self,
        topic: &str,
        partition: u32,
        marks: impl IntoIterator<Item = (Producer, u64)>,
    ) {
        self.lanes.send_modify(|lanes| {
            lanes.0.entry((topic.to_owned(), partition)).or_default().extend(marks);
        });
    }
}

impl Lanes {
    /// Up to which mark everything of a producer is handled. Its messages may be spread over a topic's partitions by
    /// their keys, so the slowest partition counts.
    fn reached(&self, producer: &Producer) -> Option<u64> {
        let topics = self.0.iter().filter(|(_, marks)| marks.contains_key(producer));
        let topics: Vec<&str> = topics.map(|((topic, _), _)| topic.as_str()).collect();
        let lanes = self.0.iter().filter(|((topic, _), _)| topics.contains(&topic.as_str()));
        lanes.map(|(_, marks)| marks.get(producer).copied().unwrap_or(0)).min()
    }

    /// Is it certain that this producer is none of those followed: is every topic's known, and another one?
    fn is_foreign(&self, producer: &Producer) -> bool {
        let unknown =
            |topic: &str| !self.0.iter().any(|((other, _), marks)| other == topic && !marks.is_empty());
        self.reached(producer).is_none() && !self.0.keys().any(|(topic, _)| unknown(topic))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const WAIT: Duration = Duration::from_millis(1);

    fn store(n: u128) -> StoreId {
        StoreId(Uuid::from_u128(n))
    }

    fn marks(n: u128, mark: u64) -> [(Producer, u64); 1] {
        [(Producer::from(Uuid::from_u128(n)), mark)]
    }

    #[tokio::test]
    async fn a_receipt_is_met_only_when_every_partition_has_come_to_it() {
        let followed = Followed::new(store(1));
        assert_eq!(followed.wait(&Receipt::new(store(1), 9), WAIT).await, Ok(()), "its own store");
        followed.begin("order", 0);
        followed.begin("order", 1);
        let receipt = Receipt::new(store(2), 5);
        let not_yet = |reached| Err(NotSeen::NotYet { waited_ms: 1, reached });
        assert_eq!(followed.wait(&receipt, WAIT).await, not_yet(None), "nobody knows yet whose topic it is");
        followed.reached("order", 0, marks(2, 7));
        assert_eq!(followed.wait(&receipt, WAIT).await, not_yet(Some(0)));
        followed.reached("order", 1, marks(2, 4));
        assert_eq!(followed.wait(&receipt, WAIT).await, not_yet(Some(4)));
        followed.reached("order", 1, marks(2, 5));
        assert_eq!(followed.wait(&receipt, WAIT).await, Ok(()));
    }

    #[tokio::test]
    async fn a_store_that_is_not_followed_is_told_at_once_and_a_topic_without_messages_may_still_be_it() {
        let followed = Followed::new(store(1));
        let long = Duration::from_secs(3600);
        let foreign = Err(NotSeen::NotFollowed { store: store(3) });
        assert_eq!(followed.wait(&Receipt::new(store(3), 1), long).await, foreign);
        followed.begin("order", 0);
        let waiting = followed.wait(&Receipt::new(store(3), 1), WAIT).await;
        assert_eq!(waiting, Err(NotSeen::NotYet { waited_ms: 1, reached: None }));
        followed.reached("order", 0, marks(2, 7));
        assert_eq!(followed.wait(&Receipt::new(store(3), 1), long).await, foreign);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let followed = Followed::new(store(1));
        followed.begin("order", 0);
        let waiting = tokio::spawn({
            let followed = followed.clone();
            async move { followed.wait(&Receipt::new(store(2), 5), Duration::from_secs(3600)).await }
        });
        tokio::task::yield_now().await;
        followed.reached("order", 0, marks(2, 5));
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }
}
