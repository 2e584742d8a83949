//! Orders: made by request, ended by what Payment and Inventory say.

mod catalogue;
mod create;
mod react;
mod read;
mod row;
mod waiting;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use mainstay::command::Snapshot;
use mainstay::flow::saga::Participant;
use mainstay::flow::unit_of_work::Entity;
use mainstay::messaging::Log;
use mainstay::store::{BadName, Store, StreamName, ViewName};

use crate::domain::OrderId;
use crate::domain::order::Order;
use crate::service::{self, App, ServeError, Wiring};
use crate::{inventory, openapi};
use catalogue::Catalogue;
use waiting::Waiting;

/// The service's name: its participant's, its topic's and its folder's.
pub const NAME: &str = "order";

/// What this service declares. Its orders' ends are its own affair, so it publishes nothing but their beginning.
pub fn participant() -> Participant {
    Participant::new(NAME)
        .starts("OrderCreated")
        .on("InventoryUpdated", "inventory")
        .ends()
        .on("PaymentRefused", "payment")
        .ends()
        .on("PaymentRefunded", "payment")
        .ends()
        .on("StockSet", "inventory")
        .done()
}

/// Serves until told to stop; see [`Wiring`].
pub async fn serve<S: Store, L: Log>(wiring: Wiring<S, L>) -> Result<(), ServeError> {
    let app = App::new(&wiring, &participant())?;
    let orders = Orders::new(app.clone(), Catalogue::new(wiring.callee(inventory::NAME)?, &app)?)?;
    let own = Router::new()
        .route("/orders", post(create::create::<S>).get(read::list::<S>))
        .route("/orders/{id}", get(read::one::<S>))
        .route("/catalogue/{sku}", get(catalogue::one::<S>))
        .with_state(orders.clone());
    let routes = service::all(app.clone(), &openapi::order(), own);
    service::serve(wiring, app, routes, react::OrderReactor::new(&orders), watch::watch(orders)).await
}

/// What the routes and the reactor of this service share.
#[derive(Debug, Clone)]
struct Orders<S: Store> {
    app: Arc<App<S>>,
    /// An order has two events at most, and between them its first one may be archived: its state is kept beside its
    /// stream.
    entity: Entity<Order>,
    view: ViewName,
    prices: ViewName,
    waiting: Arc<Waiting>,
    catalogue: Catalogue,
}

impl<S: Store> Orders<S> {
    fn new(app: Arc<App<S>>, catalogue: Catalogue) -> Result<Self, BadName> {
        Ok(Self {
            entity: Entity::kept()?,
            view: row::view()?,
            prices: row::prices()?,
            waiting: Waiting::new(app.limits().waiting_max),
            catalogue,
            app,
        })
    }
}

impl Snapshot for Order {
    const NAME: &'static str = "shop.order";
}

/// How the streams of orders begin.
const STREAM: &str = "order-";

fn stream(order: OrderId) -> Result<StreamName, BadName> {
    StreamName::new(format!("{STREAM}{order}"))
}
