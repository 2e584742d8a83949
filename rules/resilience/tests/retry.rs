//! The rules of a retry as given / when / then, and its laws as properties.

#![allow(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic, RetryBucket, RetryTokens};
use mainstay_resilience::retry::{Budget, Checked, Decision, Jitter, Reason, Spec, State, Unbudgeted};
use mainstay_resilience::{Outcome, Safety};
use proptest::prelude::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An arbitrary reading of a monotonic clock.
const START: Monotonic = Monotonic::from_origin(secs(5_000));

/// A failure that only the settings, the budget or the deadline can keep from being retried.
const FAILED: Outcome = Outcome::TRANSIENT;

fn checked(spec: Spec) -> Checked {
    spec.check().unwrap()
}

/// The waits of one call all of whose tries fail, each retried as soon as it may be, and why it ended.
fn waits(mut state: State<impl Budget>, mut draw: impl FnMut() -> u64) -> (Vec<Duration>, Reason) {
    let (mut now, mut waited) = (START, Vec::new());
    loop {
        match state.after(now, FAILED, Safety::Safe, draw()) {
            Decision::RetryAfter(wait) => {
                now = now + wait;
                waited.push(wait);
            }
            Decision::GiveUp(reason) => return (waited, reason),
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): chance that is the same on every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

// ---- the waits -----------------------------------------------------------------------------------------

#[test]
fn without_jitter_the_waits_are_exactly_1_2_4_8_seconds() {
    let state = State::new(checked(Spec::exact(secs(1), secs(8))), START, None, Unbudgeted);
    // Whatever the draw: jitter that is off uses none.
    let (waited, reason) = waits(state, {
        let mut chance = Seeded(1);
        move || chance.next()
    });
    assert_eq!(waited, [secs(1), secs(2), secs(4), secs(8)]);
    assert_eq!(reason, Reason::AttemptsExhausted);
}

#[test]
fn without_jitter_the_waits_stay_at_the_cap_once_there() {
    let spec = Spec::exact(secs(1), secs(5)).max_attempts(7);
    let (waited, _) = waits(State::new(checked(spec), START, None, Unbudgeted), || 0);
    assert_eq!(waited, [secs(1), secs(2), secs(4), secs(5), secs(5), secs(5)]);
}

#[test]
fn the_growth_is_the_factor() {
    let spec = Spec::exact(ms(10), secs(9)).factor(3);
    let (waited, _) = waits(State::new(checked(spec), START, None, Unbudgeted), || 0);
    assert_eq!(waited, [ms(10), ms(30), ms(90), ms(270)]);
}

#[test]
fn a_tiny_base_grows_step_by_step_all_the_way_to_the_cap() {
    // 2³² no longer fits in 32 bits, and 2⁶⁴ not in 64: neither may jump to the cap early, or fall below it.
    let nano = Duration::from_nanos(1);
    let settings = checked(Spec::exact(nano, secs(24 * 60 * 60)));
    for (retry, expected) in [
        (31, Duration::from_nanos(1 << 31)),
        (32, Duration::from_nanos(1 << 32)),
        (46, Duration::from_nanos(1 << 46)),
        (47, secs(24 * 60 * 60)),
        (64, secs(24 * 60 * 60)),
        (128, secs(24 * 60 * 60)),
        (u32::MAX, secs(24 * 60 * 60)),
    ] {
        assert_eq!(settings.ceiling(retry), expected, "retry {retry}");
    }
}

#[test]
fn full_jitter_spans_zero_to_the_exponential_ceiling() {
    let spec = checked(Spec::full_jitter(secs(1), secs(8)).max_attempts(6));
    let (shortest, _) = waits(State::new(spec, START, None, Unbudgeted), || 0);
    let (longest, _) = waits(State::new(spec, START, None, Unbudgeted), || u64::MAX);
    assert_eq!(shortest, [Duration::ZERO; 5]);
    assert_eq!(longest, [secs(1), secs(2), secs(4), secs(8), secs(8)]);
    assert_eq!(longest, (0..5).map(|retry| spec.ceiling(retry)).collect::<Vec<_>>());
}

#[test]
fn decorrelated_jitter_spans_base_to_three_times_the_wait_before_it() {
    let spec = checked(Spec::decorrelated(secs(1), secs(20)));
    let (shortest, _) = waits(State::new(spec, START, None, Unbudgeted), || 0);
    let (longest, _) = waits(State::new(spec, START, None, Unbudgeted), || u64::MAX);
    assert_eq!(shortest, [secs(1); 4], "three times the last wait is a ceiling, not a floor");
    assert_eq!(longest, [secs(3), secs(9), secs(20), secs(20)]);
    assert_eq!(longest, (0..4).map(|retry| spec.ceiling(retry)).collect::<Vec<_>>());

    // given a first draw half-way (2 s), when the second is the highest, then it is three times that
    let mut state = State::new(spec, START, None, Unbudgeted);
    let first = state.after(START, FAILED, Safety::Safe, 1 << 63);
    assert_eq!(first, Decision::RetryAfter(secs(2)));
    assert_eq!(state.after(START + secs(2), FAILED, Safety::Safe, u64::MAX), Decision::RetryAfter(secs(6)));
}

// ---- spreading at the cap ------------------------------------------------------------------------------

/// What 2,000 callers, failing together from the start, wait before their 8th retry.
fn eighth_waits(spec: Spec) -> Vec<Duration> {
    let mut chance = Seeded(20_150_304);
    let spec = checked(spec.max_attempts(9));
    (0..2_000)
        .map(|_| {
            let (waited, _) = waits(State::new(spec, START, None, Unbudgeted), || chance.next());
            assert_eq!(waited.len(), 8);
            waited[7]
        })
        .collect()
}

/// The Kolmogorov–Smirnov distance between a sample and the uniform distribution on `[0, top]`.
fn distance_from_uniform(mut sample: Vec<Duration>, top: Duration) -> f64 {
    sample.sort();
    let n = sample.len() as f64;
    let steps = sample.iter().enumerate().map(|(i, wait)| {
        let at = wait.as_secs_f64() / top.as_secs_f64();
        let (below, upto) = (i as f64 / n, (i + 1) as f64 / n);
        (at - below).abs().max((upto - at).abs())
    });
    steps.fold(0.0, f64::max)
}

/// The distance that 1 in 100 truly uniform samples of this size would exceed (asymptotic, n > 35).
fn accepted_distance(n: usize) -> f64 {
    1.628 / (n as f64).sqrt()
}

#[test]
fn at_the_cap_full_jitter_is_still_uniform_and_nobody_waits_longer() {
    let cap = ms(1_600);
    let sample = eighth_waits(Spec::full_jitter(ms(100), cap));
    assert!(sample.iter().all(|wait| *wait <= cap));
    let distance = distance_from_uniform(sample, cap);
    assert!(distance < accepted_distance(2_000), "Kolmogorov–Smirnov distance {distance:.4}");
}

/// Not a wish but the published formula, which its documentation warns of: two in five exactly at the cap.
#[test]
fn at_the_cap_decorrelated_jitter_piles_up_as_its_documentation_says() {
    let cap = ms(1_600);
    let sample = eighth_waits(Spec::decorrelated(ms(100), cap));
    assert!(sample.iter().all(|wait| (ms(100)..=cap).contains(wait)));
    let at_cap = sample.iter().filter(|wait| **wait == cap).count();
    assert!((700..900).contains(&at_cap), "{at_cap} of 2,000 wait exactly the cap");
}

// ---- whether to retry at all ---------------------------------------------------------------------------

#[test]
fn only_a_transient_failure_of_a_safe_or_keyed_request_is_retried() {
    use Safety::{Keyed, Safe, Unsafe};
    let give_up = Decision::GiveUp;
    for (outcome, safety, expected) in [
        (FAILED, Safe, Decision::RetryAfter(secs(1))),
        (FAILED, Keyed, Decision::RetryAfter(secs(1))),
        (FAILED, Unsafe, give_up(Reason::NotSafe)),
        (Outcome::Permanent, Unsafe, give_up(Reason::Permanent)),
        (Outcome::Permanent, Safe, give_up(Reason::Permanent)),
        (Outcome::Permanent, Keyed, give_up(Reason::Permanent)),
        (Outcome::Cancelled, Safe, give_up(Reason::Cancelled)),
        (Outcome::Success, Safe, give_up(Reason::Permanent)),
        // A server's invitation does not make repeating safe.
        (FAILED.after(secs(1)), Unsafe, give_up(Reason::NotSafe)),
    ] {
        let mut state = State::new(checked(Spec::exact(secs(1), secs(8))), START, None, Unbudgeted);
        assert_eq!(state.after(START, outcome, safety, 0), expected, "{outcome:?} {safety:?}");
    }
}

#[test]
fn one_attempt_means_no_retry() {
    let spec = checked(Spec::exact(secs(1), secs(8)).max_attempts(1));
    let (waited, reason) = waits(State::new(spec, START, None, Unbudgeted), || 0);
    assert_eq!((waited, reason), (vec![], Reason::AttemptsExhausted));
}

// ---- Retry-After ---------------------------------------------------------------------------------------

#[test]
fn the_later_of_backoff_and_retry_after_is_waited() {
    let spec = checked(Spec::exact(secs(2), secs(4)));
    for (asked, waited) in [(secs(1), secs(2)), (secs(2), secs(2)), (secs(30), secs(30))] {
        let mut state = State::new(spec, START, None, Unbudgeted);
        let verdict = state.after(START, FAILED.after(asked), Safety::Safe, 0);
        assert_eq!(verdict, Decision::RetryAfter(waited), "server asked for {asked:?}");
    }
}

#[test]
fn a_retry_after_beyond_the_deadline_gives_up_at_once_and_keeps_the_token() {
    let budget = Counted::new(1);
    let spec = checked(Spec::exact(secs(1), secs(8)));
    let mut state = State::new(spec, START, Some(Deadline::after(START, secs(20))), &budget);
    let verdict = state.after(START, FAILED.after(secs(20)), Safety::Safe, 0);
    assert_eq!(verdict, Decision::GiveUp(Reason::DeadlineTooNear));
    assert_eq!(budget.0.get(), 1);
}

#[test]
fn a_server_cannot_park_a_call_that_has_no_deadline() {
    let longest = mainstay_resilience::retry::LONGEST_WAIT;
    for (asked, expected) in [
        (longest, Decision::RetryAfter(longest)),
        (longest + Duration::from_nanos(1), Decision::GiveUp(Reason::DeadlineTooNear)),
        (Duration::MAX, Decision::GiveUp(Reason::DeadlineTooNear)),
    ] {
        let mut state = State::new(Checked::default(), START, None, Unbudgeted);
        assert_eq!(state.after(START, FAILED.after(asked), Safety::Safe, 0), expected, "{asked:?}");
    }
}

#[test]
fn a_long_retry_after_does_not_stretch_later_backoffs() {
    let spec = checked(Spec::decorrelated(secs(1), secs(100)));
    let mut state = State::new(spec, START, None, Unbudgeted);
    assert_eq!(state.after(START, FAILED.after(secs(50)), Safety::Safe, 0), Decision::RetryAfter(secs(50)));
    assert_eq!(state.after(START + secs(50), FAILED, Safety::Safe, u64::MAX), Decision::RetryAfter(secs(3)));
}

// ---- the deadline --------------------------------------------------------------------------------------

#[test]
fn a_wait_that_would_reach_the_deadline_is_not_begun() {
    let spec = checked(Spec::exact(secs(1), secs(8)));
    let nano = Duration::from_nanos(1);
    for (deadline, expected) in [
        (START + secs(1) + nano, Decision::RetryAfter(secs(1))),
        (START + secs(1), Decision::GiveUp(Reason::DeadlineTooNear)),
        (START, Decision::GiveUp(Reason::DeadlineTooNear)),
        (Monotonic::default(), Decision::GiveUp(Reason::DeadlineTooNear)),
    ] {
        let mut state = State::new(spec, START, Some(Deadline::at(deadline)), Unbudgeted);
        assert_eq!(state.after(START, FAILED, Safety::Safe, 0), expected, "deadline {deadline:?}");
    }
}

#[test]
fn the_earlier_of_the_calls_deadline_and_the_total_holds() {
    let total = |total| checked(Spec::exact(secs(1), secs(8)).total(total));
    for (case, spec, deadline, expected) in [
        ("total alone", total(secs(4)), None, vec![secs(1), secs(2)]),
        ("total earlier", total(secs(4)), Some(Deadline::after(START, secs(60))), vec![secs(1), secs(2)]),
        ("deadline earlier", total(secs(60)), Some(Deadline::after(START, secs(3))), vec![secs(1)]),
    ] {
        let (waited, reason) = waits(State::new(spec, START, deadline, Unbudgeted), || 0);
        assert_eq!((waited, reason), (expected, Reason::DeadlineTooNear), "{case}");
    }
}

#[test]
fn time_spent_in_the_tries_counts_against_the_total() {
    // given a total of 10 s, when the first try alone took 9.5 s, then a 1 s wait is refused
    let spec = checked(Spec::exact(secs(1), secs(8)).total(secs(10)));
    let mut state = State::new(spec, START, None, Unbudgeted);
    let verdict = state.after(START + ms(9_500), FAILED, Safety::Safe, 0);
    assert_eq!(verdict, Decision::GiveUp(Reason::DeadlineTooNear));
}

#[test]
fn a_clock_at_its_very_end_overflows_nothing() {
    let end = Monotonic::from_origin(Duration::MAX);
    for (total, expected) in
        [(None, Decision::RetryAfter(secs(1))), (Some(secs(10)), Decision::GiveUp(Reason::DeadlineTooNear))]
    {
        let spec = checked(Spec { total, ..Spec::exact(secs(1), secs(8)) });
        let mut state = State::new(spec, end, None, Unbudgeted);
        assert_eq!(state.after(end, FAILED, Safety::Safe, 0), expected);
    }
}

// ---- the budget ----------------------------------------------------------------------------------------

/// Whole tokens, counted: a budget of the caller's own making.
#[derive(Debug)]
struct Counted(Cell<u32>);

impl Counted {
    const fn new(tokens: u32) -> Self {
        Counted(Cell::new(tokens))
    }
}

impl Budget for Counted {
    fn spend(&self) -> bool {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

#[test]
fn an_empty_budget_ends_the_retries() {
    let spec = checked(Spec::exact(secs(1), secs(8)));
    let (waited, reason) = waits(State::new(spec, START, None, Counted::new(2)), || 0);
    assert_eq!((waited, reason), (vec![secs(1), secs(2)], Reason::BudgetEmpty));
}

#[test]
fn giving_up_for_another_reason_spends_nothing() {
    let spec = Spec::exact(secs(1), secs(8));
    for (case, spec, deadline, outcome, safety) in [
        ("permanent", spec, None, Outcome::Permanent, Safety::Safe),
        ("cancelled", spec, None, Outcome::Cancelled, Safety::Safe),
        ("not safe", spec, None, FAILED, Safety::Unsafe),
        ("attempts", spec.max_attempts(1), None, FAILED, Safety::Safe),
        ("deadline", spec, Some(Deadline::at(START)), FAILED, Safety::Safe),
    ] {
        let budget = Counted::new(3);
        let mut state = State::new(checked(spec), START, deadline, &budget);
        assert!(matches!(state.after(START, outcome, safety, 0), Decision::GiveUp(_)), "{case}");
        assert_eq!(budget.0.get(), 3, "{case}");
    }
}

#[test]
fn all_calls_of_one_request_share_its_envelopes_tokens() {
    // given a request with two tokens, when three calls made for it fail, then they retry twice in all
    let tokens = RetryTokens::new(2);
    let spec = Spec::exact(secs(1), secs(8));
    let retries = [2, 5, 5].map(|max_attempts| {
        let state = State::new(checked(spec.max_attempts(max_attempts)), START, None, tokens.clone());
        let (waited, reason) = waits(state, || 0);
        (waited.len(), reason)
    });
    let expected = [(1, Reason::AttemptsExhausted), (1, Reason::BudgetEmpty), (0, Reason::BudgetEmpty)];
    assert_eq!(retries, expected);
    assert_eq!(tokens.left(), 0);
}

#[test]
fn ten_calls_of_a_client_pay_for_one_retry() {
    let bucket = Arc::new(RetryBucket::empty());
    let spec = checked(Spec::exact(secs(1), secs(8)));
    let retries = [(); 20].map(|()| {
        // Both ways of sharing one bucket count the call.
        let (by_reference, _) = waits(State::new(spec, START, None, &*bucket), || 0);
        let (by_handle, _) = waits(State::new(spec, START, None, Arc::clone(&bucket)), || 0);
        by_reference.len() + by_handle.len()
    });
    assert_eq!(retries.iter().sum::<usize>(), 4, "{retries:?}");
    assert_eq!(bucket.whole(), 0);
}

// ---- laws ----------------------------------------------------------------------------------------------

prop_compose! {
    fn any_spec()(
        // Tiny ones often: only they grow through many retries before the cap.
        base in prop_oneof![1_u64..=1_000, 1_u64..=10_000_000_000],
        room in 0_u64..=100_000_000_000,
        factor in 2_u32..=10,
        jitter in prop_oneof![Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Decorrelated)],
        max_attempts in 1_u32..=60,
    ) -> Spec {
        let base = Duration::from_nanos(base);
        Spec { base, cap: base + Duration::from_nanos(room), factor, jitter, max_attempts, total: None }
    }
}

proptest! {
    #[test]
    fn no_backoff_is_above_the_cap_or_its_ceiling(spec in any_spec(), seed: u64) {
        let settings = checked(spec);
        let mut chance = Seeded(seed);
        let (waited, reason) = waits(State::new(settings, START, None, Unbudgeted), || chance.next());
        prop_assert_eq!(reason, Reason::AttemptsExhausted);
        prop_assert_eq!(waited.len() as u32, spec.max_attempts - 1);
        for (retry, wait) in (0_u32..).zip(waited) {
            prop_assert!(wait <= spec.cap, "retry {}: {:?}", retry, wait);
            prop_assert!(wait <= settings.ceiling(retry), "retry {}: {:?}", retry, wait);
            if spec.jitter != Jitter::Full {
                prop_assert!(wait >= spec.base, "retry {}: {:?}", retry, wait);
            }
        }
    }

    #[test]
    fn no_retry_starts_at_its_deadline_or_after_it_and_none_before_its_retry_after(
        spec in any_spec(),
        allowed in 0_u64..=200_000_000_000,
        total in proptest::option::of(20_000_000_000_u64..=200_000_000_000),
        // (how long the try took, Retry-After, draw), in nanoseconds
        tries in proptest::collection::vec(
            (0_u64..=2_000_000_000, proptest::option::of(0_u64..=400_000_000_000), any::<u64>()),
            1..60,
        ),
    ) {
        let spec = Spec { total: total.map(Duration::from_nanos), ..spec };
        let deadline = START + Duration::from_nanos(allowed);
        let mut state = State::new(checked(spec), START, Some(Deadline::at(deadline)), Unbudgeted);
        let last = spec.total.map_or(deadline, |total| deadline.min(START + total));
        let mut now = START;
        for (took, asked, draw) in tries {
            now = now + Duration::from_nanos(took);
            let asked = asked.map(Duration::from_nanos);
            match state.after(now, Outcome::Transient { retry_after: asked }, Safety::Safe, draw) {
                Decision::RetryAfter(wait) => {
                    prop_assert!(now + wait < last);
                    prop_assert!(wait >= asked.unwrap_or_default());
                    now = now + wait;
                }
                Decision::GiveUp(Reason::DeadlineTooNear) => {
                    // Not given up lightly: even the longest wait there was to choose reaches the deadline.
                    let longest = checked(spec).ceiling(state.failures() - 1).max(asked.unwrap_or_default());
                    prop_assert!(now + longest >= last);
                    break;
                }
                Decision::GiveUp(reason) => {
                    prop_assert_eq!(reason, Reason::AttemptsExhausted);
                    break;
                }
            }
        }
    }

    #[test]
    fn retries_in_all_are_never_more_than_the_tokens(
        tokens in 0_u32..40,
        calls in proptest::collection::vec((any_spec(), any::<u64>()), 1..20),
    ) {
        let budget = Counted::new(tokens);
        let mut retries = 0;
        let mut wanted = 0;
        for (spec, seed) in calls {
            let mut chance = Seeded(seed);
            let (waited, _) = waits(State::new(checked(spec), START, None, &budget), || chance.next());
            retries += waited.len() as u32;
            wanted += spec.max_attempts - 1;
        }
        prop_assert_eq!(retries, wanted.min(tokens));
        prop_assert_eq!(budget.0.get(), tokens - retries);
    }

    #[test]
    fn every_ceiling_is_the_one_before_it_times_the_factor_up_to_the_cap(spec in any_spec()) {
        let settings = checked(spec);
        let first = if spec.jitter == Jitter::Decorrelated { spec.base * spec.factor } else { spec.base };
        let mut expected = first.min(spec.cap);
        for retry in 0..80 {
            prop_assert_eq!(settings.ceiling(retry), expected, "retry {}", retry);
            expected = (expected * spec.factor).min(spec.cap);
        }
    }

    #[test]
    fn a_ceiling_exists_for_every_retry_number_and_never_falls(spec in any_spec(), retry: u32) {
        let settings = checked(spec);
        prop_assert!(settings.ceiling(retry) <= settings.ceiling(retry.saturating_add(1)));
        prop_assert!(settings.ceiling(retry) >= spec.base);
        prop_assert_eq!(settings.ceiling(u32::MAX), spec.cap);
    }
}
