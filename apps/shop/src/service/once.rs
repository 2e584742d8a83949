//! Idempotency keys: which request is which, and what becomes of one that is sent again.

use mainstay::Context;
use mainstay::flow::inbox::{self, Once, Request};
use mainstay::flow::work::Work;
use mainstay::store::{Abort, Store, TransactError};
use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// Does it once; the answer, and whether it was made before.
pub fn once<S: Store, T: Serialize + DeserializeOwned, E>(
    work: &Work<'_, S>,
    request: Option<&Request>,
    effect: impl FnOnce() -> Result<T, Abort<E>>,
) -> Result<(T, bool), Abort<No<E>>> {
    let Some(request) = request else { return Ok((effect().map_err(ruled)?, false)) };
    match inbox::once(work, request, effect).map_err(ruled)? {
        Once::First(answer) => Ok((answer, false)),
        Once::Again(answer) => Ok((answer, true)),
        Once::OtherBody => Err(Abort::User(No::OtherBody)),
    }
}

fn ruled<E>(abort: Abort<E>) -> Abort<No<E>> {
    match abort {
        Abort::User(no) => Abort::User(No::Rule(no)),
        Abort::Refused(refusal) => Abort::Refused(refusal),
    }
}

/// What a request's transaction's failure is to the client; `rule` says it of the rules.
pub fn problem<E>(error: &TransactError<No<E>>, rule: impl Fn(&E) -> Problem) -> Problem {
    match error {
        TransactError::User(No::OtherBody) => Problem::new(
            Fault::KeyReused,
            "this Idempotency-Key was used for another request; nothing was done; use a new one for each new effect",
        ),
        TransactError::User(No::Rule(no)) => rule(no),
        TransactError::Store(error) => store_problem(error),
    }
}
