//! One page of the feed into one generation of rows: the step that everything asynchronous is made of.
//!
//! ```text
//! source feed ──page──► one transaction of the target {checkpoint: from ─► to, rows, proof}
//!     └──── the next page is read and decoded meanwhile
//! ```
//! Whatever happens, a page is in the rows exactly when the checkpoint is past it: a crash, a refusal or an
//! unknown outcome is answered by reading the checkpoint and going on from there.

use std::sync::Arc;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, AppendError, Position, Recorded, Refusal, Retry, Row, Store, TransactError, Tx, ViewName,
};

use super::control::Control;
use super::error::ProjectionError;
use super::failure::Failure;
use super::model::{Observed, Projection};
use super::pipe::{Cursor, PROOFS, Pipe, Proof, Trouble, Which, fatal, reading, writing};
use super::view::View;
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

impl<P: Projection, Source: Store, Target: Store> Pipe<P, Source, Target> {
    /// Reads and decodes what follows a position.
    async fn look(&self, from: Position, page_max: usize) -> Result<Page<P::Event>, Trouble> {
        let query = query::<P::Event>().map_err(|bad| fatal::<P>(bad.into()))?;
        let found = self.source.read(&query, from, page_max).await.map_err(reading::<P>)?;
        let mut page = Page {
            from,
            to: found.next,
            head: found.head,
            events: Vec::with_capacity(found.events.len()),
            unreadable: None,
        };
        for recorded in found.events {
            match open::<P::Event>(&recorded) {
                Ok(event) => page.events.push((recorded, event)),
                Err(why) => {
                    // What stands before it is applied; the page after that begins with it, and stops.
                    page.to = page.events.last().map_or(from, |(last, _)| last.position);
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
        Ok(page)
    }

    /// Applies the next page. `page_max` shrinks when a page is more than a transaction can take. `ahead` is
    /// what was read ahead for this step, and then for the next one. The end of the feed when it was read.
    pub(super) async fn step(
        &self,
        cx: &Context,
        cursor: &mut Cursor,
        page_max: &mut usize,
        ahead: &mut Option<Page<P::Event>>,
    ) -> Result<Position, Trouble> {
        let page = match ahead.take().filter(|page| page.from == cursor.at) {
            Some(page) => page,
            None => self.look(cursor.at, *page_max).await?,
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
        let write = self.target.transact(cx, self.transaction(cursor, page));
        let (written, next) = if more {
            // The disk's flush and the decoding are two machines' work.
            tokio::join!(write, async { self.look(to, *page_max).await.ok() })
        } else {
            (write.await, None)
        };
        let refusal = match written {
            Ok(_) => {
                cursor.at = to;
                *ahead = next;
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
                *page_max = (count / 2).max(1);
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
            let rows = View::new(tx, &view, P::indices);
            for (recorded, event) in &page.events {
                rows.begin(recorded.position);
                projection
                    .apply(&rows, &Observed::new(recorded, event))
                    .map_err(|why| end(recorded.position, why))?;
            }
            rows.flush().map_err(|(position, why)| end(position, why))?;
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
