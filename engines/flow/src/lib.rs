//! Flow.
mod event;
mod pace;
pub mod command;
pub mod projection;

pub use command::{CommandError, Commands, Decider, Done};
pub use event::{Event, Undecodable, Unstorable};
pub use mainstay_derive::Event;
pub use projection::Projection;

/// What derived code uses; no promise is made about it.
#[doc(hidden)]
pub mod __private {
    pub use mainstay_event_store::{BadName, Tag};
    pub use {serde, serde_json};

    pub use crate::event::{Undecodable, decode, tag};
}
