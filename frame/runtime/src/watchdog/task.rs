//! A future that says when it is polled.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::slots::Slots;

pin_project_lite::pin_project! {
    /// A future with a name, whose polls are watched. See [`Watchdog::watch`](super::Watchdog::watch).
    #[derive(Debug)]
    #[must_use = "a future does nothing unless it is awaited or spawned"]
    pub struct Watched<F> {
        #[pin]
        future: F,
        named: Named,
    }
}

#[derive(Debug)]
struct Named {
    slots: Arc<Slots>,
    task: u64,
}

impl Drop for Named {
    fn drop(&mut self) {
        self.slots.remove_task(self.task);
    }
}

/// A poll that is under way; it ends also by a panic.
struct UnderWay;

impl Drop for UnderWay {
    fn drop(&mut self) {
        Slots::end();
    }
}

impl<F> Watched<F> {
    pub(super) fn new(slots: &Arc<Slots>, name: Arc<str>, future: F) -> Self {
        let task = slots.add_task(name);
        Self { future, named: Named { slots: Arc::clone(slots), task } }
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Not `then_some`: its argument would be dropped, and end the poll around this one.
        let _under_way = if this.named.slots.begin(this.named.task) { Some(UnderWay) } else { None };
        this.future.poll(cx)
    }
}
