//! How much is told in a second, whatever happens.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mainstay::envelope::Monotonic;

const WINDOW: Duration = Duration::from_secs(1);

/// Lets so many through in a second, and counts the others.
#[derive(Debug)]
pub(super) struct Throttle {
    most: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the present second began; none before the first.
    began: Option<Monotonic>,
    told: u32,
    untold: u64,
}

impl Throttle {
    pub(super) fn new(most: u32) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// May this one be told? Then how many were not since the last that was.
    pub(super) fn admit(&self, now: Monotonic) -> Option<u64> {
        // Three numbers, whole at each step.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.saturating_since(began) >= WINDOW) {
            (state.began, state.told) = (Some(now), 0);
        }
        if state.told >= self.most {
            state.untold += 1;
            return None;
        }
        state.told += 1;
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_second_and_the_rest_is_counted() {
        let throttle = Throttle::new(2);
        let at = |millis| Monotonic::from_origin(Duration::from_millis(millis));
        let told: Vec<_> = [0, 10, 20, 999, 1_000, 1_001, 1_002, 5_000].map(|t| throttle.admit(at(t))).into();
        assert_eq!(told, [Some(0), Some(0), None, None, Some(2), Some(0), None, Some(1)]);
    }
}
