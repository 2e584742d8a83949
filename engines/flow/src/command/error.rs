//! Why a command was not acknowledged, in the words of whoever has to act on it.

use mainstay_event_store::{BadName, ReadError, Refusal, StreamName, Version};

use crate::event::{Undecodable, Unstorable};

/// Why a command was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError<R> {
    /// The decider's rules say no (or a closure of the transaction did, with the decider's own refusal).
    #[error("refused: {0:?}; nothing was written")]
    Refused(R),
    /// The caller asked for a version, and the stream is at another.
    #[error(
        "stream {stream} has version {actual}, the caller asked for {expected}: it has changed since it was read; \
         nothing was written; show the present state and ask again"
    )]
    VersionMoved {
        /// Which stream.
        stream: StreamName,
        /// What the caller asked for.
        expected: Version,
        /// Its last version.
        actual: Version,
    },
    /// Others were faster, each time.
    #[error(
        "stream {stream} was changed by others during each of {tries} tries ({why}); nothing was written; \
         try again later, or split what so many commands share"
    )]
    Conflict {
        /// Which stream.
        stream: StreamName,
        /// How often it was decided.
        tries: u32,
        /// Why there was no further try.
        why: String,
    },
    /// The stream holds an event that this program can't read, so there is no state to decide on.
    #[error("stream {stream} can't be replayed, version {version}: {why}; nothing was written")]
    Undecodable {
        /// Which stream.
        stream: StreamName,
        /// The version of the event.
        version: Version,
        /// Why.
        why: Undecodable,
    },
    /// The decider decided an event that can't be stored.
    #[error(transparent)]
    Unstorable(#[from] Unstorable),
    /// An inline projection could not follow.
    #[error(
        "inline projection {projection}: {why}; nothing was written, the command's events neither; mend the projection"
    )]
    Projection {
        /// Which one.
        projection: &'static str,
        /// Why.
        why: String,
    },
    /// One call sent two commands to one stream under its one idempotency key.
    #[error(
        "this call has recorded a command in stream {stream} already (up to version {version}), under its idempotency \
         key; nothing more was written; give each command of a call an id of its own: `idempotent(key.derive(step, n))`"
    )]
    KeyReused {
        /// Which stream.
        stream: StreamName,
        /// The version of the first command's last event.
        version: Version,
    },
    /// The stream's name is not usable.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The command's deadline was over before it was written.
    #[error(
        "the deadline was over before anything was written; give the command more time, or find what was slow before it"
    )]
    DeadlineOver,
    /// The store refused; after as many tries as its kind of refusal allows.
    #[error("{refusal} (after {tries} tries)")]
    Store {
        /// The store's words.
        refusal: Refusal,
        /// How often it was tried.
        tries: u32,
    },
    /// The stream could not be read.
    #[error("the stream could not be read, so nothing was decided or written: {0}")]
    Read(#[from] ReadError),
    /// Nobody knows whether the events were recorded: the store failed while committing, and then too often
    /// to find out.
    #[error(
        "outcome unknown after {tries} tries: {why}; the command may or may not have been recorded; \
         repeat it with the same command id (`idempotent`) to find out; without one, read the stream first"
    )]
    Unknown {
        /// What failed.
        why: String,
        /// How often it was tried.
        tries: u32,
    },
}
