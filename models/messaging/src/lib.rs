//! The contract for messages between services: what a log promises, in prose first, then as traits ([`Log`],
//! [`Offsets`]).
//!
//! ```text
//!   producer                          the log                                 consumers
//!   outbox ─► relay ─► append ─► orders/0:  1 ─ 2 ─ 3 ─ 4 ─ 5    ◄── read after 3 ── group payment
//!                        │       orders/1:  1 ─ 2                ◄── read after 0 ── group reports (replay)
//!                        │            ▲                                   │
//!              Ok: on disk, all of    └── partition_of(key)               ▼
//!              it, then visible                         effect + inbox mark + place, in one transaction;
//!                                                       or Consumer: handle, then ack
//! ```
//!
//! # Promises
//!
//! Each is held by the case of the same name in the conformance suite (feature `conformance`), which every log
//! runs. MUST is meant literally. What a log lacks, its [`Promises`] say.
//!
//! 1. **Durable, then visible** (`acknowledged_is_visible_to_a_fresh_reader`). An append that is acknowledged MUST
//!    be as durable as the log promises, and a reader opened after it finds it at the place that was told.
//! 2. **All or nothing** (`an_append_is_all_or_nothing`). The messages of one append are seen together.
//! 3. **Unchanged** (`what_is_handed_out_is_what_was_handed_in`). Key, attributes, data, identity and mark come out
//!    as they went in.
//! 4. **Order per key** (`order_is_kept_per_key`, `a_key_stays_in_its_partition`): a key's partition is
//!    [the same](partition_of) in every log and version, and within a partition nothing overtakes.
//! 5. **Whole pages** (`pages_lose_and_double_nothing`, `topics_and_partitions_are_apart`). Whoever goes on where a
//!    page ended gets every message once.
//! 6. **At least once** (`a_repeated_append_stands_twice_or_is_dropped_as_promised`). An append whose answer was
//!    lost is done again and may stand there twice, under the same identity. A receiver's inbox drops it.
//! 7. **Any number of readers** (`many_readers_see_the_same`, `groups_are_independent`): a group gets everything,
//!    at its own pace, whatever others do.
//! 8. **Replay** (`replay_begins_at_the_start`), as often as one likes.
//! 9. **Redelivery** (`what_is_not_acknowledged_comes_again`, `a_lost_acknowledgement_redelivers`).
//! 10. **Fenced places** (`competing_commits_are_fenced`, `members_of_a_group_share_the_work`): of two members that
//!     move their group from one place, at most one succeeds, and the other is told.
//! 11. **Woken** (`a_waiting_reader_is_woken_and_may_be_cancelled`): who waits need not poll. A hint: it is never
//!     relied on.
//! 12. **Bounded** (`what_waits_is_bounded`). A log that can't write refuses as busy, in bounded time, and holds a
//!     bounded amount.
//! 13. **Retention is told** (`what_retention_took_is_told`, `the_end_outlives_what_was_taken`). A reader that
//!     retention has passed is told from where the log goes on; nothing is skipped in silence.
//! 14. **Known producers** (`the_newest_of_each_producer_is_known`): the highest number of each producer's
//!     sequence, also of messages that are gone. A restored producer is noticed by it.
//! 15. **Bad input** (`bad_input_is_refused_before_anything_is_appended`, `a_place_past_the_end_is_told`) is
//!     refused with its reason; a place past the end is another log's, and never "nothing new".
//!
//! # What it is not
//!
//! Not exactly once: nothing that goes over a wire is. It is at least once here and once in effect with an inbox.
//! Not a work queue with priorities and delays: that is a contract of its own. The log neither reads nor changes
//! the data of a message.
//!
//! # Smallest example
//!
//! ```
//! use std::time::Duration;
//!
//! use mainstay_envelope::{CloudEvent, ContentHash, Context, MessageIdentity, Producer};
//! use mainstay_messaging::memory::{Memory, MemoryOffsets};
//! use mainstay_messaging::{Consumer, Group, Log, Message, Topic};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (cx, log) = (Context::system(), Memory::default());
//! let (topic, data) = (Topic::new("order")?, &b"{\"amount\":3}"[..]);
//! let message = Message {
//!     identity: MessageIdentity {
//!         producer: Producer::new("order")?,
//!         epoch: 1,
//!         partition: 0,
//!         seq: 1,
//!         content: ContentHash::of(data),
//!     },
//!     topic: topic.clone(),
//!     key: "order-17".into(),
//!     event: CloudEvent::new("1", "/order", "OrderCreated")?.with_data_content_type("application/json")?,
//!     data: data.into(),
//!     mark: 1,
//! };
//! log.append(&cx, vec![message]).await?;
//!
//! let mut payment = Consumer::join(log, MemoryOffsets::default(), Group::new("payment")?, topic).await?;
//! let batch = payment.next(&cx, 100, Duration::from_secs(1)).await?.ok_or("nothing came")?;
//! assert_eq!(batch.messages[0].message.event.event_type(), "OrderCreated");
//! payment.ack(&cx, &batch).await?; // the group stands after it; without this it comes again
//! # Ok(())
//! # }
//! ```
//!
//! # Nouns
//!
//! A [`Message`] has a [`MessageIdentity`](mainstay_envelope::MessageIdentity) (which one it is, for ever), a
//! [`Topic`], a key, the attributes of [`CloudEvent`](mainstay_envelope::CloudEvent), data, and its mark: the
//! producer's position for which receipts wait. An [`Offset`] is a place in one partition. A [`Group`] shares the
//! work of following; a [`Consumer`] is one member. Where its effects are in a database, a consumer keeps its
//! place there, in their transaction, and needs no `Consumer`.
//!
//! # When it fails
//!
//! [`AppendError`], [`ReadError`] and [`CommitError`] say what happened, what was not done and what to do next;
//! their `retry()` says whether the same call may succeed later.
//!
//! # Floor
//!
//! `models`: it knows `terms` and nothing above. Logs live in `engines/backends`; [`memory`] is here because tests
//! of everything above need a log that costs nothing. To add a log: implement [`Log`], run the suite until it
//! passes, then break your code and see it fail.

#[cfg(feature = "conformance")]
pub mod conformance;
mod consumer;
mod error;
mod log;
pub mod memory;
mod message;
mod names;
mod offset;

pub use consumer::{Batch, ConsumeError, Consumer};
pub use error::{AppendError, CommitError, ReadError, Retry};
pub use log::{Log, Offsets, Promises, RECHECK};
pub use message::{Delivered, Message, Page, check, limits, partition_of};
pub use names::{BadName, Group, Topic};
pub use offset::Offset;
