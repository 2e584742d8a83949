//! What a service is given, and why it could not run.

use std::fmt;
use std::sync::Arc;

use mainstay::Context;
use mainstay::flow::inbox::{BadFollower, FollowError};
use mainstay::flow::outbox::RelayError;
use mainstay::flow::saga::BadParticipant;
use mainstay::resilience::Invalid;
use mainstay::store::BadName;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::http::host::LOCAL_HOSTS;
use crate::http::limits::Limits;

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
    /// Hears of what operators have to know: a line for each trouble, none for a request.
    pub tell: Arc<dyn Fn(&str) + Send + Sync>,
    /// Why it can't serve now, as far as only its maker knows (a store that can't write any more); see
    /// [`Wiring::health`].
    pub health: Health,
    /// The services that it calls, by name, with their addresses (`http://…`).
    pub callees: Vec<(String, String)>,
    /// Under which names it answers, at any port; [`LOCAL_HOSTS`] and what [`Wiring::host`] adds.
    pub hosts: Vec<String>,
}

/// Why something can't serve now; none when it can. Asked at each look at `/health/ready`: it must not block.
pub type Health = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Somebody whose log is followed.
#[derive(Debug, Clone)]
pub struct Follow<L> {
    /// The participant's name.
    pub name: String,
    /// Its log, to be read only.
    pub log: L,
}

impl<S, L> Wiring<S, L> {
    /// With the usual limits, always healthy, for this machine's own names, and with nobody who is told.
    pub fn new(store: S, log: L, listener: TcpListener, cx: Context, stop: watch::Receiver<bool>) -> Self {
        let (follows, limits, tell) = (Vec::new(), Limits::default(), Arc::new(|_: &str| {}));
        let (health, hosts) = (Arc::new(|| None), LOCAL_HOSTS.map(str::to_owned).into());
        let callees = Vec::new();
        Self { store, log, follows, listener, cx, stop, limits, tell, health, callees, hosts }
    }

    /// Also asks this whether it can serve. What it answers is shown at `/health/ready`.
    #[must_use]
    pub fn health(mut self, health: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.health = Arc::new(health);
        self
    }

    /// Also answers under this name, without a port: that of a gateway in front. Whoever adds a name vouches that
    /// it is not a stranger's ([`crate::http::host`]).
    #[must_use]
    pub fn host(mut self, name: &str) -> Self {
        self.hosts.push(name.to_owned());
        self
    }

    /// Where a service that it calls answers.
    #[must_use]
    pub fn calls(mut self, name: &str, url: &str) -> Self {
        self.callees.push((name.to_owned(), url.to_owned()));
        self
    }

    /// The address of a service that it calls.
    ///
    /// # Errors
    /// Nobody said where it answers.
    pub fn callee(&self, name: &str) -> Result<&str, ServeError> {
        let found = self.callees.iter().find(|(known, _)| known == name);
        found.map(|(_, url)| url.as_str()).ok_or_else(|| ServeError::NoCallee(name.to_owned()))
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
    /// It calls somebody whose address it was not told.
    #[error(
        "the service calls {0}, and was not told where it answers; nothing was started; add it to the wiring"
    )]
    NoCallee(String),
    /// A rule was given settings that can't mean what they say.
    #[error(transparent)]
    Rule(#[from] Invalid),
    /// The watchdog could not be started.
    #[error(
        "the system gives no thread to watch over the service: {0}; nothing was started; look at the limits of the process"
    )]
    Watchdog(std::io::Error),
    /// The watchdog was given settings that can't mean what they say.
    #[error(transparent)]
    WatchdogSettings(#[from] mainstay::runtime::watchdog::Invalid),
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
