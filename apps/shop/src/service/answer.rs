//! Answers, and what the store's errors are to a client.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use mainstay::Context;
use mainstay::store::{AppendError, ReadError, Receipt, Refusal, Retry};

use crate::http::problem::{Fault, Problem};

/// The header in which an answer carries its receipt, and a request presents one.
pub(super) const RECEIPT: HeaderName = HeaderName::from_static("mainstay-receipt");

/// An answer of JSON.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer of JSON to a request that changed something.
pub fn changed(status: StatusCode, body: impl Into<Bytes>, receipt: &Receipt) -> Response<Body> {
    let mut response = json(status, body);
    // A receipt is letters, digits and dots.
    if let Ok(value) = HeaderValue::from_str(&receipt.to_string()) {
        response.headers_mut().insert(RECEIPT, value);
    }
    response
}

/// `{"NAME":[…],"next":"…"}` from rows that are JSON already, so that none is parsed to be written again.
pub fn page(name: &str, rows: &[Vec<u8>], next: Option<&str>) -> Vec<u8> {
    let mut body = Vec::with_capacity(rows.iter().map(|row| row.len() + 1).sum::<usize>() + 64);
    body.extend_from_slice(format!("{{\"{name}\":[").as_bytes());
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        body.extend_from_slice(row);
    }
    body.push(b']');
    if let Some(next) = next {
        body.extend_from_slice(format!(",\"next\":\"{next}\"").as_bytes());
    }
    body.push(b'}');
    body
}

/// What a transaction's failure is to the client whose call this was.
pub fn store_problem(cx: &Context, error: &AppendError) -> Problem {
    match error {
        AppendError::Refused(refusal) => refusal_problem(refusal),
        AppendError::Unknown { .. } => outcome_unknown(cx, "the store failed while it was writing"),
    }
}

/// Nobody knows whether it was written. With a key the request itself finds out; without one it would be done once
/// more, so nobody is told to send it again.
pub(super) fn outcome_unknown(cx: &Context, what: &str) -> Problem {
    if cx.envelope().idempotency_key().is_some() {
        return Problem::new(
            Fault::OutcomeUnknown,
            format!(
                "{what}; the change may or may not be there; send the same request with the same Idempotency-Key \
                 again to find out"
            ),
        );
    }
    let detail = format!(
        "{what}; the change may or may not be there, and without an Idempotency-Key the same request would be done \
         once more; read what is there before sending anything again"
    );
    Problem::new(Fault::OutcomeUnknown, detail).not_again()
}

fn refusal_problem(refusal: &Refusal) -> Problem {
    match refusal.retry() {
        Retry::Later | Retry::AfterReading => {
            Problem::new(Fault::Busy, "nothing was written; send the same request again a little later")
        }
        // Whatever else a store refuses here is our own mistake, or a disk that is full: not the client's.
        Retry::Never => Problem::new(
            Fault::Internal,
            "nothing was written; it is not this request's fault; see the service's log",
        )
        .because(refusal),
    }
}

/// What a failure to read is to the client.
pub fn read_problem(error: &ReadError) -> Problem {
    match error {
        ReadError::Unavailable { passing: true, .. } => {
            Problem::new(Fault::Busy, "the store can't be read at the moment; ask again a little later")
        }
        _ => Problem::new(Fault::Internal, "the store can't be read; see the service's log").because(error),
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use mainstay::envelope::IdempotencyKey;

    use super::*;
    use crate::http::problem::Cause;

    #[test]
    fn nobody_without_a_key_is_told_to_send_a_request_of_unknown_outcome_again() {
        let bare = Context::system();
        let envelope = bare.envelope().clone().with_idempotency_key(IdempotencyKey::new("k").unwrap());
        let keyed = bare.with_envelope(envelope);
        let unknown = AppendError::Unknown { why: "the disk went away".into() };
        for (cx, says, retry_after) in [
            (&keyed, "send the same request with the same Idempotency-Key", Some("1")),
            (&bare, "read what is there before sending anything again", None),
        ] {
            let problem = store_problem(cx, &unknown);
            assert!(problem.detail.contains(says), "{}", problem.detail);
            let answer = problem.into_response();
            assert_eq!(answer.status(), 503);
            let header = answer.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(header, retry_after);
        }
    }

    #[test]
    fn a_fault_of_ours_carries_its_cause_to_the_log_and_not_to_the_client() {
        let damaged = ReadError::Damaged { why: "page 7 of a file".into() };
        let full =
            Refusal::Unavailable { why: "no space".into(), remedy: "make some".into(), passing: false };
        for (problem, cause) in [
            (read_problem(&damaged), "page 7 of a file"),
            (store_problem(&Context::system(), &AppendError::Refused(full)), "no space"),
        ] {
            assert!(!problem.detail.contains(cause), "{}", problem.detail);
            let answer = problem.into_response();
            assert_eq!(answer.status(), 500);
            let Cause(told) = answer.extensions().get().unwrap();
            assert!(told.contains(cause), "{told}");
        }
    }

    #[test]
    fn a_page_is_json_whether_it_is_empty_or_ends() {
        for (rows, next, text) in [
            (vec![], None, r#"{"orders":[]}"#),
            (vec![b"1".to_vec(), b"2".to_vec()], Some("x"), r#"{"orders":[1,2],"next":"x"}"#),
        ] {
            assert_eq!(String::from_utf8(page("orders", &rows, next)).unwrap(), text);
        }
    }
}
