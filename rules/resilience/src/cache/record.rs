//! A cache's decisions as numbers, and those numbers decided again.
//!
//! | question | inputs | verdict |
//! |---|---|---|
//! | 0: what is kept, what is it good for? | kind, held and δ; early from; expiry; β; draw; how long stale: while revalidated, for errors | [`Verdict`] |
//! | 1: nothing usable is kept; join, load, neither? | deadline; waiting, and how many may; whether there is a load to join; loading, and how many may | [`Admission`] |
//! | 2: no answer; the stale value in its place? | whether the error may pass; expiry; how long stale: while revalidated, for errors | 1: yes |
//!
//! Refusals, stale answers, early refreshes and remembered failures are notable. Hits, misses, loads and who joins one are
//! kept where everything is. The key is not among the inputs: no verdict depends on it.

use std::time::Duration;

use mainstay_envelope::Monotonic;

use super::spec::Spec;
use super::state::{Admission, Arrival, Found, Times, Verdict};
use crate::record::{INPUTS, Recorder, nanos};
use crate::refusal::{DecisionId, Rule};

const LOOK: u8 = 0;
const ADMIT: u8 = 1;
const INSTEAD: u8 = 2;

/// In place of a deadline: there is none.
const NONE: u64 = u64::MAX;

/// Notes what was found and what it was good for. `draw`: as it was drawn; 0 where chance was not asked.
pub(super) fn look(
    recorder: &Recorder,
    now: Monotonic,
    found: &Found,
    spec: &Spec,
    draw: u64,
    verdict: Verdict,
) {
    let plain = matches!(verdict, Verdict::Fresh | Verdict::Absent | Verdict::Load);
    if plain && !recorder.keeps_all() {
        return;
    }
    let (head, early_from, expiry) = match found {
        Found::Nothing => (0, 0, 0),
        Found::Value { times, held } => {
            // What is kept has it in microseconds, in 32 bits.
            let delta = u64::try_from(times.delta.as_micros()).unwrap_or(u64::MAX) << 32;
            (1 | u64::from(*held) << 8 | delta, nanos(times.early_from), nanos(times.expiry))
        }
        Found::Absent { until } => (2, 0, nanos(*until)),
        Found::Failed { until } => (3, 0, nanos(*until)),
    };
    let [revalidate, errors] = stale(spec);
    let inputs = [head, early_from, expiry, spec.early_refresh.to_bits(), draw, revalidate, errors];
    recorder.notable(Rule::Cache, LOOK, now, inputs, verdict as u64);
}

/// Notes who may join or load, and who may not; the name of a refusal.
pub(super) fn admit(
    recorder: &Recorder,
    now: Monotonic,
    arrival: &Arrival,
    admission: Admission,
) -> DecisionId {
    let plain = matches!(admission, Admission::Join | Admission::Load);
    if plain && !recorder.keeps_all() {
        return DecisionId::UNRECORDED;
    }
    let inputs = [
        arrival.until.map_or(NONE, nanos),
        arrival.waiting as u64,
        arrival.waiters_max as u64,
        u64::from(arrival.under_way),
        arrival.loading as u64,
        arrival.loads_max as u64,
        0,
    ];
    recorder.notable(Rule::Cache, ADMIT, now, inputs, admission as u64)
}

/// Notes whether a stale value was given in place of an error or a refusal.
pub(super) fn instead(
    recorder: &Recorder,
    now: Monotonic,
    passing: bool,
    times: &Times,
    spec: &Spec,
    given: bool,
) {
    if !given && !recorder.keeps_all() {
        return;
    }
    let [revalidate, errors] = stale(spec);
    let inputs = [u64::from(passing), nanos(times.expiry), revalidate, errors, 0, 0, 0];
    recorder.notable(Rule::Cache, INSTEAD, now, inputs, u64::from(given));
}

fn stale(spec: &Spec) -> [u64; 2] {
    [spec.stale_while_revalidate, spec.stale_if_error].map(|time| nanos(Monotonic::from_origin(time)))
}

/// Decides a recorded question of a cache again: the verdict it must have had. None if this version has no such
/// question.
pub fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    let reading = |nanos| Monotonic::from_nanos(nanos);
    let number = |n| usize::try_from(n).unwrap_or(usize::MAX);
    // Of the settings only these have a say.
    let spec = |revalidate, errors| {
        Spec::for_everybody(Duration::from_secs(1))
            .stale_while_revalidate(Duration::from_nanos(revalidate))
            .stale_if_error(Duration::from_nanos(errors))
    };
    let now = reading(at);
    match question {
        LOOK => {
            let [head, early_from, expiry, beta, draw, revalidate, errors] = inputs;
            let (delta, early_from, expiry) =
                (Duration::from_micros(head >> 32), reading(early_from), reading(expiry));
            let found = match head & 0xff {
                0 => Found::Nothing,
                1 => Found::Value {
                    times: Times { since: Monotonic::ORIGIN, delta, early_from, expiry },
                    held: head >> 8 & 1 == 1,
                },
                2 => Found::Absent { until: expiry },
                3 => Found::Failed { until: expiry },
                _ => return None,
            };
            let spec = spec(revalidate, errors).early_refresh(f64::from_bits(beta));
            Some(found.judge(&spec, now, || draw) as u64)
        }
        ADMIT => {
            let [until, waiting, waiters_max, under_way, loading, loads_max, _] = inputs;
            let arrival = Arrival {
                until: (until != NONE).then(|| reading(until)),
                waiting: number(waiting),
                waiters_max: number(waiters_max),
                under_way: under_way == 1,
                loading: number(loading),
                loads_max: number(loads_max),
            };
            Some(arrival.admit(now) as u64)
        }
        INSTEAD => {
            let [passing, expiry, revalidate, errors, ..] = inputs;
            let expiry = reading(expiry);
            let times = Times { since: Monotonic::ORIGIN, delta: Duration::ZERO, early_from: expiry, expiry };
            Some(u64::from(passing == 1 && times.covers_errors(&spec(revalidate, errors), now)))
        }
        _ => None,
    }
}
