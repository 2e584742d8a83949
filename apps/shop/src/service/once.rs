//! Idempotency keys: which request is which, and what becomes of one that is sent again.

use mainstay::Context;
use mainstay::Decider;
use mainstay::flow::inbox::{self, Once, Request};
use mainstay::flow::unit_of_work::{Decided, Work};
use mainstay::store::{Abort, Receipt, Refusal, Store, TransactError, Tx};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::store_problem;
use crate::http::problem::{Fault, Problem};

/// Why a request's transaction was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum No<E> {
    /// Its key was used for another body.
    OtherBody,
    /// The rules say no.
    Rule(E),
}

/// The request that this call's `Idempotency-Key` names; none without the header.
///
/// Its scope is the operation and the caller, if one is known. What it asks is compared as it is understood, not
/// byte by byte: a client may write the same JSON in another order when it sends it again.
pub fn request(cx: &Context, operation: &str, ask: &impl Serialize) -> Result<Option<Request>, Problem> {
    let Some(key) = cx.envelope().idempotency_key() else { return Ok(None) };
    let broken = |error| Problem::new(Fault::Internal, format!("the request can't be told apart: {error}"));
    let body = serde_json::to_vec(ask).map_err(broken)?;
    let caller = cx.envelope().caller().map_or("", |caller| caller.as_str());
    Ok(Some(Request::new(format!("{operation} {caller}"), key.clone(), &body)))
}

/// The same, of an operation that would not be safe without.
pub fn required(cx: &Context, operation: &str, ask: &impl Serialize) -> Result<Request, Problem> {
    request(cx, operation, ask)?.ok_or_else(|| {
        Problem::new(
            Fault::KeyMissing,
            "without it a repeated request would be done twice; nothing was done; send Idempotency-Key with a new \
             UUID, and the same one when you send the same request again",
        )
    })
}

/// An answer as it is recorded under its request's key: what was answered, and what its receipt stood for.
///
/// A repetition gets the first one's receipt. Its own would stand for everything up to now, also for what nobody
/// publishes, and another service would wait for that in vain. The mark is kept here, not found again in the stream:
/// the events may have moved to an archive meanwhile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recorded {
    body: Box<RawValue>,
    mark: Option<u64>,
}

impl Recorded {
    /// This answer to what was decided.
    pub fn new<S: Store, D: Decider>(
        work: &Work<'_, S>,
        decided: &Decided<D>,
        body: Box<RawValue>,
    ) -> Result<Self, Refusal> {
        // Where nothing was decided there is nothing to wait for but what was there before.
        let mark = match decided.events.is_empty() {
            true => None,
            false => work
                .tx()
                .read_stream(&decided.stream, decided.version, 1)?
                .first()
                .map(|last| last.position.0),
        };
        Ok(Self { body, mark })
    }

    /// The answer's JSON.
    pub fn body(&self) -> &str {
        self.body.get()
    }

    /// The receipt to answer with, where the transaction that made this answer, or found it, has that one.
    pub fn receipt(&self, own: Receipt) -> Receipt {
        self.mark.map_or(own, |mark| Receipt::new(own.store(), mark))
    }
}

/// Does it once; the answer, now or then.
pub fn once<S: Store, T: Serialize + DeserializeOwned, E>(
    work: &Work<'_, S>,
    request: Option<&Request>,
    effect: impl FnOnce() -> Result<T, Abort<E>>,
) -> Result<T, Abort<No<E>>> {
    let Some(request) = request else { return effect().map_err(ruled) };
    match inbox::once(work, request, effect).map_err(ruled)? {
        Once::First(answer) | Once::Again(answer) => Ok(answer),
        Once::OtherBody => Err(Abort::User(No::OtherBody)),
    }
}

fn ruled<E>(abort: Abort<E>) -> Abort<No<E>> {
    match abort {
        Abort::User(no) => Abort::User(No::Rule(no)),
        Abort::Refused(refusal) => Abort::Refused(refusal),
    }
}

/// What a request's transaction's failure is to the client whose call this was; `rule` says it of the rules.
pub fn problem<E>(cx: &Context, error: &TransactError<No<E>>, rule: impl Fn(&E) -> Problem) -> Problem {
    match error {
        TransactError::User(No::OtherBody) => Problem::new(
            Fault::KeyReused,
            "this Idempotency-Key was used for another request; nothing was done; use a new one for each new effect",
        ),
        TransactError::User(No::Rule(no)) => rule(no),
        TransactError::Store(error) => store_problem(cx, error),
    }
}
