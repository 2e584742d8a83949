//! Tags: what many entries have in common, so that one call invalidates them all, in constant time.
//!
//! ```text
//!   load begins: stamp 7 ──────────────► ends with tags {shop, article-9}: kept with stamp 7
//!        │  invalidate("shop"): clock 7 → 8, tag "shop" holds 8                     8 > 7: it was never valid
//! ```
//! An entry is valid as long as none of its tags was invalidated after its load *began*: what was read before the
//! change can't outlive it, however late it arrives. A hit costs one load of an atomic number for each tag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tags of one entry.
pub const TAGS_MAX: usize = 16;

/// Tags that are known before it is looked for those that no entry has any more.
const SWEEP_MIN: usize = 256;

#[derive(Debug)]
pub(super) struct Tag {
    /// The clock's reading at the last invalidation; 0: never.
    invalidated: AtomicU64,
}

/// The clock of invalidations, and the tags that entries have.
#[derive(Debug, Default)]
pub(super) struct Tags {
    clock: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    tags: HashMap<Arc<str>, Arc<Tag>>,
    /// What is not known counts as invalidated then: at least as late as any tag that was forgotten.
    floor: u64,
    sweep_at: usize,
}

/// A moment between invalidations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u64);

/// The tags of an entry, and when what it holds began to be read; none, if it has no tag. One word.
#[derive(Debug)]
pub(super) struct Marks(Option<Box<Marked>>);

#[derive(Debug)]
struct Marked {
    stamp: Stamp,
    /// Most have one: it is here, so that a hit has no second place in memory to wait for.
    first: Arc<Tag>,
    more: Box<[Arc<Tag>]>,
}

impl Marked {
    fn hold(&self) -> bool {
        let holds = |tag: &Tag| tag.invalidated.load(Ordering::Acquire) <= self.stamp.0;
        holds(&self.first) && self.more.iter().all(|tag| holds(tag))
    }
}

impl Tags {
    /// Now: to be taken before reading what will be kept.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp(self.clock.load(Ordering::Acquire))
    }

    /// What was read before now and has this tag is not valid any more.
    pub(super) fn invalidate(&self, tag: &str) {
        let mut known = self.known();
        // Under the lock, so that a tag that is made or forgotten meanwhile can't miss it.
        let now = self.clock.fetch_add(1, Ordering::AcqRel) + 1;
        match known.tags.get(tag) {
            Some(tag) => tag.invalidated.store(now, Ordering::Release),
            // No entry has it; a load that is under way may come to have it.
            None => drop(known.make(tag, now)),
        }
    }

    /// The marks of what began to be read at `stamp` and has these tags.
    pub(super) fn marks<'a>(&self, stamp: Stamp, tags: impl Iterator<Item = &'a str>) -> Marks {
        let mut tags = tags.take(TAGS_MAX);
        let Some(first) = tags.next() else { return Marks(None) };
        let mut known = self.known();
        let floor = known.floor;
        let mut known = |tag: &str| match known.tags.get(tag) {
            Some(tag) => Arc::clone(tag),
            None => known.make(tag, floor),
        };
        let (first, more) = (known(first), tags.map(known).collect());
        Marks(Some(Box::new(Marked { stamp, first, more })))
    }

    #[cfg(test)]
    fn known_tags(&self) -> usize {
        self.known().tags.len()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn make(&mut self, tag: &str, invalidated: u64) -> Arc<Tag> {
        if self.tags.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.sweep();
        }
        let made = Arc::new(Tag { invalidated: AtomicU64::new(invalidated) });
        self.tags.insert(tag.into(), Arc::clone(&made));
        made
    }

    /// Forgets the tags that no entry has. Amortized: the next sweep is due when there are twice as many as now.
    fn sweep(&mut self) {
        let floor = &mut self.floor;
        self.tags.retain(|_, tag| {
            let used = Arc::strong_count(tag) > 1;
            if !used {
                *floor = (*floor).max(tag.invalidated.load(Ordering::Acquire));
            }
            used
        });
        self.sweep_at = self.tags.len() * 2;
    }
}

impl Marks {
    /// Whether none of the tags was invalidated since it began to be read.
    #[inline]
    pub(super) fn hold(&self) -> bool {
        self.0.as_deref().is_none_or(Marked::hold)
    }

    /// Whether it may be given to somebody who began to ask at `asked`: they may not get what was invalidated
    /// before they asked.
    pub(super) fn hold_for(&self, asked: Stamp) -> bool {
        self.0.as_deref().is_none_or(|marked| asked <= marked.stamp) || self.hold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_valid_until_one_of_its_tags_is_invalidated() {
        let tags = Tags::default();
        let both = tags.marks(tags.stamp(), ["a", "b"].into_iter());
        let one = tags.marks(tags.stamp(), ["b"].into_iter());
        let none = tags.marks(tags.stamp(), std::iter::empty());
        tags.invalidate("c");
        assert!(both.hold() && one.hold() && none.hold());
        tags.invalidate("a");
        assert!(!both.hold() && one.hold() && none.hold());
        assert!(tags.marks(tags.stamp(), ["a"].into_iter()).hold(), "what is read afterwards is valid");
    }

    #[test]
    fn what_was_read_before_an_invalidation_and_comes_after_it_is_not_valid() {
        let tags = Tags::default();
        let begun = tags.stamp();
        tags.invalidate("a");
        assert!(!tags.marks(begun, ["a"].into_iter()).hold());
        assert!(tags.marks(begun, ["b"].into_iter()).hold());
    }

    #[test]
    fn who_asked_before_an_invalidation_may_get_what_was_read_before_it_and_nobody_else() {
        let tags = Tags::default();
        let begun = tags.stamp();
        tags.invalidate("a");
        let asked = tags.stamp();
        let marks = tags.marks(begun, ["a"].into_iter());
        assert!(marks.hold_for(begun));
        assert!(!marks.hold_for(asked));
    }

    #[test]
    fn forgotten_tags_keep_what_was_read_before_their_invalidation_out() {
        let tags = Tags::default();
        let begun = tags.stamp();
        tags.invalidate("a");
        let kept = tags.marks(tags.stamp(), ["kept"].into_iter());
        for n in 0..10 * SWEEP_MIN {
            tags.invalidate(&format!("made-up-{n}"));
        }
        assert!(tags.known_tags() <= 2 * SWEEP_MIN, "{}", tags.known_tags());
        assert!(!tags.marks(begun, ["a"].into_iter()).hold());
        assert!(kept.hold(), "a tag in use is not forgotten");
        tags.invalidate("kept");
        assert!(!kept.hold());
    }
}
