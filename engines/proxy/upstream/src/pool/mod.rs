//! One callee's connections: so many at a time, some of them idle.
//!
//! ```text
//!            checkout                      park (the answer was read to its end)
//!   idle ───────────────► in use ─────────────────────────────► idle
//!    │    none: connect ──►  │ dropped: cancelled, failed, too large      │
//!    └─ too old: closed      └─ closed at once                            └─ no room: the oldest is closed
//! ```
//! It is no queue: with all in use, a call is refused at once. Who waits for a connection waits in the bulkhead, where
//! the wait is bounded, counted and ends with the deadline.

mod state;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use mainstay_envelope::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::state::Idle;
use crate::connect::Connect;
use crate::error::HttpError;
use crate::spec::Spec;

/// A connection that somebody has. Dropping it closes it, whatever is under way on it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    /// Whether an earlier request went over it: then the callee may be closing it at this moment.
    pub(crate) is_reused: bool,
    driver: AbortHandle,
    /// Given back when it is closed.
    _permit: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// See the head of this module.
#[derive(Debug)]
pub(crate) struct Pool {
    to: Arc<str>,
    connect: Arc<dyn Connect>,
    clock: Arc<dyn Clock>,
    spec: Spec,
    permits: Arc<Semaphore>,
    idle: Mutex<Idle<Connection>>,
    /// Whether a task watches the idle ones grow old.
    is_swept: AtomicBool,
}

impl Pool {
    pub(crate) fn new(to: Arc<str>, connect: Arc<dyn Connect>, clock: Arc<dyn Clock>, spec: Spec) -> Self {
        Pool {
            to,
            connect,
            clock,
            permits: Arc::new(Semaphore::new(spec.connections as usize)),
            idle: Mutex::new(Idle::new(spec.idle as usize, spec.idle_time)),
            is_swept: AtomicBool::new(false),
            spec,
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle<Connection>> {
        // A list, whole at each step.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Open connections, and how many of them are idle.
    pub(crate) fn count(&self) -> (usize, usize) {
        let open = (self.spec.connections as usize).saturating_sub(self.permits.available_permits());
        (open, self.idle().len())
    }

    /// An idle connection, or none that is any good.
    pub(crate) fn idle_one(&self) -> Option<Connection> {
        let now = self.clock.now();
        loop {
            let taken = self.idle().take(now)?;
            // Its driver ends when the callee closes it.
            if !taken.sender.is_closed() {
                return Some(taken);
            }
        }
    }

    /// A new connection.
    pub(crate) async fn new_one(&self) -> Result<Connection, HttpError> {
        let to = || Arc::clone(&self.to);
        // The idle ones that are too old hold permits until they are swept.
        drop(self.old());
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err(HttpError::ConnectionsInUse { to: to(), limit: self.spec.connections });
        };
        let limit = self.spec.connect_time;
        let io = match timeout(limit, self.connect.connect()).await {
            Ok(Ok(io)) => io,
            Ok(Err(source)) => return Err(HttpError::Connect { to: to(), source }),
            Err(_) => return Err(HttpError::ConnectTimedOut { to: to(), limit }),
        };
        let mut builder = Builder::new();
        builder.max_buf_size(self.spec.head_bytes_max);
        let (sender, connection) = match builder.handshake(TokioIo::new(io)).await {
            Ok(made) => made,
            Err(source) => return Err(HttpError::Unsent { to: to(), source }),
        };
        // Its end is seen through the sender; its error goes to whoever waits for an answer.
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Connection { sender, is_reused: false, driver, _permit: permit })
    }

    /// Takes back a connection whose answer was read to its end.
    pub(crate) fn park(self: &Arc<Self>, mut connection: Connection) {
        connection.is_reused = true;
        if connection.sender.is_ready() {
            return self.keep(connection);
        }
        if connection.sender.is_closed() {
            return;
        }
        // The answer came before the driver was done with the request, which may be never.
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(Ok(())) = timeout(pool.spec.connect_time, connection.sender.ready()).await {
                pool.keep(connection);
            }
        });
    }

    fn keep(self: &Arc<Self>, connection: Connection) {
        // Closed outside the lock.
        let pushed_out = self.idle().put(self.clock.now(), connection);
        drop(pushed_out);
        if !self.is_swept.swap(true, Ordering::AcqRel) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn old(&self) -> Vec<Connection> {
        self.idle().old(self.clock.now())
    }
}

/// Closes idle connections when they are too old, until there are none or the pool is gone.
async fn sweep(pool: Weak<Pool>) {
    loop {
        let wait = {
            let Some(pool) = pool.upgrade() else { return };
            drop(pool.old());
            let next = pool.idle().next_old(pool.clock.now());
            match next {
                Some(wait) => wait,
                None => {
                    pool.is_swept.store(false, Ordering::Release);
                    // One that was put down before the flag was would be watched by nobody.
                    if pool.idle().len() == 0 || pool.is_swept.swap(true, Ordering::AcqRel) {
                        return;
                    }
                    continue;
                }
            }
        };
        // A clock that stands still must not make this spin.
        tokio::time::sleep(wait.max(std::time::Duration::from_millis(10))).await;
    }
}
