//! Retry tokens: what keeps retries a bounded share of all calls, however many hops could each retry.
//!
//! ```text
//!   RetryBucket ── lend (≤ 2) ──► RetryTokens ── take_all: one call after another ──► a call's RetryTokens
//!    (the edge)  ◄── give_back ──  of a request ── split: calls side by side ───────► another's
//!                                              ◄── give_back, when the answer is there ──┘
//! ```
//! A retry spends one whole token. Tokens that were handed over and never came back (a lost answer) count as
//! spent: whoever drops them has spent them.

use std::fmt::{self, Debug};
use std::sync::Arc;

use crate::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// What a request may still spend on retries: 0, 1 or 2 whole tokens.
///
/// A clone is another handle on the same tokens, never a copy of them, so an envelope can be cloned without
/// making any. Tokens move by [`take_all`](Self::take_all), [`split`](Self::split) and
/// [`give_back`](Self::give_back), and disappear by [`spend`](Self::spend).
#[derive(Clone)]
pub struct RetryTokens(Arc<AtomicU8>);

impl RetryTokens {
    /// The most that one request can hold.
    pub const MAX: u8 = 2;

    /// No token: nothing is retried.
    pub fn none() -> Self {
        Self::new(0)
    }

    /// `whole` tokens, at most [`MAX`](Self::MAX): made out of nothing.
    ///
    /// For the receiving end of the wire, where they were taken at the sending end, and for whoever keeps a
    /// budget of another kind. Inside a request, tokens come from its envelope.
    pub fn new(whole: u8) -> Self {
        Self(Arc::new(AtomicU8::new(whole.min(Self::MAX))))
    }

    /// Whole tokens left.
    pub fn left(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes one token and answers `true`; with none left answers `false`.
    pub fn spend(&self) -> bool {
        self.take(|left| u8::from(left > 0)) == 1
    }

    /// Moves all of them out: for a call that is made alone. Give back what it leaves.
    #[must_use = "tokens that are dropped are spent"]
    pub fn take_all(&self) -> Self {
        Self::new(self.take(|left| left))
    }

    /// Moves half of them out, the larger half of an odd number staying: for a call beside others.
    #[must_use = "tokens that are dropped are spent"]
    pub fn split(&self) -> Self {
        Self::new(self.take(|left| left / 2))
    }

    /// Takes back what a call has left.
    ///
    /// Never holds more than [`MAX`](Self::MAX): tokens of another request would be lost here rather than pile up.
    pub fn give_back(&self, rest: Self) {
        let returned = rest.take(|left| left);
        // The closure always answers, so this can't fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_add(returned).min(Self::MAX))
        });
    }

    /// Lowers them to what the callee reports to have left. A report of more is not believed.
    pub fn settle(&self, reported: u8) {
        self.0.fetch_min(reported, Ordering::Relaxed);
    }

    /// Takes what `amount` says of those left (never more than they are), in one step.
    fn take(&self, amount: impl Fn(u8) -> u8) -> u8 {
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - amount(left).min(left)))
            .unwrap_or_else(|left| left);
        amount(before).min(before)
    }
}

impl Default for RetryTokens {
    fn default() -> Self {
        Self::none()
    }
}

impl PartialEq for RetryTokens {
    /// As many left, at this moment.
    fn eq(&self, other: &Self) -> bool {
        self.left() == other.left()
    }
}

impl Debug for RetryTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryTokens({})", self.left())
    }
}

/// Where the tokens come from: one for each edge, or for each client that has no envelope to draw on.
///
/// Every request puts in 0.1 token and every retry takes out 1, so that in the long run retries are at most a
/// tenth of the requests. It holds at most 100 and begins full, so that a process that starts during a short
/// failure can retry at all; that is then the largest burst.
///
/// ```
/// use mainstay_envelope::RetryBucket;
///
/// let bucket = RetryBucket::new();
/// let tokens = bucket.lend();                      // a request comes in
/// assert_eq!((tokens.left(), bucket.whole()), (2, 98));
/// assert!(tokens.spend());                         // one retry
/// bucket.give_back(tokens);                        // and the answer
/// assert_eq!(bucket.whole(), 99);
/// ```
#[derive(Debug)]
pub struct RetryBucket {
    /// In tenths, so that a tenth is exact.
    tenths: AtomicU32,
}

impl RetryBucket {
    /// The most whole tokens it holds.
    pub const MAX: u32 = 100;
    /// A request's contribution, in tenths of a token.
    pub const GAIN_TENTHS: u32 = 1;

    /// A full bucket.
    pub const fn new() -> Self {
        Self { tenths: AtomicU32::new(Self::MAX * 10) }
    }

    /// An empty one, for which retries begin only when requests have paid for them.
    pub const fn empty() -> Self {
        Self { tenths: AtomicU32::new(0) }
    }

    /// Whole tokens in it.
    pub fn whole(&self) -> u32 {
        self.tenths.load(Ordering::Relaxed) / 10
    }

    /// Counts a request: puts in its 0.1 token.
    pub fn gain(&self) {
        self.put(Self::GAIN_TENTHS);
    }

    /// Counts a request, as [`gain`](Self::gain) does, and lends it up to two whole tokens.
    #[must_use = "tokens that are dropped are spent"]
    pub fn lend(&self) -> RetryTokens {
        self.gain();
        let mut lent = RetryTokens::none();
        while lent.left() < RetryTokens::MAX && self.spend() {
            lent = RetryTokens::new(lent.left() + 1);
        }
        lent
    }

    /// Takes one whole token and answers `true`; with less than one left takes nothing and answers `false`.
    pub fn spend(&self) -> bool {
        self.tenths
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tenths| tenths.checked_sub(10))
            .is_ok()
    }

    /// Takes back what an answered request has left.
    pub fn give_back(&self, rest: RetryTokens) {
        self.put(u32::from(rest.take_all().left()) * 10);
    }

    fn put(&self, tenths: u32) {
        // The closure always answers, so this can't fail.
        let _ = self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            Some(held.saturating_add(tenths).min(Self::MAX * 10))
        });
    }
}

impl Default for RetryBucket {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_shares_the_tokens_and_makes_none() {
        let tokens = RetryTokens::new(2);
        let handle = tokens.clone();
        assert!(handle.spend());
        assert_eq!(tokens.left(), 1);
        assert!(tokens.spend() && !tokens.spend() && !handle.spend());
    }

    #[test]
    fn a_callee_that_reports_more_than_it_got_is_not_believed() {
        let lent = RetryTokens::new(1);
        lent.settle(2);
        assert_eq!(lent.left(), 1);
        lent.settle(0);
        assert_eq!(lent.left(), 0);
    }

    #[test]
    fn ten_requests_pay_for_one_retry() {
        let bucket = RetryBucket::empty();
        for _ in 0..9 {
            assert_eq!(bucket.lend().left(), 0);
        }
        assert_eq!(bucket.lend().left(), 1);
        assert_eq!(bucket.whole(), 0);
    }

    #[test]
    fn a_bucket_never_holds_more_than_a_hundred() {
        let bucket = RetryBucket::new();
        bucket.gain();
        bucket.give_back(RetryTokens::new(2));
        assert_eq!(bucket.whole(), 100);
        let lent: u32 = (0..60).map(|_| u32::from(bucket.lend().left())).sum();
        // 100 held, and 0.1 from each of the 59 requests that found the bucket below its brim.
        assert_eq!(lent, 105);
    }

    #[test]
    fn racing_spenders_never_spend_more_than_there_is() {
        let bucket = RetryBucket::new();
        let spent: usize = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..50).filter(|_| bucket.spend()).count())).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(spent, 100);
    }
}
