//! POST /accounts and GET /accounts/{customer}.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use mainstay::flow::unit_of_work::{Work, transact};
use mainstay::store::{Abort, Store};
use serde::{Deserialize, Serialize};

use super::{Accounts, Ledger};
use crate::domain::account::{AccountCommand, AccountRefusal, Funding};
use crate::domain::{Currency, CustomerId, Minor};
use crate::http::problem::{Fault, Problem};
use crate::service::once::{Recorded, once, problem, request as asked};
use crate::service::{Call, body, changed, json, path, read_problem};

/// The body of POST /accounts.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TopUp {
    customer: CustomerId,
    minor: Minor,
    #[serde(default)]
    currency: Option<Currency>,
    // Left out where it is: what was asked before there were cards is still the same request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    funding: Option<Funding>,
}

/// Pays in. With an `Idempotency-Key` it can be repeated safely; without one each request pays in once more.
pub(super) async fn top_up<S: Store>(
    State(accounts): State<Accounts<S>>,
    Call { cx }: Call,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let ask: TopUp = body(&accounts.app, request).await?;
    let (app, ledger) = (&accounts.app, accounts.ledger.clone());
    let key = asked(&cx, "POST /accounts", &ask)?;
    let done = transact(app.store(), &cx, app.publisher(), move |work| {
        once(work, key.as_ref(), || pay_in(&ledger, work, &ask))
    })
    .await
    .map_err(|error| {
        problem(&cx, &error, |no| Problem::new(Fault::Refused, format!("{no}; nothing was done")))
    })?;
    app.stats().commit();
    Ok(changed(StatusCode::OK, done.value.body().to_owned(), &done.value.receipt(done.receipt)))
}

/// One top-up, recorded, published and shown; the account's row.
fn pay_in<S: Store>(
    ledger: &Ledger,
    work: &Work<'_, S>,
    ask: &TopUp,
) -> Result<Recorded, Abort<AccountRefusal>> {
    let TopUp { customer, currency, minor, funding } = ask.clone();
    let command = AccountCommand::TopUp { customer, currency, funding, minor };
    let stream = Ledger::stream(&ask.customer)?;
    let decided = work.act(&ledger.entity, &stream, ask.customer.as_str(), &command)?.map_err(Abort::User)?;
    let shown = ledger.show(work, &ask.customer, &decided.state)?;
    Ok(Recorded::new(work, &decided, shown)?)
}

/// One account.
pub(super) async fn one<S: Store>(
    State(accounts): State<Accounts<S>>,
    customer: Result<Path<String>, PathRejection>,
) -> Result<Response<Body>, Problem> {
    let customer: CustomerId = path(customer)?;
    let row = accounts.app.store().view_get(&accounts.ledger.view, customer.as_str()).await;
    match row.map_err(|error| read_problem(&error))? {
        Some(bytes) => Ok(json(StatusCode::OK, bytes)),
        None => Err(Problem::new(Fault::NotFound, "there is no such account here")),
    }
}
