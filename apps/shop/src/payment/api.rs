//! POST /accounts, GET /accounts/{customer}, and the account that a demonstration begins with.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use mainstay::flow::work::{Work, transact};
use mainstay::store::{Abort, Store};
use serde::{Deserialize, Serialize};

use super::{Accounts, Ledger};
use crate::domain::account::{AccountCommand, AccountRefusal};
use crate::domain::{Currency, CustomerId, Minor};
use crate::http::problem::{Fault, Problem};
use crate::service::once::{once, problem, request as asked};
use crate::service::{Call, ServeError, body, changed, json, path, read_problem};
use serde_json::value::RawValue;

/// Whose account a demonstration has, and what is on it.
const DEMO: (&str, u64) = ("alice", 100_000);

/// The body of POST /accounts.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TopUp {
    customer: CustomerId,
    minor: Minor,
    #[serde(default)]
    currency: Option<Currency>,
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
    .map_err(|error| problem(&error, |no| Problem::new(Fault::Refused, format!("{no}; nothing was done"))))?;
    app.stats().commit();
    Ok(changed(StatusCode::OK, done.value.0.get().to_owned(), &done.receipt))
}

/// One top-up, recorded and shown; the account's row.
fn pay_in<S: Store>(
    ledger: &Ledger,
    work: &Work<'_, S>,
    ask: &TopUp,
) -> Result<Box<RawValue>, Abort<AccountRefusal>> {
    let command =
        AccountCommand::TopUp { customer: ask.customer.clone(), currency: ask.currency, minor: ask.minor };
    let stream = Ledger::stream(&ask.customer)?;
    let decided = work.act(&ledger.entity, &stream, ask.customer.as_str(), &command)?.map_err(Abort::User)?;
    Ok(ledger.show(work, &ask.customer, &decided.state)?)
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

impl<S: Store> Accounts<S> {
    /// Opens the demonstration's account unless it is there.
    pub(super) async fn seed(&self) -> Result<(), ServeError> {
        let (app, ledger) = (&self.app, self.ledger.clone());
        transact(app.store(), app.cx(), app.publisher(), move |work| {
            let invalid = |why: String| mainstay::store::Refusal::Invalid { what: "demo", why };
            let customer = CustomerId::new(DEMO.0).map_err(|why| invalid(why.to_string()))?;
            let minor = Minor::new(DEMO.1).map_err(|why| invalid(why.to_string()))?;
            let (present, _) = work.state(&ledger.entity, &Ledger::stream(&customer)?)?;
            if present.currency().is_none() {
                pay_in(&ledger, work, &TopUp { customer, minor, currency: None })?;
            }
            Ok::<_, Abort<AccountRefusal>>(())
        })
        .await
        .map(drop)
        .map_err(|error| ServeError::Seed(error.to_string()))
    }
}
