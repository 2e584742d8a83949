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
//!         answered                Permanent,      NotSafe      Attempts-     Deadline-   BudgetEmpty
//!                                 Cancelled                    Exhausted     TooNear
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
//!
//! # Promises, each with its test (in `tests/retry.rs` unless said otherwise)
//!
//! | promise | test |
//! |---|---|
//! | With jitter off the waits are exactly 1, 2, 4, 8 s, then the cap. | `without_jitter_the_waits_are_exactly_1_2_4_8_seconds`, `without_jitter_the_waits_stay_at_the_cap_once_there` |
//! | Full jitter survives the cap: 2,000 callers there are still uniform. | `at_the_cap_full_jitter_is_still_uniform_and_nobody_waits_longer` |
//! | No backoff is above the cap. | `no_backoff_is_above_the_cap_or_its_ceiling` |
//! | Only a transient failure of a request that is safe or keyed is retried. | `only_a_transient_failure_of_a_safe_or_keyed_request_is_retried` |
//! | A server's Retry-After is never undercut. | `the_later_of_backoff_and_retry_after_is_waited` |
//! | No retry starts at the deadline or after it; the call ends at once instead. | `no_retry_starts_at_its_deadline_or_after_it_and_none_before_its_retry_after` |
//! | A server cannot park a call that has no deadline. | `a_server_cannot_park_a_call_that_has_no_deadline` |
//! | Retries in all are never more than the tokens. | `retries_in_all_are_never_more_than_the_tokens`, `all_calls_of_one_request_share_its_envelopes_tokens`, `ten_calls_of_a_client_pay_for_one_retry` |
//! | Giving up costs no token. | `giving_up_for_another_reason_spends_nothing` |
//! | What was retried, and what the budget refused, is counted, by settings old and new. | `retries_made_and_refused_by_the_budget_are_counted` (`tests/policy.rs`) |
//! | No attempt number overflows. | `the_last_attempt_number_there_is_neither_wraps_nor_waits_longer_than_the_cap` (`src/retry/state.rs`) |
//! | Settings that can't mean what they say are refused, by name. | `each_absurd_setting_is_refused_and_named` (`src/retry/spec.rs`) |
//! | A recorded verdict is decided again, bit for bit. | `a_recorded_verdict_is_decided_again_bit_for_bit` (`src/retry/record.rs`) |

mod budget;
#[cfg(feature = "stack")]
mod layer;
mod record;
mod spec;
mod state;

pub use crate::invalid::Invalid;
pub use budget::{Budget, Unbudgeted};
#[cfg(feature = "stack")]
pub use layer::{ResponseFuture, Retries, RetryLayer, RetryService, Snapshot};
pub use record::replay;
pub use spec::{Checked, Jitter, LARGEST_FACTOR, LONGEST_TOTAL, LONGEST_WAIT, Spec};
pub use state::{Decision, Reason, State};
