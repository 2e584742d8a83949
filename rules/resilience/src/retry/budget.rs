//! What retries may spend: whole tokens, so that retries stay a bounded share of all calls.

use std::sync::Arc;

use mainstay_envelope::{RetryBucket, RetryTokens};

/// A supply of whole retry tokens. A retry spends one; none left, no retry.
///
/// Shared by reference: calls that draw on one supply hold handles on it, never copies of its tokens.
pub trait Budget {
    /// Counts a call that begins. A supply that lives from a share of the calls gains it here.
    fn begin(&self) {}

    /// Takes one whole token and answers `true`; with less than one left takes nothing and answers `false`.
    fn spend(&self) -> bool;
}

/// The tokens that came with a request: every hop and every call made for it draw on them.
///
/// They gain nothing here. The edge that lent them has counted the request already.
impl Budget for RetryTokens {
    fn spend(&self) -> bool {
        RetryTokens::spend(self)
    }
}

/// For a client without an envelope: its calls put in 0.1 token each, their retries take 1 each.
impl Budget for RetryBucket {
    fn begin(&self) {
        self.gain();
    }

    fn spend(&self) -> bool {
        RetryBucket::spend(self)
    }
}

impl<B: Budget + ?Sized> Budget for &B {
    fn begin(&self) {
        (**self).begin();
    }

    fn spend(&self) -> bool {
        (**self).spend()
    }
}

impl<B: Budget + ?Sized> Budget for Arc<B> {
    fn begin(&self) {
        (**self).begin();
    }

    fn spend(&self) -> bool {
        (**self).spend()
    }
}

/// No budget: only `max_attempts` and the deadline bound the retries.
///
/// For one loop that retries its own work (a supervisor, a worker that lost its connection). On a client that
/// many callers use, it makes an outage worse: each call that fails becomes `max_attempts` calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Unbudgeted;

impl Budget for Unbudgeted {
    fn spend(&self) -> bool {
        true
    }
}
