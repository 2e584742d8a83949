//! Where many threads count into one window: each shard of threads has a word of its own, so that they don't pass one from
//! core to core with every call.

use std::cell::Cell;
use std::thread;

use mainstay_envelope::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A value with cache lines of its own (two of them, because processors fetch them in pairs): what one thread writes
/// there takes nothing from the others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);

/// The number of the present thread: they are numbered as they come. It says only where a call is counted.
pub(super) fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<Option<usize>> = const { Cell::new(None) });
    NUMBER.with(|number| {
        number.get().unwrap_or_else(|| {
            let new = NEXT.fetch_add(1, Relaxed);
            number.set(Some(new));
            new
        })
    })
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
