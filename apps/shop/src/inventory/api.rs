//! PUT and GET /stock/{sku}.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use mainstay::flow::unit_of_work::{Work, transact};
use mainstay::store::{Abort, Store};
use serde::{Deserialize, Serialize};

use super::{Shelves, Stocks};
use crate::domain::stock::{Short, StockCommand};
use crate::domain::{Price, Sku, StockQuantity};
use crate::http::problem::{Fault, Problem};
use crate::service::once::{Recorded, once, problem, request as asked};
use crate::service::{Call, body, changed, json, path, read_problem};

/// The body of PUT /stock/{sku}.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NewStock {
    quantity: StockQuantity,
    price: Price,
}

/// Counts and prices an article. Without an `Idempotency-Key` a repeated count is a new one: it replaces what was
/// reserved meanwhile.
pub(super) async fn set<S: Store>(
    State(stocks): State<Stocks<S>>,
    Call { cx }: Call,
    sku: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let sku: Sku = path(sku)?;
    let ask: NewStock = body(&stocks.app, request).await?;
    let key = asked(&cx, "PUT /stock", &(&sku, &ask))?;
    let (app, shelves) = (&stocks.app, stocks.shelves.clone());
    let done = transact(app.store(), &cx, app.publisher(), move |work| {
        once(work, key.as_ref(), || count(&shelves, work, &sku, ask.quantity, ask.price))
    })
    .await
    .map_err(|error| {
        problem(&cx, &error, |short| Problem::new(Fault::Refused, format!("{short}; nothing was done")))
    })?;
    app.stats().commit();
    Ok(changed(StatusCode::OK, done.value.body().to_owned(), &done.value.receipt(done.receipt)))
}

/// One count, recorded, published and shown; its row.
fn count<S: Store>(
    shelves: &Shelves,
    work: &Work<'_, S>,
    sku: &Sku,
    quantity: StockQuantity,
    price: Price,
) -> Result<Recorded, Abort<Short>> {
    let command = StockCommand::Set { sku: sku.clone(), quantity, price };
    let stream = Shelves::stream(sku)?;
    let decided = work.act(&shelves.entity, &stream, sku.as_str(), &command)?.map_err(Abort::User)?;
    let shown = shelves.show(work, sku, &decided.state)?;
    Ok(Recorded::new(work, &decided, shown)?)
}

/// One article.
pub(super) async fn one<S: Store>(
    State(stocks): State<Stocks<S>>,
    sku: Result<Path<String>, PathRejection>,
) -> Result<Response<Body>, Problem> {
    let sku: Sku = path(sku)?;
    let row = stocks.app.store().view_get(&stocks.shelves.view, sku.as_str()).await;
    match row.map_err(|error| read_problem(&error))? {
        Some(bytes) => Ok(json(StatusCode::OK, bytes)),
        None => Err(Problem::new(Fault::NotFound, "there is no such article here")),
    }
}
