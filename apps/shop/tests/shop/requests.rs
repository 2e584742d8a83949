//! Idempotency keys, pages, and what GET answers.

use std::convert::Infallible;

use mainstay::Context;
use mainstay::store::memory::Memory;
use mainstay::store::{Abort, Row, Store, Tx, ViewName};
use serde_json::json;

use crate::kit::{Shop, limits, order_body};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_again_is_one_order_and_gets_the_same_answer() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop.top_up("alice", 1_000).await;
    let key = [("idempotency-key", "same")];
    let first = shop.order.post("/orders", &key, &order_body("alice", &[("apple", 1)])).await;
    assert_eq!(first.status, 201);
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(first.header("location"), Some(format!("/orders/{id}").as_str()));
    assert_eq!(first.json()["status"], "PENDING");
    assert_eq!(shop.end_of(&id).await["status"], "CONFIRMED");
    // Written otherwise, and after the order is final: still the first answer.
    let body = r#"{ "lines":[{"quantity":1,"sku":"apple"}],   "customer":"alice" }"#;
    let again = shop.order.call("POST", "/orders", &key, Some(body.as_bytes())).await;
    assert_eq!((again.status, again.json()), (201, first.json()));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.receipt(), first.receipt());
    assert_eq!(shop.balance("alice").await, 850);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_with_another_body_is_refused() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    let key = [("idempotency-key", "same")];
    let first = shop.order.post("/orders", &key, &order_body("alice", &[("apple", 1)])).await;
    for other in [order_body("alice", &[("apple", 2)]), order_body("bob", &[("apple", 1)])] {
        let answer = shop.order.post("/orders", &key, &other).await;
        assert_eq!((answer.status, answer.problem().as_str()), (422, "idempotency-key-reused"));
    }
    let orders = shop.order.get("/orders").await.json();
    assert_eq!(orders["orders"].as_array().unwrap().len(), 1);
    assert_eq!(orders["orders"][0]["id"], first.json()["id"]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_in_flight_with_one_key_are_one_order() {
    let shop = Shop::open().await;
    shop.stock("apple", 100, 1).await;
    for round in 0..20 {
        let key = format!("round-{round}");
        let headers = [("idempotency-key", key.as_str())];
        let body = order_body("alice", &[("apple", 1)]);
        let post = || shop.order.post("/orders", &headers, &body);
        let (one, two, three) = tokio::join!(post(), post(), post());
        assert_eq!([one.status, two.status, three.status], [201; 3]);
        assert_eq!(one.json()["id"], two.json()["id"]);
        assert_eq!(one.json()["id"], three.json()["id"]);
    }
    let orders = shop.order.get("/orders?limit=200").await.json();
    assert_eq!(orders["orders"].as_array().unwrap().len(), 20);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_with_a_key_pays_in_once_and_without_one_each_time() {
    let shop = Shop::open().await;
    let body = json!({ "customer": "alice", "minor": 100 });
    let key = [("idempotency-key", "t1")];
    let first = shop.payment.post("/accounts", &key, &body).await;
    let again = shop.payment.post("/accounts", &key, &body).await;
    assert_eq!(
        (first.json(), again.json()),
        (json!({"customer":"alice","currency":"EUR","minor":100}), first.json())
    );
    let other = shop.payment.post("/accounts", &key, &json!({ "customer": "alice", "minor": 7 })).await;
    assert_eq!(other.problem(), "idempotency-key-reused");
    assert_eq!(shop.balance("alice").await, 100);
    shop.top_up("alice", 5).await;
    shop.top_up("alice", 5).await;
    assert_eq!(shop.balance("alice").await, 110);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_first_ones_receipt() {
    let shop = Shop::open().await;
    let key = [("idempotency-key", "same")];
    let (top_up, count) = (
        json!({ "customer": "alice", "minor": 100 }).to_string(),
        json!({ "quantity": 10, "price": { "currency": "EUR", "minor": 50 } }).to_string(),
    );
    let requests = [
        (&shop.payment, "POST", "/accounts", top_up.as_bytes()),
        (&shop.inventory, "PUT", "/stock/apple", count.as_bytes()),
    ];
    let mut first = Vec::new();
    for (client, method, path, body) in requests {
        first.push(client.call(method, path, &key, Some(body)).await);
    }
    // What happens in between is none of theirs.
    let priced = [("mainstay-receipt", first[1].receipt())];
    assert_eq!(shop.order.call("GET", "/orders", &priced, None).await.status, 200);
    let id = shop.order("k1", "alice", &[("apple", 1)]).await;
    assert_eq!(shop.end_of(&id).await["status"], "CONFIRMED");
    shop.top_up("bob", 1).await;
    for ((client, method, path, body), first) in requests.into_iter().zip(first) {
        let again = client.call(method, path, &key, Some(body)).await;
        assert_eq!(
            (again.status, again.json(), again.receipt()),
            (200, first.json(), first.receipt()),
            "{path}"
        );
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_give_every_order_once_whatever_is_asked_for() {
    let shop = Shop::open().await;
    shop.stock("apple", 4, 100).await;
    shop.top_up("alice", 10_000).await;
    shop.top_up("bob", 10_000).await;
    let mut ids = Vec::new();
    for i in 0..7 {
        let customer = if i % 2 == 0 { "alice" } else { "bob" };
        let id = shop.order(&format!("k{i}"), customer, &[("apple", 1)]).await;
        let status = shop.end_of(&id).await["status"].as_str().unwrap().to_owned();
        ids.push((id, customer, status));
    }
    for customer in ["", "alice", "bob", "nobody"] {
        for status in ["", "PENDING", "CONFIRMED", "CANCELLED"] {
            for limit in [1, 2, 3, 50] {
                let mut found = Vec::new();
                let mut after = String::new();
                loop {
                    let mut query = format!("limit={limit}");
                    for (name, value) in
                        [("customer", customer), ("status", status), ("after", after.as_str())]
                    {
                        if !value.is_empty() {
                            query += &format!("&{name}={value}");
                        }
                    }
                    let page = shop.order.get(&format!("/orders?{query}")).await.json();
                    let orders = page["orders"].as_array().unwrap();
                    assert!(orders.len() <= limit);
                    found.extend(orders.iter().map(|order| order["id"].as_str().unwrap().to_owned()));
                    match page["next"].as_str() {
                        Some(next) => after = next.to_owned(),
                        None => break,
                    }
                }
                let matches = |(_, c, s): &&(String, &str, String)| {
                    (customer.is_empty() || customer == *c) && (status.is_empty() || status == s)
                };
                let mut expected: Vec<_> = ids.iter().filter(matches).map(|(id, ..)| id.clone()).collect();
                // Within a millisecond ids have no order of their own.
                expected.sort();
                assert_eq!(found, expected, "{customer} {status} {limit}");
            }
        }
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_says_how_it_is_and_what_it_can_do() {
    let shop = Shop::open().await;
    for client in [&shop.order, &shop.payment, &shop.inventory] {
        assert_eq!(client.get("/health/live").await.json(), json!({ "status": "live" }));
        assert_eq!(client.get("/health/ready").await.json(), json!({ "status": "ready" }));
        assert_eq!(client.get("/openapi.json").await.json()["openapi"], "3.1.0");
        assert_eq!(client.get("/stats").await.json()["parked"], 0);
    }
    shop.stock("apple", 10, 150).await;
    let answer =
        shop.order.post("/orders", &[("idempotency-key", "k")], &order_body("alice", &[("apple", 1)])).await;
    let correlation = answer.header("mainstay-correlation-id").unwrap().trim_matches('"');
    assert_eq!(answer.json()["correlation_id"], correlation);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_store_takes_nothing_is_not_ready_and_says_why() {
    let shop = Shop::open().await;
    *shop.ill.lock().unwrap() = Some("the disk is full".into());
    for client in [&shop.order, &shop.payment, &shop.inventory] {
        let answer = client.get("/health/ready").await;
        assert_eq!((answer.status, answer.problem().as_str()), (503, "not-ready"));
        assert_eq!(answer.json()["detail"], "the disk is full");
        assert_eq!(client.get("/health/live").await.status, 200);
    }
    *shop.ill.lock().unwrap() = None;
    assert_eq!(shop.order.get("/health/ready").await.status, 200);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_ours_is_counted_and_told_with_what_finds_the_answer_again() {
    let orders = Memory::new();
    let id = "018f3c5e-0000-7000-8000-00000000002a";
    let spoil = move |tx: &_| {
        let row = Row::new(id, *b"no JSON");
        Tx::view_put(tx, &ViewName::new("shop.orders").unwrap(), &row).map_err(Abort::<Infallible>::from)
    };
    orders.transact(&Context::system(), spoil).await.unwrap();
    let shop = Shop::over(orders, limits()).await;
    let answer = shop.order.call("GET", &format!("/orders/{id}"), &[("prefer", "wait=1")], None).await;
    assert_eq!((answer.status, answer.problem().as_str()), (500, "internal"));
    assert!(!answer.json()["detail"].as_str().unwrap().contains("row"), "{answer:?}");
    assert_eq!(shop.order.get("/stats").await.json()["failures"], 1);
    let correlation = answer.header("mainstay-correlation-id").unwrap().trim_matches('"').to_owned();
    shop.close_told(|told| {
        let line = told.lines().find(|line| line.contains(&correlation));
        assert!(line.is_some_and(|line| line.contains("row") && line.contains("can't be read")), "{told}");
    })
    .await;
}
