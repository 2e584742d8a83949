//! The wiring of one service, in one visible order: relay, followers, routes; and back again when it ends.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mainstay::Context;
use mainstay::flow::inbox::{BadFollower, FollowError, Follower, forget_expired};
use mainstay::flow::outbox::{Relay, RelayError};
use mainstay::flow::saga::{BadParticipant, Failure, Incoming, Participant, Reactor};
use mainstay::flow::work::Work;
use mainstay::messaging::Log;
use mainstay::store::{BadName, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::app::App;
use super::edge::receive;
use crate::http::limits::Limits;
use crate::http::server::{self, stopped};

/// How often it is looked for recorded answers that nobody may ask for any more, and how long it rests between two
/// slices while there are some: so little that no request notices.
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_PAUSE: Duration = Duration::from_millis(100);

/// What a service is made of. Whoever opens files and sockets makes one; nothing in this crate does.
pub struct Wiring<S, L> {
    /// The service's own store.
    pub store: S,
    /// The log in which it publishes; nobody else writes to it.
    pub log: L,
    /// The logs of those that it follows.
    pub follows: Vec<Follow<L>>,
    /// Where it answers.
    pub listener: TcpListener,
    /// The process's clock and chance.
    pub cx: Context,
    /// Turns true when the service is to end.
    pub stop: watch::Receiver<bool>,
    /// What clients may send.
    pub limits: Limits,
    /// Begin with something on the shelves and on an account, where there is nothing yet?
    pub seed_demo: bool,
    /// Hears of what operators have to know: a line for each trouble, none for a request.
    pub tell: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Somebody whose log is followed.
#[derive(Debug, Clone)]
pub struct Follow<L> {
    /// The participant's name.
    pub name: String,
    /// Its log, to be read only.
    pub log: L,
}

impl<S, L> Wiring<S, L> {
    /// With the usual limits, nothing to begin with, and nobody who is told.
    pub fn new(store: S, log: L, listener: TcpListener, cx: Context, stop: watch::Receiver<bool>) -> Self {
        let (follows, limits, tell) = (Vec::new(), Limits::default(), Arc::new(|_: &str| {}));
        Self { store, log, follows, listener, cx, stop, limits, seed_demo: false, tell }
    }

    /// Also follows this participant's log.
    #[must_use]
    pub fn follow(mut self, name: &str, log: L) -> Self {
        self.follows.push(Follow { name: name.to_owned(), log });
        self
    }
}

impl<S: fmt::Debug, L: fmt::Debug> fmt::Debug for Wiring<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Wiring");
        shown.field("store", &self.store).field("log", &self.log).field("follows", &self.follows);
        shown.finish_non_exhaustive()
    }
}

/// Why a service could not start, or ended without being told to. Nothing that it acknowledged is lost; started
/// again, it goes on where it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Its declaration can't be used.
    #[error(transparent)]
    Participant(#[from] BadParticipant),
    /// A name is not usable.
    #[error(transparent)]
    Name(#[from] BadName),
    /// One that it has to follow can't be followed.
    #[error(transparent)]
    Follower(#[from] BadFollower),
    /// It declares to follow somebody whose log it was not given.
    #[error("the service follows {0}, and was not given its log; nothing was started; add it to the wiring")]
    NoLog(String),
    /// What a demonstration begins with could not be written.
    #[error("the demonstration's beginning could not be written: {0}; nothing was started")]
    Seed(String),
    /// The relay stopped.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A follower stopped.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A part of it panicked.
    #[error("a part of the service failed: {0}; see its log")]
    Part(#[from] JoinError),
}

/// Runs a service until it is told to stop:
///
/// ```text
/// start:  relay ─► followers ─► listener (ready)
/// stop:   listener closes, open requests end ─► followers stop ─► relay stops
/// ```
/// So whatever a request or a fact made happen before the end is published by this process as far as time allows,
/// and otherwise by the next one.
///
/// `background` is work of the service's own that runs beside, as long as the followers do.
pub async fn serve<S, L, R, B>(
    wiring: Wiring<S, L>,
    app: Arc<App<S>>,
    routes: Router,
    reactor: R,
    background: B,
) -> Result<(), ServeError>
where
    S: Store,
    L: Log,
    R: Reactor<S>,
    B: Future<Output = ()> + Send + 'static,
{
    let Wiring { store, log, follows, listener, cx, stop, limits, tell, seed_demo: _ } = wiring;
    let reactor = Arc::new(Counted { reactor, app: Arc::clone(&app) });
    for name in reactor.participant().follows().keys() {
        if !follows.iter().any(|follow| follow.name == **name) {
            return Err(ServeError::NoLog((*name).to_owned()));
        }
    }
    let (end_relay, relay_ends) = watch::channel(false);
    let (end_followers, followers_end) = watch::channel(false);

    let mut parts = JoinSet::new();
    let relay = Relay::new(store.clone(), log).on_trouble(told(&tell));
    parts.spawn({
        let (cx, mut ends) = (cx.clone(), relay_ends);
        async move { Ok(relay.run(&cx, async move { stopped(&mut ends).await }).await?) }
    });
    let mut followers = JoinSet::new();
    for Follow { name, log } in follows {
        let follower = Follower::new(store.clone(), log, &name, Arc::clone(&reactor))?
            .followed(app.followed())
            .on_trouble(told(&tell));
        let (cx, mut ends) = (cx.clone(), followers_end.clone());
        followers.spawn(async move { Ok(follower.run(&cx, async move { stopped(&mut ends).await }).await?) });
    }
    followers.spawn({
        let mut ends = followers_end;
        async move {
            tokio::select! {
                () = background => {}
                () = stopped(&mut ends) => {}
            }
            Ok(())
        }
    });

    followers.spawn({
        let (store, cx, tell) = (store.clone(), cx.clone(), Arc::clone(&tell));
        let mut ends = end_followers.subscribe();
        async move {
            tokio::select! {
                () = forget(&store, &cx, &tell) => {}
                () = stopped(&mut ends) => {}
            }
            Ok(())
        }
    });

    app.is_started();
    let served = server::serve(listener, limits, stop, {
        let app = Arc::clone(&app);
        move |request| receive(Arc::clone(&app), routes.clone(), request)
    });
    let ended = tokio::select! {
        () = served => Ok(()),
        // None of the parts ends by itself unless something is wrong: then the service ends with it.
        ended = first(&mut parts) => ended,
        ended = first(&mut followers) => ended,
    };
    let _ = end_followers.send(true);
    let ended = ended.and(all(&mut followers, limits.drain_time).await);
    let _ = end_relay.send(true);
    ended.and(all(&mut parts, limits.drain_time).await)
}

/// Removes answers whose retention is over, some at a time, without end.
async fn forget<S: Store>(store: &S, cx: &Context, tell: &Arc<dyn Fn(&str) + Send + Sync>) {
    loop {
        let pause = match forget_expired(store, cx).await {
            Ok(true) => FORGET_PAUSE,
            Ok(false) => FORGET_EVERY,
            Err(error) => {
                tell(&format!("recorded answers are not cleared: {error}; it is tried again"));
                FORGET_EVERY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn told(tell: &Arc<dyn Fn(&str) + Send + Sync>) -> impl Fn(&str) + Send + Sync + 'static {
    let tell = Arc::clone(tell);
    move |line| tell(line)
}

async fn first(parts: &mut JoinSet<Result<(), ServeError>>) -> Result<(), ServeError> {
    match parts.join_next().await {
        Some(ended) => ended?,
        None => std::future::pending().await,
    }
}

/// Waits until all have ended, at most so long; then they are cut off, which each of them survives.
async fn all(parts: &mut JoinSet<Result<(), ServeError>>, at_most: Duration) -> Result<(), ServeError> {
    let mut ended = Ok(());
    let _ = tokio::time::timeout(at_most, async {
        while let Some(part) = parts.join_next().await {
            ended = std::mem::replace(&mut ended, Ok(()))
                .and(part.map_err(ServeError::from).and_then(|part| part));
        }
    })
    .await;
    parts.shutdown().await;
    ended
}

/// Counts what the reactor handles.
struct Counted<S: Store, R> {
    reactor: R,
    app: Arc<App<S>>,
}

impl<S: Store, R: Reactor<S>> Reactor<S> for Counted<S, R> {
    fn participant(&self) -> Participant {
        self.reactor.participant()
    }

    fn react(&self, work: &Work<'_, S>, message: &Incoming<'_>) -> Result<(), Failure> {
        self.reactor.react(work, message)?;
        self.app.stats().reaction();
        Ok(())
    }
}
