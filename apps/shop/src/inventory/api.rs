//! PUT and GET /stock/{sku}, and the stock that a demonstration begins with.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use mainstay::flow::work::{Work, transact};
use mainstay::store::{Abort, Store};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Shelves, Stocks};
use crate::domain::stock::{Short, StockCommand};
use crate::domain::{Currency, Minor, Price, Sku, StockQuantity};
use crate::http::problem::{Fault, Problem};
use crate::service::once::{once, problem, request as asked};
use crate::service::{Call, ServeError, body, changed, json, path, read_problem};

/// What a demonstration has on its shelves: name, how many, and what one costs.
const DEMO: [(&str, u64, u64); 3] = [("apple", 1_000, 150), ("pear", 1_000, 220), ("truffle", 5, 9_900)];

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
        problem(&error, |short| Problem::new(Fault::Refused, format!("{short}; nothing was done")))
    })?;
    app.stats().commit();
    Ok(changed(StatusCode::OK, done.value.0.get().to_owned(), &done.receipt))
}

/// One count, recorded, published and shown; its row.
fn count<S: Store>(
    shelves: &Shelves,
    work: &Work<'_, S>,
    sku: &Sku,
    quantity: StockQuantity,
    price: Price,
) -> Result<Box<RawValue>, Abort<Short>> {
    let command = StockCommand::Set { sku: sku.clone(), quantity, price };
    let stream = Shelves::stream(sku)?;
    let decided = work.act(&shelves.entity, &stream, sku.as_str(), &command)?.map_err(Abort::User)?;
    Ok(shelves.show(work, sku, &decided.state)?)
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

impl<S: Store> Stocks<S> {
    /// Puts the demonstration's articles on the shelves, each unless it was counted before.
    pub(super) async fn seed(&self) -> Result<(), ServeError> {
        let (app, shelves) = (&self.app, self.shelves.clone());
        transact(app.store(), app.cx(), app.publisher(), move |work| {
            for (name, quantity, minor) in DEMO {
                let invalid = |why: String| mainstay::store::Refusal::Invalid { what: "demo", why };
                let sku = Sku::new(name).map_err(|why| invalid(why.to_string()))?;
                let quantity = StockQuantity::new(quantity).map_err(|why| invalid(why.to_string()))?;
                let minor = Minor::new(minor).map_err(|why| invalid(why.to_string()))?;
                let (present, _) = work.state(&shelves.entity, &Shelves::stream(&sku)?)?;
                if present.price().is_none() {
                    count(&shelves, work, &sku, quantity, Price::new(Currency::EUR, minor))?;
                }
            }
            Ok::<_, Abort<Short>>(())
        })
        .await
        .map(drop)
        .map_err(|error| ServeError::Seed(error.to_string()))
    }
}
