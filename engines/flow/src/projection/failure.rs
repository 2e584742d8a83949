//! Why a projection can't go on, in one event's terms.

use mainstay_event_store::Refusal;

use crate::event::Undecodable;

/// Why a projection can't take an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The store refused a write.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A row is not of the projection's type.
    #[error(
        "row {key:?} of view {view} does not have the declared shape ({why}); raise the projection's VERSION and rebuild"
    )]
    Row {
        /// Which view.
        view: String,
        /// Which row.
        key: String,
        /// What is wrong, without any value.
        why: String,
    },
    /// A row can't be written as JSON.
    #[error("row {key:?} of view {view} can't be written as JSON: {why}; mend the row's type")]
    Encode {
        /// Which view.
        view: String,
        /// Which row.
        key: String,
        /// What is wrong, without any value.
        why: String,
    },
    /// An event of the family that this program can't read.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// The projection's own reason.
    #[error("{0}")]
    Wrong(String),
}

impl Failure {
    /// The projection's own reason: what should not be, in the operator's words.
    pub fn because(why: impl Into<String>) -> Self {
        Self::Wrong(why.into())
    }
}
