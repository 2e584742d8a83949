//! One page of the feed into one generation of rows: the step that everything asynchronous is made of.
//!
//! ```text
//! source feed ──page──► one transaction of the target {checkpoint: from ─► to, rows, proof}
//!     └──── the next page is read and decoded meanwhile
//! ```
//! Whatever happens, a page is in the rows exactly when the checkpoint is past it: a crash, a refusal or an
//! unknown outcome is answered by reading the checkpoint and going on from there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, AppendError, Position, Query, ReadAhead, Recorded, Refusal, Retry, Row, Store, TransactError, Tx,
    ViewName,
};

use super::control::Control;
use super::error::ProjectionError;
use super::failure::Failure;
use super::model::{Observed, Projection};
use super::pipe::{Cursor, PROOFS, Pipe, Proof, Trouble, Which, reading, writing};
use super::view::{Kept, View};
use crate::event::{open, query};

/// A part of the feed, decoded.
pub(super) struct Page<E> {
    from: Position,
    /// Up to where its events are to be applied.
    to: Position,
    /// The end of the feed when it was read.
    head: Position,
    events: Vec<(Recorded, E)>,
    /// What follows `to`, when that can't be read.
    unreadable: Option<ProjectionError>,
}

/// Why a page's transaction ended by itself.
enum Ended {
    /// The generation is not wanted any more.
    Overtaken,
    /// The projection could not take this event.
    At(Position, Failure),
}

/// Payload bytes after which a page takes no more, however few events it holds.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// A page's transaction is to take about so long: others of the target wait for it. While one takes less, the
/// next page is larger, since every page costs a flush and writes each touched part of the rows anew.
const TRANSACTION_GOAL: Duration = Duration::from_millis(25);

/// The first page's size; what a live projection ever needs.
const PAGE_FIRST: usize = 1_000;

/// Pages without trouble after which pages that had to become smaller may be twice as large again. What was too
/// much may be met again: then this is what keeps the tries that fail a small part of all.
const GOOD_PAGES: u32 = 16;

/// What is known of the way ahead of one projector.
pub(super) struct Ahead<E, R, Source> {
    reads: ReadAhead<Source>,
    /// Read for the next step.
    page: Option<Page<E>>,
    /// Rows as the last step left them.
    kept: Arc<Mutex<Kept<R>>>,
    query: Query,
    /// Events in one transaction: from now on, at most for now, and at most ever.
    size: usize,
    size_max: usize,
    page_max: usize,
    /// Pages without trouble since the last change of `size_max`.
    good: u32,
}

impl<E, R, Source: Store> Ahead<E, R, Source> {
    fn new(source: Source, query: Query, page_max: usize) -> Self {
        let size = page_max.min(PAGE_FIRST);
        let reads = ReadAhead::new(source, query.clone(), size);
        Self { reads, page: None, kept: Arc::default(), query, size, size_max: page_max, page_max, good: 0 }
    }

    /// Forgets what was read: it is read again.
    pub(super) fn forget(&mut self) {
        self.page = None;
        self.kept = Arc::default();
    }

    /// Smaller pages from here on.
    fn halve(&mut self, count: usize) {
        (self.size, self.size_max, self.good) = ((count / 2).max(1), (count / 2).max(1), 0);
        self.reads.shrink(self.size);
    }

    /// A page was written, and took so long.
    fn adapt(&mut self, took: Duration) {
        self.good = self.good.saturating_add(1);
        if self.size_max < self.page_max && self.good >= GOOD_PAGES {
            (self.size_max, self.good) = ((self.size_max * 2).min(self.page_max), 0);
            let first = self.size_max.min(PAGE_FIRST);
            if self.reads.max() < first {
                self.size = self.size.max(first);
                self.reads = ReadAhead::new(self.reads.store().clone(), self.query.clone(), first);
            }
        }
        if took < TRANSACTION_GOAL / 2 {
            self.size = (self.size * 2).min(self.size_max);
        } else if took > TRANSACTION_GOAL * 2 {
            self.size = (self.size / 2).max(PAGE_FIRST).min(self.size_max);
        }
    }
}

impl<P: Projection, Source: Store, Target: Store> Pipe<P, Source, Target> {
    /// Begins to read ahead; pages of at most `page_max` events.
    pub(super) fn ahead(&self, page_max: usize) -> Result<Ahead<P::Event, P::Row, Source>, ProjectionError> {
        let query = query::<P::Event>()
            .map_err(|bad| ProjectionError::Store { projection: P::NAME, refusal: bad.into() })?;
        Ok(Ahead::new(self.source.clone(), query, page_max))
    }

    /// Reads and decodes what follows a position.
    async fn look(
        &self,
        reads: &mut ReadAhead<Source>,
        from: Position,
        size: usize,
    ) -> Result<Page<P::Event>, Trouble> {
        let mut page = Page { from, to: from, head: from, events: Vec::new(), unreadable: None };
        let mut bytes = 0;
        loop {
            let found = reads.page(page.to).await.map_err(reading::<P>)?;
            let at_end = found.at_end() || found.next == page.to;
            bytes += found.events.iter().map(|event| event.payload.bytes.len()).sum::<usize>();
            self.decode(&mut page, found);
            let full = page.events.len() + reads.max() > size || bytes >= PAGE_BYTES_MAX;
            if full || at_end || page.unreadable.is_some() {
                return Ok(page);
            }
        }
    }

    fn decode(&self, page: &mut Page<P::Event>, found: mainstay_event_store::Page) {
        let from = page.to;
        (page.to, page.head) = (found.next, found.head);
        page.events.reserve(found.events.len());
        for recorded in found.events {
            match open::<P::Event>(&recorded) {
                Ok(event) => page.events.push((recorded, event)),
                Err(why) => {
                    // What stands before it is applied; the page after that begins with it, and stops.
                    let last = page.events.last().map(|(last, _)| last.position);
                    page.to = last.map_or(from, |last| last.max(from));
                    page.unreadable = Some(ProjectionError::Undecodable {
                        projection: P::NAME,
                        position: recorded.position,
                        stream: recorded.stream,
                        version: recorded.version,
                        why,
                    });
                    break;
                }
            }
        }
    }

    /// Applies the next page, and reads ahead for the one after. The end of the feed when it was read.
    pub(super) async fn step(
        &self,
        cx: &Context,
        cursor: &mut Cursor,
        ahead: &mut Ahead<P::Event, P::Row, Source>,
    ) -> Result<Position, Trouble> {
        let page = match ahead.page.take().filter(|page| page.from == cursor.at) {
            Some(page) => page,
            None => self.look(&mut ahead.reads, cursor.at, ahead.size).await?,
        };
        let (to, head) = (page.to, page.head);
        if to == cursor.at {
            return match page.unreadable {
                Some(error) => Err(error.into()),
                None => Ok(head),
            };
        }
        let (count, first) = (page.events.len(), page.events.first().map_or(to, |(first, _)| first.position));
        let more = page.unreadable.is_none() && to < head;
        let (began, write) =
            (cx.now(), self.target.transact(cx, self.transaction(cursor, page, Arc::clone(&ahead.kept))));
        let write = async { (write.await, cx.now().saturating_since(began)) };
        let ((written, took), next) = if more {
            // The disk's flush and the decoding are two machines' work.
            tokio::join!(write, async { self.look(&mut ahead.reads, to, ahead.size).await.ok() })
        } else {
            (write.await, None)
        };
        let refusal = match written {
            Ok(_) => {
                cursor.at = to;
                ahead.page = next;
                ahead.adapt(took);
                return Ok(head);
            }
            Err(TransactError::User(Ended::Overtaken)) => {
                return Err(match cursor.which {
                    Which::Live => Trouble::Passing("its rows were replaced by a rebuild".into()),
                    Which::Filling(_) => ProjectionError::Overtaken { projection: P::NAME }.into(),
                });
            }
            Err(TransactError::User(Ended::At(position, why))) => {
                return Err(ProjectionError::Failed { projection: P::NAME, position, why }.into());
            }
            Err(TransactError::Store(AppendError::Refused(refusal))) => refusal,
            Err(TransactError::Store(error)) => return Err(writing::<P>(error)),
        };
        match refusal {
            Refusal::CheckpointMoved { .. } => Err(Trouble::Passing(refusal.to_string())),
            // A panic, or too slow: found by halves, so that the error can name the event.
            Refusal::Closure { .. } if count > 1 => {
                ahead.halve(count);
                Err(Trouble::Smaller)
            }
            Refusal::Closure { .. } if count == 1 => {
                let why = Failure::Refused(refusal);
                Err(ProjectionError::Failed { projection: P::NAME, position: first, why }.into())
            }
            refusal => Err(writing::<P>(refusal.into())),
        }
    }

    /// The transaction of a page.
    fn transaction(
        &self,
        cursor: &Cursor,
        page: Page<P::Event>,
        kept: Arc<Mutex<Kept<P::Row>>>,
    ) -> impl Fn(&Target::Tx) -> Result<(), Abort<Ended>> + Send + 'static {
        let projection = Arc::clone(&self.projection);
        let generation = cursor.generation;
        let (view, consumer) = (cursor.view.clone(), cursor.consumer.clone());
        let last = page.events.last().filter(|(last, _)| last.position == page.to);
        let proof = last.map(|(last, _)| Proof { at: page.to, hash: last.hash });
        move |tx| {
            if !Control::read(tx, P::NAME)?.is_some_and(|control| control.permits(generation)) {
                return Err(Abort::User(Ended::Overtaken));
            }
            // First of all: nothing is applied on top of what another copy has applied meanwhile.
            tx.move_checkpoint(&consumer, page.from, page.to)?;
            // Taken out: whatever ends this run early, they are read anew.
            let before = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
            let rows = View::new(tx, &view, P::indices).resume(before, page.from);
            for (recorded, event) in &page.events {
                rows.begin(recorded.position);
                projection
                    .apply(&rows, &Observed::new(recorded, event))
                    .map_err(|why| end(recorded.position, why))?;
            }
            rows.flush().map_err(|(position, why)| end(position, why))?;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = rows.keep(page.to);
            if let Some(proof) = proof {
                let bytes = serde_json::to_vec(&proof)
                    .map_err(|error| Refusal::Invalid { what: "projection proof", why: error.to_string() })?;
                tx.view_put(
                    &ViewName::new(PROOFS).map_err(Refusal::from)?,
                    &Row::new(consumer.as_str(), bytes),
                )?;
            }
            Ok(())
        }
    }
}

/// What a failure for an event makes of its page: what may pass is the store's to say, the rest is the event's.
fn end(position: Position, why: Failure) -> Abort<Ended> {
    match why {
        Failure::Refused(refusal) if refusal.retry() != Retry::Never => Abort::Refused(refusal),
        why => Abort::User(Ended::At(position, why)),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_event_store::memory::Memory;

    use super::*;

    #[test]
    fn pages_grow_again_after_some_good_ones() {
        const SLOW: Duration = Duration::from_secs(1);
        for (took, page_max) in
            [(Duration::ZERO, 16_000), (TRANSACTION_GOAL, 16_000), (SLOW, 16_000), (SLOW, 7)]
        {
            let mut ahead = Ahead::<(), (), _>::new(Memory::new(), Query::all(), page_max);
            for count in [1_000, 500, 250, 125, 62, 31, 15, 7, 3] {
                ahead.halve(count.min(page_max));
            }
            assert_eq!((ahead.size, ahead.size_max, ahead.reads.max()), (1, 1, 1));
            let mut most = 1;
            while most < page_max {
                for _ in 1..GOOD_PAGES {
                    ahead.adapt(took);
                    assert_eq!(ahead.size_max, most);
                }
                ahead.adapt(took);
                most = (most * 2).min(page_max);
                assert_eq!((ahead.size_max, ahead.reads.max()), (most, most.min(PAGE_FIRST)));
                assert!((most.min(PAGE_FIRST)..=most).contains(&ahead.size), "{} of {most}", ahead.size);
            }
            ahead.adapt(took);
            assert_eq!(ahead.size_max, page_max);
            // What is too much again counts from the start.
            ahead.halve(page_max);
            ahead.adapt(took);
            assert_eq!(ahead.size_max, page_max / 2);
        }
    }
}
