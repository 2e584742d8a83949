//! What retries may spend: whole tokens, so that retries stay a bounded share of all calls.

/// A supply of whole retry tokens. A retry spends one; none left, no retry.
pub trait Budget {
    /// Takes one whole token and answers `true`; with less than one left takes nothing and answers `false`.
    fn spend(&mut self) -> bool;
}

impl<B: Budget + ?Sized> Budget for &mut B {
    fn spend(&mut self) -> bool {
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
    fn spend(&mut self) -> bool {
        true
    }
}
