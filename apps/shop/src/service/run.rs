//! One service running, in one visible order: relay, followers, routes; and back again when it ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mainstay::Context;
use mainstay::flow::inbox::{Follower, forget_expired};
use mainstay::flow::outbox::Relay;
use mainstay::flow::saga::{Failure, Incoming, Participant, Reactor};
use mainstay::flow::unit_of_work::Work;
use mainstay::messaging::Log;
use mainstay::runtime::watchdog::{self, Watchdog};
use mainstay::store::Store;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::app::App;
use super::edge::receive;
use super::metrics;
use super::wiring::{Follow, ServeError, Wiring};
use crate::http::server::{self, stopped};

/// How often it is looked for recorded answers that nobody may ask for any more, and how long it rests between two
/// slices while there are some: so little that no request notices.
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_PAUSE: Duration = Duration::from_millis(100);

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
    let Wiring { store, log, follows, listener, cx, stop, limits, tell, .. } = wiring;
    let reactor = Arc::new(Counted { reactor, app: Arc::clone(&app) });
    for name in reactor.participant().follows().keys() {
        if !follows.iter().any(|follow| follow.name == **name) {
            return Err(ServeError::NoLog((*name).to_owned()));
        }
    }
    let watchdog = watched(&cx, &app, &tell)?;
    let (end_relay, relay_ends) = watch::channel(false);
    let (end_followers, followers_end) = watch::channel(false);

    let mut parts = JoinSet::new();
    let relay = Relay::new(store.clone(), log).on_trouble(told(&tell));
    parts.spawn(watchdog.watch("relay", {
        let (cx, mut ends) = (cx.clone(), relay_ends);
        async move { Ok(relay.run(&cx, async move { stopped(&mut ends).await }).await?) }
    }));
    let mut followers = JoinSet::new();
    for Follow { name, log } in follows {
        let follower = Follower::new(store.clone(), log, &name, Arc::clone(&reactor))?
            .followed(app.followed())
            .on_trouble(told(&tell));
        let (cx, mut ends) = (cx.clone(), followers_end.clone());
        let following = async move { Ok(follower.run(&cx, async move { stopped(&mut ends).await }).await?) };
        followers.spawn(watchdog.watch(format!("follower of {name}"), following));
    }
    followers.spawn(watchdog.watch("background", {
        let mut ends = followers_end;
        async move {
            tokio::select! {
                () = background => {}
                () = stopped(&mut ends) => {}
            }
            Ok(())
        }
    }));

    followers.spawn(watchdog.watch("forget", {
        let (store, cx, tell) = (store.clone(), cx.clone(), Arc::clone(&tell));
        let mut ends = end_followers.subscribe();
        async move {
            tokio::select! {
                () = forget(&store, &cx, &tell) => {}
                () = stopped(&mut ends) => {}
            }
            Ok(())
        }
    }));

    app.is_started();
    let served = server::serve(listener, limits, stop, &watchdog, {
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

/// Has somebody watch over the tasks of the service. Told of what blocks, as often as anything is told.
fn watched<S: Store>(
    cx: &Context,
    app: &Arc<App<S>>,
    tell: &Arc<dyn Fn(&str) + Send + Sync>,
) -> Result<Watchdog, ServeError> {
    let tell = Arc::clone(tell);
    let settings = watchdog::Spec::default().check()?;
    let watchdog = Watchdog::start(cx, settings, move |report| tell(&report.to_string()));
    let watchdog = watchdog.map_err(ServeError::Watchdog)?;
    watchdog.heartbeat("main", &Handle::current());
    let shown = watchdog.clone();
    app.metrics().add(move |text, _| metrics::watchdog(text, &shown.stats()));
    Ok(watchdog)
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
