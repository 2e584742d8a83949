//! Circuit breaker: a callee that fails is not asked again until it had time to recover.
//!
//! **Protects from** waiting for answers that won't come, and protects the callee from being asked by everybody
//! while it comes back.
//!
//! **Use it** around every callee that can be down: one breaker for each callee, or each endpoint behind a balancer;
//! shared by everybody who calls it.
//!
//! **Do not use it** around your own functions, or one for several callees: the failure of one would close the way to
//! the others. It does not limit what is asked of a slow callee (a bulkhead does) and makes no failed call good.
//!
//! ```text
//!                     a failure or slow call brings a rate to its limit
//!      ┌────────┐  (minimum_calls in the window)               ┌──────┐
//!  ──► │ Closed │ ───────────────────────────────────────────► │ Open │ refuses until open_for is over
//!      │        │                                              │      │ (each time longer, up to open_cap)
//!      └────────┘                 the probes failed, or        └──────┘
//!           ▲                     none was heard of in time     ▲    │ the first call after that
//!           │                  ┌──────────┐                     │    │
//!           └───────────────── │ HalfOpen │ ────────────────────┘    │
//!             they succeeded:  │          │ ◄────────────────────────┘
//!             an empty window  └──────────┘ lets `probes` calls pass and refuses the others;
//!                                           a cancelled probe gives its slot to the next call
//! ```
//!
//! | a call that | closed | as a probe |
//! |---|---|---|
//! | succeeded, or failed permanently (the callee answered) | a success | a success |
//! | failed in a way that may pass, or timed out | a failure | a failure |
//! | was cancelled, or ran into the caller's deadline | nothing; slow, if it took longer than a slow call | gives its slot back; slow likewise |
//! | was refused by a rule of ours further in | nothing | gives its slot back |
//! | began in an earlier phase | nothing | nothing |
//!
//! Rates are compared exactly and in whole numbers. With a count window they are those of exactly the last n calls,
//! however many there were before. One that is divided into shards ([`Spec::shards`]), for threads that all ask at once, is
//! off by a stated number of calls: with E an eighth of n, all its entries but E are among the last n + E calls, and n − 2·E
//! of them at least among the last n.

mod guard;
mod layer;
mod machine;
mod shards;
mod spec;
mod state;
mod window;

pub use guard::Guard;
pub use layer::{CircuitBreakerLayer, CircuitBreakerService, ResponseFuture};
pub use machine::Phase;
pub use spec::{
    Checked, LARGEST_COUNT, LARGEST_GROWTH, LONGEST_TIME, LONGEST_WINDOW, MOST_PROBES, MOST_SHARDS, Mode,
    SHORTEST_WINDOW, Slow, Spec, Window,
};
pub use state::{Change, CircuitBreaker, Snapshot, Ticket};
pub use window::Counts;

use crate::record::INPUTS;

/// Decides a recorded question of a breaker again: the verdict it must have had. None if this version has no such
/// question. Question 0, "may this call pass?", reads the phase, mode and times; 1, "does it open?", the window's
/// counts and the rates; 2, "what does this probe's end mean?", the phase, the end and the rates.
pub fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    machine::replay(question, at, inputs)
}
