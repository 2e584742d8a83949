//! Who waits for the end of which order. Waking one wakes nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::domain::OrderId;

/// Ends that are remembered until the next commit.
const ENDING_MAX: usize = 1_024;

/// Those who wait, by order. In memory only: a wait is a convenience, and ends with its process.
#[derive(Debug)]
pub(super) struct Waiting {
    by_order: Mutex<HashMap<OrderId, watch::Sender<()>>>,
    /// Orders that somebody waits for, and whose end is being written.
    ending: Mutex<Vec<OrderId>>,
    places: Arc<Semaphore>,
    begun: Notify,
}

/// Somebody's place; given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    waiting: Arc<Waiting>,
    order: OrderId,
    woken: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
}

impl Waiting {
    /// Room for so many who wait at once, for one order or for many: each of them holds a connection.
    pub(super) fn new(max: usize) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(max));
        Arc::new(Self { by_order: Mutex::default(), ending: Mutex::default(), places, begun: Notify::new() })
    }

    /// A place, to be taken before the order is looked at: what happens between the two is then not missed. None
    /// when there is no room; the caller answers at once, as RFC 7240 §2 lets it.
    pub(super) fn place(self: &Arc<Self>, order: OrderId) -> Option<Place> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut by_order = self.lock();
        let woken = match by_order.get(&order) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, woken) = watch::channel(());
                by_order.insert(order, sender);
                if by_order.len() == 1 {
                    self.begun.notify_one();
                }
                woken
            }
        };
        Some(Place { waiting: Arc::clone(self), order, woken, _place: place })
    }

    /// Does anybody wait for anything?
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Returns when somebody begins to wait where nobody did.
    pub(super) async fn somebody(&self) {
        self.begun.notified().await;
    }

    /// Wakes everybody.
    pub(super) fn wake_all(&self) {
        for sender in self.lock().values() {
            sender.send_replace(());
        }
    }

    /// Wakes those who wait for this order.
    pub(super) fn wake(&self, order: OrderId) {
        if let Some(sender) = self.lock().get(&order) {
            sender.send_replace(());
        }
    }

    /// An order's end is about to be committed, if all goes well.
    pub(super) fn ends(&self, order: OrderId) {
        if !self.lock().contains_key(&order) {
            return;
        }
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        // A hint: who is not woken by it is woken by the feed.
        if ending.len() < ENDING_MAX {
            ending.push(order);
        }
    }

    /// Something was committed: wakes those whose orders' ends may have been part of it. Too early for some under
    /// load, and those are woken by the feed.
    pub(super) fn wake_ending(&self) {
        let ending = std::mem::take(&mut *self.ending.lock().unwrap_or_else(PoisonError::into_inner));
        for order in ending {
            self.wake(order);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrderId, watch::Sender<()>>> {
        // Every step leaves the map whole.
        self.by_order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns when the order was woken since the place was taken, or after `at_most`; was it woken?
    pub(super) async fn woken(&mut self, at_most: Duration) -> bool {
        matches!(tokio::time::timeout(at_most, self.woken.changed()).await, Ok(Ok(())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_order = self.waiting.lock();
        // This place's own receiver is still counted.
        if by_order.get(&self.order).is_some_and(|sender| sender.receiver_count() <= 1) {
            by_order.remove(&self.order);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn order(number: u128) -> OrderId {
        OrderId(Uuid::from_u128(number))
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_reaches_all_who_wait_for_that_order_and_nobody_else() {
        let waiting = Waiting::new(8);
        let (mut one, mut two) = (waiting.place(order(1)).unwrap(), waiting.place(order(1)).unwrap());
        let mut other = waiting.place(order(2)).unwrap();
        waiting.wake(order(1));
        assert!(one.woken(LONG).await && two.woken(LONG).await);
        assert!(!other.woken(LONG).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_was_written_wakes_at_the_next_commit_whoever_waits_for_it() {
        let waiting = Waiting::new(8);
        waiting.ends(order(1));
        let (mut one, mut other) = (waiting.place(order(1)).unwrap(), waiting.place(order(2)).unwrap());
        waiting.wake_ending();
        assert!(
            !one.woken(LONG).await,
            "nobody waited for it when it was written: the look after the place sees it"
        );
        waiting.ends(order(1));
        assert!(!one.woken(LONG).await, "nothing is committed yet");
        waiting.wake_ending();
        assert!(one.woken(LONG).await && !other.woken(LONG).await);
        for _ in 0..2 * ENDING_MAX {
            waiting.ends(order(2));
        }
        assert_eq!(waiting.ending.lock().unwrap().len(), ENDING_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_bounded_and_given_back() {
        let waiting = Waiting::new(2);
        let one = waiting.place(order(1)).unwrap();
        let same = waiting.place(order(1)).unwrap();
        assert!(waiting.place(order(1)).is_none(), "one more of the same order is one more");
        assert!(waiting.place(order(2)).is_none());
        drop(one);
        assert!(!waiting.is_empty());
        drop(same);
        assert!(waiting.is_empty());
        assert!(waiting.place(order(2)).is_some());
    }
}
