//! Inventory: keeps the stock, says what things cost, and reserves what was paid for.

mod api;
mod react;

use std::sync::Arc;

use axum::Router;
use axum::routing::put;
use mainstay::command::Snapshot;
use mainstay::flow::saga::Participant;
use mainstay::flow::unit_of_work::{Entity, Work};
use mainstay::messaging::Log;
use mainstay::store::{BadName, Refusal, Row, Store, StreamName, Tx, ViewName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::reservation::Reservation;
use crate::domain::stock::Stock;
use crate::domain::{Price, Sku};
use crate::openapi;
use crate::service::rows::raw;
use crate::service::{self, App, ServeError, Wiring};

/// The service's name: its participant's, its topic's and its folder's.
pub const NAME: &str = "inventory";

/// What this service declares.
pub fn participant() -> Participant {
    Participant::new(NAME)
        .announces("StockSet")
        .on("PaymentProcessed", "payment")
        .produces("InventoryUpdated")
        .fails_with("StockShort")
        .done()
}

/// Serves until told to stop; see [`Wiring`].
pub async fn serve<S: Store, L: Log>(wiring: Wiring<S, L>) -> Result<(), ServeError> {
    let app = App::new(&wiring, &participant())?;
    let stocks = Stocks::new(app.clone())?;
    let own =
        Router::new().route("/stock/{sku}", put(api::set::<S>).get(api::one::<S>)).with_state(stocks.clone());
    let routes = service::all(app.clone(), &openapi::inventory(), own);
    service::serve(wiring, app, routes, react::InventoryReactor::new(stocks.shelves), std::future::pending())
        .await
}

/// What the routes of this service share.
#[derive(Debug, Clone)]
struct Stocks<S: Store> {
    app: Arc<App<S>>,
    shelves: Shelves,
}

impl<S: Store> Stocks<S> {
    fn new(app: Arc<App<S>>) -> Result<Self, BadName> {
        Ok(Self { app, shelves: Shelves::new()? })
    }
}

/// How stocks are commanded and shown: the same for requests and for facts.
#[derive(Debug, Clone)]
struct Shelves {
    /// Every order of an article is an event of its stream: the state is kept beside it.
    entity: Entity<Stock>,
    /// A reservation has one event.
    reservations: Entity<Reservation>,
    view: ViewName,
}

impl Snapshot for Stock {
    const NAME: &'static str = "shop.stock";
}

/// An article as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct StockRow {
    sku: Sku,
    quantity: u64,
    price: Price,
}

impl Shelves {
    fn new() -> Result<Self, BadName> {
        Ok(Self {
            entity: Entity::kept()?,
            reservations: Entity::replayed(),
            view: ViewName::new("shop.stock")?,
        })
    }

    fn stream(sku: &Sku) -> Result<StreamName, Refusal> {
        Ok(StreamName::new(format!("stock-{sku}"))?)
    }

    /// Shows an article as it is now; its row.
    fn show<S: Store>(&self, work: &Work<'_, S>, sku: &Sku, stock: &Stock) -> Result<Box<RawValue>, Refusal> {
        // An article that was never counted has no price and is not shown.
        let Some(price) = stock.price() else { return Ok(Box::default()) };
        let shown = raw(&StockRow { sku: sku.clone(), quantity: stock.available(), price })?;
        work.tx().view_put(&self.view, &Row::new(sku.as_str(), shown.get()))?;
        Ok(shown)
    }
}
