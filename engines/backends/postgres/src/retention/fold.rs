//! Folding, decided: marks of one lane into watermark, holes and ring; runs of sent rows into ranges.

use std::collections::BTreeMap;

use mainstay_event_store::inbox::{self, Hole, Known, Recent};
use mainstay_event_store::outbox::Run;

/// What is folded of one lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) watermark: u64,
    /// First number of each hole, with its last.
    pub(crate) holes: BTreeMap<u64, u64>,
    /// By slot.
    pub(crate) ring: BTreeMap<u64, Recent>,
}

/// What folding changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Firsts of holes that are gone.
    pub(crate) removed: Vec<u64>,
    pub(crate) added: Vec<Hole>,
    /// What the ring now has elsewhere than before.
    pub(crate) remembered: Vec<Recent>,
    /// Marks that would have made more ranges than are kept: they stay where they are.
    pub(crate) left: usize,
}

impl Lane {
    fn known(&self, seq: u64) -> Known {
        let below = self.holes.range(..=seq).next_back();
        Known {
            watermark: self.watermark,
            holes: self.holes.len() as u64,
            hole: below.map(|(&first, &last)| Hole { first, last }).filter(|hole| seq <= hole.last),
            recent: self.ring.get(&inbox::slot(seq)).copied(),
        }
    }

    /// Folds marks, in any order, and again if they were folded before. Each costs a look-up.
    pub(crate) fn fold(&mut self, marks: &[Recent]) -> Changed {
        let before = (self.holes.clone(), self.ring.clone());
        let mut left = 0;
        for mark in marks {
            // A number outside the range was refused when it was marked; were it here, it could only stay.
            let Ok((_, change)) = inbox::mark(mark.seq, &mark.hash, &self.known(mark.seq)) else {
                left += 1;
                continue;
            };
            let Some(change) = change else { continue };
            self.watermark = change.watermark;
            if let Some(first) = change.remove {
                self.holes.remove(&first);
            }
            self.holes.extend(change.add.iter().flatten().map(|hole| (hole.first, hole.last)));
            if change.remember {
                self.ring.insert(inbox::slot(mark.seq), *mark);
            }
        }
        let (holes, ring) = before;
        let kept = |first: &u64, last: &u64, among: &BTreeMap<u64, u64>| among.get(first) == Some(last);
        Changed {
            removed: holes
                .iter()
                .filter(|(first, last)| !kept(first, last, &self.holes))
                .map(|(first, _)| *first)
                .collect(),
            added: self
                .holes
                .iter()
                .filter(|(first, last)| !kept(first, last, &holes))
                .map(|(&first, &last)| Hole { first, last })
                .collect(),
            remembered: self
                .ring
                .iter()
                .filter(|(slot, recent)| ring.get(slot) != Some(recent))
                .map(|(_, recent)| *recent)
                .collect(),
            left,
        }
    }
}

/// Joins runs that touch or overlap, within an epoch.
pub(crate) fn join(mut runs: Vec<(i64, Run)>) -> Vec<(i64, Run)> {
    runs.sort_unstable_by_key(|(epoch, run)| (*epoch, run.first));
    let mut joined: Vec<(i64, Run)> = Vec::new();
    for (epoch, run) in runs {
        match joined.last_mut() {
            Some((of, last)) if *of == epoch && run.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(run.last);
            }
            _ => joined.push((epoch, run)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

    use std::collections::BTreeSet;

    use mainstay_event_store::inbox::{HOLES_MAX, RECENT, Window};
    use mainstay_event_store::outbox::Sent;
    use proptest::prelude::*;

    use super::*;

    fn mark(seq: u64) -> Recent {
        Recent { seq, hash: [seq as u8; 32] }
    }

    /// What the database holds: changed by what folding says, not by what it has in memory.
    #[derive(Default)]
    struct Stored {
        watermark: u64,
        holes: BTreeMap<u64, u64>,
        ring: BTreeMap<u64, Recent>,
    }

    impl Stored {
        fn lane(&self) -> Lane {
            Lane { watermark: self.watermark, holes: self.holes.clone(), ring: self.ring.clone() }
        }

        fn write(&mut self, lane: &Lane, changed: &Changed) {
            self.watermark = lane.watermark;
            for first in &changed.removed {
                assert!(self.holes.remove(first).is_some(), "hole {first} was not there");
            }
            for hole in &changed.added {
                assert!(self.holes.insert(hole.first, hole.last).is_none(), "{hole:?} was there");
            }
            self.ring.extend(changed.remembered.iter().map(|recent| (inbox::slot(recent.seq), *recent)));
        }
    }

    proptest! {
        #[test]
        fn folded_in_any_portions_a_lane_says_what_the_window_says(
            portions in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![1u64..60, 1u64..5_000], 0..40), 1..12),
        ) {
            let (mut stored, mut window) = (Stored::default(), Window::default());
            let mut all = BTreeSet::new();
            for portion in &portions {
                // As the database hands them out: each once, in order.
                let portion: BTreeSet<u64> = portion.iter().copied().collect();
                let marks: Vec<Recent> = portion.iter().map(|seq| mark(*seq)).collect();
                for again in 0..2 {
                    let mut lane = stored.lane();
                    let changed = lane.fold(&marks);
                    stored.write(&lane, &changed);
                    prop_assert_eq!(&stored.lane(), &lane);
                    prop_assert_eq!(changed.left, 0);
                    prop_assert!(again == 0 || changed == Changed::default(), "folded twice: {:?}", changed);
                }
                for seq in &portion {
                    window.mark(*seq, &mark(*seq).hash).unwrap();
                }
                all.extend(portion);
                let lane = stored.lane();
                for seq in 1..all.last().copied().unwrap_or(0) + 2 {
                    let (mine, theirs) = (lane.known(seq), window.known(seq));
                    prop_assert_eq!((mine.watermark, mine.holes, mine.hole),
                                    (theirs.watermark, theirs.holes, theirs.hole));
                    if seq + RECENT > mine.watermark {
                        prop_assert_eq!(mine.recent, theirs.recent, "the ring at {}", seq);
                    }
                }
            }
        }

        #[test]
        fn joined_runs_say_what_they_said(
            runs in proptest::collection::vec((1i64..3, 1u64..80, 0u64..6), 0..40),
        ) {
            let runs: Vec<(i64, Run)> =
                runs.into_iter().map(|(epoch, first, more)| (epoch, Run { first, last: first + more })).collect();
            let joined = join(runs.clone());
            for epoch in 1..3 {
                let of = |runs: &[(i64, Run)]| {
                    let mut sent = Sent::default();
                    runs.iter().filter(|(of, _)| *of == epoch).for_each(|(_, run)| sent.mark(*run));
                    sent
                };
                prop_assert_eq!(of(&joined), of(&runs));
                let mine: Vec<Run> = joined.iter().filter(|(of, _)| *of == epoch).map(|(_, run)| *run).collect();
                prop_assert!(mine.windows(2).all(|pair| pair[0].last + 1 < pair[1].first), "they touch: {:?}", mine);
            }
        }
    }

    #[test]
    fn what_would_make_too_many_ranges_stays_a_mark() {
        let mut lane = Lane::default();
        let marks: Vec<Recent> = (1..=HOLES_MAX + 5).map(|i| mark(2 * i)).collect();
        let changed = lane.fold(&marks);
        assert_eq!((changed.left, lane.holes.len() as u64), (5, HOLES_MAX));
        // When holes are filled, there is room for them.
        let filled: Vec<Recent> = (1..=5).map(|i| mark(2 * i - 1)).collect();
        assert_eq!(lane.fold(&filled).left, 0);
        assert_eq!(lane.fold(&marks).left, 0);
        assert_eq!(lane.watermark, 2 * (HOLES_MAX + 5));
    }
}
