//! One lane being followed: pages of the log into batches, and parked messages in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mainstay_envelope::{Context, Monotonic, Producer};
use mainstay_event_store::{Position, Refusal, Store};
use mainstay_messaging::{Log, Offset, RECHECK};
use mainstay_resilience::retry::Checked;

use super::apply::Ready;
use super::batch::{self, Batch, Parked};
use super::error::FollowError;
use super::lane::Lane;
use super::parking::release::{RELEASE_MAX, Rules, Stopped, failed, obey, release};
use super::parking::rows::{KeyRow, Look};
use super::parking::state::Status;
use super::route::Route;
use crate::pace::Pace;
use crate::saga::{Failure, Reactor};

/// Operator's requests that are looked at in one go.
const REQUESTS_MAX: usize = 16;

/// A part of the log, made ready.
pub(super) struct Page {
    pub(super) from: u64,
    pub(super) messages: Arc<[Ready]>,
    pub(super) next: u64,
    /// Nothing followed it when it was read.
    pub(super) at_end: bool,
}

/// Where the lane is.
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) parked: Arc<Parked>,
    /// The parked key that is tried next.
    due: Option<(String, KeyRow)>,
    /// When to look for operators' requests and at the checkpoint.
    look_at: Monotonic,
    /// Messages in the next transaction.
    batch: usize,
    /// More than this the store dropped lately although no single message was at fault: they took too long.
    ceiling: usize,
    /// Letters in the next release.
    release: usize,
    ahead: Option<Page>,
    pub(super) carried: Option<Carried>,
    /// The log was read once: what retention takes from now on is missed.
    pub(super) begun: bool,
    /// Nothing followed the last page when it was read: the log says when there is more.
    drained: bool,
    /// Of each producer, its epoch and the mark up to which everything was looked at.
    pub(super) marks: HashMap<Producer, (u32, u64)>,
}

/// Messages that were read, have no effect here, and are not marked yet: see [`super::carried`].
pub(super) struct Carried {
    pub(super) messages: Vec<Ready>,
    pub(super) next: u64,
    /// Nothing followed the last of them when it was read.
    pub(super) at_end: bool,
    pub(super) since: Monotonic,
}

/// What became of a turn.
enum Turn {
    /// It is known where the lane stands: that is no progress.
    Placed,
    Worked,
    Idle,
}

/// Why a step did not succeed.
pub(super) enum Trouble {
    /// It may pass.
    Passing(String),
    /// Somebody else moved the checkpoint, or changed what is parked: read it again, at once.
    Elsewhere,
    /// It will not pass.
    Fatal(FollowError),
}

/// How a transaction ended that was not committed.
pub(super) enum Ended {
    Stopped(Stopped),
    /// The store dropped the closure for something it did, nobody knows for which message.
    Dropped(Refusal),
    Trouble(Trouble),
}

pub(super) struct LaneWork<'a, S, L, R> {
    pub(super) route: &'a Route<S, L, R>,
    pub(super) lane: &'a Lane,
}

impl<'a, S: Store, L: Log, R: Reactor<S>> LaneWork<'a, S, L, R> {
    pub(super) fn new(route: &'a Route<S, L, R>, lane: &'a Lane) -> Self {
        Self { route, lane }
    }

    pub(super) async fn follow(&self, cx: &Context) -> Result<(), FollowError> {
        let mut pace = Pace::new(cx, self.route.settings);
        let mut place = None;
        loop {
            match self.turn(cx, &mut place).await {
                Ok(Turn::Placed) => {}
                Ok(Turn::Worked) => pace = Pace::new(cx, self.route.settings),
                Ok(Turn::Idle) => self.idle(cx, &place).await,
                Err(trouble) => self.wait_out(cx, &mut pace, trouble, &mut place).await?,
            }
        }
    }

    pub(super) async fn run_until_caught_up(&self, cx: &Context) -> Result<u64, FollowError> {
        let mut pace = Pace::new(cx, self.route.settings);
        let mut place = None;
        let mut began = None;
        loop {
            match self.turn(cx, &mut place).await {
                Ok(Turn::Placed) => {}
                Ok(Turn::Worked) => pace = Pace::new(cx, self.route.settings),
                Ok(Turn::Idle) if place.as_ref().is_some_and(|place| place.carried.is_some()) => {
                    let handed = match &mut place {
                        Some(place) => self.hand_over(cx, place).await,
                        None => Ok(()),
                    };
                    if let Err(trouble) = handed {
                        self.wait_out(cx, &mut pace, trouble, &mut place).await?;
                    }
                }
                Ok(Turn::Idle) => {
                    let at = place.as_ref().map_or(0, |place: &Place| place.at);
                    return Ok(at.saturating_sub(began.unwrap_or(at)));
                }
                Err(trouble) => self.wait_out(cx, &mut pace, trouble, &mut place).await?,
            }
            began = began.or(place.as_ref().map(|place| place.at));
        }
    }

    pub(super) async fn lag(&self) -> Result<u64, FollowError> {
        let (group, topic) = self.names();
        let Route { log, store, .. } = self.route;
        let end = match log.end(&self.route.topic, self.lane.partition).await {
            Ok(end) => end.0,
            Err(why) => return Err(FollowError::Log { group, topic, why }),
        };
        match store.checkpoint(&self.lane.checkpoint).await {
            Ok(at) => Ok(end.saturating_sub(at.unwrap_or(Position::START).0)),
            Err(why) => Err(FollowError::Read { group, topic, why }),
        }
    }

    /// Does one thing that is to be done.
    async fn turn(&self, cx: &Context, place: &mut Option<Place>) -> Result<Turn, Trouble> {
        let Some(place) = place else {
            *place = Some(self.place(cx).await?);
            return Ok(Turn::Placed);
        };
        if cx.now() >= place.look_at {
            place.look_at = cx.now() + RECHECK;
            self.look(cx, place).await?;
        }
        let released = self.release_due(cx, place).await?;
        if std::mem::take(&mut place.drained) {
            return self.at_end(cx, place, released).await;
        }
        let from = place.carried.as_ref().map_or(place.at, |carried| carried.next);
        let page = match place.ahead.take().filter(|page| page.from == from) {
            Some(page) => page,
            None if from == place.at => self.read_first(cx, place).await?,
            // Whatever it is, the reading from the checkpoint says it better.
            None => self.read(from).await.map_err(|_| Trouble::Elsewhere)?,
        };
        if page.next == from {
            return self.at_end(cx, place, released).await;
        }
        let drained = page.at_end;
        if self.has_no_effect(&page) {
            self.carry(cx, place, &page).await?;
        } else {
            let page = self.with_carried(place, page);
            self.handle(cx, place, page).await?;
        }
        place.drained = drained;
        Ok(Turn::Worked)
    }

    /// Nothing is left to be read.
    async fn at_end(&self, cx: &Context, place: &mut Place, released: bool) -> Result<Turn, Trouble> {
        let due = place.carried.as_ref().is_some_and(|carried| cx.now() >= carried.since + RECHECK);
        if due {
            self.hand_over(cx, place).await?;
        }
        Ok(if released || due { Turn::Worked } else { Turn::Idle })
    }

    /// Where the lane stands, by what is on disk.
    async fn place(&self, cx: &Context) -> Result<Place, Trouble> {
        // In this order: the row is never older than the checkpoint.
        let at = self.checkpoint().await?;
        let row = self.rows().lane().await.map_err(|why| self.reading(why))?;
        let mut place = Place {
            at,
            parked: Arc::default(),
            due: None,
            look_at: cx.now(),
            batch: self.route.batch_max,
            ceiling: self.route.batch_max,
            release: RELEASE_MAX,
            ahead: None,
            carried: None,
            begun: row.begun,
            drained: false,
            marks: HashMap::new(),
        };
        self.reload(&mut place).await?;
        if let Some(last) = row.last {
            self.find_last(cx, &mut place, last).await?;
        }
        self.tell_marks(&place).await?;
        Ok(place)
    }

    async fn checkpoint(&self) -> Result<u64, Trouble> {
        let at = self.route.store.checkpoint(&self.lane.checkpoint).await;
        Ok(at.map_err(|why| self.reading(why))?.unwrap_or(Position::START).0)
    }

    /// Reads again what is parked.
    async fn reload(&self, place: &mut Place) -> Result<(), Trouble> {
        let look = self.rows();
        loop {
            let before = look.lane().await.map_err(|why| self.reading(why))?;
            let keys = look.keys().await.map_err(|why| self.reading(why))?;
            place.due = look.next_due().await.map_err(|why| self.reading(why))?;
            let after = look.lane().await.map_err(|why| self.reading(why))?;
            // The keys may have changed while they were read page by page.
            if before.generation == after.generation {
                place.parked =
                    Arc::new(Parked { generation: before.generation, keys: keys.into_iter().collect() });
                return Ok(());
            }
        }
    }

    /// Handles a page, in as many transactions as its failures make necessary.
    pub(super) async fn handle(&self, cx: &Context, place: &mut Place, page: Page) -> Result<(), Trouble> {
        let Route { handler, views, batch_max, .. } = self.route;
        let count = page.messages.len();
        let mut failed: Arc<BTreeMap<usize, Failure>> = Arc::default();
        // One that failed is tried once more by itself, after those before it: what a reactor takes for a message's
        // fault may be the batch's, which took too long.
        let mut alone = None;
        let mut dropped = false;
        let mut start = 0;
        // A page without messages moves the checkpoint all the same.
        while start < count || place.at < page.next {
            let end = match alone {
                Some(index) if index > start => index,
                Some(index) if index == start => start + 1,
                _ => count.min(start + place.batch),
            };
            let last = end == count;
            let to = match page.messages.get(end.wrapping_sub(1)) {
                Some(message) if !last => message.delivered.offset.0,
                _ => page.next,
            };
            let batch = Batch {
                from: place.at,
                to,
                messages: Arc::clone(&page.messages),
                range: start..end,
                failed: Arc::clone(&failed),
                parked: Arc::clone(&place.parked),
            };
            let rules = self.rules(cx);
            let write = self.transact(cx, batch::transaction(handler, views, self.lane, &rules, batch));
            let (written, ahead) = if last && !page.at_end {
                // The disk's flush and the reading are two machines' work.
                tokio::join!(write, async { self.read(to).await.ok() })
            } else {
                (write.await, None)
            };
            match written {
                Ok(outcome) => {
                    (place.at, place.ahead) = (to, ahead);
                    place.batch = (place.batch * 2).min(place.ceiling);
                    self.alarm(&page.messages, &outcome.altered);
                    self.tell_unnumbered(&page.messages, &outcome.unnumbered);
                    self.note_marks(place, &page, start..end);
                    if outcome.parked > 0 {
                        self.tell_parked(&page.messages, &failed, start..end);
                        self.reload(place).await?;
                    }
                    self.tell_marks(place).await?;
                    alone = alone.filter(|index| *index >= end);
                    start = end;
                }
                Err(Ended::Stopped(Stopped::At(index, failure))) => {
                    if end - start == 1 {
                        Arc::make_mut(&mut failed).insert(index, failure);
                    } else {
                        alone = Some(index);
                    }
                }
                Err(Ended::Stopped(Stopped::Stale)) => self.reload(place).await?,
                // Found by halves, since it does not say for which message it happened.
                Err(Ended::Dropped(_)) if end - start > 1 => {
                    place.batch = (end - start) / 2;
                    (place.ceiling, dropped) = (place.batch, true);
                    alone = None;
                }
                // Refused once more although it is only parked now: that is no message's doing.
                Err(Ended::Dropped(refusal)) if end > start && !failed.contains_key(&start) => {
                    // It was this message then, and not how many there were.
                    (place.ceiling, dropped) = (*batch_max, false);
                    Arc::make_mut(&mut failed).insert(start, Failure::Transient(refusal.to_string()));
                }
                Err(ended) => return Err(self.trouble(ended)),
            }
        }
        if !dropped {
            place.ceiling = (place.ceiling + place.ceiling.div_ceil(8)).min(*batch_max);
        }
        Ok(())
    }

    /// Tries the parked key that is due, if there is one.
    async fn release_due(&self, cx: &Context, place: &mut Place) -> Result<bool, Trouble> {
        let due =
            |row: &KeyRow| matches!(row.status, Status::Waiting { again_at, .. } if again_at <= cx.wall());
        let Some((key, row)) = place.due.take_if(|(_, row)| due(row)) else { return Ok(false) };
        let Route { handler, views, .. } = self.route;
        let rules = self.rules(cx);
        let mut max = place.release;
        loop {
            let work = release(handler, views, self.lane, &rules, (&key, &row), max);
            let failure = match self.transact(cx, work).await {
                Ok(left) => {
                    place.release = RELEASE_MAX;
                    if left == 0 {
                        self.tell(&format!("key {:?} of {} is released", row.key, row.topic));
                    }
                    break;
                }
                Err(Ended::Stopped(Stopped::Stale)) => break,
                Err(Ended::Stopped(Stopped::At(0, failure))) => failure,
                Err(Ended::Stopped(Stopped::At(index, _))) => {
                    max = index;
                    continue;
                }
                Err(Ended::Dropped(_)) if max > 1 => {
                    max /= 2;
                    continue;
                }
                Err(Ended::Dropped(refusal)) => Failure::Transient(refusal.to_string()),
                Err(ended) => return Err(self.trouble(ended)),
            };
            match self.transact(cx, failed::<S>(views, self.lane, &rules, (&key, &row), &failure)).await {
                Ok(status) => self.tell_failed(&row, status, &failure),
                Err(Ended::Stopped(Stopped::Stale)) => {}
                Err(ended) => return Err(self.trouble(ended)),
            }
            break;
        }
        self.reload(place).await?;
        self.tell_marks(place).await?;
        Ok(true)
    }

    /// What others did: operators, and other members of the group.
    async fn look(&self, cx: &Context, place: &mut Place) -> Result<(), Trouble> {
        if self.checkpoint().await? != place.at {
            return Err(Trouble::Elsewhere);
        }
        let look = self.rows();
        let counts = look.lane().await.map_err(|why| self.reading(why))?;
        if counts.generation == 0 {
            return Ok(());
        }
        let requests = look.requests(REQUESTS_MAX).await.map_err(|why| self.reading(why))?;
        for letter in &requests {
            let work = obey::<S>(&self.route.views, self.lane, &self.rules(cx), letter);
            match self.transact(cx, work).await {
                Ok(told) => self.tell(&told),
                Err(Ended::Stopped(Stopped::Stale)) => {}
                Err(ended) => return Err(self.trouble(ended)),
            }
        }
        if !requests.is_empty() || counts.generation != place.parked.generation {
            self.reload(place).await?;
            self.tell_marks(place).await?;
        }
        Ok(())
    }

    async fn idle(&self, cx: &Context, place: &Option<Place>) {
        let Some(place) = place else { return };
        let mut at_most = place.look_at.saturating_since(cx.now());
        if let Some((_, KeyRow { status: Status::Waiting { again_at, .. }, .. })) = &place.due {
            let left = again_at.as_millis().saturating_sub(cx.wall().as_millis());
            at_most = at_most.min(Duration::from_millis(u64::try_from(left).unwrap_or(0)));
        }
        let mut at = place.at;
        if let Some(carried) = &place.carried {
            at = carried.next;
            at_most = at_most.min((carried.since + RECHECK).saturating_since(cx.now()));
        }
        self.route.log.wait_past(&self.route.topic, self.lane.partition, Offset(at), at_most).await;
    }

    fn rules(&self, cx: &Context) -> Rules {
        let settings: Checked = self.route.parking;
        Rules { settings, parked_max: self.route.parked_max, draw: cx.next_u64() }
    }

    pub(super) fn rows(&self) -> Look<'_, S> {
        Look { store: &self.route.store, views: &self.route.views, lane: self.lane }
    }
}
