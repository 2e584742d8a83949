//! The glue: the watching thread around the pure decision.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mainstay_envelope::{Clock, Context};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::heart::Heart;
use super::report::{Report, Stats};
use super::slots::Slots;
use super::spec::Checked;
use super::state::{Beat, Pause, Poll, State, Verdict};
use super::task::Watched;
use super::thread::Thread;

/// Watches tasks and runtimes from a thread of its own. A clone is another handle on the same; with the last handle it
/// ends, and tasks that were spawned through it go on unwatched.
#[derive(Clone)]
pub struct Watchdog(Arc<Owner>);

/// Ends the thread on drop; thread and tasks hold what is inside, not this.
struct Owner {
    shared: Arc<Shared>,
    watcher: std::thread::Thread,
}

struct Shared {
    slots: Arc<Slots>,
    hearts: Mutex<(u64, HashMap<u64, Arc<Heart>>)>,
    stats: Mutex<Stats>,
    is_over: AtomicBool,
}

impl Watchdog {
    /// Starts the watching thread. `tell` is called on it with each report and is not to block for long; the reports are
    /// few, at most two for each poll that blocks. If it panics, that report is lost.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        cx: &Context,
        settings: Checked,
        tell: impl FnMut(Report) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            slots: Arc::default(),
            hearts: Mutex::default(),
            stats: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let watch = Watch {
            shared: Arc::clone(&shared),
            clock: Arc::clone(cx.clock()),
            state: State::new(settings),
            named: HashMap::new(),
            tell,
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch.run())?;
        let watcher = thread.thread().clone();
        shared.slots.watched_by(watcher.clone());
        Ok(Self(Arc::new(Owner { shared, watcher })))
    }

    /// Spawns `future` on the current runtime as a task of this name, and watches it.
    ///
    /// # Panics
    /// As `tokio::spawn`: outside of a runtime.
    pub fn spawn<F>(&self, name: impl Into<Arc<str>>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.watch(name, future))
    }

    /// A future of this name that is watched wherever it is polled: for a `JoinSet`, another runtime, `block_on`.
    /// One that is polled inside another counts as part of that. Cost: a lock, once.
    pub fn watch<F: Future>(&self, name: impl Into<Arc<str>>, future: F) -> Watched<F> {
        Watched::new(&self.0.shared.slots, name.into(), future)
    }

    /// Asks `runtime` from now on, every [`Spec::beat_every`](super::Spec::beat_every), whether it comes to its tasks:
    /// for what was not spawned through this. `name` is the runtime's, for the report. Ends with the runtime.
    pub fn heartbeat(&self, name: impl Into<Arc<str>>, runtime: &Handle) {
        let heart = Heart::new(name.into());
        runtime.spawn(Arc::clone(&heart).beat());
        let (next, hearts) = &mut *self.0.shared.hearts();
        *next += 1;
        hearts.insert(*next, heart);
        // It sleeps until a poll begins, and now there is something else to do.
        self.0.watcher.unpark();
    }

    /// The watchdog in figures.
    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        Stats { tasks: shared.slots.count_tasks(), ..*shared.stats() }
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        for heart in self.shared.hearts().1.values() {
            heart.stop();
        }
        self.watcher.unpark();
    }
}

impl Shared {
    fn hearts(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Heart>>)> {
        self.hearts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watching thread's own.
struct Watch<T> {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    state: State,
    /// Of polls that were told of, by slot: at their end task and thread may be gone.
    named: HashMap<u64, (Arc<str>, Thread)>,
    tell: T,
}

impl<T: FnMut(Report)> Watch<T> {
    fn run(mut self) {
        while !self.shared.is_over.load(Ordering::Acquire) {
            self.look();
            let slots = &self.shared.slots;
            match self.state.pause() {
                Pause::For(pause) => std::thread::park_timeout(pause),
                // An early return of `park` costs one look more, and is no harm.
                Pause::UntilPollOr(pause) if slots.falls_asleep() => std::thread::park_timeout(pause),
                Pause::UntilPoll if slots.falls_asleep() => std::thread::park(),
                // A poll has begun since the look, which is the next look's to see.
                Pause::UntilPollOr(_) | Pause::UntilPoll => {}
            }
            self.shared.slots.wakes_up();
        }
    }

    fn look(&mut self) {
        let polls = self.shared.slots.look();
        let beats: Vec<Beat> = {
            let hearts = &mut self.shared.hearts().1;
            hearts.retain(|_, heart| !heart.is_gone());
            let beats = hearts.iter();
            beats.map(|(&number, heart)| Beat { heart: number, answered: heart.has_answered() }).collect()
        };
        let verdicts = self.state.look(self.clock.now(), &polls, &beats);
        self.shared.stats().looks += 1;
        for verdict in verdicts {
            let Some(report) = self.report(verdict) else { continue };
            self.count(&report);
            let tell = &mut self.tell;
            // Whoever is told must not end the watch for all.
            let _ = catch_unwind(AssertUnwindSafe(|| tell(report)));
        }
    }

    fn report(&mut self, verdict: Verdict) -> Option<Report> {
        let heart = |number| self.shared.hearts().1.get(&number).cloned();
        match verdict {
            Verdict::Blocks { poll, lasts } => {
                let Poll { slot, .. } = poll;
                // Not to be found any more: it ended in this moment.
                let (task, thread) = self.shared.slots.names(poll)?;
                self.named.insert(slot, (Arc::clone(&task), thread.clone()));
                let doing = thread.doing();
                Some(Report::Blocks { task, thread, lasts, doing })
            }
            Verdict::Ended { poll, lasted } => {
                let (task, thread) = self.named.remove(&poll.slot)?;
                Some(Report::Ended { task, thread, lasted })
            }
            Verdict::Ask(number) => {
                heart(number)?.ask();
                None
            }
            Verdict::Silent { heart: number, lasts } => {
                let heart = heart(number)?;
                let threads = heart.threads().into_iter().map(|thread| {
                    let doing = thread.doing();
                    (thread, doing)
                });
                let threads = threads.collect();
                Some(Report::Silent { runtime: Arc::clone(&heart.runtime), lasts, threads })
            }
            Verdict::Beats { heart: number, lasted } => {
                Some(Report::Beats { runtime: Arc::clone(&heart(number)?.runtime), lasted })
            }
        }
    }

    fn count(&self, report: &Report) {
        let mut stats = self.shared.stats();
        match report {
            Report::Blocks { .. } => stats.blocked += 1,
            Report::Silent { .. } => stats.silences += 1,
            Report::Ended { lasted, .. } | Report::Beats { lasted, .. } => {
                stats.longest = stats.longest.max(*lasted);
            }
        }
    }
}
