//! Rebuild: the rows anew from the whole feed, beside the old ones, while both sides go on working.
//!
//! ```text
//! begin ─► fill the next generation to the end of the feed ─► switch (one row) ─► clear the old one in slices
//! ```
//! Each step is recorded; after a crash the next call goes on where it was.

use mainstay_envelope::{Context, Timestamp};
use mainstay_event_store::{Condition, Position, Refusal, Store, Tx};

use super::control::{Generation, Mode, consumer_name};
use super::error::ProjectionError;
use super::model::Projection;
use super::pipe::{Trouble, Which, reading};
use super::projector::Projector;
use crate::event::query;
use crate::pace::Pace;

/// Rows removed in one transaction.
const SLICE: usize = 1_000;
/// How often an inline projection's switch is tried while commands go on, before they are held up.
const FREE_TRIES: u32 = 3;
/// How long inline commands are held up at most, so that the last events can be applied: less than a command's
/// own retries last.
const PAUSE_MS: i64 = 250;

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of the generation being filled.
    pub generation: u64,
    /// Up to where the feed is in it.
    pub at: Position,
    /// The end of the feed.
    pub head: Position,
}

/// A rebuild that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebuilt {
    /// The number of the generation that is read now.
    pub generation: u64,
    /// Up to where the feed was in it when readers went over to it.
    pub at: Position,
}

/// How an attempt to switch ended.
enum Switched {
    Done,
    /// The rows are not as far yet as those that are read (whose checkpoint this is), or as the feed.
    Behind(Option<Position>),
    Overtaken,
}

impl<P: Projection, Source: Store, Target: Store> Projector<P, Source, Target> {
    /// Makes the rows anew from the whole feed, beside the ones that are read; then readers go over to them at
    /// once, and the old ones are removed in slices of 1,000 rows.
    ///
    /// Projectors and commands go on meanwhile. Readers never see a half-filled generation, and never go back
    /// behind what they were shown. Called again after a crash, it goes on where it was; with another
    /// [`Projection::VERSION`] it drops what was half filled and begins anew. It takes as long as applying the
    /// whole feed does, and for that time the space of both generations.
    ///
    /// What a projection does outside its view (it should do nothing) would be done again.
    pub async fn rebuild(
        &self,
        cx: &Context,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Rebuilt, ProjectionError> {
        if self.mode == Mode::Inline && self.pipe.source.id() != self.pipe.target.id() {
            return Err(ProjectionError::InlineElsewhere { projection: P::NAME });
        }
        let generation = self.persist(cx, async || self.begin(cx).await).await?;
        self.clear_all(cx).await?;
        let (mut tries, mut lost) = (0, None);
        loop {
            if self.mode == Mode::Inline && tries >= FREE_TRIES {
                self.persist(cx, async || self.hold(cx).await).await?;
            }
            let mut report = |at, head| progress(Progress { generation: generation.number, at, head });
            let at = self.fill(cx, Which::Filling(generation), Position(u64::MAX), &mut report).await?;
            tries += 1;
            match self.persist(cx, async || self.switch(cx, generation, at, lost).await).await? {
                Switched::Done => {
                    self.bell.send_replace(());
                    self.clear_all(cx).await?;
                    return Ok(Rebuilt { generation: generation.number, at });
                }
                Switched::Behind(live) => lost = self.persist(cx, async || self.is_lost(live).await).await?,
                Switched::Overtaken => return Err(ProjectionError::Overtaken { projection: P::NAME }),
            }
        }
    }

    async fn begin(&self, cx: &Context) -> Result<Generation, Trouble> {
        self.pipe.control(cx, self.mode).await?;
        self.pipe
            .change(cx, |tx, stored| {
                let mut control = stored.ok_or_else(vanished::<P>)?;
                let generation = control.begin(P::VERSION);
                control.write(tx, P::NAME).map(|()| generation)
            })
            .await
    }

    /// Holds inline commands up for a moment, so that what is left of the feed can be applied. Only a chance:
    /// whether nothing is missing is decided by the switch.
    async fn hold(&self, cx: &Context) -> Result<(), Trouble> {
        self.pipe
            .change(cx, |tx, stored| {
                let mut control = stored.ok_or_else(vanished::<P>)?;
                let until = tx.at().as_millis().saturating_add(PAUSE_MS);
                control.paused_until = Some(Timestamp::from_millis(until));
                control.write(tx, P::NAME)
            })
            .await
    }

    /// The checkpoint again, when the feed ends before it: what those rows show was lost in a restore. The feed
    /// is asked after the checkpoint was read, and never shrinks otherwise.
    async fn is_lost(&self, checkpoint: Option<Position>) -> Result<Option<Position>, Trouble> {
        let head = self.pipe.source.head().await.map_err(reading::<P>)?.position;
        Ok(checkpoint.filter(|checkpoint| *checkpoint > head))
    }

    async fn switch(
        &self,
        cx: &Context,
        generation: Generation,
        at: Position,
        lost: Option<Position>,
    ) -> Result<Switched, Trouble> {
        let inline = self.mode == Mode::Inline;
        let switched = self
            .pipe
            .change(cx, move |tx, stored| {
                let mut control = stored.ok_or_else(vanished::<P>)?;
                if control.live == generation {
                    return Ok(Switched::Done);
                }
                if control.filling != Some(generation) {
                    return Ok(Switched::Overtaken);
                }
                if inline {
                    // Exact, also for what is committed and has no position yet: nothing may be missing.
                    tx.require(&Condition { query: query::<P::Event>()?, after: at })?;
                } else {
                    // Readers don't go back behind what they were shown; unless the feed itself did.
                    let live = tx.checkpoint(&consumer_name(P::NAME, control.live.number)?)?;
                    let filled = tx.checkpoint(&consumer_name(P::NAME, generation.number)?)?;
                    if live > filled && live != lost {
                        return Ok(Switched::Behind(live));
                    }
                }
                control.switch(generation);
                control.write(tx, P::NAME).map(|()| Switched::Done)
            })
            .await;
        match switched {
            Err(Trouble::Stale(_)) => Ok(Switched::Behind(None)),
            switched => switched,
        }
    }

    /// Removes what no reader can reach any more, also what an interrupted rebuild left.
    async fn clear_all(&self, cx: &Context) -> Result<(), ProjectionError> {
        let control = self.persist(cx, async || self.pipe.control(cx, self.mode).await).await?;
        for number in control.clearing {
            self.persist(cx, async || self.pipe.clear(cx, number, SLICE).await).await?;
        }
        Ok(())
    }

    /// Repeats a step until it succeeds or will not. Every step here may be repeated: it looks first.
    async fn persist<T>(
        &self,
        cx: &Context,
        step: impl AsyncFn() -> Result<T, Trouble>,
    ) -> Result<T, ProjectionError> {
        let mut pace = Pace::new(cx, self.settings);
        loop {
            match step().await {
                Ok(value) => return Ok(value),
                Err(trouble) => self.wait_out(cx, &mut pace, trouble).await?,
            }
        }
    }
}

fn vanished<P: Projection>() -> Refusal {
    Refusal::Invalid { what: "projection record", why: format!("the record of {} has vanished", P::NAME) }
}
