//! Work: one transaction of a service, as its handlers see it.
//!
//! ```text
//!  request ─► transact ─┐                        ┌─ events   (tagged with the correlation)
//!                       ├─► Work ─► command() ───┼─ outbox   (what the participant declares it publishes)
//!  message ─► Follower ─┘                        └─ views, the user's own SQL: tx()
//!                             one transaction: all of it, or nothing
//! ```
//!
//! A request handler and a reactor do the same things: decide on a stream, record, publish, keep views. So both get
//! the same [`Work`], and the same function can serve both.
//!
//! Unlike [`Commands`](crate::Commands), which reads first and appends on the condition that nothing has changed,
//! a work reads inside its transaction. Use it where several things have to happen together, or where what
//! happened has to be published; use `Commands` for a single decision on a store that many processes write to.
//!
//! Promises, each with its test in `tests/flow/work.rs`:
//! - Everything a work does commits together or not at all (`what_a_work_does_commits_together_or_not_at_all`).
//! - A closure that is run again makes the same ids (`a_work_that_runs_again_makes_the_same_ids`).
//! - Only what the participant declares is published (`only_what_is_declared_is_published`).
//! - A kept state never changes what is decided, whoever else appends (`a_kept_state_is_the_replay_whoever_appends`).
//! - Every event is found by its correlation (`every_event_is_found_by_its_correlation`).

mod entity;
mod publisher;
mod run;
mod seed;
mod unit;

pub use entity::Entity;
pub use publisher::Publisher;
pub use run::{Transacting, transact};
pub use seed::Seed;
pub use unit::{Decided, Work};
