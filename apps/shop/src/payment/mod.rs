//! Payment: keeps accounts, charges orders to them, and gives back what could not be delivered.

mod api;
mod card;
mod react;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use mainstay::command::Snapshot;
use mainstay::flow::saga::Participant;
use mainstay::flow::unit_of_work::{Entity, Work};
use mainstay::messaging::Log;
use mainstay::store::{BadName, Refusal, Row, Store, StreamName, Tx, ViewName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::account::{Account, Funding};
use crate::domain::{Currency, CustomerId};
use crate::service::rows::raw;
use crate::service::{self, App, ServeError, Wiring, metrics};
use crate::{openapi, processor};
use card::{Calls, Collector, Dues, collect};

/// The service's name: its participant's, its topic's and its folder's.
pub const NAME: &str = "payment";

/// What this service declares.
pub fn participant() -> Participant {
    Participant::new(NAME)
        // For whoever waits for a top-up's receipt: it is seen when a message tells of it. Of nothing paid in, too.
        .announces("AccountOpened")
        .announces("AccountToppedUp")
        .on("OrderCreated", "order")
        .produces("PaymentProcessed")
        .fails_with("PaymentRefused")
        .on("StockShort", "inventory")
        .produces("PaymentRefunded")
        .done()
}

/// Serves until told to stop; see [`Wiring`].
pub async fn serve<S: Store, L: Log>(wiring: Wiring<S, L>) -> Result<(), ServeError> {
    let app = App::new(&wiring, &participant())?;
    let accounts = Accounts::new(app.clone())?;
    let calls = Calls::new(wiring.callee(processor::NAME)?, &wiring.cx)?;
    let policy = calls.policy().clone();
    app.metrics().add(move |text, now| metrics::policy(text, &policy, now));
    let dues = Dues::new()?;
    let collector = Collector::new(app.clone(), accounts.ledger.clone(), dues.clone(), calls);
    let show = collector.show();
    app.metrics().add(move |text, _| show(text));
    let own = Router::new()
        .route("/accounts", post(api::top_up::<S>))
        .route("/accounts/{customer}", get(api::one::<S>))
        .with_state(accounts.clone());
    let routes = service::all(app.clone(), &openapi::payment(), own);
    let reactor = react::PaymentReactor { ledger: accounts.ledger, dues, hint: collector.hint() };
    service::serve(wiring, app, routes, reactor, collect(collector)).await
}

/// What the routes of this service share.
#[derive(Debug, Clone)]
struct Accounts<S: Store> {
    app: Arc<App<S>>,
    ledger: Ledger,
}

impl<S: Store> Accounts<S> {
    fn new(app: Arc<App<S>>) -> Result<Self, BadName> {
        Ok(Self { app, ledger: Ledger::new()? })
    }
}

/// How accounts are commanded and shown: the same for requests and for facts.
#[derive(Debug, Clone)]
struct Ledger {
    /// An account is charged for years: its state is kept beside its stream.
    entity: Entity<Account>,
    view: ViewName,
}

impl Snapshot for Account {
    const NAME: &'static str = "shop.account";
}

/// An account as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct AccountRow {
    customer: CustomerId,
    currency: Currency,
    minor: u64,
    #[serde(default, skip_serializing_if = "Funding::is_prepaid")]
    funding: Funding,
}

impl Ledger {
    fn new() -> Result<Self, BadName> {
        Ok(Self { entity: Entity::kept()?, view: ViewName::new("shop.accounts")? })
    }

    fn stream(customer: &CustomerId) -> Result<StreamName, Refusal> {
        Ok(StreamName::new(format!("account-{customer}"))?)
    }

    /// Shows an account as it is now; its row.
    fn show<S: Store>(
        &self,
        work: &Work<'_, S>,
        customer: &CustomerId,
        account: &Account,
    ) -> Result<Box<RawValue>, Refusal> {
        // An account that nobody opened is not shown: there is nothing on it, in no currency.
        let Some(currency) = account.currency() else { return Ok(Box::default()) };
        let (minor, funding) = (account.balance(), account.funding());
        let row = AccountRow { customer: customer.clone(), currency, minor, funding };
        let shown = raw(&row)?;
        work.tx().view_put(&self.view, &Row::new(customer.as_str(), shown.get()))?;
        Ok(shown)
    }
}
