//! The inbox's memory: which messages of one producer were handled, for ever, in bounded space.
//!
//! A producer numbers its messages densely from 1. So "handled" is a watermark, the highest number seen, and
//! the *holes* below it: ranges not seen yet. A store keeps for each key (consumer, producer, epoch,
//! partition):
//!
//! ```text
//! one row     watermark, number of holes
//! hole rows   first, last                           one for each range, disjoint, never touching
//! ring        slot = seq % 1024 → seq, hash         what the message said, to notice a reused number
//! ```
//! [`mark`] decides about one message from what these say of it ([`Known`]) and answers with what to write
//! ([`Change`]). It reads nothing else, so it is the same in every store, and costs one look-up in each.

use std::collections::BTreeMap;

use crate::message::Mark;
use crate::outcome::Refusal;

/// The content's hash is kept for so many of the latest numbers. An older message that comes again is
/// skipped unread: that it was altered is then no longer noticed.
pub const RECENT: u64 = 1024;

/// More ranges than this are refused, so that a producer that skips every other number can't fill the disk.
pub const HOLES_MAX: u64 = 10_000;

/// The highest number: what a signed column holds.
pub const SEQ_MAX: u64 = i64::MAX as u64;

/// Numbers not seen yet, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The least.
    pub first: u64,
    /// The greatest; at least `first`.
    pub last: u64,
}

/// The number and the hash of a message, as the ring keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recent {
    /// Which message.
    pub seq: u64,
    /// Its content's hash.
    pub hash: [u8; 32],
}

/// What is stored, as far as one message is concerned. The default is a key without any row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The highest number seen; 0 when none was.
    pub watermark: u64,
    /// How many holes the key has.
    pub holes: u64,
    /// The hole that contains the message's number.
    pub hole: Option<Hole>,
    /// What stands in the ring at [`slot`].
    pub recent: Option<Recent>,
}

/// What to write for a message seen for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The watermark from now on.
    pub watermark: u64,
    /// The number of holes from now on.
    pub holes: u64,
    /// Remove the hole that begins here.
    pub remove: Option<u64>,
    /// Add these holes; after the removal, since one may begin where the removed one did.
    pub add: [Option<Hole>; 2],
    /// Write number and hash at [`slot`], in place of what is there.
    pub remember: bool,
}

/// Where in the ring a number's hash is kept.
pub fn slot(seq: u64) -> u64 {
    seq % RECENT
}

/// Decides about a message. `Some` change comes with [`Mark::First`] only.
///
/// Refused: a number outside 1 to [`SEQ_MAX`], and one that would make more than [`HOLES_MAX`] holes.
pub fn mark(seq: u64, hash: &[u8; 32], known: &Known) -> Result<(Mark, Option<Change>), Refusal> {
    if seq == 0 || seq > SEQ_MAX {
        return Err(Refusal::Invalid {
            what: "message identity",
            why: format!("sequence number {seq}; messages are numbered from 1 to {SEQ_MAX}"),
        });
    }
    if seq <= known.watermark && known.hole.is_none() {
        let altered = known.recent.is_some_and(|recent| recent.seq == seq && recent.hash != *hash);
        return Ok((if altered { Mark::Altered } else { Mark::Repeated }, None));
    }
    // Above the watermark the message leaves a hole behind it; inside a hole it leaves what it did not fill.
    let open = known.hole.unwrap_or(Hole { first: known.watermark + 1, last: seq });
    let below = (open.first < seq).then(|| Hole { first: open.first, last: seq - 1 });
    let above = (seq < open.last).then(|| Hole { first: seq + 1, last: open.last });
    let added = u64::from(below.is_some()) + u64::from(above.is_some());
    let holes = known.holes + added - u64::from(known.hole.is_some());
    if holes > HOLES_MAX && holes > known.holes {
        return Err(Refusal::Busy {
            why: format!(
                "the inbox waits for {HOLES_MAX} ranges of missing messages of this producer and takes no \
                 further one; deliver the oldest missing messages first"
            ),
        });
    }
    let change = Change {
        watermark: known.watermark.max(seq),
        holes,
        remove: known.hole.map(|hole| hole.first),
        add: [below, above],
        remember: known.recent.is_none_or(|recent| recent.seq < seq),
    };
    Ok((Mark::First, Some(change)))
}

/// The same memory as a value, for stores that keep it in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    watermark: u64,
    /// First number of each hole, with its last.
    holes: BTreeMap<u64, u64>,
    ring: BTreeMap<u64, Recent>,
}

impl Window {
    /// Decides about a message and remembers it. A refused one changes nothing.
    pub fn mark(&mut self, seq: u64, hash: &[u8; 32]) -> Result<Mark, Refusal> {
        let (mark, change) = mark(seq, hash, &self.known(seq))?;
        if let Some(change) = change {
            self.watermark = change.watermark;
            if let Some(first) = change.remove {
                self.holes.remove(&first);
            }
            self.holes.extend(change.add.iter().flatten().map(|hole| (hole.first, hole.last)));
            if change.remember {
                self.ring.insert(slot(seq), Recent { seq, hash: *hash });
            }
        }
        Ok(mark)
    }

    /// Takes the latest mark back: `before` is what was known of `seq` when it was marked first.
    pub fn unmark(&mut self, seq: u64, before: &Known) {
        self.watermark = before.watermark;
        // The mark left at most two holes, one from where its own began and one after it. Where it left none,
        // none begins there either, since holes never touch.
        self.holes.remove(&before.hole.map_or(before.watermark + 1, |hole| hole.first));
        self.holes.remove(&(seq + 1));
        self.holes.extend(before.hole.map(|hole| (hole.first, hole.last)));
        match before.recent {
            Some(recent) => self.ring.insert(slot(seq), recent),
            None => self.ring.remove(&slot(seq)),
        };
    }

    /// What is stored, as far as this number is concerned.
    pub fn known(&self, seq: u64) -> Known {
        let below = self.holes.range(..=seq).next_back();
        Known {
            watermark: self.watermark,
            holes: self.holes.len() as u64,
            hole: below.map(|(&first, &last)| Hole { first, last }).filter(|hole| seq <= hole.last),
            recent: self.ring.get(&slot(seq)).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn hash(content: u8) -> [u8; 32] {
        [content; 32]
    }

    /// Everything that was ever seen: what the bounded memory has to agree with.
    #[derive(Default)]
    struct Naive {
        seen: HashMap<u64, u8>,
        watermark: u64,
    }

    impl Naive {
        fn check(&mut self, seq: u64, content: u8, said: Mark) {
            match self.seen.get(&seq) {
                None => assert_eq!(said, Mark::First, "{seq} was never seen"),
                Some(&first) if first == content => assert_eq!(said, Mark::Repeated, "{seq} again"),
                Some(_) if seq + RECENT > self.watermark => assert_eq!(said, Mark::Altered, "{seq} altered"),
                Some(_) => assert_ne!(said, Mark::First, "{seq}, altered and old"),
            }
            if said == Mark::First {
                self.seen.insert(seq, content);
            }
            self.watermark = self.watermark.max(seq);
        }
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_everything_seen(
            near in proptest::collection::vec((1u64..60, 0u8..2), 1..200),
            far in proptest::collection::vec((1u64..5000, 0u8..2), 1..200),
        ) {
            let (mut window, mut naive) = (Window::default(), Naive::default());
            for (seq, content) in near.into_iter().chain(far) {
                let (known, before) = (window.known(seq), window.clone());
                let said = window.mark(seq, &hash(content)).unwrap();
                naive.check(seq, content, said);
                if said == Mark::First {
                    let mut taken_back = window.clone();
                    taken_back.unmark(seq, &known);
                    prop_assert_eq!(&taken_back, &before);
                } else {
                    prop_assert_eq!(&window, &before);
                }
                prop_assert!(window.holes.len() as u64 <= window.watermark);
                let mut after = 0;
                for (&first, &last) in &window.holes {
                    // The first hole may begin at 1; all others need a seen number before them.
                    prop_assert!(first <= last && last < window.watermark && (after == 0 || first > after + 1));
                    after = last;
                }
                let missing: u64 = window.holes.iter().map(|(first, last)| last - first + 1).sum();
                prop_assert_eq!(window.watermark - missing, naive.seen.len() as u64);
            }
        }
    }

    #[test]
    fn numbers_in_order_leave_no_hole_and_a_filled_hole_is_gone() {
        let mut window = Window::default();
        for seq in [1, 2, 3, 6, 5, 4] {
            assert_eq!(window.mark(seq, &hash(0)), Ok(Mark::First));
        }
        assert_eq!((window.watermark, window.holes.len()), (6, 0));
    }

    #[test]
    fn an_altered_message_is_noticed_while_it_is_recent_and_skipped_later() {
        let mut window = Window::default();
        for seq in 1..=RECENT + 1 {
            window.mark(seq, &hash(0)).unwrap();
        }
        assert_eq!(window.mark(2, &hash(1)), Ok(Mark::Altered));
        assert_eq!(window.mark(1, &hash(1)), Ok(Mark::Repeated), "its slot went to a later message");
    }

    #[test]
    fn a_late_message_does_not_take_the_slot_of_a_newer_one() {
        let mut window = Window::default();
        window.mark(RECENT + 1, &hash(0)).unwrap();
        window.mark(1, &hash(1)).unwrap();
        assert_eq!(window.mark(RECENT + 1, &hash(1)), Ok(Mark::Altered));
    }

    #[test]
    fn holes_are_bounded_and_can_still_be_filled() {
        let mut window = Window::default();
        for i in 1..=HOLES_MAX {
            window.mark(2 * i, &hash(0)).unwrap();
        }
        let next = 2 * HOLES_MAX + 1;
        let before = window.clone();
        assert!(matches!(window.mark(next + 1, &hash(0)), Err(Refusal::Busy { .. })));
        assert_eq!(window, before, "a refused message left a trace");
        assert_eq!(window.mark(next, &hash(0)), Ok(Mark::First), "the next in order makes no hole");
        assert_eq!(window.mark(1, &hash(0)), Ok(Mark::First));
        assert_eq!(window.mark(next + 2, &hash(0)), Ok(Mark::First), "there is room for one hole again");
    }

    #[test]
    fn numbers_outside_the_range_are_refused() {
        let mut window = Window::default();
        for seq in [0, SEQ_MAX + 1, u64::MAX] {
            assert!(matches!(window.mark(seq, &hash(0)), Err(Refusal::Invalid { .. })), "{seq}");
        }
        assert_eq!(window.mark(SEQ_MAX, &hash(0)), Ok(Mark::First));
        assert_eq!(window.mark(SEQ_MAX - 1, &hash(0)), Ok(Mark::First));
    }
}
