//! Fallback: something worse is better than nothing, where somebody has decided what.
//!
//! **Protects from** an optional part taking the whole with it: no recommendations is a page without them, not an
//! error page.
//!
//! **Use it** where a default, an older value or a shorter answer is a right answer.
//!
//! **Do not use it** to hide that something failed where the difference matters (a balance, a permission, a stock): there
//! an error is the right answer. Nor to call another service that fails with the first one, or is overrun by it.
//!
//! ```text
//!   the call ──► answered ─────────────────────────────────────────────► the answer
//!      │ failed
//!      ▼
//!   refused by us?  ──► spec.on_refusal ──┐
//!   transient?      ──► spec.on_transient ┴─yes─► the function has something? ──yes──► that instead
//!   permanent, cancelled ───────────┐no               │no
//!                                   ▼                 ▼
//!                                 the failure, as it is
//! ```
//! A permanent failure is the callee's answer and is never replaced. The outermost of all: what a fallback replaced
//! was recorded by all rules within.

mod layer;
mod spec;
mod state;

pub use layer::{FallbackLayer, FallbackService, ResponseFuture};
pub use spec::{Checked, Spec};
pub use state::{Cause, applies};

use crate::record::INPUTS;

/// Decides a recorded question of a fallback again. Question 0, "is this failure replaced?", reads its cause and the
/// settings.
pub fn replay(question: u8, _: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    state::replay(question, inputs)
}
