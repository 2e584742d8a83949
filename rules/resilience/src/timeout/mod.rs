//! Timeout: nobody waits longer than the answer is worth.
//!
//! **Protects from** the callee that neither answers nor fails: a caller that waits holds memory, a permit and a
//! connection, and its own caller waits, too.
//!
//! **Use it** for every call, at two places: around each try (`attempt`: a little above what the slowest good answers
//! take), so that a try that hangs leaves time for another, and around all of them (`total`: what the caller bears).
//!
//! **Do not use it** as the only protection of the callee: work that is not waited for may still be done there (hence
//! the deadline that travels with the call); nor for work that must be done in the end, which is a fact, not a call.
//!
//! ```text
//!   the caller's deadline ───┐            the earlier one holds, inwards it only gets lower
//!   total ───────────────────┼──► limit = min ──► reached already? ──► refused, nothing begun (DeadlineReached)
//!   attempt ─────────────────┘                         │no
//!                                                      ▼
//!                                  the call, told the limit ──► answered at once: no timer was armed
//!                                                      │pending
//!                                                      ▼
//!                                  a timer at the limit ──► its own limit: AttemptTimedOut, TotalTimedOut
//!                                                           the caller's:  DeadlineRanOut
//! ```
//! Whose limit it was matters: a try that took longer than a try may is the callee's failure and counts in the
//! breaker; a caller that had little time left says nothing about the callee.

mod layer;
mod spec;
mod state;

pub use layer::{ResponseFuture, TimeoutLayer, TimeoutService, Timeouts};
pub use spec::{Checked, LONGEST_LIMIT, Spec};
pub use state::{Kind, Limit, limit};

use crate::record::INPUTS;

/// Decides a recorded question of a timeout again: the verdict it must have had. None if this version has no such
/// question. Question 0, "may it begin, and until when?", reads the limit and the deadline; 1, "is it over?", the time.
pub fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    state::replay(question, at, inputs)
}
