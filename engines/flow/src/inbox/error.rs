//! Why a follower could not be made, or stopped: in the words of whoever has to act on it.

use mainstay_event_store::{BadName, ReadError, Refusal};
use mainstay_messaging as messaging;

use crate::participant::BadParticipant;

/// Why a follower could not be made. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFollower {
    /// The participant's declaration can't be used.
    #[error(transparent)]
    Participant(#[from] BadParticipant),
    /// It declares no reaction to what that participant publishes.
    #[error(
        "{participant} declares no reaction to facts of {topic}, so there is nothing to follow; \
         declare one, or leave the follower out"
    )]
    NoReaction {
        /// Who follows.
        participant: String,
        /// Whom.
        topic: String,
    },
    /// A name is not usable.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The topic's name is not usable.
    #[error(transparent)]
    Topic(#[from] messaging::BadName),
}

/// Why a follower stopped. Everything before its checkpoint is handled once, nothing after it: started again, it
/// goes on there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The log can't be read.
    #[error("{group} can't follow {topic}: {why}")]
    Log {
        /// Who follows.
        group: String,
        /// What.
        topic: String,
        /// The log's words.
        why: messaging::ReadError,
    },
    /// The consumer's own store can't be read.
    #[error("{group} can't follow {topic}, its own store can't be read: {why}")]
    Read {
        /// Who follows.
        group: String,
        /// What.
        topic: String,
        /// The store's words.
        why: ReadError,
    },
    /// The consumer's own store refuses for good.
    #[error("{group} can't follow {topic}, its own store refuses: {why}")]
    Store {
        /// Who follows.
        group: String,
        /// What.
        topic: String,
        /// The store's words.
        why: Refusal,
    },
    /// The store did not get better within the tries that are allowed.
    #[error(
        "{group} gave up following {topic} after {tries} tries: {why}; start it again, it goes on where it was"
    )]
    GaveUp {
        /// Who follows.
        group: String,
        /// What.
        topic: String,
        /// Tries since the last progress.
        tries: u32,
        /// The last failure, and why there was no further try.
        why: String,
    },
}
