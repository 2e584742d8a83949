//! The calls that the rates are taken over: written by many threads at once, without a lock.

use mainstay_envelope::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use super::shards::{Blocks, Line, thread};
use super::spec;

/// What a window holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls in all.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow, failed or not.
    pub slow: u64,
}

/// One call's entry: bits. Zero is "no call".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u8);

impl Entry {
    const CALL: u8 = 1;
    const FAILED: u8 = 2;
    const SLOW: u8 = 4;

    pub(super) const fn new(failed: bool, slow: bool) -> Self {
        let mut bits = Self::CALL;
        if failed {
            bits |= Self::FAILED;
        }
        if slow {
            bits |= Self::SLOW;
        }
        Entry(bits)
    }

    pub(super) const fn failed(self) -> bool {
        self.0 & Self::FAILED != 0
    }

    pub(super) const fn slow(self) -> bool {
        self.0 & Self::SLOW != 0
    }

    /// Whether it can raise a rate.
    pub(super) const fn is_bad(self) -> bool {
        self.0 & (Self::FAILED | Self::SLOW) != 0
    }
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each breaker, and a pointer less on the way to it"
)]
pub(super) enum Window {
    Count(CountWindow),
    /// One for each shard of threads. What they hold in all is exact: it belongs to times, not to places.
    Time(Box<[Line<TimeWindow>]>),
}

impl Window {
    pub(super) fn empty(kind: spec::Window, shards: u32) -> Self {
        match kind {
            spec::Window::Count(calls) => Window::Count(CountWindow::new(calls, shards)),
            spec::Window::Time(time) => {
                let bucket = u64::try_from(time.as_nanos() / u128::from(BUCKETS)).unwrap_or(u64::MAX).max(1);
                Window::Time((0..shards.max(1)).map(|_| Line(TimeWindow::new(bucket))).collect())
            }
        }
    }

    /// A window of `kind` that holds what this one does, as far as it fits. None if the kinds differ: calls in a
    /// row say nothing about when they were, and counts nothing about their order.
    pub(super) fn resampled(&self, kind: spec::Window, shards: u32, now: u64) -> Option<Self> {
        let new = Window::empty(kind, shards);
        match (self, &new) {
            (Window::Count(old), Window::Count(new)) => old.copy_to(new),
            (Window::Time(old), Window::Time(new)) => {
                let Line(first) = new.first()?;
                old.iter().for_each(|Line(old)| old.copy_to(first, now));
            }
            _ => return None,
        }
        Some(new)
    }

    #[inline]
    pub(super) fn record(&self, now: u64, entry: Entry) {
        match self {
            Window::Count(window) => window.record(entry),
            Window::Time(shards) => {
                let shard = if shards.len() == 1 { 0 } else { thread() % shards.len() };
                let Line(window) = &shards[shard];
                window.record(now, entry);
            }
        }
    }

    pub(super) fn counts(&self, now: u64) -> Counts {
        match self {
            Window::Count(window) => window.counts(),
            Window::Time(shards) => {
                let counts = shards.iter().map(|Line(window)| window.counts(now));
                counts.fold(Counts::default(), |all, shard| Counts {
                    calls: all.calls + shard.calls,
                    failures: all.failures + shard.failures,
                    slow: all.slow + shard.slow,
                })
            }
        }
    }

    pub(super) fn clear(&self) {
        match self {
            Window::Count(window) => window.clear(),
            Window::Time(shards) => shards.iter().for_each(|Line(window)| window.clear()),
        }
    }
}

/// The last n calls: a ring of entries and their running total.
///
/// Whoever writes an entry swaps it in and corrects the total by exactly what came and what left, so that the
/// total is the ring's, in whatever order the writers ran, as soon as they are through.
///
/// In shards a place is not the next one but the next of a block that the writer's shard was given. With E places handed
/// out and not yet written to (an eighth of all, at most): all entries but E are among the last n + E calls, and n − 2·E
/// at least are among the last n.
#[derive(Debug)]
pub(super) struct CountWindow {
    /// The next place, or block of places. Away from what every call reads.
    next: Line<AtomicU64>,
    blocks: Option<Blocks>,
    /// Three fields of 21 bits; see [`packed`].
    total: AtomicU64,
    ring: Box<[AtomicU8]>,
}

const FIELD: u32 = 21;
const FIELD_MASK: u64 = (1 << FIELD) - 1;
/// Each field begins here and not at zero: a correction may come before the one it corrects, and a field below
/// zero would borrow from its neighbour.
const BIAS: u64 = 1 << (FIELD - 1);
const NOTHING: u64 = BIAS | BIAS << FIELD | BIAS << (2 * FIELD);

/// What an entry adds to the total.
const fn packed(entry: u8) -> u64 {
    bit_at(entry, Entry::CALL)
        | bit_at(entry, Entry::FAILED) << FIELD
        | bit_at(entry, Entry::SLOW) << (2 * FIELD)
}

const fn bit_at(entry: u8, mask: u8) -> u64 {
    (entry & mask != 0) as u64
}

impl CountWindow {
    fn new(calls: u32, shards: u32) -> Self {
        CountWindow {
            next: Line::default(),
            blocks: (shards > 1).then(|| Blocks::new(calls, shards)),
            total: AtomicU64::new(NOTHING),
            ring: (0..calls.max(1)).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    #[inline]
    fn record(&self, entry: Entry) {
        match &self.blocks {
            None => self.write(self.next.0.fetch_add(1, Relaxed), entry),
            Some(blocks) => self.write(blocks.place(thread(), &self.next.0), entry),
        }
    }

    #[inline]
    fn write(&self, place: u64, Entry(entry): Entry) {
        // In bounds: it is a remainder of the length, which came from a u32.
        let Some(slot) = self.ring.get((place % self.ring.len() as u64) as usize) else { return };
        // A success over a success changes nothing, and that is nearly every call.
        if slot.load(Relaxed) != entry {
            self.put(slot, entry);
        }
    }

    fn put(&self, slot: &AtomicU8, entry: u8) {
        let left = slot.swap(entry, Relaxed);
        self.total.fetch_add(packed(entry).wrapping_sub(packed(left)), Relaxed);
    }

    fn counts(&self) -> Counts {
        let total = self.total.load(Relaxed);
        let field = |n: u32| (total >> (n * FIELD) & FIELD_MASK).saturating_sub(BIAS);
        Counts { calls: field(0), failures: field(1), slow: field(2) }
    }

    fn clear(&self) {
        // As writers do, each entry with its correction: one of a writer that is late comes out even.
        for slot in &self.ring {
            self.put(slot, 0);
        }
    }

    fn copy_to(&self, new: &CountWindow) {
        let len = self.ring.len() as u64;
        let next = self.next.0.load(Relaxed);
        let kept = len.min(new.ring.len() as u64);
        // The oldest of the kept ones first; places that were never written hold no call.
        for back in (1..=kept).rev() {
            let place = (next % len + len - back) % len;
            let entry = self.ring.get(place as usize).map_or(0, |slot| slot.load(Relaxed));
            if entry != 0 {
                new.record(Entry(entry));
            }
        }
    }
}

/// Buckets of a time window.
pub(super) const BUCKETS: u64 = 10;

/// The calls of the last ten buckets of time.
#[derive(Debug)]
pub(super) struct TimeWindow {
    /// A bucket's length in nanoseconds.
    length: u64,
    buckets: [Bucket; BUCKETS as usize],
}

/// Counts, each beside the number of the time it belongs to: whoever comes first in a new time begins it anew.
#[derive(Debug, Default)]
struct Bucket {
    calls: Tally,
    failures: Tally,
    slow: Tally,
}

/// The lower 32 bits of a bucket's number, above a count of 32 bits. A count that was left alone for more than 2³¹ times the
/// length of a bucket is taken for one of the future; with the shortest buckets that is 249 days.
#[derive(Debug, Default)]
struct Tally(AtomicU64);

impl Tally {
    fn add(&self, tick: u64, count: u32) {
        let tag = tick as u32;
        // The closure answers always or, for a late writer, never: both are fine.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |word| {
            let (there, held) = ((word >> 32) as u32, word as u32);
            let age = tag.wrapping_sub(there) as i32;
            match age {
                0 => Some(u64::from(tag) << 32 | u64::from(held.saturating_add(count))),
                1.. => Some(u64::from(tag) << 32 | u64::from(count)),
                // Nothing is lost of nothing, whenever that was: a clock may have begun long before this window.
                _ if held == 0 => Some(u64::from(tag) << 32 | u64::from(count)),
                _ => None,
            }
        });
    }

    /// The count, if it is of one of the ten buckets up to `tick`.
    fn within(&self, tick: u64) -> u64 {
        let word = self.0.load(Relaxed);
        let age = (tick as u32).wrapping_sub((word >> 32) as u32);
        if u64::from(age) < BUCKETS { word & u64::from(u32::MAX) } else { 0 }
    }
}

impl TimeWindow {
    fn new(length: u64) -> Self {
        TimeWindow { length, buckets: Default::default() }
    }

    /// The bucket's number. Counted from 10, so that the tag of an untouched bucket is of no present time.
    fn tick(&self, now: u64) -> u64 {
        (now / self.length).saturating_add(BUCKETS)
    }

    fn bucket(&self, tick: u64) -> &Bucket {
        &self.buckets[(tick % BUCKETS) as usize]
    }

    fn record(&self, now: u64, entry: Entry) {
        let tick = self.tick(now);
        let bucket = self.bucket(tick);
        bucket.calls.add(tick, 1);
        if entry.failed() {
            bucket.failures.add(tick, 1);
        }
        if entry.slow() {
            bucket.slow.add(tick, 1);
        }
    }

    fn counts(&self, now: u64) -> Counts {
        let tick = self.tick(now);
        let mut counts = Counts::default();
        for bucket in &self.buckets {
            counts.calls += bucket.calls.within(tick);
            counts.failures += bucket.failures.within(tick);
            counts.slow += bucket.slow.within(tick);
        }
        counts
    }

    fn clear(&self) {
        for bucket in &self.buckets {
            for tally in [&bucket.calls, &bucket.failures, &bucket.slow] {
                tally.0.fetch_and(u64::from(u32::MAX) << 32, Relaxed);
            }
        }
    }

    /// Each old bucket goes, whole, to the new one in which it ended (to the present one if it has not).
    fn copy_to(&self, new: &TimeWindow, now: u64) {
        let tick = self.tick(now);
        for tick in tick.saturating_sub(BUCKETS - 1).max(BUCKETS)..=tick {
            let old = self.bucket(tick);
            let ended = (tick - BUCKETS + 1).saturating_mul(self.length).saturating_sub(1).min(now);
            let target = new.tick(ended);
            for (from, to) in [
                (&old.calls, &new.bucket(target).calls),
                (&old.failures, &new.bucket(target).failures),
                (&old.slow, &new.bucket(target).slow),
            ] {
                let word = from.0.load(Relaxed);
                if (word >> 32) as u32 == tick as u32 {
                    to.add(target, word as u32);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
