//! The contract for facts: what a store promises, in prose first, then as traits ([`Store`], [`Tx`]).
//!
//! ```text
//!            act {events, expectations, conditions}            closure(&Tx)
//!                          │                                        │
//!                          ▼                                        ▼
//!    ┌─────────────────────── one transaction: all or nothing ──────────────────────┐
//!    │ events │ outbox rows │ inbox marks │ checkpoints │ views │ leases │ user's SQL │
//!    └──────┬───────────────────────────────────────────────────────────────────────┘
//!           │ commit, on disk                     Acknowledged {versions, receipt}
//!           ▼                                     Refused {nothing written, may I retry?}
//!    sequencer: position (dense), hash chain      Unknown {append the same ids again}
//!           │
//!           ▼
//!    feed: 1 ─ 2 ─ 3 ─ 4 ─ 5 ─ …  ──► read, subscribe: no loss, no duplicate, no inversion, no stall
//! ```
//!
//! # Promises
//!
//! Each is held by the case of the same name in the conformance suite (feature `conformance`), which every
//! store runs. MUST is meant literally.
//!
//! 1. **Three outcomes** (`acknowledged_is_visible_to_a_fresh_reader`, `refused_is_never_visible`). An append
//!    ends acknowledged (on disk), refused (nothing written) or unknown (a failure while committing). No
//!    answer, and no refusal computed from it, leaves before its commit is on disk.
//! 2. **Expected versions** (`expected_versions_are_checked`, `one_winner_among_racers`). Of appends that
//!    expect the same version of a stream at most one is acknowledged; the others learn the actual version.
//! 3. **Idempotent by event id** (`the_same_act_again_is_acknowledged_and_not_doubled`). The same act again is
//!    acknowledged again, whatever it expects; the same id for another event is refused.
//! 4. **All or nothing** (`several_streams_in_one_act`). Several streams in one act commit together.
//! 5. **Dynamic consistency boundary** (`conditions_are_checked`, `overlapping_conditions_never_both_commit`).
//!    Of two acts of which each would break the other's condition, at most one is acknowledged.
//! 6. **Streams** (`a_stream_reads_both_ways`): versions are dense from 1 and read in order, both ways.
//! 7. **The feed** (`positions_are_dense`, `queries_select_by_type_and_tag`): positions are dense from 1, in
//!    the order of commits; within a stream the order of versions; what was handed out never changes.
//! 8. **Subscriptions** (`catch_up_then_live_misses_nothing`): every event exactly once, in order, also
//!    across the seam between catching up and following, for any number of subscribers.
//! 9. **The chain** (`the_chain_proves_the_feed`): a [`Verifier`] with a head kept elsewhere notices any
//!    change, removal, insertion or reordering. It proves nothing without such a head. Heads are exported as
//!    signed checkpoints (feature `checkpoints`); a range that left the feed has a marker ([`Archived`]), and
//!    who reads into it is told so.
//! 10. **One transaction** (`a_transaction_is_all_or_nothing`, `outbox_rows_are_numbered_in_commit_order`,
//!     `inbox_marks_make_an_effect_happen_once`, `checkpoints_move_only_from_where_they_are`,
//!     `views_are_rows_by_key_and_index`, `leases_fence_the_late_holder`): whatever a [`Tx`] writes commits
//!     together or not at all.
//! 11. **Receipts** (`a_receipt_locates_its_act`): a reader that has come to the receipt's position has seen
//!     the act; a receipt of another store is refused, never misread.
//! 12. **Sealed payloads** (`sealed_payloads_keep_their_key_id`): bytes sealed by the caller are stored, hashed
//!     and handed out as they are, with the id of their key. Erasure destroys a key, never bytes.
//! 13. **Bad input** (`limits_are_refused_before_anything_is_written`) is refused with its reason.
//! 14. **Sent by number** (`sent_rows_are_marked_by_number`, `marks_are_part_of_their_transaction`,
//!     `a_prune_removes_a_sent_prefix`): a relay marks outbox rows as sent, in any order; the rest is found at the
//!     cost of what is found. Only a sent prefix can be removed. Who dies before marking sends again: at least once.
//! 15. **One name for a message** (`a_new_epoch_numbers_rows_anew`, `an_outbox_has_one_topic`): all rows of a store go
//!     to one topic; a row is known by store, epoch and a number
//!     dense from 1, which are never given twice, unless the store is restored from a copy; then its relay opens
//!     an epoch ([`outbox`]). The hash of what it says goes with it.
//! 16. **A message tells how far its facts go** (`an_outbox_row_carries_the_mark_of_its_receipt`): who has handled
//!     all rows up to one has seen every act up to that row's position, and may answer its receipt.
//! 17. **On whose account** (`acting_for_changes_the_envelope_of_what_follows`): several messages' effects may share
//!     one transaction, each with its own message's envelope.
//!
//! # What it is not
//!
//! Not a query language, not a database: what a view can't say, the user's own SQL in the same transaction can.
//! There is no delete: nothing leaves the feed.
//!
//! # Smallest example
//!
//! ```
//! use mainstay_envelope::Context;
//! use mainstay_event_store::{Act, EventType, Expected, NewEvent, Payload, Store, StreamName, memory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cx = Context::system();
//! let store = memory::Memory::new();
//! let event = NewEvent::new(cx.new_id(), EventType::new("AccountCreated")?, Payload::plain(*b"{}"));
//! let done = store.append(&cx, Act::append(StreamName::new("account-7")?, Expected::Empty, vec![event])).await?;
//! assert_eq!(done.versions[0].1.0, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Floor
//!
//! `models`: it knows `terms` and nothing above. Stores live in `engines/backends`; [`memory`] is here because
//! tests of everything above need a store that costs nothing. To add a store: implement the two traits, then
//! run the suite until it passes, then break your code and see it fail.

mod act;
mod ahead;
mod author;
pub mod chain;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod consistency;
mod event;
mod hash;
pub mod inbox;
mod lease;
pub mod memory;
mod message;
mod names;
pub mod outbox;
mod outcome;
mod position;
mod query;
pub mod repeat;
mod store;
mod subscription;
mod tags;
mod version;
mod view;

pub use act::{Act, StreamAct, check_events};
pub use ahead::ReadAhead;
pub use author::Author;
pub use chain::{Archived, Broken, Verifier};
pub use consistency::{Consistency, IfCutOff};
pub use event::{NewEvent, Payload, Recorded, limits};
pub use hash::{BadHash, Hash};
pub use lease::{Lease, Leased};
pub use message::{Mark, OutboxRecord, OutboxRow, OutboxStatus};
pub use names::{BadName, ConsumerName, EventType, KeyId, StreamName, Tag, Topic, ViewName};
pub use outcome::{Abort, AppendError, Appended, Committed, ReadError, Refusal, Retry, TransactError};
pub use position::{BadReceipt, Head, Position, Receipt, StoreId};
pub use query::{Condition, Query, QueryItem};
pub use store::{Direction, Located, Page, Store, StreamPage, Tx};
pub use subscription::{RECHECK, Subscribe, Subscription};
pub use tags::Tags;
pub use version::{Expected, Version};
pub use view::{Cursor, IndexEntry, IndexValue, Row, Rows, Scan, ScanBy, prefix_end};
