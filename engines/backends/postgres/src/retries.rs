//! Doing work again that lost a race or its connection: the retry rule, with this store's budget.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_resilience::retry::{Budget, Checked, Decision, State};
use mainstay_resilience::{Outcome, Safety};

/// What all retries of a handle may spend: a token for each call, and no more than [`SAVED_MAX`] saved up.
///
/// Races are lost by whole transactions that commit a moment later, so the share is larger than that of calls to a
/// server that may be down; it is still a share, and a store on which everybody only retries stops doing so.
#[derive(Debug)]
pub(crate) struct RaceBudget(AtomicU32);

const SAVED_MAX: u32 = 1_000;

impl Default for RaceBudget {
    fn default() -> Self {
        Self(AtomicU32::new(SAVED_MAX))
    }
}

impl Budget for RaceBudget {
    fn begin(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
            (saved < SAVED_MAX).then_some(saved + 1)
        });
    }

    fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(1)).is_ok()
    }
}

/// One call's retries.
pub(crate) struct Retries<'a> {
    cx: &'a Context,
    state: State<&'a RaceBudget>,
}

impl<'a> Retries<'a> {
    pub(crate) fn new(cx: &'a Context, settings: Checked, budget: &'a RaceBudget) -> Self {
        Self { cx, state: State::new(settings, cx.now(), cx.envelope().deadline(), budget) }
    }

    /// After a try of which nothing was written, or which can be done twice: how long to wait before the next one;
    /// none when there is to be none.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        match self.state.after(self.cx.now(), Outcome::TRANSIENT, Safety::Safe, self.cx.next_u64()) {
            Decision::RetryAfter(wait) => Some(wait),
            Decision::GiveUp(_) => None,
        }
    }

    /// Tries that failed so far.
    pub(crate) fn failures(&self) -> u32 {
        self.state.failures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_calls() {
        let budget = RaceBudget::default();
        assert!((0..SAVED_MAX).all(|_| budget.spend()));
        assert!(!budget.spend());
        budget.begin();
        assert!(budget.spend() && !budget.spend());
        (0..2 * SAVED_MAX).for_each(|_| budget.begin());
        assert_eq!((0..2 * SAVED_MAX).filter(|_| budget.spend()).count() as u32, SAVED_MAX);
    }
}
