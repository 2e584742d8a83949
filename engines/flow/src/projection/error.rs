//! Why a projection stopped, or a read gave nothing: in the words of whoever has to act on it.

use mainstay_event_store::{BadName, Position, ReadError, Refusal, StoreId, StreamName, Version};

use super::control::Mode;
use super::failure::Failure;
use crate::event::Undecodable;

/// Why a projection stopped. What it had written stays, with its checkpoint: started again, it goes on there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// An event of its family can't be read. It is never skipped: the rows would be wrong without a word.
    #[error(
        "projection {projection} stopped before position {position} (stream {stream}, version {version}): {why}; \
         everything before it is applied, nothing of it"
    )]
    Undecodable {
        /// Which projection.
        projection: &'static str,
        /// Where in the feed.
        position: Position,
        /// The event's stream.
        stream: StreamName,
        /// The event's version.
        version: Version,
        /// Why.
        why: Undecodable,
    },
    /// Its own code failed for an event.
    #[error(
        "projection {projection} stopped before position {position}: {why}; everything before it is applied, \
         nothing of it; mend the projection and start it again"
    )]
    Failed {
        /// Which projection.
        projection: &'static str,
        /// Where in the feed.
        position: Position,
        /// Why.
        why: Failure,
    },
    /// The rows were made by another version of the projection.
    #[error(
        "the rows of projection {projection} were made by its version {stored}, this program has version {ours}; \
         nothing was written; rebuild it with this program, or run the other one"
    )]
    OtherVersion {
        /// Which projection.
        projection: &'static str,
        /// The version that made the rows.
        stored: u32,
        /// This program's.
        ours: u32,
    },
    /// The rows are kept up to date in another way.
    #[error(
        "projection {projection} is {recorded:?}, not {asked:?}: its events would be counted twice; nothing was \
         written; use it in one way, or under another name"
    )]
    OtherMode {
        /// Which projection.
        projection: &'static str,
        /// As recorded.
        recorded: Mode,
        /// As this program has it.
        asked: Mode,
    },
    /// The rows show another store's events.
    #[error(
        "projection {projection} shows the events of store {recorded}, this is store {ours}; nothing was written; \
         rebuild it from this store under another name"
    )]
    OtherSource {
        /// Which projection.
        projection: &'static str,
        /// As recorded.
        recorded: StoreId,
        /// The store it was started on.
        ours: StoreId,
    },
    /// What it has applied is not what the feed holds: the feed was restored from an older copy and went on.
    #[error(
        "projection {projection} has applied the feed up to position {at}, but the feed has another history there; \
         nothing was written; find out which copy of the store is right, then rebuild the projection"
    )]
    Rewritten {
        /// Which projection.
        projection: &'static str,
        /// Where the two differ.
        at: Position,
    },
    /// An inline projection can be rebuilt only from the store that it is written to.
    #[error(
        "projection {projection} is inline: it is written where its events are, and can't show another store's"
    )]
    InlineElsewhere {
        /// Which projection.
        projection: &'static str,
    },
    /// A rebuild was overtaken by one with another version of the projection.
    #[error(
        "the rebuild of projection {projection} was overtaken by another one; nothing more was written; let that one finish"
    )]
    Overtaken {
        /// Which projection.
        projection: &'static str,
    },
    /// The store did not get better within the tries that are allowed.
    #[error(
        "projection {projection} gave up after {tries} tries: {why}; start it again, it goes on where it was"
    )]
    GaveUp {
        /// Which projection.
        projection: &'static str,
        /// How often it was tried since the last progress.
        tries: u32,
        /// The last failure, and why there was no further try.
        why: String,
    },
    /// The store refused for good.
    #[error("projection {projection}: {refusal}")]
    Store {
        /// Which projection.
        projection: &'static str,
        /// The store's words.
        refusal: Refusal,
    },
    /// The feed, or the rows, can't be read.
    #[error("projection {projection}: {error}")]
    Read {
        /// Which projection.
        projection: &'static str,
        /// The store's words.
        error: ReadError,
    },
}

/// Why a row was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The projection had not come to the receipt in time.
    #[error(
        "projection {projection} has come to {}, the receipt is at {}, after waiting {waited_ms} ms: what was \
         written is safe, only not shown yet; ask again, or read with Eventual", Shown(*.reached), Shown(*.needed)
    )]
    NotYet {
        /// Which projection.
        projection: &'static str,
        /// Where the receipt stands; none when the store had not placed it yet.
        needed: Option<Position>,
        /// Where the projection is; none when it has never run.
        reached: Option<Position>,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The store can't read, or refuses the receipt.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The projection's name is not usable.
    #[error(transparent)]
    Name(#[from] BadName),
    /// What is stored is not what the program expects.
    #[error(transparent)]
    Row(#[from] Failure),
    /// The rows went from one generation to the next again and again while they were read.
    #[error("projection {projection} was rebuilt again and again while it was read; ask again")]
    Restless {
        /// Which projection.
        projection: &'static str,
    },
}

struct Shown(Option<Position>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(position) => write!(f, "position {position}"),
            None => f.write_str("no position yet"),
        }
    }
}
