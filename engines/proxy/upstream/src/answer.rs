//! What the callee answered, all of it in memory and no larger than it may be.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use mainstay_envelope::Clock;
use mainstay_resilience::http::{ByStatus, retry_after};
use mainstay_resilience::{Classified, Classify, Outcome};
use serde::de::DeserializeOwned;

use crate::error::HttpError;

/// An answer: whatever its status, the callee has spoken. Its body is read to the end before a policy judges the try,
/// so what comes slowly or stops half-way is judged, too.
#[derive(Debug, Clone)]
pub struct Answer(Response<Bytes>);

/// The longest detail that is repeated in an error, in bytes.
const DETAIL_BYTES_MAX: usize = 400;

impl Answer {
    /// Of these parts: for a callee inside the process, and for tests.
    pub const fn new(response: Response<Bytes>) -> Self {
        Answer(response)
    }

    /// Its status. Redirections are answers like any other: nothing is followed.
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// Its header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// Its body. A clone costs one reference count.
    pub fn bytes(&self) -> &Bytes {
        self.0.body()
    }

    /// When the callee wishes to be asked again (Retry-After in seconds; one that is a date needs a wall clock: see
    /// [`mainstay_resilience::http::retry_after`]).
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(self.headers(), None)
    }

    /// Itself, if its status is a success (2xx).
    ///
    /// # Errors
    /// [`HttpError::Status`], with the detail of the callee's problem details, if it sent any.
    pub fn success(self) -> Result<Self, HttpError> {
        self.check().map(|()| self)
    }

    /// The body of a success, decoded.
    ///
    /// # Errors
    /// [`HttpError::Status`] if it is no success: an error's body is never taken for the value.
    /// [`HttpError::Undecodable`] if the body is not JSON of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        self.check()?;
        serde_json::from_slice(self.bytes())
            .map_err(|error| HttpError::Undecodable { problem: error.to_string() })
    }

    /// The members of the callee's problem details (RFC 9457); none if it sent no such document. A refusal by the
    /// callee's rules names them in `rule`, `decision` and `not_done` (see [`inbound`](crate::inbound)).
    pub fn problem(&self) -> Option<serde_json::Map<String, serde_json::Value>> {
        let media_type = self.headers().get(http::header::CONTENT_TYPE)?.to_str().ok()?;
        let essence = media_type.split(';').next()?.trim();
        if !essence.eq_ignore_ascii_case(crate::inbound::PROBLEM_JSON) {
            return None;
        }
        serde_json::from_slice(self.bytes()).ok()
    }

    /// Its parts.
    pub fn into_response(self) -> Response<Bytes> {
        self.0
    }

    fn check(&self) -> Result<(), HttpError> {
        if self.status().is_success() {
            return Ok(());
        }
        let said = self.problem().and_then(|problem| {
            let member = |name: &str| problem.get(name)?.as_str().map(str::to_owned);
            member("detail").or_else(|| member("title"))
        });
        let detail = said.map(|mut text| {
            text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
            text
        });
        Err(HttpError::Status { status: self.status(), detail })
    }
}

/// Judges answers by status and Retry-After, as [`ByStatus`] does, and errors by themselves.
///
/// It gives no proof that a try had no effect, also where there is one ([`HttpError::is_unsent`]): whether a request may
/// be repeated is a matter of its type, and no failure changes that.
#[derive(Debug, Clone, Default)]
pub struct ByAnswer(ByStatus);

impl ByAnswer {
    /// One that understands a Retry-After that is a date by this clock.
    pub const fn with_clock(clock: std::sync::Arc<dyn Clock>) -> Self {
        ByAnswer(ByStatus::with_clock(clock))
    }
}

impl Classify<Answer, HttpError> for ByAnswer {
    fn classify(&self, result: Result<&Answer, &HttpError>) -> Outcome {
        match result {
            Ok(Answer(response)) => Classify::<_, HttpError>::classify(&self.0, Ok(response)),
            Err(error) => error.outcome(),
        }
    }
}
