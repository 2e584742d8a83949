//! A runtime's heartbeat: a task that answers when it is asked.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::thread::Thread;

/// So many threads are remembered of a runtime.
const MOST_THREADS: usize = 64;

/// What the watching thread and the task share.
#[derive(Debug)]
pub(super) struct Heart {
    pub(super) runtime: Arc<str>,
    asked: AtomicU64,
    answered: AtomicU64,
    /// The task is gone, most likely with its runtime.
    is_gone: AtomicBool,
    question: Notify,
    /// Those it has run on.
    threads: Mutex<BTreeSet<Thread>>,
}

impl Heart {
    pub(super) fn new(runtime: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            is_gone: AtomicBool::new(false),
            question: Notify::new(),
            threads: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Thread>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Release);
        self.question.notify_one();
    }

    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire) == self.asked.load(Ordering::Acquire)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Ends the task.
    pub(super) fn stop(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.question.notify_one();
    }

    /// The threads it has run on.
    pub(super) fn threads(&self) -> Vec<Thread> {
        self.lock().iter().cloned().collect()
    }

    /// The task's life.
    pub(super) async fn beat(self: Arc<Self>) {
        let alive = Alive(self);
        let heart = &alive.0;
        while !heart.is_gone() {
            {
                let mut threads = heart.lock();
                if threads.len() < MOST_THREADS {
                    threads.insert(Thread::current());
                }
            }
            heart.answered.store(heart.asked.load(Ordering::Acquire), Ordering::Release);
            heart.question.notified().await;
        }
    }
}

/// Dropped with its runtime, too.
struct Alive(Arc<Heart>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.is_gone.store(true, Ordering::Release);
    }
}
