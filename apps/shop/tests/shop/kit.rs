//! The services, wired.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use mainstay::Context;
use mainstay::messaging::memory::Memory as MemoryLog;
use mainstay::store::memory::Memory;
use mainstay::store::{Store, StoreId};
use mainstay_shop::http::limits::Limits;
use mainstay_shop::service::{ServeError, Wiring};
use mainstay_shop::{inventory, openapi, order, payment, processor};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};

/// Longer than an order takes, whatever the machine does.
const PATIENCE: &str = "wait=20";

/// The running shop.
pub(crate) struct Shop {
    pub(crate) order: Client,
    pub(crate) payment: Client,
    pub(crate) inventory: Client,
    pub(crate) processor: Client,
    /// Whose receipts there can be.
    pub(crate) ids: [StoreId; 3],
    pub(crate) logs: [MemoryLog; 3],
    /// What operators were told.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
    /// Why the stores take nothing; none as long as they do.
    pub(crate) ill: Arc<Mutex<Option<String>>>,
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<Result<(), ServeError>>>,
}

/// Short, so that what is refused for its slowness is refused soon.
pub(crate) fn limits() -> Limits {
    Limits {
        head_time: Duration::from_millis(400),
        body_time: Duration::from_millis(400),
        receipt_wait: Duration::from_millis(400),
        drain_time: Duration::from_secs(10),
        ..Limits::default()
    }
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::with(limits()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::over(Memory::new(), limits).await
    }

    /// Over this store of Order's.
    pub(crate) async fn over<S: Store>(orders: S, limits: Limits) -> Self {
        let (accounts, stocks) = (Memory::new(), Memory::new());
        let ids = [orders.id(), accounts.id(), stocks.id()];
        let logs = [MemoryLog::new(1), MemoryLog::new(1), MemoryLog::new(1)];
        let (stop, stops) = watch::channel(false);
        let told = Arc::new(Mutex::new(Vec::new()));
        let ill = Arc::new(Mutex::new(None));
        let mut clients = Vec::new();
        let mut listeners = Vec::new();
        let documents = [openapi::order(), openapi::payment(), openapi::inventory(), openapi::processor()];
        for document in documents {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            clients.push(Client::new(listener.local_addr().unwrap(), document));
            listeners.push(listener);
        }
        let url = |client: &Client| format!("http://{}", client.addr);
        let [at_order, at_payment, at_inventory, at_processor] = <[_; 4]>::try_from(listeners).unwrap();
        let [order_log, payment_log, inventory_log] = logs.clone();
        let order_wiring = wiring(orders, &order_log, at_order, &stops, limits, &told, &ill)
            .follow("payment", payment_log.clone())
            .follow("inventory", inventory_log.clone())
            .calls("inventory", &url(&clients[2]));
        let payment_wiring = wiring(accounts, &payment_log, at_payment, &stops, limits, &told, &ill)
            .follow("order", order_log)
            .follow("inventory", inventory_log.clone())
            .calls("processor", &url(&clients[3]));
        let inventory_wiring = wiring(stocks, &inventory_log, at_inventory, &stops, limits, &told, &ill)
            .follow("payment", payment_log);
        let unused = MemoryLog::new(1);
        let processor_wiring = wiring(Memory::new(), &unused, at_processor, &stops, limits, &told, &ill);
        let running = vec![
            tokio::spawn(order::serve(order_wiring)),
            tokio::spawn(payment::serve(payment_wiring)),
            tokio::spawn(inventory::serve(inventory_wiring)),
            tokio::spawn(processor::serve(processor_wiring)),
        ];
        let [order, payment, inventory, processor] =
            <[_; 4]>::try_from(clients).unwrap_or_else(|_| unreachable!());
        let shop = Self { order, payment, inventory, processor, ids, logs, told, ill, stop, running };
        for client in [&shop.order, &shop.payment, &shop.inventory, &shop.processor] {
            while client.get("/health/ready").await.status != 200 {
                tokio::task::yield_now().await;
            }
        }
        shop
    }

    /// Stock, with its price, and known to Order.
    pub(crate) async fn stock(&self, sku: &str, quantity: u64, minor: u64) -> Answer {
        let body = json!({ "quantity": quantity, "price": { "currency": "EUR", "minor": minor } });
        let answer = self.inventory.put(&format!("/stock/{sku}"), &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = self.order.call("GET", "/orders", &[("mainstay-receipt", answer.receipt())], None).await;
        assert_eq!(seen.status, 200, "{seen:?}");
        answer
    }

    pub(crate) async fn top_up(&self, customer: &str, minor: u64) -> Answer {
        let answer =
            self.payment.post("/accounts", &[], &json!({ "customer": customer, "minor": minor })).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    /// An account that pays by card.
    pub(crate) async fn card(&self, customer: &str) {
        let body = json!({ "customer": customer, "minor": 0, "funding": "card" });
        let answer = self.payment.post("/accounts", &[], &body).await;
        assert_eq!((answer.status, &answer.json()["funding"]), (200, &json!("card")), "{answer:?}");
    }

    /// From now on the card processor behaves so.
    pub(crate) async fn behave(&self, behaviour: Value) {
        let answer = self.processor.put("/behaviour", &behaviour).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(self.processor.get("/behaviour").await.json(), behaviour);
    }

    /// Makes an order; its id.
    pub(crate) async fn order(&self, key: &str, customer: &str, lines: &[(&str, u64)]) -> String {
        let answer =
            self.order.post("/orders", &[("idempotency-key", key)], &order_body(customer, lines)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// The order once it is final.
    pub(crate) async fn end_of(&self, id: &str) -> Value {
        let answer = self.order.call("GET", &format!("/orders/{id}"), &[("prefer", PATIENCE)], None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let order = answer.json();
        assert_ne!(order["status"], "PENDING", "{order:#}\n{:?}", self.told.lock().unwrap());
        order
    }

    pub(crate) async fn balance(&self, customer: &str) -> u64 {
        self.payment.get(&format!("/accounts/{customer}")).await.json()["minor"].as_u64().unwrap()
    }

    pub(crate) async fn left(&self, sku: &str) -> u64 {
        self.inventory.get(&format!("/stock/{sku}")).await.json()["quantity"].as_u64().unwrap()
    }

    /// Tells all to stop, and waits until they have.
    pub(crate) async fn close(self) {
        self.stop.send_replace(true);
        for running in self.running {
            running.await.unwrap().unwrap();
        }
    }

    /// The same, then looks at all that operators were told.
    pub(crate) async fn close_told(self, look: impl FnOnce(&str)) {
        let told = Arc::clone(&self.told);
        self.close().await;
        look(&told.lock().unwrap().join("\n"));
    }

    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

fn wiring<S: Store>(
    store: S,
    log: &MemoryLog,
    listener: TcpListener,
    stops: &watch::Receiver<bool>,
    limits: Limits,
    told: &Arc<Mutex<Vec<String>>>,
    ill: &Arc<Mutex<Option<String>>>,
) -> Wiring<S, MemoryLog> {
    let (told, ill) = (Arc::clone(told), Arc::clone(ill));
    let wiring = Wiring::new(store, log.clone(), listener, Context::system(), stops.clone());
    Wiring { limits, tell: Arc::new(move |line| told.lock().unwrap().push(line.to_owned())), ..wiring }
        .health(move || ill.lock().unwrap().clone())
        .host("shop.example")
}

pub(crate) fn order_body(customer: &str, lines: &[(&str, u64)]) -> Value {
    let lines: Vec<_> =
        lines.iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity })).collect();
    json!({ "customer": customer, "lines": lines })
}

/// The events of an order's history, by name.
pub(crate) fn events(order: &Value) -> Vec<&str> {
    order["history"].as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap()).collect()
}
