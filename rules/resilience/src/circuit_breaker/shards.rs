//! Where many threads count into one window: each shard of threads has a word of its own, so that they don't pass one from
//! core to core with every call.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use mainstay_envelope::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A value with cache lines of its own (two of them, because processors fetch them in pairs): what one thread writes
/// there takes nothing from the others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);

/// The number of the present thread: the lowest that no other living thread has, so that threads that come and go are
/// spread over the shards as evenly as those that stay. It says only where a call is counted.
#[inline]
pub(super) fn thread() -> usize {
    // Apart from what gives it back, so that a look at it is a plain load.
    thread_local!(static NUMBER: Cell<Option<usize>> = const { Cell::new(None) });
    NUMBER.get().unwrap_or_else(|| {
        let new = number();
        NUMBER.set(Some(new));
        new
    })
}

/// Takes a number for as long as the thread lives.
#[cold]
fn number() -> usize {
    thread_local!(static TAKEN: Cell<Option<Taken>> = const { Cell::new(None) });
    let taken = Taken(numbers().take());
    let number = taken.0;
    // A thread that is about to end can't keep it: then it is given back at once, and used all the same.
    let _ = TAKEN.try_with(|kept| kept.set(Some(taken)));
    number
}

/// Given back when the thread ends.
struct Taken(usize);

impl Drop for Taken {
    fn drop(&mut self) {
        numbers().free.push(Reverse(self.0));
    }
}

/// The numbers that living threads don't have.
struct Numbers {
    free: BinaryHeap<Reverse<usize>>,
    /// And all from here on.
    next: usize,
}

impl Numbers {
    fn take(&mut self) -> usize {
        self.free.pop().map_or_else(
            || {
                self.next += 1;
                self.next - 1
            },
            |Reverse(number)| number,
        )
    }
}

fn numbers() -> MutexGuard<'static, Numbers> {
    static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { free: BinaryHeap::new(), next: 0 });
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands out places of a ring in blocks, one at a time to each shard.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Places in a block, at least 2.
    size: u64,
    /// Of each shard the next place of its block; a multiple of `size` when the block is used up.
    next: Box<[Line<AtomicU64>]>,
}

/// In the place of a word while its shard is given a block.
const BUSY: u64 = u64::MAX;

/// How many of a window's entries may be other calls than they should.
pub(super) const fn error(calls: u32) -> u32 {
    calls / 8
}

/// The size of the blocks of so many shards of a window, so that all places that are handed out and not yet written to
/// are no more than its [`error`].
pub(super) const fn block(calls: u32, shards: u32) -> u32 {
    1 + error(calls) / shards
}

impl Blocks {
    pub(super) fn new(calls: u32, shards: u32) -> Self {
        let size = u64::from(block(calls, shards));
        Blocks { size, next: (0..shards).map(|_| Line::default()).collect() }
    }

    /// A place for a call of this thread; where its shard has none left, a block from `all`.
    pub(super) fn place(&self, thread: usize, all: &AtomicU64) -> u64 {
        let shards = self.next.len();
        let mut shard = thread % shards;
        loop {
            let Line(next) = &self.next[shard];
            let place = next.load(Relaxed);
            if place == BUSY {
                // Another thread of this shard is just given a block. Any other shard will do.
                shard = (shard + 1) % shards;
                if shard == thread % shards {
                    thread::yield_now();
                }
            } else if place % self.size != 0 {
                if next.compare_exchange_weak(place, place + 1, Relaxed, Relaxed).is_ok() {
                    return place;
                }
            } else if next.compare_exchange_weak(place, BUSY, Relaxed, Relaxed).is_ok() {
                let first = all.fetch_add(self.size, Relaxed);
                next.store(first + 1, Relaxed);
                return first;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn living_threads_have_numbers_of_their_own_and_one_that_ended_leaves_its_to_the_next() {
        // Others of this test's process may take and give back meanwhile, so only what holds whatever they do.
        let mine = thread();
        assert_eq!(thread(), mine, "for life");
        let mut largest = 0;
        for _ in 0..1_000 {
            let others = thread::spawn(thread).join().unwrap();
            assert_ne!(others, mine);
            largest = largest.max(others);
        }
        assert!(largest < 500, "a thousand threads, one after the other, went through {largest} numbers");
    }

    #[test]
    fn the_lowest_free_number_is_taken_first() {
        let mut numbers = Numbers { free: BinaryHeap::new(), next: 0 };
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [0, 1, 2]);
        numbers.free.extend([Reverse(2), Reverse(0)]);
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [0, 2, 3]);
    }
}
