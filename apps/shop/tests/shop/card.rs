//! Orders paid by card: through a processor that is slow, fails, hangs, or loses its answers.

use std::time::{Duration, Instant};

use mainstay_shop::http::limits::Limits;
use serde_json::{Value, json};

use crate::kit::{Shop, events, limits};

/// Longer than anything takes here; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until it is so.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::task::yield_now().await;
    }
}

async fn ledger(shop: &Shop) -> Value {
    shop.processor.get("/ledger").await.json()
}

/// A figure of Payment's, by its name and labels.
async fn figure(shop: &Shop, name: &str) -> f64 {
    let stats = shop.payment.get("/stats").await.json();
    stats["metrics"][name].as_f64().unwrap_or_else(|| panic!("no {name}: {stats:#}"))
}

/// Orders of one apple each, by card; their ids.
async fn card_orders(shop: &Shop, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for i in 0..count {
        ids.push(shop.order(&format!("card-{i}"), "carol", &[("apple", 1)]).await);
    }
    ids
}

/// The order once it is final, however often that takes to ask.
async fn end_of(shop: &Shop, id: &str) -> Value {
    until("the end of an order", async || {
        let order = shop.order.get(&format!("/orders/{id}")).await.json();
        (order["status"] != "PENDING").then_some(order)
    })
    .await
}

async fn open(limits: Limits) -> Shop {
    let shop = Shop::with(limits).await;
    shop.stock("apple", 100, 150).await;
    shop.card("carol").await;
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_charged_once_declined_or_given_its_money_back() {
    let shop = open(limits()).await;
    let paid = shop.order("paid", "carol", &[("apple", 2)]).await;
    let order = end_of(&shop, &paid).await;
    assert_eq!(order["status"], "CONFIRMED", "{order:#}");
    assert_eq!(events(&order), ["OrderCreated", "InventoryUpdated", "OrderConfirmed"]);
    assert_eq!(ledger(&shop).await["net"], json!({ "EUR": 300 }));
    assert_eq!(shop.balance("carol").await, 0, "nothing lies on a card account");
    let entry = shop.processor.get(&format!("/charges/order-{paid}")).await.json();
    assert_eq!(entry["charge"], json!({ "card": "carol", "amount": { "currency": "EUR", "minor": 300 } }));

    shop.behave(json!({ "mode": "declining" })).await;
    let declined = end_of(&shop, &shop.order("declined", "carol", &[("apple", 1)]).await).await;
    assert_eq!(declined["status"], "CANCELLED", "{declined:#}");
    assert_eq!(declined["reason"], "payment refused: the card was declined");

    shop.behave(json!({ "mode": "well" })).await;
    let beyond = end_of(&shop, &shop.order("beyond", "carol", &[("apple", 99)]).await).await;
    assert_eq!(events(&beyond), ["OrderCreated", "PaymentRefunded", "OrderCancelled"]);
    let books =
        until("the void", async || Some(ledger(&shop).await).filter(|books| books["voided"] == 1)).await;
    assert_eq!(
        books,
        json!({ "entries": 3, "charged": 2, "declined": 1, "voided": 1, "net": { "EUR": 300 } })
    );
    let prepaid = shop.payment.post("/accounts", &[], &json!({ "customer": "carol", "minor": 5 })).await;
    assert_eq!((prepaid.status, prepaid.problem()), (422, "refused".into()));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_whose_answer_is_lost_is_asked_for_again_and_made_once() {
    let shop = open(limits()).await;
    shop.behave(json!({ "mode": "failing", "after_effect": true })).await;
    let id = shop.order("k", "carol", &[("apple", 2)]).await;
    until("a try and a second one", async || {
        (figure(&shop, "shop_card_outcomes_total{outcome=\"postponed\"}").await > 0.0).then_some(())
    })
    .await;
    assert!(figure(&shop, "mainstay_retries_total{policy=\"processor\"}").await >= 1.0);
    assert_eq!(shop.order.get(&format!("/orders/{id}")).await.json()["status"], "PENDING");
    shop.behave(json!({ "mode": "well" })).await;
    assert_eq!(end_of(&shop, &id).await["status"], "CONFIRMED");
    let books = ledger(&shop).await;
    assert_eq!((&books["charged"], &books["net"]), (&json!(1), &json!({ "EUR": 300 })));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processor_that_hangs_holds_its_own_places_and_nobody_elses_then_the_breaker_recovers() {
    let shop = open(limits()).await;
    shop.top_up("alice", 1_000).await;
    shop.behave(json!({ "mode": "hanging" })).await;
    // All of them come to Payment at once: more than its bulkhead holds, before the first try is over.
    shop.logs[0].stall(true);
    let ids = card_orders(&shop, 40).await;
    shop.logs[0].stall(false);
    let [in_flight, refused, open] = [
        "mainstay_bulkhead_in_flight{policy=\"processor\"}",
        "mainstay_bulkhead_refused_total{policy=\"processor\"}",
        "mainstay_circuit_breaker_state{policy=\"processor\",state=\"open\"}",
    ];
    until("a full bulkhead", async || (figure(&shop, refused).await > 0.0).then_some(())).await;
    assert!(figure(&shop, in_flight).await <= 16.0);
    // Who pays otherwise, and who looks around, meets nothing of it.
    let prepaid = shop.order("prepaid", "alice", &[("apple", 1)]).await;
    assert_eq!(shop.end_of(&prepaid).await["status"], "CONFIRMED");
    assert_eq!(shop.order.get("/catalogue/apple").await.json()["available"], true);
    assert_eq!(
        shop.order.get("/orders?status=PENDING&limit=200").await.json()["orders"].as_array().unwrap().len(),
        40
    );
    until("an open breaker", async || (figure(&shop, open).await == 1.0).then_some(())).await;

    shop.behave(json!({ "mode": "well" })).await;
    for id in &ids {
        assert_eq!(end_of(&shop, id).await["status"], "CONFIRMED");
    }
    let closed = "mainstay_circuit_breaker_state{policy=\"processor\",state=\"closed\"}";
    assert_eq!(figure(&shop, closed).await, 1.0);
    let books = ledger(&shop).await;
    assert_eq!((&books["charged"], &books["net"]), (&json!(40), &json!({ "EUR": 6_000 })));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_that_is_given_up_refuses_the_order_and_is_voided_once_it_can_be() {
    let shop = open(Limits { card_time: Duration::ZERO, ..limits() }).await;
    shop.behave(json!({ "mode": "hanging", "after_effect": true })).await;
    let order = end_of(&shop, &shop.order("k", "carol", &[("apple", 2)]).await).await;
    assert_eq!(order["status"], "CANCELLED", "{order:#}");
    assert!(order["reason"].as_str().unwrap().contains("did not answer in time"), "{order:#}");
    // It was charged, and its answer lost. So is that of the void, which is asked for until it is answered.
    shop.behave(json!({ "mode": "well" })).await;
    let voided = "shop_card_outcomes_total{outcome=\"voided\"}";
    until("the void", async || (figure(&shop, voided).await == 1.0).then_some(())).await;
    let books = json!({ "entries": 1, "charged": 1, "declined": 0, "voided": 1, "net": { "EUR": 0 } });
    assert_eq!(ledger(&shop).await, books);
    assert_eq!(shop.left("apple").await, 100);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_behaviour_is_refused_and_changes_nothing() {
    let shop = Shop::open().await;
    for bad in [
        json!({ "mode": "slow" }),
        json!({ "mode": "dead" }),
        json!({ "mode": "well", "period": 1 }),
        json!([]),
    ] {
        let answer = shop.processor.put("/behaviour", &bad).await;
        assert_eq!((answer.status, answer.problem()), (422, "invalid".into()), "{bad}");
    }
    assert_eq!(shop.processor.get("/behaviour").await.json(), json!({ "mode": "well" }));
    let charge = json!({ "card": "carol", "amount": { "currency": "EUR", "minor": 1 } });
    let unkeyed = shop.processor.post("/charges", &[], &charge).await;
    assert_eq!((unkeyed.status, unkeyed.problem()), (400, "idempotency-key-missing".into()));
    shop.close().await;
}
