//! The outbox: what was decided is published, after it was recorded, whatever dies in between.
//!
//! ```text
//!  one transaction {events, outbox rows, views}          commit: the rows have their numbers
//!                       │
//!                       ▼ wake-up (and a slow re-check)
//!  Relay: unsent rows ──► messages ──► Log::append ──► mark as sent, by number
//!                              a crash here ▲ publishes again: receivers know the identity
//! ```
//! **Protects from** the two halves of a dual write: a fact that is recorded and never told, and one that is told
//! and never recorded. **Use it** for everything that another service has to learn. **Not** for what only this
//! process reads: that is the feed's work.
//!
//! Promises, each with its test in `tests/flow/relay.rs`:
//! - What is recorded is published, at least once, and nothing is marked before it is published
//!   (`a_relay_killed_at_any_step_loses_nothing`).
//! - Rows of one key are published in their order (`rows_are_published_in_their_order_whatever_fails`).
//! - A store that was restored from an older copy opens an epoch after the last row that the log agrees on; nothing
//!   published before is published anew under another number (`a_restored_store_opens_an_epoch`).
//! - What a restored store decides once more as it was decided and published before, row by row the same, is not
//!   published a second time (`what_a_restored_consumer_does_again_is_not_published_again`), as far as the log keeps
//!   what it was.
//! - A log that lost its end gets it again from the rows that are kept
//!   (`a_log_that_lost_its_end_gets_it_again`).
//! - Messages of one transaction are appended together; of one that is larger than a batch, only the last ones say
//!   that it is whole, so that nobody answers its receipt before (`a_transaction_in_parts_is_whole_with_its_last_one`).
//!
//! One topic a store: its rows have one numbering, and the store refuses a row of another topic.
//!
//! One relay a store: a second one would publish everything twice, which receivers swallow, and gain nothing.

mod change;
mod error;
mod message;
mod orphans;
mod prune;
mod relay;
mod restored;
mod row;

pub use error::RelayError;
pub(crate) use message::{Opened, open};
pub use relay::{Relay, Running};
pub(crate) use row::row;
