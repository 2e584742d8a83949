//! The query side: [`Reader`], and how fresh a read has to be ([`Consistency`]).

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{Cursor, Located, Position, Receipt, Scan, ScanBy, Store, ViewName};
use tokio::sync::watch;

use super::control::{Control, Mode, consumer_name, records, view_name};
use super::error::ViewError;
use super::failure::Failure;
use super::model::Projection;
use super::view::{Found, decode_row, decode_rows};

/// How long a read waits when its context has no deadline.
const WAIT: Duration = Duration::from_secs(5);
/// A reader that hears the projector's bell looks by itself this often, should a ring get lost.
const SLOW_LOOK: Duration = Duration::from_millis(250);
/// A reader in a process of its own looks this often: nobody can wake it.
const LOOK: Duration = Duration::from_millis(20);
/// How often the rows may change generation during one read. They do it once in a rebuild.
const SWITCHES_MAX: usize = 8;

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency<'a> {
    /// What is there: perhaps not the latest, never half of a transaction.
    Eventual,
    /// At least what this receipt's act wrote. Waits for it until the context's deadline (5 s without one),
    /// then answers [`ViewError::NotYet`].
    ReadYourWrites(&'a Receipt),
}

/// Reads the rows of one projection: the query side. Cheap to clone; needs no projector in its process.
///
/// It always reads one whole generation: a rebuild that switches in the middle of a read is noticed, and the
/// read repeated.
pub struct Reader<P, Source, Target> {
    source: Source,
    target: Target,
    bell: Option<watch::Receiver<()>>,
    projection: PhantomData<fn() -> P>,
}

impl<P, Source: Clone, Target: Clone> Clone for Reader<P, Source, Target> {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            target: self.target.clone(),
            bell: self.bell.clone(),
            projection: PhantomData,
        }
    }
}

impl<P: Projection, Source: fmt::Debug, Target: fmt::Debug> fmt::Debug for Reader<P, Source, Target> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Reader");
        shown.field("projection", &P::NAME).field("target", &self.target).finish_non_exhaustive()
    }
}

impl<P: Projection, Source: Store, Target: Store> Reader<P, Source, Target> {
    /// Reads the rows in `target`; receipts are those of `source`.
    pub fn new(source: Source, target: Target) -> Self {
        Self { source, target, bell: None, projection: PhantomData }
    }

    pub(super) fn woken_by(mut self, bell: watch::Receiver<()>) -> Self {
        self.bell = Some(bell);
        self
    }

    /// The row under a key; none when there is none.
    ///
    /// # Errors
    /// [`ViewError::NotYet`] when the rows are not fresh enough in time; a receipt of another store is refused.
    pub async fn get(
        &self,
        cx: &Context,
        key: &str,
        consistency: Consistency<'_>,
    ) -> Result<Option<P::Row>, ViewError> {
        self.settle(cx, consistency).await?;
        for _ in 0..SWITCHES_MAX {
            let Some((generation, view)) = self.live().await? else { return Ok(None) };
            let bytes = self.target.view_get(&view, key).await?;
            if self.live().await?.is_some_and(|(now, _)| now == generation) {
                return Ok(bytes.map(|bytes| decode_row(&view, key, &bytes)).transpose()?);
            }
        }
        Err(ViewError::Restless { projection: P::NAME })
    }

    /// At most `rows_max` rows by key or by index, after an earlier page. Each page is of one moment; two
    /// pages may be of two.
    pub async fn scan(
        &self,
        cx: &Context,
        by: ScanBy,
        after: Option<Cursor>,
        rows_max: usize,
        consistency: Consistency<'_>,
    ) -> Result<Found<P::Row>, ViewError> {
        self.settle(cx, consistency).await?;
        for _ in 0..SWITCHES_MAX {
            let Some((generation, view)) = self.live().await? else {
                return Ok(Found { rows: Vec::new(), next: None });
            };
            let scan = Scan { view: view.clone(), by: by.clone(), after: after.clone(), rows_max };
            let rows = self.target.view_scan(&scan).await?;
            if self.live().await?.is_some_and(|(now, _)| now == generation) {
                return Ok(decode_rows(&view, rows)?);
            }
        }
        Err(ViewError::Restless { projection: P::NAME })
    }

    /// Up to where the feed is in the rows; none when the projection has never run. For an inline projection:
    /// the end of the feed.
    pub async fn position(&self) -> Result<Option<Position>, ViewError> {
        let Some(control) = self.control().await? else { return Ok(None) };
        if control.mode == Mode::Inline {
            return Ok(Some(self.target.head().await?.position));
        }
        let consumer = consumer_name(P::NAME, control.live.number)?;
        Ok(Some(self.target.checkpoint(&consumer).await?.unwrap_or(Position::START)))
    }

    /// Waits until the rows are as fresh as is asked for.
    async fn settle(&self, cx: &Context, consistency: Consistency<'_>) -> Result<(), ViewError> {
        let Consistency::ReadYourWrites(receipt) = consistency else { return Ok(()) };
        let began = cx.now();
        let ends = began + cx.remaining().unwrap_or(WAIT);
        let mut bell = self.bell.clone();
        loop {
            // Before looking: a ring between the look and the wait must not be missed.
            if let Some(bell) = &mut bell {
                bell.mark_unchanged();
            }
            let needed = match self.source.position(receipt).await? {
                Located::At(position) => Some(position),
                Located::NotYet => None,
            };
            let reached = self.position().await?;
            if needed.is_some() && reached >= needed {
                return Ok(());
            }
            let now = cx.now();
            if now >= ends {
                let waited_ms = u64::try_from(now.saturating_since(began).as_millis()).unwrap_or(u64::MAX);
                return Err(ViewError::NotYet { projection: P::NAME, needed, reached, waited_ms });
            }
            let left = ends.saturating_since(now);
            match &mut bell {
                Some(bell) => {
                    let heard = tokio::time::timeout(SLOW_LOOK.min(left), bell.changed()).await;
                    if matches!(heard, Ok(Err(_))) {
                        // The projector is gone; another process may go on with its work.
                        self.pause(LOOK.min(left)).await;
                    }
                }
                None => self.pause(LOOK.min(left)).await,
            }
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }

    async fn control(&self) -> Result<Option<Control>, ViewError> {
        let bytes = self.target.view_get(&records()?, P::NAME).await?;
        Ok(bytes.map(|bytes| Control::decode(&bytes).map_err(Failure::from)).transpose()?)
    }

    async fn live(&self) -> Result<Option<(u64, ViewName)>, ViewError> {
        match self.control().await? {
            Some(control) => {
                let number = control.live.number;
                Ok(Some((number, view_name(P::NAME, number)?)))
            }
            None => Ok(None),
        }
    }
}
