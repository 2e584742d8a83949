//! Bulkhead: one callee's trouble fills one callee's compartment, and the others stay dry.
//!
//! **Protects from** the slow callee that in the end holds every thread, connection and buffer of the process, so that
//! calls to healthy ones wait behind it.
//!
//! **Use it** for every callee: permits ([`Bulkhead`]) for what is asynchronous, a [`BlockingPool`] of its own for calls
//! that block a thread (a C library, a synchronous driver), and at the edge of a service for each route. Beside it, give
//! each callee a connection pool of its own: a pool that two share sinks both.
//!
//! **Do not use it** to limit a rate (calls per second: `rate_limit`), or to find the right limit by itself (the adaptive
//! limit of `load_shed`).
//!
//! ```text
//!   a call ──► a permit free and nobody waits? ──yes──► under way ──► ended, failed, cancelled, panicked
//!                     │no                                  ▲                      │
//!                     ▼                                    │ its turn             ▼
//!              room in the queue? ──yes──► waits ──────────┘ ◄──── the permit goes to the first in the queue
//!                     │no                    │
//!                     ▼                      ▼ the deadline, or `wait`, is over
//!                  refused                refused
//! ```
//!
//! A waiting call that is dropped leaves the queue at once; if its turn had just come, the next one gets it. Work in a
//! blocking pool can't be stopped once it runs: it keeps its thread, nobody else's. Work that was dropped, or whose
//! deadline passed, before it began is not begun.

mod blocking;
mod layer;
mod permit;
mod spec;
mod state;

pub use blocking::{BlockingLoad, BlockingPool};
pub use layer::{BulkheadLayer, BulkheadService, ResponseFuture};
pub use permit::{Bulkhead, Entered, Permit, Queued, Snapshot};
pub use spec::{
    BlockingChecked, BlockingSpec, Checked, LONGEST_QUEUE, LONGEST_WAIT, MOST_PERMITS, MOST_THREADS, Spec,
};
pub use state::Load;

use crate::record::INPUTS;

/// Decides a recorded question of a bulkhead again: the verdict it must have had. None if this version has no such
/// question. Question 0, "may this call go?", reads the load and the limits; 1, "has it waited too long?", the time.
pub fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    state::replay(question, at, inputs)
}
