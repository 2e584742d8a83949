//! [`Follower`]: a participant follows another one's log.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mainstay_envelope::Context;
use mainstay_event_store::Store;
use mainstay_messaging::{Log, Topic};
use mainstay_resilience::retry::{Checked, Spec};
use tokio::task::JoinSet;

use super::apply::Handler;
use super::error::{BadFollower, FollowError};
use super::followed::Followed;
use super::lane::Lane;
use super::lane_work::LaneWork;
use super::parking::rows::Views;
use super::route::Route;
use crate::saga::Reactor;
use crate::unit_of_work::Publisher;

/// Messages in one transaction: some milliseconds' work, so that the disk's flush is a small part of it and others
/// hardly wait for it.
const BATCH_MAX: usize = 256;

/// Follows one topic for one participant: every message of it is handled once, in the order of its key.
///
/// Any number of copies may run, in any number of processes on one store: they share one checkpoint, so they share
/// the work and double nothing; more copies make nothing faster.
pub struct Follower<S, L, R> {
    route: Route<S, L, R>,
    lanes: Arc<[Lane]>,
}

impl<S: Clone, L: Clone, R> Clone for Follower<S, L, R> {
    fn clone(&self) -> Self {
        Self { route: self.route.clone(), lanes: Arc::clone(&self.lanes) }
    }
}

impl<S: fmt::Debug, L: fmt::Debug, R> fmt::Debug for Follower<S, L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Follower");
        let Route { topic, store, log, .. } = &self.route;
        shown.field("topic", topic).field("store", store).field("log", log);
        shown.finish_non_exhaustive()
    }
}

impl<S: Store, L: Log, R: Reactor<S>> Follower<S, L, R> {
    /// Follows what the participant `from` publishes to `log`, with the effects in `store`.
    ///
    /// # Errors
    /// A declaration that can't be used, or that says nothing of `from`.
    pub fn new(store: S, log: L, from: &str, reactor: Arc<R>) -> Result<Self, BadFollower> {
        let participant = reactor.participant();
        let publisher = Publisher::new(&participant)?;
        let Some(consumes) = participant.follows().remove(from) else {
            let participant = participant.name().to_owned();
            return Err(BadFollower::NoReaction { participant, topic: from.to_owned() });
        };
        let consumes = consumes.into_iter().map(str::to_owned).collect();
        let lanes = (0..log.partitions()).map(|partition| Lane::new(participant.name(), from, partition));
        let lanes = lanes.collect::<Result<_, _>>()?;
        let settings = Spec::full_jitter(Duration::from_millis(20), Duration::from_secs(5));
        // About a quarter of an hour in all: what does not pass in that time needs a person.
        let parking =
            Spec::full_jitter(Duration::from_millis(200), Duration::from_secs(120)).max_attempts(16);
        let route = Route {
            store,
            log,
            topic: Topic::new(from)?,
            handler: Handler::new(reactor, publisher, consumes),
            views: Views::new()?,
            settings: settings.max_attempts(u32::MAX).check().unwrap_or_default(),
            parking: parking.check().unwrap_or_default(),
            parked_max: 10_000,
            batch_max: BATCH_MAX,
            followed: None,
            on_trouble: Arc::new(|_| {}),
        };
        Ok(Self { route, lanes })
    }

    /// Tells here how far each producer's facts are handled, so that receipts can be waited for.
    pub fn followed(mut self, followed: &Followed) -> Self {
        for lane in &*self.lanes {
            followed.begin(&lane.topic, lane.partition);
        }
        self.route.followed = Some(followed.clone());
        self
    }

    /// How often, and after which waits, a step is tried again that failed for the store's or the log's reasons.
    /// Default: without end, full jitter from 20 ms to 5 s.
    pub fn retry(mut self, settings: Checked) -> Self {
        self.route.settings = settings;
        self
    }

    /// How often, and after which waits, a parked message is tried again before it is dead: waits between half the
    /// settings' ceiling and all of it, whatever their jitter. Default: 16 tries, 200 ms to 2 minutes.
    pub fn parking_retry(mut self, settings: Checked) -> Self {
        self.route.parking = settings;
        self
    }

    /// Messages of one partition that may be parked; default 10,000. When they are so many, nothing more is
    /// handled until some are released or discarded: so much can't be a matter of single messages.
    pub fn parked_max(mut self, messages: u64) -> Self {
        self.route.parked_max = messages.max(1);
        self
    }

    /// Messages in one transaction, 1 to 256; default 256.
    pub fn batch_max(mut self, messages: usize) -> Self {
        self.route.batch_max = messages.clamp(1, BATCH_MAX);
        self
    }

    /// Tells of each failure that is waited out, each message that is parked, released or dead, and each alarm, in
    /// the operator's words.
    pub fn on_trouble(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.route.on_trouble = Arc::new(tell);
        self
    }

    /// Follows until `stop` is ready. Returns early only for what will not pass by itself.
    ///
    /// To stop in the middle of a batch is safe: it is handled whole, or not at all.
    pub async fn run(&self, cx: &Context, stop: impl Future<Output = ()> + Send) -> Result<(), FollowError> {
        let mut stop = pin!(stop);
        let mut work = pin!(self.follow(cx));
        std::future::poll_fn(|task| match stop.as_mut().poll(task) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => work.as_mut().poll(task),
        })
        .await
    }

    /// Handles everything that is in the log when this is called, with the parked messages that are due; how many
    /// messages were looked at.
    pub async fn run_until_caught_up(&self, cx: &Context) -> Result<u64, FollowError> {
        let mut looked_at = 0;
        for lane in &*self.lanes {
            looked_at += LaneWork::new(&self.route, lane).run_until_caught_up(cx).await?;
        }
        Ok(looked_at)
    }

    /// How many messages are not looked at yet, all partitions together: for metrics. (Offsets of some logs have gaps,
    /// and then it is a little more than there are.)
    pub async fn lag(&self) -> Result<u64, FollowError> {
        let mut lag = 0;
        for lane in &*self.lanes {
            lag += LaneWork::new(&self.route, lane).lag().await?;
        }
        Ok(lag)
    }

    async fn follow(&self, cx: &Context) -> Result<(), FollowError> {
        if let [lane] = &*self.lanes {
            return LaneWork::new(&self.route, lane).follow(cx).await;
        }
        let mut lanes = JoinSet::new();
        for index in 0..self.lanes.len() {
            let (follower, cx) = (self.clone(), cx.clone());
            lanes.spawn(async move {
                match follower.lanes.get(index) {
                    Some(lane) => LaneWork::new(&follower.route, lane).follow(&cx).await,
                    None => Ok(()),
                }
            });
        }
        // The first that ends takes the others with it: dropped, they are aborted.
        match lanes.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Ok(()),
            },
            None => Ok(()),
        }
    }
}
