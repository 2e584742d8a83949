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
use std::time::Duration;

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

/// How long after the last batch went out the next one is sent beside it, when it is not full before. Some times what a
/// batch takes on a server nearby; on a network with a longer way the batches follow each other so closely.
const PATIENCE: Duration = Duration::from_millis(8);

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
    /// What waits is more than the batch that went out last had room for.
    full: bool,
    /// No lane will ever take another job.
    closed: Option<Refusal>,
}

impl Waiting {
    /// Whether what waits goes out now: beside others only where it fills a batch, or the last of them is under way for long.
    fn next(&self, batch_acts: usize, now: Instant) -> Turn {
        match self.under_way.iter().max().map(|since| *since + PATIENCE) {
            Some(at) if !self.jobs.is_empty() && !self.full && self.jobs.len() < batch_acts && now < at => {
                Turn::Later(at)
            }
            _ => Turn::Now,
        }
    }

    /// Whether a lane is to be woken for a job that came: not where one looks soon anyway, behind a batch under way.
    fn wants_a_look(&self, batch_acts: usize) -> bool {
        self.timers == 0 || self.under_way.is_empty() || self.jobs.len() >= batch_acts
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Now,
    Later(Instant),
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
        patience: Duration,
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
            waiting.wants_a_look(self.batch_acts)
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

#[cfg(test)]
mod tests {
    use mainstay_event_store::{EventType, Expected, NewEvent, Payload};

    use super::*;

    fn job() -> Job {
        let cx = Context::system();
        let event = NewEvent::new(cx.new_id(), EventType::new("Happened").unwrap(), Payload::plain(*b"{}"));
        let act = Act::append(StreamName::new("s").unwrap(), Expected::Any, vec![event]);
        let act = Prepared::new(act, Author::of(&cx).unwrap()).unwrap();
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Job { act, cx, reply: oneshot::channel().0, _place: place }
    }

    #[test]
    fn what_waits_goes_out_beside_others_when_it_fills_a_batch_or_they_take_long() {
        const FULL: usize = 3;
        let begun = Instant::now();
        let after = |millis| begun + Duration::from_millis(millis);
        let later = Turn::Later(after(8));
        // jobs, under way since, more than there was room for, now; then
        let table: [(usize, &[u64], bool, u64, &Turn); 8] = [
            // Alone at once.
            (1, &[], false, 0, &Turn::Now),
            // Behind a batch under way, until it has taken long.
            (1, &[0], false, 1, &later),
            (1, &[0], false, 8, &Turn::Now),
            // The last to go out counts, and one that is stuck holds nobody up.
            (2, &[0, 4], false, 9, &Turn::Later(after(12))),
            // A full batch waits for nobody, by number or otherwise.
            (FULL, &[0], false, 1, &Turn::Now),
            (1, &[0], true, 1, &Turn::Now),
            // With nothing there, a lane waits to be woken and not for a time.
            (0, &[0], false, 1, &Turn::Now),
            (0, &[], false, 1, &Turn::Now),
        ];
        for (row, (jobs, under_way, full, now, then)) in table.into_iter().enumerate() {
            let waiting = Waiting {
                jobs: (0..jobs).map(|_| job()).collect(),
                under_way: under_way.iter().map(|millis| after(*millis)).collect(),
                full,
                ..Waiting::default()
            };
            assert_eq!(waiting.next(FULL, after(now)), *then, "row {row}");
        }
    }

    #[test]
    fn a_lane_is_woken_for_a_job_unless_one_will_look_soon_behind_a_batch_under_way() {
        let begun = Instant::now();
        for (timers, under_way, jobs, woken) in [
            (0, vec![], 1, true),
            (0, vec![begun], 1, true),
            (1, vec![begun], 1, false),
            // The batch that the timer was set for is done.
            (1, vec![], 1, true),
            (1, vec![begun], 3, true),
        ] {
            let jobs = (0..jobs).map(|_| job()).collect();
            let waiting = Waiting { jobs, under_way, timers, ..Waiting::default() };
            assert_eq!(waiting.wants_a_look(3), woken, "{timers} timers, {} jobs", waiting.jobs.len());
        }
    }
}
