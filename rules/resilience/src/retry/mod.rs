//! Retry: a failure that passes by itself is not handed to the caller.
//!
//! **Protects from** the short failure: a dropped connection, a node being replaced, a conflict with a
//! concurrent write. And from what retries do to others: callers that come back together (jitter), callers
//! that come back more often than the callee can bear (budget), callers that come back for an answer that
//! nobody waits for any more (deadline).
//!
//! **Use it** where a second try has a chance and does no harm: reads, idempotent writes, requests with an
//! idempotency key, conflicts that were refused with nothing written.
//!
//! **Do not use it** for a request that may have taken effect and carries no key; around something that
//! already retries (each layer multiplies the one below it; only a shared budget bounds the product); to wait
//! for a callee that is down for minutes (that is for a circuit breaker, or for a message in a queue); or for
//! what must happen in the end whatever it takes (that is a fact, with an outbox).
//!
//! ```text
//!            ┌───────────────── RetryAfter(wait): the caller waits, then tries again ─────────────┐
//!            ▼                                                                                    │
//!   new ── trying ── it failed ──► transient? ► safe or keyed? ► tries left? ► in time? ► token? ─┘
//!            │                         │no           │no            │no          │no        │no
//!            ▼                         ▼             ▼              ▼            ▼          ▼
//!         answered                 Permanent      NotSafe      Attempts-     Deadline-   BudgetEmpty
//!                                                              Exhausted     TooNear
//!                                  └───────────────────── GiveUp(reason) ───────────────────┘
//! ```
//!
//! The questions are asked in this order, so the reason given is the first that holds, and the token is
//! spent only when nothing else stands against the retry.
//!
//! Waits come from [`Spec`]: exponential up to a cap, with [`Jitter`]. What they may spend is a [`Budget`]:
//!
//! | caller | budget |
//! |---|---|
//! | a call with an envelope | a clone (a handle) of its [`RetryTokens`](mainstay_envelope::RetryTokens) |
//! | a client without one | a reference to the [`RetryBucket`](mainstay_envelope::RetryBucket) that its calls share |
//! | one loop that retries its own work | [`Unbudgeted`], by name: `max_attempts` and the deadline bound it |

mod budget;
mod spec;
mod state;

pub use budget::{Budget, Unbudgeted};
pub use spec::{Checked, Invalid, Jitter, LARGEST_FACTOR, LONGEST_TOTAL, LONGEST_WAIT, Spec};
pub use state::{Class, Decision, Outcome, Reason, Safety, State};
