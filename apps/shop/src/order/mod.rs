//! Orders: made by request, ended by what Payment and Inventory say.

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
use crate::openapi;
use crate::service::{self, App, ServeError, Wiring};
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
    let orders = Orders::new(app.clone())?;
    let own = Router::new()
        .route("/orders", post(create::create::<S>).get(read::list::<S>))
        .route("/orders/{id}", get(read::one::<S>))
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
}

impl<S: Store> Orders<S> {
    fn new(app: Arc<App<S>>) -> Result<Self, BadName> {
        Ok(Self {
            entity: Entity::kept()?,
            view: row::view()?,
            prices: row::prices()?,
            waiting: Waiting::new(app.limits().waiting_max),
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
