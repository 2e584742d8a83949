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
