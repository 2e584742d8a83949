//! Requests that are done once, however often they are sent: the idempotency key of an HTTP API.
//!
//! The answer is recorded under the key in the transaction of the effect. So there is no moment at which the effect
//! is done and the key unknown, or the reverse; a client that never got its answer asks again and gets it.
//!
//! | the request comes | and then |
//! |---|---|
//! | for the first time | it is done, and its answer recorded |
//! | again, with the same body | it gets the recorded answer; nothing is done |
//! | again, with another body | it is refused: a key names one effect |
//! | twice at once | one is done; the other waits for the store's writer and gets the recorded answer |
//! | again, after its retention | it is done again: the key is forgotten |
//! | and the process dies in between | effect and record are there, or neither |

use std::time::Duration;

use mainstay_envelope::{ContentHash, Context, IdempotencyKey, Timestamp};
use mainstay_event_store::{
    Abort, IndexValue, Refusal, Row, Scan, ScanBy, Store, TransactError, Tx, ViewName, limits,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::unit_of_work::Work;

const REQUESTS: &str = "mainstay.requests";
const EXPIRES: &str = "expires";
/// Records that one slice of clearing removes.
const SLICE_MAX: usize = 256;

/// Which request it is, and what it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    scope: String,
    key: IdempotencyKey,
    body: ContentHash,
    retention: Duration,
}

impl Request {
    /// A request with this key and body.
    ///
    /// The scope tells keys of different clients and operations apart: two clients may choose the same key. It may
    /// be long; a hash of it is kept. The body is everything that decides what is done, in one form: path
    /// parameters too, if the scope does not hold them.
    pub fn new(scope: impl Into<String>, key: IdempotencyKey, body: &[u8]) -> Self {
        let retention = Duration::from_secs(24 * 60 * 60);
        Self { scope: scope.into(), key, body: ContentHash::of(body), retention }
    }

    /// How long the answer is kept; default a day. A client that retries later than that is done anew.
    pub fn keep(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    fn row_key(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("mainstay request 1");
        for part in [self.scope.as_str(), self.key.as_str()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..40].to_owned()
    }
}

/// How a request with a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once<T> {
    /// Done now.
    First(T),
    /// Done before: its answer.
    Again(T),
    /// The key was used with another body; nothing was done. HTTP's answer is 422.
    OtherBody,
}

impl<T> Once<T> {
    /// The answer, whenever it was made; none for another body.
    pub fn answer(self) -> Option<T> {
        match self {
            Self::First(answer) | Self::Again(answer) => Some(answer),
            Self::OtherBody => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    body: ContentHash,
    expires: Timestamp,
    answer: Box<RawValue>,
}

/// Does a request once: runs `effect` and records its answer, or answers what was recorded.
///
/// What `effect` returns as `Ok` is the answer that every repetition gets, a no of the business rules included if it
/// is part of `T`. An error takes the work back and records nothing: the request may be sent again.
///
/// ```
/// # use mainstay_envelope::{Context, IdempotencyKey};
/// # use mainstay_event_store::{Abort, memory::Memory};
/// # use mainstay_flow::{saga::Participant, unit_of_work::{Publisher, transact}};
/// use mainstay_flow::inbox::{Once, Request, once};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (cx, store, publisher) = (Context::system(), Memory::new(), Publisher::new(&Participant::new("order"))?);
/// for expected in [Once::First(1), Once::Again(1)] {
///     let request = Request::new("POST /orders", IdempotencyKey::new("9f2c")?, b"{}");
///     let done = transact(&store, &cx, &publisher, move |work| {
///         once(work, &request, || Ok::<_, Abort<std::convert::Infallible>>(1))
///     });
///     assert_eq!(done.await?.value, expected);
/// }
/// # Ok(())
/// # }
/// ```
pub fn once<S: Store, T: Serialize + DeserializeOwned, E>(
    work: &Work<'_, S>,
    request: &Request,
    effect: impl FnOnce() -> Result<T, Abort<E>>,
) -> Result<Once<T>, Abort<E>> {
    work.known_by_key();
    let tx = work.tx();
    let view = ViewName::new(REQUESTS).map_err(Refusal::from)?;
    let key = request.row_key();
    let damaged = |error: serde_json::Error| Refusal::Invalid {
        what: "recorded answer",
        why: format!("row {key} of {view} can't be read: {error}"),
    };
    if let Some(bytes) = tx.view_get(&view, &key)? {
        let record: Record = serde_json::from_slice(&bytes).map_err(damaged)?;
        if tx.at() < record.expires {
            if record.body != request.body {
                return Ok(Once::OtherBody);
            }
            let answer = serde_json::from_str(record.answer.get()).map_err(damaged)?;
            return Ok(Once::Again(answer));
        }
    }
    let answer = effect()?;
    let unwritable = |error: serde_json::Error| Refusal::Invalid { what: "answer", why: error.to_string() };
    let keep = i64::try_from(request.retention.as_millis()).unwrap_or(i64::MAX);
    let expires = Timestamp::from_millis(tx.at().as_millis().saturating_add(keep));
    let recorded = serde_json::value::to_raw_value(&answer).map_err(unwritable)?;
    let record = Record { body: request.body, expires, answer: recorded };
    let row = Row::new(key, serde_json::to_vec(&record).map_err(unwritable)?)
        .indexed(EXPIRES, IndexValue::Integer(expires.as_millis()));
    tx.view_put(&view, &row)?;
    Ok(Once::First(answer))
}

/// Removes some answers whose retention is over; are there more? To be called now and then, in the background.
pub async fn forget_expired<S: Store>(
    store: &S,
    cx: &Context,
) -> Result<bool, TransactError<std::convert::Infallible>> {
    let done = store
        .transact(cx, |tx| {
            let view = ViewName::new(REQUESTS).map_err(Refusal::from)?;
            let by = ScanBy::Index {
                index: EXPIRES,
                from: IndexValue::Integer(i64::MIN),
                to: IndexValue::Integer(tx.at().as_millis()),
            };
            let rows_max = SLICE_MAX.min(limits::PAGE_EVENTS_MAX);
            let rows = tx.view_scan(&Scan { view: view.clone(), by, after: None, rows_max })?;
            for (key, _) in &rows.rows {
                tx.view_delete(&view, key)?;
            }
            Ok(rows.next.is_some())
        })
        .await?;
    Ok(done.value)
}
