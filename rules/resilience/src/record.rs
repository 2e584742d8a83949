//! What decisions were made of: a bounded ring of numbers, which a replay decides again, bit for bit.
//!
//! A record holds the state and the inputs that *one* decision read, and the verdict. So each can be decided
//! again on its own: no matter where in time the ring begins, nor in which order threads ran. Nothing but numbers
//! can be recorded: a name, a key, a header or a body doesn't fit. What has to be told apart (the key of a limit)
//! goes in as a salted [`Recorder::redacted`] number, which can't be turned back and differs between processes.
//!
//! A recording leaves the process as lines of JSON (feature `recording`): [`Scope::save`](crate::Scope::save) writes them,
//! `mainstay replay` reads them and decides everything again.

#[cfg(feature = "recording")]
mod file;
mod line;

use std::fmt::{self, Debug};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use mainstay_envelope::Monotonic;

use crate::refusal::{DecisionId, Rule};

#[cfg(feature = "recording")]
pub use file::{BrokenRecording, Reader, write};
#[cfg(feature = "recording")]
pub use line::Unreadable;

/// Numbers that a decision may record as its inputs. Floating-point ones go in as their bits.
pub const INPUTS: usize = 7;

/// What a policy keeps of its decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Recording {
    /// Nothing; refusals then carry [`DecisionId::UNRECORDED`].
    Off,
    /// Refusals, retries and changes of state. The default: admitting costs nothing more.
    #[default]
    Notable,
    /// Every decision: about 20 ns for each.
    All,
}

/// One decision, as it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Its name.
    pub id: DecisionId,
    /// Which pattern took it.
    pub rule: Rule,
    /// Which of the pattern's questions it answers; the pattern numbers them from 0.
    pub question: u8,
    /// When, in nanoseconds of the policy's monotonic clock.
    pub at: u64,
    /// What it read, as the pattern's `state.rs` says; unused ones are 0.
    pub inputs: [u64; INPUTS],
    /// What it answered, as a number that the pattern gives a meaning.
    pub verdict: u64,
}

/// A bounded ring of the latest decisions. Writing takes no lock and allocates nothing.
///
/// A decision that finds its place still being written, by a thread that was stopped for a whole round of the
/// ring, is not recorded and is counted in [`lost`](Self::lost).
pub struct Recorder {
    recording: Recording,
    /// In the upper bits of every id, so that ids of two policies differ.
    tag: u64,
    next: AtomicU64,
    lost: AtomicU64,
    slots: Box<[Slot]>,
    salt: RandomState,
}

/// Bits of a [`DecisionId`] that count; the others are the recorder's tag.
const COUNTER_BITS: u32 = 40;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;
/// rule and question, time, inputs, verdict
const WORDS: usize = INPUTS + 3;

struct Slot {
    /// Twice the number of the decision that is in it; odd while it is written. 0: never used.
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Recorder {
    /// The largest capacity: a million decisions, some 90 MB.
    pub const LARGEST: usize = 1 << 20;

    /// A ring of the last `capacity` decisions (cut to [`LARGEST`](Self::LARGEST); 0 records nothing). `tag` tells
    /// its ids from those of other recorders; its lower 24 bits are used.
    pub fn new(recording: Recording, capacity: usize, tag: u64) -> Self {
        let recording = if capacity == 0 { Recording::Off } else { recording };
        let capacity = if recording == Recording::Off { 0 } else { capacity.min(Self::LARGEST) };
        let slot = |_| Slot { version: AtomicU64::new(0), words: Default::default() };
        Recorder {
            recording,
            tag: tag << COUNTER_BITS,
            next: AtomicU64::new(1),
            lost: AtomicU64::new(0),
            slots: (0..capacity).map(slot).collect(),
            salt: RandomState::new(),
        }
    }

    /// One that keeps nothing.
    pub fn off() -> Self {
        Self::new(Recording::Off, 0, 0)
    }

    /// Whether decisions that change nothing are kept as well.
    pub fn keeps_all(&self) -> bool {
        self.recording == Recording::All
    }

    /// A number that stands for `key` in this recorder: the same key gives the same number, in this process only.
    pub fn redacted(&self, key: &impl Hash) -> u64 {
        self.salt.hash_one(key)
    }

    /// Keeps a decision that let something pass and changed nothing, if everything is kept.
    pub fn plain(&self, rule: Rule, question: u8, now: Monotonic, inputs: [u64; INPUTS], verdict: u64) {
        if self.keeps_all() {
            self.notable(rule, question, now, inputs, verdict);
        }
    }

    /// Keeps a refusal, a retry or a change of state, and names it.
    pub fn notable(
        &self,
        rule: Rule,
        question: u8,
        now: Monotonic,
        inputs: [u64; INPUTS],
        verdict: u64,
    ) -> DecisionId {
        if self.recording == Recording::Off {
            return DecisionId::UNRECORDED;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = DecisionId(self.tag | (number & COUNTER_MASK));
        let Some(slot) = self.slot(number) else { return id };
        let before = slot.version.load(Ordering::Relaxed);
        let claimed = before % 2 == 0
            && before < number * 2
            && slot
                .version
                .compare_exchange(before, number * 2 - 1, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if !claimed {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return id;
        }
        // A reader that sees one of the words below must see the odd version, too.
        fence(Ordering::Release);
        let head = [u64::from(rule as u8) << 8 | u64::from(question), nanos(now)];
        for (word, value) in slot.words.iter().zip(head.into_iter().chain(inputs).chain([verdict])) {
            word.store(value, Ordering::Relaxed);
        }
        slot.version.store(number * 2, Ordering::Release);
        id
    }

    /// The decision of that name, if the ring still has it.
    pub fn find(&self, id: DecisionId) -> Option<Decision> {
        let newest = self.next.load(Ordering::Acquire);
        if id.0 & !COUNTER_MASK != self.tag || newest == 0 {
            return None;
        }
        // The upper bits of the number are not in the id; the ring is shorter than what the lower ones count.
        let low = id.0 & COUNTER_MASK;
        let number = (newest & !COUNTER_MASK) | low;
        let number = if number >= newest { number.checked_sub(COUNTER_MASK + 1)? } else { number };
        self.read(number)
    }

    /// What the ring holds, the oldest first. A decision that is being written meanwhile may be missing.
    pub fn decisions(&self) -> Vec<Decision> {
        let end = self.next.load(Ordering::Acquire);
        let begin = end.saturating_sub(self.slots.len() as u64).max(1);
        (begin..end).filter_map(|number| self.read(number)).collect()
    }

    /// Decisions that could not be recorded.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        let place = usize::try_from(number.checked_rem(self.slots.len() as u64)?).ok()?;
        self.slots.get(place)
    }

    fn read(&self, number: u64) -> Option<Decision> {
        let slot = self.slot(number)?;
        if slot.version.load(Ordering::Acquire) != number * 2 {
            return None;
        }
        let words: [u64; WORDS] = std::array::from_fn(|i| slot.words[i].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if slot.version.load(Ordering::Relaxed) != number * 2 {
            return None;
        }
        let [head, at, inputs @ .., verdict] = words;
        let [.., rule, question] = head.to_be_bytes();
        let id = DecisionId(self.tag | (number & COUNTER_MASK));
        Some(Decision { id, rule: Rule::from_number(rule)?, question, at, inputs, verdict })
    }
}

impl Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("recording", &self.recording)
            .field("capacity", &self.slots.len())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

/// A reading as a recording has it.
#[inline]
pub fn nanos(reading: Monotonic) -> u64 {
    reading.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Monotonic = Monotonic::from_origin(Duration::from_secs(5));

    fn note(recorder: &Recorder, first: u64) -> DecisionId {
        recorder.notable(Rule::Bulkhead, 3, NOW, [first, 2, 3, 4, 5, 6, 7], 9)
    }

    #[test]
    fn the_ring_keeps_the_latest_and_finds_them_by_name() {
        let recorder = Recorder::new(Recording::Notable, 4, 0xabcdef);
        let ids: Vec<_> = (0..10).map(|n| note(&recorder, n)).collect();
        let kept = recorder.decisions();
        assert_eq!(kept.iter().map(|decision| decision.inputs[0]).collect::<Vec<_>>(), [6, 7, 8, 9]);
        for (id, decision) in ids[6..].iter().zip(&kept) {
            assert_eq!((recorder.find(*id), decision.id), (Some(*decision), *id));
        }
        assert_eq!(recorder.find(ids[5]), None, "overwritten");
        assert_eq!(recorder.find(DecisionId(ids[9].0 + 1)), None, "not taken yet");
        let other = Recorder::new(Recording::Notable, 4, 0xabcdee);
        note(&other, 0);
        assert_eq!(other.find(ids[9]), None, "another recorder's");
        assert_eq!(recorder.lost(), 0);
    }

    #[test]
    fn what_is_not_to_be_kept_is_not() {
        let notable = Recorder::new(Recording::Notable, 4, 1);
        notable.plain(Rule::Retry, 0, NOW, [0; INPUTS], 0);
        assert!(notable.decisions().is_empty() && !notable.keeps_all());
        let all = Recorder::new(Recording::All, 4, 1);
        all.plain(Rule::Retry, 0, NOW, [0; INPUTS], 0);
        assert_eq!(all.decisions().len(), 1);
        for off in [Recorder::off(), Recorder::new(Recording::All, 0, 1)] {
            assert_eq!(note(&off, 1), DecisionId::UNRECORDED);
            assert!(off.decisions().is_empty() && off.find(DecisionId::UNRECORDED).is_none());
        }
    }

    #[test]
    fn writers_side_by_side_leave_whole_records() {
        let recorder = Recorder::new(Recording::Notable, 8, 1);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let recorder = &recorder;
                scope.spawn(move || {
                    for i in 0..20_000 {
                        let n = thread << 32 | i;
                        recorder.notable(Rule::Retry, 0, NOW, [n; INPUTS], n);
                    }
                });
            }
            for _ in 0..2_000 {
                for decision in recorder.decisions() {
                    assert_eq!(decision.inputs, [decision.verdict; INPUTS], "of one writer");
                }
            }
        });
    }

    #[test]
    fn a_key_stands_as_a_number_that_another_recorder_does_not_share() {
        let (one, other) = (Recorder::off(), Recorder::off());
        assert_eq!(one.redacted(&"ada"), one.redacted(&"ada"));
        assert_ne!(one.redacted(&"ada"), one.redacted(&"bob"));
        assert_ne!(one.redacted(&"ada"), other.redacted(&"ada"));
    }
}
