//! When a parked key is tried again, and when it is given up: a pure machine.
//!
//! ```text
//!                 ┌───── failed, tries left ─────┐
//!                 ▼                              │
//!  parked ──► Waiting ── due ──► the head is tried ── poisoned, or no tries left ──► Dead
//!                 ▲                              │                                    │
//!                 ├──── retry asked ─────────────┼────────────────────────────────────┤
//!                 │                              │ done                               │ discarded
//!                 └──── another message behind? ◄┴────────────────────────────────────┘
//!                                     └ none left: the key is free again
//! ```
//! The state is the key's, not the message's: only the head is ever tried, so that release is in order.

use std::time::Duration;

use mainstay_envelope::Timestamp;
use mainstay_resilience::retry::Checked;
use serde::{Deserialize, Serialize};

/// What becomes of a parked key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Status {
    /// Its head is tried again by itself.
    Waiting {
        /// Tries that failed.
        tries: u32,
        /// Not before this. A durable timer, so it is wall time.
        again_at: Timestamp,
    },
    /// Nothing is tried until an operator decides.
    Dead {
        /// Tries that failed.
        tries: u32,
    },
}

/// What happens to a key's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// It was tried and failed for a reason that may pass.
    Failed,
    /// It was tried and failed for a reason that will not pass.
    Poisoned,
    /// It is out of the way, and another message of the key is the head now.
    Gone,
    /// An operator asked for another try.
    RetryAsked,
}

/// A step that can't be: somebody acted on what is no longer so. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a parked key that is {0:?} can't take this step; look again")]
pub(crate) struct Illegal(Status);

/// The status after an event. `draw` is 64 uniform random bits, which spread the waits.
pub(crate) fn next(
    status: Status,
    event: Event,
    now: Timestamp,
    settings: &Checked,
    draw: u64,
) -> Result<Status, Illegal> {
    match (status, event) {
        (_, Event::Gone | Event::RetryAsked) => Ok(Status::Waiting { tries: 0, again_at: now }),
        (Status::Waiting { tries, .. }, Event::Failed) => {
            let tries = tries.saturating_add(1);
            if tries >= settings.spec().max_attempts {
                return Ok(Status::Dead { tries });
            }
            Ok(Status::Waiting { tries, again_at: later(now, wait(settings, tries - 1, draw)) })
        }
        (Status::Waiting { tries, .. }, Event::Poisoned) => {
            Ok(Status::Dead { tries: tries.saturating_add(1) })
        }
        // Nobody tries what is dead.
        (Status::Dead { .. }, Event::Failed | Event::Poisoned) => Err(Illegal(status)),
    }
}

/// Between half of the settings' ceiling and all of it: a key that waits is never tried at once, and keys that
/// were parked together come back apart.
fn wait(settings: &Checked, retry: u32, draw: u64) -> Duration {
    let half = settings.ceiling(retry) / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    let spread = (u128::from(nanos) * u128::from(draw)) >> 64;
    half + Duration::from_nanos(u64::try_from(spread).unwrap_or(nanos))
}

/// `wait` after `now`, rounded up to a millisecond.
fn later(now: Timestamp, wait: Duration) -> Timestamp {
    let millis = i64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_add(millis))
}

#[cfg(test)]
mod tests {
    use mainstay_resilience::retry::Spec;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn settings(attempts: u32) -> Checked {
        let spec = Spec::exact(Duration::from_secs(1), Duration::from_secs(8)).max_attempts(attempts);
        spec.check().unwrap()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + millis)
    }

    #[test]
    fn waits_grow_to_the_cap_and_the_tries_end() {
        for (draw, millis) in
            [(0, [500, 1_000, 2_000, 4_000, 4_000]), (u64::MAX, [1_000, 2_000, 4_000, 8_000, 8_000])]
        {
            let mut status = Status::Waiting { tries: 0, again_at: NOW };
            for (tries, millis) in (1..).zip(millis) {
                status = next(status, Event::Failed, NOW, &settings(6), draw).unwrap();
                assert_eq!(status, Status::Waiting { tries, again_at: at(millis) });
            }
            assert_eq!(next(status, Event::Failed, NOW, &settings(6), draw), Ok(Status::Dead { tries: 6 }));
        }
    }

    #[test]
    fn what_will_not_pass_is_dead_at_once() {
        let first = Status::Waiting { tries: 0, again_at: NOW };
        assert_eq!(next(first, Event::Poisoned, NOW, &settings(9), 0), Ok(Status::Dead { tries: 1 }));
    }

    #[test]
    fn an_operator_or_a_new_head_begins_with_all_its_tries() {
        let fresh = Ok(Status::Waiting { tries: 0, again_at: NOW });
        for status in [Status::Dead { tries: 9 }, Status::Waiting { tries: 3, again_at: at(9_000) }] {
            assert_eq!(next(status, Event::RetryAsked, NOW, &settings(9), 0), fresh);
            assert_eq!(next(status, Event::Gone, NOW, &settings(9), 0), fresh);
        }
    }

    #[test]
    fn nobody_tries_what_is_dead() {
        let dead = Status::Dead { tries: 1 };
        for event in [Event::Failed, Event::Poisoned] {
            assert_eq!(next(dead, event, NOW, &settings(9), 0), Err(Illegal(dead)));
        }
    }
}
