//! Where each thread writes what it polls, and the watching thread reads it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::state::Poll;
use super::thread::Thread;

/// What a thread polls. Written by that thread only.
#[derive(Debug)]
struct Slot {
    thread: Thread,
    /// Odd while a poll is under way.
    poll: AtomicU64,
    /// Whose poll it is, valid while one is under way.
    task: AtomicU64,
}

impl Slot {
    fn begin(&self, task: u64) {
        self.task.store(task, Ordering::Release);
        let number = self.poll.load(Ordering::Relaxed);
        // In one order with `asleep`: either the watcher sees this poll, or this thread sees that it is asleep.
        self.poll.store(number + 1, Ordering::SeqCst);
    }

    fn end(&self) {
        let number = self.poll.load(Ordering::Relaxed);
        self.poll.store(number + 1, Ordering::Release);
    }

    /// The number and the task of the poll under way. None also if one just began or ended: it is a short one.
    fn look(&self) -> Option<(u64, u64)> {
        let number = self.poll.load(Ordering::SeqCst);
        let task = self.task.load(Ordering::Acquire);
        // A task of a later poll is seen only with the end of this one.
        (number % 2 == 1 && self.poll.load(Ordering::Relaxed) == number).then_some((number, task))
    }
}

/// What this thread has to do with a watchdog: with the last one whose task it polled.
struct Mine {
    /// Weak, so that another one can't come to lie at its address.
    of: Weak<Slots>,
    slot: Arc<Slot>,
    is_under_way: bool,
}

thread_local! {
    static MINE: RefCell<Option<Mine>> = const { RefCell::new(None) };
}

/// All slots and tasks of one watchdog.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// By a number that is never given twice. A thread that ended leaves its slot to be swept.
    slots: Mutex<(u64, HashMap<u64, Arc<Slot>>)>,
    tasks: Mutex<(u64, HashMap<u64, Arc<str>>)>,
    asleep: AtomicBool,
    watcher: OnceLock<std::thread::Thread>,
}

impl Slots {
    fn slots(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Slot>>)> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<str>>)> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names a task; its number.
    pub(super) fn add_task(&self, name: Arc<str>) -> u64 {
        let (next, tasks) = &mut *self.tasks();
        *next += 1;
        tasks.insert(*next, name);
        *next
    }

    pub(super) fn remove_task(&self, task: u64) {
        self.tasks().1.remove(&task);
    }

    pub(super) fn count_tasks(&self) -> u64 {
        self.tasks().1.len() as u64
    }

    /// A poll of `task` begins on this thread. False: it is part of one that has begun, and does not count by itself.
    pub(super) fn begin(self: &Arc<Self>, task: u64) -> bool {
        let begun = MINE.try_with(|mine| {
            let mut mine = mine.borrow_mut();
            let is_ours = mine.as_ref().is_some_and(|mine| std::ptr::eq(mine.of.as_ptr(), &raw const **self));
            if !is_ours && !mine.as_ref().is_some_and(|mine| mine.is_under_way) {
                *mine = Some(self.register());
            }
            match &mut *mine {
                Some(mine) if !mine.is_under_way => {
                    mine.is_under_way = true;
                    mine.slot.begin(task);
                    true
                }
                _ => false,
            }
        });
        let begun = begun.unwrap_or(false);
        if begun && self.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        begun
    }

    /// The poll that began last on this thread is over.
    pub(super) fn end() {
        let _ = MINE.try_with(|mine| {
            if let Some(mine) = &mut *mine.borrow_mut() {
                mine.slot.end();
                mine.is_under_way = false;
            }
        });
    }

    fn register(self: &Arc<Self>) -> Mine {
        let slot =
            Arc::new(Slot { thread: Thread::current(), poll: AtomicU64::new(0), task: AtomicU64::new(0) });
        let (next, slots) = &mut *self.slots();
        *next += 1;
        slots.insert(*next, Arc::clone(&slot));
        Mine { of: Arc::downgrade(self), slot, is_under_way: false }
    }

    /// What is under way.
    pub(super) fn look(&self) -> Vec<Poll> {
        let slots = &mut self.slots().1;
        // A thread that ended, or polls for another watchdog now, has dropped its half.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        let polls = slots.iter().filter_map(|(&slot, of)| {
            let (number, task) = of.look()?;
            Some(Poll { slot, number, task })
        });
        polls.collect()
    }

    /// The names of a poll's task and thread; the task's is known while the poll is under way.
    pub(super) fn names(&self, poll: Poll) -> Option<(Arc<str>, Thread)> {
        let task = Arc::clone(self.tasks().1.get(&poll.task)?);
        let thread = self.slots().1.get(&poll.slot)?.thread.clone();
        Some((task, thread))
    }

    /// Says which thread is to be woken. Once.
    pub(super) fn watched_by(&self, thread: std::thread::Thread) {
        let _ = self.watcher.set(thread);
    }

    /// The watching thread goes to sleep. False: it may not, a poll is under way.
    pub(super) fn falls_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let may = self.look().is_empty();
        if !may {
            self.wakes_up();
        }
        may
    }

    pub(super) fn wakes_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Wakes the watching thread, if it sleeps for want of polls.
    pub(super) fn wake(&self) {
        // Of many threads that see it asleep one wakes it.
        if self.asleep.swap(false, Ordering::AcqRel)
            && let Some(watcher) = self.watcher.get()
        {
            watcher.unpark();
        }
    }
}
