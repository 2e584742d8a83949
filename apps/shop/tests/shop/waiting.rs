//! `Prefer: wait`, and what waits when the service is told to stop.

use std::time::{Duration, Instant};

use crate::kit::{Shop, limits};

/// Until somebody waits at Order.
async fn until_waiting(shop: &Shop) {
    let began = Instant::now();
    while shop.order.get("/stats").await.json()["waiting"] != 1 {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody waits");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_order_and_not_with_the_time() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop.top_up("alice", 1_000).await;
    // Nothing arrives at Order until its wait has begun.
    shop.logs[2].stall(true);
    let id = shop.order("k1", "alice", &[("apple", 1)]).await;
    let began = Instant::now();
    let (order, ()) = tokio::join!(shop.end_of(&id), async {
        until_waiting(&shop).await;
        shop.logs[2].stall(false);
    });
    assert_eq!(order["status"], "CONFIRMED");
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "it was woken, it did not look by itself: {:?}",
        began.elapsed()
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_time_and_answers_what_is_so() {
    let shop = Shop::open().await;
    shop.stock("apple", 10, 150).await;
    shop.logs[0].stall(true);
    let id = shop.order("k1", "alice", &[("apple", 1)]).await;
    let began = Instant::now();
    let answer = shop.order.call("GET", &format!("/orders/{id}"), &[("prefer", "wait=1")], None).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &serde_json::json!("PENDING")));
    assert!(began.elapsed() >= Duration::from_millis(900));
    let unknown = shop.order.call(
        "GET",
        "/orders/018f3c5e-0000-7000-8000-00000000002a",
        &[("prefer", "wait=20")],
        None,
    );
    assert_eq!(unknown.await.status, 404, "nobody waits for what nobody made");
    shop.logs[0].stall(false);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_told_to_stop_answers_those_who_wait_and_ends() {
    let shop = Shop::with(limits()).await;
    shop.stock("apple", 10, 150).await;
    shop.logs[0].stall(true);
    let id = shop.order("k1", "alice", &[("apple", 1)]).await;
    let path = format!("/orders/{id}");
    let waits = shop.order.call("GET", &path, &[("prefer", "wait=20")], None);
    let (answer, ()) = tokio::join!(waits, async {
        until_waiting(&shop).await;
        shop.stop();
    });
    assert_eq!(answer.json()["status"], "PENDING");
    shop.logs[0].stall(false);
    let began = Instant::now();
    shop.close().await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_than_may_wait_is_answered_at_once_with_what_is_so() {
    // Two may wait, for whichever order.
    let shop = Shop::with(mainstay_shop::http::limits::Limits { waiting_max: 2, ..limits() }).await;
    shop.stock("apple", 10, 150).await;
    shop.logs[0].stall(true);
    let id = shop.order("k1", "alice", &[("apple", 1)]).await;
    let path = format!("/orders/{id}");
    let wait = || async {
        let began = Instant::now();
        let answer = shop.order.call("GET", &path, &[("prefer", "wait=3")], None).await;
        assert_eq!((answer.status, &answer.json()["status"]), (200, &serde_json::json!("PENDING")));
        began.elapsed()
    };
    let mut waited: [Duration; 3] = tokio::join!(wait(), wait(), wait()).into();
    waited.sort();
    let long = Duration::from_millis(2_900);
    assert!(waited[0] < long && waited[1] >= long && waited[2] >= long, "{waited:?}");
    // Their places are free again.
    assert!(wait().await >= long);
    shop.logs[0].stall(false);
    shop.close().await;
}
