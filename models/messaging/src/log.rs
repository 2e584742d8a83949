//! The contract as traits: [`Log`], and where a group keeps its place, [`Offsets`].

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use mainstay_envelope::{ContentHash, Context, Producer};

use crate::error::{AppendError, CommitError, ReadError};
use crate::message::{Message, Page};
use crate::names::{Group, Topic};
use crate::offset::Offset;

/// How long a waiter may rely on being woken before it looks by itself.
pub const RECHECK: Duration = Duration::from_secs(1);

/// What a log promises beyond the contract, and what it lacks. One that lacks something says so here and nowhere
/// else, and the suite checks what is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promises {
    /// What is acknowledged is on disk: it survives the machine's power.
    pub durable: bool,
    /// Messages of one key are read in the order in which they were appended.
    pub ordered_per_key: bool,
    /// A reader may begin anew, at the start of what is kept, as often as it likes.
    pub replay: bool,
    /// The log itself keeps the groups' places; else its consumers do.
    pub groups: bool,
    /// A message appended twice stands there once. No log here promises it: receivers have an inbox.
    pub deduplicates: bool,
    /// Old messages go away after some time.
    pub retains: bool,
    /// Other processes may follow it.
    pub between_processes: bool,
}

/// An event log: partitions, offsets, replay, any number of groups. Clones share it.
///
/// ```text
///            append (all or nothing, durable when Ok)
///                          │
///    topic "orders"        ▼
///    ├─ partition 0:  1 ─ 2 ─ 3 ─ 4 ─ 5        ◄── read after 3 ── group "payment" stands at 3
///    ├─ partition 1:  1 ─ 2                    ◄── read after 0 ── group "reports", from the start
///    └─ …             partition_of(key)
/// ```
/// At least once: an append whose answer was lost is done again, and then its messages stand there twice, under
/// the same [identity](mainstay_envelope::MessageIdentity). Whoever receives them keeps an inbox.
pub trait Log: Clone + Debug + Send + Sync + 'static {
    /// What this log promises.
    fn promises(&self) -> Promises;

    /// How many partitions each topic has. A key's partition is [`partition_of`](crate::partition_of) it.
    fn partitions(&self) -> u32;

    /// Appends messages, in order; the place of each.
    ///
    /// All of them or none. `Ok` MUST NOT be returned before they are as durable as the log
    /// [promises](Log::promises); only then does a reader see them. Dropping the future does not take back an
    /// append that has begun. Waits at most for as long as the context's deadline allows, and never for long
    /// while others wait already: then it is refused as busy.
    ///
    /// # Errors
    /// See [`AppendError`]; [`AppendError::retry`] says whether to try again.
    fn append(
        &self,
        cx: &Context,
        messages: Vec<Message>,
    ) -> impl Future<Output = Result<Vec<(u32, Offset)>, AppendError>> + Send;

    /// Reads what follows a place, at most `max` messages (cut to
    /// [`limits::PAGE_MESSAGES_MAX`](crate::limits::PAGE_MESSAGES_MAX)) and
    /// [`limits::PAGE_BYTES_MAX`](crate::limits::PAGE_BYTES_MAX) of data.
    ///
    /// A topic that has no message yet is empty, not unknown.
    ///
    /// # Errors
    /// See [`ReadError`]. Messages that are gone MUST be told ([`ReadError::Truncated`]), never skipped.
    fn read(
        &self,
        topic: &Topic,
        partition: u32,
        after: Offset,
        max: usize,
    ) -> impl Future<Output = Result<Page, ReadError>> + Send;

    /// Where a partition ends now: the place of its last message, even if that one is no longer kept.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn end(&self, topic: &Topic, partition: u32) -> impl Future<Output = Result<Offset, ReadError>> + Send;

    /// Waits until the partition may have grown past a place, or until the time is over. A hint: it may return
    /// early, and fails silently, so the caller reads and sees. It looks by itself every [`RECHECK`].
    fn wait_past(
        &self,
        topic: &Topic,
        partition: u32,
        after: Offset,
        at_most: Duration,
    ) -> impl Future<Output = ()> + Send;

    /// The highest number that the log holds, or held, of one producer's sequence, and its content: how a
    /// producer that was restored from an older copy is noticed. `partition` is that of the message's identity.
    ///
    /// # Errors
    /// See [`ReadError`].
    fn newest(
        &self,
        producer: &Producer,
        epoch: u32,
        partition: u32,
    ) -> impl Future<Output = Result<Option<(u64, ContentHash)>, ReadError>> + Send;
}

/// Where groups keep their places: the log itself, or the consumer's own database.
///
/// A consumer whose effects are in a database commits its place there, in the effect's own transaction; then it
/// has no use for this. This is for those who handle first and commit after.
pub trait Offsets: Clone + Debug + Send + Sync + 'static {
    /// The place of a group; the start, if it has none yet.
    ///
    /// # Errors
    /// [`CommitError::Unavailable`].
    fn committed(
        &self,
        group: &Group,
        topic: &Topic,
        partition: u32,
    ) -> impl Future<Output = Result<Offset, CommitError>> + Send;

    /// Moves a group's place, if it still is where the caller believes: of two members that commit from one
    /// place, at most one succeeds. The move is durable when this returns. It may go back, for a replay.
    ///
    /// # Errors
    /// [`CommitError::Moved`] when it is elsewhere.
    fn commit(
        &self,
        cx: &Context,
        group: &Group,
        topic: &Topic,
        partition: u32,
        from: Offset,
        to: Offset,
    ) -> impl Future<Output = Result<(), CommitError>> + Send;
}
