//! What is decided when a call fails: pure rules that any client, server or worker can ask.
//!
//! # What it is
//!
//! One room for each pattern. A rule is data that was checked ([`retry::Spec`]) and a state that answers
//! ([`retry::State`]); the time and the random bits it needs are arguments, so the same inputs give the same
//! verdict in a service, in a test and in a replay.
//!
//! | room | question it answers |
//! |---|---|
//! | [`retry`] | this try failed: again, and when? |
//!
//! # What it is not
//!
//! It makes no call, reads no clock, sleeps nowhere, spawns nothing and draws no chance: whoever asks does.
//! It does not know HTTP, SQL or any error type: the caller says what a failure means.
//!
//! # Smallest example
//!
//! ```
//! use mainstay_envelope::{Monotonic, RetryBucket};
//! use mainstay_resilience::retry::{Decision, Outcome, Reason, Safety, Spec, State};
//! use std::time::Duration;
//!
//! let spec = Spec::exact(Duration::from_secs(1), Duration::from_secs(8)).check()?;
//! let bucket = RetryBucket::new();                                // one for all calls of a client
//! let mut now = Monotonic::default();                             // a clock's reading, here by hand
//! let mut state = State::new(spec, now, None, &bucket);
//!
//! let mut waits = Vec::new();
//! let why = loop {
//!     let failure = Outcome::transient(Safety::Safe);             // the call was made, and failed like this
//!     match state.after(now, failure, 0) {
//!         Decision::RetryAfter(wait) => { waits.push(wait.as_secs()); now = now + wait; }
//!         Decision::GiveUp(reason) => break reason,
//!     }
//! };
//! assert_eq!((waits, why), (vec![1, 2, 4, 8], Reason::AttemptsExhausted));
//! # Ok::<(), mainstay_resilience::retry::Invalid>(())
//! ```
//!
//! A call that carries an envelope spends its tokens instead of the bucket's: see [`retry`].
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
//! | No attempt number overflows. | `the_last_attempt_number_there_is_neither_wraps_nor_waits_longer_than_the_cap` (`src/retry/state.rs`) |
//! | Settings that can't mean what they say are refused, by name. | `each_absurd_setting_is_refused_and_named` (`src/retry/spec.rs`) |
//!
//! # When it fails
//!
//! A rule has nothing that could fail. Settings do: [`retry::Invalid`] names the field. A verdict to give up
//! carries its [`retry::Reason`], whose text says what was not done and where to look.
//!
//! # Floor
//!
//! `rules`: it knows `terms` (the envelope's retry tokens) and nothing above. Engines carry its verdicts out.

pub mod retry;
