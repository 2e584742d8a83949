//! Threads of one callee's own, for calls that block: a hung one holds its thread and nobody else's.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mainstay_envelope::Deadline;
use tokio::sync::oneshot;

use super::spec::{BlockingChecked, BlockingSpec};
use crate::refusal::{Refusal, Rule, Why};
use crate::scope::Scope;

/// A bounded pool of threads with a bounded queue. A clone is another handle on the same; with the last handle the
/// pool is shut down: what waits is not begun, what runs is not waited for.
#[derive(Clone)]
pub struct BlockingPool(Arc<Handle>);

/// Shuts down on drop; the threads hold [`Shared`], not this.
struct Handle(Arc<Shared>);

struct Shared {
    settings: BlockingSpec,
    line: Mutex<Line>,
    /// Somebody put work into the line, or shut the pool down.
    work: Condvar,
    scope: Arc<Scope>,
}

#[derive(Default)]
struct Line {
    jobs: VecDeque<Job>,
    threads: u32,
    /// Threads that run something.
    busy: u32,
    is_closed: bool,
}

/// Gives whoever waits the answer.
type Tell = Box<dyn FnOnce() + Send>;

struct Job {
    stage: Arc<Stage>,
    deadline: Option<Deadline>,
    /// Does the work, unless it is refused; the answer is kept until it is told.
    run: Box<dyn FnOnce(Option<Why>) -> Tell + Send>,
}

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockingLoad {
    /// Threads that were started.
    pub threads: u32,
    /// Threads that run something.
    pub busy: u32,
    /// Work that waits.
    pub waiting: u32,
}

/// Where a piece of work stands: it is begun, or given up, never both.
#[derive(Debug, Default)]
struct Stage(AtomicU8);

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Stage {
    fn leave_waiting(&self, next: u8) -> bool {
        self.0.compare_exchange(WAITING, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl BlockingPool {
    /// A pool without threads yet. They are named after the policy.
    pub fn new(settings: BlockingChecked, scope: Arc<Scope>) -> Self {
        let shared =
            Shared { settings: *settings.spec(), line: Mutex::default(), work: Condvar::new(), scope };
        BlockingPool(Arc::new(Handle(Arc::new(shared))))
    }

    /// Runs `work` on a thread of this pool and waits for it, at most until `deadline`.
    ///
    /// Dropping the future gives up what has not begun and frees its place; what has begun runs to its end, on its
    /// thread, for nobody.
    ///
    /// # Errors
    /// Refused: every thread is busy and the queue is full; the deadline came first; the work panicked (its thread
    /// goes on); the pool is shut down.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Option<Deadline>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let shared = &self.0.0;
        let refuse = |why| shared.scope.refuse_unrecorded(Rule::Bulkhead, why);
        let remaining = deadline.map(|deadline| deadline.remaining(shared.scope.now()));
        if remaining.is_some_and(|remaining| remaining.is_zero()) {
            return Err(refuse(Why::DeadlineReached));
        }
        let (sender, receiver) = oneshot::channel();
        let run = move |refused: Option<Why>| {
            let result = match refused {
                Some(why) => Err(why),
                // Whatever the panic left half-done is the work's own; nothing of ours is in there.
                None => catch_unwind(AssertUnwindSafe(work)).map_err(|_| Why::WorkPanicked),
            };
            // Nobody may be waiting any more, and that is all right.
            let tell: Tell = Box::new(move || drop(sender.send(result)));
            tell
        };
        let stage = Arc::new(Stage::default());
        shared.submit(Job { stage: Arc::clone(&stage), deadline, run: Box::new(run) }).map_err(refuse)?;
        let place = Place { shared, stage: &stage };
        let answer = pin!(receiver);
        let Some(remaining) = remaining else { return place.answer(answer.await).map_err(refuse) };
        match tokio::time::timeout(remaining, answer).await {
            Ok(answer) => place.answer(answer).map_err(refuse),
            Err(_) => Err(refuse(match place.give_up() {
                true => Why::DeadlineReached,
                false => Why::DeadlineRanOut,
            })),
        }
    }

    /// How full it is.
    pub fn load(&self) -> BlockingLoad {
        let line = self.0.0.line();
        let waiting = u32::try_from(line.jobs.len()).unwrap_or(u32::MAX);
        BlockingLoad { threads: line.threads, busy: line.busy, waiting }
    }
}

/// A piece of work somebody waits for. Dropped, it is given up if it has not begun.
struct Place<'a> {
    shared: &'a Shared,
    stage: &'a Arc<Stage>,
}

impl Place<'_> {
    fn answer<T>(&self, answer: Result<Result<T, Why>, oneshot::error::RecvError>) -> Result<T, Why> {
        // The sender is dropped unused only with the line it stood in.
        answer.unwrap_or(Err(Why::PoolClosed))
    }

    /// Whether it had not begun, so that it never will.
    fn give_up(&self) -> bool {
        let given_up = self.stage.leave_waiting(GIVEN_UP);
        if given_up {
            let mut line = self.shared.line();
            line.jobs.retain(|job| !Arc::ptr_eq(&job.stage, self.stage));
        }
        given_up
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(self: &Arc<Self>, job: Job) -> Result<(), Why> {
        let BlockingSpec { threads, queue } = self.settings;
        let mut line = self.line();
        if line.is_closed {
            return Err(Why::PoolClosed);
        }
        let taken = u64::from(line.busy) + line.jobs.len() as u64;
        if taken >= u64::from(threads) + u64::from(queue) {
            return Err(match queue {
                0 => Why::BulkheadFull { permits: threads },
                capacity => Why::QueueFull { capacity },
            });
        }
        // One more thread only if those there are will all be at work.
        if u64::from(line.threads) <= taken && line.threads < threads {
            let shared = Arc::clone(self);
            let name = format!("mainstay-{}", self.scope.name());
            match std::thread::Builder::new().name(name).spawn(move || shared.work()) {
                Ok(_) => line.threads += 1,
                // The others will come to it.
                Err(_) if line.threads > 0 => {}
                Err(_) => return Err(Why::NoThread),
            }
        }
        line.jobs.push_back(job);
        drop(line);
        self.work.notify_one();
        Ok(())
    }

    /// A thread's life.
    fn work(&self) {
        let mut line = self.line();
        while !line.is_closed {
            let Some(job) = line.jobs.pop_front() else {
                line = self.work.wait(line).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            line.busy += 1;
            drop(line);
            let tell = job.stage.leave_waiting(BEGUN).then(|| {
                let now = self.scope.now();
                let is_over = job.deadline.is_some_and(|deadline| deadline.reading() <= now);
                (job.run)(is_over.then_some(Why::DeadlineReached))
            });
            line = self.line();
            line.busy -= 1;
            if let Some(tell) = tell {
                // Only now: who has its answer finds this thread's place free.
                drop(line);
                tell();
                line = self.line();
            }
        }
        line.threads -= 1;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut line = self.0.line();
        line.is_closed = true;
        // Dropping them tells whoever waits.
        let waiting = std::mem::take(&mut line.jobs);
        drop(line);
        drop(waiting);
        self.0.work.notify_all();
    }
}

impl fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("BlockingPool");
        shown.field("policy", self.0.0.scope.name()).field("load", &self.load()).finish_non_exhaustive()
    }
}
