//! The stores of a projection: its record, where a generation stands, and how one is removed.

use std::sync::Arc;

use mainstay_envelope::Context;
use mainstay_event_store::{
    Abort, AppendError, ConsumerName, Hash, Position, ReadError, Refusal, Retry, Store, TransactError, Tx,
    ViewName,
};
use serde::{Deserialize, Serialize};

use super::control::{Control, Generation, Mode, consumer_name, records, view_name};
use super::error::ProjectionError;
use super::model::Projection;

/// The view that holds, for each generation, a position it has applied and the chain's hash there.
pub(super) const PROOFS: &str = "mainstay.positions";

/// A position that was applied. The hash tells later whether the feed still has the same history there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proof {
    pub(super) at: Position,
    pub(super) hash: Hash,
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
    pub(super) at: Position,
    pub(super) which: Which,
    pub(super) generation: Generation,
    pub(super) view: ViewName,
    pub(super) consumer: ConsumerName,
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
            Which::Live => {
                check_version::<P>(&control)?;
                control.live
            }
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
        Ok(Cursor { at, which, generation, view, consumer })
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

/// Are the rows that are read made by this version of the projection?
pub(super) fn check_version<P: Projection>(control: &Control) -> Result<(), ProjectionError> {
    let (stored, ours) = (control.live.version, P::VERSION);
    if stored == ours {
        return Ok(());
    }
    Err(ProjectionError::OtherVersion { projection: P::NAME, stored, ours })
}

pub(super) fn fatal<P: Projection>(refusal: Refusal) -> Trouble {
    Trouble::Fatal(ProjectionError::Store { projection: P::NAME, refusal })
}

pub(super) fn reading<P: Projection>(error: ReadError) -> Trouble {
    match error {
        ReadError::Unavailable { passing: true, .. } => Trouble::Passing(error.to_string()),
        error => Trouble::Fatal(ProjectionError::Read { projection: P::NAME, error }),
    }
}

pub(super) fn writing<P: Projection>(error: AppendError) -> Trouble {
    match error {
        AppendError::Refused(refusal @ Refusal::ConditionFailed { .. }) => {
            Trouble::Stale(refusal.to_string())
        }
        AppendError::Refused(refusal) if refusal.retry() == Retry::Never => fatal::<P>(refusal),
        error => Trouble::Passing(error.to_string()),
    }
}
