//! A call on its way through the rules: the request, and what every rule may need to know of it.

use mainstay_envelope::{Deadline, Envelope, Monotonic, Priority, RetryTokens};

use crate::outcome::Safety;

/// A request and its [`Facts`], as our layers hand it to each other. Made at the outside of a stack by a
/// [`Describe`], taken apart at its inside.
#[derive(Debug, Clone)]
pub struct Call<R> {
    /// What is asked.
    pub request: R,
    /// What rules know of it.
    pub facts: Facts,
}

/// What rules know of a call: enough to decide, nothing that identifies anybody.
#[derive(Debug, Clone)]
pub struct Facts {
    /// A reading of the policy's clock: now, as far as this call is concerned. Whoever let time pass (a queue, a
    /// backoff) reads the clock again before handing the call on, so that not every layer has to.
    pub now: Monotonic,
    /// When nobody waits for the answer any more. Layers lower it and never raise it.
    pub deadline: Option<Deadline>,
    /// What repeating the request could do.
    pub safety: Safety,
    /// What is given up first.
    pub priority: Priority,
    /// What retries and hedges may spend; none: the policy's own bucket.
    pub tokens: Option<RetryTokens>,
    /// Which try this is, from 0.
    pub attempt: u32,
}

impl Facts {
    /// Of a call about which nothing is known: no deadline, not to be repeated, normal priority.
    pub const fn unknown(now: Monotonic) -> Self {
        Facts {
            now,
            deadline: None,
            safety: Safety::Unsafe,
            priority: Priority::Normal,
            tokens: None,
            attempt: 0,
        }
    }

    /// What the envelope says. A key makes it [`Safety::Keyed`]; what else is safe to repeat the envelope can't know.
    /// Retries spend its tokens: one that begins in this process has none until it is lent some.
    pub fn of(envelope: &Envelope, now: Monotonic) -> Self {
        Facts {
            now,
            deadline: envelope.deadline(),
            safety: if envelope.idempotency_key().is_some() { Safety::Keyed } else { Safety::Unsafe },
            priority: envelope.priority(),
            tokens: Some(envelope.tokens().clone()),
            attempt: 0,
        }
    }

    /// The same, of a request that may be repeated.
    #[must_use]
    pub const fn with_safety(mut self, safety: Safety) -> Self {
        self.safety = safety;
        self
    }

    /// The same with a deadline: of this one and the present one, the earlier.
    #[must_use]
    pub fn lower_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |present| present.min(deadline)));
        self
    }

    /// Whether nobody waits any more.
    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline.reading() <= self.now)
    }
}

/// Tells the rules about a kind of request. Any `Fn(&R, Monotonic) -> Facts` is one; such a request is not repeated.
pub trait Describe<R> {
    /// What rules need to know; `now` is a reading of the policy's clock.
    fn facts(&self, request: &R, now: Monotonic) -> Facts;

    /// The same request once more, for a second try; none if it can't be had (a body that is a stream). Asked before
    /// the first try, where a policy retries or hedges, whatever the facts say: the failure may prove that the request
    /// had no effect. Bounded work: what is large is shared, or not repeated.
    fn repeat(&self, _: &R) -> Option<R> {
        None
    }

    /// On whose account it comes, where that is known: what an inbound rate limit tells callers apart by. Asked in the
    /// limit's place, after whoever authenticates had their turn at the request. Let it be what was proved, never what
    /// the caller says of itself.
    fn identity<'a>(&self, _: &'a R) -> Option<&'a str> {
        None
    }

    /// Last touch before a try goes out: the place to write the lowered deadline and the try's number into the
    /// request.
    fn send(&self, _: &mut R, _: &Facts) {}
}

impl<R, F: Fn(&R, Monotonic) -> Facts> Describe<R> for F {
    fn facts(&self, request: &R, now: Monotonic) -> Facts {
        self(request, now)
    }
}

/// Nothing is known of any request: no deadline, never repeated.
#[derive(Debug, Clone, Copy, Default)]
pub struct Undescribed;

impl<R> Describe<R> for Undescribed {
    fn facts(&self, _: &R, now: Monotonic) -> Facts {
        Facts::unknown(now)
    }
}

/// Requests that can be cloned, described by a function.
#[derive(Debug, Clone, Copy)]
pub struct Cloned<F>(pub F);

impl<R: Clone, F: Fn(&R, Monotonic) -> Facts> Describe<R> for Cloned<F> {
    fn facts(&self, request: &R, now: Monotonic) -> Facts {
        (self.0)(request, now)
    }

    fn repeat(&self, request: &R) -> Option<R> {
        Some(request.clone())
    }
}

/// Requests as one describes them, of which a function tells the identity.
///
/// ```
/// use mainstay_envelope::Monotonic;
/// use mainstay_resilience::{Cloned, Describe, Facts, Identified};
///
/// #[derive(Clone)]
/// struct Request { tenant: Option<String> }
///
/// let facts = |_: &Request, now: Monotonic| Facts::unknown(now);
/// let describe = Identified::new(Cloned(facts), |request: &Request| request.tenant.as_deref());
/// assert_eq!(describe.identity(&Request { tenant: Some("a".into()) }), Some("a"));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Identified<D, F>(D, F);

impl<D, F> Identified<D, F> {
    /// As `describe` says, and whose they are as `identity` does.
    pub const fn new<R>(describe: D, identity: F) -> Self
    where
        D: Describe<R>,
        F: Fn(&R) -> Option<&str>,
    {
        Identified(describe, identity)
    }
}

impl<R, D: Describe<R>, F: Fn(&R) -> Option<&str>> Describe<R> for Identified<D, F> {
    fn facts(&self, request: &R, now: Monotonic) -> Facts {
        self.0.facts(request, now)
    }

    fn repeat(&self, request: &R) -> Option<R> {
        self.0.repeat(request)
    }

    fn identity<'a>(&self, request: &'a R) -> Option<&'a str> {
        (self.1)(request)
    }

    fn send(&self, request: &mut R, facts: &Facts) {
        self.0.send(request, facts);
    }
}

/// What a call that is just being made holds, kept in the service meanwhile so that the call's future is made where it stays.
/// It is let go of when making the call panics.
#[cfg(any(feature = "bulkhead", feature = "circuit-breaker"))]
pub(crate) struct Parked<'a, T>(pub(crate) &'a mut Option<T>);

#[cfg(any(feature = "bulkhead", feature = "circuit-breaker"))]
impl<T> Drop for Parked<'_, T> {
    #[inline]
    fn drop(&mut self) {
        *self.0 = None;
    }
}
