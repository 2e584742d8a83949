//! Wakes those who wait for an order's end, once the end is recorded.
//!
//! It reads the service's own feed, and only while somebody waits: what a reactor does is not known to have
//! happened before its transaction is on disk, and then only the feed says so.

use std::str::FromStr;

use mainstay::store::{BadName, EventType, Position, Query, ReadError, Store};

use super::Orders;
use crate::domain::OrderId;

/// Events read at once.
const PAGE: usize = 1_000;

/// How long it rests when the feed can't be read, and how often it looks without being woken.
const RECHECK: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs until it is dropped.
pub(super) async fn watch<S: Store>(orders: Orders<S>) {
    loop {
        orders.waiting.somebody().await;
        if let Err(error) = follow(&orders).await {
            orders.app.tell(&format!(
                "those who wait for an order are not woken: {error}; they look by themselves"
            ));
            tokio::time::sleep(RECHECK).await;
        }
    }
}

/// Follows the ends of orders as long as somebody waits.
async fn follow<S: Store>(orders: &Orders<S>) -> Result<(), ReadError> {
    let store = orders.app.store();
    let query = ends()?;
    let mut after = store.head().await?.position;
    // They may have looked before, and what they wait for may have come before that position.
    orders.waiting.wake_all();
    while !orders.waiting.is_empty() {
        let page = store.read(&query, after, PAGE).await?;
        for event in &page.events {
            let order = event.stream.as_str().strip_prefix(super::STREAM).map(OrderId::from_str);
            if let Some(Ok(order)) = order {
                orders.waiting.wake(order);
            }
        }
        let at_end = page.at_end();
        after = Position(page.next.0.max(after.0));
        if at_end {
            store.wait_past(after, RECHECK).await;
        }
    }
    Ok(())
}

fn ends() -> Result<Query, BadName> {
    Ok(Query::types([EventType::new("OrderConfirmed")?, EventType::new("OrderCancelled")?]))
}
