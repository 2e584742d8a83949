//! `Prefer: wait`, and what waits when the service is told to stop.

use std::time::{Duration, Instant};

use crate::kit::{Shop, limits};

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
        tokio::time::sleep(Duration::from_millis(300)).await;
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
    let shop = Shop::with(limits(), false).await;
    shop.stock("apple", 10, 150).await;
    shop.logs[0].stall(true);
    let id = shop.order("k1", "alice", &[("apple", 1)]).await;
    let path = format!("/orders/{id}");
    let waits = shop.order.call("GET", &path, &[("prefer", "wait=20")], None);
    let (answer, ()) = tokio::join!(waits, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        shop.stop();
    });
    assert_eq!(answer.json()["status"], "PENDING");
    shop.logs[0].stall(false);
    let began = Instant::now();
    shop.close().await;
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}
