//! An order's ways through the three services.

use mainstay::Context;
use mainstay::envelope::{CloudEvent, ContentHash, MessageIdentity, Producer};
use mainstay::flow::saga::Graph;
use mainstay::messaging::{Log, Message, Topic};
use serde_json::json;

use crate::kit::{Shop, events};

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_order_is_confirmed() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop.top_up("alice", 1_000).await;
    let id = shop.order("k1", "alice", &[("apple", 2)]).await;
    let order = shop.end_of(&id).await;
    assert_eq!(order["status"], "CONFIRMED", "{order:#}");
    assert_eq!(order["customer"], "alice");
    assert_eq!(order["amount"], json!({ "currency": "EUR", "minor": 300 }));
    assert_eq!(order["lines"], json!([{ "sku": "apple", "quantity": 2, "minor": 150 }]));
    assert_eq!(order["reason"], json!(null));
    assert_eq!(events(&order), ["OrderCreated", "InventoryUpdated", "OrderConfirmed"]);
    assert_eq!((shop.balance("alice").await, shop.left("apple").await), (700, 8));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_can_not_be_paid_is_cancelled_and_takes_nothing() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop.top_up("alice", 299).await;
    let mut euro_account = json!({ "customer": "carol", "minor": 1_000, "currency": "USD" });
    assert_eq!(shop.payment.post("/accounts", &[], &euro_account.take()).await.status, 200);
    for (key, customer, says) in [
        ("k1", "alice", "the account holds 299, the order costs 300 EUR"),
        ("k2", "bob", "has no account"),
        ("k3", "carol", "kept in USD, the order costs EUR"),
    ] {
        let id = shop.order(key, customer, &[("apple", 2)]).await;
        let order = shop.end_of(&id).await;
        assert_eq!(order["status"], "CANCELLED", "{order:#}");
        assert!(order["reason"].as_str().unwrap().contains(says), "{order:#}");
        assert_eq!(events(&order), ["OrderCreated", "PaymentRefused", "OrderCancelled"]);
    }
    assert_eq!((shop.balance("alice").await, shop.left("apple").await), (299, 10));
    assert_eq!(shop.payment.get("/accounts/bob").await.status, 404, "a refusal opens no account");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_beyond_the_stock_is_refunded_and_cancelled() {
    let shop = Shop::open().await;
    shop.stock("apple", 1, 150).await;
    shop.top_up("alice", 1_000).await;
    let id = shop.order("k1", "alice", &[("apple", 2)]).await;
    let order = shop.end_of(&id).await;
    assert_eq!(order["status"], "CANCELLED", "{order:#}");
    let reason = "stock short: 2 of apple were ordered, 1 are there; the payment was refunded";
    assert_eq!(order["reason"], reason);
    assert_eq!(events(&order), ["OrderCreated", "PaymentRefunded", "OrderCancelled"]);
    assert_eq!(order["history"][2]["reason"], reason);
    assert_eq!((shop.balance("alice").await, shop.left("apple").await), (1_000, 1));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_lines_are_reserved_or_none() {
    let shop = Shop::open().await;
    for (sku, quantity) in [("apple", 5), ("pear", 5), ("plum", 1)] {
        shop.stock(sku, quantity, 100).await;
    }
    shop.top_up("alice", 10_000).await;
    let short = shop.order("k1", "alice", &[("apple", 2), ("pear", 2), ("plum", 2)]).await;
    assert_eq!(shop.end_of(&short).await["status"], "CANCELLED");
    assert_eq!([shop.left("apple").await, shop.left("pear").await, shop.left("plum").await], [5, 5, 1]);
    let whole = shop.order("k2", "alice", &[("apple", 2), ("pear", 3), ("plum", 1)]).await;
    assert_eq!(shop.end_of(&whole).await["status"], "CONFIRMED");
    assert_eq!([shop.left("apple").await, shop.left("pear").await, shop.left("plum").await], [3, 2, 0]);
    assert_eq!(shop.balance("alice").await, 9_400);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_price_holds_for_new_orders_and_not_for_old_ones() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop.top_up("alice", 1_000).await;
    let old = shop.order("k1", "alice", &[("apple", 1)]).await;
    shop.end_of(&old).await;
    shop.stock("apple", 10, 200).await;
    let new = shop.order("k2", "alice", &[("apple", 1)]).await;
    assert_eq!(shop.end_of(&new).await["amount"]["minor"], 200);
    assert_eq!(shop.end_of(&old).await["amount"]["minor"], 150);
    assert_eq!(shop.balance("alice").await, 650);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_orders_at_once_conserve_money_and_stock() {
    let shop = Shop::open().await;
    shop.stock("apple", 25, 100).await;
    shop.top_up("alice", 10_000).await;
    let shop = std::sync::Arc::new(shop);
    let buyers: Vec<_> = (0..40)
        .map(|i| {
            let shop = std::sync::Arc::clone(&shop);
            tokio::spawn(async move {
                let id = shop.order(&format!("k{i}"), "alice", &[("apple", 1)]).await;
                shop.end_of(&id).await["status"].as_str().unwrap().to_owned()
            })
        })
        .collect();
    let mut confirmed = 0;
    for buyer in buyers {
        confirmed += u64::from(buyer.await.unwrap() == "CONFIRMED");
    }
    assert_eq!(confirmed, 25);
    assert_eq!((shop.balance("alice").await, shop.left("apple").await), (7_500, 0));
    let figures = shop.inventory.get("/stats").await.json();
    assert_eq!((&figures["handled"], &figures["parked"]), (&json!(40), &json!(0)), "{figures:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fact_about_an_order_that_nobody_made_is_set_aside_and_others_go_on() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop.top_up("alice", 1_000).await;
    let unknown = "018f3c5e-0000-7000-8000-00000000002a";
    let data = json!({ "order": unknown, "reason": { "kind": "no_account" } });
    let message = stray("payment", "PaymentRefused", unknown, &data);
    shop.logs[1].append(&Context::system(), vec![message]).await.unwrap();
    let id = shop.order("k1", "alice", &[("apple", 1)]).await;
    assert_eq!(shop.end_of(&id).await["status"], "CONFIRMED");
    let parked = shop.order.get("/stats").await.json()["parked"].clone();
    assert_eq!(parked, 1);
    let told = shop.told.lock().unwrap().join("\n");
    assert!(told.contains("there is no such order"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_are_told_names_the_order_and_not_the_customer() {
    let shop = Shop::open().await;
    let order = "018f3c5e-0000-7000-8000-00000000002a";
    // A refund to somebody who has no account.
    let reason = json!({ "kind": "stock_short", "sku": "apple", "wanted": 2, "available": 1 });
    let amount = json!({ "currency": "EUR", "minor": 300 });
    let data = json!({ "order": order, "customer": "mallory", "amount": amount, "reason": reason });
    let message = stray("inventory", "StockShort", order, &data);
    shop.logs[2].append(&Context::system(), vec![message]).await.unwrap();
    let parked = async {
        while shop.payment.get("/stats").await.json()["parked"] != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), parked).await.expect("it is set aside");
    shop.close_told(|told| {
        assert!(told.contains(order) && told.contains("there is no such account"), "{told}");
        assert!(!told.contains("mallory"), "{told}");
    })
    .await;
}

/// A fact that no service of this shop published.
fn stray(topic: &str, event_type: &str, key: &str, data: &serde_json::Value) -> Message {
    let data = data.to_string();
    Message {
        identity: MessageIdentity {
            producer: Producer::new("another-life").unwrap(),
            epoch: 1,
            partition: 0,
            seq: 1,
            content: ContentHash::of(data.as_bytes()),
        },
        topic: Topic::new(topic).unwrap(),
        key: key.into(),
        event: CloudEvent::new("e1", "/stray", event_type).unwrap(),
        data: data.into_bytes().into(),
        mark: 1,
    }
}

#[test]
fn the_declared_choreography_holds_together() {
    let findings = Graph::of(&mainstay_shop::participants()).check();
    assert!(findings.is_empty(), "{findings:?}");
}
