//! The decision: until when, and whose limit that is. Pure.

use std::time::Duration;

use mainstay_envelope::{Deadline, Monotonic};

use crate::record::{INPUTS, nanos};
use crate::refusal::Why;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// All tries together.
    Total,
    /// One try.
    Attempt,
}

/// Until when something may take, and what it is when it takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// When its time is up.
    pub at: Monotonic,
    /// What it then is: the rule's own limit passed, or the caller's deadline.
    pub why: Why,
}

/// Until when something of `kind` that begins at `now` may take, which is at most `at_most`, and never past
/// `deadline`. None if nothing limits it.
///
/// # Errors
/// [`Why::DeadlineReached`]: nobody waits any more, so it is not to be begun.
pub fn limit(
    kind: Kind,
    now: Monotonic,
    at_most: Option<Duration>,
    deadline: Option<Deadline>,
) -> Result<Option<Limit>, Why> {
    if deadline.is_some_and(|deadline| deadline.reading() <= now) {
        return Err(Why::DeadlineReached);
    }
    let own = at_most.map(|limit| {
        let why = match kind {
            Kind::Total => Why::TotalTimedOut { limit },
            Kind::Attempt => Why::AttemptTimedOut { limit },
        };
        Limit { at: now + limit, why }
    });
    let callers = deadline.map(|deadline| Limit { at: deadline.reading(), why: Why::DeadlineRanOut });
    Ok(match (own, callers) {
        // At the same time, the caller is gone: that says more than that the try was slow.
        (Some(own), Some(callers)) => Some(if own.at < callers.at { own } else { callers }),
        (own, callers) => own.or(callers),
    })
}

// ---- recorded decisions ---------------------------------------------------------------------------------

/// "May it begin, and until when?"
pub(super) const BEGIN: u8 = 0;
/// "Is it over?"
pub(super) const OVER: u8 = 1;

/// A number for none.
const NONE: u64 = u64::MAX;

pub(super) fn begin_inputs(
    kind: Kind,
    at_most: Option<Duration>,
    deadline: Option<Deadline>,
) -> [u64; INPUTS] {
    let kind = u64::from(kind == Kind::Attempt);
    let at_most = at_most.map_or(NONE, |limit| nanos(Monotonic::from_origin(limit)));
    let deadline = deadline.map_or(NONE, |deadline| nanos(deadline.reading()));
    inputs([kind, at_most, deadline])
}

pub(super) fn begin_verdict(decided: &Result<Option<Limit>, Why>) -> u64 {
    match decided {
        Err(_) => 0,
        Ok(None) => 1,
        // In nanoseconds; below 2⁶² for the next 146 years of an uptime.
        Ok(Some(limit)) => nanos(limit.at) << 2 | 2 | u64::from(limit.why == Why::DeadlineRanOut),
    }
}

pub(super) fn over_inputs(at: Monotonic) -> [u64; INPUTS] {
    inputs([nanos(at), 0, 0])
}

fn inputs(first: [u64; 3]) -> [u64; INPUTS] {
    let mut inputs = [0; INPUTS];
    inputs.iter_mut().zip(first).for_each(|(input, word)| *input = word);
    inputs
}

pub(super) fn replay(question: u8, at: u64, inputs: [u64; INPUTS]) -> Option<u64> {
    let [first, second, third, ..] = inputs;
    match question {
        BEGIN => {
            let kind = if first == 1 { Kind::Attempt } else { Kind::Total };
            let at_most = (second != NONE).then(|| Duration::from_nanos(second));
            let deadline = (third != NONE).then(|| Deadline::at(Monotonic::from_nanos(third)));
            let now = Monotonic::from_nanos(at);
            Some(begin_verdict(&limit(kind, now, at_most, deadline)))
        }
        OVER => Some(u64::from(at >= first)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_limit_holds_and_says_whose_it_was() {
        let at = |ms| Monotonic::from_origin(Duration::from_millis(ms));
        let ms = Duration::from_millis;
        let deadline = |ms| Some(Deadline::at(at(ms)));
        let attempt = Why::AttemptTimedOut { limit: ms(300) };
        for (case, at_most, deadline, expected) in [
            ("nothing", None, None, Ok(None)),
            ("own", Some(ms(300)), None, Ok(Some((1_300, attempt)))),
            ("caller's", None, deadline(1_200), Ok(Some((1_200, Why::DeadlineRanOut)))),
            ("own earlier", Some(ms(300)), deadline(1_301), Ok(Some((1_300, attempt)))),
            ("together", Some(ms(300)), deadline(1_300), Ok(Some((1_300, Why::DeadlineRanOut)))),
            ("caller's earlier", Some(ms(300)), deadline(1_299), Ok(Some((1_299, Why::DeadlineRanOut)))),
            ("just now", Some(ms(300)), deadline(1_000), Err(Why::DeadlineReached)),
            ("long ago", None, deadline(1), Err(Why::DeadlineReached)),
        ] {
            let decided = limit(Kind::Attempt, at(1_000), at_most, deadline);
            assert_eq!(
                decided.map(|limit| limit.map(|limit| (limit.at, limit.why))),
                expected.map(|limit| limit.map(|(ms, why)| (at(ms), why))),
                "{case}"
            );
            // and a replay of the record says the same
            let inputs = begin_inputs(Kind::Attempt, at_most, deadline);
            assert_eq!(replay(BEGIN, nanos(at(1_000)), inputs), Some(begin_verdict(&decided)), "{case}");
        }
    }

    #[test]
    fn what_is_recorded_is_these_numbers() {
        let nanos = Duration::from_nanos;
        let deadline = |at| Some(Deadline::at(Monotonic::from_origin(nanos(at))));
        for (kind, at_most, deadline, recorded, verdict) in [
            (Kind::Total, None, None, [0, NONE, NONE], 1),
            (Kind::Attempt, Some(nanos(3)), None, [1, 3, NONE], 5 << 2 | 2),
            (Kind::Total, Some(nanos(3)), deadline(4), [0, 3, 4], 4 << 2 | 2 | 1),
            (Kind::Attempt, None, deadline(2), [1, NONE, 2], 0),
        ] {
            let inputs = begin_inputs(kind, at_most, deadline);
            assert_eq!(inputs[..3], recorded);
            // decided at 2 ns
            assert_eq!(replay(BEGIN, 2, inputs), Some(verdict), "{recorded:?}");
        }
        let inputs = over_inputs(Monotonic::from_origin(nanos(7)));
        assert_eq!(inputs[..3], [7, 0, 0]);
        assert_eq!([6, 7].map(|at| replay(OVER, at, inputs)), [Some(0), Some(1)]);
    }

    #[test]
    fn the_end_of_time_overflows_nothing() {
        let end = Monotonic::from_origin(Duration::MAX);
        let decided = limit(Kind::Total, end, Some(Duration::MAX), None);
        assert_eq!(decided.map(|limit| limit.map(|limit| limit.at)), Ok(Some(end)));
    }
}
