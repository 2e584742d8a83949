//! Projections: read models made from the feed, and read beside it (CQRS).
//!
//! ```text
//!  commands ──► store ──feed──► Projector ──one transaction a page {rows, checkpoint}──► view ──► Reader
//!                 │                                                                       ▲
//!                 └── inline: the rows are written in the events' own transaction ────────┘
//! ```
//!
//! The write side decides on streams; the read side answers from rows that are made for its questions. The two
//! scale apart: any number of query processes, each with a store of its own, follow one feed. What that costs
//! is time: an asynchronous row is a little behind. Whoever can't have that reads with
//! [`Consistency::ReadYourWrites`], or keeps the projection inline and pays with each command.
//!
//! Promises, each with its tests in `tests/flow`:
//! - Each event is applied once, in the order of the feed, also when the process dies or an answer is lost
//!   (`a_crash_between_any_two_pages_neither_doubles_nor_loses`): rows and checkpoint commit together.
//! - An event that can't be read stops the projection and is named; it is never skipped
//!   (`an_event_that_can_not_be_read_stops_it_and_is_named`).
//! - Rows of two versions, stores or histories are never mixed (`rows_of_another_version_store_or_way_are_not_mixed`,
//!   `a_feed_that_was_restored_and_went_on_differently_is_noticed`).
//! - A rebuild shows no reader a half-filled view, or an older one than before
//!   (`writers_readers_and_the_projector_go_on_meanwhile`, `readers_never_go_back_however_late_the_event_comes`), and is
//!   resumed after a crash (`a_rebuild_that_dies_anywhere_is_resumed`).
//! - [`Projector::verify`] finds rows that are not what the feed says (`drift_is_found_and_named`).
//!
//! It is not a place for effects: whatever a projection did outside its view would be done again by a rebuild.
//! That is what an outbox row is for, written with the event. Not built yet: partitioned projections, a fence
//! for side effects, `Strong` and `BoundedStaleness` reads.

mod control;
mod error;
mod failure;
mod inline;
mod model;
mod page;
mod pipe;
mod projector;
mod reader;
mod rebuild;
mod verify;
mod view;

pub use control::Mode;
pub use error::{ProjectionError, ViewError};
pub use failure::Failure;
pub(crate) use inline::Inline;
pub use model::{Observed, Projection};
pub use projector::Projector;
pub use reader::{Consistency, Reader};
pub use rebuild::{Progress, Rebuilt};
pub use verify::{Drift, Verified};
pub use view::{Found, View};
