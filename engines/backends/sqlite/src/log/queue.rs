//! Between those who append and the writer thread: bounded in bytes and in waiters.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstay_envelope::Timestamp;
use mainstay_messaging::{AppendError, Offset};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::append::Prepared;

/// Bytes that may wait for the writer: two of the largest appends.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// What a permit of the semaphore stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// Appends that may wait for a place in the queue; more are refused at once.
const WAITING_MAX: usize = 1_024;

/// The answer to an append.
pub(super) type Answer = Result<Vec<(u32, Offset)>, AppendError>;

/// What the writer is asked to do.
pub(super) enum Job {
    Append {
        prepared: Prepared,
        reply: oneshot::Sender<Answer>,
        /// Given back when the job is done.
        place: OwnedSemaphorePermit,
    },
    Prune {
        before: Timestamp,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counts one waiter for as long as it lives.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            ready: Condvar::new(),
            places: Arc::new(Semaphore::new(QUEUE_BYTES_MAX / PERMIT_BYTES)),
            waiting: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for so many bytes: at once where there is one, else after waiting in turn, but not for long.
    pub(super) async fn admit(
        &self,
        bytes: usize,
        at_most: Duration,
    ) -> Result<OwnedSemaphorePermit, AppendError> {
        let permits = (bytes / PERMIT_BYTES + 1).min(QUEUE_BYTES_MAX / PERMIT_BYTES) as u32;
        let places = Arc::clone(&self.places);
        if let Ok(place) = Arc::clone(&places).try_acquire_many_owned(permits) {
            return Ok(place);
        }
        let busy = |why: &str| AppendError::Busy { why: why.into() };
        let waiter = Waiter(&self.waiting);
        if waiter.0.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(busy("as many appends wait as may wait"));
        }
        match tokio::time::timeout(at_most, places.acquire_many_owned(permits)).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(ended()),
            Err(_) => Err(busy("its queue stayed full for as long as this append may wait")),
        }
    }

    pub(super) fn push(&self, job: Job) -> Result<(), AppendError> {
        let mut state = self.lock();
        if state.closed {
            return Err(ended());
        }
        state.jobs.push_back(job);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// No more jobs; the writer ends when it has done those that are there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// The next job. Waits for one if `wait`; none when there is none (any more).
    pub(super) fn pop(&self, wait: bool) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed || !wait {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Is it closed, and everything taken?
    pub(super) fn is_done(&self) -> bool {
        let state = self.lock();
        state.closed && state.jobs.is_empty()
    }

    /// Waits a little, or until somebody closes; true when closed and empty.
    pub(super) fn is_over(&self, after: Duration) -> bool {
        let state = self.lock();
        let waited =
            self.ready.wait_timeout_while(state, after, |state| !state.closed && state.jobs.is_empty());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.closed && state.jobs.is_empty()
    }

    /// Everything that waits now.
    pub(super) fn drain(&self) -> Vec<Job> {
        self.lock().jobs.drain(..).collect()
    }

    /// The writer has ended: nobody will be served.
    pub(super) fn end(&self) -> Vec<Job> {
        self.places.close();
        let mut state = self.lock();
        state.closed = true;
        state.jobs.drain(..).collect()
    }
}

fn ended() -> AppendError {
    AppendError::Unavailable {
        why: "the log's writer thread has ended".into(),
        remedy: "open the log anew".into(),
        passing: false,
    }
}
