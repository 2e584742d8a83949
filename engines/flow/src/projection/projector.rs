//! Following the feed: [`Projector`].

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::{BadName, Position, RECHECK, Store};
use mainstay_resilience::retry::{Checked, Spec};
use tokio::sync::watch;

use super::control::{Mode, view_name};
use super::error::ProjectionError;
use super::model::Projection;
use super::pipe::{Cursor, Pipe, Trouble, Which, reading};
use super::reader::Reader;
use crate::event::query;
use crate::pace::Pace;

/// Events in one transaction at most: what is decoded and held in memory at once.
const PAGE_MAX: usize = 16_000;

/// Brings a projection's rows up to the feed of `Source`, in `Target`: the same store, or one of its own, in
/// the same process or another.
///
/// Any number of copies may run, in any number of processes: they share one checkpoint, so each event is
/// applied once; more copies make nothing faster. Each target store of its own has a checkpoint of its own.
pub struct Projector<P, Source, Target> {
    pub(super) pipe: Pipe<P, Source, Target>,
    pub(super) mode: Mode,
    pub(super) settings: Checked,
    pub(super) page_max: usize,
    /// Hears of every trouble that may pass.
    on_trouble: Arc<dyn Fn(&str) + Send + Sync>,
    /// Rung after every page, for the readers of this process.
    pub(super) bell: Arc<watch::Sender<()>>,
}

impl<P, Source: Clone, Target: Clone> Clone for Projector<P, Source, Target> {
    fn clone(&self) -> Self {
        let (bell, on_trouble) = (Arc::clone(&self.bell), Arc::clone(&self.on_trouble));
        Self { pipe: self.pipe.clone(), bell, on_trouble, ..*self }
    }
}

impl<P: Projection, Source: fmt::Debug, Target: fmt::Debug> fmt::Debug for Projector<P, Source, Target> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Projector");
        shown
            .field("projection", &P::NAME)
            .field("source", &self.pipe.source)
            .field("target", &self.pipe.target);
        shown.finish_non_exhaustive()
    }
}

impl<P: Projection, Source: Store, Target: Store> Projector<P, Source, Target> {
    /// Follows the feed of `source`, with the rows in `target`. Refused when a name is not usable.
    pub fn new(source: Source, target: Target, projection: P) -> Result<Self, BadName> {
        view_name(P::NAME, u64::MAX)?;
        query::<P::Event>()?;
        let settings = Spec::full_jitter(Duration::from_millis(50), Duration::from_secs(5)).max_attempts(10);
        Ok(Self {
            pipe: Pipe { source, target, projection: Arc::new(projection) },
            mode: Mode::Asynchronous,
            settings: settings.check().unwrap_or_default(),
            page_max: PAGE_MAX,
            on_trouble: Arc::new(|_| {}),
            bell: Arc::new(watch::Sender::new(())),
        })
    }

    /// For a projection that runs inline ([`Commands::inline`](crate::Commands::inline)): it is then rebuilt
    /// and verified by this projector, and followed by nobody.
    pub fn inline(mut self) -> Self {
        self.mode = Mode::Inline;
        self
    }

    /// How often, and after which waits, a step is tried again that failed for a passing reason; counted anew
    /// after each success. Default: 10 tries, full jitter from 50 ms to 5 s. [`Projector::run`] keeps the
    /// waits and never gives up.
    pub fn retry(mut self, settings: Checked) -> Self {
        self.settings = settings;
        self
    }

    /// Tells of each failure that is waited out, in the operator's words, before the wait: without it a projector
    /// that runs and gets nowhere is silent.
    pub fn on_trouble(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_trouble = Arc::new(tell);
        self
    }

    /// Events in one transaction at most, 1 to 16,000; default 16,000. A projection that is behind takes as many as
    /// make some 25 ms of work.
    pub fn page_max(mut self, events: usize) -> Self {
        self.page_max = events.clamp(1, PAGE_MAX);
        self
    }

    /// Reads the rows; woken by this projector's pages, so that reading one's own writes waits no longer than
    /// it has to.
    pub fn reader(&self) -> Reader<P, Source, Target> {
        Reader::new(self.pipe.source.clone(), self.pipe.target.clone()).woken_by(self.bell.subscribe())
    }

    /// Applies everything that is in the feed when this is called, and returns where it came to.
    pub async fn run_until_caught_up(&self, cx: &Context) -> Result<Position, ProjectionError> {
        let mut pace = Pace::new(cx, self.settings);
        let goal = loop {
            match self.pipe.source.head().await.map_err(reading::<P>) {
                Ok(head) => break head.position,
                Err(trouble) => self.wait_out(cx, &mut pace, trouble).await?,
            }
        };
        self.fill(cx, Which::Live, goal, &mut |_, _| {}).await
    }

    /// Follows the feed until `stop` is ready. Returns early only for what will not pass by itself.
    ///
    /// To stop in the middle of a page is safe: the page is applied whole, or not at all.
    pub async fn run(
        &self,
        cx: &Context,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), ProjectionError> {
        let endless = Projector { settings: endless(self.settings), ..self.clone() };
        let mut stop = pin!(stop);
        let mut work = pin!(endless.follow(cx));
        std::future::poll_fn(|task| match stop.as_mut().poll(task) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => work.as_mut().poll(task),
        })
        .await
    }

    async fn follow(&self, cx: &Context) -> Result<(), ProjectionError> {
        loop {
            let at = self.fill(cx, Which::Live, Position(u64::MAX), &mut |_, _| {}).await?;
            self.pipe.source.wait_past(at, RECHECK).await;
        }
    }

    /// Fills a generation up to `goal`, or up to the end of the feed if that comes before; where it came to.
    pub(super) async fn fill(
        &self,
        cx: &Context,
        which: Which,
        goal: Position,
        progress: &mut (dyn FnMut(Position, Position) + Send),
    ) -> Result<Position, ProjectionError> {
        let mut pace = Pace::new(cx, self.settings);
        let mut cursor: Option<Cursor> = None;
        let mut ahead = self.pipe.ahead(self.page_max)?;
        loop {
            let stepped = match &mut cursor {
                None => self.pipe.cursor(cx, self.mode, which).await.map(|found| {
                    let done = found.at >= goal;
                    cursor = Some(found);
                    done
                }),
                Some(cursor) => self.pipe.step(cx, cursor, &mut ahead).await.map(|head| {
                    pace = Pace::new(cx, self.settings);
                    self.bell.send_replace(());
                    progress(cursor.at, head);
                    cursor.at >= goal || cursor.at >= head
                }),
            };
            match stepped {
                Ok(true) => return Ok(cursor.map_or(Position::START, |cursor| cursor.at)),
                Ok(false) => {}
                Err(trouble) => {
                    self.wait_out(cx, &mut pace, trouble).await?;
                    // Whatever it was: the checkpoint knows what was applied.
                    cursor = None;
                    ahead.forget();
                }
            }
        }
    }

    pub(super) async fn wait_out(
        &self,
        cx: &Context,
        pace: &mut Pace,
        trouble: Trouble,
    ) -> Result<(), ProjectionError> {
        match trouble {
            Trouble::Fatal(error) => Err(error),
            Trouble::Smaller => Ok(()),
            Trouble::Passing(why) | Trouble::Stale(why) => {
                (self.on_trouble)(&why);
                pace.again(cx).await.map_err(|reason| ProjectionError::GaveUp {
                    projection: P::NAME,
                    tries: pace.failures(),
                    why: format!("{why}; {reason}"),
                })
            }
        }
    }
}

fn endless(settings: Checked) -> Checked {
    settings.spec().max_attempts(u32::MAX).check().unwrap_or(settings)
}
