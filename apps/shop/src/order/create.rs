//! POST /orders: one transaction for the order, its row, its message and the answer under its key.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use mainstay::flow::unit_of_work::{Work, transact};
use mainstay::store::{Abort, Refusal, Store, Tx};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::row::{Entry, OrderRow};
use super::{Orders, stream};
use crate::domain::order::{OrderCommand, OrderEvent, OrderRefusal, check_lines};
use crate::domain::{CustomerId, Line, OrderId, Sku};
use crate::http::problem::{Fault, Problem};
use crate::service::once::{Recorded, once, problem, required};
use crate::service::rows::decode;
use crate::service::{Call, body, changed};

/// The body of POST /orders.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    customer: CustomerId,
    lines: Vec<Line>,
}

/// The answer, as it is recorded under the request's key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Made {
    id: OrderId,
    answer: Recorded,
}

/// Why no order was made.
#[derive(Debug)]
enum No {
    UnknownSku(Sku),
    Refused(OrderRefusal),
}

/// Makes an order.
pub(super) async fn create<S: Store>(
    State(orders): State<Orders<S>>,
    Call { cx }: Call,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let ask: NewOrder = body(&orders.app, request).await?;
    // Known without the store, so said without it.
    check_lines(&ask.lines).map_err(|no| Problem::new(Fault::Invalid, format!("{no}; nothing was done")))?;
    let key = required(&cx, "POST /orders", &ask)?;
    let app = &orders.app;
    let done = transact(app.store(), &cx, app.publisher(), {
        let orders = orders.clone();
        move |work| once(work, Some(&key), || make(&orders, work, &ask))
    })
    .await
    .map_err(|error| problem(&cx, &error, refused))?;
    app.stats().commit();
    let made = done.value;
    let receipt = made.answer.receipt(done.receipt);
    let mut answer = changed(StatusCode::CREATED, made.answer.body().to_owned(), &receipt);
    if let Ok(location) = HeaderValue::from_str(&format!("/orders/{}", made.id)) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    Ok(answer)
}

fn refused(no: &No) -> Problem {
    match no {
        No::UnknownSku(sku) => {
            Problem::new(Fault::UnknownSku, format!("article {sku} has no price here; nothing was done"))
        }
        No::Refused(no) => Problem::new(Fault::Refused, format!("{no}; nothing was done")),
    }
}

fn make<S: Store>(orders: &Orders<S>, work: &Work<'_, S>, ask: &NewOrder) -> Result<Made, Abort<No>> {
    let tx = work.tx();
    let mut prices = Vec::with_capacity(ask.lines.len());
    for line in &ask.lines {
        let price = tx.view_get(&orders.prices, line.sku.as_str())?;
        let price = price.ok_or_else(|| Abort::User(No::UnknownSku(line.sku.clone())))?;
        prices.push(decode(&price)?);
    }
    let id = OrderId(work.new_id());
    let command =
        OrderCommand::Create { order: id, customer: ask.customer.clone(), lines: ask.lines.clone(), prices };
    let key = id.to_string();
    let stream = stream(id).map_err(Refusal::from)?;
    let decided =
        work.act(&orders.entity, &stream, &key, &command)?.map_err(|no| Abort::User(No::Refused(no)))?;
    let status = decided.state.status();
    let Some(OrderEvent::OrderCreated { customer, lines, amount, .. }) = decided.events.first() else {
        return Err(Abort::User(No::Refused(OrderRefusal::Exists)));
    };
    let row = OrderRow {
        id,
        customer: customer.clone(),
        status,
        amount: *amount,
        lines: lines.clone(),
        reason: None,
        correlation_id: work.fact().correlation.0,
        history: vec![Entry::new(work.at(), "OrderCreated")],
    };
    let row = row.row()?;
    let body = RawValue::from_string(String::from_utf8_lossy(&row.value).into_owned())
        .map_err(|error| Refusal::Invalid { what: "answer", why: error.to_string() })?;
    tx.view_put(&orders.view, &row)?;
    Ok(Made { id, answer: Recorded::new(work, &decided, body)? })
}
