//! Events that were moved to an archive while what they began is still going on.

use mainstay::sqlite::{Options, Sqlite};
use mainstay::store::{Position, Store};

use crate::kit::{Shop, limits, order_body};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_beginning_is_archived_ends_and_its_key_is_still_answered() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(Options::new(folder.path().join("orders.db"))).unwrap();
    let shop = Shop::over(store.clone(), limits()).await;
    shop.stock("apple", 10, 150).await;
    shop.top_up("alice", 1_000).await;
    // Nobody hears of the order until its beginning is archived.
    shop.logs[0].stall(true);
    let key = [("idempotency-key", "same")];
    let body = order_body("alice", &[("apple", 1)]);
    let first = shop.order.post("/orders", &key, &body).await;
    assert_eq!(first.status, 201, "{first:?}");
    let before = Position(store.head().await.unwrap().position.0 + 1);
    store.archive(before, &folder.path().join("old.jsonl")).await.unwrap();
    let again = shop.order.post("/orders", &key, &body).await;
    assert_eq!((again.status, again.json(), again.receipt()), (201, first.json(), first.receipt()));
    shop.logs[0].stall(false);
    let order = shop.end_of(first.json()["id"].as_str().unwrap()).await;
    assert_eq!(order["status"], "CONFIRMED", "{order:#}");
    shop.close().await;
}
