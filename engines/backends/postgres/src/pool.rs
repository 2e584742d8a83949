//! Connections that are used by turns.
//!
//! sqlx has a pool too. It asks the server after every use whether the connection is still good, which costs each batch and
//! each read one more round trip; and where a network swallows everything, it waits for that answer as long as the kernel
//! does, with the place kept (docs/decisions/0020). Here what was used to its end is as good as it was, and what was not is
//! closed without another word.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::connect::{Way, prepare};
use crate::error::{Kind, kind};
use crate::limit::within;
use crate::options::Options;

/// A connection that nobody has used for so long is closed: what keeps state between us and the server may have forgotten
/// it.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// A connection is not used longer than this: the server's process keeps what it has learnt of every table.
const LIFE_MAX: Duration = Duration::from_secs(30 * 60);

/// For saying goodbye to all of them.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// The server has the same limit and is faster: this much later it is the network that says nothing.
const SLACK: Duration = Duration::from_secs(1);

/// Connections of one kind of use. None is made before it is needed. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connect: PgConnectOptions,
    way: Way,
    connect_limit: Duration,
    answer_limit: Duration,
    lock_limit: Duration,
    places: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The last one used is the next one used.
    connections: Vec<Rested>,
    /// Raised when one of them was found lost: the others were made before that.
    generation: u64,
    closed: bool,
}

#[derive(Debug)]
struct Rested {
    conn: PgConnection,
    made: Instant,
    since: Instant,
}

/// A connection that is being used. One that is dropped is closed, since nobody knows what is still to come on it; one that
/// is kept is used again.
#[derive(Debug)]
pub(crate) struct Held {
    conn: PgConnection,
    made: Instant,
    generation: u64,
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
}

impl std::ops::Deref for Held {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.conn
    }
}

impl std::ops::DerefMut for Held {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.conn
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// At most so many.
    pub(crate) fn new(connect: &PgConnectOptions, options: &Options, size: usize) -> Self {
        let shared = Shared {
            connect: connect.clone(),
            way: Way { pooled: options.pooled },
            connect_limit: options.connect_limit,
            // A lock may be waited for as long as that; the answer comes after it.
            answer_limit: options.answer_limit.max(options.busy),
            lock_limit: options.busy,
            places: Arc::new(Semaphore::new(size)),
            idle: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// One that rests, or else a new one.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolTimedOut`] when no place was free in time, [`sqlx::Error::PoolClosed`], and what connecting says.
    pub(crate) async fn acquire(&self) -> sqlx::Result<Held> {
        let shared = &self.shared;
        let place = Arc::clone(&shared.places).acquire_owned();
        let place = tokio::time::timeout(shared.connect_limit, place).await;
        let place = place.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let now = Instant::now();
        let (rested, generation) = {
            let mut idle = shared.idle();
            if idle.closed {
                return Err(sqlx::Error::PoolClosed);
            }
            idle.connections.retain(|rested| {
                now.saturating_duration_since(rested.since) < IDLE_MAX
                    && now.saturating_duration_since(rested.made) < LIFE_MAX
            });
            (idle.connections.pop(), idle.generation)
        };
        let (conn, made) = match rested {
            Some(rested) => (rested.conn, rested.made),
            None => (within(shared.connect_limit, self.connected()).await?, Instant::now()),
        };
        Ok(Held { conn, made, generation, shared: Arc::clone(shared), _place: place })
    }

    async fn connected(&self) -> sqlx::Result<PgConnection> {
        let shared = &self.shared;
        let mut conn = PgConnection::connect_with(&shared.connect).await?;
        if !shared.way.pooled {
            prepare(&mut conn, shared.answer_limit, shared.lock_limit).await?;
        }
        Ok(conn)
    }

    /// How long what is asked on one of them may take, all in all: longer than the server itself lets it.
    pub(crate) fn answer_limit(&self) -> Duration {
        self.shared.answer_limit + SLACK
    }

    /// No more are given out. Those that rest are told goodbye, those in use are closed when they come back.
    pub(crate) async fn close(&self) {
        self.shared.places.close();
        let rested = {
            let mut idle = self.shared.idle();
            idle.closed = true;
            std::mem::take(&mut idle.connections)
        };
        let goodbye = async {
            for Rested { conn, .. } in rested {
                // A server that is gone needs none.
                let _ = conn.close().await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
    }
}

impl Held {
    /// Everything asked on it was answered, and it is in no transaction: the next one may use it.
    pub(crate) fn keep(self) {
        let Held { conn, made, generation, shared, _place } = self;
        let mut idle = shared.idle();
        if !idle.closed && idle.generation == generation {
            idle.connections.push(Rested { conn, made, since: Instant::now() });
        }
        // The place is free when the connection is there for the next one.
    }

    /// After an error: closes it, or keeps it when the server answered. Where it is lost, those that rest were made before
    /// that, and are probably lost like it: they are not used again.
    pub(crate) fn failed(self, error: &sqlx::Error) {
        if kind(error) != Kind::Lost {
            // Behind a pooler it stands in a transaction that has failed.
            let is_answer = error.as_database_error().is_some() && !self.shared.way.explicit();
            return if is_answer { self.keep() } else { drop(self) };
        }
        let rested = {
            let mut idle = self.shared.idle();
            // Not again for each of those that were lost together.
            if idle.generation == self.generation {
                idle.generation += 1;
                std::mem::take(&mut idle.connections)
            } else {
                Vec::new()
            }
        };
        drop(rested);
    }
}

/// Asks something on a connection of a pool, within the pool's limit, in a transaction where a pooler needs one. A macro, as
/// the store's `reading!`.
macro_rules! asking {
    ($pool:expr, $place:expr, |$conn:ident| $call:expr) => {{
        match $pool.acquire().await {
            Err(error) => Err(error),
            Ok(mut held) => {
                let explicit = $place.way.explicit();
                let conn: &mut sqlx::PgConnection = &mut held;
                let asked = async {
                    if explicit {
                        sqlx::raw_sql("begin read only").execute(&mut *conn).await?;
                    }
                    let $conn: &mut sqlx::PgConnection = &mut *conn;
                    let value = $call.await?;
                    if explicit {
                        sqlx::raw_sql("commit").execute(&mut *conn).await?;
                    }
                    Ok(value)
                };
                match $crate::limit::within($pool.answer_limit(), asked).await {
                    Ok(value) => {
                        held.keep();
                        Ok(value)
                    }
                    Err(error) => {
                        held.failed(&error);
                        Err(error)
                    }
                }
            }
        }
    }};
}
pub(crate) use asking;
