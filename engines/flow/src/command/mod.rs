//! Commands: what is asked for, decided on the stream's own history, recorded once.
//!
//! A [`Decider`] says what a command does. [`Commands`] reads the stream, decides, and records the decision on
//! the condition that the stream has not changed meanwhile; when it has, nothing was written, and it decides
//! again on what is there now. So a rule that holds for each decision ("never below zero") holds for the
//! stream, however many commanders there are.
//!
//! Use it where a rule must hold over time, and where it matters how things came to be. Not for plain records
//! that anybody may overwrite: a row says that better. Not for a rule across many streams: that is a condition
//! over tags ([`mainstay_event_store::Condition`]), or a saga.
//!
//! Promises, each with its tests in `tests/flow`:
//! - A decision is recorded on the state it was made on, or not at all
//!   (`eight_commanders_of_one_account_never_lose_or_overdraw`, `a_conflict_is_decided_again_on_what_is_there_now`).
//! - Events, inline rows, closures and snapshot commit together (`what_is_also_done_commits_with_the_events_or_not_at_all`).
//! - A command with an id is recorded once (`a_repeated_command_is_acknowledged_again_and_recorded_once`,
//!   `a_repeated_command_is_known_even_when_a_snapshot_hides_its_events`).
//! - A lost answer is resolved, and one that can't be is called unknown, never refused
//!   (`an_unknown_outcome_is_resolved_and_never_doubles`, `an_outcome_that_stays_unknown_is_not_called_refused`).
//! - Retries end (`conflicts_are_retried_so_often_and_no_more`, `a_busy_store_is_asked_again_so_often_and_no_more`).
//! - A snapshot never changes what is decided (`snapshot_and_tail_are_the_replay_at_every_length`).

mod batch;
mod commands;
mod decider;
mod error;
mod given;
mod identity;
mod load;
mod run;
mod snapshot;

pub use commands::{Commands, Done, Pending};
pub use decider::{Decider, Snapshot};
pub use error::CommandError;
pub use given::{Decided, Given, given, given_nothing};
pub(crate) use snapshot::Snapshots;
