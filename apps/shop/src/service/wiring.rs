//! What a service is given, and why it could not run.

use std::fmt;
use std::sync::Arc;

use mainstay::Context;
use mainstay::flow::inbox::{BadFollower, FollowError};
use mainstay::flow::outbox::RelayError;
use mainstay::flow::saga::BadParticipant;
use mainstay::store::BadName;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinError;

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
