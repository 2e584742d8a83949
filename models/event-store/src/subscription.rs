//! Following a feed: catch-up, then live, over any store.
//!
//! There is no seam between the two: a live subscription is a catch-up that waits before it looks again.
//! The wake-up is a hint and the slow re-check stands behind it, so a lost hint costs time, never an event.

use std::time::Duration;

use crate::ahead::ReadAhead;
use crate::event::{Recorded, limits};
use crate::outcome::ReadError;
use crate::position::Position;
use crate::query::Query;
use crate::store::{Page, Store};

/// How long a subscription waits for a wake-up before it looks by itself.
pub const RECHECK: Duration = Duration::from_millis(250);

/// A reader that follows the feed of a store.
#[derive(Debug)]
pub struct Subscription<S> {
    pages: ReadAhead<S>,
    after: Position,
    buffer: std::collections::VecDeque<Recorded>,
}

/// Following, for every store.
pub trait Subscribe: Store {
    /// Follows the feed: what is there, then what comes, without loss, duplicate, inversion or stall.
    fn subscribe(&self, query: Query, after: Position) -> Subscription<Self> {
        Subscription::new(self.clone(), query, after)
    }
}

impl<S: Store> Subscribe for S {}

impl<S: Store> Subscription<S> {
    fn new(store: S, query: Query, after: Position) -> Self {
        let pages = ReadAhead::new(store, query, limits::PAGE_EVENTS_MAX);
        Self { pages, after, buffer: std::collections::VecDeque::new() }
    }

    /// Up to where the feed was looked at. Everything that matches up to here was handed out by
    /// [`Subscription::next_page`] (not by [`Subscription::next_event`], which buffers).
    pub fn position(&self) -> Position {
        self.after
    }

    /// The next page that makes progress; waits for it. A page may hold no event when nothing in its range
    /// matches: its `next` is still worth a checkpoint. Cancelling the future loses nothing.
    pub async fn next_page(&mut self) -> Result<Page, ReadError> {
        loop {
            let page = self.pages.page(self.after).await?;
            if page.next > self.after {
                self.after = page.next;
                return Ok(page);
            }
            self.pages.store().wait_past(self.after, RECHECK).await;
        }
    }

    /// The next event that matches; waits for it. Cancelling the future loses nothing.
    pub async fn next_event(&mut self) -> Result<Recorded, ReadError> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Ok(event);
            }
            let page = self.next_page().await?;
            self.buffer.extend(page.events);
        }
    }
}
