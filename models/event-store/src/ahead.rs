//! Reading a feed ahead: while a page is looked at, the next ones are on their way.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use crate::event::limits;
use crate::outcome::ReadError;
use crate::position::Position;
use crate::query::Query;
use crate::store::{Page, Store};

/// Pages on their way at once, beside the one that is looked at. Two keep two reader threads busy; more would
/// only hold memory.
const AHEAD: usize = 2;

type Reading = Pin<Box<dyn Future<Output = Result<Page, ReadError>> + Send>>;

/// A page that was asked for.
enum Asked {
    Reading(Reading),
    Read(Result<Page, ReadError>),
}

/// Reads the pages of one query after one another, and asks for the next ones before they are wanted.
///
/// Where every event matches, positions are dense, so it is known where the page after the next begins; a
/// selective query says that only in its answer, so one page is asked for ahead.
pub struct ReadAhead<S> {
    store: S,
    query: Query,
    max: usize,
    asked: VecDeque<(Position, Asked)>,
}

impl<S: fmt::Debug> fmt::Debug for ReadAhead<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked: Vec<_> = self.asked.iter().map(|(after, _)| after).collect();
        f.debug_struct("ReadAhead").field("store", &self.store).field("asked", &asked).finish_non_exhaustive()
    }
}

impl<S: Store> ReadAhead<S> {
    /// Pages of at most `max` events, cut to [`limits::PAGE_EVENTS_MAX`].
    pub fn new(store: S, query: Query, max: usize) -> Self {
        Self { store, query, max: limits::page(max).max(1), asked: VecDeque::new() }
    }

    /// The most events of a page.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Smaller pages from here on; what was read ahead is asked for again.
    pub fn shrink(&mut self, max: usize) {
        self.max = self.max.min(max).max(1);
        self.asked.clear();
    }

    /// The store that is read.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The page after a position. Cancelling the future loses nothing: what was asked for is kept, and used when
    /// the same position is asked for again.
    ///
    /// A page that was read ahead tells of the feed's end as it was then.
    pub async fn page(&mut self, after: Position) -> Result<Page, ReadError> {
        // What was asked for beside the way: a page before it was shorter than a full one.
        while self.asked.front().is_some_and(|(from, _)| *from != after) {
            self.asked.pop_front();
        }
        if self.asked.is_empty() {
            self.ask(after).await;
        }
        let page = std::future::poll_fn(|task| match self.asked.front_mut() {
            Some((_, Asked::Reading(reading))) => reading.as_mut().poll(task),
            Some((_, Asked::Read(page))) => Poll::Ready(std::mem::replace(page, Err(taken()))),
            None => Poll::Ready(Err(taken())),
        })
        .await;
        self.asked.pop_front();
        let Ok(page) = page else {
            self.asked.clear();
            return page;
        };
        let mut from = self.asked.back().map_or(page.next, |(last, _)| self.full_from(*last));
        while self.asked.len() < AHEAD && from > after && from < page.head {
            self.ask(from).await;
            if !self.query.is_all() {
                break;
            }
            from = self.full_from(from);
        }
        Ok(page)
    }

    /// Where a full page after a position ends, when every event matches.
    fn full_from(&self, after: Position) -> Position {
        if self.query.is_all() { Position(after.0.saturating_add(self.max as u64)) } else { Position::START }
    }

    /// Asks for a page: its reading begins now, not when somebody waits for it.
    async fn ask(&mut self, after: Position) {
        let (store, query, max) = (self.store.clone(), self.query.clone(), self.max);
        let mut reading: Reading = Box::pin(async move { store.read(&query, after, max).await });
        let begun = std::future::poll_fn(|task| Poll::Ready(reading.as_mut().poll(task))).await;
        self.asked.push_back((
            after,
            match begun {
                Poll::Ready(page) => Asked::Read(page),
                Poll::Pending => Asked::Reading(reading),
            },
        ));
    }
}

/// Stands where a page was that has been handed out; never seen, since it is removed in the same breath.
fn taken() -> ReadError {
    ReadError::Unavailable { why: "the page was handed out already".into(), passing: true }
}
