//! One page of the feed into one generation of rows: the step that everything asynchronous is made of.
//!
//! ```text
//! source feed ──page──► one transaction of the target {rows, proof, checkpoint: from ─► next}
//! ```
//! Whatever happens, a page is in the rows exactly when the checkpoint is past it: a crash, a refusal or an
//! unknown outcome is answered by reading the checkpoint and going on from there.

use std::sync::Arc;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, AppendError, ConsumerName, Hash, Position, ReadError, Recorded, Refusal, Retry, Row, Store,
    TransactError, Tx, ViewName,
};
use serde::{Deserialize, Serialize};

use super::control::{Control, Generation, Mode, consumer_name, records, view_name};
use super::error::ProjectionError;
use super::model::{Failure, Observed, Projection};
use super::view::View;
use crate::event::{open, query};

/// The view that holds, for each generation, a position it has applied and the chain's hash there.
const PROOFS: &str = "mainstay.positions";

/// A position that was applied. The hash tells later whether the feed still has the same history there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Proof {
    at: Position,
    hash: Hash,
}

/// Which generation of the rows to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// The one that is read.
    Live,
    /// The one that a rebuild makes.
    Filling(Generation),
}

/// One generation, and how far it is.
pub(super) struct Cursor {
    pub(super) generation: Generation,
    pub(super) at: Position,
    view: ViewName,
    consumer: ConsumerName,
}

/// Why a step did not succeed.
pub(super) enum Trouble {
    /// It may pass: read the checkpoint again and go on from there.
    Passing(String),
    /// A condition did not hold: something was recorded meanwhile.
    Stale(String),
    /// The page was more than one transaction takes; the next one is smaller.
    Smaller,
    /// It will not.
    Fatal(ProjectionError),
}

impl From<ProjectionError> for Trouble {
    fn from(error: ProjectionError) -> Self {
        Self::Fatal(error)
    }
}

/// Why a page's transaction ended by itself.
enum Ended {
    /// The generation is not wanted any more.
    Overtaken,
    /// The projection could not take this event.
    At(Position, Failure),
}

/// Where a projection's events come from and where its rows go.
pub(super) struct Pipe<P, Source, Target> {
    pub(super) source: Source,
    pub(super) target: Target,
    pub(super) projection: Arc<P>,
}

impl<P, Source: Clone, Target: Clone> Clone for Pipe<P, Source, Target> {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            target: self.target.clone(),
            projection: Arc::clone(&self.projection),
        }
    }
}

impl<P: Projection, Source: Store, Target: Store> Pipe<P, Source, Target> {
    /// The projection's record; made when there is none.
    pub(super) async fn control(&self, cx: &Context, mode: Mode) -> Result<Control, Trouble> {
        let view = records().map_err(|bad| fatal::<P>(bad.into()))?;
        let bytes = self.target.view_get(&view, P::NAME).await.map_err(reading::<P>)?;
        let control = match bytes {
            Some(bytes) => Control::decode(&bytes).map_err(fatal::<P>)?,
            None => {
                let first = Control::first::<P>(mode, self.source.id());
                self.change(cx, move |tx, stored| match stored {
                    Some(stored) => Ok(stored),
                    None => first.write(tx, P::NAME).map(|()| first.clone()),
                })
                .await?
            }
        };
        if control.mode != mode {
            return Err(ProjectionError::OtherMode {
                projection: P::NAME,
                recorded: control.mode,
                asked: mode,
            }
            .into());
        }
        if control.source != self.source.id() {
            let (recorded, ours) = (control.source, self.source.id());
            return Err(ProjectionError::OtherSource { projection: P::NAME, recorded, ours }.into());
        }
        Ok(control)
    }

    /// Changes the record in a transaction of its own.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        cx: &Context,
        change: impl Fn(&Target::Tx, Option<Control>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Trouble> {
        let done = self
            .target
            .transact(cx, move |tx| {
                let stored = Control::read(tx, P::NAME)?;
                change(tx, stored).map_err(Abort::<std::convert::Infallible>::Refused)
            })
            .await;
        done.map(|done| done.value).map_err(|error| match error {
            TransactError::User(never) => match never {},
            TransactError::Store(error) => writing::<P>(error),
        })
    }

    /// Where a generation stands; proves first that the feed still holds what it has applied.
    pub(super) async fn cursor(&self, cx: &Context, mode: Mode, which: Which) -> Result<Cursor, Trouble> {
        let control = self.control(cx, mode).await?;
        let generation = match which {
            Which::Live if control.live.version != P::VERSION => {
                let (stored, ours) = (control.live.version, P::VERSION);
                return Err(ProjectionError::OtherVersion { projection: P::NAME, stored, ours }.into());
            }
            Which::Live => control.live,
            Which::Filling(generation) => generation,
        };
        let name = |bad: mainstay_event_store::BadName| fatal::<P>(bad.into());
        let view = view_name(P::NAME, generation.number).map_err(name)?;
        let consumer = consumer_name(P::NAME, generation.number).map_err(name)?;
        let at = self.target.checkpoint(&consumer).await.map_err(reading::<P>)?.unwrap_or(Position::START);
        let proofs = ViewName::new(PROOFS).map_err(name)?;
        let proof = self.target.view_get(&proofs, consumer.as_str()).await.map_err(reading::<P>)?;
        if let Some(proof) = proof.and_then(|bytes| serde_json::from_slice::<Proof>(&bytes).ok()) {
            let head = self.source.head_at(proof.at).await.map_err(reading::<P>)?;
            if head.is_none_or(|head| head.hash != proof.hash) {
                return Err(ProjectionError::Rewritten { projection: P::NAME, at: proof.at }.into());
            }
        }
        Ok(Cursor { generation, at, view, consumer })
    }

    /// Applies the next page. `page_max` shrinks when a page is more than a transaction can take.
    /// The end of the feed when it was read.
    pub(super) async fn step(
        &self,
        cx: &Context,
        cursor: &mut Cursor,
        page_max: &mut usize,
    ) -> Result<Position, Trouble> {
        let query = query::<P::Event>().map_err(|bad| fatal::<P>(bad.into()))?;
        let page = self.source.read(&query, cursor.at, *page_max).await.map_err(reading::<P>)?;
        if page.next == cursor.at {
            return Ok(page.head);
        }
        let events = page.events.into_iter().map(|recorded| match open::<P::Event>(&recorded) {
            Ok(event) => Ok((recorded, event)),
            Err(why) => Err(ProjectionError::Undecodable {
                projection: P::NAME,
                position: recorded.position,
                stream: recorded.stream,
                version: recorded.version,
                why,
            }),
        });
        let (events, unreadable) = until_error(events);
        if events.is_empty()
            && let Some(error) = unreadable
        {
            return Err(error.into());
        }
        // What stands before an unreadable event is applied first; the next step begins with it, and stops.
        let to = match (&unreadable, events.last()) {
            (Some(_), Some((last, _))) => last.position,
            _ => page.next,
        };
        let (count, first) = (events.len(), events.first().map_or(to, |(first, _)| first.position));
        let proof = events
            .last()
            .filter(|(last, _)| last.position == to)
            .map(|(last, _)| Proof { at: to, hash: last.hash });
        let written = self.target.transact(cx, self.page(cursor, events, proof, to)).await;
        let refusal = match written {
            Ok(_) => {
                cursor.at = to;
                return Ok(page.head);
            }
            Err(TransactError::User(Ended::Overtaken)) => {
                return Err(Trouble::Passing("its rows were replaced by a rebuild".into()));
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
    fn page(
        &self,
        cursor: &Cursor,
        events: Vec<(Recorded, P::Event)>,
        proof: Option<Proof>,
        to: Position,
    ) -> impl Fn(&Target::Tx) -> Result<(), Abort<Ended>> + Send + 'static {
        let projection = Arc::clone(&self.projection);
        let (generation, from) = (cursor.generation, cursor.at);
        let (view, consumer) = (cursor.view.clone(), cursor.consumer.clone());
        move |tx| {
            if !Control::read(tx, P::NAME)?.is_some_and(|control| control.permits(generation)) {
                return Err(Abort::User(Ended::Overtaken));
            }
            // First of all: nothing is applied on top of what another copy has applied meanwhile.
            tx.move_checkpoint(&consumer, from, to)?;
            let rows = View::new(tx, &view, P::indices);
            for (recorded, event) in &events {
                projection.apply(&rows, &Observed::new(recorded, event)).map_err(|why| match why {
                    Failure::Refused(refusal) if refusal.retry() != Retry::Never => Abort::Refused(refusal),
                    why => Abort::User(Ended::At(recorded.position, why)),
                })?;
            }
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

    /// Removes a generation that nobody reads, slice by slice, so that no transaction is long.
    pub(super) async fn clear(&self, cx: &Context, number: u64, rows_max: usize) -> Result<(), Trouble> {
        loop {
            let more = self
                .change(cx, move |tx, stored| {
                    let Some(mut control) = stored.filter(|stored| stored.clearing.contains(&number)) else {
                        return Ok(false);
                    };
                    if tx.view_clear(&view_name(P::NAME, number)?, rows_max)? {
                        return Ok(true);
                    }
                    tx.view_delete(&ViewName::new(PROOFS)?, consumer_name(P::NAME, number)?.as_str())?;
                    control.clearing.retain(|cleared| *cleared != number);
                    control.write(tx, P::NAME)?;
                    Ok(false)
                })
                .await?;
            if !more {
                return Ok(());
            }
        }
    }
}

/// Everything up to the first error, and the error.
fn until_error<T, E>(results: impl Iterator<Item = Result<T, E>>) -> (Vec<T>, Option<E>) {
    let mut good = Vec::new();
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(error) => return (good, Some(error)),
        }
    }
    (good, None)
}

fn fatal<P: Projection>(refusal: Refusal) -> Trouble {
    Trouble::Fatal(ProjectionError::Store { projection: P::NAME, refusal })
}

pub(super) fn reading<P: Projection>(error: ReadError) -> Trouble {
    match error {
        ReadError::Unavailable { passing: true, .. } => Trouble::Passing(error.to_string()),
        error => Trouble::Fatal(ProjectionError::Read { projection: P::NAME, error }),
    }
}

fn writing<P: Projection>(error: AppendError) -> Trouble {
    match error {
        AppendError::Refused(refusal @ Refusal::ConditionFailed { .. }) => {
            Trouble::Stale(refusal.to_string())
        }
        AppendError::Refused(refusal) if refusal.retry() == Retry::Never => fatal::<P>(refusal),
        error => Trouble::Passing(error.to_string()),
    }
}
