//! The processor's routes.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use mainstay::Context;
use mainstay::envelope::IdempotencyKey;
use mainstay::store::{Abort, Store, TransactError};
use serde::Deserialize;

use super::Processor;
use super::behaviour::{Behaviour, Obstacle};
use super::ledger::{Charge, Entry, Ledger, No, Status, Sums};
use crate::http::problem::{Fault, Problem};
use crate::service::rows::encode;
use crate::service::{Call, body, json, read_problem, store_problem};

/// The body of POST /voids.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Void {
    charge: String,
}

/// Charges, once for each key.
pub(super) async fn charge<S: Store>(
    State(processor): State<Processor<S>>,
    Call { cx }: Call,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let ask: Charge = body(&processor.app, request).await?;
    let missing = || {
        Problem::new(
            Fault::KeyMissing,
            "without it a repeated charge would be made twice; nothing was charged; send Idempotency-Key with a new \
             UUID, and the same one when you send the same charge again",
        )
    };
    let key = cx.envelope().idempotency_key().ok_or_else(missing)?.as_str().to_owned();
    let (obstacle, behaviour) = processor.temper.next();
    let entry = obstructed(&processor, obstacle, behaviour, async {
        let declines = behaviour.declines();
        write(&processor, &cx, move |ledger, tx| ledger.charge(tx, &key, &ask, declines)).await
    })
    .await?;
    match entry.status {
        Status::Declined => {
            Err(Problem::new(Fault::CardDeclined, "the card was declined; nothing was charged"))
        }
        _ => shown(StatusCode::CREATED, &entry),
    }
}

/// Makes sure that nothing is charged under a key.
pub(super) async fn void<S: Store>(
    State(processor): State<Processor<S>>,
    Call { cx }: Call,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let ask: Void = body(&processor.app, request).await?;
    let key = known(&ask.charge)
        .map_err(|no| Problem::new(Fault::Invalid, format!("charge: {no}; nothing was done")))?;
    let (obstacle, behaviour) = processor.temper.next();
    let entry = obstructed(&processor, obstacle, behaviour, async {
        write(&processor, &cx, move |ledger, tx| ledger.void(tx, &key)).await
    })
    .await?;
    shown(StatusCode::OK, &entry)
}

/// A key as it may stand in the books.
fn known(text: &str) -> Result<String, String> {
    let key = IdempotencyKey::new(text).map_err(|error| error.to_string())?;
    Ok(key.as_str().to_owned())
}

/// Does it, with what stands in the way before it or after it.
async fn obstructed<S: Store, T>(
    processor: &Processor<S>,
    obstacle: Obstacle,
    behaviour: Behaviour,
    effect: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    if behaviour.after_effect {
        let done = effect.await?;
        overcome(processor, obstacle).await?;
        return Ok(done);
    }
    overcome(processor, obstacle).await?;
    effect.await
}

async fn overcome<S: Store>(processor: &Processor<S>, obstacle: Obstacle) -> Result<(), Problem> {
    let told = || {
        Problem::new(
            Fault::Simulated,
            "the processor does as PUT /behaviour said; what it did is in GET /ledger",
        )
    };
    match obstacle {
        Obstacle::Nothing => Ok(()),
        Obstacle::Fail => Err(told()),
        Obstacle::Wait(time) => processor.app.or_stopping(tokio::time::sleep(time)).await.ok_or_else(told),
        Obstacle::Hang => processor.app.or_stopping(std::future::pending()).await.ok_or_else(told),
    }
}

async fn write<S: Store>(
    processor: &Processor<S>,
    cx: &Context,
    effect: impl Fn(&Ledger, &S::Tx) -> Result<Entry, Abort<No>> + Send + Sync + 'static,
) -> Result<Entry, Problem> {
    let ledger = processor.ledger.clone();
    let done = processor.app.store().transact(cx, move |tx| effect(&ledger, tx)).await;
    let done = done.map_err(|error| match error {
        TransactError::User(No::OtherCharge) => {
            Problem::new(Fault::KeyReused, "this key was used for another charge; nothing was charged")
        }
        TransactError::User(No::Voided) => {
            Problem::new(Fault::ChargeVoided, "this key was voided; nothing was charged; use a new one")
        }
        TransactError::User(No::Full) => Problem::new(
            Fault::Busy,
            "the books are full; nothing was charged; keys are forgotten after a day",
        ),
        TransactError::Store(error) => store_problem(cx, &error),
    })?;
    processor.app.stats().commit();
    Ok(done.value)
}

fn shown(status: StatusCode, value: &impl serde::Serialize) -> Result<Response<Body>, Problem> {
    let bytes =
        encode(value).map_err(|error| Problem::new(Fault::Internal, "it can't be shown").because(error))?;
    Ok(json(status, bytes))
}

/// What became of a key.
pub(super) async fn one<S: Store>(
    State(processor): State<Processor<S>>,
    key: Result<Path<String>, PathRejection>,
) -> Result<Response<Body>, Problem> {
    let absent = || Problem::new(Fault::NotFound, "there is nothing of this key here");
    let key = key.ok().and_then(|Path(text)| known(&text).ok()).ok_or_else(absent)?;
    let (entries, ..) = processor.ledger.views();
    let row = processor.app.store().view_get(entries, &key).await.map_err(|error| read_problem(&error))?;
    Ok(json(StatusCode::OK, row.ok_or_else(absent)?))
}

/// The sums.
pub(super) async fn ledger<S: Store>(
    State(processor): State<Processor<S>>,
) -> Result<Response<Body>, Problem> {
    let (_, sums, key) = processor.ledger.views();
    match processor.app.store().view_get(sums, key).await.map_err(|error| read_problem(&error))? {
        Some(bytes) => Ok(json(StatusCode::OK, bytes)),
        None => shown(StatusCode::OK, &Sums::default()),
    }
}

/// From now on it behaves so.
pub(super) async fn behave<S: Store>(
    State(processor): State<Processor<S>>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let ask: Behaviour = body(&processor.app, request).await?;
    let ask =
        ask.check().map_err(|no| Problem::new(Fault::Invalid, format!("{no}; it behaves as before")))?;
    processor.temper.set(ask);
    shown(StatusCode::OK, &ask)
}

/// How it behaves.
pub(super) async fn behaviour<S: Store>(
    State(processor): State<Processor<S>>,
) -> Result<Response<Body>, Problem> {
    shown(StatusCode::OK, &processor.temper.get())
}
