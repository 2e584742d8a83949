//! A retry's verdict as numbers, and the same verdict from the numbers.

use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic};

use super::budget::Budget;
use super::spec::{Checked, Jitter, Spec};
use super::state::{Decision, Reason, State};
use crate::outcome::{Outcome, Safety};
use crate::record::INPUTS;

/// "It failed: again, and when?"
pub(super) const AFTER: u8 = 0;

/// A number for none.
const NONE: u64 = u64::MAX;

/// What [`State::after`] is about to be asked, with the state it will read. `draw` as given to it; whether the budget
/// had a token is known only afterwards: [`judged`] puts it in.
#[cfg(any(test, feature = "stack"))]
pub(super) fn inputs<B: Budget>(
    state: &State<B>,
    outcome: Outcome,
    safety: Safety,
    draw: u64,
) -> [u64; INPUTS] {
    let (spec, deadline, failures, previous) = state.judged_by();
    let small = outcome_number(outcome)
        | safety_number(safety) << 2
        | jitter_number(spec.jitter) << 4
        | u64::from(spec.factor) << 6;
    [
        small | whole(spec.base) << 16,
        whole(spec.cap),
        u64::from(failures) << 32 | u64::from(spec.max_attempts),
        whole(previous),
        draw,
        deadline.map_or(NONE, |deadline| crate::record::nanos(deadline.reading())),
        whole(outcome.retry_after().unwrap_or(Duration::ZERO)),
    ]
}

/// Whether the budget had a token, or was not asked.
const HAD_A_TOKEN: u64 = 1 << 12;

/// The inputs with what the verdict tells about the budget, and the verdict as a number.
#[cfg(any(test, feature = "stack"))]
pub(super) fn judged(mut inputs: [u64; INPUTS], decision: Decision) -> ([u64; INPUTS], u64) {
    if decision != Decision::GiveUp(Reason::BudgetEmpty) {
        inputs[0] |= HAD_A_TOKEN;
    }
    (inputs, verdict(decision))
}

fn verdict(decision: Decision) -> u64 {
    match decision {
        Decision::RetryAfter(wait) => whole(wait) << 1 | 1,
        Decision::GiveUp(reason) => {
            let number = match reason {
                Reason::Cancelled => 0,
                Reason::Permanent => 1,
                Reason::NotSafe => 2,
                Reason::AttemptsExhausted => 3,
                Reason::DeadlineTooNear => 4,
                Reason::BudgetEmpty => 5,
            };
            number << 1
        }
    }
}

/// Decides a recorded question of a retry again: the verdict it must have had. None if this version has no such
/// question. Question 0, "it failed: again, and when?", reads the settings, the tries so far, the failure, the draw,
/// the deadline and whether the budget had a token.
pub fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    let [head, cap, attempts, previous, draw, deadline, retry_after] = inputs;
    if question != AFTER {
        return None;
    }
    let spec = Spec {
        base: Duration::from_nanos(head >> 16),
        factor: (head >> 6 & 15) as u32,
        cap: Duration::from_nanos(cap),
        jitter: [Jitter::None, Jitter::Full, Jitter::Decorrelated].get((head >> 4 & 3) as usize).copied()?,
        max_attempts: attempts as u32,
        total: None,
    };
    let outcome = match head & 3 {
        0 => Outcome::Success,
        1 => Outcome::TRANSIENT.after(Duration::from_nanos(retry_after)),
        2 => Outcome::Permanent,
        _ => Outcome::Cancelled,
    };
    let safety = [Safety::Safe, Safety::Keyed, Safety::Unsafe].get((head >> 2 & 3) as usize).copied()?;
    let deadline = (deadline != NONE).then(|| Deadline::at(Monotonic::from_nanos(deadline)));
    let budget = Recorded(head & HAD_A_TOKEN != 0);
    let previous = Duration::from_nanos(previous);
    let mut state =
        State::recorded(Checked::recorded(spec), deadline, (attempts >> 32) as u32, previous, budget);
    Some(verdict(state.after(Monotonic::from_nanos(at), outcome, safety, draw)))
}

/// What the budget answered then.
struct Recorded(bool);

impl Budget for Recorded {
    fn spend(&self) -> bool {
        self.0
    }
}

/// In nanoseconds. Checked settings are below 2⁴⁷; a server's wish may be anything, and all above a day is refused.
fn whole(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(any(test, feature = "stack"))]
fn outcome_number(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Success => 0,
        Outcome::Transient { .. } => 1,
        Outcome::Permanent => 2,
        Outcome::Cancelled => 3,
    }
}

#[cfg(any(test, feature = "stack"))]
fn safety_number(safety: Safety) -> u64 {
    match safety {
        Safety::Safe => 0,
        Safety::Keyed => 1,
        Safety::Unsafe => 2,
    }
}

#[cfg(any(test, feature = "stack"))]
fn jitter_number(jitter: Jitter) -> u64 {
    match jitter {
        Jitter::None => 0,
        Jitter::Full => 1,
        Jitter::Decorrelated => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_recorded_verdict_is_decided_again_bit_for_bit(
            base in 1_u64..=86_400_000_000_000, room in 0_u64..=1_000_000_000,
            factor in 1_u32..=10, max_attempts: u32, failures in 0..=u32::MAX,
            (jitter, safety, kind) in (0_usize..3, 0_usize..3, 0_usize..4),
            (at, draw) in (any::<u64>(), any::<u64>()),
            deadline in prop::option::of(any::<u64>()), retry_after in prop::option::of(any::<u64>()),
            had_a_token: bool,
        ) {
            let jitter = [Jitter::None, Jitter::Full, Jitter::Decorrelated][jitter];
            let safety = [Safety::Safe, Safety::Keyed, Safety::Unsafe][safety];
            let transient = Outcome::Transient { retry_after: retry_after.map(Duration::from_nanos) };
            let outcome = [Outcome::Success, transient, Outcome::Permanent, Outcome::Cancelled][kind];
            let base = Duration::from_nanos(base);
            let cap = (base + Duration::from_nanos(room)).min(super::super::spec::LONGEST_WAIT);
            let spec = Spec { base, factor, cap, jitter, max_attempts, total: None };
            // One that the end of time could not be told from "none".
            let deadline = deadline.map(|nanos| Deadline::at(Monotonic::from_nanos(nanos.min(NONE - 1))));
            let settings = Checked::recorded(spec);
            let mut state = State::recorded(settings, deadline, failures, base, Recorded(had_a_token));
            let inputs = inputs(&state, outcome, safety, draw);
            let decision = state.after(Monotonic::from_nanos(at), outcome, safety, draw);
            let (inputs, verdict) = judged(inputs, decision);
            prop_assert_eq!(replay(AFTER, at, inputs), Some(verdict));
        }
    }
}
