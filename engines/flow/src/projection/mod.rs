//! Projections.
mod control;
mod error;
mod fill;
mod inline;
mod model;
mod projector;
mod reader;
mod rebuild;
mod view;

pub use control::Mode;
pub use error::{ProjectionError, ViewError};
pub(crate) use inline::Inline;
pub use model::{Failure, Observed, Projection};
pub use projector::Projector;
pub use reader::{Consistency, Reader};
pub use rebuild::{Progress, Rebuilt};
pub use view::{Found, View};
