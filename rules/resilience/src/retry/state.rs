//! The decision: pure. `now` and chance come in, a verdict goes out; waiting is the caller's.

use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic, RetryTokens};

use super::budget::Budget;
#[cfg(any(test, feature = "stack"))]
use super::spec::Spec;
use super::spec::{Checked, Jitter, LONGEST_WAIT};
use crate::outcome::{Outcome, Safety};

/// The verdict after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a verdict that nobody follows has still spent a token"]
pub enum Decision {
    /// Wait this long from `now`, then try again. One token has been spent.
    RetryAfter(Duration),
    /// Hand the failure to the caller at once. No token was spent for this verdict.
    GiveUp(Reason),
}

/// Why there is no further try. Where several reasons hold, the first in this order is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// The call was cancelled: nobody waits for its answer.
    #[error("not retried: the call was cancelled, so nobody waits for another try")]
    Cancelled,
    /// The failure was classified permanent.
    #[error(
        "not retried: the failure is permanent, so the same request would fail again; change the request"
    )]
    Permanent,
    /// The request may have taken effect and carries no idempotency key.
    #[error(
        "not retried: the request may have taken effect and repeating it is not safe; \
         find out whether it did, or give it an idempotency key"
    )]
    NotSafe,
    /// `max_attempts` tries were made.
    #[error("not retried: every attempt that `max_attempts` allows was made; look at the last failure")]
    AttemptsExhausted,
    /// The wait would reach the deadline. (For a call without one: it is longer than
    /// [`LONGEST_WAIT`](super::LONGEST_WAIT).)
    #[error("not retried: the next try would start at the deadline or after it; nothing was waited for")]
    DeadlineTooNear,
    /// The budget has no whole token left.
    #[error(
        "not retried: the retry budget is empty, which means that many calls are failing; \
         look at what is called, more retries would only load it further"
    )]
    BudgetEmpty,
}

/// One call's retries: how many tries were made, what the last wait was, what may still be spent.
///
/// One value for each call, made before its first try; dropped with it. A decision takes some nanoseconds and
/// allocates nothing.
///
/// ```
/// use mainstay_envelope::{Deadline, Monotonic};
/// use mainstay_resilience::retry::{Decision, Reason, Spec, State, Unbudgeted};
/// use mainstay_resilience::{Outcome, Safety};
/// use std::time::Duration;
///
/// let spec = Spec::exact(Duration::from_secs(1), Duration::from_secs(8)).check()?;
/// let start = Monotonic::from_origin(Duration::from_secs(1_000));   // a reading of the caller's clock
/// let deadline = Deadline::after(start, Duration::from_secs(10));
/// let mut state = State::new(spec, start, Some(deadline), Unbudgeted);
///
/// let mut now = start;
/// let why = loop {
///     match state.after(now, Outcome::TRANSIENT, Safety::Safe, 0) {
///         Decision::RetryAfter(wait) => now = now + wait,   // a real caller sleeps, and tries again
///         Decision::GiveUp(reason) => break reason,
///     }
/// };
/// assert_eq!(now, start + Duration::from_secs(1 + 2 + 4));
/// assert_eq!(why, Reason::DeadlineTooNear);            // 8 s more would have ended past it
/// # Ok::<(), mainstay_resilience::retry::Invalid>(())
/// ```
#[derive(Debug)]
pub struct State<B = RetryTokens> {
    settings: Checked,
    budget: B,
    deadline: Option<Deadline>,
    failures: u32,
    previous: Duration,
}

impl<B: Budget> State<B> {
    /// Begins a call at `now`, and counts it in `budget`.
    ///
    /// `now` is a reading of the clock that `deadline` refers to. `deadline` is the call's own; with
    /// [`Spec::total`](super::Spec::total) set, the earlier of the two holds. `budget` is what the retries may
    /// spend: a handle on the tokens of the call's envelope, or on a bucket that the caller shares between its
    /// calls; [`Unbudgeted`](super::Unbudgeted) has to be asked for by name.
    pub fn new(settings: Checked, now: Monotonic, deadline: Option<Deadline>, budget: B) -> Self {
        budget.begin();
        let total_ends = settings.spec().total.map(|total| Deadline::after(now, total));
        let deadline = match (deadline, total_ends) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        State { settings, budget, deadline, failures: 0, previous: settings.spec().base }
    }

    /// Decides what follows a try that failed, as known at `now`. To be called once for each failed try.
    ///
    /// `safety` is asked anew with every failure, because the failure can change it. `draw` is 64 uniform random
    /// bits; settings without jitter ignore it. The wait is the later of the backoff and the server's Retry-After, and it never ends at the deadline or after it: such a retry is
    /// given up at once. Only a verdict to retry spends a token.
    pub fn after(&mut self, now: Monotonic, outcome: Outcome, safety: Safety, draw: u64) -> Decision {
        let retry = self.failures;
        // Saturating: past 4 billion tries only the limit matters, and it is not larger.
        self.failures = self.failures.saturating_add(1);

        let retry_after = match outcome {
            Outcome::Transient { retry_after } => retry_after.unwrap_or(Duration::ZERO),
            Outcome::Cancelled => return Decision::GiveUp(Reason::Cancelled),
            // A success is not to be repeated either, should a caller ask.
            Outcome::Permanent | Outcome::Success => return Decision::GiveUp(Reason::Permanent),
        };
        if !safety.allows_repeating() {
            return Decision::GiveUp(Reason::NotSafe);
        }
        if self.failures >= self.settings.spec().max_attempts {
            return Decision::GiveUp(Reason::AttemptsExhausted);
        }
        let backoff = self.settings.backoff(retry, self.previous, draw);
        let wait = backoff.max(retry_after);
        if !self.ends_in_time(now, wait) {
            return Decision::GiveUp(Reason::DeadlineTooNear);
        }
        // Last, so that a retry refused for another reason costs the other calls nothing.
        if !self.budget.spend() {
            return Decision::GiveUp(Reason::BudgetEmpty);
        }
        // The backoff, not the wait: one long Retry-After must not stretch every later decorrelated draw.
        self.previous = backoff;
        Decision::RetryAfter(wait)
    }

    fn ends_in_time(&self, now: Monotonic, wait: Duration) -> bool {
        // The first bound is for calls without a deadline, whose wait a server would otherwise choose.
        wait <= LONGEST_WAIT && self.deadline.is_none_or(|deadline| wait < deadline.remaining(now))
    }

    /// What its retries spend.
    #[cfg(feature = "stack")]
    pub(super) fn budget(&self) -> &B {
        &self.budget
    }

    /// What the verdict about this failure is judged by; see [`record`](super::record).
    #[cfg(any(test, feature = "stack"))]
    pub(super) fn judged_by(&self) -> (&Spec, Option<Deadline>, u32, Duration) {
        (self.settings.spec(), self.deadline, self.failures, self.previous)
    }

    /// A state as a recorded decision read it.
    pub(super) fn recorded(
        settings: Checked,
        deadline: Option<Deadline>,
        failures: u32,
        previous: Duration,
        budget: B,
    ) -> Self {
        State { settings, budget, deadline, failures, previous }
    }

    /// Failed tries reported so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

impl Checked {
    /// `min(cap, base·factorⁿ)` for retry n = `retry` (the first retry is 0): the exact wait without jitter, the
    /// upper end with full jitter. Any `retry` is fine: what would overflow is above the cap.
    ///
    /// With decorrelated jitter every ceiling is `min(cap, base·factorⁿ⁺¹)` instead, n draws at the top.
    pub fn ceiling(&self, retry: u32) -> Duration {
        let spec = self.spec();
        let steps = match spec.jitter {
            Jitter::Decorrelated => retry.saturating_add(1),
            Jitter::None | Jitter::Full => retry,
        };
        // In 128 bits, where what overflows is far above every cap; in 32 a tiny base would jump to the cap.
        let exact = u128::from(spec.factor)
            .checked_pow(steps)
            .and_then(|growth| growth.checked_mul(spec.base.as_nanos()));
        match exact.map(u64::try_from) {
            Some(Ok(nanos)) => spec.cap.min(Duration::from_nanos(nanos)),
            _ => spec.cap,
        }
    }

    fn backoff(&self, retry: u32, previous: Duration, draw: u64) -> Duration {
        let spec = self.spec();
        match spec.jitter {
            Jitter::None => self.ceiling(retry),
            Jitter::Full => uniform(Duration::ZERO, self.ceiling(retry), draw),
            Jitter::Decorrelated => {
                let widest = previous.saturating_mul(spec.factor);
                uniform(spec.base, widest, draw).min(spec.cap)
            }
        }
    }
}

/// A whole number of nanoseconds in `[low, high]` from 64 random bits, by the multiply-shift of D. Lemire,
/// "Fast Random Integer Generation in an Interval" (2019), without its rejection step: a day times the
/// largest factor is below 2⁵⁰ ns, so no value is likelier than another by more than one part in 2¹⁴.
fn uniform(low: Duration, high: Duration, draw: u64) -> Duration {
    let width = high.saturating_sub(low).as_nanos() + 1;
    let offset = (u128::from(draw) * width) >> 64;
    // Fits: `checked` settings keep `width` below 2⁵⁰.
    low + Duration::from_nanos(u64::try_from(offset).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::budget::Unbudgeted;
    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_millis(1_600);

    fn at_try(failures: u32, spec: Spec) -> State<Unbudgeted> {
        let mut state = State::new(spec.check().unwrap(), Monotonic::default(), None, Unbudgeted);
        state.failures = failures;
        state
    }

    #[test]
    fn the_last_attempt_number_there_is_neither_wraps_nor_waits_longer_than_the_cap() {
        for spec in [Spec::exact(BASE, CAP), Spec::full_jitter(BASE, CAP), Spec::decorrelated(BASE, CAP)] {
            let spec = spec.max_attempts(u32::MAX);
            // given one try short of the limit, when it fails, then the wait is the cap at most
            let mut state = at_try(u32::MAX - 2, spec);
            match state.after(Monotonic::default(), Outcome::TRANSIENT, Safety::Safe, u64::MAX) {
                Decision::RetryAfter(wait) => assert!(wait <= CAP, "{:?}: {wait:?}", spec.jitter),
                Decision::GiveUp(reason) => panic!("{:?}: {reason}", spec.jitter),
            }
            // and the limit itself holds, however often it is asked again
            for _ in 0..3 {
                let last = state.after(Monotonic::default(), Outcome::TRANSIENT, Safety::Safe, u64::MAX);
                assert_eq!(last, Decision::GiveUp(Reason::AttemptsExhausted), "{:?}", spec.jitter);
            }
            assert_eq!(state.failures(), u32::MAX);
        }
    }

    #[test]
    fn both_ends_of_an_interval_are_reachable_and_nothing_beyond_them() {
        let (low, high) = (Duration::from_nanos(5), Duration::from_nanos(9));
        assert_eq!(uniform(low, high, 0), low);
        assert_eq!(uniform(low, high, u64::MAX), high);
        assert_eq!(uniform(high, low, u64::MAX), high, "an empty interval is its lower end");
        let day = LONGEST_WAIT * super::super::spec::LARGEST_FACTOR;
        assert_eq!(uniform(Duration::ZERO, day, u64::MAX), day);
    }
}
