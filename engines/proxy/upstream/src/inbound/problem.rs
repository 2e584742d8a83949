//! Refusals and failures as problem details (RFC 9457). Which status each has is decided here and nowhere else.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use mainstay_envelope::wire::WireError;
use mainstay_resilience::{DecisionId, Failed, NotDone, Refusal, Why};
use serde_json::{Map, Value};

use crate::error::HttpError;

/// Media type of RFC 9457 §6.1.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// How a refusal of ours is answered: 429 where the caller asks too often, 504 where the work was begun and ran out
/// of time, else 503. With `Retry-After` (whole seconds, rounded up) where the rule knows when asking again may help.
///
/// Beside the members of RFC 9457 it has `rule`, `policy`, `decision` (to be looked up at the policy that took it),
/// `not_done` (`call`: nothing happened; `answer`: it is not known what happened) and `retry_after_ms`.
pub fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let Refusal { decision, rule, policy, why, retry_after, not_done, .. } = refusal;
    let status = status_of(*why, *not_done);
    let mut members = Map::new();
    members.insert("detail".into(), format!("{why}. Not done: {not_done}").into());
    members.insert("rule".into(), rule.as_str().into());
    members.insert("policy".into(), (&**policy).into());
    if *decision != DecisionId::UNRECORDED {
        members.insert("decision".into(), decision.to_string().into());
    }
    let left_undone = match not_done {
        NotDone::Call => "call",
        NotDone::Answer => "answer",
    };
    members.insert("not_done".into(), left_undone.into());
    if let Some(wait) = retry_after {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        members.insert("retry_after_ms".into(), millis.into());
    }
    problem(status, &format!("refused:{rule}"), "A rule of this service refused", members, *retry_after)
}

/// How a call that failed is answered by whoever made it while serving another: a refusal as [`refused`] does; where
/// nothing was sent 503; where the callee took too long 504; else 502. The callee's own words stay inside.
pub fn failed(failed: &Failed<HttpError>) -> Response<Full<Bytes>> {
    let error = match failed {
        Failed::Refused(refusal) => return refused(refusal),
        Failed::Upstream(error) => error,
    };
    let (status, title) = match error {
        HttpError::Request { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "A call could not be made"),
        HttpError::TooSlow { .. } => (StatusCode::GATEWAY_TIMEOUT, "A service behind this one took too long"),
        error if error.is_unsent() => {
            (StatusCode::SERVICE_UNAVAILABLE, "A service behind this one is not there")
        }
        _ => (StatusCode::BAD_GATEWAY, "A service behind this one failed"),
    };
    problem(status, "upstream", title, Map::new(), None)
}

/// A request whose envelope can't be read.
pub(super) fn unreadable(error: &WireError) -> Response<Full<Bytes>> {
    let members = Map::from_iter([("detail".to_owned(), Value::from(error.to_string()))]);
    problem(StatusCode::BAD_REQUEST, "bad-header", "A header can't be used", members, None)
}

fn status_of(why: Why, not_done: NotDone) -> StatusCode {
    match why {
        Why::RateExceeded | Why::TurnTooLate | Why::QuotaUsedUp | Why::TooManyKeys => {
            StatusCode::TOO_MANY_REQUESTS
        }
        // Asking again will not help: it must not look like something that passes.
        Why::CostTooLarge { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        _ if not_done == NotDone::Answer => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn problem(
    status: StatusCode,
    name: &str,
    title: &str,
    mut members: Map<String, Value>,
    retry_after: Option<Duration>,
) -> Response<Full<Bytes>> {
    members.insert("type".into(), format!("urn:mainstay:problem:{name}").into());
    members.insert("title".into(), title.into());
    members.insert("status".into(), status.as_u16().into());
    let mut answer = Response::new(Full::new(Value::Object(members).to_string().into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(wait) = retry_after {
        // Rounded up: whoever comes in the second named shall not be too early.
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
