//! Every error as problem details (RFC 9457), from one table.

use std::fmt;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mainstay::resilience::Refusal;
use serde_json::json;

/// What can be wrong with a request, or with us. [`Fault::row`] says how each is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The body is no JSON, or no UTF-8.
    MalformedJson,
    /// The body is nested deeper than any body of this API.
    TooDeep,
    /// A header can't be used.
    BadHeader,
    /// The header `Idempotency-Key` is missing.
    KeyMissing,
    /// A parameter of the query can't be used.
    BadQuery,
    /// No such path, or nothing is there.
    NotFound,
    /// The path is there; the method is not.
    MethodNotAllowed,
    /// The request is meant for another host.
    Misdirected,
    /// The body took too long to arrive.
    SlowBody,
    /// The body is too large.
    TooLarge,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// The body is JSON of another shape, or a value is out of its range.
    Invalid,
    /// An order names an article that has no price.
    UnknownSku,
    /// The idempotency key was used for another request.
    KeyReused,
    /// The receipt is of a store that this service does not follow.
    ForeignReceipt,
    /// The rules of the shop say no.
    Refused,
    /// The card processor says no to a charge.
    CardDeclined,
    /// The key of a charge was voided.
    ChargeVoided,
    /// It fails because it was told to, by `PUT /behaviour`.
    Simulated,
    /// Something of ours is broken.
    Internal,
    /// The change that the receipt stands for has not arrived in time.
    NotYet,
    /// Too much work at the moment, or a fault that passes; nothing was written.
    Busy,
    /// Too much work at the moment, and others are more important.
    Shed,
    /// A service that this one asks does not answer, and nothing that is kept may be told instead.
    CalleeUnavailable,
    /// Nobody knows whether it was written.
    OutcomeUnknown,
    /// The service is not ready, or ends.
    NotReady,
    /// The caller's deadline was over before anything was done.
    DeadlineOver,
}

/// All of them: the document and its test go through this list.
pub const FAULTS: [Fault; 27] = [
    Fault::MalformedJson,
    Fault::TooDeep,
    Fault::BadHeader,
    Fault::KeyMissing,
    Fault::BadQuery,
    Fault::NotFound,
    Fault::MethodNotAllowed,
    Fault::Misdirected,
    Fault::SlowBody,
    Fault::TooLarge,
    Fault::UnsupportedMediaType,
    Fault::Invalid,
    Fault::UnknownSku,
    Fault::KeyReused,
    Fault::ForeignReceipt,
    Fault::Refused,
    Fault::CardDeclined,
    Fault::ChargeVoided,
    Fault::Simulated,
    Fault::Internal,
    Fault::NotYet,
    Fault::Busy,
    Fault::Shed,
    Fault::CalleeUnavailable,
    Fault::OutcomeUnknown,
    Fault::NotReady,
    Fault::DeadlineOver,
];

/// How a fault is answered.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The status.
    pub status: u16,
    /// The last part of the problem's `type`.
    pub name: &'static str,
    /// The problem's `title`.
    pub title: &'static str,
    /// `Retry-After`, in seconds, where trying again makes sense.
    pub retry_after: Option<u8>,
}

impl Fault {
    /// The one table: what each fault is called, and its status.
    pub const fn row(self) -> Row {
        let (status, name, title, retry_after) = match self {
            Self::MalformedJson => (400, "malformed-json", "The body is not JSON", None),
            Self::TooDeep => (400, "too-deep", "The body is nested too deeply", None),
            Self::BadHeader => (400, "bad-header", "A header can't be used", None),
            Self::KeyMissing => (400, "idempotency-key-missing", "Idempotency-Key is missing", None),
            Self::BadQuery => (400, "bad-query", "The query can't be used", None),
            Self::CardDeclined => (402, "card-declined", "The card was declined", None),
            Self::ChargeVoided => (409, "charge-voided", "The charge was voided", None),
            Self::Simulated => (503, "simulated", "It fails as it was told to", None),
            Self::NotFound => (404, "not-found", "There is nothing here", None),
            Self::MethodNotAllowed => (405, "method-not-allowed", "This path has no such method", None),
            Self::SlowBody => (408, "slow-body", "The body took too long to arrive", None),
            Self::TooLarge => (413, "too-large", "The body is too large", None),
            Self::UnsupportedMediaType => (415, "unsupported-media-type", "The body is to be JSON", None),
            Self::Misdirected => (421, "misdirected", "This host is not served here", None),
            Self::Invalid => (422, "invalid", "The body does not say what it has to", None),
            Self::UnknownSku => (422, "unknown-sku", "There is no such article", None),
            Self::KeyReused => (422, "idempotency-key-reused", "The key was used for another request", None),
            Self::ForeignReceipt => {
                (422, "foreign-receipt", "The receipt is of no store followed here", None)
            }
            Self::Refused => (422, "refused", "The rules say no", None),
            Self::Internal => (500, "internal", "Something of ours is broken", None),
            Self::NotYet => (503, "not-yet", "The change has not arrived here yet", Some(1)),
            Self::Busy => (503, "busy", "Too much work at the moment", Some(1)),
            Self::Shed => (503, "shed", "Too much work, and others go first", Some(1)),
            Self::CalleeUnavailable => {
                (503, "callee-unavailable", "A service asked for it does not answer", Some(1))
            }
            Self::OutcomeUnknown => (503, "outcome-unknown", "Nobody knows whether it was done", Some(1)),
            Self::NotReady => (503, "not-ready", "The service is not ready", Some(1)),
            Self::DeadlineOver => (503, "deadline-over", "The deadline was over before it was done", None),
        };
        Row { status, name, title, retry_after }
    }
}

/// An error as it is answered: what happened, what was not done, what to do next.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Which.
    pub fault: Fault,
    /// For whoever reads it.
    pub detail: String,
    /// For operators, never for the client.
    cause: Option<String>,
    /// Does trying again make sense, where it does for this fault?
    again: bool,
    /// The decision of a rule behind it, and when asking again may help, where it knows.
    decision: Option<(String, Option<Duration>)>,
}

/// What an answer with [`Fault::Internal`] carries beside its body, for the edge to tell operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause(pub(crate) String);

/// The longest detail, in bytes: a decoder's message may repeat what the client sent.
const DETAIL_BYTES_MAX: usize = 400;

/// The longest cause that is told, in bytes.
const CAUSE_BYTES_MAX: usize = 1_000;

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

/// Media type of RFC 9457 §6.1.
pub const PROBLEM_JSON: &str = "application/problem+json";

impl Problem {
    /// A problem.
    pub fn new(fault: Fault, detail: impl fmt::Display) -> Self {
        Self {
            fault,
            detail: cut(detail.to_string(), DETAIL_BYTES_MAX),
            cause: None,
            again: true,
            decision: None,
        }
    }

    /// What is behind it. The client is not shown it; of a [`Fault::Internal`] operators are told.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cut(cause.to_string(), CAUSE_BYTES_MAX));
        self
    }

    /// A rule decided so: the answer names the decision, by which operators find what it was made of.
    #[must_use]
    pub fn decided(mut self, refusal: &Refusal) -> Self {
        self.decision = Some((refusal.decision.to_string(), refusal.retry_after));
        self
    }

    /// The same request must not be sent again by itself: no `Retry-After`.
    #[must_use]
    pub fn not_again(mut self) -> Self {
        self.again = false;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.fault.row().title, self.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let row = self.fault.row();
        let mut body = json!({
            "type": format!("urn:mainstay:problem:{}", row.name),
            "title": row.title,
            "status": row.status,
            "detail": self.detail,
        });
        let mut seconds = row.retry_after.map(u64::from);
        if let Some((decision, wait)) = self.decision {
            body["decision"] = decision.into();
            // Whole seconds (RFC 9110 §10.2.3), and not too early.
            seconds =
                seconds.map(|least| wait.map_or(least, |wait| (wait.as_secs_f64().ceil() as u64).max(least)));
        }
        let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = seconds.filter(|_| self.again) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.fault == Fault::Internal {
            response.extensions_mut().insert(Cause(self.cause.unwrap_or(self.detail)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own_and_an_error_status() {
        let names: HashSet<_> = FAULTS.iter().map(|fault| fault.row().name).collect();
        assert_eq!(names.len(), FAULTS.len());
        assert!(FAULTS.iter().all(|fault| (400..600).contains(&fault.row().status)));
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let problem = Problem::new(Fault::Invalid, "ä".repeat(10_000));
        assert!(problem.detail.len() <= DETAIL_BYTES_MAX + '…'.len_utf8());
    }
}
