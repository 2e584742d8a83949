//! The glue: threads, and callers who wait, around the pure decision.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mainstay_envelope::{Clock, Context, Monotonic};
use tokio::sync::oneshot;

use super::job::{Cancellation, Failed};
use super::spec::Checked;
use super::state::{End, Refused, State, Stats, Ticket, Turn};

/// A fixed number of threads that compute, and a bounded queue before them. A clone is another handle on the same.
/// With the last handle it is shut down; who awaits work holds one. What still runs then has been told to stop, when its
/// caller left, and is not waited for.
#[derive(Clone)]
pub struct Pool(Arc<Handle>);

/// Shuts down on drop; the threads hold [`Shared`], not this.
struct Handle(Arc<Shared>);

struct Shared {
    line: Mutex<Line>,
    /// There is something to begin, or the pool was closed.
    turn: Condvar,
    clock: Arc<dyn Clock>,
}

struct Line {
    state: State,
    /// The work that waits.
    jobs: HashMap<Ticket, Box<dyn Work>>,
}

/// A piece of work and whoever waits for it, whatever it returns.
trait Work: Send {
    fn run(&mut self) -> End;
    /// Tells who waits. After a run: its result.
    fn answer(self: Box<Self>);
    fn refuse(self: Box<Self>, failed: Failed);
    fn name(&self) -> &'static str;
}

struct Job<T, F> {
    name: &'static str,
    work: Option<F>,
    result: Option<Result<T, Failed>>,
    cancellation: Cancellation,
    tell: oneshot::Sender<Result<T, Failed>>,
}

impl<T: Send, F: FnOnce(&Cancellation) -> T + Send> Work for Job<T, F> {
    fn run(&mut self) -> End {
        let Some(work) = self.work.take() else { return End::Stopped };
        // Whatever the panic left half-done is the work's own; nothing of ours is in there.
        let result = catch_unwind(AssertUnwindSafe(|| work(&self.cancellation)));
        let end = match result {
            Err(_) => End::Panicked,
            Ok(_) if self.cancellation.is_cancelled() => End::Stopped,
            Ok(_) => End::Done,
        };
        let job = self.name;
        self.result = Some(result.map_err(|panic| Failed::Panicked { job, message: message(&*panic) }));
        end
    }

    fn answer(self: Box<Self>) {
        if let Some(result) = self.result {
            // Nobody may be waiting any more, and that is all right.
            let _ = self.tell.send(result);
        }
    }

    fn refuse(self: Box<Self>, failed: Failed) {
        let _ = self.tell.send(Err(failed));
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(it said nothing)").to_owned()
}

impl Pool {
    /// Starts the threads, named `cpu-0` and so on. The clock of `cx` is the pool's; deadlines are read from it.
    ///
    /// # Errors
    /// When the system gives not all of the threads; those it gave end again.
    pub fn start(cx: &Context, settings: Checked) -> std::io::Result<Self> {
        let state = State::new(settings);
        let line = Line { state, jobs: HashMap::new() };
        let shared =
            Arc::new(Shared { line: Mutex::new(line), turn: Condvar::new(), clock: Arc::clone(cx.clock()) });
        let pool = Self(Arc::new(Handle(Arc::clone(&shared))));
        for n in 0..settings.spec().threads {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("cpu-{n}")).spawn(move || shared.work())?;
        }
        Ok(pool)
    }

    /// Runs `work` on a thread of the pool and waits for what it returns, until the deadline of `cx`, if it has one.
    ///
    /// Dropping the future before the work was begun means that it never will be, and frees its place. Work that was
    /// begun is told by its [`Cancellation`] when the future is dropped or the deadline comes; it is its own part to
    /// ask. Cost beside the work: four short locks, two allocations, and one switch of threads each way.
    ///
    /// To be awaited in a runtime with time enabled, if `cx` has a deadline.
    ///
    /// # Errors
    /// [`Failed`]: refused at once; not begun by its deadline; not done by its deadline; panicked.
    pub async fn run<T, F>(&self, cx: &Context, name: &'static str, work: F) -> Result<T, Failed>
    where
        T: Send + 'static,
        F: FnOnce(&Cancellation) -> T + Send + 'static,
    {
        let shared = &self.0.0;
        let deadline = cx.envelope().deadline();
        let now = shared.clock.now();
        let (tell, told) = oneshot::channel();
        let cancellation = Cancellation::default();
        let job = Job { name, work: Some(work), result: None, cancellation: cancellation.clone(), tell };
        let ticket = {
            let mut line = shared.line();
            let admitted = line.state.admit(now, name, deadline);
            let ticket = admitted.map_err(|refused| failed(name, refused))?;
            line.jobs.insert(ticket, Box::new(job));
            ticket
        };
        shared.turn.notify_one();
        let place = Place { shared, ticket, cancellation };
        let told = pin!(told);
        // Work that is dropped untold is dropped with the pool.
        let closed = |_| Err(Failed::Closed { job: name });
        let Some(deadline) = deadline else { return told.await.unwrap_or_else(closed) };
        match tokio::time::timeout(deadline.remaining(now), told).await {
            Ok(answer) => answer.unwrap_or_else(closed),
            Err(_) if place.give_up(true) => Err(Failed::DeadlineReached { job: name }),
            Err(_) => Err(Failed::DeadlineRanOut { job: name }),
        }
    }

    /// The pool in figures. Cost: the lock, and a copy of them.
    pub fn stats(&self) -> Stats {
        let shared = &self.0.0;
        shared.line().state.stats(shared.clock.now())
    }
}

fn failed(job: &'static str, refused: Refused) -> Failed {
    match refused {
        Refused::Closed => Failed::Closed { job },
        Refused::DeadlineReached => Failed::DeadlineReached { job },
        Refused::QueueFull { capacity } => Failed::QueueFull { job, capacity },
        Refused::TooLate { remaining, wait, run } => Failed::TooLate { job, remaining, wait, run },
    }
}

/// Somebody waits for a piece of work. Dropped, nobody does.
struct Place<'a> {
    shared: &'a Shared,
    ticket: Ticket,
    cancellation: Cancellation,
}

impl Place<'_> {
    /// Whether it had not been begun, so that it never will be.
    fn give_up(&self, deadline_reached: bool) -> bool {
        self.cancellation.cancel();
        let mut line = self.shared.line();
        let waited = line.state.give_up(self.ticket, deadline_reached);
        let job = if waited { line.jobs.remove(&self.ticket) } else { None };
        drop(line);
        // Outside of the lock: what the work holds may do anything when it is dropped.
        drop(job);
        waited
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.give_up(false);
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Monotonic {
        self.clock.now()
    }

    /// A thread's life.
    fn work(&self) {
        let mut line = self.line();
        while !line.state.is_closed() {
            let now = self.now();
            match line.state.next(now) {
                None => line = self.turn.wait(line).unwrap_or_else(PoisonError::into_inner),
                Some(Turn::Expired(ticket)) => {
                    let job = line.jobs.remove(&ticket);
                    drop(line);
                    if let Some(job) = job {
                        let failed = Failed::DeadlineReached { job: job.name() };
                        let _ = catch_unwind(AssertUnwindSafe(|| job.refuse(failed)));
                    }
                    line = self.line();
                }
                Some(Turn::Begin(ticket)) => {
                    let Some(mut job) = line.jobs.remove(&ticket) else { continue };
                    drop(line);
                    let end = job.run();
                    let now = self.now();
                    line = self.line();
                    line.state.ended(now, ticket, end);
                    drop(line);
                    // Told last, so that who has the answer finds it counted. A result that panics when nobody wants
                    // it and it is dropped must not cost the thread.
                    let _ = catch_unwind(AssertUnwindSafe(|| job.answer()));
                    line = self.line();
                }
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut line = self.0.line();
        // Nothing waits: who waits for work holds the handle. What runs has been told to stop, by whoever left.
        line.state.close();
        drop(line);
        self.0.turn.notify_all();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
