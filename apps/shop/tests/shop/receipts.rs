//! A receipt of one service, presented to another.

use crate::kit::{Shop, order_body};

#[tokio::test(flavor = "multi_thread")]
async fn a_presented_receipt_is_seen() {
    let shop = Shop::open().await;
    for round in 1..=20_u64 {
        // Stocked at Inventory, ordered at Order: without the receipt the price may not have arrived yet.
        let body = serde_json::json!({ "quantity": 5, "price": { "currency": "EUR", "minor": round } });
        let stocked = shop.inventory.put("/stock/apple", &body).await;
        let (key, receipt) = (format!("k{round}"), stocked.receipt().to_owned());
        let headers = [("idempotency-key", key.as_str()), ("mainstay-receipt", receipt.as_str())];
        let order = shop.order.post("/orders", &headers, &order_body("alice", &[("apple", 1)])).await;
        assert_eq!(order.status, 201, "{order:?}");
        assert_eq!(order.json()["amount"]["minor"], round);
        // Its own service sees it at once; a service that follows, once it has.
        for client in [&shop.order, &shop.payment] {
            let seen = client.call("GET", "/stats", &[("mainstay-receipt", order.receipt())], None).await;
            assert_eq!(seen.status, 200, "{seen:?}");
        }
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_ups_receipt_is_seen_by_those_who_follow_payment() {
    let shop = Shop::open().await;
    // The second one opens an account and pays nothing in; the third one changes nothing at all.
    for (customer, minor) in [("alice", 100), ("bob", 0), ("bob", 0)] {
        let receipt = shop.top_up(customer, minor).await.receipt().to_owned();
        for client in [&shop.payment, &shop.order, &shop.inventory] {
            let seen = client.call("GET", "/stats", &[("mainstay-receipt", &receipt)], None).await;
            assert_eq!(seen.status, 200, "{customer} {minor}: {seen:?}");
        }
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_a_store_that_is_not_followed_is_refused() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop.top_up("alice", 1_000).await;
    let id = shop.order("k1", "alice", &[("apple", 1)]).await;
    shop.end_of(&id).await;
    // Inventory follows Payment only; everybody it follows has spoken by now.
    let order_receipt = format!("r1.{}.1", shop.ids[0].0.simple());
    let unknown = "r1.00000000000000000000000000000001.1".to_owned();
    for receipt in [order_receipt, unknown] {
        let answer =
            shop.inventory.call("GET", "/stock/apple", &[("mainstay-receipt", &receipt)], None).await;
        assert_eq!((answer.status, answer.problem().as_str()), (422, "foreign-receipt"), "{receipt}");
    }
    // A change of its own that it never made: it lives in another copy of the store.
    let future = format!("r1.{}.999999", shop.ids[2].0.simple());
    let answer = shop.inventory.call("GET", "/stock/apple", &[("mainstay-receipt", &future)], None).await;
    assert_eq!(answer.problem(), "foreign-receipt");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_a_receipt_ends_and_says_so() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop.logs[2].stall(true);
    let body = serde_json::json!({ "quantity": 5, "price": { "currency": "EUR", "minor": 1 } });
    let receipt = shop.inventory.put("/stock/apple", &body).await.receipt().to_owned();
    let answer = shop.order.call("GET", "/orders", &[("mainstay-receipt", &receipt)], None).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "not-yet"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    shop.logs[2].stall(false);
    // Asked again, it is there.
    loop {
        let answer = shop.order.call("GET", "/orders", &[("mainstay-receipt", &receipt)], None).await;
        if answer.status == 200 {
            break;
        }
        assert_eq!(answer.status, 503);
    }
    shop.close().await;
}
