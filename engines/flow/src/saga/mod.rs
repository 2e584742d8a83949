//! Sagas by choreography: what each participant says it does, and whether the whole holds together.
//!
//! Nobody conducts. Each service reacts to facts of others and makes facts of its own, so the whole order of
//! things is written nowhere. Here each service declares its part ([`Participant`]); [`Graph`] puts the parts
//! together, checks them and draws them.

mod check;
mod graph;
mod layout;
mod reactor;
mod svg;
mod text;

pub use crate::participant::{BadParticipant, Participant, Reaction, Reacts};
pub use check::Finding;
pub use graph::Graph;
pub use reactor::{Failure, Incoming, Reactor};
pub use svg::Svg;
pub use text::Text;
