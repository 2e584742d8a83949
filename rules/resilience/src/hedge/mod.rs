//! Hedge: when an answer is late, ask once more and take whichever comes first.
//!
//! **Protects from** the slow tail: of a callee with many copies, one is always collecting garbage or being moved, and
//! a page that asks a hundred of them nearly always meets one.
//!
//! **Use it** for reads and keyed requests at a callee with several copies, whose latency has a long tail.
//!
//! **Do not use it** for a request that may take effect twice (it is not hedged, whatever the settings); where all copies
//! are slow for the same reason (the budget then ends it); together with a retry around the same try (a policy takes one
//! of the two).
//!
//! ```text
//!   first try ────────────────────────────────────────────► answer? the second is dropped: cancelled
//!      │ still nothing after the measured percentile        (neither success nor failure for the breaker)
//!      ▼
//!   safe or keyed? a copy? before the deadline? a token left? ──no──► wait on
//!      │yes
//!      ▼
//!   second try ───────────────────────────────────────────► answer? the first is dropped: cancelled
//! ```
//! A try that fails in a way that may pass leaves the other one its chance. Hedges spend the tokens that retries spend,
//! so that they stay a bounded share of all calls, however slow the callee gets.
//!
//! Source: J. Dean, L. A. Barroso, "The Tail at Scale", Communications of the ACM 56 (2), 2013.

mod layer;
mod spec;
mod state;

pub use layer::{HedgeLayer, HedgeService, Hedges, ResponseFuture};
pub use spec::{Checked, LONGEST_DELAY, Spec};
pub use state::Latencies;

use crate::record::INPUTS;

/// Decides a recorded question of a hedge again: the verdict it must have had. None if this version has no such
/// question. Question 0, "a second try now?", reads the safety, the deadline and whether the budget had a token.
pub fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    state::replay(question, at, inputs)
}
