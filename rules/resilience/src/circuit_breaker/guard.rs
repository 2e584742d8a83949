//! An admitted call that can't be forgotten: whatever ends it, the breaker hears of it.

use std::fmt;
use std::sync::Arc;

use mainstay_envelope::{Deadline, Monotonic};

use super::state::{CircuitBreaker, Core, Ticket};
use crate::live::Link;
use crate::outcome::Outcome;
use crate::refusal::Refusal;

/// An admitted call. Dropped without a result (the caller left, a hedge was faster, the task panicked) it counts as
/// cancelled: a probe's slot goes to the next call, and nothing is learnt but that it was slow, if it was.
#[must_use = "dropping it counts the call as cancelled"]
pub struct Guard {
    /// None once the end was recorded.
    breaker: Option<Arc<Link<Core>>>,
    ticket: Ticket,
    deadline: Option<Deadline>,
}

impl CircuitBreaker {
    /// Admits a call at `now` whose caller waits until `deadline`. Makes this handle let go of settings that were
    /// replaced.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    #[inline]
    pub fn admit(&mut self, now: Monotonic, deadline: Option<Deadline>) -> Result<Guard, Refusal> {
        let (link, ticket) = self.check_linked(now)?;
        Ok(Guard { breaker: Some(link), ticket, deadline })
    }
}

impl Guard {
    /// Records how the call ended. A failure that came when the caller's time was up counts as cancelled: whose
    /// fault it is, is not known, and impatient callers shall not open a breaker.
    #[inline]
    pub fn record(mut self, outcome: Outcome) {
        if let Some(link) = self.breaker.take() {
            let breaker = CircuitBreaker::of(link);
            if breaker.record_plain(self.ticket, outcome) {
                return;
            }
            let now = breaker.scope().now();
            let is_over = self.deadline.is_some_and(|deadline| deadline.reading() <= now);
            let outcome = if outcome.is_transient() && is_over { Outcome::Cancelled } else { outcome };
            breaker.record(self.ticket, now, outcome);
        }
    }

    /// Gives back what was taken for a call that was not made: a rule of ours refused it further in.
    pub fn release(mut self) {
        if let Some(link) = self.breaker.take() {
            let breaker = CircuitBreaker::of(link);
            // Only a probe has anything to give back, and only then the time is of interest.
            if self.ticket.is_probe() {
                breaker.release(self.ticket, breaker.scope().now());
            }
        }
    }

    /// Whether its end decides if the breaker closes.
    pub fn is_probe(&self) -> bool {
        self.ticket.is_probe()
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        if let Some(link) = self.breaker.take() {
            cancelled(link, self.ticket);
        }
    }
}

#[cold]
fn cancelled(link: Arc<Link<Core>>, ticket: Ticket) {
    let breaker = CircuitBreaker::of(link);
    breaker.record(ticket, breaker.scope().now(), Outcome::Cancelled);
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
