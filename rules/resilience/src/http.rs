//! Requests and answers of the crate `http`: what they say to the rules.
//!
//! [`ByStatus`] judges answers by their status and Retry-After, [`Describe`] of [`Requests`] knows
//! methods (RFC 9110 §9.2), idempotency keys, and the [`Envelope`] in a request's
//! extensions.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, Request, Response};
use mainstay_envelope::{Clock, Envelope, Monotonic};

use crate::call::{Describe, Facts};
use crate::outcome::{Classify, Outcome, Safety, grpc_status, http_status};

/// Judges an HTTP answer by its status ([`http_status`]) and Retry-After; an error of the transport is transient.
///
/// Retry-After in seconds is always understood; one that is a date needs the wall clock, without which it is as if the
/// answer had none.
#[derive(Debug, Clone, Default)]
pub struct ByStatus {
    wall: Option<Arc<dyn Clock>>,
}

impl ByStatus {
    /// One that understands dates by this clock.
    pub const fn with_clock(clock: Arc<dyn Clock>) -> Self {
        ByStatus { wall: Some(clock) }
    }

    fn judge(&self, status: Outcome, headers: &HeaderMap) -> Outcome {
        match retry_after(headers, self.wall.as_deref()) {
            Some(wait) => status.after(wait),
            None => status,
        }
    }
}

impl<B, E: ?Sized> Classify<Response<B>, E> for ByStatus {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Outcome {
        match result {
            Ok(answer) => self.judge(http_status(answer.status().as_u16()), answer.headers()),
            Err(_) => Outcome::TRANSIENT,
        }
    }
}

/// Judges a gRPC answer whose status is in its headers (the specification's "Trailers-Only"), else by its HTTP status.
///
/// A status in the trailers comes after the answer was handed out; who reads it judges it with [`grpc_status`].
#[derive(Debug, Clone, Default)]
pub struct ByGrpcStatus {
    by_status: ByStatus,
}

impl<B, E: ?Sized> Classify<Response<B>, E> for ByGrpcStatus {
    fn classify(&self, result: Result<&Response<B>, &E>) -> Outcome {
        let status = result.ok().and_then(|answer| answer.headers().get("grpc-status"));
        let Some(status) = status else { return self.by_status.classify(result) };
        // What is no number is no success.
        let code = status.to_str().ok().and_then(|code| code.parse().ok());
        code.map_or(Outcome::TRANSIENT, grpc_status)
    }
}

/// The Retry-After of an answer (RFC 9110 §10.2.3), as a time from now. A date that has passed is no wait at all; what
/// is neither seconds nor a date is as if it were not there.
pub fn retry_after(headers: &HeaderMap, wall: Option<&dyn Clock>) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim_ascii();
    if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        // More digits than fit say "never" all the same.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let now = u64::try_from(wall?.wall().as_millis()).ok().map(Duration::from_millis)?;
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.saturating_sub(now))
}

/// What repeating a request of this method does (RFC 9110 §9.2.1, §9.2.2).
pub fn safety(method: &Method, has_key: bool) -> Safety {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE => {
            Safety::Safe
        }
        _ if has_key => Safety::Keyed,
        _ => Safety::Unsafe,
    }
}

/// Tells the rules about HTTP requests: the method, an `Idempotency-Key` header, and, where the extensions hold an
/// [`Envelope`], its deadline, priority, tokens and key. A request whose body can be cloned can be repeated (bodies in
/// memory; one that streams is wrapped by whoever knows how much of it may be kept). Before a try goes out, the
/// envelope's deadline is lowered to the try's. Their identity is the envelope's caller, which the trust boundary sets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Requests;

impl<B: Clone> Describe<Request<B>> for Requests {
    fn facts(&self, request: &Request<B>, now: Monotonic) -> Facts {
        let envelope = request.extensions().get::<Envelope>();
        let facts = envelope.map_or_else(|| Facts::unknown(now), |envelope| Facts::of(envelope, now));
        let has_key = facts.safety == Safety::Keyed || request.headers().contains_key("idempotency-key");
        facts.with_safety(safety(request.method(), has_key))
    }

    fn repeat(&self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }

    fn identity<'a>(&self, request: &'a Request<B>) -> Option<&'a str> {
        Some(request.extensions().get::<Envelope>()?.caller()?.as_str())
    }

    fn send(&self, request: &mut Request<B>, facts: &Facts) {
        if let Some(deadline) = facts.deadline
            && let Some(envelope) = request.extensions_mut().get_mut::<Envelope>()
        {
            *envelope = envelope.clone().lower_deadline(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_envelope::{
        Deadline, IdempotencyKey, ManualClock, Priority, RetryTokens, SeededChance, Timestamp,
    };

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Response<()> {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        answer.body(()).unwrap()
    }

    #[test]
    fn an_answer_is_judged_by_status_and_retry_after() {
        let secs = |n| Outcome::TRANSIENT.after(Duration::from_secs(n));
        // 2015-10-21T07:28:00Z
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_445_412_480_000)));
        let judge = ByStatus::with_clock(clock);
        for (status, after, expected) in [
            (200, None, Outcome::Success),
            (404, Some("5"), Outcome::Permanent),
            (503, None, Outcome::TRANSIENT),
            (503, Some("5"), secs(5)),
            (429, Some(" 120 "), secs(120)),
            (503, Some("99999999999999999999999"), secs(u64::MAX)),
            (503, Some("Wed, 21 Oct 2015 07:28:30 GMT"), secs(30)),
            (503, Some("Wed, 21 Oct 2015 07:27:00 GMT"), secs(0)),
            (503, Some("soon"), Outcome::TRANSIENT),
            (503, Some("-5"), Outcome::TRANSIENT),
            (503, Some(""), Outcome::TRANSIENT),
        ] {
            let headers: Vec<_> = after.into_iter().map(|after| ("retry-after", after)).collect();
            let answer = answer(status, &headers);
            let judged = Classify::<_, str>::classify(&judge, Ok(&answer));
            assert_eq!(judged, expected, "{status} {after:?}");
        }
        let judged = Classify::<Response<()>, str>::classify(&judge, Err("connection reset"));
        assert_eq!(judged, Outcome::TRANSIENT);
        let date = answer(503, &[("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")]);
        let judged = Classify::<_, str>::classify(&ByStatus::default(), Ok(&date));
        assert_eq!(judged, Outcome::TRANSIENT, "no clock, no date");
    }

    #[test]
    fn a_grpc_status_in_the_headers_goes_before_the_http_status() {
        for (status, code, expected) in [
            (200, Some("0"), Outcome::Success),
            (200, Some("14"), Outcome::TRANSIENT),
            (200, Some("7"), Outcome::Permanent),
            (200, Some("1"), Outcome::Cancelled),
            (200, Some("ok"), Outcome::TRANSIENT),
            (200, None, Outcome::Success),
            (502, None, Outcome::TRANSIENT),
        ] {
            let headers: Vec<_> = code.into_iter().map(|code| ("grpc-status", code)).collect();
            let judged =
                Classify::<_, str>::classify(&ByGrpcStatus::default(), Ok(&answer(status, &headers)));
            assert_eq!(judged, expected, "{status} {code:?}");
        }
    }

    #[test]
    fn a_post_without_a_key_is_not_to_be_repeated() {
        for (method, key, expected) in [
            ("GET", false, Safety::Safe),
            ("PUT", false, Safety::Safe),
            ("DELETE", true, Safety::Safe),
            ("POST", false, Safety::Unsafe),
            ("PATCH", false, Safety::Unsafe),
            ("POST", true, Safety::Keyed),
            ("BREW", false, Safety::Unsafe),
        ] {
            let mut request = Request::builder().method(method);
            if key {
                request = request.header("Idempotency-Key", "17");
            }
            let facts = Requests.facts(&request.body(()).unwrap(), Monotonic::ORIGIN);
            assert_eq!(facts.safety, expected, "{method} {key}");
        }
    }

    #[test]
    fn the_envelope_in_the_extensions_says_the_rest_and_is_lowered_before_it_goes_out() {
        let at = |secs| Deadline::at(Monotonic::from_origin(Duration::from_secs(secs)));
        let chance = SeededChance::new(1);
        let envelope = Envelope::begin(Priority::Critical, &chance)
            .lower_deadline(at(10))
            .with_tokens(RetryTokens::new(2))
            .with_idempotency_key(IdempotencyKey::new("17").unwrap());
        let mut request = Request::post("/").extension(envelope).body(()).unwrap();
        let facts = Requests.facts(&request, Monotonic::ORIGIN);
        assert_eq!((facts.deadline, facts.priority), (Some(at(10)), Priority::Critical));
        assert_eq!((facts.safety, facts.tokens.clone()), (Safety::Keyed, Some(RetryTokens::new(2))));
        Requests.send(&mut request, &facts.lower_deadline(at(3)));
        assert_eq!(request.extensions().get::<Envelope>().unwrap().deadline(), Some(at(3)));
    }
}
