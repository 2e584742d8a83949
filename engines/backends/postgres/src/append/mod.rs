//! Plain appends: gathered into batches, several under way at once.
//!
//! ```text
//!   append ──► queue (bounded) ──► lane 1 ── one statement, one commit ──► the server
//!   append ──►                 ──► lane 2 ── when that one takes long, or a batch is full
//! ```
//! Alone an act goes out at once, and under load a commit is shared by whoever came while the one before was under way.

mod batch;
mod lane;
mod statement;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstay_envelope::Context;
use mainstay_event_store::{Act, AppendError, Appended, Author, Refusal, StreamName};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

pub(crate) use batch::Prepared;
pub(crate) use lane::{Lane, resolve};
pub(crate) use statement::{Form, Verdict, position, send};

/// Who sends an id again often sends more of them: so many batches are looked through then. A hope that is disappointed
/// costs the batch a second statement.
const WARY_BATCHES: u32 = 64;

/// One act on its way.
#[derive(Debug)]
struct Job {
    act: Prepared,
    /// For the clock, the chance and the deadline of its retries.
    cx: Context,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
    /// Its place in the queue, given back when it is answered.
    _place: OwnedSemaphorePermit,
}

/// What waits, and what is under way.
#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// The streams of batches that are under way.
    busy: HashSet<StreamName>,
    /// Since when each batch is.
    under_way: Vec<Instant>,
    /// Lanes that will look again by themselves.
    timers: usize,
    /// No lane will ever take another job.
    closed: Option<Refusal>,
}

/// The queue of one store handle.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Batches that are to be looked through for ids that are recorded already, since one was met.
    wary: AtomicU32,
    waiting: Mutex<Waiting>,
    places: Arc<Semaphore>,
    /// So many acts make a batch full.
    batch_acts: usize,
    /// A job came, or streams became free.
    changed: Notify,
}

impl Queue {
    pub(crate) fn new(places: usize, batch_acts: usize) -> Self {
        Self {
            wary: AtomicU32::new(0),
            waiting: Mutex::default(),
            places: Arc::new(Semaphore::new(places.max(1))),
            batch_acts,
            changed: Notify::new(),
        }
    }

    /// May a batch be sent in the hope that none of its ids is recorded?
    fn hopes(&self) -> bool {
        let spent = self.wary.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        spent.is_err()
    }

    /// One was.
    fn beware(&self) {
        self.wary.store(WARY_BATCHES, Ordering::Relaxed);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an act in, and waits for its end.
    pub(crate) async fn append(
        &self,
        cx: &Context,
        act: Act,
        patience: std::time::Duration,
    ) -> Result<Appended, AppendError> {
        let act = Prepared::new(act, Author::of(cx)?)?;
        let place = Arc::clone(&self.places).acquire_owned();
        let place = match tokio::time::timeout(patience, place).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(closed().into()),
            Err(_) => {
                return Err(Refusal::Busy { why: format!("no place in its queue for {patience:?}") }.into());
            }
        };
        let (reply, answer) = oneshot::channel();
        let look = {
            let mut waiting = self.waiting();
            if let Some(refusal) = &waiting.closed {
                return Err(refusal.clone().into());
            }
            waiting.jobs.push_back(Job { act, cx: cx.clone(), reply, _place: place });
            waiting.timers == 0 || waiting.jobs.len() >= self.batch_acts
        };
        if look {
            self.changed.notify_one();
        }
        answer.await.unwrap_or_else(|_| {
            Err(AppendError::Unknown { why: "the runtime ended before the answer came".into() })
        })
    }

    /// From now on everything is refused, what waits too.
    pub(crate) fn close(&self) {
        let jobs = {
            let mut waiting = self.waiting();
            waiting.closed = Some(closed());
            std::mem::take(&mut waiting.jobs)
        };
        for job in jobs {
            let _ = job.reply.send(Err(closed().into()));
        }
        self.changed.notify_waiters();
    }
}

fn closed() -> Refusal {
    Refusal::Unavailable {
        why: "the store's handle is closed".into(),
        remedy: "open the store anew".into(),
        passing: false,
    }
}
