//! A store keeps the places of groups as checkpoints: where a consumer's effects are, so is its place.

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, AppendError, ConsumerName, Position, ReadError, Refusal, Retry, Store, TransactError, Tx,
};
use mainstay_messaging::{CommitError, Group, Offset, Offsets, Topic};

use crate::store::Sqlite;

impl Offsets for Sqlite {
    async fn committed(&self, group: &Group, topic: &Topic, partition: u32) -> Result<Offset, CommitError> {
        let place = self.checkpoint(&name(group, topic, partition)?).await.map_err(|error| {
            let passing = matches!(error, ReadError::Unavailable { passing: true, .. });
            CommitError::Unavailable { why: error.to_string(), passing }
        })?;
        Ok(place.map_or(Offset::START, |position| Offset(position.0)))
    }

    async fn commit(
        &self,
        cx: &Context,
        group: &Group,
        topic: &Topic,
        partition: u32,
        from: Offset,
        to: Offset,
    ) -> Result<(), CommitError> {
        let consumer = name(group, topic, partition)?;
        let moved = self.transact(cx, move |tx| -> Result<(), Abort<()>> {
            Ok(tx.move_checkpoint(&consumer, Position(from.0), Position(to.0))?)
        });
        match moved.await {
            Ok(_) => Ok(()),
            Err(TransactError::Store(AppendError::Refused(Refusal::CheckpointMoved { actual, .. }))) => {
                Err(CommitError::Moved { expected: from, actual: Offset(actual.0) })
            }
            Err(TransactError::Store(AppendError::Refused(refusal))) => Err(CommitError::Unavailable {
                passing: refusal.retry() != Retry::Never,
                why: refusal.to_string(),
            }),
            Err(TransactError::Store(error)) => {
                Err(CommitError::Unavailable { why: error.to_string(), passing: true })
            }
            Err(TransactError::User(())) => {
                Err(CommitError::Unavailable { why: "it ended without a reason".into(), passing: true })
            }
        }
    }
}

/// The name of a group's checkpoint. Hashed, since group and topic together may be longer than a name.
fn name(group: &Group, topic: &Topic, partition: u32) -> Result<ConsumerName, CommitError> {
    let mut hasher = blake3::Hasher::new();
    for part in [group.as_str(), topic.as_str()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let hash = hasher.update(&partition.to_le_bytes()).finalize().to_hex();
    ConsumerName::new(format!("group {}", &hash.as_str()[..32]))
        .map_err(|error| CommitError::Invalid { why: error.to_string() })
}
