//! What a call's end says: about trying again, and about the health of whoever was called.

use std::sync::Arc;
use std::time::Duration;

/// How one try ended, in the only four kinds that rules tell apart. Judged once, by a [`Classify`].
///
/// The question behind it: *whose fault is it?* If the callee, or the way to it, is at fault, a later try may
/// succeed and the failure counts against the callee's health ([`Transient`](Self::Transient)). If the request is
/// at fault, the callee works, and the same request will fail again ([`Permanent`](Self::Permanent)).
///
/// | outcome | breaker counts | retried | hedge takes it |
/// |---|---|---|---|
/// | `Success` | a success | – | yes |
/// | `Transient` | a failure | if the request is safe or keyed | only when no other try is left |
/// | `Permanent` | a success: the callee answered | never | yes |
/// | `Cancelled` | nothing (slow, past the slow threshold) | never | – |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It failed and a later try may succeed: a lost connection, an overloaded server, a timeout, a conflict.
    Transient {
        /// What the callee asked for (Retry-After, RFC 9110 §10.2.3), as a time from the answer.
        retry_after: Option<Duration>,
    },
    /// The answer will not change: a malformed request, a refusal by a business rule.
    Permanent,
    /// Nobody waited for the end: the caller left, another try was faster, the deadline passed.
    Cancelled,
}

impl Outcome {
    /// A failure that may pass, about which the callee said nothing more.
    pub const TRANSIENT: Self = Outcome::Transient { retry_after: None };

    /// Adds the callee's Retry-After, as a time from now. Only a transient outcome carries one; others stay.
    #[must_use]
    pub const fn after(self, wait: Duration) -> Self {
        match self {
            Outcome::Transient { .. } => Outcome::Transient { retry_after: Some(wait) },
            other => other,
        }
    }

    /// The callee's Retry-After, if it gave one.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Outcome::Transient { retry_after } => retry_after,
            _ => None,
        }
    }

    /// Whether the callee, or the way to it, is at fault.
    pub const fn is_transient(self) -> bool {
        matches!(self, Outcome::Transient { .. })
    }
}

/// What repeating the request could do, given how this try failed.
///
/// It is asked for with every failure and not once a call, because the failure can change it: a request of
/// which provably nothing was sent, or that was refused with nothing written, is [`Safety::Safe`] whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Safety {
    /// Repeating has no effect beyond that of a single execution (RFC 9110 §9.2.1 and §9.2.2: safe or
    /// idempotent methods), or this try had no effect.
    Safe,
    /// The request carries an idempotency key and the receiver honours it.
    Keyed,
    /// This try may have taken effect and a second one would do it again. Never retried, never hedged.
    Unsafe,
}

impl Safety {
    /// Whether a second execution does no harm.
    pub const fn allows_repeating(self) -> bool {
        !matches!(self, Safety::Unsafe)
    }
}

/// Judges how a call ended. Any `Fn(Result<&T, &E>) -> Outcome` is one.
///
/// ```
/// use mainstay_resilience::{Classify, Outcome};
///
/// let classify = |result: Result<&String, &std::io::Error>| match result {
///     Ok(_) => Outcome::Success,
///     Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Outcome::Permanent,
///     Err(_) => Outcome::TRANSIENT,
/// };
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// assert_eq!(classify.classify(Err(&refused)), Outcome::TRANSIENT);
/// ```
pub trait Classify<T: ?Sized, E: ?Sized> {
    /// What this end says.
    fn classify(&self, result: Result<&T, &E>) -> Outcome;

    /// Whether this failure proves that the request had no effect (nothing was sent, nothing was written), so
    /// that even a request without a key may be repeated. Default: no proof.
    fn had_no_effect(&self, _: &E) -> bool {
        false
    }
}

impl<T: ?Sized, E: ?Sized, F: Fn(Result<&T, &E>) -> Outcome> Classify<T, E> for F {
    fn classify(&self, result: Result<&T, &E>) -> Outcome {
        self(result)
    }
}

impl<T: ?Sized, E: ?Sized, C: Classify<T, E> + ?Sized> Classify<T, E> for Arc<C> {
    fn classify(&self, result: Result<&T, &E>) -> Outcome {
        (**self).classify(result)
    }

    fn had_no_effect(&self, error: &E) -> bool {
        (**self).had_no_effect(error)
    }
}

/// An error that knows what it means. With [`ByError`], the classifier for a service of such errors.
pub trait Classified {
    /// What this error says; never [`Outcome::Success`].
    fn outcome(&self) -> Outcome;

    /// As [`Classify::had_no_effect`].
    fn had_no_effect(&self) -> bool {
        false
    }
}

/// Every answer is a success; an error says itself what it is ([`Classified`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct ByError;

impl<T: ?Sized, E: Classified + ?Sized> Classify<T, E> for ByError {
    fn classify(&self, result: Result<&T, &E>) -> Outcome {
        result.map_or_else(Classified::outcome, |_| Outcome::Success)
    }

    fn had_no_effect(&self, error: &E) -> bool {
        error.had_no_effect()
    }
}

/// Every answer is a success, every error transient: for a transport whose errors are all the way's fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct EveryErrorIsTransient;

impl<T: ?Sized, E: ?Sized> Classify<T, E> for EveryErrorIsTransient {
    fn classify(&self, result: Result<&T, &E>) -> Outcome {
        result.map_or(Outcome::TRANSIENT, |_| Outcome::Success)
    }
}

/// What an HTTP status says (RFC 9110 §15), Retry-After aside.
///
/// Transient: 408, 425 (RFC 8470), 429 (RFC 6585) and every 5xx, except 501, 505 and 511, which say that this
/// request is not for this server. 499, which some proxies log for a client that left, is cancelled. All other
/// 4xx are permanent, all below 400 are successes; a number that is no status (below 100, from 600) is transient,
/// because what speaks so is not the server.
pub const fn http_status(status: u16) -> Outcome {
    match status {
        100..=399 => Outcome::Success,
        408 | 425 | 429 => Outcome::TRANSIENT,
        499 => Outcome::Cancelled,
        400..=498 | 501 | 505 | 511 => Outcome::Permanent,
        _ => Outcome::TRANSIENT,
    }
}

/// What a gRPC status says (the numbers of the gRPC specification, "Status codes and their use in gRPC").
///
/// Transient: UNKNOWN 2, DEADLINE_EXCEEDED 4, RESOURCE_EXHAUSTED 8, INTERNAL 13, UNAVAILABLE 14, and numbers the
/// specification doesn't know. CANCELLED 1 is cancelled. ABORTED 10 is permanent here: the specification wants the
/// whole read-and-write repeated, which only the caller can do. So is DATA_LOSS 15: it does not pass by itself.
pub const fn grpc_status(code: i32) -> Outcome {
    match code {
        0 => Outcome::Success,
        1 => Outcome::Cancelled,
        3 | 5 | 6 | 7 | 9 | 10 | 11 | 12 | 15 | 16 => Outcome::Permanent,
        _ => Outcome::TRANSIENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_http_status_is_one_of_the_four() {
        for (statuses, expected) in [
            (&[100_u16, 101, 200, 201, 204, 206, 301, 302, 304, 307][..], Outcome::Success),
            (&[400, 401, 403, 404, 405, 409, 410, 412, 413, 422, 428, 451, 498], Outcome::Permanent),
            (&[408, 425, 429, 500, 502, 503, 504, 507, 508, 520, 599], Outcome::TRANSIENT),
            (&[501, 505, 511], Outcome::Permanent),
            (&[499], Outcome::Cancelled),
            (&[0, 99, 600, u16::MAX], Outcome::TRANSIENT),
        ] {
            for status in statuses {
                assert_eq!(http_status(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn every_grpc_status_is_one_of_the_four() {
        let names = [
            (0, Outcome::Success),
            (1, Outcome::Cancelled),
            (2, Outcome::TRANSIENT),
            (3, Outcome::Permanent),
            (4, Outcome::TRANSIENT),
            (5, Outcome::Permanent),
            (6, Outcome::Permanent),
            (7, Outcome::Permanent),
            (8, Outcome::TRANSIENT),
            (9, Outcome::Permanent),
            (10, Outcome::Permanent),
            (11, Outcome::Permanent),
            (12, Outcome::Permanent),
            (13, Outcome::TRANSIENT),
            (14, Outcome::TRANSIENT),
            (15, Outcome::Permanent),
            (16, Outcome::Permanent),
            (17, Outcome::TRANSIENT),
            (-1, Outcome::TRANSIENT),
        ];
        for (code, expected) in names {
            assert_eq!(grpc_status(code), expected, "{code}");
        }
    }

    #[test]
    fn only_a_transient_outcome_carries_a_wait() {
        let wait = Duration::from_secs(3);
        assert_eq!(Outcome::TRANSIENT.after(wait).retry_after(), Some(wait));
        for other in [Outcome::Success, Outcome::Permanent, Outcome::Cancelled] {
            assert_eq!(other.after(wait), other);
        }
    }
}
