//! Wakes those who wait for an order's end, once the end is recorded.
//!
//! It reads the service's own feed, and only while somebody waits: what a reactor does is not known to have
//! happened before its transaction is on disk, and then only the feed says so. Whoever waits for an order whose end a
//! reactor has just written looks at the next commit already, without waiting for that reading.

use std::future::Future;
use std::str::FromStr;

use mainstay::store::{BadName, EventType, Position, Query, ReadError, Store};

use super::Orders;
use super::waiting::Waiting;
use crate::domain::OrderId;

/// Events read at once.
const PAGE: usize = 1_000;

/// How long it rests when the feed can't be read, and how often it looks without being woken.
const RECHECK: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs until it is dropped.
pub(super) async fn watch<S: Store>(orders: Orders<S>) {
    while_somebody_waits(
        &orders.waiting,
        || follow(&orders),
        |error| {
            orders.app.tell(&format!(
                "those who wait for an order are not woken: {error}; they look by themselves"
            ));
        },
    )
    .await;
}

/// Begins to follow whenever somebody waits, and again after each failure as long as anybody does: under steady
/// load somebody always waits, and nobody would be the first one again.
async fn while_somebody_waits<F>(waiting: &Waiting, follow: impl Fn() -> F, failed: impl Fn(ReadError))
where
    F: Future<Output = Result<(), ReadError>>,
{
    loop {
        waiting.somebody().await;
        while !waiting.is_empty() {
            if let Err(error) = follow().await {
                failed(error);
                tokio::time::sleep(RECHECK).await;
            }
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
            orders.waiting.wake_ending();
        }
    }
    Ok(())
}

fn ends() -> Result<Query, BadName> {
    Ok(Query::types([EventType::new("OrderConfirmed")?, EventType::new("OrderCancelled")?]))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_feed_that_failed_is_followed_again_while_somebody_waits() {
        let waiting = Waiting::new(8);
        // One who waits all the time: the number of those who wait never comes back to none.
        let place = waiting.place(OrderId(Uuid::from_u128(1)));
        let (follows, failures, place) = (Cell::new(0), Cell::new(0), Cell::new(place));
        let follow = || {
            follows.set(follows.get() + 1);
            let ends = follows.get() > 3;
            if ends {
                place.take();
            }
            async move { if ends { Ok(()) } else { Err(ReadError::Damaged { why: "a page".into() }) } }
        };
        let watching = while_somebody_waits(&waiting, follow, |_| failures.set(failures.get() + 1));
        // It does not end; it has nothing to do any more.
        assert!(tokio::time::timeout(RECHECK * 100, watching).await.is_err());
        assert_eq!((follows.get(), failures.get()), (4, 3));
    }
}
